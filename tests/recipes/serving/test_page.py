"""The page as people use it: in a real browser, on a real model."""

import json
import urllib.error
import urllib.request

import av
import numpy as np
import pytest
from PIL import Image

PROMPT = "a red circle moves left"
PLAYS = """() => {
    const video = document.querySelector('#video video');
    return video && !video.paused && video.loop && video.currentTime > 0 && video.videoWidth;
}"""


def upload(visitor, file):
    if not visitor.page.locator("#frame").is_visible():
        visitor.page.click("#first button")
    visitor.page.set_input_files("#frame input[type=file]", file)
    visitor.page.wait_for_selector("#frame img, [data-testid=toast-body]")


def lines(served):
    return [json.loads(line) for line in (served.folder / "meta.jsonl").read_text().splitlines()]


def test_a_prompt_becomes_a_video_that_plays(visit, served):
    visitor = visit()
    visitor.make(prompt=PROMPT, steps=3, seed=7)
    visitor.page.wait_for_function(PLAYS)
    (before, width, height, seconds) = visitor.page.evaluate(
        "() => { const v = document.querySelector('#video video');"
        " return [v.currentTime, v.videoWidth, v.videoHeight, v.duration]; }"
    )
    visitor.page.wait_for_function(f"document.querySelector('#video video').currentTime != {before}")
    line = lines(served)[-1]
    with av.open(str(served.folder / line["file"])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (width, height, 8)
    assert seconds == pytest.approx(1.0, abs=0.01)  # 8 frames at 8 per second
    assert (line["prompt"], line["seed"], line["steps"], line["guidance"]) == (PROMPT, 7, 3, 2.0)
    visitor.reads("seed 7, 3 steps, guidance 2, 8 frames per second", "#about")


def test_a_random_seed_is_another_each_time_and_is_shown(visit, served):
    visitor = visit()
    seeds = set()
    for _ in range(2):
        visitor.make(prompt=PROMPT, steps=1)
        visitor.reads("Made.")
        seeds.add(lines(served)[-1]["seed"])
        visitor.reads(f"seed {lines(served)[-1]['seed']},", "#about")
        assert int(visitor.page.input_value("#seed input")) == lines(served)[-1]["seed"]
        visitor.reload()
    assert len(seeds) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "  "}, "The prompt is empty"),
        ({"prompt": "x" * 61}, "61 characters: it may have 60"),
        ({"prompt": PROMPT, "seed": ""}, "The seed is empty"),
        ({"prompt": PROMPT, "seed": -3}, "Seed is -3: it must be 0 to 4294967295"),
        ({"prompt": PROMPT, "seed": 1.5}, "whole number"),
    ],
)
def test_what_cannot_be_made_is_said(visit, served, fields, words):
    before = len(lines(served))
    visitor = visit()
    visitor.make(**fields)
    visitor.reads(words)
    assert "Traceback" not in visitor.page.inner_text("body")
    assert visitor.page.is_enabled("#make") and len(lines(served)) == before


def test_steps_out_of_range_are_refused_whoever_sends_them(visit, served):
    """The page brings a number that is typed into its range; a forged request is told."""
    visitor = visit()
    visitor.fill(steps=999)
    assert visitor.page.input_value("#steps input[type=number]") == "250"

    def forge(route):
        route.continue_(post_data=route.request.post_data.replace("250", "999"))

    visitor.page.route("**/queue/join*", forge)
    visitor.make(prompt=PROMPT)
    visitor.page.wait_for_selector("text=999 is greater than maximum value 250")
    assert "Traceback" not in visitor.page.inner_text("body")
    assert all(line["steps"] <= 250 for line in lines(served))


def test_cancel_ends_it_and_the_next_request_runs(visit, served):
    before = len(lines(served))
    visitor = visit()
    visitor.make(prompt="cancelled", steps=250)
    visitor.reads("of 499 evaluations")
    visitor.page.click("#cancel")
    visitor.reads("Cancelled.")
    visitor.make(prompt="the next", steps=1)
    visitor.reads("Made.")
    assert [line["prompt"] for line in lines(served)[before:]] == ["the next"]


def test_visitors_wait_for_each_other_and_a_full_line_says_so(visit, served):
    first, second, third = visit(), visit(), visit()
    first.make(prompt="the first", steps=250)
    first.reads("of 499 evaluations")
    second.make(prompt="the second", steps=1)
    second.reads("Waiting: 1 video before this one.")
    third.make(prompt="the third", steps=1)
    third.reads("waiting already (1)")
    first.leave()  # the tab is closed: nobody waits for its video
    second.reads("Made.")
    assert lines(served)[-1]["prompt"] == "the second"
    assert "the first" not in [line["prompt"] for line in lines(served)]


