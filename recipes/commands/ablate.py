"""``snapvideo sweep ABLATION``: trainings that differ in one thing, each measured; a table and a plot of all."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..ablations import summaries
from ..errors import UserError
from ..options import near
from ..quiet import quieten

if TYPE_CHECKING:
    from ..ablation import Ablation, Job
    from ..ablation_results import Outcome

OUT = Path("ablations")
PROGRESS = "progress.json"


def run(file: Path, argv: list[str]) -> None:
    """Train what is not trained, measure what is not measured, print the table."""
    options = _parser().parse_args(argv)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: it must be at least 1")
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..ablation import jobs_of, read_ablation
    from ..interrupt import ended_by_sigterm
    from ..protocols import find_protocol
    from .eval import protocol_of

    ablation = read_ablation(file)
    if options.seeds:
        ablation = replace(ablation, seeds=options.seeds)
    protocol = find_protocol(ablation.protocol)
    jobs = jobs_of(ablation, protocol)
    for words in dict.fromkeys(job.evaluation for job in jobs):
        protocol_of(["RUN", ablation.protocol, *words])  # what is wrong is said before anything is trained
    out = options.out or OUT / file.stem
    locks: dict[str, Lock] = defaultdict(Lock)  # equal variants are one training
    children: list[Popen[bytes]] = []
    telling = Lock()

    def do(job: Job) -> str:
        with locks[job.run]:
            why = _do(job, ablation, out, children)
        with telling:
            _gather(ablation, jobs, out)  # what there is can be looked at meanwhile
        return why

    with ended_by_sigterm(), ThreadPoolExecutor(options.jobs) as pool:
        try:
            failed = [why for why in pool.map(do, jobs) if why]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.terminate()  # a training saves its state first
            raise
    print(_gather(ablation, jobs, out).table())
    print(f"ablation: {near(out)} (table.md, plot.svg, ablation.json, runs, logs)")
    if failed:
        raise UserError("\n".join([*failed, "the same command goes on with what is missing"]))


def _do(job: Job, ablation: Ablation, out: Path, children: list[Popen[bytes]]) -> str:
    """Train and measure what is not yet; why not, where it fails."""
    from ..results import RESULT

    name = f"{job.variant}, seed {job.seed}"
    log = out / "logs" / f"{job.result}.log"
    run = job.model or _run_of(job, out)
    if (_place(job, run, out) / RESULT).is_file():
        return ""
    log.parent.mkdir(parents=True, exist_ok=True)
    if job.model is None and (run is None or not _is_finished(Path(run))):
        words = ["fit", *job.training, f"--runs={out / 'runs'}", f"--name={job.run}"]
        if run is not None:
            words = ["fit", "--resume", str(run)]
        print(f"{name}: trains", flush=True)
        if code := _call(words, log, children):
            return f"{name}: training ended with code {code}: {near(log)}"
        run = _run_of(job, out)
    print(f"{name}: is measured", flush=True)
    place = _place(job, run, out)
    words = ["eval", str(run), ablation.protocol, "-o", str(place), "--name", job.variant, *job.evaluation]
    if code := _call(words, log, children):
        return f"{name}: evaluation ended with code {code}: {near(log)}"
    print(f"{name}: done", flush=True)
    return ""


def _call(words: Iterable[str], log: Path, children: list[Popen[bytes]]) -> int:
    """Run a command of ours, which is among `children` meanwhile; its exit code."""
    command = [sys.executable, "-m", "snapvideo.recipes.cli", *words]
    with log.open("ab") as file, Popen(command, stdout=file, stderr=STDOUT, stdin=DEVNULL) as child:
        children.append(child)
        code = child.wait()
        children.remove(child)
    return code


def _run_of(job: Job, out: Path) -> Path | None:
    """The run folder of a training, if it has begun."""
    return next(iter(sorted((out / "runs").glob(f"*/*-{job.run}"))), None)


def _place(job: Job, run: str | Path | None, out: Path) -> Path:
    """Where a job is measured: in its run, or of a trained model here."""
    return (out if job.model or run is None else Path(run)) / "eval" / job.result


def _is_finished(run: Path) -> bool:
    try:
        return json.loads((run / PROGRESS).read_text())["state"] == "finished"
    except (OSError, ValueError, KeyError):
        return False


def _gather(ablation: Ablation, jobs: list[Job], out: Path) -> Outcome:
    """What is measured so far, written."""
    from ..ablation_results import Measured, Outcome, Training
    from ..results import RESULT, Result, read_result, refuse_different

    variants: dict[str, list[Measured]] = {variant.name: [] for variant in ablation.variants}
    results: dict[str, Result] = {}
    for job in jobs:
        run = None if job.model else _run_of(job, out)
        file = _place(job, run, out) / RESULT
        if not file.is_file():
            continue
        result, training = read_result(file), None
        if run is not None:
            progress = json.loads((run / PROGRESS).read_text())
            training = Training(progress["step"], progress["clips"], progress["seconds"])
        variants[job.variant].append(Measured(job.seed, [job.training, job.evaluation], result.scores, training))
        record = {key: value for key, value in result.record.items() if key != "seed" or not job.model}
        results[f"{job.variant}, seed {job.seed}"] = replace(result, record=record)
    refuse_different(results)
    environment: dict[str, Any] = {}
    for result in results.values():
        environment = {key: result.model[key] for key in ("versions", "device", "precision")}
        environment["record"] = result.record
    outcome = Outcome(ablation.protocol, variants, ablation.scores, environment)
    outcome.write(out)
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo sweep ABLATION",
        usage="snapvideo sweep ABLATION [-o DIR] [--jobs N] [--seeds N ...]",
        description="Train variants of a recipe that differ in one thing, with several seeds; measure each of them.",
        epilog="The same command goes on where it was ended.\n\nablations\n" + "\n".join(summaries()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder to write (ablations/NAME)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time, on this machine (1)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds (those of the file)")
    return parser
