"""Runs benchmarks and writes benchmarks/README.md: `python -m benchmarks --midi_dir=DIR [NAME ...]`.

Without a name all are run. What each printed is kept in benchmarks/results, from which the page is made.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

from absl import app, flags

from benchmarks.machine import processor

HERE = pathlib.Path(__file__).parent
NAMES = ("rendering", "pipeline", "fidelity", "fuzz", "training", "separation")
WITH_TORCH = ("training", "separation")


def main(arguments: list[str]) -> None:
    """Runs them one after the other, since they share the cores."""
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name in arguments[1:] or NAMES:
        command = ["-m", f"benchmarks.{name}", f"--midi_dir={flags.FLAGS.midi_dir}"]
        if name in WITH_TORCH:
            command[2] = f"--torch_python={flags.FLAGS.torch_python}"
        done = subprocess.run(
            [sys.executable, *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True
        )
        shown = " ".join(command).replace(flags.FLAGS.torch_python or "PYTHON", "PYTHON")
        heading = f"## {name.capitalize()}\n\n`python {shown}` ({time.strftime('%Y-%m-%d')}, {processor()})"
        (results / f"{name}.md").write_text(f"{heading}\n\n{done.stdout}")
        pages = [results / f"{known}.md" for known in NAMES]
        parts = ["# Benchmarks\n\nWritten by `make bench`.\n", *(page.read_text() for page in pages if page.exists())]
        (HERE / "README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files.")
    flags.DEFINE_string("torch_python", "", "Python of an environment with PyTorch to compare with; empty for none.")
    app.run(main)
