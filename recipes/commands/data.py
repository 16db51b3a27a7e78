"""``snapvideo data``: data to train on."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .recipe import settings_of

if TYPE_CHECKING:
    from ...components.interfaces import VideoShape
    from ...datamodules.census import Count
    from ...datamodules.clips import Reader
    from ...datamodules.samples import Modality


def run(verb: str, argv: list[str]) -> None:
    """Run ``snapvideo data synth|check|pack|bench|embed``."""
    options = _parser().parse_args(argv)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snapvideo data", description="Data to train on: make it, look at it.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, (description, add_options, action) in ACTIONS.items():
        sub = actions.add_parser(
            name,
            help=description.split(";")[0],
            description=description[0].upper() + description[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        add_options(sub)
        sub.set_defaults(run=action)
    return parser


def _synth_options(synth: argparse.ArgumentParser) -> None:
    synth.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    synth.add_argument("--videos", type=int, default=2000, metavar="N", help="videos, 1 s each")
    synth.add_argument("--images", type=int, default=2000, metavar="N", help="images")
    synth.add_argument("--size", default="64", metavar="PIXELS", help="side of the frames, or HxW, as 72x128; even")
    synth.add_argument("--fps", type=int, default=16, help="frames per second")
    synth.add_argument("--seed", type=int, default=0, help="another seed draws other scenes")
    synth.add_argument("--workers", type=int, metavar="N", help="processes; None: all cores")
    what = "leave out what is kept for a test of composition, such as red triangles"
    synth.add_argument("--hold-out-combinations", action="store_true", help=what)


def _synth(options: argparse.Namespace) -> None:
    from ...datamodules.synth import write_shapes

    height, width = _size(options.size if "x" in options.size else f"{options.size}x{options.size}")
    try:
        write_shapes(
            options.out,
            options.videos,
            options.images,
            size=height,
            width=None if width == height else width,
            fps=options.fps,
            seed=options.seed,
            workers=options.workers,
            hold_out_combinations=options.hold_out_combinations,
        )
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror}") from error
    print(f"{options.videos} videos and {options.images} images in {options.out}")
    words = ["snapvideo", "fit", "-c", "folders"]
    for name, count in (("videos", options.videos), ("images", options.images)):
        words += [f"--data.{name}", str(options.out / name)] if count else [f"--data.{name[:-1]}_batch_size", "0"]
    print(f"train:  {shlex.join(words)}")


def _check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("source", metavar="SRC", type=Path, help="a folder, a tar file, 'shards/*.tar', or a list")
    check.add_argument("--recipe", default="folders", metavar="NAME", help="whose frames, frame rates and size count")
    check.add_argument("--quick", action="store_true", help="read headers only, decode nothing")
    check.add_argument("--limit", type=int, default=0, metavar="N", help="files looked at, drawn at random; 0: all")
    check.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    check.add_argument("--most-unusable", type=float, default=0.5, metavar="SHARE", help="more is an error")
    check.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")


def _check(options: argparse.Namespace) -> None:
    from ...components.media import write_bytes
    from ...datamodules.census import Looks, take_census
    from ...datamodules.samples import SUFFIXES, Index, NothingUsable
    from ...datamodules.sources import index_source

    config = settings_of([options.recipe])
    reader = _reader(config)
    shapes = open_shapes = _shapes(config)
    counts, nothing = {}, []
    for modality in SUFFIXES:
        try:
            index = index_source(options.source, modality)
        except NothingUsable as error:
            nothing.append(error)
            if not error.skipped:
                continue
            index = Index([], list(error.skipped))
        looks = Looks(index.samples, modality, reader, not options.quick, open_shapes)
        counts[modality] = take_census(looks, index.skipped, options.workers, options.limit, f"{modality}s")
        print(_report(modality, counts[modality]))
        # as in training, images keep to the buckets of videos
        open_shapes = {number: shapes[number] for number in counts[modality].buckets} or open_shapes
    figures = {modality: count.as_dict() | {"bad": count.bad} for modality, count in counts.items()}
    if len(shapes) > 1:
        for modality, buckets in _plan_buckets(config, shapes, counts).items():
            print(_report_buckets(modality, buckets))
            figures[modality]["buckets"] = buckets
    if options.json:
        settings = {"recipe": options.recipe, "num_frames": reader.shape.num_frames, "fps": list(reader.fps)}
        write_bytes(options.json, json.dumps(settings | figures, indent=1).encode())
    if not counts:
        raise nothing[0]
    for modality, count in counts.items():
        count.judge(modality, options.most_unusable)


def _reader(config: dict[str, Any]) -> Reader:
    """How a recipe reads its samples."""
    from ...datamodules.clips import Reader

    data = config["data"]["init_args"]
    return Reader(_shapes(config)[0], data["fps"], manifest=None, seconds=data.get("seconds_per_file", 60.0))


def _shapes(config: dict[str, Any]) -> dict[int, VideoShape]:
    """The model's own shape, and those of the buckets."""
    from ...components.interfaces import VideoShape

    own = config["model"]["init_args"]["backbone"]["init_args"]["shape"]
    buckets = config["data"]["init_args"].get("buckets") or ()
    return dict(enumerate(VideoShape(**shape) for shape in (own, *buckets)))


