"""The command ``snapvideo``: finds the verb, runs it, and turns errors into one screen.

Nothing heavy is imported before the verb is known, so that ``snapvideo --help`` answers at once.
"""

from __future__ import annotations

import importlib
import io
import os
import select
import sys
import traceback

from .errors import UserError, did_you_mean, exit_code, message

VERBS = {
    "fit": ("train", "train a model by a recipe"),
    "validate": ("train", "measure the loss of a trained model, by noise band"),
    "test": ("train", "sample the captions kept for validation, for callbacks to score"),
    "predict": ("train", "sample the captions kept for validation, for callbacks to write"),
    "sample": ("sample", "make videos of texts with a trained or shipped model"),
    "sweep": ("sweep", "score one setting of sampling at several values"),
    "eval": ("eval", "measure a model by a protocol: scores, intervals, the same of real clips"),
    "compare": ("compare", "put results of eval side by side, if they were measured in the same way"),
    "study": ("study", "ask people which of two models they prefer, and tally their votes"),
    "ema": ("ema", "average the weights of a training after it, over any length"),
    "serve": ("serve", "show a page in the browser to try a model"),
    "report": ("report", "make the page of a training: curves, samples, data, recipe"),
    "export": ("export", "write a model to share, with a card; put it on the Hugging Face Hub"),
    "recipe": ("recipe", "list, show, copy and compare recipes; what training one costs"),
    "bench": ("bench", "time the networks of recipes side by side"),
    "data": ("data", "data to train on: make moving shapes, check your own"),
}
"""Verb -> (module in `commands` that runs it, what it does)."""

HELP = """\
usage: snapvideo VERB ...

{verbs}

  snapvideo fit -c demo --smoke     see that all works, in seconds
  snapvideo fit -c demo             train on generated data
  snapvideo sample runs/demo/latest "a red circle moves left"

snapvideo VERB --help says more; --debug after any verb shows the traceback of an error; --version shows the version."""

INTERRUPTED, UNREAD = 130, 141
"""What a shell says of a program that Ctrl-C ended, and of one whose output nobody reads any more."""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words, without the name of the program; None: those of this process.

    Returns:
        The exit code: 0; 2: a setting or an argument is wrong, or memory is not enough; 3: the data cannot be used;
        4: training has diverged; 130 and 143: Ctrl-C or SIGTERM ended it; 141: what it prints to has been closed, by
        ``head``, say; 1: anything else.
    """
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be of any bytes
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:10}{text}" for verb, (_, text) in VERBS.items())))
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"snapvideo {version('snapvideo')}")
        return 0
    verb, *words = argv
    try:
        if verb not in VERBS:
            raise UserError(f"'{verb}' is not a verb.{did_you_mean(verb, VERBS)}\nverbs: {', '.join(VERBS)}")
        command = importlib.import_module(f".commands.{VERBS[verb][0]}", __package__)
        command.run(verb, [word for word in words if word != "--debug"])
        sys.stdout.flush()
    except SystemExit as end:  # of parsers that printed help, and of a training that was interrupted
        if isinstance(end.__context__, KeyboardInterrupt):
            return INTERRUPTED  # Lightning makes it 1
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            return UNREAD
        code = exit_code(error)
        if code is None or "--debug" in words:
            traceback.print_exc()
        if code is not None:
            print(f"error: {message(error)}", file=sys.stderr)
        return code or 1
    return 0


def _unread() -> bool:
    """Whether what this process prints to has been closed; if so, the rest is thrown away, or Python would complain."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)  # of errors alone
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


if __name__ == "__main__":
    sys.exit(main())
