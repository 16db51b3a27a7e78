import base64
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from snapvideo.recipes.study.clips import Clip
from snapvideo.recipes.study.plan import about, plan
from snapvideo.recipes.study.questions import QUESTIONS

from ..conftest import call
from .conftest import PROMPTS, make_clips

DEMO = "runs/demo/latest"
FIXED = ["--device", "cpu", "--precision", "32-true"]


def clip_of(page, side, pair):
    return base64.b64decode(re.search(f'id="{side}-{pair}">([^<]*)<', page)[1])


def test_the_page_shows_both_clips_of_each_prompt_as_the_key_says(asked, videos):
    key, shown = asked.key, json.loads(re.search(r'id="study">(.*?)</script>', asked.page)[1])
    assert [pair["name"] for pair in shown["pairs"]] == list(key["pairs"])
    assert sorted(pair["prompt"] for pair in shown["pairs"]) == sorted(PROMPTS)
    assert list(key["questions"]) == [question.name for question in QUESTIONS] == shown["questions"]
    names = {"a": "zebra", "b": "quokka"}
    for pair in shown["pairs"]:
        told = key["pairs"][pair["name"]]
        assert told["prompt"] == pair["prompt"]
        other = {"a": "b", "b": "a"}[told["left"]]
        for side, whose in (("left", told["left"]), ("right", other)):
            file = f"p{PROMPTS.index(pair['prompt']):02d}_s0_{names[whose]}.mp4"
            assert clip_of(asked.page, side, pair["name"]) == (videos / names[whose] / file).read_bytes()


def test_the_page_says_nothing_of_whose_clip_is_where(asked):
    """Neither in what can be read nor in the clips; and the key is not in it."""
    clips = re.findall(r'id="(?:left|right)-\w+">([^<]*)<', asked.page)
    assert len(clips) == 2 * len(PROMPTS)
    texts = [asked.page, *(base64.b64decode(clip).decode("latin-1") for clip in clips)]
    for word in ("zebra", "quokka", "meta.jsonl", "key.json", "p00_s0", "runs/", str(asked.folder)):
        assert not any(word in text for text in texts), word
    shown = json.loads(re.search(r'id="study">(.*?)</script>', asked.page)[1])
    assert set(shown) == {"study", "pairs", "questions"} and all(
        set(pair) == {"name", "prompt"} for pair in shown["pairs"]
    )
    places = [asked.page.index(f'id="{side}-{pair}"') for pair in asked.key["pairs"] for side in ("left", "right")]
    assert places == sorted(places)  # not A before B, but left before right


def test_the_page_asks_nothing_of_other_hosts(asked):
    page = re.sub(r'id="(?:left|right)-\w+">[^<]*<', "<", asked.page)
    assert not re.findall(r"https?://|//\w+\.\w+|src=|@import|url\(", page)
    assert "default-src 'none'; media-src blob:;" in page
    assert page.count("</script>") == page.count("<script")  # that of the prompt ends none


def pairs_in(folder, count):
    pairs = []
    for number in range(count):
        for side in "ab":
            (folder / f"{side}{number}").write_bytes(f"{side}{number}".encode())
        pairs.append(tuple(Clip(f"prompt {number}", 0, folder / f"{side}{number}") for side in "ab"))
    return pairs


def test_sides_are_balanced_and_order_is_random(tmp_path):
    """A is left in half of the pairs of each study; over 300 studies, in about half of those of each prompt."""
    left, first, extra, pairs = Counter(), Counter(), Counter(), pairs_in(tmp_path, 7)
    for seed in range(300):
        study = plan(pairs, about(["one", "two"], QUESTIONS, seed), QUESTIONS)
        number = sum(pair.a_is_left for pair in study.pairs)
        assert number in (3, 4)
        extra[number] += 1
        first[study.pairs[0].left.prompt] += 1
        left.update(pair.left.prompt for pair in study.pairs if pair.a_is_left)
        assert all((pair.left.file.name[0] == "a") == pair.a_is_left for pair in study.pairs)
        assert len({pair.name for pair in study.pairs}) == 7 == len({pair.left.prompt for pair in study.pairs})
    assert all(150 - 5 * 8.7 < number < 150 + 5 * 8.7 for number in [*left.values(), *extra.values()])  # 5 deviations
    assert len(first) == 7 and all(43 - 5 * 6.1 < number < 43 + 5 * 6.1 for number in first.values())


