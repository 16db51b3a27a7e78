"""Networks that their authors publish as TorchScript files: I3D, Inception, C3D.

A TorchScript file is a program: load only files of those whom you trust.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from .network import Classifier, ImageNetwork, Network, VideoNetwork, check_videos


class TorchScript(Network):
    """A network in a TorchScript file; the base of `I3D`, `Inception` and `C3D`.

    Attributes:
        source: Where its authors have the file.
    """

    source: ClassVar[str]

    def __init__(self, file: str) -> None:
        self.file = os.path.expanduser(file)

    @property
    def files(self) -> Sequence[Path]:
        """The file.

        Raises:
            ValueError: It is not there.
        """
        if not os.path.isfile(self.file):
            raise ValueError(
                f"network {type(self).__name__}: there is no file {self.file!r}\n"
                f"Fix: fetch {self.source} (nothing fetches it for you), and give its path as file="
            )
        return [Path(self.file)]

    def load(self) -> nn.Module:
        """The program of the file, on the CPU.

        Raises:
            ValueError: The file is not there, or is no TorchScript.
        """
        (file,) = self.files
        try:
            return torch.jit.load(file, map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(
                f"network {type(self).__name__}: {self.file!r} is no TorchScript file, or not a whole one\n"
                f"Fix: fetch {self.source}, and give its path as file="
            ) from error

    def run(self, videos: Tensor, width: int, **flags: bool) -> Tensor:
        """What the program gives for an input, ``[N, width]``, float32.

        Raises:
            ValueError: The file can't be read, or it is another network.
        """
        program: Any = self.on(videos.device)
        options = {argument.name for argument in program.forward.schema.arguments}
        if not options.issuperset(flags):
            raise ValueError(self._other(f"it has no options {', '.join(flags)}"))
        with torch.no_grad(), torch.autocast(videos.device.type, enabled=False):
            rows: Tensor = program(videos, **flags).float()
        if rows.shape != (len(videos), width):
            raise ValueError(self._other(f"it gives {list(rows.shape)}, not {[len(videos), width]}"))
        return rows

    def _other(self, what: str) -> str:
        name = type(self).__name__
        return f"network {name}: {self.file!r} is another network: {what}\nFix: fetch {self.source}"

    def _check_probabilities(self, rows: Tensor) -> Tensor:
        if rows.min() < 0 or (rows.sum(dim=-1) - 1).abs().max() > 1e-3:
            raise ValueError(self._other("what it gives are no probabilities"))
        return rows


class I3D(TorchScript, VideoNetwork):
    """I3D, trained on Kinetics-400, as most publications use it for FVD (Carreira and Zisserman, 2017).

    Its features are the 400 logits, as in the first FVD. The program stretches frames to 224x224 and scales 0..255 to
    -1..1 by itself. It takes any number of frames from 9: it divides time by eight, and joins two of what is left.

    Args:
        file: ``i3d_torchscript.pt``, which StyleGAN-V published. Load only files that you trust: they are programs.
    """

    source = "i3d_torchscript.pt of StyleGAN-V (https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt)"
    width = 400

    def __init__(self, file: str) -> None:
        super().__init__(file)

    def __call__(self, videos: Tensor) -> Tensor:
        """Logits ``[B, 400]`` of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The file can't be read or is another network, or the videos have fewer than 9 frames.
        """
        check_videos(videos)
        if videos.shape[2] < 9:
            raise ValueError(f"the videos have {videos.shape[2]} frames: I3D takes 9 or more; or score with VideoMAE")
        return self.run(videos.float(), self.width, rescale=True, resize=True, return_features=True)

    def preprocessing(self) -> dict[str, Any]:
        """What its program does."""
        return {
            "size": [224, 224],
            "fit": "stretch",
            "filter": "of the file",
            "range": "-1..1",
            "frames": "all, 9 or more",
        }


class Inception(TorchScript, ImageNetwork, Classifier):
    """The Inception network of FID and of the Inception Score (Szegedy et al., 2016; TensorFlow's of 2015-12-05).

    Its features are the 2048 before the last layer. The program resizes images to 299x299 by itself, as
    TensorFlow did. Probabilities are of 1008 classes and leave out the bias of the last layer, as the first Inception
    Score did.

    Args:
        file: ``inception-2015-12-05.pt``, which StyleGAN2-ADA published. Load only files that you trust: they are
            programs.
    """

    source = (
        "inception-2015-12-05.pt of StyleGAN2-ADA "
        "(https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt)"
    )
    width = 2048
    classes = 1008

    def __init__(self, file: str) -> None:
        super().__init__(file)

    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, T, 2048]`` of the frames of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The file can't be read, or is another network.
        """
        check_videos(videos)
        rows = self.run(rearrange(videos, "b c t h w -> (b t) c h w"), self.width, return_features=True)
        return rearrange(rows, "(b t) d -> b t d", b=len(videos))

    def classify(self, videos: Tensor) -> Tensor:
        """Probabilities ``[B, T, 1008]`` of the frames of videos uint8 ``[B, 3, T, H, W]``.

        Raises:
            ValueError: The file can't be read, or is another network.
        """
        check_videos(videos)
        rows = self.run(rearrange(videos, "b c t h w -> (b t) c h w"), self.classes, no_output_bias=True)
        return rearrange(self._check_probabilities(rows), "(b t) k -> b t k", b=len(videos))

    def preprocessing(self) -> dict[str, Any]:
        """What its program does."""
        return {
            "size": [299, 299],
            "fit": "stretch",
            "filter": "of the file",
            "range": "0..255",
        }


class C3D(TorchScript, Classifier):
    """C3D, trained on UCF-101, as TGAN and StyleGAN-V use it for the Inception Score of videos (Tran et al., 2015).

    It is called as StyleGAN-V calls it: uint8 videos of 16 frames, no options, and 101 probabilities come back. What it
    does with them was not looked at. In TGANv2's code, from which it was made, frames are stretched to 112x112 and a
    mean video is subtracted.

    Args:
        file: ``c3d_ucf101.pt``, which StyleGAN-V published. Load only files that you trust: they are programs.
    """

    source = "c3d_ucf101.pt of StyleGAN-V (https://www.dropbox.com/s/jxpu7avzdc9n97q/c3d_ucf101.pt)"
    classes = 101
    frames = 16

    def __init__(self, file: str) -> None:
        super().__init__(file)

    def classify(self, videos: Tensor) -> Tensor:
        """Probabilities ``[B, 1, 101]`` of videos uint8 ``[B, 3, 16, H, W]``.

        Raises:
            ValueError: The file can't be read or is another network, or the videos have not 16 frames.
        """
        check_videos(videos)
        if videos.shape[2] != self.frames:
            raise ValueError(f"the videos have {videos.shape[2]} frames: C3D takes {self.frames}")
        return self._check_probabilities(self.run(videos, self.classes))[:, None]

    def preprocessing(self) -> dict[str, Any]:
        """What is known of its program."""
        return {"size": "of the file", "range": "0..255", "frames": self.frames}
