"""The page that is indexed by errors: each is one that the code can raise, word for word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import dataloader

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/train/troubleshooting.md"
SOURCES = [file for folder in ("components", "datamodules", "recipes") for file in (ROOT / folder).rglob("*.py")]
SOURCES.append(Path(dataloader.__file__))
QUOTED = [
    text for line in PAGE.read_text().splitlines() if line.startswith("### ") for text in re.findall("`(.+?)`", line)
]


def strings(file: Path) -> Iterator[list[str]]:
    """The constant parts, in their order, of each string in a file; strings that stand side by side are one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield [node.value]
        elif isinstance(node, ast.JoinedStr):
            yield [part.value for part in node.values if isinstance(part, ast.Constant)]


TEXTS = ["\0".join(parts) for file in SOURCES for parts in strings(file)]  # \0: what is filled in


@pytest.mark.parametrize("text", QUOTED)
def test_each_error_on_the_page_is_in_the_source(text):
    parts = [re.escape(part) for part in text.split("...")]
    assert max(map(len, parts)) > 8, "quote more of it"
    wanted = re.compile(r"(?:\0|%\w|.)*?".join(parts), re.DOTALL)
    assert any(wanted.search(found) for found in TEXTS)


def test_there_are_many():
    assert len(QUOTED) > 30
