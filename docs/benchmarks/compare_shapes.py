"""Backbones and frameworks on moving shapes, each trained for as long as the others: what follows its caption?

    python docs/benchmarks/compare_shapes.py --minutes 15 --seeds 0 --out comparison

Each variant is the recipe `demo` with one part swapped, trained by `snapvideo fit` in a process of its own, one after
the other, and scored like `score_shapes.py`. Minutes are of the processor, of one thread with ``OMP_NUM_THREADS=1``:
what else the machine does plays no role. A run that was trained to its end is taken as it is, so a comparison can be
stopped and gone on with. The table goes to ``comparison/table.md``, all figures to ``comparison/scores.jsonl``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

HERE = Path(__file__).parent
FIT = ["-c", "overlays/demo_fit"]
PUBLISHED = [
    f"--model.framework.{setting}" for setting in ("sigma_data=1.0", "P_mean=-1.2", "P_std=1.2", "sigma_min=0.002")
]
VARIANTS: dict[str, list[str]] = {
    "U-Net, EDM": [],
    "FIT, EDM": FIT,
    "FIT, DDPM": [*FIT, "--model.framework", "DDPM", "--model.framework.sigma_in", "8"],
    "FIT, flow matching": [*FIT, "--model.framework", "FlowMatching", "--model.framework.shift", "8"],
    **{
        f"FIT, EDM as published, sigma_in {k}": [*FIT, *PUBLISHED, f"--model.framework.sigma_in={k}"] for k in (1, 4, 8)
    },
}
"""Settings of each variant.

Flat shapes are more redundant than photographs: a scale of 8 is to them what `auto` is to photographs (page
"learning"), and 4 is half of it. `auto` itself is 1.06 for 8 frames of 24x24.
"""


class ProcessorTime(Callback):
    """Ends training when its process has used up its time.

    Args:
        minutes: How much of the processor it may use.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.end = time.process_time() + self.seconds

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Look at the clock."""
        trainer.should_stop = time.process_time() > self.end


def train(name: str, settings: list[str], seed: int, minutes: float, folder: Path) -> Path:
    """The run of a variant, trained where it is not there yet."""
    runs = folder / f"{name.replace(', ', '_').replace(' ', '-')}_{seed}"
    latest, done = runs / "demo/latest", runs / "trained"
    if not done.exists():  # a run that was stopped also leaves a checkpoint
        steps = 100000  # more than there is time for: the learning rate stays
        command = [sys.executable, "-m", "snapvideo.recipes.cli", "fit", "-c", "demo", *settings]
        command += ["--seed_everything", str(seed), "--runs", str(runs)]
        command += ["--trainer.callbacks+=compare_shapes.ProcessorTime", f"--trainer.callbacks.minutes={minutes}"]
        command += ["--trainer.max_steps", str(steps), "--model.scheduler.init_args.max_steps", str(steps)]
        command += ["--sampling", "null", "--trainer.val_check_interval", str(steps)]
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
        done.touch()
    return latest


def score(run: Path, captions: int) -> dict[str, float]:
    """Shares of what is right in samples of a run, and how many clips it saw."""
    out = run / "scores"
    command = [sys.executable, str(HERE / "score_shapes.py"), str(run), "--captions", str(captions), "--out", str(out)]
    if not (out / "scores.json").exists():
        subprocess.run(command, check=True)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {"steps": int(rows[-1]["step"]) + 1} | json.loads((out / "scores.json").read_text())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        for name in arguments.only:
            run = train(name, VARIANTS[name], seed, arguments.minutes, arguments.out)
            rows.append({"variant": name, "seed": seed} | score(run, arguments.captions))
            (arguments.out / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = ["variant", "seed", "steps", "colour", "background", "compact", "shape", "direction"]
    table = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    table += ["| " + " | ".join(str(row[name]) for name in shown) + " |" for row in rows]
    (arguments.out / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
