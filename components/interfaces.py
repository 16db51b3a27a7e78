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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import pad

from .draws import Draws

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


@dataclass(frozen=True)
class VideoShape:
    """The size of one video.

    Args:
        num_frames: Frames per video, T.
        height: Rows of pixels, H.
        width: Columns of pixels, W.
        channels: Colour channels, C.
    """

    num_frames: int
    height: int
    width: int
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("num_frames", "height", "width", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name} is {getattr(self, name)}: it must be at least 1")

    def __iter__(self) -> Iterator[int]:
        """Unpack in the order of the axes: ``C, T, H, W``."""
        return iter((self.channels, self.num_frames, self.height, self.width))

    def __str__(self) -> str:
        """``16x36x64``: frames, rows, columns."""
        return f"{self.num_frames}x{self.height}x{self.width}"


@dataclass
class Prompt:
    """All that a video can be asked to be: what a `Conditioner` sees.

    Args:
        captions: B texts.
        fps: Frames per second ``[B]``; infinite for images, which are videos of equal frames (paper, 3.3).
        resolution: Height and width in pixels of the original, before resizing ``[B, 2]``.
        embeddings: What the text encoder makes of the captions, where the data brings it along; None: it doesn't.
    """

    captions: list[str]
    fps: Tensor
    resolution: Tensor
    embeddings: Condition | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.captions)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch with its tensors on `device`."""
        return replace(self, **{k: v.to(device, non_blocking=non_blocking) for k, v in self._tensors().items()})

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return replace(self, **{k: v.pin_memory() for k, v in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor | Condition)}


@dataclass
class VideoBatch(Prompt):
    """Videos or images with their labels.

    Args:
        video: ``[B, C, T, H, W]``: uint8 in 0..255 until it is on the device, then float in [-1, 1]. An image has T = 1
            until it is on the device, where `join` repeats it.
        keys: B names, each telling which sample of the source this is.
        skipped: ``(name, reason)`` of the files that could not be used while this batch was made.
        num_frames: T on the device, also of images; 0: what the video has.
        num_images: Images among them, which come after the videos; -1: they are counted, best where the batch is made,
            since counting on a device waits for it.
    """

    video: Tensor
    keys: list[str]
    skipped: Sequence[tuple[str, str]] = ()
    num_frames: int = 0
    num_images: int = -1

    def __post_init__(self) -> None:
        if self.num_images < 0:
            self.num_images = int(self.is_image.sum())

    @property
    def shape(self) -> VideoShape:
        """The size of its videos."""
        channels, num_frames, height, width = self.video.shape[1:]
        return VideoShape(num_frames, height, width, channels)

    @property
    def is_image(self) -> Tensor:
        """Which samples are images ``[B]``, bool."""
        return self.fps.isinf()

    @staticmethod
    def join(parts: Sequence[VideoBatch], num_frames: int) -> VideoBatch:
        """One float batch in [-1, 1] of the parts (videos, images), images repeated to `num_frames`.

        Raises:
            ValueError: A part is neither `num_frames` long nor an image.
        """
        for part in parts:
            if part.video.shape[2] not in (1, num_frames):
                raise ValueError(f"a batch has {part.video.shape[2]} frames; {num_frames} (videos) or 1 (images) fit")
        embeddings = [part.embeddings for part in parts if part.embeddings is not None]
        videos = [part.video.float().div(127.5).sub(1.0).expand(-1, -1, num_frames, -1, -1) for part in parts]
        return VideoBatch(
            captions=[caption for part in parts for caption in part.captions],
            fps=torch.cat([part.fps for part in parts]),
            resolution=torch.cat([part.resolution for part in parts]),
            video=torch.cat(videos),
            keys=[key for part in parts for key in part.keys],
            skipped=[skip for part in parts for skip in part.skipped],
            embeddings=Condition.stack(embeddings) if embeddings else None,
            num_images=sum(part.num_images for part in parts),
        )


@dataclass
class Condition:
    """Conditioning tokens for a backbone.

    Args:
        tokens: ``[B, S, D]``.
        mask: ``[B, S]`` bool; False where a token must not be attended to (padding).
    """

    tokens: Tensor
    mask: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Condition:
        """The same tokens on `device`."""
        return Condition(*(t.to(device, non_blocking=non_blocking) for t in (self.tokens, self.mask)))

    def pin_memory(self) -> Condition:
        """The same tokens in page-locked memory."""
        return Condition(self.tokens.pin_memory(), self.mask.pin_memory())

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """All tokens of the parts, side by side."""
        return Condition(torch.cat([p.tokens for p in parts], dim=1), torch.cat([p.mask for p in parts], dim=1))

    @staticmethod
    def stack(parts: Sequence[Condition]) -> Condition:
        """The parts as one batch, one after the other; shorter ones are padded."""
        length = max(part.mask.shape[1] for part in parts)
        tokens = [pad(part.tokens, (0, 0, 0, length - part.mask.shape[1])) for part in parts]
        return Condition(torch.cat(tokens), torch.cat([pad(p.mask, (0, length - p.mask.shape[1])) for p in parts]))


class Backbone(LightningModule, ABC):
    """A network that sees pixels and tokens, never noise formulas.

    Attributes:
        shape: The size of the videos that it takes and predicts.
        dim_condition: Width D of the conditioning tokens that it reads.
    """

    shape: VideoShape
    dim_condition: int

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
    """

    dim: int

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

    def sample(
        self,
        prompt: Prompt,
        seeds: Sequence[int],
        on_evaluation: Callable[[], object] | None = None,
        steer: Steer | None = None,
    ) -> Tensor:
        """Videos ``[B, C, T, H, W]`` in [-1, 1]; see `VideoDiffusion.sample`."""
        ...
