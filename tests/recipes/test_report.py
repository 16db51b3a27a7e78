import base64
import csv
import hashlib
import json
import math
import platform
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from snapvideo.components.callbacks import SampleGrid
from snapvideo.recipes.interrupt import Interrupted
from snapvideo.recipes.lock import is_training, only_training
from snapvideo.recipes.report import make_page, read_run, watch, write_report
from snapvideo.recipes.report.folder import Curve
from snapvideo.recipes.report.panels import turned_up
from snapvideo.recipes.report.progress import state_of

from .conftest import call

VOID = {"meta", "input", "img", "br", "hr", "link"}
FEW = ["--data.num_videos=4", "--data.num_images=4", "--trainer.max_steps", 6, "--trainer.val_check_interval", 3]
FEW += ["--sampling.every_n_steps", 2, "--checkpoint.every_n_steps", 3]


class Page(HTMLParser):
    """A page as a browser without scripts sees it; anything that is not well-formed is an error."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.readings, self.names = [], [], [], {}, []
        self.feed(html.decode("utf-8"))
        self.close()
        assert self.open == []
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), attributes
        self.tags.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            return
        self.text.append(data)
        if self.open[-2:] == ["li", "code"]:
            self.names.append(data)
        if self.open and self.open[-1] == "output":
            self.readings[self.names[-1]] = data

    def all(self, tag, **attributes):
        return [found for name, found, _ in self.tags if name == tag and attributes.items() <= found.items()]


def page_of(run):
    return Page(make_page(read_run(run)))


def write_run(run, rows=(), **files):
    """A run folder with a recipe, metrics, and other files as they are given."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("trainer: {max_steps: 100}\nema: {half_life: 10.0}\n")
    if rows:
        names = sorted({name for row in rows for name in row})
        with (run / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    for name, content in files.items():
        (run / f"{name}.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return run


def rows_of(values, name="train/loss"):
    """As Lightning writes them: the step that is counted from 0."""
    return [{"step": step - 1, "epoch": 0, name: value} for step, value in values]


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A run whose files hold all that a browser or a reader may trip over."""
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\x00\x1b\ud800"
    rows = rows_of([(10, 1.0), (20, float("nan")), (30, 0.5)], bad)
    rows[1]["train/loss"] = "http://example.com/"
    rows = [{name.replace("\ud800", "").replace("\0", ""): value for name, value in row.items()} for row in rows]
    environment = {"command": bad, "versions": {bad: bad}, "started": bad, "device": [bad]}
    census = {bad: {"unusable": {bad: bad}, "sources": [bad, {"path": bad}], "spread": {bad: [1]}, "files": bad}}
    progress = {"state": "failed", "why": bad, "step": bad, "time": bad, "seconds": math.nan, "clips": bad}
    run = write_run(tmp_path_factory.mktemp("runs") / "<b>x", rows, env=environment, census=census, progress=progress)
    (run / "config.yaml").write_bytes(b"a: '</pre><script>' # \xff\xfe\nema: [1\n")
    samples = run / "samples/step=00000010"
    samples.mkdir(parents=True)
    (samples / "meta.jsonl").write_bytes(json.dumps({"prompt": bad, "seed": bad}).encode() + b'\n{"prompt": "\xff')
    (samples / "contact_sheet.png").write_bytes(b"\x89PNG\r\n\x1a\n<svg onload=alert(1)>")
    (samples / "grid.gif").write_bytes(b"<html>")
    (run / "samples/step=99").write_text("a file")
    return run


@pytest.fixture(scope="session")
def killed(trained, tmp_path_factory):
    """The demo's run as it is when its process vanishes while it writes."""
    run = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree((trained[0] / "runs/demo/latest").resolve(), run)
    progress = json.loads((run / "progress.json").read_text()) | {"state": "running", "max_steps": 100}
    (run / "progress.json").write_text(json.dumps(progress))
    metrics = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(metrics + metrics.splitlines()[-1][:-3])
    for name in ("contact_sheet.png", "grid.gif", "meta.jsonl"):
        file = run / "samples/step=00000020" / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (run / "census.json").write_text('{"video": {"fil')
    return run


@pytest.fixture(params=["finished", "killed", "hostile", "config alone", "nothing"])
def run(request, tmp_path):
    if request.param == "finished":
        return request.getfixturevalue("trained")[0] / "runs/demo/latest"
    if request.param in ("killed", "hostile"):
        return request.getfixturevalue(request.param)
    return write_run(tmp_path / "run") if request.param == "config alone" else tmp_path


def test_a_page_is_whole_and_asks_the_network_for_nothing(run):
    page = page_of(run)
    assert page.tags[0][0] == "html" and len(page.all("h1")) == 1
    for tag, attributes, _ in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "srcset", "action", "xlink:href")
            if name in ("src", "href"):
                assert value.startswith({"img": "data:image/", "a": "#"}[tag])
    targets = {attributes["id"] for _, attributes, _ in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= targets
    assert all(image["alt"] for image in page.all("img"))


def test_a_page_runs_no_script_but_its_own(run):
    html = make_page(read_run(run))
    (policy,) = (meta["content"] for meta in Page(html).all("meta") if "http-equiv" in meta)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for tag in ("script", "style"):
        (text,) = re.findall(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), html, re.DOTALL)
        assert rules[f"{tag}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


def test_fit_leaves_a_page_that_holds_all(work, trained):
    (line,) = (line for line in trained[1].out.splitlines() if line.startswith("report:"))
    file = Path(line.removeprefix("report:").strip())
    assert file == Path("runs/demo") / Path("runs/demo/latest").readlink() / "report.html"
    page, run = Page(file.read_bytes()), file.parent
    assert "✓ finished at step 20 of 20" in page.words
    assert "snapvideo fit -c demo --smoke" in page.words
    assert "step=00000020.ckpt" in page.words
    assert (run / "config.yaml").read_text().split("\n")[0] in page.words
    assert f"{20 * 4} " in page.words.split("clips seen")[1]
    assert "a red circle moves left" in page.words and "data/smoke/videos" in page.words
    last = {}
    for row in csv.DictReader((run / "metrics.csv").open()):
        last |= {name: float(value) for name, value in row.items() if value and name not in ("step", "epoch")}
    assert page.readings.keys() == last.keys()
    for name, reading in page.readings.items():
        value = float(reading.rstrip("%").replace(",", "")) / (100 if reading.endswith("%") else 1)
        assert value == pytest.approx(last[name], rel=1e-3), name
    assert len(page.all("img")) == 1 + len(list((run / "samples").glob("step=*")))


def test_a_killed_run_has_a_page(killed):
    page = page_of(killed)
    assert "■ stopped at step 20 of 100" in page.words
    assert "killed" in page.words
    assert "census.json is not JSON" in page.words
    assert "contact_sheet.png is not there, or cannot be read" in page.words
    assert len(page.readings) == len(page_of(killed).readings) > 5


def test_a_page_says_what_is_missing(tmp_path):
    page = page_of(write_run(tmp_path / "run"))
    for file in ("env.json", "census.json", "metrics.csv"):
        assert f"{file} is not there" in page.words
    assert "No samples yet" in page.words and "? unknown at step 0 of 100" in page.words


def test_whatever_files_say_is_text(hostile):
    page = page_of(hostile)
    assert len(page.all("script")) == 1 and page.all("img") == []
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in page.words
    assert "</pre><script>" in page.words and "<b>x" in page.words
    assert "metrics.csv: 1 rows are not numbers alone" in page.words


@pytest.mark.parametrize("log", [True, False])
def test_curves_are_drawn_at_their_values(log, tmp_path):
    """The value at a point, read by the labels of the axes, is the metric's."""
    values = [(step, 0.3 * 50 ** (-step / 100)) for step in range(10, 101, 10)]
    html = make_page(read_run(write_run(tmp_path / "run", rows_of(values, "val/loss")))).decode()
    svg = html.split(f'role="img" class="{"log" if log else "linear"}"')[1].split("</svg>")[0]
    (path,) = re.findall(r'<path d="([^"]+)" class="line s0">', svg)
    points = [tuple(map(float, point.split())) for point in path.removeprefix("M").split("L")]
    labels = re.findall(r'<text x="([^"]+)" y="([^"]+)" text-anchor="(\w+)">([^<]+)<', svg)
    up = [(float(y) - 4, float(text)) for _, y, anchor, text in labels if anchor == "end" and float(text) > 0]
    along = [(float(x), float(text)) for x, _, anchor, text in labels if anchor == "middle"]
    assert len(points) == len(values) and len(up) >= 2 and len(along) >= 3
    by_pixel = np.polyfit([y for y, _ in up], [math.log(v) if log else v for _, v in up], 1)
    for (x, y), (step, value) in zip(points, values, strict=True):
        read = np.polyval(by_pixel, y)
        assert (math.exp(read) if log else read) == pytest.approx(value, rel=0.01, abs=1e-3)
        assert np.polyval(np.polyfit(*zip(*along, strict=True), 1), x) == pytest.approx(step, abs=0.5)


def test_what_is_not_finite_or_missing_shows(tmp_path):
    steps = [10, 20, 30, 40, 50, 60, 200, 210, 220, 230, 240, 250, 260, 270]
    values = [(step, {30: math.nan, 220: math.inf, 230: -math.inf}.get(step, 1.0)) for step in steps]
    html = make_page(read_run(write_run(tmp_path / "run", rows_of(values, "mine/score")))).decode()
    (path, _) = re.findall(r'<path d="([^"]+)" class="line s0">', html)  # and the sample in the legend
    assert path.count("M") == 4  # to 20; to 60; from 200 to 210; from 240
    (crosses,) = re.findall(r'<path d="([^"]+)" class="bad"', html)
    assert crosses.count("M") == 3
    assert "NaN at step 30, ∞ at step 220, -∞ at step 230" in html
    assert "mine/score is not finite in 3 of 14 values, first at step 30." in html
    assert Page(html.encode()).readings["mine/score"] == "1"


def test_extreme_values_have_a_figure(tmp_path):
    never_finite = page_of(write_run(tmp_path / "a", rows_of([(10, math.nan), (20, math.inf)])))
    assert never_finite.readings["train/loss"] == "∞"
    huge = page_of(write_run(tmp_path / "b", rows_of([(10, 5e-324), (20, 1e308)])))
    assert huge.readings["train/loss"] == "1e308"
    signed = page_of(write_run(tmp_path / "c", rows_of([(i, -1e308) for i in range(9)] + [(20, 1e308), (30, 0.0)])))
    assert signed.readings["train/loss"] == "0"


def test_findings(tmp_path):
    rows = rows_of([(step, abs(step - 50) / 50 + 0.5) for step in range(10, 101, 10)], "val/loss")
    rows += rows_of([(step, 0.35) for step in range(10, 101, 10)], "data_wait")
    page = page_of(write_run(tmp_path / "run", rows, census={"video": {"share_unusable": 0.125}}))
    assert "val/loss was lowest, 0.5 at step 50, and is 1.5 now, 200% above that." in page.words
    assert "waits for data 35% of the time" in page.words
    assert "12.5% of the video files cannot be used" in page.words
    assert turned_up(Curve(range(5), [1.0, 0.0, 1.0, 1.0, 1.0])) is None  # not by any share
    falling = rows_of([(step, 1 / step) for step in range(10, 101, 10)], "val/loss")
    whole = write_run(tmp_path / "other", falling, census={"video": {}}, env={"command": "x"})
    assert "Nothing stands out" in page_of(whole).words


def test_losses_are_named_by_the_weights_they_are_of(tmp_path):
    rows = [row | {"val_raw/loss": 2.0, "val_raw/loss/band_0": 1.0} for row in rows_of([(10, 1.0)], "val/loss")]
    run = write_run(tmp_path / "run", rows)
    page = page_of(run)
    assert re.search(r"val/loss 1 averaged weights", page.words)
    assert re.search(r"val_raw/loss 2 training weights", page.words)
    (run / "config.yaml").write_text("ema: null")
    assert "1 averaged weights" not in page_of(run).words


def test_pages_stay_small(tmp_path):
    noise = np.random.default_rng(0)
    steps = range(10, 6001, 10)
    values = noise.lognormal(size=(len(steps), 150))
    rows = [{"step": s - 1} | {f"m{i}/x": v for i, v in enumerate(row)} for s, row in zip(steps, values, strict=True)]
    run = write_run(tmp_path / "run", rows)
    (run / "config.yaml").write_text("a: " + "x" * 300_000)
    frames = [Image.fromarray(noise.integers(0, 255, (400, 400, 3), np.uint8)).quantize(method=2) for _ in range(9)]
    for step in range(0, 120, 10):
        folder = run / f"samples/step={step:08d}"
        folder.mkdir(parents=True)
        frames[0].convert("RGB").resize((512, 512)).save(folder / "contact_sheet.png")
        (folder / "meta.jsonl").write_text('{"prompt": "%s"}\n' % ("y" * 1_000_000))
    frames[0].save(folder / "grid.gif", save_all=True, append_images=frames[1:], duration=125)
    html = make_page(read_run(run))
    assert len(html) < 5_000_000
    page = Page(html)
    assert len(page.all("img")) == 9
    assert "step 0" in page.words and "step 110" in page.words and "8 of 12 steps are shown" in page.words
    assert "made smaller here" in page.words and "more figures are left out" in page.words
    assert all(f"m{i}/x" in page.words for i in range(150))


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    before = write_report(run).read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: path.open("wb").write(data[:100]) and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(file.name for file in run.iterdir()) == ["config.yaml", "report.html"]


def test_the_verb_makes_the_page_anew(work, tmp_path):
    page = Path("runs/demo/latest/report.html")
    page.write_text("old")
    result = call("report", "runs/demo")
    assert result.code == 0, result.err
    assert result.out.startswith("report: runs/demo/") and Page(page.read_bytes()).readings
    assert call("report", "runs/demo/latest", "-o", tmp_path / "new/page.html").code == 0
    assert Page((tmp_path / "new/page.html").read_bytes()).readings.keys() == Page(page.read_bytes()).readings.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/demo/lates"], "Did you mean 'runs/demo/latest'?"),
        (["demo"], "exported model"),
        (["runs/demo", "-o", "."], "name a file"),
        (["runs/demo", "-o", "runs/demo/latest/config.yaml/page.html"], "cannot be written"),
    ],
)
def test_the_verb_says_what_is_wrong(words, message, work):
    result = call("report", *words)
    assert result.code == 2 and message in result.err


