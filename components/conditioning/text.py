"""Captions through a pretrained text encoder of Hugging Face transformers (paper, 3.4: T5-11B)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..interfaces import Condition, Conditioner, Prompt
from ..layers.attention import xavier_linear
from .null import NullToken

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class Text(Conditioner):
    """Captions through a pretrained text encoder: its last hidden states, projected to tokens.

    A frozen encoder (the default) is no part of the model's parameters, checkpoints or EMA; copies of the conditioner
    share it, and its weights are read at the first batch. A trainable one is an ordinary part of the model.

    Args:
        dim: Width of the tokens.
        encoder: Hugging Face id or local folder of a T5 (its encoder is taken), a CLIP (its text half is taken), a BERT
            or a similar text encoder.
        max_length: Tokens per caption at most, fewer if the encoder takes no more (CLIP: 77); longer captions are cut.
        trainable: Train the encoder with the model.
        dtype: Precision of a frozen encoder, whatever the trainer's; a trainable one follows the trainer.
        width: Width of the encoder's hidden states; None: read from its files, which a trainable one always is. With
            it, the files are first read for the first caption, so a model can be planned (``recipe check``) or trained
            on embeddings where they cannot be reached.

    Code that lies beside an encoder is never run. Weights are read from safetensors where there are any, else from
    torch's files, of which nothing but tensors is taken (``weights_only``).

    Where the data brings embeddings (`Prompt.embeddings`), they are taken in place of what a frozen encoder would say.

    Raises:
        ValueError: `encoder` can't be found or is no text encoder (with `width`: at the first caption); or `dtype` is
            set for a trainable one.
    """

    def __init__(
        self,
        dim: int,
        encoder: str,
        max_length: int = 128,
        trainable: bool = False,
        dtype: Literal["float32", "bfloat16"] = "float32",
        width: int | None = None,
    ) -> None:
        super().__init__()
        if trainable and dtype != "float32":
            raise ValueError(f"dtype={dtype} is for a frozen encoder: leave it out and set trainer.precision instead")
        self.dim, self.max_length = dim, max_length
        self.pretrained = Pretrained(encoder, max_length, getattr(torch, dtype))
        if width is None or trainable:
            width = self.pretrained.config.hidden_size
        self.encoder = self.pretrained.load() if trainable else None
        self.project = xavier_linear(width, dim)
        self.null = NullToken(dim)

    def forward(self, prompt: Prompt, drop: Tensor) -> Condition:
        """Tokens ``[B, S, D]``, S the tokens of the longest caption; the null token where `drop` ``[B]``.

        Raises:
            ValueError: A frozen encoder can't be read (at the first batch), or what it says, or the data's embeddings,
                are not as wide as they should be; or the data brings embeddings for an encoder that is trained.
        """
        hidden, mask = self._encode(prompt)
        weight = self.project.weight
        if hidden.shape[-1] != weight.shape[1]:
            source = "the hidden states of the encoder" if prompt.embeddings is None else "the data's embeddings"
            raise ValueError(f"width={weight.shape[1]}: {source} are {hidden.shape[-1]} wide")
        return self.null(Condition(self.project(hidden.to(weight.dtype)), mask.bool()), drop)

    def _encode(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Hidden states ``[B, S, width]`` and mask ``[B, S]``."""
        if prompt.embeddings is not None:
            if self.encoder is not None:
                raise ValueError("trainable=True: the data's embeddings would take its place; set data.embeddings=null")
            return prompt.embeddings.tokens[:, : self.max_length], prompt.embeddings.mask[:, : self.max_length]
        ids, mask = self.pretrained.tokenize(prompt.captions, self.project.weight.device)
        if self.encoder is None:
            return self.pretrained.encode(ids, mask), mask
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask


