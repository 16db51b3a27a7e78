"""Tiny stand-ins for the networks of metrics, saved as their authors publish them, and networks of known features."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..conditioning.conftest import make_clip


class Projection(nn.Module):
    """A video or image becomes numbers by a matrix, from the mean of each of its channels and their squares."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, width, generator=torch.Generator().manual_seed(width)))

    def project(self, x: Tensor) -> Tensor:
        x = x.float().flatten(2) / 255
        return torch.cat([x.mean(2), x.square().mean(2)], 1) @ self.matrix


class ScriptI3D(Projection):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale and resize and return_features and x.dtype == torch.float32
        return self.project(x)


class ScriptInception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.logits = Projection(2048), Projection(1008)

    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert x.dtype == torch.uint8 and x.dim() == 4
        if return_features:
            return self.features.project(x)
        assert no_output_bias
        return self.logits.project(x).softmax(1)


class ScriptC3D(Projection):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8 and x.shape[2] == 16
        return (9 * self.project(x)).softmax(1)


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """TorchScript files: "i3d", "inception", "c3d"."""
    root = tmp_path_factory.mktemp("scripts")
    i3d, inception, c3d = ScriptI3D(400), ScriptInception(), ScriptC3D(101)
    inception.features.forward = inception.features.project
    inception.logits.forward = inception.logits.project
    for name, module in {"i3d": i3d, "inception": inception, "c3d": c3d}.items():
        torch.jit.script(module).save(root / f"{name}.pt")
    return {name: root / f"{name}.pt" for name in ("i3d", "inception", "c3d")}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP for images of 8 pixels, with its settings for frames."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    for part in make_clip():
        part.save_pretrained(folder)
    size = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def videomae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VideoMAE for 4 frames of 8 pixels."""
    folder = tmp_path_factory.mktemp("videomae")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = VideoMAEConfig(image_size=8, patch_size=4, num_frames=4, tubelet_size=2, num_labels=5, **sizes)
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def videos() -> Tensor:
    """Eight of 16 frames, brighter and brighter, and no two alike."""
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(0.2, 1, 8).reshape(-1, 1, 1, 1, 1)
    return (255 * level * torch.rand(8, 3, 16, 12, 20, generator=generator)).to(torch.uint8)
