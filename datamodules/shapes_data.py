"""Generated moving shapes as training data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..components.interfaces import VideoShape
from .joint import JointData
from .synth import write_shapes


class Shapes(JointData):
    """Moving shapes with captions, drawn into a folder when it is not there yet; a download is not needed.

    Args:
        shape: Size of one video; clips are read at this size.
        root: Folder of the data set; ~ and environment variables are replaced.
        num_videos: Videos to draw.
        num_images: Images to draw.
        size: Side of the drawn frames in pixels, even; with `width`, rows alone.
        width: Columns of the drawn frames, even and at least `size`; None: square frames.
        seed: Another seed draws other scenes.
        video_batch_size: Videos per batch and device; 0 for none.
        image_batch_size: Images per batch and device; 0 for none.
        fps: Frame rates, in frames per second and at most 16, of which each video is read at a random one that its
            length, 1 s, allows.
        holdout: Samples of each modality kept for validation, chosen by their names; 0 for no validation.
        num_workers: Processes that read files beside the training; 0 reads in the training process.
        hold_out_combinations: Whether no scene has the combinations of colour, shape and direction that
            `shapes.HELD_OUT` keeps for a test of composition.

    Raises:
        ValueError: A setting is out of range, or `root` holds something else.
    """

    def __init__(
        self,
        shape: VideoShape,
        root: Path = Path("data/shapes"),
        num_videos: int = 2000,
        num_images: int = 2000,
        size: int = 64,
        width: int | None = None,
        seed: int = 0,
        video_batch_size: int = 8,
        image_batch_size: int = 8,
        fps: Sequence[float] = (8.0,),
        holdout: int = 0,
        num_workers: int = 0,
        hold_out_combinations: bool = False,
    ) -> None:
        super().__init__(
            shape,
            videos=root / "videos" if video_batch_size else None,
            images=root / "images" if image_batch_size else None,
            video_batch_size=video_batch_size,
            image_batch_size=image_batch_size,
            fps=fps,
            holdout=holdout,
            num_workers=num_workers,
        )
        self.root = Path(os.path.expanduser(os.path.expandvars(root)))
        self.num_videos = num_videos
        self.num_images = num_images
        self.size = size
        self.width = width
        self.seed = seed
        self.hold_out_combinations = hold_out_combinations

    def prepare_data(self) -> None:
        """Draw what is missing; a complete folder is left as it is."""
        write_shapes(
            self.root,
            self.num_videos,
            self.num_images,
            size=self.size,
            seed=self.seed,
            width=self.width,
            hold_out_combinations=self.hold_out_combinations,
        )