def _plan_buckets(
    config: dict[str, Any], shapes: Mapping[int, VideoShape], counts: Mapping[Modality, Count]
) -> dict[Modality, dict[str, dict[str, float]]]:
    """What would become of the buckets in a training on one device with this source alone."""
    from ...datamodules.buckets import plan_buckets

    data, window = config["data"]["init_args"], config["trainer"]["accumulate_grad_batches"]
    images = data.get("image_steps")
    of_steps: dict[Modality, float] = (
        {"video": 1.0, "image": 1.0} if images is None else {"video": 1 - images, "image": images}
    )
    per_step: dict[Modality, float] = {
        name: data.get(f"{name}_batch_size", 0) * window * share for name, share in of_steps.items()
    }
    usable: dict[Modality, Mapping[int, int]] = {
        name: {number: round(n * count.samples / count.looked_at) for number, n in count.buckets.items()}
        for name, count in counts.items()
        if count.buckets and per_step[name]
    }
    return plan_buckets(shapes, usable, per_step) if usable else {}


def _report_buckets(modality: Modality, buckets: Mapping[str, Mapping[str, float]]) -> str:
    """A table of buckets for people."""
    lines = [f"{modality}s by bucket (T x H x W); steps of a training on one device with these files alone"]
    lines.append(f"  {'':12}{'samples':>10}{'of steps':>10}{'steps per pass':>16}")
    for name, about in buckets.items():
        figures = f"{about['samples']:>10}{about['share_of_steps']:>10.1%}{about['steps_per_pass']:>16g}"
        lines.append(f"  {name:12}{figures}")
    return "\n".join(lines)


def _report(modality: str, count: Count) -> str:
    """A census for people."""
    looked = "" if count.looked_at == count.samples else f" of the {count.looked_at} looked at"
    lines = [f"{modality}s: {count.files} files, {count.usable}{looked} usable, {count.share_unusable:.1%} not"]
    lines += [f"  {number:>7} {code}: {count.examples[code]}" for code, number in count.unusable.items()]
    if count.spread:
        names = list(next(iter(count.spread.values())))
        lines.append("  " + " " * 12 + "".join(f"{name:>10}" for name in names))
    for what, values in count.spread.items():
        lines.append(f"  {what:12}" + "".join(f"{value:>10g}" for value in values.values()))
    return "\n".join(lines)


def _pack_options(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("source", metavar="SRC", type=Path, help="a folder, tar files, or a .csv or .jsonl list")
    pack.add_argument("out", metavar="DST", type=Path, help="folder to write shards into")
    pack.add_argument("--shard-size", type=float, default=512.0, metavar="MB", help="of a shard, about")
    pack.add_argument("--part", default="1/1", metavar="I/N", help="the I-th of N parts, one per machine")
    pack.add_argument("--workers", type=int, metavar="N", help="processes; None: all cores")
    pack.add_argument("--seed", type=int, default=0, help="of the order of the samples")


def _pack(options: argparse.Namespace) -> None:
    from ...datamodules.pack import make_plan, write_shards

    part, parts = _part(options.part)
    if not options.shard_size > 0:
        raise UserError(f"--shard-size {options.shard_size}: it must be above 0")
    plan = make_plan(options.source, int(options.shard_size * 1e6), options.seed)
    try:
        summary = write_shards(plan, options.out, part - 1, parts, options.workers)
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror}") from error
    there, everything = len(summary["shards"]), len(plan.shards)
    print(
        f"{summary['videos']} videos and {summary['images']} images in {there} of {everything} shards in {options.out}"
    )
    if summary["skipped"]:
        print("left out: " + ", ".join(f"{number} {code}" for code, number in summary["skipped"].items()))
    if summary["complete"]:
        shards = str(options.out / "*.tar")
        kinds = [kind for kind in ("videos", "images") if summary[kind]]
        absent = [
            word for kind in {"videos", "images"} - set(kinds) for word in (f"--data.{kind[:-1]}_batch_size", "0")
        ]
        words = [word for kind in kinds for word in (f"--data.{kind}", shards)] + absent
        print(f"train:  {shlex.join(['snapvideo', 'fit', '-c', 'folders', *words])}")