def test_a_training_that_fails_has_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    show = SampleGrid._show

    def fail(self, trainer, module):
        if trainer.global_step == 4:
            raise RuntimeError("no <memory> left")
        show(self, trainer, module)

    monkeypatch.setattr(SampleGrid, "_show", fail)
    result = call("fit", "-c", "demo", "--smoke", *FEW)
    assert result.code == 1 and "report: " in result.out
    file = Path("runs/demo/latest/report.html")
    page = Page(file.read_bytes())
    assert "✕ failed at step 4 of 6 — RuntimeError: no <memory> left" in page.words
    assert list(file.parent.glob("checkpoints/step=*")) and "step=0000000" in page.words


def test_a_training_goes_on_where_no_page_can_be_written(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)

    def fail(run):
        if read_run(run).progress["state"] == "running":
            raise OSError("no space left")
        write_report(run)  # at the end there is space again

    def stop(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 3

    monkeypatch.setattr(watch, "write_report", fail)
    monkeypatch.setattr(SampleGrid, "on_train_batch_end", stop)
    assert call("fit", "-c", "demo", "--smoke", *FEW).code == 0
    assert "the report could not be written: OSError: no space left" in caplog.text
    file = Path("runs/demo/latest/report.html")
    assert "■ stopped at step 3 of 6 — before max_steps" in Page(file.read_bytes()).words


def test_a_resumed_training_goes_on_in_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.log_every_n_steps", 1, "--checkpoint.keep", 0]
    assert call("fit", "-c", "demo", "--smoke", *FEW, *words).code == 0
    Path("runs/demo/latest/checkpoints/step=00000006.ckpt").unlink()  # as if killed before it was there
    seen = []

    def look(run):
        seen.append(read_run(run))
        return write_report(run)

    monkeypatch.setattr(watch, "write_report", look)
    result = call("fit", "--resume", "runs/demo/latest", "--trainer.max_steps", 5, "--model.label_dropout", 0.25)
    assert result.code == 0, result.err
    assert [run.step for run in seen] == [3, 3, 4, 5, 5] and seen[0].training  # the validation of step 3 comes again
    page = Page(Path("runs/demo/latest/report.html").read_bytes())
    assert "✓ finished at step 5 of 5" in page.words and "1 ×, last from step 3" in page.words
    assert "model.label_dropout 0.1 → 0.25" in page.words
    assert "1 are of steps that come again" in page.words and "step 6," not in page.words  # of the first time
    assert len(page.all("path", **{"class": "resumed"})) >= len(page.all("figure")) - 5  # one in each drawing
    assert "20 " in page.words.split("clips seen")[1][:4]


def test_states_are_told_apart(tmp_path):
    assert is_training(tmp_path) is False
    with only_training(tmp_path):
        assert is_training(tmp_path) is True
    assert is_training(tmp_path) is False
    here, elsewhere = ({"state": "running", "host": host} for host in (platform.node(), "elsewhere"))
    assert state_of(here, 5, 10, training=True) == state_of(elsewhere, 5, 10, training=True) == ("running", "")
    assert state_of(here, 5, 10, training=False)[0] == "stopped"
    for progress, training in ((here, None), (elsewhere, False), (elsewhere, None)):
        word, why = state_of(progress, 5, 10, training)
        assert word == "running" and "cannot be told" in why
    assert state_of({"state": "stopped", "why": "so"}, 5, 10, training=False) == ("stopped", "so")
    assert state_of({}, 10, 10, training=False)[0] == "finished"
    assert state_of({}, 5, None, training=False)[0] == "unknown"


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (Interrupted(130), "stopped", "it was told to end, by SIGINT"),
        (Interrupted(143), "stopped", "it was told to end, by SIGTERM"),
        (KeyboardInterrupt(), "stopped", "it was told to end at once"),
        (ValueError("x is 1"), "failed", "ValueError: x is 1"),
    ],
)
def test_what_ended_a_training(error, state, why, tmp_path):
    run = write_run(tmp_path / "run")
    trainer = SimpleNamespace(log_dir=str(run), global_step=7, max_steps=10, is_global_zero=True)
    report = watch.Report(SimpleNamespace(clips=28, seconds=1.23))
    report.on_train_start(trainer, None)
    assert json.loads((run / "progress.json").read_text())["state"] == "running"
    try:
        raise error  # and no callback is told, since an earlier one failed with it
    except BaseException:
        report.close(trainer)
    progress = json.loads((run / "progress.json").read_text())
    assert progress.items() >= {"state": state, "why": why, "step": 7, "max_steps": 10, "clips": 28}.items()
    assert f"{state} at step 7 of 10 — {why}" in Page((run / "report.html").read_bytes()).words


