"""The architecture on one page: the types that travel and the contracts that components keep.

Everything turns on ``denoise(x, sigma) -> estimate of the clean video``. A `Framework` turns a `Backbone` into a
`Denoise`; a `Guidance` turns a `Denoise` into another; a `Sampler` turns a `Denoise` into a video. A `Conditioner`
turns captions and other labels into tokens for the backbone. `VideoDiffusion` joins them, and a recipe names them.

Axes, in every docstring: ``B`` batch, ``C`` channels, ``T`` frames, ``H W`` pixels, ``G`` groups of patches, ``N``
patch tokens, ``L`` latent tokens, ``D`` width, ``S`` conditioning tokens. A video is ``[B, C, T, H, W]``, float in
[-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from .batch import Condition, LowRes, Prompt, VideoBatch, VideoShape
from .draws import Draws, KeyDraws

__all__ = [
    "Backbone",
    "Branches",
    "Condition",
    "Conditioner",
    "Denoise",
    "Framework",
    "Guidance",
    "Levels",
    "LowRes",
    "Noise",
    "Predict",
    "Prompt",
    "Sampler",
    "State",
    "Steer",
    "VideoBatch",
    "VideoModel",
    "VideoShape",
]

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A network alone: (scaled noisy video ``[B, C, T, H, W]``, c_noise ``[B]``) -> raw prediction of the same shape."""

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The contract: (x = clean + sigma * noise ``[B, C, T, H, W]``, sigma ``[B]``) -> estimate of the clean video."""

Steer: TypeAlias = Callable[[Denoise], Denoise]
"""What samples are steered by beside captions: makes another denoiser of one."""

Noise: TypeAlias = Callable[[], Tensor]
"""A source of standard normal noise: each call gives fresh noise ``[B, C, T, H, W]``."""

State: TypeAlias = Tensor | None
"""What a backbone carries from one evaluation of the same video to the next (FIT: its latents ``[B, L, D]``)."""


class Backbone(LightningModule, ABC):
    """A network that sees pixels and tokens, never noise formulas.

    Attributes:
        shape: The size of the videos that it takes and predicts.
        dim_condition: Width D of the conditioning tokens that it reads.
        condition_channels: Channels of the video that it is conditioned on beside them; 0: none.
    """

    shape: VideoShape
    dim_condition: int
    condition_channels: int = 0

    def check_shape(self, shape: VideoShape) -> None:
        """Refuse videos of another size than it takes; a backbone that takes more than `shape` overrides it.

        Raises:
            ValueError: It does not take them; the message says what it takes.
        """
        if shape != self.shape:
            raise ValueError(f"{type(self).__name__} takes videos of {self.shape} (T x H x W) alone, not of {shape}")

    @abstractmethod
    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, state: State = None) -> tuple[Tensor, State]:
        """One evaluation.

        Args:
            x: Noisy video, scaled to unit variance ``[B, C, T, H, W]``.
            c_noise: Noise level as the framework encodes it ``[B]``.
            condition: Conditioning tokens.
            state: What the previous evaluation of the same video returned, or None at the first.

        Returns:
            The prediction ``[B, C, T, H, W]`` and the state for the next evaluation.
        """

    def fit_weights(self, weights: dict[str, Tensor], source: Backbone) -> dict[str, Tensor]:
        """Weights of another backbone by name, made to fit this one where that can be done; the rest as they are.

        Args:
            weights: Those of `source`.
            source: The other backbone, maybe without weights in memory (on the meta device).
        """
        return weights

    def prepare(self, condition: Condition) -> Condition:
        """What `forward` may be given in place of `condition` while sampling; called once per sample.

        A backbone overrides it to compute once what is the same in all evaluations.
        """
        return condition

    def train_forward(self, x: Tensor, c_noise: Tensor, condition: Condition, draws: Draws) -> Tensor:
        """The prediction to train on; a backbone with state overrides it to learn to use the state.

        Args:
            x: As in `forward`.
            c_noise: As in `forward`.
            condition: As in `forward`.
            draws: This step's random draws.
        """
        return self(x, c_noise, condition)[0]


class Framework(LightningModule, ABC):
    """A diffusion framework: forward process, preconditioning, loss and noise levels.

    Its forward process is ``x_t = signal * x + noise * eps``. All methods speak of ``y = x_t / signal`` and
    ``sigma = noise / signal``, so that ``y = x + sigma * eps`` whatever the framework, and samplers need no more.
    """

    @abstractmethod
    def noise_levels(self, quantile: Tensor, shape: VideoShape) -> Tensor:
        """Quantile function of the training distribution of sigma: uniform draws in, noise levels out ``[B]``."""

    @abstractmethod
    def sampling_levels(self, num_steps: int, shape: VideoShape) -> Tensor:
        """Noise levels for sampling ``[num_steps + 1]``, float64, falling, the last one 0."""

    @abstractmethod
    def denoise(self, predict: Predict, y: Tensor, sigma: Tensor) -> Tensor:
        """Estimate of the clean video, float32, of ``y = x + sigma * eps`` ``[B, C, T, H, W]`` at sigma ``[B]``."""

    @abstractmethod
    def loss(self, predict: Predict, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Weighted training loss of each sample ``[B]``, float32.

        Args:
            predict: The network.
            x: Clean video ``[B, C, T, H, W]``.
            sigma: Noise levels ``[B]``.
            noise: Standard normal noise ``[B, C, T, H, W]``.
        """


