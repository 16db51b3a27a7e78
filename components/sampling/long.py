"""Long videos: windows as long as the model's videos, sampled one after the other from low frame rates to high ones.

The paper's hierarchy (C.5): at the lowest rate each window goes on from the last frames of the one before; at each
higher rate the gaps between the frames that exist are filled. A window is conditioned on all of its frames that exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..interfaces import Prompt, VideoModel
from .reconstruction import Reconstruction


@dataclass(frozen=True)
class Window:
    """Frames that are sampled together, as their places in the long video. Those beyond its end are not part of it.

    Args:
        fps: Their frame rate.
        places: All, as many as the model's videos have.
        known: Those that exist before.
        new: Those that it adds. What is neither is sampled and dropped: another window has more to go by there.
    """

    fps: float
    places: range
    known: tuple[int, ...]
    new: tuple[int, ...]


@dataclass(frozen=True)
class GivenFrames:
    """Frames of a long video that are given: the first, first and last, a clip to extend, ...

    Args:
        frames: ``[B, C, K, H, W]`` in [-1, 1].
        places: Where they are, K numbers, at the highest rate; negative ones count from the end.
    """

    frames: Tensor
    places: Sequence[int]


@dataclass(frozen=True)
class LongVideo:
    """How a long video is made.

    Args:
        duration: Length in seconds.
        rates: Frame rates that the model was trained at, rising, each a whole multiple of the one before. The last is
            that of the video.
        overlap: Frames of the window before that a window goes on from where no later frame exists; the paper's is 1.
        scale: How near others are to known frames; see `Reconstruction`.

    Raises:
        ValueError: A value out of range.
    """

    duration: float
    rates: Sequence[float]
    overlap: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"rates={list(self.rates)}: give at least one, all finite and above 0")
        for low, high in pairwise(self.rates):
            if high <= low or not math.isclose(high / low, round(high / low), rel_tol=1e-6):
                raise ValueError(f"rates={list(self.rates)}: {high:g} is no whole multiple of {low:g}")
        if not (math.isfinite(self.duration) and self.num_frames >= 1):
            raise ValueError(f"duration={self.duration} s must be finite and hold a frame at {self.rates[-1]:g} fps")
        if self.overlap < 1:
            raise ValueError(f"overlap={self.overlap} must be at least 1")

    @property
    def num_frames(self) -> int:
        """Frames of the video, N."""
        return round(self.duration * self.rates[-1])

    def windows(self, size: int, given: Collection[int] = ()) -> list[Window]:
        """The windows, in the order in which they are sampled.

        Args:
            size: Frames of a window, T.
            given: Places of frames that are given, 0 to N - 1.

        Raises:
            ValueError: Windows are too short for the overlap or for a step between rates, or the lowest rate would not
                see a given frame.
        """
        self._check(size, given)
        there, plan = set(given), []
        for rate in self.rates:
            stride = round(self.rates[-1] / rate)
            last = max(self.num_frames - 1, *there, 0)  # a lower rate may have frames after the video's end
            places = range(0, stride * max(last // stride + 1, size), stride)
            wanted = places[: (self.num_frames - 1) // stride + 1]
            while missing := [i for i, place in enumerate(wanted) if place not in there]:
                start, end = self._reach(missing[0], [place in there for place in places], size)
                window = places[start : start + size]
                known = tuple(place for place in window if place in there)
                new = tuple(place for place in places[start:end] if place not in there)
                plan.append(Window(rate, window, known, new))
                there.update(new)
        return plan

    def _reach(self, missing: int, there: Sequence[bool], size: int) -> tuple[int, int]:
        """Where the window that fills the first gap starts, and where what it adds ends.

        Args:
            missing: Where the gap starts.
            there: Which frames of this rate exist.
            size: Frames of a window.
        """
        later = [i for i in range(missing, len(there)) if there[i]]
        if later and later[0] < max(missing - 1, 0) + size:  # the gap and both its ends fit in
            start = max(missing - 1, 0)
            seen = [i for i in later if i < start + size]
            # What comes after the last frame that it sees has another end, which another window will see.
            end = start + size if seen == later else seen[-1] + 1
        else:
            end = max(missing - self.overlap, 0) + size
            if later:  # half a window is left for the one that meets the frame at the gap's end
                end = max(min(end, later[0] - size // 2), missing + 1)
        start = min(max(end - size, 0), len(there) - size)
        return start, min(end, start + size)

    def _check(self, size: int, given: Collection[int]) -> None:
        if self.overlap >= size:
            raise ValueError(f"overlap={self.overlap} must be below the {size} frames of a window")
        for low, high in pairwise(self.rates):
            if round(high / low) >= size:
                raise ValueError(
                    f"rates={list(self.rates)}: from {low:g} to {high:g} fps is a factor of {high / low:g}, and "
                    f"windows of {size} frames allow up to {size - 1}: put a rate between them"
                )
        stride = round(self.rates[-1] / self.rates[0])
        for place in given:
            if not 0 <= place < self.num_frames:
                raise ValueError(f"frame {place} is given, but the video has {self.num_frames} frames, from 0")
            before = place - place % stride
            if before not in given:  # what the lowest rate makes would lead elsewhere
                lengths = [(end + 1) / self.rates[-1] for end in (before, before + stride)]
                raise ValueError(
                    f"frame {place} is given, but {self.rates[0]:g} fps has frames {before} and {before + stride}: "
                    f"give one of these (a last frame: by a duration of {lengths[0]:g} or {lengths[1]:g} s)"
                )

    def sample(
        self,
        model: VideoModel,
        prompt: Prompt,
        seeds: Sequence[int],
        given: GivenFrames | None = None,
        on_evaluation: Callable[[], object] | None = None,
    ) -> Tensor:
        """Videos ``[B, C, N, H, W]`` in [-1, 1], at the highest rate.

        Args:
            model: Samples the windows.
            prompt: Labels of B videos; frame rates are those of the windows instead.
            seeds: A seed per video, on which it depends alone, not on the rest of the batch; if one window is enough,
                it is what the model samples of that seed.
            given: Frames that are known.
            on_evaluation: Called at every evaluation of the denoiser, as many times for each of `windows`.

        Raises:
            ValueError: As of `windows`; the given frames have another size than the model's.
        """
        frames = {} if given is None else self._given(given, [len(prompt), *model.shape])
        frames = {place: frame.to(model.device) for place, frame in frames.items()}
        channels, size, height, width = model.shape
        blank = torch.zeros(len(prompt), channels, height, width, device=model.device)
        for index, window in enumerate(self.windows(size, frames)):
            known = torch.tensor([place in window.known for place in window.places])
            shown = torch.stack([frames.get(place, blank) for place in window.places], dim=2)
            labels = replace(prompt, fps=torch.full((len(prompt),), window.fps))
            steer = Reconstruction(shown, known, self.scale) if window.known else None
            made = model.sample(labels, [_window_seed(seed, index) for seed in seeds], on_evaluation, steer)
            frames |= {place: made[:, :, window.places.index(place)] for place in window.new}
        return torch.stack([frames[place] for place in range(self.num_frames)], dim=2)

    def _given(self, given: GivenFrames, shape: Sequence[int]) -> dict[int, Tensor]:
        """The given frames ``[B, C, H, W]`` by their places from 0, for a model of videos `shape`."""
        batch, channels, _, height, width = shape
        wanted = [batch, channels, len(given.places), height, width]
        if list(given.frames.shape) != wanted:
            raise ValueError(f"given frames are {list(given.frames.shape)}: they must be {wanted}")
        places = [place + self.num_frames if place < 0 else place for place in given.places]
        return dict(zip(places, given.frames.unbind(2), strict=True))


def _window_seed(seed: int, index: int) -> int:
    """The video's own seed for its first window, others for the others."""
    return seed if index == 0 else int(np.random.SeedSequence((seed % 2**64, index)).generate_state(1, np.uint64)[0])
