"""Samples of fixed prompts while a model trains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from ..interfaces import Conditioner, Prompt, VideoBatch, VideoShape
from ..media import GRID_VIDEOS, MAX_FPS, MIN_FPS, grid_columns, to_uint8, write_bytes, write_grid
from .ema import EMA
from .held_out import held_out_videos
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
    ``contact_sheet.png`` and ``meta.jsonl`` (a line for each sample: prompt, seed, place), and shows the GIF and the
    sheet in TensorBoard (``samples/grid``, ``samples/contact_sheet``). With an `EMA` callback, the averaged weights are
    sampled. It logs the most memory that sampling needed, ``perf/peak_gb_sample``, as `PeakMemory` does of training.

    Without prompts it samples the captions of held-out videos: a row shows what an upsampler was given (of other models
    nothing), the samples, and the video that was held out.

    Args:
        prompts: Texts to sample; None: the captions of held-out videos, which is all that an upsampler can sample.
        every_n_steps: Optimizer steps from one grid to the next.
        num_per_prompt: Videos of each prompt, with the seeds seed, seed + 1, ...
        seed: First seed.
        fps: Frames per second, asked of the model and played; held-out videos are asked at their own.
        batch_size: Videos sampled at a time; less needs less memory.
        num_held_out: Held-out videos, where there are no prompts.

    Raises:
        ValueError: A setting is out of range, or the model cannot sample that.
    """

    def __init__(
        self,
        prompts: list[str] | None,
        every_n_steps: int,
        num_per_prompt: int = 1,
        seed: int = 0,
        fps: float = 8.0,
        batch_size: int = 8,
        num_held_out: int = 4,
    ) -> None:
        for name, value in (
            ("every_n_steps", every_n_steps),
            ("num_per_prompt", num_per_prompt),
            ("batch_size", batch_size),
            ("num_held_out", num_held_out),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if prompts is not None and not prompts:
            raise ValueError("prompts is empty: name at least one text to sample")
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps is {fps}: it must be {MIN_FPS} to {MAX_FPS}")
        rows = num_held_out if prompts is None else len(prompts)
        if rows * num_per_prompt > GRID_VIDEOS:
            count = f"{rows} prompts with num_per_prompt={num_per_prompt}"
            raise ValueError(f"{count} are more than the {GRID_VIDEOS} videos of a grid")
        self.prompts = prompts
        self.every_n_steps = every_n_steps
        self.num_per_prompt = num_per_prompt
        self.seed = seed
        self.fps = fps
        self.batch_size = batch_size
        self.num_held_out = num_held_out
        self._held_out: VideoBatch | None = None
        self._latest_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model that cannot sample, or not these prompts."""
        if not isinstance(pl_module, CanSample):
            raise ValueError(f"SampleGrid cannot use {type(pl_module).__name__}: it has no `shape` and `sample()`")
        if self.prompts is not None and _enlarges(pl_module):
            raise ValueError("the model enlarges videos and cannot sample prompts alone: set sampling.prompts to null")

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
            videos, asked = self._sample(trainer, module)
        run_folder = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank: it is broadcast
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        folder = run_folder / "samples" / f"step={step:08d}"
        columns = videos.shape[1] if self.prompts is None else grid_columns(len(asked), self.num_per_prompt)
        write_grid(folder, rearrange(videos, "n m c t h w -> (n m) c t h w"), columns, self.fps)
        meta = self._meta(asked, step, "ema" if ema else "raw", columns)
        write_bytes(folder / "meta.jsonl", meta.encode())
        for logger in trainer.loggers:
            if peak:  # Lightning, too, counts the first step as 0
                logger.log_metrics({"perf/peak_gb_sample": peak[0] / GB}, max(0, step - 1))
            if isinstance(logger, TensorBoardLogger):
                about = "; ".join(dict.fromkeys(asked.captions))
                _log(logger, folder / "grid.gif", about, step)
                _log(logger, folder / "contact_sheet.png", about, step)

    def batches(self, trainer: Trainer, module: CanSample) -> Iterator[tuple[Prompt, list[int]]]:
        """What is sampled at a time: prompts, and their seeds."""
        asked = self._asked(trainer, module)
        every = torch.arange(len(asked)).repeat_interleave(self.num_per_prompt)
        seeds = [self.seed + i for _ in range(len(asked)) for i in range(self.num_per_prompt)]
        for start in range(0, len(every), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            yield asked[every[chosen]], seeds[chosen]

    def _asked(self, trainer: Trainer, module: CanSample) -> Prompt:
        """All prompts, once each."""
        if self.prompts is not None:
            number, size = len(self.prompts), torch.tensor([module.shape.height, module.shape.width]).float()
            return Prompt(self.prompts, torch.full((number,), self.fps), size.expand(number, 2))
        if self._held_out is None:
            self._held_out = held_out_videos(trainer, module, self.num_held_out)
        return self._held_out

    def _sample(self, trainer: Trainer, module: LightningModule) -> tuple[Tensor, Prompt]:
        """What is shown of each prompt, uint8 ``[N, M, C, T, H, W]``, and the prompts."""
        assert isinstance(module, CanSample)
        # Not inference_mode: what the model might keep of it could not be used in training.
        with torch.no_grad():
            videos = [
                to_uint8(module.sample(prompt.to(module.device), seeds))
                for prompt, seeds in self.batches(trainer, module)
            ]
        asked = self._asked(trainer, module)
        samples = torch.cat(videos).unflatten(0, (len(asked), self.num_per_prompt))
        if self._held_out is None:
            return samples, asked
        beside = [samples, to_uint8(self._held_out.video)[:, None]]
        if self._held_out.low_res is not None:
            low = F.interpolate(self._held_out.low_res.video, self._held_out.video.shape[2:])
            beside.insert(0, to_uint8(low)[:, None])
        return torch.cat(beside, dim=1), asked

    def _meta(self, asked: Prompt, step: int, weights: str, columns: int) -> str:
        """A line for each sample; in the grid, what an upsampler was given stands before those of its row."""
        before = int(asked.low_res is not None)
        width = columns if self.prompts is None else self.num_per_prompt
        lines = []
        for index, caption in enumerate(asked.captions):
            fps = self.fps if self.prompts is not None else float(asked.fps[index])
            for number in range(self.num_per_prompt):
                row, column = divmod(index * width + before + number, columns)
                meta = {"step": step, "row": row, "column": column, "prompt": caption}
                meta |= {"seed": self.seed + number, "fps": fps, "weights": weights}
                lines.append(json.dumps(meta, ensure_ascii=False) + "\n")
        return "".join(lines)


def _enlarges(module: LightningModule) -> bool:
    """Whether the model is an upsampler."""
    conditioner = getattr(module, "conditioner", None)
    return isinstance(conditioner, Conditioner) and conditioner.video_channels > 0


def _log(logger: TensorBoardLogger, path: Path, about: str, step: int) -> None:
    """Show an image file in TensorBoard as it is: `add_video` needs moviepy and `add_image` shows one frame."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]

    with Image.open(path) as opened:
        width, height = opened.size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    metadata = SummaryMetadata(summary_description=about)
    value = Summary.Value(tag=f"samples/{path.stem}", image=image, metadata=metadata)
    logger.experiment._get_file_writer().add_summary(Summary(value=[value]), step)
