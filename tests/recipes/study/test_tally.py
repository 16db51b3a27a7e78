import json
import math

import pytest

from snapvideo.recipes.study.tally import alpha, wilson

from ..conftest import call

Z = 1.959963984540054  # of 95%, by the tables
MOTION = "quantity of motion"


@pytest.mark.parametrize(("wins", "count"), [(0, 10), (10, 10), (3, 7), (12.5, 40), (501, 1000)])
def test_the_ends_of_an_interval_are_z_deviations_away(wins, count):
    """As the score test of each end would have it: neither rejects what was seen, and anything beyond does."""
    low, high = wilson(wins, count)
    share = wins / count
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / count, abs=1e-12)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    mirrored = wilson(count - wins, count)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_without_a_win_the_interval_has_a_closed_form():
    assert wilson(0, 10) == pytest.approx((0, Z**2 / (10 + Z**2)))
    assert all(map(math.isnan, wilson(0, 0)))


def columns(*raters):
    """Units of rows of labels, a row for each rater; a dot is no label."""
    return [[label for label in unit if label != "."] for unit in zip(*raters, strict=True)]


def test_agreement_is_that_of_the_worked_examples():
    """Those of Krippendorff (2011): B, two raters and two labels; C, four raters, five labels and missing ones."""
    two = columns("0100000010", "1110010000")
    assert alpha(two) == pytest.approx(1 - 19 * 4 / (14 * 6))  # 4 of 10 differ; 14 zeros and 6 ones: 0.095
    four = columns("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert round(alpha(four), 3) == 0.743
    same, of_each = 7 + 10 + 8 + 4 + 3, [9, 13, 10, 5, 3]  # his table of coincidences: its diagonal and its margins
    chance = sum(n * (n - 1) for n in of_each)
    assert alpha(four) == pytest.approx((39 * same - chance) / (40 * 39 - chance))


def test_agreement_without_anything_to_compare_is_no_number():
    assert math.isnan(alpha([["a"], ["b"], []]))
    assert math.isnan(alpha([["a", "a"], ["a", "a"]]))
    assert alpha([["a", "a"], ["b", "b"]]) == 1
    assert alpha([["a", "b"], ["b", "a"]]) < 0


def tally(made, *words):
    return call("study", "--tally", *sorted(made.folder.glob("votes*.json")), *words)


def test_votes_are_counted_by_whose_clip_they_chose(made):
    """Three raters of five pairs; one of them has left out the last two."""
    made.votes("ann", lambda place, question: "a")
    made.votes("bob", lambda place, question: "none" if question == MOTION else "a" if place else "b")
    made.votes("cem", lambda place, question: "b" if place < 3 else None)
    result = tally(made)
    assert result.code == 0, result.err
    found = json.loads((made.folder / "tally.json").read_text())
    assert found["raters"] == {"ann": 20, "bob": 20, "cem": 12} and found["pairs"] == 5
    assert (found["a"].split("/")[-1], found["b"].split("/")[-1]) == ("zebra", "quokka")
    motion, real = found["questions"][MOTION], found["questions"]["photorealism"]
    assert [motion[name] for name in ("votes", "a", "b", "none")] == [13, 5, 3, 5]
    assert motion["preference"] == pytest.approx(7.5 / 13)
    assert [real[name] for name in ("votes", "a", "b", "none")] == [13, 9, 4, 0]
    units = [["a", "b", "b"], ["a", "a", "b"], ["a", "a", "b"], ["a", "a"], ["a", "a"]]
    assert real["agreement"] == pytest.approx(alpha(units))
    row = next(line.split() for line in result.out.splitlines() if line.startswith("photorealism"))
    assert row[1] == f"{100 * 9 / 13:.1f}%" and row[5:9] == ["9", "0", "4", "13"]
    assert "votes_cem.json: 8 of 20 answers are missing" in result.out
    assert "votes_ann.json:" not in result.out


def test_one_rater_agrees_with_nobody(made):
    made.votes("ann", lambda place, question: "a" if question == MOTION else None)
    result = tally(made)
    assert result.code == 0, result.err
    found = json.loads((made.folder / "tally.json").read_text())["questions"]
    assert found[MOTION]["agreement"] is None and found[MOTION]["preference"] == 1
    assert found["photorealism"]["preference"] is None and found["photorealism"]["votes"] == 0


@pytest.mark.parametrize("place", ["beside", "here", "studies", "named", "folder"])
def test_the_key_is_found(made, place, tmp_path):
    votes = made.votes("ann", lambda *_: "a")
    there, here = tmp_path / "elsewhere", tmp_path / "studies" / "one"
    there.mkdir()
    here.mkdir(parents=True)
    key = made.folder / "key.json"
    target = {"beside": made.folder, "here": tmp_path, "studies": here}.get(place, made.folder)
    key = key.rename(target / "key.json")
    (there / "key.json").write_text("{}")  # another's file of that name
    if place != "beside":
        votes = votes.rename(there / "votes_ann.json")
    given = {"named": ["--key", key], "folder": ["--key", target]}.get(place, [])
    result = call("study", "--tally", votes, *given)
    assert result.code == 0, result.err
    assert (target / "tally.json").is_file()


def test_a_key_that_is_not_there_or_another_is_told(made, tmp_path):
    votes = made.votes("ann", lambda *_: "a").rename(tmp_path / "votes.json")
    result = call("study", "--tally", votes)
    assert result.code == 2 and "--key DIR/key.json names it" in result.err
    other = made.write(made.key | {"study": "another"}, "other.json")
    result = call("study", "--tally", votes, "--key", other)
    assert result.code == 2 and "is of the study another, and the votes are of" in result.err
    for text in ("{}", "[1]", '{"study": 3'):
        result = call("study", "--tally", votes, "--key", made.write(text, "other.json"))
        assert result.code == 2 and "is no key of a study" in result.err


def vote(**changes):
    return lambda found: found["votes"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(study="another"), "is of the study another, and"),
        (lambda found: found.update(rater=" ANN "), "are both of ANN: leave out the older one"),
        (lambda found: found.update(rater=""), "votes_bob.json: rater is ''"),
        (lambda found: found.pop("votes"), "votes_bob.json has no votes"),
        (vote(pair="00000000"), "votes_bob.json: the study has no pair '00000000'"),
        (vote(question="beauty"), "votes_bob.json: the study has no question 'beauty'"),
        (vote(answer="both"), "vote 1: answer is 'both'; known: left, none, right"),
        (vote(pair=["x"]), "vote 1: pair, question and answer must be texts"),
        (lambda found: found["votes"].append(found["votes"][0]), "vote 21: 'photorealism' of the pair"),
        (lambda found: found["votes"].append(7), "vote 21: pair, question and answer"),
    ],
)
def test_votes_that_are_none_are_refused(change, message, made):
    made.votes("ann", lambda *_: "a")
    file = made.votes("bob", lambda *_: "b")
    found = json.loads(file.read_text())
    change(found)
    made.write(found, file.name)
    result = tally(made)
    assert result.code == 2 and message in result.err, result.err
    assert not (made.folder / "tally.json").exists()


def test_files_that_are_none_are_refused(made):
    for text, message in (("", "is not JSON"), ('{"study": "x", "vo', "is not JSON, or cut short"), ("[]", "no votes")):
        result = call("study", "--tally", made.write(text, "votes_x.json"))
        assert result.code == 2 and message in result.err and "votes_x.json" in result.err
    result = call("study", "--tally", "nowhere.json")
    assert result.code == 2 and "nowhere.json cannot be read" in result.err
    result = call("study", "--tally", made.write("[]", "votes_x.json"), "--prompts", "x")
    assert result.code == 2 and "--prompts is of a new study" in result.err
