"""``snapvideo eval``: a model or a cascade, measured by a protocol."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..options import AUG_LEVEL, add_devices, add_machine, check_counts, check_processes, machine_of, near, numbers
from ..protocols import find_protocol, summaries
from ..quiet import quieten
from ..sampling import OPTIONS, split_settings

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from ...components.interfaces import VideoShape
    from ..evaluation import Evaluation, ObserveVideos
    from ..generation import Maker, Missing
    from ..protocol import Protocol
    from ..requests import Request
    from ..results import Result

HELP = """\
KEY is a setting of the protocol, as --num 100 or --clips.root DIR; {options}
can be others than in training. The same command goes on where it was ended.

protocols
{protocols}"""


def run(verb: str, argv: list[str]) -> None:
    """Sample, let the metrics see, score, say where it is."""
    words, own = split_settings(argv)
    options, settings = _parser().parse_known_args(words)
    names, protocol_name = options.words[:-1], options.words[-1]
    if not names:
        raise UserError(f"{protocol_name}: a run and a protocol are needed: snapvideo eval runs/demo/latest shapes")
    check_counts(options)
    check_processes(options)
    levels = numbers("--aug-level", options.aug_level or AUG_LEVEL, float, len(names) - 1)
    steps = numbers("--steps", options.steps, int, len(names)) if options.steps else None
    guidance = numbers("--guidance", options.guidance, float, len(names)) if options.guidance else None
    quieten(devices=False)
    sys.path.append(os.getcwd())  # where a user's own classes are
    from ..protocol import load_protocol
    from ..results import Result
    from ..run import find_run
    from ..source import record_of, sources_of
    from ..stages import Stages

    file = find_protocol(protocol_name)
    protocol = load_protocol(file, settings)
    runs = [find_run(each, options.trust) for each in names]
    sources = sources_of(runs, steps, guidance, own, options.checkpoint)
    shape = Stages([source.build() for source in sources], levels).shape
    protocol.check_shape(shape)
    model = record_of(sources, levels) | machine_of(options, options.devices * options.num_nodes)
    requests = _requests(protocol, shape)
    record = protocol.record(shape, [request.prompt for request in requests])
    out = options.out or _default_out(runs[-1], file.stem, record | {"draws": protocol.draws}, model)

    def maker() -> Maker:
        return Stages([source.load() for source in sources], levels)

    name = options.name or "+".join(run.name for run in runs)
    _evaluate(protocol, shape, requests, maker, Result(file.stem, name, record, model, {}, {}), out, options)


def protocol_of(argv: list[str]) -> Protocol:
    """The protocol that a command asks for.

    Raises:
        UserError: It, or an option, is wrong.
    """
    from ..protocol import load_protocol

    options, settings = _parser().parse_known_args(split_settings(argv)[0])
    check_counts(options)
    return load_protocol(find_protocol(options.words[-1]), settings)


def _evaluate(
    protocol: Protocol,
    shape: VideoShape,
    requests: list[Request],
    maker: Callable[[], Maker],
    about: Result,
    out: Path,
    options: argparse.Namespace,
) -> None:
    """Fill a folder with videos, rows and scores; `about` is the result without scores."""
    from ..evaluation import Evaluation, ObserveVideos
    from ..filling import make_trainer
    from ..generation import Missing
    from ..results import RESULT, mark_of, table
    from ..videos import VideoFolder

    evaluation = Evaluation(protocol, shape, requests, out / "rows" / mark_of(about.record))
    settings = {**about.model, "protocol": about.record}
    videos = VideoFolder(requests, settings, out / "videos", out, gifs=False)
    videos.check()
    observer = ObserveVideos(evaluation.metrics, evaluation.made)
    missing = Missing(videos, options.batch_size)
    trainer = make_trainer(
        missing, options.device, options.precision, options.devices, options.num_nodes, observers=[observer]
    )
    evaluation.rehearse(trainer.strategy.root_device)
    cost = _measure(evaluation, trainer, maker(), missing, observer, options) or _cost_before(out)
    if not trainer.is_global_zero:
        return
    scores, count = evaluation.scores()
    result = replace(about, record={**about.record, "real": count}, scores=scores, cost=cost)
    result.write(out / RESULT)
    print(table([result]))
    print(f"result: {near(out / RESULT)} ({protocol.num} videos, {count} real clips)")


def _requests(protocol: Protocol, shape: VideoShape) -> list[Request]:
    """The videos to make: one of each prompt, with one seed after the other.

    Raises:
        UserError: There are not so many prompts.
    """
    from ..requests import Request

    try:
        prompts = protocol.clips.prompts(protocol.num, shape)
    except ValueError as error:
        raise UserError(f"clips: {error}") from error
    return [
        Request(prompt, protocol.seed + place, protocol.fps, f"{place:06d}") for place, prompt in enumerate(prompts)
    ]


def _default_out(run: Path, protocol: str, record: dict[str, Any], model: dict[str, Any]) -> Path:
    """A folder that the same command finds again, and another one does not."""
    from ..results import EVALUATIONS, mark_of
    from ..run import is_exported
    from ..videos import FREE

    settings = {key: value for key, value in model.items() if key not in FREE} | {"protocol": record}
    folder = Path(EVALUATIONS) if is_exported(run) else run / EVALUATIONS
    return folder / f"{protocol}-{mark_of(settings)}"


def _measure(
    evaluation: Evaluation,
    trainer: Trainer,
    maker: Maker,
    missing: Missing,
    observer: ObserveVideos,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Make the videos, let the metrics see them and the real clips; seconds per 1000, of what was not there before."""
    from ...components.media import grid_columns
    from ..filling import fill

    start = time.perf_counter()
    try:
        fill(trainer, maker, missing, grid_columns(evaluation.protocol.num, 1), evaluation.protocol.resolution)
    except BaseException:
        if trainer.is_global_zero:
            missing.folder.close()
            print(f"evaluation: {near(missing.folder.path.parent)}; the same command goes on")
        raise
    made = time.perf_counter()
    there = sum(map(evaluation.real.has, evaluation.places))
    device = trainer.strategy.root_device
    evaluation.observe_real(trainer.global_rank, trainer.world_size, device, options.batch_size, options.num_workers)
    trainer.strategy.barrier()
    if there or len(missing.names) < len(evaluation.requests) or not observer.count:
        return {}  # a part was there before: what it took is not known
    seconds = {
        "sampling": (made - start - observer.seconds) / len(evaluation.requests),
        "metrics": observer.seconds / observer.count,
        "real clips": (time.perf_counter() - made) / len(evaluation.places),
    }
    return {what: round(1000 * each, 3) for what, each in seconds.items()}


