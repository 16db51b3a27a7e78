"""Who may import whom, read from the source: docs/architecture.md states the same rules in words."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("components", "datamodules", "recipes")
SOURCES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Part -> (parts of snapvideo that it may import besides itself, other packages that it may import; None: any).
# A part is a folder or module of components, or one of the other two folders.
BATCH = "components.batch"
DRAWS = "components.draws"
BUILDING = "components.building"
HUB = "components.hub"
INTERFACES = "components.interfaces"
LAYERS = "components.layers"
MEDIA = "components.media"
POWER_AVERAGE = "components.power_average"
TRUST = "components.trust"
VIDEO_DIFFUSION = "components.video_diffusion"
WEIGHTS = "components.weights"
RULES: dict[str, tuple[set[str], set[str] | None]] = {
    DRAWS: (set(), {"numpy", "torch"}),
    BATCH: (set(), {"torch"}),
    INTERFACES: ({BATCH, DRAWS}, {"torch", "lightning"}),
    LAYERS: (set(), {"torch", "einops"}),
    "components.backbones": ({DRAWS, INTERFACES, LAYERS}, None),
    "components.frameworks": ({INTERFACES, LAYERS}, None),
    "components.conditioning": ({DRAWS, INTERFACES, LAYERS}, None),
    "components.sampling": ({DRAWS, INTERFACES, LAYERS}, None),
    "components.metrics": ({HUB, INTERFACES}, None),
    MEDIA: (set(), None),
    POWER_AVERAGE: (set(), {"numpy"}),
    "components.callbacks": ({DRAWS, INTERFACES, MEDIA, POWER_AVERAGE}, None),
    "components.optimizers": (set(), None),
    VIDEO_DIFFUSION: ({DRAWS, INTERFACES, LAYERS}, None),
    BUILDING: ({VIDEO_DIFFUSION}, None),
    TRUST: ({BUILDING, VIDEO_DIFFUSION}, None),
    WEIGHTS: ({MEDIA}, None),
    HUB: (set(), None),
    "components.exported": ({BUILDING, HUB, TRUST, VIDEO_DIFFUSION, WEIGHTS}, None),
    "components": ({"components.*"}, set()),  # components/__init__.py gathers the public names
    "datamodules": ({INTERFACES}, None),
    "recipes": ({"components.*", "components", "datamodules"}, None),
}


def part_of(module: str) -> str:
    """components.backbones.fit -> components.backbones; datamodules.folder -> datamodules."""
    names = module.split(".")
    return ".".join(names[: 2 if names[0] == "components" else 1])


def module_of(source: Path) -> str:
    return ".".join(source.with_suffix("").parts).removesuffix(".__init__")


def is_module(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: Path) -> list[tuple[int, str]]:
    """(line, module) of every import of a file, wherever it stands; modules of snapvideo without their "snapvideo."."""
    package = source.parent.parts
    found = []
    for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                name = ".".join([*base, alias.name])  # a module, or a name in one
                found.append((node.lineno, name if node.level and is_module(name) else ".".join(base)))
    return found


def ours(module: str) -> bool:
    return module.split(".")[0] in FOLDERS


def may_import(part: str, module: str) -> bool:
    inside, outside = RULES[part]
    target = part_of(module)
    if ours(module):
        return target == part or target in inside or ("components.*" in inside and target.startswith("components."))
    package = module.split(".")[0]
    return outside is None or package in outside or package in sys.stdlib_module_names


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_imports_run_one_way(source):
    part = part_of(module_of(source))
    assert part in RULES, f"{source} is a new part: say in RULES what it may import"
    wrong = [f"{source}:{line} imports {name}" for line, name in imports_of(source) if not may_import(part, name)]
    assert not wrong, f"{part} must not do this:\n" + "\n".join(wrong)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_imports_of_ourselves_are_relative(source):
    absolute = [f"{source}:{line}" for line, name in imports_of(source) if name.split(".")[0] == "snapvideo"]
    assert not absolute, "write `from ..interfaces import ...` inside the package: " + ", ".join(absolute)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_files_stay_small(source):
    lines = (ROOT / source).read_text(encoding="utf-8").count("\n")
    assert lines <= 400, f"{source} has {lines} lines: split it at an idea"


def test_reader_of_imports(tmp_path, monkeypatch):
    """The reader sees imports in functions, of sub-modules by name, and of any level."""
    (tmp_path / "components/backbones").mkdir(parents=True)
    (tmp_path / "components/frameworks").mkdir()
    (tmp_path / "components/interfaces.py").touch()
    source = Path("components/backbones/bad.py")
    (tmp_path / source).write_text(
        "import torch.nn\n"
        "from .. import frameworks\n"
        "from ..interfaces import Backbone\n"
        "from .fit import FIT\n"
        "def f():\n"
        "    from ...recipes.cli import main\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    found = [name for _, name in imports_of(source)]
    assert found == [
        "torch.nn",
        "components.frameworks",
        "components.interfaces",
        "components.backbones.fit",
        "recipes.cli",
    ]
    allowed = [may_import("components.backbones", name) for name in found]
    assert allowed == [True, False, True, True, False]


def test_every_package_is_listed():
    """pyproject.toml names every folder with an __init__.py: an unlisted one is missing from the wheel alone."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [source.parent for source in SOURCES if source.name == "__init__.py"]
    assert sorted(listed) == sorted("snapvideo." + ".".join(folder.parts) for folder in folders)
