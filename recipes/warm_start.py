"""Starting from the weights of another model: what fits is taken, and what was new is said."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..components import VideoDiffusion
from .errors import UserError
from .run import build_model, read_config, read_weights
from .shipped import find_config

BACKBONE = "backbone."


def warm_start(model: VideoDiffusion, file: Path) -> str:
    """Give a model the weights of another as far as they fit; what came of it, for people.

    Weights fit that have the name and the shape of one here. Where the other model's run is at hand, the backbone makes
    more of them fit (`Backbone.fit_weights`): an upsampler starts from its first stage.

    Args:
        model: Its weights are replaced.
        file: Weights, a ``.safetensors`` or ``.ckpt`` file, best in its run folder.

    Raises:
        UserError: There are no such weights, or less than half of the backbone fits.
    """
    given = read_weights(file)
    more, note = _fitted(model, given, file)
    fitted = given | more
    wanted = model.state_dict()
    fits = {name: tensor for name, tensor in fitted.items() if name in wanted and wanted[name].shape == tensor.shape}
    _refuse_others(fits, wanted, file)
    model.load_state_dict(fits, strict=False)
    of = {
        "fitted:": [name for name, tensor in fits.items() if name not in given or not _equal(given[name], tensor)],
        "new:": [name for name in wanted if name not in fits],
        "unused:": [name for name in given if name not in fits],
    }
    lines = [f"starts from {file}: {len(fits)} of {len(wanted)} weights"]
    lines += [f"  {what:8}{_names(names)}" for what, names in of.items() if names]
    if note:
        lines.append(f"  {note}: weights that belong to places were taken as they are")
    return "\n".join(lines)


def _refuse_others(fits: dict[str, Tensor], wanted: dict[str, Tensor], file: Path) -> None:
    """Refuse weights of a backbone of which less than half fits."""
    backbone = {name: tensor for name, tensor in wanted.items() if name.startswith(BACKBONE)}
    share = sum(fits[name].numel() for name in backbone if name in fits) / sum(t.numel() for t in backbone.values())
    if share < 0.5:
        new = max((name for name in backbone if name not in fits), key=lambda name: backbone[name].numel())
        raise UserError(
            f"--init_from {file}: it is of another model: {share:.0%} of the backbone's weights fit, and half must; "
            f"the largest that does not is {new}, {list(backbone[new].shape)} here"
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _fitted(model: VideoDiffusion, given: dict[str, Tensor], file: Path) -> tuple[dict[str, Tensor], str]:
    """The other backbone's weights, made to fit, if its run is at hand; else why they are not."""
    run = _run_of(file)
    if run is None:
        return {}, "its config is not beside it"
    with torch.device("meta"):
        source = build_model(read_config(run)["model"]).backbone
    weights = {name.removeprefix(BACKBONE): tensor for name, tensor in given.items() if name.startswith(BACKBONE)}
    if weights.keys() != source.state_dict().keys():
        return {}, f"the config in {run} is of another network"
    return {BACKBONE + name: tensor for name, tensor in model.backbone.fit_weights(weights, source).items()}, ""


def _run_of(file: Path) -> Path | None:
    """The folder with the config of weights: that of the name, or where links lead to."""
    folders = [*file.absolute().parents[:2], *file.resolve().parents[:2]]  # the Hub's cache is made of links
    return next((folder for folder in folders if find_config(folder)), None)


def _names(names: Iterable[str]) -> str:
    """The parts of the model that weights belong to."""
    return ", ".join(sorted({".".join(name.split(".")[:3]) for name in names}))
