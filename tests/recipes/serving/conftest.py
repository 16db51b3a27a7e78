import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..conftest import HOW


@dataclass
class Served:
    """A page that is being served."""

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="session")
def served(chromium, tmp_path_factory):
    """The page of the shipped model: one video may wait; prompts of 60 characters; uploads of a megabyte."""
    pytest.importorskip("gradio", reason=f"no Gradio: {HOW}")
    work = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = ["serve", "demo", "--port", port, "--device", "cpu", "-o", work / "videos"]
    words += ["--max-waiting", 1, "--max-prompt", 60, "--max-upload", 1]
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *map(str, words)]
    log_file = work / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + 120
    while f"page: {url}" not in log_file.read_text():
        assert process.poll() is None and time.monotonic() < end, log_file.read_text()
        time.sleep(0.05)
    yield Served(url, work / "videos", log_file)
    process.terminate()
    assert process.wait(60) == 0
    said = log_file.read_text()
    forged = (
        "is greater than maximum value 250",
        "InvalidPathError: Cannot move",
    )  # by tests: Gradio prints tracebacks
    assert said.count("Traceback") == sum(map(said.count, forged))


@dataclass
class Visitor:
    """Somebody with the page before them.

    Args:
        page: The page, of Playwright.
        complaints: What the console or the network complained of.
        hosts: All hosts that were asked for something.
    """

    page: object
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def fill(self, prompt=None, steps=None, seed=None):
        if prompt is not None:
            self.page.fill("#prompt textarea", prompt)
        if steps is not None:
            self.page.fill("#steps input[type=number]", str(steps))
        if seed is not None:
            self.page.uncheck("#random input")
            self.page.fill("#seed input", str(seed))
        self.page.keyboard.press("Tab")

    def make(self, **fields):
        self.fill(**fields)
        self.page.click("#make")

    def reads(self, words, where="#progress"):
        """Wait until the page says that."""
        self.page.wait_for_function(
            "([where, words]) => document.querySelector(where)?.innerText.includes(words)", arg=[where, words]
        )

    def reload(self):
        complaints = list(self.complaints)
        self.page.reload()
        self.page.wait_for_selector("#prompt textarea")
        self.complaints[:] = complaints  # those of the old page are that its streams were cut off

    def leave(self):
        self.page.context.close()


@pytest.fixture
def visit(chromium, served):
    """A function that opens the page, each time as another visitor; at the end no page may have complained."""
    visitors = []

    def open_page(**settings):
        context = chromium.new_context(**settings)
        context.set_default_timeout(60_000)
        visitor = Visitor(context.new_page())
        page = visitor.page
        page.on("console", lambda m: visitor.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        page.on("request", lambda request: visitor.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        page.goto(served.url)
        page.wait_for_selector("#prompt textarea")
        visitors.append(visitor)
        return visitor

    yield open_page
    for visitor in visitors:
        visitor.leave()
        assert visitor.complaints == []
        assert visitor.hosts - {""} == {served.url.split("/")[2]}  # no other host
