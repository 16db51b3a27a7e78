"""Reconstruction guidance: some frames of a video are known, and the others are sampled to go with them."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from ..interfaces import Denoise


class Reconstruction:
    """Steers a denoiser towards known frames (Ho et al. 2022, "Video Diffusion Models", Eq. 7).

    With ``a`` the known frames, ``b`` the others and ``D`` the denoiser,

        ``D_b(y) - w/2 * d/dy_b |x_a - D_a(y)|^2``

    takes the place of ``D_b(y)``, and ``x_a`` that of ``D_a(y)``, so that known frames come out as they are given. The
    gradient is that of the network: an evaluation takes about three times as long, and the memory of training.

    Of T frames, k of them known, ``w = scale * T / k``. Differs from the paper, where w is one number: the more frames
    are known, the more each follows from the others, and the less must be added. In a video that stands still ``T / k``
    is what makes the estimate exact as the noise falls (docs: long videos).

    Args:
        frames: Clean videos ``[B, C, T, H, W]`` in [-1, 1]; what they hold where a frame is not known is not read.
        known: Which frames are known, bool ``[T]``, or ``[B, T]`` where videos differ.
        scale: Higher: nearer to the known frames, >= 0. 0: these are put in place, and the others are not steered.

    Raises:
        ValueError: Shapes do not fit each other, or `scale` is out of range.
    """

    def __init__(self, frames: Tensor, known: Tensor, scale: float = 1.0) -> None:
        batch, num_frames = frames.shape[0], frames.shape[2]
        if known.dtype != torch.bool or list(known.shape) not in ([num_frames], [batch, num_frames]):
            raise ValueError(
                f"known is {known.dtype} {list(known.shape)} for frames {list(frames.shape)}: "
                f"give bool {[num_frames]} or {[batch, num_frames]}"
            )
        if not 0 <= scale < math.inf:
            raise ValueError(f"reconstruction scale={scale} must be a finite number of at least 0")
        self.frames, self.scale = frames, scale
        self.known = rearrange(known.expand(batch, num_frames), "b t -> b 1 t 1 1")

    def __call__(self, denoise: Denoise) -> Denoise:
        """The denoiser of videos that have the known frames; see `Denoise`."""

        def steered(y: Tensor, sigma: Tensor) -> Tensor:
            if y.shape != self.frames.shape:
                raise ValueError(f"known frames {list(self.frames.shape)} do not fit videos {list(y.shape)}")
            frames, known = self.frames.to(y), self.known.to(y.device)
            if self.scale == 0:
                return torch.where(known, frames, denoise(y, sigma))
            weight = self.scale / known.to(y.dtype).mean(2, keepdim=True).clamp(min=1 / y.shape[2])
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                clean = denoise(y, sigma)
                # Videos do not meet in the network: the gradient of the sum is that of each.
                error = torch.where(known, frames - clean, 0).square().sum()
                (gradient,) = torch.autograd.grad(error, y)
            return torch.where(known, frames, clean.detach() - weight / 2 * gradient)

        return steered
