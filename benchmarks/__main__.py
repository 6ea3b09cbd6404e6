"""Runs every benchmark and writes benchmarks/README.md: `python -m benchmarks --midi_dir=DIR`."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys
import time

from absl import app, flags

MIDI_DIR = flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files.")

HERE = pathlib.Path(__file__).parent
SECTIONS = {
    "Rendering": ("rendering.py", True),
    "Pipeline": ("pipeline.py", False),
    "Fidelity": ("fidelity.py", True),
    "Fuzzing": ("fuzz.py", True),
}


def processor() -> str:
    """Model and number of cores."""
    cpu_info = pathlib.Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores"


def main(_) -> None:
    """Runs them one after the other, since they share the cores."""
    parts = [f"# Benchmarks\n\nWritten by `make bench` on {time.strftime('%Y-%m-%d')}: {processor()}.\n"]
    for title, (script, takes_midi) in SECTIONS.items():
        flag = f" --midi_dir={MIDI_DIR.value}" if takes_midi else ""
        done = subprocess.run(
            [sys.executable, str(HERE / script), *flag.split()], stdout=subprocess.PIPE, text=True, check=True
        )
        parts.append(f"## {title}\n\n`python benchmarks/{script}{flag}`\n\n{done.stdout}")
    (HERE / "README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    app.run(main)
