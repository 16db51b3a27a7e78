"""Networks of Hugging Face transformers, by their name on the Hub or from a folder: VideoMAE, CLIP."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..hub import HUB_ID, fetch_folder
from .network import ImageNetwork, Network, VideoNetwork, check_videos, normalize, resize

if TYPE_CHECKING:
    from transformers import CLIPModel, PretrainedConfig, PreTrainedTokenizerBase


class TransformersNetwork(Network):
    """A network of transformers; the base of `VideoMAE` and `CLIP`.

    Weights are read from safetensors where there are any, else from torch's files, of which nothing but tensors is
    taken (``weights_only``). Code that lies beside a network is never run.

    Attributes:
        architecture: The class of transformers that it is read as.
    """

    architecture: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = os.path.expanduser(name)

    @cached_property
    def folder(self) -> Path:
        """Where its files are on this machine; what the Hub has is fetched once.

        Raises:
            ValueError: There is no such folder, or the Hub does not have it, or can't be reached.
        """
        if os.path.isdir(self.name):
            return Path(self.name)
        if not HUB_ID.fullmatch(self.name):
            raise ValueError(
                f"network {self.name!r} can't be read: there is no such folder\n"
                "Fix: give a folder as save_pretrained writes it, or an id on huggingface.co"
            )
        settings = ["*.json", "*.txt"]
        try:
            folder = fetch_folder(self.name, [*settings, "model*.safetensors"])
            return folder if _weights(folder) else fetch_folder(self.name, [*settings, "pytorch_model*.bin"])
        except ValueError as error:
            raise ValueError(
                f"network {self.name!r} can't be read: {error}\n"
                f"Fix: check the id on huggingface.co. Without a network: `hf download {self.name}` while there is "
                "one, then HF_HUB_OFFLINE=1; or give a local folder"
            ) from error

    @property
    def files(self) -> Sequence[Path]:
        """The files of the weights.

        Raises:
            ValueError: They are not there, or can't be fetched.
        """
        found = _weights(self.folder)
        if not found:
            raise ValueError(
                f"network {self.name!r} can't be read: {str(self.folder)!r} holds no weights\n"
                "Fix: the folder must hold config.json and model.safetensors, as save_pretrained writes them"
            )
        return found

    @cached_property
    def config(self) -> PretrainedConfig:
        """The network's sizes.

        Raises:
            ValueError: It can't be read, or is another network.
        """
        import transformers

        wanted, folder = getattr(transformers, self.architecture).config_class, self.folder
        with self._explain():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if not isinstance(config, wanted):
                raise ValueError(f"it is a {config.model_type!r} model, and {wanted.model_type!r} is wanted")
            return config

    def load(self) -> nn.Module:
        """The network in float32 and evaluation mode, on the CPU.

        Raises:
            ValueError: The weights can't be read, or don't cover the network.
        """
        import transformers

        folder, config = self.folder, self.config
        with self._explain():
            model, report = getattr(transformers, self.architecture).from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                weights_only=True,  # of networks without safetensors: of a pickle, tensors alone
            )
            if missing := sorted(report["missing_keys"]):
                raise ValueError(f"it has no weights for {missing[0]} and {len(missing) - 1} more")
        return model.eval()

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn what reading raises into one message that says what to do."""
        try:
            yield
        except (OSError, ValueError, ImportError, UnpicklingError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"network {self.name!r} can't be read: {cause}\n"
                f"Fix: give a {type(self).__name__} with the files of transformers: config.json, model.safetensors"
            ) from error


def _weights(folder: Path) -> list[Path]:
    """The files that weights are read from: safetensors before others."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


class VideoMAE(TransformersNetwork, VideoNetwork):
    """A VideoMAE that was finetuned to recognise actions (Tong et al., 2022).

    FVD with it follows motion more, and the looks of single frames less, than with I3D (Ge et al., 2024). Its features
    are those that its classifier sees. Frames are stretched to the size of its config, so that all of them is seen.

    Args:
        name: Hugging Face id or local folder of a finetuned VideoMAE; one of Something-Something v2, as
            ``MCG-NJU/videomae-base-finetuned-ssv2``, was trained to tell motions apart.
    """

    prefix = "videomae_"
    architecture = "VideoMAEForVideoClassification"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, name: str = "MCG-NJU/videomae-large-finetuned-kinetics") -> None:
        super().__init__(name)

    @property
    def width(self) -> int:
        """As wide as its hidden states."""
        return self.config.hidden_size

    def load(self) -> nn.Module:
        """The network without its classifier.

        Raises:
            ValueError: The weights can't be read, or don't cover the network.
        """
        model: Any = super().load()
        model.classifier = nn.Identity()
        return model

    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, D]`` of videos uint8 ``[B, 3, T, H, W]``, T as in its config (16 of those published).

        Raises:
            ValueError: It can't be read, or the videos have another number of frames.
        """
        check_videos(videos)
        length, size = self.config.num_frames, self.config.image_size
        if videos.shape[2] != length:
            raise ValueError(f"the videos have {videos.shape[2]} frames: {self.name} takes {length}")
        frames = resize(rearrange(videos, "b c t h w -> (b t) c h w"), (size, size), "bilinear")
        pixels = rearrange(normalize(frames, self.mean, self.std), "(b t) c h w -> b t c h w", t=length)
        with torch.no_grad(), torch.autocast(videos.device.type, enabled=False):
            return self.on(videos.device)(pixel_values=pixels).logits

    def preprocessing(self) -> dict[str, Any]:
        """What is done to frames."""
        size = self.config.image_size
        return {
            "size": [size, size],
            "fit": "stretch",
            "filter": "bilinear",
            "antialias": True,
            "range": "0..1",
            "mean": list(self.mean),
            "std": list(self.std),
            "frames": self.config.num_frames,
        }


