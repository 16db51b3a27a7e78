"""Backbones and frameworks on moving shapes, each trained for as long as the others: what follows its caption?

    python docs/benchmarks/compare_shapes.py --minutes 15 --seeds 0 --out comparison

Each variant is the recipe `demo` with one part swapped, trained by `snapvideo fit` in a process of its own, one after
the other, and scored like `score_shapes.py`. Each backbone trains for as many steps as its forward and backward passes
fit into the minutes, at rates that `snapvideo bench` measures for both in turn on one thread, so what else the machine
does plays no role; they are kept in ``comparison/steps.json``. A run that was trained to its end is taken as it is, so
a comparison can be stopped and gone on with.

The table goes to ``comparison/table.md``, all figures to ``comparison/scores.jsonl``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
UNET_RECIPE, FIT_RECIPE = "demo", "demo+overlays/demo_fit"
BATCH = 8
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


def steps_within(minutes: float, folder: Path) -> dict[str, int]:
    """Steps that each backbone trains, by recipe."""
    file, figures = folder / "steps.json", folder / "bench.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "snapvideo.recipes.cli", "bench", UNET_RECIPE, FIT_RECIPE]
        command += ["--batch", str(BATCH), "--threads", "1", "--rounds", "9", "--json", str(figures)]
        subprocess.run(command, check=True)
        results = json.loads(figures.read_text())
        steps = {each["recipe"]: round(60_000 * minutes / (BATCH * each["train_ms_per_video"])) for each in results}
        file.write_text(json.dumps(steps))
    return json.loads(file.read_text())


def train(name: str, settings: list[str], seed: int, steps: int, folder: Path) -> Path:
    """The run of a variant, trained where it is not there yet."""
    runs = folder / f"{name.replace(', ', '_').replace(' ', '-')}_{seed}"
    latest, done = runs / "demo/latest", runs / "trained"
    if not done.exists():  # a run that was stopped also leaves a checkpoint
        command = [sys.executable, "-m", "snapvideo.recipes.cli", "fit", "-c", "demo", *settings]
        command += ["--seed_everything", str(seed), "--runs", str(runs)]
        command += ["--trainer.max_time", "null", "--trainer.max_steps", str(steps)]
        command += ["--model.scheduler.init_args.max_steps", "100000"]  # no decay
        command += ["--sampling", "null", "--trainer.val_check_interval", str(steps)]
        subprocess.run(command, check=True)
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
    steps = steps_within(arguments.minutes, arguments.out)
    rows = []
    for seed in arguments.seeds:
        for name in arguments.only:
            length = steps[FIT_RECIPE if VARIANTS[name] else UNET_RECIPE]
            run = train(name, VARIANTS[name], seed, length, arguments.out)
            rows.append({"variant": name, "seed": seed} | score(run, arguments.captions))
            (arguments.out / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = ["variant", "seed", "steps", "colour", "background", "compact", "shape", "direction"]
    table = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    table += ["| " + " | ".join(str(row[name]) for name in shown) + " |" for row in rows]
    (arguments.out / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
