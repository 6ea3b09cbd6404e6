"""What all commands share: flags are parsed, one function is called; bad input ends in one line and exit status 1."""

from __future__ import annotations

import functools
import logging as python_logging
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from data_gen import InputError
from data_gen.command import exit_status

_OF_EXTRA_TRAIN = ("tensorflow", "keras", "tensorflow_serving", "tensorboard", "psutil", "jinja2", "matplotlib")


def run(command: Callable[[list[str]], int], usage: str) -> None:
    """Parses the flags and runs a command, which is given the other arguments and returns the exit status.

    An InputError or RenderError that it raises becomes one line and exit status 1. `usage` is what --help shows.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs greetings, some of them as errors
    # Freed memory is used again rather than given back and fetched anew, which at 44.1 kHz takes a third of the time of
    # a separation and a tenth of a training step.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    flags.FLAGS.set_default("verbosity", logging.INFO)
    logging.get_absl_handler().addFilter(_is_ours_or_serious)
    sys.modules["__main__"].__doc__ = usage
    app.run(lambda argv: exit_status(functools.partial(_with_tensorflow, command), argv[1:]))


def _with_tensorflow(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Calls a command. Raises InputError if it needs what the extra "train" installs, which is not there."""
    try:
        return command(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "jax":
            raise InputError("KERAS_BACKEND=jax: JAX is not installed; docs/scaling.md says how") from None
        if missing not in _OF_EXTRA_TRAIN:
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'sourcesep[train]', or '.[train]' in a clone"
        ) from None


def define_refinements() -> None:
    """Defines --shifts and --adapt."""
    flags.DEFINE_integer(
        "shifts",
        1,
        "Number of passes over a recording, each later by a part of the model's stride, of which the mean is taken: 4 "
        "separate a little better than 1, and take four times as long.",
        lower_bound=1,
        upper_bound=64,
    )
    flags.DEFINE_boolean(
        "adapt",
        False,
        "Weights the stems by where they are in this recording, in frequency and between left and right: better drums "
        "and bass, in about a quarter more time.",
    )


def no_arguments(arguments: list[str]) -> None:
    """Raises InputError if there is an argument that is not a flag."""
    if arguments:
        raise InputError(f"unexpected argument {arguments[0]!r}: flags begin with --")


def list_scores(scores: dict[str, float]) -> str:
    """Returns scores by name, in one line."""
    return ", ".join(f"{name} {score:.1f}" for name, score in scores.items())


def _is_ours_or_serious(record: python_logging.LogRecord) -> bool:
    """Returns whether to show a record: TensorFlow logs its housekeeping through absl too."""
    return record.levelno > python_logging.INFO or "tensorflow" not in record.pathname
