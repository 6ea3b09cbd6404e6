"""What measures share: the processor's name, and processes to measure in."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def processor() -> str:
    """Model and number of cores that this process may run on."""
    cpu_info = pathlib.Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{models[0] if models else platform.processor()}, {n_cores} core{'' if n_cores == 1 else 's'}"


def measured(module: str, python: str, function: str, *arguments: str):
    """What a function of a benchmark returns, in a process of its own; None where it fails.

    Args:
        module: of the benchmark; run with `--measure FUNCTION ARGUMENT...` it prints the value as JSON, last.
        python: interpreter.
        function, arguments: what to call.
    """
    done = subprocess.run(
        [python, "-m", module, "--measure", function, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr[-2_000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])
