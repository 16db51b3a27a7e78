"""What a model does in training and in sampling, on random inputs: what `plan` counts and `bench` times."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from ..components.draws import Draws
from ..components.interfaces import Backbone, Condition, Framework, State

CONDITION_TOKENS = 130
"""128 of text, one of the frame rate and one of the resolution."""

LOW_RES = 8
"""How many times smaller the video is that an upsampler enlarges (the paper's: 36x64 to 288x512)."""


class Work(Protocol):
    """A network, and what it does."""

    @property
    def network(self) -> nn.Module:
        """The network."""

    def train(self) -> None:
        """Forward and backward pass."""

    def evaluate(self) -> Tensor:
        """One evaluation of the denoiser."""


class Workload:
    """Train steps and evaluations of a network on one random batch.

    Args:
        backbone: Network.
        framework: Diffusion framework.
        batch_size: Clips.
        device: Where the random batch is made; the network must be there.
    """

    def __init__(self, backbone: Backbone, framework: Framework, batch_size: int, device: torch.device | str) -> None:
        self.network, self.framework, self.batch_size = backbone, framework, batch_size
        quantile = (torch.arange(batch_size, device=device) + 0.5) / batch_size
        self.sigma = framework.noise_levels(quantile, backbone.shape)
        self.video = torch.rand(batch_size, *backbone.shape, device=device) * 2 - 1
        self.noise = torch.randn(batch_size, *backbone.shape, device=device)
        tokens = torch.randn(batch_size, CONDITION_TOKENS, backbone.dim_condition, device=device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=device)
        self.condition = Condition(tokens, mask)
        if channels := backbone.condition_channels:
            _, num_frames, height, width = backbone.shape
            low = (batch_size, channels, num_frames, -(-height // LOW_RES), -(-width // LOW_RES))
            self.condition.video = torch.randn(low, device=device)
        self.state: State = None
        self.draws = Draws(0, batch_size, device=device)

    def train(self) -> None:
        """Forward and backward pass, with the first pass of self-conditioning if the network has it."""
        self.network.train()
        self.framework.loss(self._predict_to_train, self.video, self.sigma, self.noise).mean().backward()

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """One evaluation of the denoiser, as in sampling without guidance.

        All but the first start from a state, and find the conditioning prepared.
        """
        self.network.eval()
        return self.framework.denoise(self._predict, self.noise, self.sigma)

    @cached_property
    def _prepared(self) -> Condition:
        return self.network.prepare(self.condition)

    def _predict(self, x: Tensor, c_noise: Tensor) -> Tensor:
        prediction, self.state = self.network(x, c_noise, self._prepared, self.state)
        return prediction

    def _predict_to_train(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.network.train_forward(x, c_noise, self.condition, self.draws)