def _cost_before(out: Path) -> dict[str, float]:
    """What the same evaluation took when it was made."""
    from ..results import RESULT, read_result

    with suppress(UserError):
        return dict(read_result(out / RESULT).cost)
    return {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snapvideo eval",
        usage="snapvideo eval RUN [RUN ...] PROTOCOL [--OPTION ...] [--KEY VALUE ...]",
        description="Measure a model, or a cascade, by a protocol.",
        epilog=HELP.format(options=OPTIONS, protocols="\n".join(summaries())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = (
        "a run folder, exported or shipped model, or USER/NAME on the Hub, and after it runs of upsamplers; then the "
    )
    parser.add_argument("words", metavar="RUN ... PROTOCOL", nargs="+", help=what + "name or file of a protocol")
    parser.add_argument("--name", help="name of the model in tables (that of its run)")
    parser.add_argument("--steps", metavar="N[,N]", help="steps of the sampler; of each run, as 64,16")
    parser.add_argument("--guidance", metavar="S[,S]", help="pull towards the prompt; 1: none; of each run, as 4,1")
    parser.add_argument("--aug-level", metavar="A[,A]", help="noise on what upsamplers enlarge, 0 to 1 (0.1)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights; default: the newest of the run")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder to write (RUN/eval/PROTOCOL-...)")
    add_machine(parser)
    add_devices(parser)
    parser.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes that read real clips (0)")
    return parser