def test_history_and_gallery_bring_settings_back_after_a_reload(visit):
    visitor = visit()
    for seed, prompt in ((11, "a blue square"), (12, "a green triangle")):
        visitor.make(prompt=prompt, steps=2, seed=seed)
        visitor.reads(f"seed {seed},", "#about")
    page = visitor.page
    visitor.reload()
    page.click("#history tbody tr:nth-child(2)")
    visitor.reads("a blue square", "#about")
    assert page.input_value("#prompt textarea") == "a blue square"
    assert (page.input_value("#seed input"), page.input_value("#steps input[type=number]")) == ("11", "2")
    assert not page.is_checked("#random input")
    page.click("#gallery button >> nth=0")
    visitor.reads("a green triangle", "#about")
    assert page.input_value("#seed input") == "12"


def test_an_image_is_where_the_video_begins(visit, served, tmp_path):
    Image.new("RGB", (300, 200), (250, 20, 20)).save(tmp_path / "private name.png")
    visitor = visit()
    upload(visitor, tmp_path / "private name.png")
    visitor.make(prompt=PROMPT, steps=2, seed=3)
    visitor.reads("from a first frame", "#about")
    line = lines(served)[-1]
    with av.open(str(served.folder / line["file"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(frames[0].astype(int) - [250, 20, 20]).max() <= 8
    assert "private" not in json.dumps(line)
    page = visitor.page
    visitor.reload()
    page.click("#history tbody tr:nth-child(1)")
    page.wait_for_selector("#frame img")
    visitor.make()
    visitor.reads("Made.")
    again = lines(served)[-1]
    assert again["file"] != line["file"]
    one, two = ((served.folder / made["first_frame"]).read_bytes() for made in (line, again))
    assert one == two
    names = {"file", "first_frame"}
    assert {k: v for k, v in again.items() if k not in names} == {k: v for k, v in line.items() if k not in names}


def test_what_is_no_image_is_said(visit, tmp_path):
    (tmp_path / "x.png").write_text("<svg onload=alert(1)>")
    Image.new("1", (20000, 4000)).save(tmp_path / "bomb.png")
    visitor = visit()
    for name, words in (("x.png", "(corrupt)"), ("bomb.png", "20000 × 4000 pixels")):
        upload(visitor, tmp_path / name)
        visitor.make(prompt=PROMPT)
        visitor.reads(words)
        visitor.page.click("#frame button[aria-label='Remove Image']")


def test_a_first_frame_is_what_was_uploaded_and_no_other_file(visit, served, tmp_path):
    before = lines(served)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    visitor = visit()

    def forge(route):
        body = route.request.post_data_json
        if body["data"]:  # not what the page asks for when it is loaded
            body["data"][-1] = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
        route.continue_(post_data=json.dumps(body))

    visitor.page.route("**/queue/join*", forge)
    visitor.make(prompt=PROMPT, steps=1)
    for _ in range(200):
        visitor.page.wait_for_timeout(100)
        if "was not uploaded by a user" in served.log.read_text():
            break
    else:
        pytest.fail("it was not refused within 20 s")
    assert lines(served) == before


def test_a_large_upload_is_refused(visit, served, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    visitor = visit()
    upload(visitor, tmp_path / "large.png")
    visitor.page.wait_for_selector("text=exceed the maximum allowed size")
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}  # of somebody who comes without the page
    body = part + bytes(2**20 + 1) + b"\r\n--x--\r\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{served.url}gradio_api/upload", body, headers))
    assert refused.value.code == 413


def test_text_of_visitors_is_text(visit):
    visitor = visit()
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    visitor.make(prompt=text, steps=1)
    for place in ("#about", "#history"):
        visitor.reads(text, place)
    assert visitor.page.locator("#about b, #history b, #gallery b, img[src='x']").count() == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/meta.jsonl", "{folder}/../log", "https://example.com/x"])
def test_nothing_but_videos_is_given_away(served, path):
    url = f"{served.url}gradio_api/file={path.format(folder=served.folder)}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url)
    assert refused.value.code == 403


@pytest.mark.parametrize("path", ["docs", "openapi.json", "gradio_api/runs", "monitoring", "gradio_api/mcp/"])
def test_the_page_is_all_there_is(served, path):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(served.url + path)
    assert refused.value.code in (403, 404, 405)
