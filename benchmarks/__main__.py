"""Runs benchmarks and writes benchmarks/README.md: `python -m benchmarks --midi_dir=DIR [NAME ...]`.

Without names it runs all of them. The output of each is stored in benchmarks/results, and the page is made from that.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

from absl import app, flags

from benchmarks.machine import processor

HERE = pathlib.Path(__file__).parent
NAMES = ("rendering", "pipeline", "recordings", "fidelity", "fuzz", "training", "separation")
WITH_TORCH = ("recordings", "training", "separation")  # these take --torch_python instead of --midi_dir


def main(arguments: list[str]) -> None:
    """Runs the benchmarks one after the other, since each uses all cores."""
    unknown = [name for name in arguments[1:] if name not in NAMES]
    if unknown:
        raise app.UsageError(f"no benchmark {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name in arguments[1:] or NAMES:
        command = ["-m", f"benchmarks.{name}", f"--midi_dir={flags.FLAGS.midi_dir}"]
        if name in WITH_TORCH:
            command[2] = f"--torch_python={flags.FLAGS.torch_python}"
        done = subprocess.run(
            [sys.executable, *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True
        )
        shown = command[:2] + ["--torch_python=PYTHON" if name in WITH_TORCH else "--midi_dir=MIDI"]
        heading = f"## {name.capitalize()}\n\n`python {' '.join(shown)}` ({time.strftime('%Y-%m-%d')}, {processor()})"
        (results / f"{name}.md").write_text(f"{heading}\n\n{done.stdout}")
        pages = [results / f"{known}.md" for known in NAMES]
        parts = [
            "# Benchmarks\n\nWritten by `make bench MIDI_DIR=MIDI`.\n",
            *(page.read_text() for page in pages if page.exists()),
        ]
        (HERE / "README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", None, "Folder of MIDI files.", required=True)
    flags.DEFINE_string(
        "torch_python", "", "Python of an environment with PyTorch, to compare with; empty to leave it out."
    )
    app.run(main)
