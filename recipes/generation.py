"""What Lightning's predict loop makes videos with: a module around what makes them, and batches of what is missing.

It knows a `Maker` and a list of requests. What makes the videos, one model or several in turn, is the maker's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..components.interfaces import Prompt, VideoShape
from ..datamodules.order import SharedOut
from .errors import UserError
from .requests import Request, batches_of
from .videos import VideoFolder


class Maker(nn.Module, ABC):
    """What makes videos of prompts: a model, or several in turn.

    Attributes:
        shape: The size of the videos that it is for.
        num_evaluations: How often it evaluates a denoiser to make a batch.
    """

    shape: VideoShape
    num_evaluations: int

    @abstractmethod
    def forward(
        self, prompt: Prompt, seeds: Sequence[int], on_evaluation: Callable[[], object]
    ) -> Mapping[str, Tensor]:
        """Videos ``[B, C, T, H, W]`` in [-1, 1] by the names of stages; those of the last stage are what it is for.

        Args:
            prompt: Labels of B videos.
            seeds: A seed per video, on which, with its prompt, it depends alone.
            on_evaluation: To be called at every evaluation of a denoiser.
        """


class Generation(LightningModule):
    """Makes the videos of batches of requests.

    Args:
        maker: What makes them.
        resolution: Height and width of an original that the model is told; None: those of the videos.
    """

    def __init__(self, maker: Maker, resolution: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.maker = maker
        self.resolution = resolution or (maker.shape.height, maker.shape.width)
        self.on_evaluation: Callable[[], object] = lambda: None

    def predict_step(self, batch: list[Request], batch_idx: int) -> Mapping[str, Tensor]:
        """Videos of a batch, by stage; see `Maker.forward`."""
        size = torch.tensor(self.resolution, dtype=torch.float32).expand(len(batch), 2)
        prompt = Prompt([request.prompt for request in batch], torch.tensor([request.fps for request in batch]), size)
        return self.maker(prompt.to(self.device), [request.seed for request in batch], self.on_evaluation)


class Missing(LightningDataModule):
    """What is missing in a folder of videos, in batches.

    A batch of which any video is missing comes as a whole: what is in a batch depends on the list of requests and the
    size alone, not on the number of processes or on what a kill has left.

    Args:
        folder: The folder.
        batch_size: Videos at a time.
    """

    def __init__(self, folder: VideoFolder, batch_size: int) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        self.names: set[str] = set()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have nothing left to do

    def setup(self, stage: str) -> None:
        """Open the folder in the first process, and tell the others.

        Raises:
            UserError: In all of them, what it is in the first.
        """
        assert self.trainer is not None
        path, problem = None, ""
        if self.trainer.is_global_zero:
            try:
                self.names = {request.name for request in self.folder.open()}
                path = self.folder.path
            except UserError as error:
                problem = str(error)
        path, self.names, problem = self.trainer.strategy.broadcast((path, self.names, problem))
        if path is None:
            raise UserError(problem)
        self.folder.path = path

    def batches(self) -> list[list[Request]]:
        """Those to be made, of all processes together."""
        whole = batches_of(self.folder.requests, self.batch_size)
        return [batch for batch in whole if any(request.name in self.names for request in batch)]

    def predict_dataloader(self) -> DataLoader[list[Request]]:
        """Those of this process."""
        assert self.trainer is not None
        own = self.batches()[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(own, sampler=SharedOut(range(len(own))), batch_size=None)  # type: ignore[arg-type]
