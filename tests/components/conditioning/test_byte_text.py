import copy
import random

import pytest
import torch
import torch.nn.functional as F

from snapvideo.components.conditioning import ByteText
from snapvideo.components.conditioning.byte_text import ngram_rows, split_words, word_code
from snapvideo.components.interfaces import Prompt


def read(text, captions, drop=False):
    """Condition of captions."""
    count = len(captions)
    labels = Prompt(captions, torch.full((count,), 24.0), torch.full((count, 2), 64))
    return text(labels, torch.tensor(drop).expand(count))


@pytest.fixture
def text():
    torch.manual_seed(0)
    return ByteText(16, width=32).eval()


def test_a_token_for_each_word_and_punctuation_mark_and_the_end(text):
    condition = read(text, ["a red circle, fast", "", "  stop!\n"])
    assert condition.tokens.shape == (3, 6, 16)
    assert condition.mask.sum(1).tolist() == [6, 1, 3]
    assert condition.tokens.isfinite().all()


def test_padding_does_not_change_the_tokens_of_others(text):
    short, long = "a red circle", "a very long caption: " + "with many more words, " * 4
    alone, beside = read(text, [short]), read(text, [long, short])
    valid = beside.mask[1]
    assert valid.sum() == 4 and not valid[4:].any()
    torch.testing.assert_close(beside.tokens[1, valid], alone.tokens[0], atol=1e-6, rtol=1e-5)


def test_null_is_independent_of_the_text_and_learned(text):
    one, other = (read(text, [caption, "x y z"], drop=[True, False]) for caption in ("red circle", "blue square"))
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.mask, other.mask)
    assert one.mask[0].tolist() == [True, False, False, False]
    assert torch.equal(one.tokens[0, 0], text.null.token)
    one.tokens[one.mask].square().sum().backward()
    assert all(p.grad is not None for p in text.parameters())
    assert text.null.token.grad.abs().sum() > 0


def test_all_dropped_leaves_no_gradient_but_the_nulls(text):
    condition = read(text, ["red circle", "blue square"], drop=[True, True])
    condition.tokens[condition.mask].square().sum().backward()
    assert all((p.grad.abs().sum() > 0) == (name == "null.token") for name, p in text.named_parameters())


def test_case_and_unicode_form_do_not_matter(text):
    assert torch.equal(read(text, ["A Café Été"]).tokens, read(text, ["a cafe\u0301 e\u0301te\u0301"]).tokens)


@pytest.mark.parametrize(
    "caption", ["", " ", "ein größerer Ball läuft", "红色的圆向右移动" * 30, "🎈 floats", "\ud800", "a" * 500]
)
def test_any_text_is_read_and_long_captions_are_cut(text, caption):
    condition = read(text, [caption, caption + " " + "word " * 100])
    assert condition.tokens.shape[1] <= 32 and condition.mask.any(1).all() and condition.tokens.isfinite().all()


def test_cut_caption_equals_its_beginning():
    text = ByteText(16, width=32, max_words=4).eval()
    assert torch.equal(read(text, ["one two three four five"]).tokens, read(text, ["one two three"]).tokens)


def test_word_order_matters(text):
    left, right = read(text, ["left to right", "right to left"]).tokens
    assert not torch.allclose(left, right, atol=1e-3)


def test_rows_are_fixed_and_similar_words_share_them():
    # The rows are part of what a checkpoint means: these must never change.
    assert ngram_rows("red", 4096) == (2885, 3736, 78, 977, 3983, 3528)
    same, other = (len({*ngram_rows("triangle", 4096)} & {*ngram_rows(w, 4096)}) for w in ("trianlge", "circle"))
    assert same > 3 * other
    assert all(0 <= row < 7 for row in ngram_rows("hexagon", 7))


def test_half_of_a_token_is_the_code_of_its_word_whatever_is_learned(text):
    # The codes are part of what a checkpoint means: these must never change.
    assert "".join("+" if sign > 0 else "-" for sign in word_code("red", 16)) == "-+--+----+--++-+"
    words = ["a", "red", "circle", ""]
    with torch.no_grad():
        for parameter in text.parameters():
            parameter.zero_()
    tokens = read(text, ["a red circle"]).tokens[0]
    assert torch.equal(tokens[:, :8], torch.stack([torch.from_numpy(word_code(word, 8)) for word in words]))
    codes = torch.stack([torch.from_numpy(word_code(f"word{i}", 64)) for i in range(200)])
    assert (codes @ codes.T / 64 - torch.eye(200)).abs().max() < 0.7  # all are far apart


def test_words():
    assert split_words("A red-hot circle,\tFast!") == ["a", "red", "-", "hot", "circle", ",", "fast", "!"]
    assert split_words("x" * 40) == ["x" * 16, "x" * 16, "x" * 8]


def test_defaults_are_small():
    assert sum(p.numel() for p in ByteText(128).parameters()) < 0.8e6


def test_builds_on_meta_and_copies():
    with torch.device("meta"):
        meta = ByteText(16)
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    text = ByteText(16)
    assert torch.equal(read(copy.deepcopy(text), ["a b"]).tokens, read(text, ["a b"]).tokens)


COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "white", "cyan"]
SHAPES = ["circle", "square", "triangle", "star", "cross", "hexagon"]
MOVES = ["left to right", "right to left", "upwards", "downwards"]


def caption_of(draw):
    """A caption of a two-object grammar, and the attributes of the object that moves."""
    labels = [draw.randrange(len(names)) for names in (COLOURS, SHAPES, MOVES)]
    colour, shape, move = COLOURS[labels[0]], SHAPES[labels[1]], MOVES[labels[2]]
    other = f"a {draw.choice(COLOURS)} {draw.choice(SHAPES)}"
    template = draw.choice(
        ["a {0} {1} moves {2} above {3}", "below {3}, a {0} {1} moves {2}", "{3} and a {0} {1} moving {2}"]
    )
    return template.format(colour, shape, move, other), labels


def test_learns_attributes_and_whose_they_are_within_100_steps():
    torch.manual_seed(0)
    draw, width = random.Random(0), 64
    text, names = ByteText(width, width=64), (COLOURS, SHAPES, MOVES)
    queries = torch.nn.Parameter(torch.randn(len(names), width))
    heads = torch.nn.ModuleList(torch.nn.Linear(width, len(values)) for values in names)
    optimizer = torch.optim.Adam([*text.parameters(), queries, *heads.parameters()], lr=1e-3)

    def logits(captions):
        condition = read(text, captions)
        attend = condition.mask[:, None, :]
        found = F.scaled_dot_product_attention(
            queries.expand(len(captions), -1, -1), condition.tokens, condition.tokens, attend
        )
        return [head(found[:, i]) for i, head in enumerate(heads)]

    for _ in range(100):
        captions, labels = zip(*(caption_of(draw) for _ in range(32)), strict=True)
        loss = sum(
            F.cross_entropy(out, y) for out, y in zip(logits(list(captions)), torch.tensor(labels).T, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = random.Random(1)
    captions, labels = zip(*(caption_of(unseen) for _ in range(300)), strict=True)
    with torch.no_grad():
        right = [
            (out.argmax(1) == y).float().mean()
            for out, y in zip(logits(list(captions)), torch.tensor(labels).T, strict=True)
        ]
    assert min(right) > 0.97, right