class Conditioner(LightningModule, ABC):
    """Turns labels into conditioning tokens.

    Attributes:
        dim: Width D of its tokens.
        video_channels: Channels of the video that it gives beside them; 0: none.
    """

    dim: int
    video_channels: int = 0

    def check_low_res(self, shape: VideoShape, level: float) -> None:
        """Refuse to enlarge videos of a size, with noise of a level on them.

        Raises:
            ValueError: It does not; the message says what it takes.
        """
        raise ValueError("it makes videos of texts alone and enlarges none: it can only be the first")

    def see(self, batch: VideoBatch, draws: Draws | KeyDraws) -> VideoBatch:
        """A batch of clean videos with the labels that can be made of these: what an upsampler is to enlarge.

        Args:
            batch: Training or validation data.
            draws: Random draws for its samples.
        """
        return batch

    @abstractmethod
    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens of a batch.

        Args:
            prompt: Labels of B videos.
            drop: ``[B]`` bool: where True, a conditioner that guidance can steer (text) gives its learned null instead.
                Others ignore it.
        """


class Sampler(ABC):
    """Solves the denoising ODE or SDE: a pure function of a denoiser, a source of noise and noise levels.

    Attributes:
        num_steps: Steps from the highest noise level to none.
    """

    num_steps: int

    @abstractmethod
    def __call__(self, denoise: Denoise, noise: Noise, sigmas: Tensor) -> Tensor:
        """A sample.

        Args:
            denoise: The denoiser.
            noise: Where noise comes from; its dtype is the sampler's.
            sigmas: Falling noise levels ``[num_steps + 1]``, the last one 0.
        """


class Levels(ABC):
    """Places the noise levels of sampling, in place of the framework."""

    @abstractmethod
    def __call__(self, sigmas: Tensor) -> Tensor:
        """As many levels between the same ends.

        Args:
            sigmas: The framework's own levels ``[num_steps + 1]``, float64, falling, the last one 0.
        """


class Branches(ABC):
    """The denoisers that guidance has: one that knows the labels, and one of the same videos under the null label."""

    @abstractmethod
    def conditional(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate with the labels alone; see `Denoise`."""

    @abstractmethod
    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates with the labels and under the null label, by one evaluation of a batch of twice the size."""


class Guidance(ABC):
    """Makes one denoiser of branches."""

    @abstractmethod
    def __call__(self, branches: Branches) -> Denoise:
        """A denoiser of one video's sampling, steered towards the condition."""


class VideoModel(Protocol):
    """What samples videos of one size: `VideoDiffusion`, or what stands in for it."""

    @property
    def shape(self) -> VideoShape:
        """The size of the videos that it samples."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    @property
    def conditioner(self) -> Conditioner:
        """What it is conditioned on; an upsampler's enlarges videos (`Conditioner.check_low_res`)."""
        ...

    def sample(
        self,
        prompt: Prompt,
        seeds: Sequence[int],
        on_evaluation: Callable[[], object] | None = None,
        steer: Steer | None = None,
    ) -> Tensor:
        """Videos ``[B, C, T, H, W]`` in [-1, 1]; see `VideoDiffusion.sample`."""
        ...
