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
        UserError: There are no such weights, or none of them fit.
    """
    given = read_weights(file)
    fitted = given | _fitted(model, given, file)
    wanted = model.state_dict()
    fits = {name: tensor for name, tensor in fitted.items() if name in wanted and wanted[name].shape == tensor.shape}
    if not any(name.startswith(BACKBONE) for name in fits):
        raise UserError(f"--init_from {file}: none of its weights fit the backbone; they are of another network")
    model.load_state_dict(fits, strict=False)
    changed = [
        name for name in fits if given[name].shape != fits[name].shape or not torch.equal(given[name], fits[name])
    ]
    new = [name for name in wanted if name not in fits]
    unused = [name for name in given if name not in fits]
    lines = [f"starts from {file}: {len(fits)} of {len(wanted)} weights"]
    lines += [
        f"  {what} {_names(names)}"
        for what, names in (("fitted:", changed), ("new:   ", new), ("unused:", unused))
        if names
    ]
    return "\n".join(lines)


def _fitted(model: VideoDiffusion, given: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The other backbone's weights, made to fit, if its run is at hand."""
    run = next((folder for folder in file.resolve().parents[:2] if find_config(folder)), None)
    if run is None:
        return {}
    with torch.device("meta"):
        source = build_model(read_config(run)["model"]).backbone
    weights = {name.removeprefix(BACKBONE): tensor for name, tensor in given.items() if name.startswith(BACKBONE)}
    return {BACKBONE + name: tensor for name, tensor in model.backbone.fit_weights(weights, source).items()}


def _names(names: Iterable[str]) -> str:
    """The parts of the model that weights belong to."""
    return ", ".join(sorted({".".join(name.split(".")[:3]) for name in names}))