@pytest.mark.parametrize(
    ("step", "max_epochs", "state", "why"),
    [(10, -1, "finished", ""), (7, None, "stopped", "max_time is over"), (7, 2, "stopped", "max_epochs is reached")],
)
def test_what_a_training_ended_by(step, max_epochs, state, why, tmp_path):
    run = write_run(tmp_path / "run")
    epochs = {"max_epochs": max_epochs, "current_epoch": 2}
    trainer = SimpleNamespace(log_dir=str(run), global_step=step, max_steps=10, is_global_zero=True, **epochs)
    report = watch.Report(SimpleNamespace(clips=28, seconds=1.23))
    report.on_train_start(trainer, None)
    report.on_train_end(trainer, None)
    progress = json.loads((run / "progress.json").read_text())
    assert progress["state"] == state and why in progress["why"] and bool(why) == bool(progress["why"])


def test_between_validations_programs_are_told_how_far_it_is(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    trainer = SimpleNamespace(log_dir=str(run), global_step=0, max_steps=10, is_global_zero=True)
    report = watch.Report(SimpleNamespace(clips=0, seconds=0.0))
    report.on_train_start(trainer, None)
    for every, step, told in ((60.0, 3, 0), (0.0, 4, 4)):
        monkeypatch.setattr(watch.Report, "every", every)
        trainer.global_step = step
        report.on_train_batch_end(trainer, None)
        progress = json.loads((run / "progress.json").read_text())
        assert progress["step"] == told and progress["state"] == "running"
