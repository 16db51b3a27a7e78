"""Files of prompts, and the batches that are made of them."""

import json

import pytest

from snapvideo.recipes.errors import UserError
from snapvideo.recipes.requests import Request, Wish, batches_of, read_wishes, requests_of


def test_a_text_file_has_a_prompt_per_line(tmp_path):
    (tmp_path / "prompts.txt").write_text('\ufeffa red circle\n\n  {"prompt": "x"}  \r\n', encoding="utf-8")
    assert read_wishes(tmp_path / "prompts.txt", 1) == [Wish("a red circle"), Wish('{"prompt": "x"}')]


def test_a_json_file_may_say_seed_frame_rate_and_name(tmp_path):
    lines = [{"prompt": "größer"}, {"prompt": "b", "seed": 7, "fps": 4, "name": "video7010"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    wishes = read_wishes(tmp_path / "p.jsonl", 2)
    assert requests_of(wishes, 2, 3, 8.0) == [
        Request("größer", 3, 8.0, "p00_s3_größer"),
        Request("größer", 4, 8.0, "p00_s4_größer"),
        Request("b", 7, 4.0, "video7010_s7"),
        Request("b", 8, 4.0, "video7010_s8"),
    ]
    assert [request.name for request in requests_of(wishes, 1, 3, 8.0)] == ["p00_s3_größer", "video7010"]


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("{", "it is not JSON"),
        ('["a"]', "prompt is missing"),
        ('{"text": "a"}', "prompt is missing"),
        ('{"prompt": 3}', "prompt is 3"),
        ('{"prompt": " "}', "prompt is ' '"),
        ('{"prompt": "\\ud800"}', "not UTF-8"),
        ('{"prompt": "a", "sead": 1}', "Did you mean 'seed'?"),
        ('{"prompt": "a", "seed": -1}', "seed is -1"),
        ('{"prompt": "a", "seed": 1.5}', "seed is 1.5"),
        ('{"prompt": "a", "seed": true}', "seed is True"),
        ('{"prompt": "a", "seed": 9223372036854775807}', "below 2^63"),
        ('{"prompt": "a", "fps": 0}', "fps is 0: it must be 0.01 to 1000"),
        ('{"prompt": "a", "fps": NaN}', "fps is nan"),
        ('{"prompt": "a", "fps": "8"}', "fps is '8'"),
        ('{"prompt": "a", "name": "../x"}', "name is '../x'"),
        ('{"prompt": "a", "name": "GRID"}', "name is 'GRID'"),
        ('{"prompt": "a", "name": "p01_s0_a"}', "name is 'p01_s0_a'"),
        ('{"prompt": "a", "name": "First"}', "that of line 1, too"),
        ('{"prompt": "a", "seed": %s}' % ("9" * 5000), "it is not JSON"),
    ],
)
def test_mistakes_name_line_and_field(tmp_path, line, fragment):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "fine", "name": "first"}\n\n' + line + "\n")
    with pytest.raises(UserError) as caught:
        read_wishes(file, 2)
    assert f"{file}, line 3: " in str(caught.value) and fragment in str(caught.value)


def test_a_batch_depends_on_the_list_and_the_size_alone():
    requests = requests_of([Wish(text) for text in "abcde"], 3, 0, 8.0)
    batches = batches_of(requests, 4)
    assert [request for batch in batches for request in batch] == requests
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    longer = requests_of([Wish(text) for text in "abcdefg"], 3, 0, 8.0)
    assert batches_of(longer, 4)[:3] == batches[:3]  # more prompts change no batch that was whole