_FILTERS = {2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers."""


@dataclass(frozen=True)
class _Frames:
    """How a CLIP wants its frames: the shorter side becomes `edge` pixels, of which the middle `size` are taken."""

    edge: int
    size: int
    filter: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CLIP(TransformersNetwork, ImageNetwork):
    """A CLIP: features of frames, and of texts in the same space (Radford et al., 2021).

    Frames are treated as its ``preprocessor_config.json`` says; without one as CLIP's authors do: the shorter side is
    resized (bicubic, antialiased), the middle is cut out.

    Args:
        name: Hugging Face id or local folder of a CLIP. Publications differ in which they take: ViT-B/32 is common.
    """

    prefix = "clip_"
    architecture = "CLIPModel"

    def __init__(self, name: str = "openai/clip-vit-base-patch32") -> None:
        super().__init__(name)

    @property
    def width(self) -> int:
        """As wide as the space that frames and texts share."""
        return self.config.projection_dim

    def __call__(self, videos: Tensor) -> Tensor:
        """Features ``[B, T, D]`` of the frames of videos uint8 ``[B, 3, T, H, W]``, not of unit length.

        Raises:
            ValueError: It can't be read.
        """
        check_videos(videos)
        pixels = self.prepare(rearrange(videos, "b c t h w -> (b t) c h w"))
        with torch.no_grad(), torch.autocast(videos.device.type, enabled=False):
            rows = self._model(videos.device).get_image_features(pixel_values=pixels).pooler_output
        return rearrange(rows, "(b t) d -> b t d", b=len(videos))

    def read(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """Features ``[B, D]`` of B texts, not of unit length; what is longer than its 77 tokens is cut.

        Raises:
            ValueError: It can't be read.
        """
        tokens = self._tokenizer(
            list(captions),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self._model(device).get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    def _model(self, device: torch.device) -> CLIPModel:
        return cast("CLIPModel", self.on(device))

    def prepare(self, frames: Tensor) -> Tensor:
        """Its input ``[N, 3, S, S]`` of frames uint8 ``[N, 3, H, W]``.

        Raises:
            ValueError: Its settings can't be read, or ask for something else.
        """
        rule = self._frames
        height, width = frames.shape[-2:]
        short = min(height, width)
        frames = resize(frames, (int(rule.edge * height / short), int(rule.edge * width / short)), rule.filter)
        top, left = ((length - rule.size) // 2 for length in frames.shape[-2:])
        return normalize(frames[..., top : top + rule.size, left : left + rule.size], rule.mean, rule.std)

    def preprocessing(self) -> dict[str, Any]:
        """What is done to frames."""
        rule = self._frames
        return {
            "size": [rule.size, rule.size],
            "fit": f"shorter side {rule.edge}, middle",
            "filter": rule.filter,
            "antialias": True,
            "range": "0..1",
            "mean": list(rule.mean),
            "std": list(rule.std),
        }

    @cached_property
    def _frames(self) -> _Frames:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        size = self.config.vision_config.image_size
        with self._explain():
            rule: Any = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
            if any((self.folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
                rule = CLIPImageProcessorPil.from_pretrained(self.folder)  # reads all the forms that they have had
            edge, crop = rule.size.shortest_edge, rule.crop_size
            steps = rule.do_resize and rule.do_center_crop and rule.do_rescale and rule.do_normalize
            known = steps and rule.rescale_factor == 1 / 255 and rule.resample in _FILTERS
            if not (known and edge and crop.height == crop.width <= edge):
                raise ValueError("its preprocessor_config.json asks for other than a resize and a square middle")
            return _Frames(edge, crop.height, _FILTERS[rule.resample], tuple(rule.image_mean), tuple(rule.image_std))

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        folder = self.folder
        with self._explain():
            if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
                raise ValueError("it has no tokenizer")  # transformers would make one that knows no words
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
