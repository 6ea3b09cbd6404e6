"""What all commands do with an error that the user has to know: one line on standard error, and exit status 1."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from absl import flags

from data_gen import InputError, RenderError

PATH_FLAGS = (
    *("run_dir", "output_dir", "midi_dir", "stems_dir", "references", "estimates", "tflite", "start_from", "plot"),
    *("litert_dir", "page"),
)


def exit_status(command: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    """Calls a command with its arguments; returns its exit status, which is 1 after an InputError or RenderError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and symbols that the terminal does not have
            stream.reconfigure(errors="backslashreplace")
    for name in PATH_FLAGS:
        if name in flags.FLAGS and isinstance(path := flags.FLAGS[name].value, str):
            flags.FLAGS[name].value = os.path.expanduser(path)  # a shell leaves the ~ in --run_dir=~/run
    try:
        return command(arguments) or 0
    except (InputError, RenderError) as error:
        print(f"{program()}: {error}", file=sys.stderr)
        return 1


def program() -> str:
    """Returns the name of the running command: separate.py, or sourcesep.plots for `python -m sourcesep.plots`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else os.path.basename(sys.argv[0])
