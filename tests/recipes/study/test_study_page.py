"""The page as raters use it: in a real browser, from a file, without network."""

import json
import time

import pytest

from ..conftest import call
from .conftest import PROMPTS

COUNT = len(PROMPTS)
CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = (color) => color.slice(0, 3).map((v) => linear(v / 255)).reduce(
        (sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = (node) => {
        const color = parse(getComputedStyle(node).backgroundColor);
        return color.length === 4 && color[3] === 0 ? behind(node.parentElement) : color;
    };
    return [...document.querySelectorAll("h1, h2, p, label, legend, button:enabled, figcaption, li, kbd, #count")]
        .filter((node) => node.offsetParent).map((node) => {
            const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), node.outerHTML.slice(0, 80)];
        });
}"""


class Rater:
    """Somebody with the page before them."""

    def __init__(self, browser, made, **settings):
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.context.set_offline(True)
        self.page, self.complaints, self.asked = self.context.new_page(), [], set()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url.partition(":")[0]))
        self.page.goto((made.folder / "study.html").as_uri())

    def until(self, script, patience=20.0):
        """Wait until a script says so: what waits in the page is against its policy."""
        end = time.monotonic() + patience
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"it never came true: {script}"
            self.page.wait_for_timeout(20)

    def text(self, name):
        return self.page.locator(f"#{name}").inner_text()

    def choose(self, question, answer):
        self.page.locator("fieldset").nth(question).get_by_text(answer, exact=True).click()

    def download(self, folder):
        with self.page.expect_download() as event:
            self.page.click("#download")
        file = folder / event.value.suggested_filename
        event.value.save_as(file)
        return file


@pytest.fixture
def rate(chromium, asked):
    """A function that opens the page, each time as another rater; at the end no page may have complained."""
    raters = []

    def open_page(**settings):
        raters.append(Rater(chromium, asked, **settings))
        return raters[-1]

    yield open_page
    for rater in raters:
        rater.context.close()
        assert rater.complaints == [] and rater.asked <= {"file", "blob"}


def test_clips_play_together_and_again(rate):
    rater = rate()
    rater.until("() => { const v = [left, right]; return v.every((c) => c.currentTime > .1 && !c.paused); }")
    rater.page.evaluate(
        "() => { window.ends = { left: 0, right: 0 };"
        " for (const clip of [left, right]) clip.addEventListener('ended', () => ends[clip.id] += 1); }"
    )
    rater.until("() => ends.left >= 3 && left.currentTime > 0 && right.currentTime > 0")
    assert rater.page.evaluate("() => Math.abs(ends.left - ends.right)") <= 1  # neither runs away
    rater.page.click("#pause")
    rater.until("() => left.paused && right.paused && !left.ended")
    assert rater.text("pause") == "Play"
    rater.page.click("#replay")
    rater.until("() => !left.paused && !right.paused")
    assert rater.page.evaluate("() => left.videoWidth") == 32


def test_all_is_rated_with_a_reload_between_then_downloaded_and_tallied(rate, asked, tmp_path):
    rater, key = rate(), asked.key
    prompts = [pair["prompt"] for pair in key["pairs"].values()]
    wanted = {}
    words = {"1": "left", "2": "none", "3": "right"}
    titles = {"left": "Left", "none": "No difference", "right": "Right"}
    for place, pair in enumerate(key["pairs"]):
        assert rater.text("number") == f"Pair {place + 1} of {COUNT}" and rater.text("text") == f"“{prompts[place]}”"
        assert rater.text("next") == "Skip for now"
        for number, question in enumerate(key["questions"]):
            press = "123"[(place + number) % 3]
            wanted[pair, question] = words[press]
            if place % 2:
                rater.choose(number, titles[words[press]])
            else:
                rater.page.keyboard.press(press)
        assert rater.text("count") == f"{place + 1} of {COUNT} pairs rated"
        if place == 1:
            rater.page.reload()
            assert rater.text("count") == f"2 of {COUNT} pairs rated" and rater.text("text") == f"“{prompts[1]}”"
            checked = rater.page.evaluate("() => [...document.querySelectorAll('input:checked')].map((i) => i.value)")
            assert checked[:4] == [wanted[pair, question] for question in key["questions"]]
        assert rater.text("next") == ("Finish" if place == COUNT - 1 else "Next pair")
        if place % 2:
            rater.page.click("#next")
        else:
            rater.page.keyboard.press("n")
    assert rater.page.locator("#finished").is_visible() and not rater.page.locator("#rating").is_visible()
    rater.page.click("#download")
    assert "Write your name first" in rater.text("said")
    assert rater.page.evaluate("() => document.activeElement.id") == "name"
    rater.page.keyboard.type("Ann n 1/é")  # letters here are no keys of the page
    rater.page.reload()
    assert rater.page.locator("#finished").is_visible() and rater.page.input_value("#name") == "Ann n 1/é"
    file = rater.download(tmp_path)
    assert file.name == "votes_Ann-n-1-é.json"
    found = json.loads(file.read_text())
    assert (found["study"], found["rater"]) == (key["study"], "Ann n 1/é")
    assert {(vote["pair"], vote["question"]): vote["answer"] for vote in found["votes"]} == wanted
    result = call("study", "--tally", file, "--key", asked.folder / "key.json", "-o", tmp_path)
    assert result.code == 0, result.err
    tally = json.loads((tmp_path / "tally.json").read_text())
    for question, counted in tally["questions"].items():
        chosen = [
            answer if answer == "none" else "a" if (answer == "left") == (key["pairs"][pair]["left"] == "a") else "b"
            for (pair, asked_for), answer in wanted.items()
            if asked_for == question
        ]
        assert {name: counted[name] for name in ("a", "b", "none")} == {n: chosen.count(n) for n in ("a", "b", "none")}


def test_pairs_can_be_skipped_and_come_back(rate):
    rater = rate()
    rater.page.keyboard.press("1")
    rater.page.keyboard.press("n")
    assert rater.text("number") == f"Pair 2 of {COUNT}"
    for _ in range(COUNT - 1):
        for press in "1232":
            rater.page.keyboard.press(press)
        rater.page.keyboard.press("n")
    assert rater.text("number") == f"Pair 1 of {COUNT}"
    assert rater.page.evaluate("() => document.querySelector('.here legend').innerText").startswith("Which clip shows")
    for _ in range(3):
        rater.page.keyboard.press("3")
    assert rater.page.evaluate("() => document.activeElement.id") == "next"
    rater.page.keyboard.press("Enter")
    assert rater.page.locator("#finished").is_visible()
    rater.page.on("dialog", lambda dialog: dialog.accept())
    rater.page.click("#other")
    assert rater.text("count") == f"0 of {COUNT} pairs rated" and rater.page.locator("input:checked").count() == 1


def test_keys_can_be_left_to_the_browser(rate):
    rater = rate()
    rater.page.uncheck("#shortcuts")
    rater.page.keyboard.press("1")
    rater.page.keyboard.press("n")
    assert rater.text("number") == f"Pair 1 of {COUNT}" and rater.page.locator("fieldset input:checked").count() == 0
    rater.page.get_by_role("radio", name="Left").first.focus()
    rater.page.keyboard.press("ArrowRight")  # as all radio buttons
    assert rater.page.locator("#q0-none").is_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_can_be_read_and_used_by_everybody(scheme, width, rate):
    """Nothing is outside a narrow screen; texts have the contrast of WCAG 2 AA; controls have names."""
    rater = rate(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    rater.choose(0, "Left")
    rater.until("() => left.readyState >= 2 && right.readyState >= 2")
    assert rater.page.evaluate("() => left.paused && document.scrollingElement.scrollWidth") <= width
    faint = [found for found in rater.page.evaluate(CONTRAST) if found[0] < 4.5]
    assert faint == []
    for role, name in (("textbox", "Your name"), ("progressbar", "pairs that are rated"), ("button", "Play")):
        assert rater.page.get_by_role(role, name=name, exact=True).count() == 1
    group = rater.page.get_by_role("group", name="In which clip is there more motion?")
    assert group.get_by_role("radio", name="No difference").count() == 1