def _part(text: str) -> tuple[int, int]:
    """``2/4`` -> (2, 4)."""
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UserError(f"--part {text}: give one of N parts, as 1/4 to 4/4")


def _bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("source", metavar="SRC", type=Path, help="videos: a folder, tar files, or a list")
    bench.add_argument("--recipe", default="folders", metavar="NAME", help="whose frames and frame rates count")
    bench.add_argument("--size", nargs="+", default=["36x64", "288x512"], metavar="HxW", help="of the clips, in pixels")
    bench.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="processes")
    bench.add_argument("--clips", type=int, default=64, metavar="N", help="per process and round")
    bench.add_argument("--rounds", type=int, default=3, metavar="N", help="in which both take turns")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")


def _bench(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from ...components.interfaces import VideoShape
    from ...components.media import write_bytes
    from ...datamodules.census import Looks
    from ...datamodules.sources import index_source
    from ...datamodules.throughput import BATCH, measure

    reader = _reader(settings_of([options.recipe]))
    if options.rounds < 1 or options.clips < BATCH:
        raise UserError(
            f"--rounds {options.rounds} --clips {options.clips}: at least 1 round, of at least {BATCH} clips"
        )
    samples = index_source(options.source, "video").samples
    looks = Looks(samples, "video", reader, decode=True)
    samples = [sample for index, sample in enumerate(samples[:256]) if "reason" not in looks[index]]
    if not samples:
        raise UserError(f"{options.source}: no video can be used; see snapvideo data check")
    results = []
    print(f"{'size':>10}{'workers':>9}{'clips/s':>10}{'bare loop':>11}{'fraction':>10}")
    for height, width in map(_size, options.size):
        sized = replace(reader, shape=VideoShape(reader.shape.num_frames, height, width))
        for workers in options.workers:
            result = measure(samples, sized, workers, options.clips, options.rounds)
            results.append(result.as_dict())
            rates = f"{result.loader:>10.1f}{result.bare:>11.1f}{result.fraction:>10.0%}"
            print(f"{f'{height}x{width}':>10}{workers:>9}{rates}", flush=True)
    if options.json:
        write_bytes(options.json, json.dumps(results, indent=1).encode())


def _size(text: str) -> tuple[int, int]:
    """``36x64`` -> (36, 64)."""
    height, _, width = text.partition("x")
    if height.isdigit() and width.isdigit() and int(height) and int(width):
        return int(height), int(width)
    raise UserError(f"--size {text}: give height and width in pixels, as 36x64")


def _embed_options(embed: argparse.ArgumentParser) -> None:
    embed.add_argument("source", metavar="SRC", type=Path, help="a folder, tar files, or a list")
    embed.add_argument("--encoder", required=True, metavar="NAME", help="Hugging Face id or folder, as in the recipe")
    embed.add_argument("--max-length", type=int, default=128, metavar="N", help="tokens per caption at most")
    embed.add_argument("--batch", type=int, default=32, metavar="N", help="captions per batch and device")
    embed.add_argument("--devices", type=int, default=1, metavar="N", help="how many")
    embed.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="the encoder's")


def _embed(options: argparse.Namespace) -> None:
    import torch

    from ..embed import embed

    for name in ("max_length", "batch", "devices"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: it must be at least 1")
    dtype = getattr(torch, options.dtype)
    try:
        embed(options.source, options.encoder, options.max_length, options.batch, options.devices, dtype)
    except OSError as error:
        raise UserError(f"embeddings of {options.source} cannot be written: {error}") from error
    print("train:  snapvideo fit ... --data.embeddings true, with a Text conditioner of this encoder and max_length")


ACTIONS = {
    "synth": (
        "write moving shapes: videos, images, captions and the ground truth; or go on with it, if stopped",
        _synth_options,
        _synth,
    ),
    "check": (
        "count what a recipe can use of captioned videos and images, and say why the rest cannot be used",
        _check_options,
        _check,
    ),
    "pack": (
        "write captioned videos and images into tar files of one size; or go on with it, if stopped",
        _pack_options,
        _pack,
    ),
    "bench": (
        "time how fast videos are read, beside a bare loop of PyAV",
        _bench_options,
        _bench,
    ),
    "embed": (
        "write what a text encoder says of each caption beside the samples; or go on with it, if stopped",
        _embed_options,
        _embed,
    ),
}
"""Action -> (what it does, its options, its function)."""
