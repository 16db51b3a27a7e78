"""Lightning's command line over our parts: from a recipe and settings to a model, its data and a trainer."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..components import VideoDiffusion
from ..components.callbacks import EMA, PeakMemory, PostHocEMA, SampleGrid, SkipBadSteps
from ..components.callbacks.bad_steps import Diverged
from ..components.weights import check_weights
from .checkpoints import Checkpoint, WholeCheckpoints
from .distinct import DistinctRanks
from .embed import SameEncoder
from .errors import UserError
from .explain import explain
from .interrupt import ended_by_sigterm
from .lock import only_training
from .memory import callers, explain_memory, is_out_of_memory
from .parsing import Builder, Parser, know_our_classes
from .progress import Lines, Metrics, Pace, RawValidation
from .ranks import one_voice
from .record import Record
from .refusals import refuse, refuse_unused_holdout
from .rehearsal import Rehearsal
from .report import REPORT, Report
from .resume import Resume, Resumption
from .run import find_run, find_weights, machine_precision, newest_checkpoint, read_weights
from .shipped import CONFIG, LATEST
from .warm_start import warm_start

SECTIONS: dict[str, type | None] = {
    "seed_everything": None,
    "trainer": Trainer,
    "model": VideoDiffusion,
    "data": LightningDataModule,
    "ema": EMA,
    "post_hoc_ema": PostHocEMA,
    "sampling": SampleGrid,
    "checkpoint": Checkpoint,
    "max_bad_steps": None,
}
"""The top level of a recipe."""

CALLBACKS = ("ema", "post_hoc_ema", "sampling", "checkpoint")
"""Settings with a name of their own. Samples come after the average, to show the newest.