class Pretrained:
    """A tokenizer and its encoder, whose files are read when they are first needed.

    No module, and shared by copies, so a module that holds one doesn't own the weights.

    Args:
        name: Hugging Face id or local folder.
        max_length: Tokens per caption at most.
        dtype: Precision of the weights.
    """

    def __init__(self, name: str, max_length: int, dtype: torch.dtype) -> None:
        self.name = os.path.expanduser(name)
        self.max_length = max_length
        self.dtype = dtype
        self._frozen: nn.Module | None = None

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's sizes.

        Raises:
            ValueError: There is no such text encoder.
        """
        return self._files[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What cuts captions into tokens.

        Raises:
            ValueError: There is no such text encoder.
        """
        return self._files[1]

    @cached_property
    def _files(self) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        """All that is read but the weights."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

        with self._explain():
            config = AutoConfig.from_pretrained(self.name, trust_remote_code=False)
            config = config.get_text_config()  # CLIP: the text half
            if config.model_type not in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
                raise ValueError(f"it is a {config.model_type!r} model, which is no text encoder")
            return config, AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretrained:
        return self

    def tokenize(self, captions: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask ``[B, S]``, int64, padded on the right."""
        config, tokenizer = self._files
        positions = getattr(config, "max_position_embeddings", None) or self.max_length
        tokens = tokenizer(
            captions,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=min(self.max_length, positions, tokenizer.model_max_length),
            return_tensors="pt",
        )
        return tokens["input_ids"].to(device), tokens["attention_mask"].to(device)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states ``[B, S, width]`` of the frozen encoder, without gradient, in its own precision."""
        with torch.inference_mode(False):  # the first batch may be a validation's: weights must outlive inference mode
            if self._frozen is None:
                self._frozen = self.load().requires_grad_(False)
            encoder = self._frozen.to(ids.device)
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            return encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def load(self) -> nn.Module:
        """The encoder, in evaluation mode; without weights where tensors are built on the meta device.

        Raises:
            ValueError: The weights can't be read, or don't cover the encoder.
        """
        from transformers import AutoModelForTextEncoding

        if torch.get_default_device().type == "meta":
            encoder = AutoModelForTextEncoding.from_config(self.config)
        else:
            # Forked: it draws random numbers for missing weights, and a run must not depend on when it loads.
            with self._explain(), _only_errors("transformers"), torch.random.fork_rng(devices=[]):
                encoder, report = AutoModelForTextEncoding.from_pretrained(
                    self.name,
                    config=self.config,
                    dtype=self.dtype,
                    output_loading_info=True,
                    trust_remote_code=False,
                    weights_only=True,  # of encoders without safetensors, as t5-11b: of a pickle, tensors alone
                )
                missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
                if missing:
                    raise ValueError(f"it has no weights for {missing[0]} and {len(missing) - 1} more")
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # BERT's summary of the caption, which nothing reads
        return encoder.eval()

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn what reading raises into one message that says what to do."""
        try:
            yield
        except UnpicklingError as error:
            raise ValueError(
                f"text encoder {self.name!r} can't be read: its weights are a pickle that holds more than tensors\n"
                "Fix: name an encoder with weights in safetensors"
            ) from error
        except (OSError, ValueError, ImportError) as error:
            cause = str(error).strip().partition("\n")[0]
            if "custom code" in cause:
                fix = "code of text encoders is never run: name one of a kind that transformers has"
            elif os.path.isdir(self.name):
                fix = "the folder must hold config.json, model.safetensors and the tokenizer, as save_pretrained writes"
            elif self.name.startswith((".", os.sep)) or self.name.count("/") > 1:
                cause, fix = "there is no such folder", "give a folder, or an id on huggingface.co"
            else:
                fix = (
                    f"check the id on huggingface.co. Without a network: `hf download {self.name}` while there is one, "
                    "then HF_HUB_OFFLINE=1; or give a local folder"
                )
            raise ValueError(f"text encoder {self.name!r} can't be read: {cause}\nFix: {fix}") from error


@contextmanager
def _only_errors(logger: str) -> Iterator[None]:
    """Without its warnings: a table of all the weights of the half of a CLIP or T5 that isn't wanted."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
