"""What the benchmarks share: the name of the processor, and measurements in processes of their own."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

# As the commands have it (sourcesep/cli/common.py); this module is imported before TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}  # flag of /proc/cpuinfo -> name, the fastest first
ROOT = pathlib.Path(__file__).resolve().parents[1]


def processor() -> str:
    """Returns the processor, how it computes bfloat16, and the number of cores that this process may use."""
    cpu_info = pathlib.Path("/proc/cpuinfo")
    text = cpu_info.read_text() if cpu_info.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    bfloat16 = next((f" ({label})" for flag, label in BFLOAT16.items() if re.search(rf"\b{flag}\b", text)), "")
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name[1] if name else platform.processor()}{bfloat16}, {n_cores} core{'' if n_cores == 1 else 's'}"


def measure(module: str, python: str, function: str, *arguments: str) -> Any:
    """Calls a function of a benchmark in a process of its own; returns its value, or None if it fails.

    Args:
        module: the benchmark; with `--measure FUNCTION ARGUMENT...` it prints the value as JSON in its last line.
        python: the Python interpreter.
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
