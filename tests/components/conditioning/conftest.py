"""Tiny text encoders with random weights, saved as their authors would save them."""

from pathlib import Path
from string import ascii_lowercase

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    ByT5Tokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

SMALL = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_t5() -> tuple[PreTrainedModel, ByT5Tokenizer]:
    config = T5Config(vocab_size=384, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return T5ForConditionalGeneration(config), ByT5Tokenizer()


def make_clip() -> tuple[PreTrainedModel, CLIPTokenizer]:
    pieces = ["<|startoftext|>", "<|endoftext|>", *ascii_lowercase, *(letter + "</w>" for letter in ascii_lowercase)]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = SMALL | special | {"vocab_size": len(pieces), "max_position_embeddings": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL | {"image_size": 8, "patch_size": 4})), tokenizer


def make_bert() -> tuple[PreTrainedModel, BertTokenizer]:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *ascii_lowercase, *("##" + letter for letter in ascii_lowercase)]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    return BertForMaskedLM(BertConfig(vocab_size=len(pieces), **SMALL)), tokenizer


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: an encoder-decoder T5, a CLIP with its image half, a CLIP text model, a BERT without pooler."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("encoders")
    clip, clip_tokenizer = make_clip()
    text_half = CLIPTextModel(clip.config.text_config)
    text_half.load_state_dict(clip.text_model.state_dict())
    models = {
        "t5": make_t5(),
        "clip": (clip, clip_tokenizer),
        "clip_text": (text_half, clip_tokenizer),
        "bert": make_bert(),
    }
    for name, parts in models.items():
        for part in parts:
            part.save_pretrained(root / name)
    return {name: root / name for name in models}
