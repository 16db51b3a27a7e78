"""Lightning's command line over our parts: from a recipe and settings to a model, its data and a trainer."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from ..components import VideoDiffusion
from ..components.callbacks import EMA, SampleGrid
from .errors import UserError
from .explain import explain
from .parsing import Builder, Parser, known_classes
from .record import Checkpoint, Metrics, Record
from .shipped import CONFIG, LATEST

SECTIONS: dict[str, type | None] = {
    "seed_everything": None,
    "trainer": Trainer,
    "model": VideoDiffusion,
    "data": LightningDataModule,
    "ema": EMA,
    "sampling": SampleGrid,
    "checkpoint": Checkpoint,
}
"""The top level of a recipe."""

CALLBACKS = ("ema", "sampling", "checkpoint")
"""Settings with a name of their own, in the order in which the trainer calls them: samples show the newest average."""

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

    Raises:
        UserError: The recipe or a setting is wrong.
    """

    def __init__(self, args: list[str], run: Path | None, command: list[str]) -> None:
        known_classes()
        self.run = run
        super().__init__(
            model_class=VideoDiffusion,
            datamodule_class=LightningDataModule,
            save_config_callback=Record if run else None,
            save_config_kwargs={"command": command},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
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
        parser.add_argument("--sampling", type=SampleGrid | None, help="Samples on the way; null: none.")
        parser.add_argument("--checkpoint", type=Checkpoint, default=CHECKPOINT, help="When weights are saved.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`; Lightning would warn that they don't come from `sys.argv`."""
        try:
            self.config = parser.parse_args(args)
        except UserError as error:
            raise UserError(explain(str(error), SECTIONS)) from error

    def before_instantiate_classes(self) -> None:
        """Resolve a precision that is not given, so that the record shows it."""
        if self.config.trainer.precision is None:
            self.config.trainer.precision = machine_precision(self.config.trainer.accelerator)

    def instantiate_classes(self) -> None:
        """Build the parts, then the trainer."""
        self.config_init = Builder(self.config).build(self.parser)
        self.model = self.config_init.model
        self.datamodule = self.config_init.data
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer; its loggers and callbacks write into the run folder."""
        config = dict(self.config_init.trainer)
        if self.run is None:
            return self._instantiate_trainer(config | {"logger": False}, [])
        loggers = [Metrics(self.run), TensorBoardLogger(self.run, name="tb", version="")]
        if config["logger"] not in (None, True):
            loggers = [*loggers, *config["logger"]] if config["logger"] else False
        callbacks = [self.config_init[name] for name in CALLBACKS if self.config_init[name] is not None]
        return self._instantiate_trainer(config | {"logger": loggers, "default_root_dir": self.run}, callbacks)

    def fit(self, checkpoint: Path | None) -> None:
        """Train, then say where the run is and how to sample it; a run that did not begin leaves nothing."""
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint, weights_only=True)
        finally:
            if self.trainer.is_global_zero:
                if (self.run / CONFIG).exists():
                    print(self._farewell())
                else:
                    shutil.rmtree(self.run, ignore_errors=True)

    def _farewell(self) -> str:
        latest = self.run.parent / LATEST
        sampling = self.config_init.sampling
        prompt = sampling.captions[0] if sampling else "a text"
        lines = [f"run:    {self.run}"]
        if (self.run / "checkpoints/last.ckpt").exists():
            lines.append(f"sample: {shlex.join(['snapvideo', 'sample', str(latest)])} {json.dumps(prompt)}")
        lines.append(f"watch:  tensorboard --logdir {self.run.parent}")
        return "\n".join(lines)


def machine_precision(accelerator: str) -> str:
    """``bf16-mixed`` where the device that an accelerator means computes in bf16, else ``32-true``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
        native = on_cpu and torch.cpu._is_avx512_bf16_supported()  # public from a later torch than our oldest
    return "bf16-mixed" if native else "32-true"
