"""Videos that are kept for validation, to look at."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer

from ..draws import KeyDraws
from ..interfaces import Conditioner, VideoBatch


def held_out_videos(trainer: Trainer, module: Any, count: int) -> VideoBatch:  # noqa: ANN401  # a model, of any class
    """The first held-out videos, not images, with what an upsampler is to enlarge; on the model's device.

    On several devices each has a share of what is held out, and these are of its own.

    Args:
        trainer: Has the data.
        module: Has the `shape` of the videos, others are left out, and maybe a `conditioner` that sees them.
        count: How many; fewer where the data has fewer.

    Raises:
        ValueError: No videos are held out.
    """
    data: Any = getattr(trainer, "datamodule", None)
    found: list[VideoBatch] = []
    left = count
    for raw in [] if data is None else data.val_dataloader():
        batch = trainer.strategy.batch_to_device(raw, dataloader_idx=0)
        if batch.shape == module.shape:
            found.append(batch[torch.arange(min(left, len(batch) - batch.num_images))])
            left -= len(found[-1])
        if not left:
            break
    if left == count:
        raise ValueError(
            "sampling.prompts is null, and no videos are held out to sample: set data.holdout above 0 where there are "
            "videos, or --sampling null for no samples"
        )
    videos = VideoBatch.stack(found)
    conditioner = getattr(module, "conditioner", None)
    if isinstance(conditioner, Conditioner):
        return conditioner.see(videos, KeyDraws(videos.keys, videos.video.device))
    return videos
