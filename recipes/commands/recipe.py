"""``snapvideo recipe``: the recipes that come with the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import UserError
from ..shipped import find_recipe, shipped_recipes, summary


def run(verb: str, argv: list[str]) -> None:
    """Run ``snapvideo recipe ls|cat|cp``."""
    parser = argparse.ArgumentParser(prog="snapvideo recipe", description="The recipes that come with the package.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("ls", help="list them")
    show = actions.add_parser("cat", help="show one")
    copy = actions.add_parser("cp", help="copy one to a file, to change it")
    for action in (show, copy):
        action.add_argument("name", metavar="NAME")
    copy.add_argument("file", metavar="FILE", type=Path)
    options = parser.parse_args(argv)
    if options.action == "ls":
        for name, file in shipped_recipes().items():
            print(f"{name:16}{summary(file)}")
        return
    text = find_recipe(options.name).read_text(encoding="utf-8")
    if options.action == "cat":
        sys.stdout.write(text)
        return
    try:
        with options.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{options.file} exists already: choose another name") from None
    except OSError as error:
        raise UserError(f"{options.file} cannot be written: {error.strerror}") from error
    print(f"train:  snapvideo fit -c {options.file}")