The trainer calls them in this order, but `checkpoint` after all other callbacks: what those count is then up to date.
"""

TRAINER_DEFAULTS = {
    "check_val_every_n_epoch": None,  # training data has no end: `val_check_interval` counts steps
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
}

CHECKPOINT = {"class_path": f"{Checkpoint.__module__}.{Checkpoint.__qualname__}"}


class Training(LightningCLI):
    """Builds what a recipe names.

    Args:
        args: ``--config=FILE`` and ``--KEY=VALUE``.
        run: The run folder; None: nothing is recorded.
        command: Words of the command that was given.
        resumption: What training goes on from; None: it begins.

    Raises:
        UserError: The recipe or a setting is wrong, or it is of another network than what it would go on from.
    """

    def __init__(
        self, args: list[str], run: Path | None, command: list[str], resumption: Resumption | None = None
    ) -> None:
        know_our_classes()
        self.run = run
        self.resumption = resumption
        self.command = shlex.join(command)
        super().__init__(
            save_config_callback=None,  # Record writes it, and never aborts
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": " ".join(command[:2]), "allow_abbrev": False},
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The sections of a recipe. The data gets its `shape` from the model: it cannot be given twice."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.add_argument("--model", type=VideoDiffusion, required=True, help="The model.")
        parser.add_subclass_arguments(LightningDataModule, "data", skip={"shape"}, required=True)
        parser.add_argument("--ema", type=EMA | None, help="Averaged weights; null: none.")
        parser.add_argument("--post_hoc_ema", type=PostHocEMA | None, help="Averages to choose later; null: none.")
        parser.add_argument("--sampling", type=SampleGrid | None, help="Samples on the way; null: none.")
        parser.add_argument("--checkpoint", type=Checkpoint, default=CHECKPOINT, help="When weights are saved.")
        what = "So many steps in a row whose loss or gradient is not finite end training; each is skipped."
        parser.add_argument("--max_bad_steps", type=PositiveInt, default=10, help=what)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`; Lightning would warn that they don't come from `sys.argv`."""
        assert isinstance(args, list)
        try:
            self.config = parser.parse_args(args)
        except UserError as error:
            raise UserError(explain(str(error), SECTIONS)) from error

    def before_instantiate_classes(self) -> None:
        """Resolve a precision that is not given, so that the record shows it; refuse what would harm training unseen.

        Raises:
            UserError: See `refuse` and `refuse_unused_holdout`.
        """
        trainer = self.config.trainer
        if trainer.precision is None:
            trainer.precision = machine_precision(device_type(trainer.accelerator))
        refuse(self.config)
        if self.run is not None:
            refuse_unused_holdout(self.config)

    def instantiate_classes(self) -> None:
        """Build the parts, then the trainer."""
        self.config_init = Builder(self.config).build(self.parser)
        self.model = self.config_init.model
        self.datamodule = self.config_init.data
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer; its loggers and callbacks write into the run folder."""
        config = dict(self.config_init.trainer)
        callbacks: list[Callback] = []
        if self.run is None:
            config["logger"] = False
        else:
            callbacks = self._callbacks()
            step = self.resumption.step if self.resumption else 0
            config["default_root_dir"] = self.run
            plugins = _list(config["plugins"])
            if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
                config["plugins"] = [*plugins, WholeCheckpoints()]
            if config["logger"] is not False:
                events = TensorBoardLogger(self.run, name="tb", version="", purge_step=step or None)
                theirs = [] if config["logger"] is True else _list(config["logger"])
                config["logger"] = [Metrics(self.run, step), events, *theirs]
        try:
            return self._instantiate_trainer(config, callbacks)
        except ValueError as error:
            raise UserError(f"trainer: {error}") from error

    def _callbacks(self) -> list[Callback]:
        """What accompanies training, in the order in which it is called."""
        changes = []
        text = self.parser.dump(self.config, skip_unset=False)
        signals = self.config_init.checkpoint.signals
        callbacks: list[Callback] = [signals, Rehearsal(), PeakMemory(), SkipBadSteps(self.config.max_bad_steps)]
        callbacks += [self.config_init[name] for name in CALLBACKS if self.config_init[name] is not None]
        if self.resumption is not None:
            changes = self.resumption.changes(yaml.safe_load(text))
            callbacks.append(Resume(self.resumption, changes))
        if self.config_init.ema is not None:
            callbacks.append(RawValidation(self.config_init.ema))
        record = Record(text, self.command, changes)
        self.report = Report(record)
        return [*callbacks, SameEncoder(), DistinctRanks(), Pace(), Lines(), record, self.report]

    def fit(self, init_from: Path | None = None) -> None:
        """Train, and say how to go on. A run that did not begin leaves nothing.

        Args:
            init_from: A file of weights to begin with.
        """
        assert self.run is not None
        checkpoint = self.resumption.checkpoint if self.resumption else None
        if init_from:
            started = warm_start(self.model, init_from)
            if self.trainer.is_global_zero:
                print(started)
        with ended_by_sigterm(), only_training(self.run) if self.trainer.is_global_zero else nullcontext():
            try:
                if self.resumption:
                    self._check(self.resumption)
                with one_voice(self.trainer), self._explained():
                    self.trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint, weights_only=True)
            finally:
                if self.trainer.is_global_zero:
                    self._end(self.run)
        if self.trainer.is_global_zero and not self._trained():
            limits = f"trainer.max_steps={self.trainer.max_steps}, trainer.max_time={self.config.trainer.max_time}"
            start = f"{checkpoint} is at step {self.trainer.global_step}" if checkpoint else "no step is allowed"
            print(f"nothing is left to train: {start} ({limits})")

    def _check(self, resumption: Resumption) -> None:
        """Refuse weights of another model, and a checkpoint that another process has left behind meanwhile."""
        checkpoint = resumption.checkpoint
        if resumption.in_place and resumption.run and newest_checkpoint(resumption.run) != checkpoint:
            raise UserError(f"{resumption.run} has gone on from {checkpoint.name} meanwhile: give the command again")
        check_weights(self.model, read_weights(checkpoint), checkpoint)

    def _end(self, run: Path) -> None:
        """Say how to go on, or remove the folder of a run that did not begin."""
        if (run / CONFIG).exists():
            self.report.close(self.trainer)
            print(self._farewell(run))
            return
        shutil.rmtree(run, ignore_errors=True)
        with suppress(OSError):  # other runs are there
            run.parent.rmdir()

    def _trained(self) -> bool:
        """Whether a step was done."""
        return self.trainer.global_step > (self.resumption.step if self.resumption else 0)

    def evaluate(self, verb: str, checkpoint: Path) -> None:
        """Run ``validate``, ``test`` or ``predict`` with the weights of a checkpoint."""
        if getattr(self.datamodule, "holdout", None) == 0:
            raise UserError(f"{verb} has no samples: none are held out; set data.holdout to a number above 0")
        start_from(self.model, checkpoint)
        with self._explained():
            getattr(self.trainer, verb)(self.model, datamodule=self.datamodule)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A context in which errors of the trainer's work say what to do."""
        try:
            yield
        except Diverged as error:
            saved = newest_checkpoint(self.run) if self.run else None
            raise Diverged(f"{error}\nthe last good checkpoint: {saved or 'none was saved yet'}") from error
        except KeyError as error:
            if not (self.resumption and isinstance(callers(error)[-1], Optimizer | LRScheduler)):
                raise
            raise UserError(
                f"{self.resumption.checkpoint} has no {error} of the optimizer or the scheduler: leave model.optimizer "
                "and model.scheduler as they were, or start anew from its weights with --init_from"
            ) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            device = self.trainer.strategy.root_device
            what = explain_memory(error, self.config.as_dict(), self.model.shape, device)
            raise UserError(f"rank {self.trainer.global_rank}: {what}" if self.trainer.global_rank else what) from error

    def _farewell(self, run: Path) -> str:
        prompts = self.config_init.sampling.prompts if self.config_init.sampling else None
        latest = run.with_name(LATEST)
        name = str(latest if latest.resolve() == run.resolve() else run)  # another may have begun later
        lines = [f"run:    {run}", f"watch:  {shlex.join(['tensorboard', '--logdir', str(run.parent)])}"]
        lines += [f"report: {run / REPORT}"] if (run / REPORT).exists() else []
        if newest_checkpoint(run):
            words = ["BASE_RUN"] if self.model.conditioner.video_channels else []
            lines.append(f"sample: {shlex.join(['snapvideo', 'sample', *words, name, (prompts or ['a text'])[0]])}")
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                return "\n".join(lines)  # it is finished
            resume = ["snapvideo", "fit", "--resume", name]
            resume += ["--trainer.max_time", "null"] if self.config.trainer.max_time else []  # time is counted on
            lines.append(f"resume: {shlex.join(resume)}")
        return "\n".join(lines)


