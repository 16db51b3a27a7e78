"""FIT and U-Net beside other people's networks of about 25M parameters: speed and memory, measured in turn in one run.

    pip install --no-deps -r docs/benchmarks/requirements-peers.txt
    python docs/benchmarks/peers.py --dtype float32 --threads 2 --json peers.json

Each takes clips of 16 frames of 36x64 with 32 tokens of text (those that read text) and goes forward and backward
(train) or forward alone (inference). Networks that halve the size three times get frames padded to 40x64. A network
whose package is missing is left out and named.

EDM's ADM U-Net comes from NVIDIA's modulus, which keeps EDM's own code; it sees each frame alone and without text.
rin-pytorch takes square images: the 48x48 patches of a clip are laid out as one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad

from snapvideo.components import FIT, UNet
from snapvideo.components.interfaces import Backbone, Condition, VideoShape
from snapvideo.recipes.bench import Settings, compare
from snapvideo.recipes.commands.bench import table

SHAPE = VideoShape(num_frames=16, height=36, width=64)
TEXT = (32, 768)
"""Tokens of text and their width."""

Call = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(clips ``[B, C, T, H, W]``, noise levels ``[B]`` in 0..1, text ``[B, S, D]``) -> prediction."""


class Job:
    """A network at work on random clips, as `compare` wants it.

    Args:
        make: Makes a network and what calls it.
        batch_size: Clips.
        device: Where.
    """

    def __init__(self, make: Callable[[], tuple[nn.Module, Call]], batch_size: int, device: torch.device) -> None:
        network, self.call = make()
        self.network = network.to(device)
        self.x = torch.randn(batch_size, *SHAPE, device=device)
        self.t = torch.full((batch_size,), 0.5, device=device)
        self.text = torch.randn(batch_size, *TEXT, device=device)

    def train(self) -> None:
        """Forward and backward pass."""
        self.network.train()
        mse_loss(self.call(self.x, self.t, self.text), self.x).backward()

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Forward pass."""
        self.network.eval()
        return self.call(self.x, self.t, self.text)


def fit() -> tuple[nn.Module, Call]:
    """The paper's FIT 500M, its widths times 3/8 and 2 of its 6 blocks; text of the width that it reads."""
    return _ours(
        FIT(SHAPE, num_blocks=2, dim_patch=288, dim_latent=384, dim_condition=TEXT[1], dropout=0.0, self_conditioning=0)
    )


def unet() -> tuple[nn.Module, Call]:
    """The paper's U-Net at a third of its width."""
    return _ours(UNet(SHAPE, channels=64, dim_condition=TEXT[1], dropout=0.0))


def _ours(network: Backbone) -> tuple[nn.Module, Call]:
    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        condition = Condition(text, torch.ones(text.shape[:2], dtype=torch.bool, device=text.device))
        return network(x, t, condition)[0]

    return network, call


def diffusers_unet3d() -> tuple[nn.Module, Call]:
    """ModelScope's text-to-video U-Net."""
    from diffusers import UNet3DConditionModel

    network = UNet3DConditionModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(64, 128, 128, 128),
        cross_attention_dim=TEXT[1],
        attention_head_dim=32,
    )
    return network, lambda x, t, text: _cropped(lambda y: network(y, t * 1000, text, return_dict=False)[0], x)


def diffusers_latte() -> tuple[nn.Module, Call]:
    """Latte: a transformer that attends in space and in time by turns."""
    from diffusers import LatteTransformer3DModel

    network = LatteTransformer3DModel(
        in_channels=3,
        out_channels=3,
        sample_size=SHAPE.width,
        video_length=SHAPE.num_frames,
        patch_size=4,
        num_layers=8,
        num_attention_heads=5,
        attention_head_dim=64,
        cross_attention_dim=320,
        caption_channels=TEXT[1],
        attention_bias=True,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        num_embeds_ada_norm=1000,
    )
    return network, lambda x, t, text: network(x, t * 1000, text, return_dict=False)[0]


def rin() -> tuple[nn.Module, Call]:
    """RIN, from which FIT comes: one group, no text."""
    _stand_in("torchvision", "torchvision.transforms", "torchvision.utils")  # its trainer's
    from rin_pytorch import RIN

    network = RIN(dim=256, dim_latent=256, image_size=48 * 4, patch_size=4, depth=4, num_latents=256)

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        # 16 frames of 9x16 patches are 2304 = 48 x 48 patches.
        patches = rearrange(x, "b c t (h p) (w q) -> b c (t h w) p q", p=4, q=4)
        square = rearrange(patches, "b c (i j) p q -> b c (i p) (j q)", i=48)
        out = rearrange(network(square, t), "b c (i p) (j q) -> b c (i j) p q", p=4, q=4)
        return rearrange(out, "b c (t h w) p q -> b c t (h p) (w q)", t=SHAPE.num_frames, h=9)

    return network, call


def edm_adm() -> tuple[nn.Module, Call]:
    """EDM's ADM U-Net on each frame."""
    _stand_in("s3fs")  # downloads
    if not torch.cuda.is_available():  # it marks its blocks for a profiler that a build without CUDA hasn't
        torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None  # type: ignore[assignment]
    module = importlib.import_module("modulus.models.diffusion.dhariwal_unet")
    network = module.DhariwalUNet(64, 3, 3, model_channels=64, num_blocks=2, dropout=0.0)

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        def each(y: Tensor) -> Tensor:
            frames = network(rearrange(y, "b c t h w -> (b t) c h w"), t.repeat_interleave(y.shape[2]), None)
            return rearrange(frames, "(b t) c h w -> b c t h w", b=len(y))

        return _cropped(each, x)

    return network, call


def _stand_in(*modules: str) -> None:
    """Make modules importable that a package imports beside the network, and the network doesn't use."""
    for name in modules:
        sys.modules.setdefault(name, ModuleType(name))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


def _cropped(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a network that takes multiples of 8 makes of clips."""
    rows = x.shape[3]
    return network(pad(x, (0, 0, 0, -rows % 8)))[..., :rows, :]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Call]]] = {
    "FIT": fit,
    "U-Net": unet,
    "diffusers UNet3DCondition": diffusers_unet3d,
    "diffusers Latte": diffusers_latte,
    "rin-pytorch RIN": rin,
    "EDM's ADM per frame": edm_adm,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    makers = {}
    for name in arguments.only:
        try:
            with torch.device("meta"):
                NETWORKS[name]()
        except ImportError as error:
            print(f"left out: {name} ({error})")
        else:
            makers[name] = partial(Job, NETWORKS[name])
    results = compare(makers, Settings(1, arguments.dtype, arguments.device, False, arguments.rounds))
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps([result.as_dict() for result in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
