"""Samples of fixed prompts while a model trains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from ..interfaces import Prompt, VideoShape
from ..media import GRID_VIDEOS, MAX_FPS, MIN_FPS, grid_columns, to_uint8, write_bytes, write_grid
from .ema import EMA
from .peak_memory import GB, watched


@runtime_checkable
class CanSample(Protocol):
    """What `SampleGrid` needs of a model."""

    @property
    def shape(self) -> VideoShape:
        """The size of its videos."""

    def sample(self, prompt: Prompt, seeds: Sequence[int]) -> Tensor:
        """Videos ``[B, C, T, H, W]`` in [-1, 1], made in evaluation mode, each depending on its own seed alone."""


class SampleGrid(Callback):
    """Samples the same prompts with the same seeds every so many steps, and before the first.

    Each time it writes ``samples/step=.../`` in the run's folder, with ``grid.mp4``, ``grid.gif``,
    ``contact_sheet.png`` and ``meta.jsonl`` (a line for each video: prompt, seed, place), and shows the GIF and the
    sheet in TensorBoard (``samples/grid``, ``samples/contact_sheet``). With an `EMA` callback, the averaged weights are
    sampled. It logs the most memory that sampling needed, ``perf/peak_gb_sample``, as `PeakMemory` does of training.

    Args:
        prompts: Texts to sample.
        every_n_steps: Optimizer steps from one grid to the next.
        num_per_prompt: Videos of each prompt, with the seeds seed, seed + 1, ...
        seed: First seed.
        fps: Frames per second, asked of the model and played.
        batch_size: Videos sampled at a time; less needs less memory.

    Raises:
        ValueError: A setting is out of range, or the model cannot sample.
    """

    def __init__(
        self,
        prompts: list[str],
        every_n_steps: int,
        num_per_prompt: int = 1,
        seed: int = 0,
        fps: float = 8.0,
        batch_size: int = 8,
    ) -> None:
        for name, value in (
            ("every_n_steps", every_n_steps),
            ("num_per_prompt", num_per_prompt),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if not prompts:
            raise ValueError("prompts is empty: name at least one text to sample")
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps is {fps}: it must be {MIN_FPS} to {MAX_FPS}")
        if len(prompts) * num_per_prompt > GRID_VIDEOS:
            count = f"{len(prompts)} prompts with num_per_prompt={num_per_prompt}"
            raise ValueError(f"{count} are more than the {GRID_VIDEOS} videos of a grid")
        self.every_n_steps = every_n_steps
        self.fps = fps
        self.batch_size = batch_size
        self.captions = [prompt for prompt in prompts for _ in range(num_per_prompt)]
        self.seeds = [seed + i for _ in prompts for i in range(num_per_prompt)]
        self.columns = grid_columns(len(prompts), num_per_prompt)
        self._latest_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model that cannot sample."""
        if not isinstance(pl_module, CanSample):
            raise ValueError(f"SampleGrid cannot use {type(pl_module).__name__}: it has no `shape` and `sample()`")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the untrained model, unless training is resumed."""
        self._latest_step = trainer.global_step
        if trainer.global_step == 0:
            self._show(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Show the model if it is time; several batches may make one step."""
        if trainer.global_step != self._latest_step and trainer.global_step % self.every_n_steps == 0:
            self._show(trainer, pl_module)
        self._latest_step = trainer.global_step

    def _show(self, trainer: Trainer, module: LightningModule) -> None:
        # Every rank samples and the first writes: sharded weights need all, and nobody waits until a timeout.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        ema = next((callback for callback in callbacks if isinstance(callback, EMA)), None)
        averaged = ema.averaged(module) if ema else nullcontext()
        with watched(module.device) as peak, averaged, trainer.precision_plugin.forward_context():
            videos = self._sample(module)
        run_folder = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank: it is broadcast
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        folder = run_folder / "samples" / f"step={step:08d}"
        write_grid(folder, videos, self.columns, self.fps)
        write_bytes(folder / "meta.jsonl", self._meta(step, "ema" if ema else "raw").encode())
        for logger in trainer.loggers:
            if peak:  # Lightning, too, counts the first step as 0
                logger.log_metrics({"perf/peak_gb_sample": peak[0] / GB}, max(0, step - 1))
            if isinstance(logger, TensorBoardLogger):
                self._log(logger, folder / "grid.gif", step)
                self._log(logger, folder / "contact_sheet.png", step)

    def batches(self, module: CanSample) -> Iterator[tuple[Prompt, list[int]]]:
        """What is sampled at a time: prompts on the CPU, and their seeds."""
        size = torch.tensor([module.shape.height, module.shape.width], dtype=torch.float32)
        for start in range(0, len(self.captions), self.batch_size):
            captions = self.captions[start : start + self.batch_size]
            prompt = Prompt(captions, torch.full((len(captions),), self.fps), size.expand(len(captions), 2))
            yield prompt, self.seeds[start : start + self.batch_size]

    def _sample(self, module: LightningModule) -> Tensor:
        """All videos, uint8 ``[N, C, T, H, W]``."""
        assert isinstance(module, CanSample)
        # Not inference_mode: what the model might keep of it could not be used in training.
        with torch.no_grad():
            videos = [
                to_uint8(module.sample(prompt.to(module.device), seeds)) for prompt, seeds in self.batches(module)
            ]
        return torch.cat(videos)

    def _meta(self, step: int, weights: str) -> str:
        lines = []
        for index, (caption, seed) in enumerate(zip(self.captions, self.seeds, strict=True)):
            row, column = divmod(index, self.columns)
            meta = {"step": step, "row": row, "column": column, "prompt": caption, "seed": seed, "fps": self.fps}
            lines.append(json.dumps(meta | {"weights": weights}, ensure_ascii=False) + "\n")
        return "".join(lines)

    def _log(self, logger: TensorBoardLogger, path: Path, step: int) -> None:
        """Show an image file in TensorBoard as it is: `add_video` needs moviepy and `add_image` shows one frame."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]

        with Image.open(path) as opened:
            width, height = opened.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        metadata = SummaryMetadata(summary_description="; ".join(dict.fromkeys(self.captions)))
        value = Summary.Value(tag=f"samples/{path.stem}", image=image, metadata=metadata)
        logger.experiment._get_file_writer().add_summary(Summary(value=[value]), step)
