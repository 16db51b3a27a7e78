"""Errors of trainings with several processes: said once, with one exit code, and nobody waits for a dead one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from .interrupt import EndedAtOnce

PATIENCE = 10.0
"""Seconds that another process gives the first to fail of the same error."""


@contextmanager
def one_voice(trainer: Trainer) -> Iterator[None]:
    """A context for a training in which errors end all processes that Lightning started.

    Most errors are those of all. The first process ends the others, which might wait for it for ever, and says what
    happened; another one speaks up only if the first does not fail meanwhile.
    """
    try:
        yield
    except (Exception, EndedAtOnce):
        if not trainer.is_global_zero:
            time.sleep(PATIENCE)
            raise
        end_others(trainer)
        raise


def end_others(trainer: Trainer) -> None:
    """End the processes that Lightning has started from this one."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    for process in processes:
        process.kill()
    processes.clear()  # Lightning watches them, and would end this process too, before it can say why