def test_a_study_is_a_function_of_seed_and_clips(asked, videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["study", videos / "zebra", videos / "quokka"]
    for out, more in (("same", []), ("other", ["--seed", 1])):
        assert call(*words, "-o", out, *more).code == 0
    same, other = (Path(out, "key.json").read_text() for out in ("same", "other"))
    assert same == (asked.folder / "key.json").read_text() and Path("same/study.html").read_text() == asked.page
    assert json.loads(other)["study"] != json.loads(same)["study"]
    assert not set(json.loads(other)["pairs"]) & set(json.loads(same)["pairs"])
    result = call(*words)
    assert result.code == 0 and len(list(Path("studies").glob("*/study.html"))) == 1
    assert call(*words, "-o", "same").code == 0  # again
    before = Path("same/key.json").read_text()
    for change, message in (["--seed", 1], "its seed is 0"), (["--question", "beauty: Which?"], "its questions is"):
        result = call(*words, "-o", "same", *change)
        assert result.code == 2 and message in result.err and "name another folder" in result.err
    assert Path("same/key.json").read_text() == before
    Path("same/key.json").unlink()
    result = call(*words, "-o", "same")
    assert result.code == 2 and "study.html without its key.json" in result.err


def test_clips_of_another_content_are_another_study(made, videos, tmp_path):
    for name in ("zebra", "quokka"):
        shutil.copytree(videos / name, tmp_path / "copy" / name)
    words = ["study", tmp_path / "copy" / "zebra", tmp_path / "copy" / "quokka", "-o", tmp_path / "two"]
    assert call(*words).code == 0
    make_clips(tmp_path / "copy" / "zebra", shade=9)
    result = call(*words)
    assert result.code == 2 and "its clips were others" in result.err


def test_questions_of_ones_own(videos, tmp_path):
    asked = ["--question", "beauty: Which is <b>nicer</b>?", "--question", "speed: Which is faster: left or right?"]
    assert call("study", videos / "zebra", videos / "quokka", "-o", tmp_path, *asked).code == 0
    key, page = json.loads((tmp_path / "key.json").read_text()), (tmp_path / "study.html").read_text()
    assert key["questions"] == {"beauty": "Which is <b>nicer</b>?", "speed": "Which is faster: left or right?"}
    assert "Which is &lt;b&gt;nicer" in page and page.count("<fieldset") == 2


def test_clips_that_raters_can_tell_apart_are_told(videos, tmp_path):
    make_clips(tmp_path / "large", size=64)
    result = call("study", videos / "zebra", tmp_path / "large", "-o", tmp_path / "out")
    assert result.code == 0 and "a clip of A is of 32x32 pixels, 0.50 s, and that of B of 64x64" in result.out


def test_folders_that_do_not_match_are_refused(videos, tmp_path):
    zebra, out = videos / "zebra", tmp_path / "out"

    def refused(other, *more):
        result = call("study", zebra, other, "-o", out, *more)
        assert result.code == 2 and not out.exists(), result.out
        return result.err

    less = make_clips(tmp_path / "less", PROMPTS[:4])
    assert f"{less} has no clip of 'ein grüner Vogel' with seed 0" in refused(less)
    more = make_clips(tmp_path / "more", [*PROMPTS, "one more"])
    assert f"{zebra} has no clip of 'one more'" in refused(more)
    assert "with seed 0" in refused(make_clips(tmp_path / "seeds", seeds=(1,)))
    assert "are one folder" in refused(zebra)
    assert "is a folder of videos, and" in refused("demo")
    assert "--prompts is of sampling" in refused(videos / "quokka", "--prompts", "x")
    twice = make_clips(tmp_path / "twice", [*PROMPTS, PROMPTS[0]])
    assert "is there twice" in refused(twice)
    (less / "p00_s0_less.mp4").unlink()
    assert "p00_s0_less.mp4 is not there" in refused(less)
    (less / "meta.jsonl").write_text('{"prompt": "x"}\n')
    assert "line 1: file, prompt and seed" in refused(less)
    (less / "meta.jsonl").write_text("")
    assert "nothing to rate" in refused(less)


def test_studies_that_are_too_large_are_refused(videos, tmp_path):
    large = make_clips(tmp_path / "large")
    with (large / "p00_s0_large.mp4").open("r+b") as file:
        file.truncate(151_000_000)
    result = call("study", videos / "zebra", large, "-o", tmp_path / "out")
    assert result.code == 2 and "the page of 5 pairs would have 201 MB" in result.err
    (large / "p00_s0_large.mp4").write_bytes(b"no video")
    result = call("study", videos / "zebra", large, "-o", tmp_path / "out")
    assert result.code == 2 and "p00_s0_large.mp4 is no video" in result.err
    line = {"file": "p01_s0_large.mp4", "prompt": "x"}
    (large / "meta.jsonl").write_text("".join(json.dumps(line | {"seed": seed}) + "\n" for seed in range(501)))
    result = call("study", large, videos / "zebra", "-o", tmp_path / "out")
    assert result.code == 2 and "501 pairs; a study has at most 500" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a study compares two"),
        (["demo"], "a study compares two"),
        (["demo", "demo"], "--prompts FILE"),
        (
            ["demo", "demo", "--prompts", "prompts.txt", "--steps", "1,2,3"],
            "--steps 1,2,3: 3 numbers; 2 or one for all",
        ),
        (["demo", "demo", "--prompts", "prompts.txt", "--steps", "0,1"], "num_steps=0"),
        (["demo", "dmeo", "--prompts", "prompts.txt"], "Did you mean 'demo'?"),
        (["demo", "demo", "--prompts", "prompts.txt", "-n", "0"], "-n 0: it must be at least 1"),
        (["demo", "demo", "--prompts", "prompts.txt"], "are one model with the same settings"),
        (
            ["demo", "demo", "--prompts", "prompts.txt", "--steps", "1,2", "-n", "501"],
            "501 pairs; a study has at most 500",
        ),
        (["demo", "demo", "--prompts", "twice.txt", "--steps", "1,2"], "'a red circle' with seed 0 is there twice"),
        (["demo", "demo", "--question", "Which is nicer?"], "write NAME: TEXT"),
        (["demo", "demo", "--question", "a: b", "--question", "A: c"], "there is one of the name 'A' already"),
        (["demo", "demo", "--key", "key.json"], "--key is of --tally"),
        (["demo", "--tally", "x.json"], "--tally takes votes alone"),
    ],
)
def test_what_cannot_be_is_said_at_once(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    (tmp_path / "twice.txt").write_text("a red circle\na red circle\n")
    result = call("study", *words, "-o", "out")
    assert result.code == 2 and message in result.err, result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt", "twice.txt"]


def test_two_runs_are_sampled_as_sample_would_and_gone_on_with(work, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red circle moves left\na blue square\n")
    out = tmp_path / "out"
    words = ["--prompts", tmp_path / "prompts.txt", "--seed", 3, *FIXED]
    result = call("study", DEMO, DEMO, "--steps", "1,2", *words, "-o", out)
    assert result.code == 0, result.err
    assert f"page: {out / 'study.html'} (2 pairs" in result.out
    assert call("sample", DEMO, "-n", 1, "--steps", 2, *words, "-o", tmp_path / "alone").code == 0
    assert (out / "b" / "meta.jsonl").read_bytes() == (tmp_path / "alone" / "meta.jsonl").read_bytes()
    key = json.loads((out / "key.json").read_text())
    assert (key["a"], key["b"], key["seed"]) == (f"{DEMO}, steps 1", f"{DEMO}, steps 2", 3)
    assert {(pair["prompt"], pair["seed"]) for pair in key["pairs"].values()} == {
        ("a red circle moves left", 3),
        ("a blue square", 3),
    }
    page = (out / "study.html").read_text()
    for pair, told in key["pairs"].items():
        for side, whose in (("left", told["left"]), ("right", {"a": "b", "b": "a"}[told["left"]])):
            (file,) = (
                out / whose / line["file"]
                for line in map(json.loads, (out / whose / "meta.jsonl").read_text().splitlines())
                if line["prompt"] == told["prompt"]
            )
            assert clip_of(page, side, pair) == file.read_bytes()
    for name in ("key.json", "study.html"):  # as of a command that was killed while it sampled
        (out / name).unlink()
    gone, *kept = [*sorted((out / "b").glob("p*.mp4")), *(out / "a").glob("p*.mp4")]
    times = {path: path.stat().st_mtime_ns for path in kept}
    gone.unlink()
    assert call("study", DEMO, DEMO, "--steps", "1,2", *words, "-o", out).code == 0
    assert gone.is_file() and times == {path: path.stat().st_mtime_ns for path in kept}
    result = call("study", DEMO, DEMO, "--steps", "1,3", *words, "-o", out)
    assert result.code == 2 and "its b is" in result.err
    (tmp_path / "prompts.txt").write_text("a red circle moves left\na blue square\nmore\n")
    result = call("study", DEMO, DEMO, "--steps", "1,2", *words, "-o", out)
    assert result.code == 2 and "its prompts or seeds are others" in result.err


def test_what_is_ended_early_says_how_to_go_on(work, tmp_path, monkeypatch):
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(work / "runs")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    words = ["study", DEMO, DEMO, "--steps", "1,2", "--prompts", "prompts.txt", *FIXED]
    with monkeypatch.context() as patch:
        patch.setattr("snapvideo.recipes.videos.VideoFolder.write_overview", interrupted)
        result = call(*words)
    assert result.code == 130 and "makes the rest" in result.out
    where = result.out.rpartition("-o ")[2].split()[0]
    assert where.startswith("studies/")
    result = call(*words, "-o", where)
    assert result.code == 0, result.err
    assert (tmp_path / where / "study.html").is_file()
