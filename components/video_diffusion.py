"""VideoDiffusion joins backbone, framework and conditioning: it fits, validates by noise band and samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from .draws import Draws
from .interfaces import (
    Backbone,
    Branches,
    Condition,
    Conditioner,
    Framework,
    Guidance,
    Levels,
    Predict,
    Prompt,
    Sampler,
    State,
    Steer,
    VideoBatch,
    VideoShape,
)
from .layers import blocks, compile_blocks

NOISE_BANDS = 5
"""Validation measures the loss in this many equally likely bands of the training noise levels."""


class Denoiser:
    """``denoise(x, sigma)`` for one batch of videos under one condition.

    It holds what the backbone carries from one evaluation to the next, so that samplers need not know.

    Args:
        framework: Diffusion framework.
        backbone: Network.
        condition: Conditioning tokens of the batch.
    """

    def __init__(self, framework: Framework, backbone: Backbone, condition: Condition) -> None:
        self.framework, self.backbone, self.condition = framework, backbone, condition
        self.state: State = None

    @cached_property
    def _prepared(self) -> Condition:
        if isinstance(self.backbone, FSDPModule):  # its weights are whole in `forward` alone
            return self.condition
        with torch.no_grad():  # it outlives the evaluation
            return self.backbone.prepare(self.condition)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate of the clean video of ``x`` ``[B, C, T, H, W]`` at noise levels sigma ``[B]``."""
        return self.framework.denoise(self.predict, x, sigma)

    def predict(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The network's raw prediction (see `Predict`), from the state that the previous call left.

        Raises:
            ValueError: It has not the shape of the video.
        """
        out = self.backbone(x, c_noise, self._prepared, self.state)
        if isinstance(out, Tensor):
            raise ValueError(f"{type(self.backbone).__name__}.forward returned a tensor: return (prediction, state)")
        prediction, state = out
        self.state = None if state is None else state.detach()  # a gradient is that of one evaluation
        return _of_shape(x, prediction, self.backbone)


class DenoiserPair(Branches):
    """A conditional and an unconditional `Denoiser` of the same videos, evaluated as one batch.

    Each keeps its own state.

    Args:
        conditional: Knows the labels.
        unconditional: Knows the null label alone.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser) -> None:
        self._conditional, self._unconditional = conditional, unconditional

    def conditional(self, x: Tensor, sigma: Tensor) -> Tensor:
        """See `Branches.conditional`."""
        return self._conditional(x, sigma)

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """See `Branches.both`."""
        one, two, joint = self._conditional, self._unconditional, self._joint
        if one.state is None and two.state is None:
            joint.state = None
        elif one.state is None or two.state is None:  # one has run alone: the other starts now
            return one(x, sigma), two(x, sigma)
        else:
            joint.state = torch.cat([one.state, two.state])
        estimates = joint(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        if joint.state is not None:
            one.state, two.state = joint.state.chunk(2)
        return estimates[0], estimates[1]

    @cached_property
    def _joint(self) -> Denoiser:
        first, second = self._conditional, self._unconditional
        return Denoiser(first.framework, first.backbone, Condition.stack([first.condition, second.condition]))


class VideoDiffusion(LightningModule):
    """A text-to-video diffusion model.

    Args:
        backbone: Network that denoises.
        framework: Forward process, loss and noise levels.
        conditioner: Turns captions and other labels into tokens.
        sampler: Makes videos of noise.
        guidance: Steers samples towards their captions.
        optimizer: Optimizer of all parameters.
        scheduler: Learning-rate schedule, one step per training step.
        levels: Places the noise levels of sampling; None: the framework does.
        label_dropout: Probability in training that a sample's text is replaced by the learned null, 0..1 (paper: 0.1).
        compile: Compile the backbone's blocks when training starts (``torch.compile``): minutes at first, faster steps
            after them.

    Raises:
        ValueError: Conditioner and backbone disagree on the width of tokens, or a value is out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        framework: Framework,
        conditioner: Conditioner,
        sampler: Sampler,
        guidance: Guidance,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable,
        levels: Levels | None = None,
        label_dropout: float = 0.1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if conditioner.dim != backbone.dim_condition:
            raise ValueError(
                f"conditioner.dim={conditioner.dim} must equal backbone.dim_condition={backbone.dim_condition}"
            )
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout={label_dropout} must be a probability, 0..1")
        self.backbone, self.framework, self.conditioner = backbone, framework, conditioner
        self.sampler, self.guidance, self.levels = sampler, guidance, levels
        self.optimizer, self.scheduler = optimizer, scheduler
        self.label_dropout = label_dropout
        self._to_compile = list(blocks(backbone)) if compile else []

    @property
    def shape(self) -> VideoShape:
        """The size of the videos that it samples."""
        return self.backbone.shape

    def configure_model(self) -> None:
        """Compile blocks, and spread weights over devices where the strategy has a mesh of them (FSDP2).

        The trainer may call it again.

        Raises:
            ValueError: The strategy would split layers, too (tensor parallel).
        """
        compile_blocks(self._to_compile)
        self._to_compile = []
        if self.device_mesh is None or isinstance(self.backbone, FSDPModule):
            return
        if (split := self.device_mesh["tensor_parallel"].size()) > 1:
            raise ValueError(
                f"tensor_parallel_size={split}: layers are not split over devices; set tensor_parallel_size to 1 and "
                f"data_parallel_size to the number of devices, {self.device_mesh.size()}"
            )
        mesh = self.device_mesh["data_parallel"]
        for part in (self.backbone, self.conditioner):
            part.to(memory_format=torch.contiguous_format)  # FSDP spreads no other; a U-Net's is channels-last
            for block in blocks(part):
                fully_shard(block, mesh=mesh)
            fully_shard(part, mesh=mesh)

    def sampling_levels(self) -> Tensor:
        """Noise levels of a sample ``[num_steps + 1]``, float64, falling, the last one 0."""
        own = self.framework.sampling_levels(self.sampler.num_steps, self.shape)
        return own if self.levels is None else self.levels(own)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimizer and schedule, stepped every training step."""
        optimizer = self.optimizer(self.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"},
        }

    def on_train_batch_start(self, batch: VideoBatch, batch_idx: int) -> None:
        """Seed dropout, which torch draws from its global generator: by (seed, rank, step)."""
        torch.manual_seed(self._step_seed(batch_idx, 1 + self.global_rank))

    def draws(self, batch: VideoBatch, batch_idx: int) -> Draws:
        """What training draws at random for a batch, at the present step."""
        videos, images = len(batch) - batch.num_images, batch.num_images
        world = 1 if self._trainer is None else self.trainer.world_size
        return Draws(self._step_seed(batch_idx), videos, images, self.global_rank, world, batch.video.device)

    def training_step(self, batch: VideoBatch, batch_idx: int) -> dict[str, Tensor]:
        """Mean loss of a batch, as ``loss``, logged for images and videos apart too.

        Beside it, for callbacks: ``losses`` and ``sigma`` of each sample ``[B]``.
        """
        draws = self.draws(batch, batch_idx)
        condition = self._condition(batch, drop=draws.uniform() < self.label_dropout)

        def predict(x: Tensor, c_noise: Tensor) -> Tensor:
            return _of_shape(x, self.backbone.train_forward(x, c_noise, condition, draws), self.backbone)

        sigma = self.framework.noise_levels(draws.stratified(), batch.shape)
        losses = self._losses(predict, batch, sigma, draws.noise(batch.video.shape[1:]))
        self.log("train/loss", losses.mean(), prog_bar=True, batch_size=len(batch))
        self._log_modalities("train/loss", losses, batch)
        return {"loss": losses.mean(), "losses": losses.detach(), "sigma": sigma}

    def validation_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """Log the loss of a batch; see `log_validation`."""
        self.log_validation("val/loss", batch)

    def log_validation(self, name: str, batch: VideoBatch) -> None:
        """Log the loss of a batch as it is now: of all, and of images and videos apart, each also by noise band.

        A sample's noise depends on its key alone, not on how the samples are batched, so that losses can be compared
        from step to step, and between weights.

        Args:
            name: What it is called: ``val/loss`` becomes ``val/loss/band_0``, ``val/loss_image`` and so on, too.
            batch: The batch.
        """
        losses = self._losses_by_band(batch)
        videos, images = losses.tensor_split([len(batch) - batch.num_images], dim=1)
        for kind, part in ((name, losses), (f"{name}_image", images), (f"{name}_video", videos)):
            size = part.shape[1]
            if size:
                self.log(kind, part.mean(), prog_bar=kind == "val/loss", batch_size=size, sync_dist=True)
                for band, loss in enumerate(part.mean(1)):
                    self.log(f"{kind}/band_{band}", loss, batch_size=size, sync_dist=True)

    def _losses_by_band(self, batch: VideoBatch) -> Tensor:
        """The loss of each sample in the middle of each band of noise levels ``[NOISE_BANDS, B]``."""
        noise = torch.stack([_noise_of(key, batch.video.shape[1:]) for key in batch.keys]).to(batch.video.device)
        condition = self._condition(batch, torch.zeros_like(batch.is_image))
        bands = []
        for band in range(NOISE_BANDS):
            quantile = torch.full_like(batch.fps, (band + 0.5) / NOISE_BANDS)
            sigma = self.framework.noise_levels(quantile, batch.shape)
            denoiser = Denoiser(self.framework, self.backbone, condition)
            bands.append(self._losses(denoiser.predict, batch, sigma, noise))
            if denoiser.state is not None:  # as in sampling: all evaluations but the first start from a state
                bands[-1] = self._losses(denoiser.predict, batch, sigma, noise)
        return torch.stack(bands)

    def test_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """Samples ``[B, C, T, H, W]`` of a batch's labels, for callbacks to score."""
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """Samples ``[B, C, T, H, W]`` of a batch's labels, for callbacks to write; no two have the same seed."""
        first = (batch_idx * self.trainer.world_size + self.global_rank) << 16  # batches may differ in size
        return self.sample(batch, range(first, first + len(batch)))

    @torch.inference_mode(False)  # Lightning's: what is made in it has no gradient ever, and `steer` may want one
    @torch.no_grad()
    def sample(
        self,
        prompt: Prompt,
        seeds: Sequence[int],
        on_evaluation: Callable[[], object] | None = None,
        steer: Steer | None = None,
    ) -> Tensor:
        """Videos ``[B, C, T, H, W]`` in [-1, 1] for a prompt, in evaluation mode.

        Args:
            prompt: Labels of B videos.
            seeds: A seed per video; a video depends on its own seed, prompt and settings, not on the rest of the batch.
            on_evaluation: Called at every evaluation of the denoiser (for progress bars).
            steer: Makes another denoiser of the guided one, such as `Reconstruction`; None: it stays as it is.

        Raises:
            ValueError: The number of seeds isn't the number of prompts.
        """
        if len(seeds) != len(prompt):
            raise ValueError(f"{len(seeds)} seeds for {len(prompt)} prompts: give one seed per video")
        prompt = prompt.to(self.device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def noise() -> Tensor:
            return torch.stack([torch.randn(*self.shape, generator=g) for g in generators]).to(self.device)

        null = torch.ones(len(prompt), dtype=torch.bool, device=self.device)
        with evaluating(self):
            conditional = Denoiser(self.framework, self.backbone, self._condition(prompt, ~null))
            unconditional = Denoiser(self.framework, self.backbone, self._condition(prompt, null))
            denoise = self.guidance(DenoiserPair(conditional, unconditional))
            if steer is not None:
                denoise = steer(denoise)

            def counted(x: Tensor, sigma: Tensor) -> Tensor:
                if on_evaluation is not None:
                    on_evaluation()
                return denoise(x, sigma)

            return self.sampler(counted, noise, self.sampling_levels()).clamp(-1, 1)

    def _losses(self, predict: Predict, batch: VideoBatch, sigma: Tensor, noise: Tensor) -> Tensor:
        losses = self.framework.loss(predict, batch.video, sigma, noise)
        if losses.shape != sigma.shape:
            raise ValueError(
                f"{type(self.framework).__name__}.loss returned {list(losses.shape)} for a batch of {len(batch)}: "
                f"it must return the loss of each sample, {[len(batch)]}"
            )
        return losses

    def _condition(self, prompt: Prompt, drop: Tensor) -> Condition:
        condition = self.conditioner(prompt, drop)
        wanted, found = [len(prompt), condition.tokens.shape[1], self.conditioner.dim], list(condition.tokens.shape)
        if found != wanted or list(condition.mask.shape) != wanted[:2]:
            raise ValueError(
                f"{type(self.conditioner).__name__}.forward returned tokens {found} and a mask "
                f"{list(condition.mask.shape)} for {len(prompt)} prompts: with dim={self.conditioner.dim} they must be "
                f"{wanted} and {wanted[:2]}"
            )
        return condition

    def _log_modalities(self, name: str, losses: Tensor, batch: VideoBatch) -> None:
        videos, images = losses.tensor_split([len(batch) - batch.num_images])
        for modality, part in (("image", images), ("video", videos)):
            if len(part):
                self.log(f"{name}_{modality}", part.mean(), batch_size=len(part))

    def _step_seed(self, batch_idx: int, who: int = 0) -> int:
        """A seed that no other step or batch of it has: a run that is resumed draws what it would have drawn.

        Args:
            batch_idx: Lightning's count of batches.
            who: 0 for what all ranks draw together; another number, another seed.
        """
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # where Lightning's seed_everything leaves it
        window = 1 if self._trainer is None else self.trainer.accumulate_grad_batches
        place = (seed, self.global_step, batch_idx % window, who)
        return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])


def _noise_of(key: str, shape: Sequence[int]) -> Tensor:
    """Standard normal noise that is the same for a key everywhere."""
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    return torch.randn(*shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8])))


def _of_shape(x: Tensor, prediction: Tensor, backbone: Backbone) -> Tensor:
    """The prediction, which must have the shape of its video: another might be broadcast, and nobody would notice."""
    if prediction.shape != x.shape:
        raise ValueError(
            f"{type(backbone).__name__}.forward returned a prediction {list(prediction.shape)} for a video "
            f"{list(x.shape)}: they must be equal, and it must return (prediction, state)"
        )
    return prediction


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which all parts of `module` are in evaluation mode; afterwards each is as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