class _Settings(Training):
    """Parses what a command names and builds none of it."""

    def instantiate_classes(self) -> None:
        """Nothing."""


def read_settings(
    recipes: Sequence[Path], settings: Sequence[str] = (), defaults: Sequence[str] = ()
) -> dict[str, Any]:
    """All settings, with defaults, that recipes and words of a command line come to.

    Args:
        recipes: Files; later ones win.
        settings: ``--KEY VALUE`` or ``--KEY=VALUE``; they win over the recipes.
        defaults: Of the same form; recipes win over them.

    Raises:
        UserError: A recipe or a setting is wrong.
    """
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # which says that it has set a seed
    parsed = _Settings([*defaults, *(f"--config={file}" for file in recipes), *settings], None, ["snapvideo", "recipe"])
    return yaml.safe_load(parsed.parser.dump(parsed.config, skip_unset=False))


def find_checkpoint(name: str | Path) -> Path:
    """Weights, by their file or the run folder that holds them; not a link, which may soon lead elsewhere.

    Raises:
        UserError: There are none.
    """
    if Path(name).is_file():
        return Path(name).resolve()
    return find_weights(find_run(name, trust=True))  # what is taken of it are weights alone


def start_from(model: VideoDiffusion, file: Path) -> None:
    """Give a model the weights of a file, which is let go of: its memory and, once it is removed, its disk.

    Raises:
        UserError: They are of another model.
    """
    weights = read_weights(file)
    check_weights(model, weights, file)
    model.load_state_dict(weights)


def _list(setting: Any) -> list[Any]:  # noqa: ANN401  # of Lightning's trainer
    """A setting that may be one thing, several or none."""
    return [] if setting is None else setting if isinstance(setting, list) else [setting]


def device_type(accelerator: str) -> str:
    """``cuda``, ``mps``, ``cpu``: what Lightning makes of the name of an accelerator."""
    if accelerator in ("auto", "gpu"):
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator
