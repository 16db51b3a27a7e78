"""Says on one screen what jsonargparse found to be wrong: the key, the value, and what is valid.

Its messages are trees: ``Parser key "x":`` and ``Problem with given class_path 'y':`` lead one level down, and where a
value may have several types there is a branch for each. What counts are the deepest lines.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from lightning.pytorch import LightningDataModule

from .errors import did_you_mean

_NOISE = ("Does not validate", "Subtypes:", "Errors:", "Given", "Expected a <class 'NoneType'>", "Expected a path")
_UNKNOWN = re.compile(
    r"Option '(?P<key>\S+)' is not accepted|unrecognized arguments: (?P<word>[^ =]+)"
    r"|Group '(?P<group>\S+)' does not accept option '(?P<name>\S+)'"
)


@dataclass(frozen=True)
class Finding:
    """A line that says what is wrong.

    Args:
        depth: Its indentation.
        keys: The keys that lead to it.
        kind: Import path of the innermost class around it, or nothing.
        text: What it says.
    """

    depth: int
    keys: tuple[str, ...]
    kind: str
    text: str

    def at_place(self, text: str) -> str:
        """``model.backbone: text``."""
        return f"{'.'.join(self.keys)}: {text}" if self.keys else text


def explain(text: str, sections: Mapping[str, type | None], remedy: str = "name a recipe, as -c demo") -> str:
    """A message of a parser in words for people.

    Args:
        text: The message.
        sections: The top level of the config, and the class whose settings, or subclass, each section holds.
        remedy: What to do where one is missing.
    """
    findings = list(_findings(text))
    if not findings:
        return text
    finding = max(findings, key=lambda finding: finding.depth)
    kind = _load(finding.kind)
    if match := _UNKNOWN.match(finding.text):
        if match["word"] and not match["word"].startswith("--"):
            return f"'{match['word']}' is one word too many: settings are written --KEY VALUE"
        key = match["key"] or match["word"] or f"{match['group']}.{match['name']}"
        return finding.at_place(_no_setting(key, kind, sections))
    if match := re.match(r"Expected a dot import path string: (.+)", finding.text):
        bases = _bases(kind, finding.keys[-1]) if kind else [sections.get(finding.keys[-1])]
        return finding.at_place(_no_class(match[1], [base for base in bases if base]))
    if match := re.match(r"the following arguments are required: (.+)", finding.text):
        missing = match[1]
        return finding.at_place(f"{kind.__name__} needs {missing}" if kind else f"no {missing}: {remedy}")
    if finding.text.startswith("Expected a "):
        branches = [other.text for other in findings if other.depth == finding.depth]
        return finding.at_place(_wrong_type(text, branches))
    return finding.at_place(f"{finding.kind}: {finding.text}" if finding.kind else finding.text)


def _findings(text: str) -> Iterator[Finding]:
    keys: list[tuple[int, str]] = []
    kinds: list[tuple[int, str]] = []
    for line in filter(str.strip, text.splitlines()):
        body = line.lstrip(" -") if line.lstrip().startswith("- ") else line.lstrip()
        depth = len(line) - len(body)
        keys = [(at, key) for at, key in keys if at < depth]
        kinds = [(at, kind) for at, kind in kinds if at < depth]
        if match := re.search(r'Parser key "(.+)":$', body):
            keys.append((depth, match[1]))
        elif match := re.match(r"Problem with given class_path '(.+)':$", body):
            kinds.append((depth, match[1]))
        elif not body.startswith(_NOISE):
            yield Finding(depth, tuple(key for _, key in keys), kinds[-1][1] if kinds else "", body)


def _no_setting(key: str, kind: type | None, sections: Mapping[str, type | None]) -> str:
    first, _, rest = key.removeprefix("--").partition(".")
    if kind is None and rest and sections.get(first):
        return f"{first}: {_no_setting(rest, sections[first], sections)}"
    if kind is None:
        return f"there is no setting '{first}'.{did_you_mean(first, sections)}\nsettings: {', '.join(sections)}"
    if first == "shape" and issubclass(kind, LightningDataModule):
        return "the data takes the shape of the model's videos: set model.backbone.shape instead"
    names = list(inspect.signature(kind).parameters)
    near = did_you_mean(first, names)
    return f"{kind.__name__} has no setting '{first}'.{near}\nsettings of {kind.__name__}: {', '.join(names)}"


def _no_class(name: str, bases: list[type]) -> str:
    names = sorted({kind.__name__ for base in bases for kind in _subclasses(base) or {base}})
    wanted = " or ".join(base.__name__ for base in bases) or "class"
    known = f"known: {', '.join(names)}; your own by its import path, as in my_module.MyClass"
    return f"no {wanted} is called '{name}'.{did_you_mean(name, names)}\n{known}"


def _wrong_type(text: str, branches: list[str]) -> str:
    given = re.search(r"Got value: (.+)", branches[0]) or re.search(r"Given value: (.+?)(\. Got value|$)", text, re.M)
    wanted = []
    for branch in branches:
        if "dot import path" not in branch:  # that a string is no class either
            kind = branch.removeprefix("Expected a ").split(". Got value:")[0]
            kind = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", kind)
            wanted.append(re.sub(r"typing\.Literal\[(.+)\]", r"one of \1", kind))
    return f"'{given[1] if given else ''}' is not valid; expected {' or '.join(wanted)}"


def _load(path: str) -> type | None:
    """The class at an import path, or None."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def _bases(kind: type, name: str) -> list[type]:
    """The classes that the argument `name` of a class may be an instance of, or return one of, or list."""
    try:
        hint = typing.get_type_hints(kind.__init__)[name]  # type: ignore[misc]
    except (KeyError, NameError):
        return []
    return list(_classes(hint))


def _classes(hint: object) -> Iterator[type]:
    if typing.get_origin(hint) is collections.abc.Callable:
        yield from _classes(typing.get_args(hint)[-1])
    elif typing.get_args(hint):
        for part in typing.get_args(hint):
            yield from _classes(part)
    elif isinstance(hint, type):
        yield hint


def _subclasses(base: type) -> set[type]:
    """Known subclasses of a class that can be built."""
    direct: set[type] = set(base.__subclasses__())
    known = direct.union(*(_subclasses(kind) for kind in direct))
    return {kind for kind in known if not inspect.isabstract(kind) and not kind.__name__.startswith("_")}
