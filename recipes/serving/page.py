"""The page in the browser: fields, progress, the video, and what was made before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr
from torch import Tensor

from ..errors import UserError
from .first_frame import read_first_frame
from .gallery import Gallery, Made
from .jobs import Job, Jobs
from .maker import VideoMaker
from .request import MAX_GUIDANCE, Limits

PAUSE = 0.1
"""Seconds between two looks at a job."""

MAX_RATE = 60
"""Frames per second, the most that screens show."""

Updates: TypeAlias = dict[Any, Any]
"""Component of the page -> what it shows next."""


class Page:
    """The page of a model.

    Args:
        maker: Makes the videos.
        gallery: Keeps them.
        jobs: The line of requests.
        limits: What may be asked.
    """

    def __init__(self, maker: VideoMaker, gallery: Gallery, jobs: Jobs, limits: Limits) -> None:
        self._gallery, self._jobs, self._limits, self._shape = gallery, jobs, limits, maker.shape
        self._guided = maker.guidance is not None
        self._reading = asyncio.Lock()
        with gr.Blocks(title=f"snapvideo: {maker.name}", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            gr.HTML(_heading(maker), elem_id="heading")
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    self._add_fields(maker)
                with gr.Column(scale=3, min_width=320):
                    self._add_result()
            self._add_past()
            self._connect(blocks)
        self.blocks = blocks

    def _add_fields(self, maker: VideoMaker) -> None:
        self._prompt = gr.Textbox(
            label="Prompt",
            placeholder="a red circle moves left",
            lines=3,
            max_lines=6,
            elem_id="prompt",
        )
        with gr.Row(equal_height=True):
            self._seed = gr.Number(0, label="Seed", min_width=120, elem_id="seed")
            self._random = gr.Checkbox(True, label="Another each time", min_width=120, elem_id="random")
        self._steps = gr.Slider(
            1, self._limits.max_steps, min(maker.steps, self._limits.max_steps), step=1, label="Steps", elem_id="steps"
        )
        guidance = min(maker.guidance or 0, MAX_GUIDANCE)
        self._guidance = gr.Slider(
            0, MAX_GUIDANCE, guidance, step=0.1, label="Guidance", visible=self._guided, elem_id="guidance"
        )
        self._fps = gr.Slider(1, max(MAX_RATE, maker.fps), maker.fps, step=1, label="Frames per second", elem_id="fps")
        with gr.Accordion("First frame", open=False, elem_id="first") as self._drawer:
            self._first = _image_field()
        with gr.Row():
            self._go = gr.Button("Make video", variant="primary", min_width=100, elem_id="make")
            self._stop = gr.Button("Cancel", interactive=False, min_width=100, elem_id="cancel")
        self._progress = gr.HTML(elem_id="progress")

    def _add_result(self) -> None:
        self._video = gr.Video(
            label="Video",
            autoplay=True,
            loop=True,
            interactive=False,
            height=440,
            buttons=["download"],
            elem_id="video",
        )
        self._about = gr.HTML(elem_id="about")

    def _add_past(self) -> None:
        self._shown = gr.State([])
        self._past = gr.Gallery(
            label="Made here, seen by all visitors",
            columns=8,
            fit_columns=False,
            visible=False,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="gallery",
        )
        numbers = [gr.Number(visible=False) for _ in range(4)]
        self._history = gr.Dataset(
            label="History: click a line to have its settings again",
            components=[gr.Textbox(visible=False), *numbers],
            headers=["Prompt", "Seed", "Steps", "Guidance", "Frames per second"],
            samples=[],
            type="index",
            samples_per_page=8,
            visible=False,
            elem_id="history",
        )

    def _connect(self, blocks: gr.Blocks) -> None:
        fields = [self._prompt, self._seed, self._random, self._steps, self._guidance, self._fps, self._first]
        past = [self._past, self._history, self._shown]
        outputs = [self._progress, self._go, self._stop, self._seed, self._video, self._about, *past]
        loaded = [*fields, self._drawer, self._video, self._about]
        common = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        gr.on([self._go.click, self._prompt.submit], self._make, fields, outputs, trigger_mode="once", **common)
        self._stop.click(self._cancel, None, self._stop, **common)
        self._past.select(self._pick, self._shown, loaded, **common)
        self._history.click(self._load, [self._history, self._shown], loaded, **common)
        blocks.load(self._now, None, past, **common)
        blocks.unload(self._leave)

    async def _make(
        self,
        prompt: str,
        seed: float | None,
        random: bool,
        steps: float,
        guidance: float | None,
        fps: float,
        image: str | None,
        visitor: gr.Request,
    ) -> AsyncIterator[Updates]:
        """Make a video, and show how far it is."""
        owner = str(visitor.session_hash)
        try:
            if seed is None and not random:
                raise UserError("The seed is empty: type a number, or have another each time.")
            frame = None if image is None else await self._read(image)
            scale = guidance if self._guided else None
            request = self._limits.request(prompt, None if random else seed, steps, scale, fps, frame)
            job = self._jobs.submit(owner, request)
        except UserError as error:
            yield {self._progress: _problem(str(error))}
            return
        yield {
            self._go: gr.Button(interactive=False),
            self._stop: gr.Button(interactive=True),
            self._seed: request.seed,
        }
        try:
            before = ""
            while not job.ended:
                now = self._state(job)
                if now != before:
                    yield {self._progress: now}
                before = now
                await asyncio.sleep(PAUSE)
        finally:
            if not job.ended:  # the visitor has left
                self._jobs.cancel(owner)
        end = {self._go: gr.Button(interactive=True), self._stop: gr.Button(interactive=False)}
        if job.made is not None:
            end |= self._show(job.made) | self._now()
        yield end | {self._progress: self._state(job)}

    async def _read(self, image: str) -> Tensor:
        """The first frame, of an uploaded file; one at a time, since images take memory."""
        async with self._reading:
            return await asyncio.to_thread(read_first_frame, Path(image), self._shape)

    def _cancel(self, visitor: gr.Request) -> gr.Button:
        self._jobs.cancel(str(visitor.session_hash))
        return gr.Button(interactive=False)

    def _leave(self, visitor: gr.Request) -> None:
        self._jobs.cancel(str(visitor.session_hash))

    def _state(self, job: Job) -> str:
        if job.state == "failed":
            return _problem(job.error)
        if job.state == "waiting":
            before = self._jobs.before(job)
            return _note(f"Waiting: {before} video{'s' if before > 1 else ''} before this one.")
        if job.state == "running":
            words = f"Sampling: {job.done} of {job.total} evaluations of the model."
            return _note(words, f"<progress value='{job.done}' max='{max(job.total, 1)}'></progress>")
        return _note("Made." if job.state == "made" else "Cancelled.")

    def _now(self) -> Updates:
        """What was made so far."""
        made = self._gallery.newest()
        rows = [[m.prompt, m.seed, m.steps, m.guidance, m.fps] for m in made]
        return {
            self._past: gr.Gallery([(str(m.file), m.prompt) for m in made], visible=bool(made)),
            self._history: gr.Dataset(samples=rows, visible=bool(made)),
            self._shown: made,
        }

    def _show(self, made: Made) -> Updates:
        words = [f"seed {made.seed}", f"{made.steps} steps", f"{made.fps:g} frames per second"]
        if made.guidance is not None:
            words.insert(2, f"guidance {made.guidance:g}")
        if made.first_frame is not None:
            words.append("from a first frame")
        return {
            self._video: str(made.file),
            self._about: f"<p><q>{escape(made.prompt)}</q><br>{', '.join(words)}</p>",
        }

    def _pick(self, shown: list[Made], event: gr.SelectData) -> Updates:
        return self._load(event.index, shown)

    def _load(self, index: int, shown: list[Made]) -> Updates:
        """Show a video made before, and put its settings into the fields."""
        made = shown[index]
        return self._show(made) | {
            self._prompt: made.prompt,
            self._seed: made.seed,
            self._random: False,
            self._steps: made.steps,
            self._guidance: made.guidance,
            self._fps: made.fps,
            self._drawer: gr.Accordion(open=made.first_frame is not None),
            self._first: None if made.first_frame is None else str(made.first_frame),
        }


def _image_field() -> gr.Image:
    """A field whose uploaded file is handed on as it is: Gradio would open it, whatever it is."""
    field: Any = gr.Image(
        label="Image that the video begins with",
        sources=["upload", "clipboard"],
        height=200,
        buttons=[],
        elem_id="frame",
    )
    # Not by a subclass: Gradio writes a .pyi file beside the source of each.
    field.preprocess = lambda payload: None if payload is None else payload.path
    return field


def _heading(maker: VideoMaker) -> str:
    shape = maker.shape
    size = f"{shape.num_frames} frames of {shape.width} × {shape.height} pixels"
    return f"<h1>snapvideo</h1><p>Videos of texts by <b>{escape(maker.name)}</b>, {size}</p>"


def _note(words: str, more: str = "") -> str:
    return f"<p role='status'>{escape(words)}</p>{more}"


def _problem(words: str) -> str:
    return f"<p role='alert' class='problem'>{escape(words)}</p>"
