"""Measures the speed of training: `python -m benchmarks.training --torch_python=PYTHON [NETWORK ...]`. Prints Markdown.

The published WaveNet and bandnet are compared with the same networks in PyTorch, which needs an environment of its own
(`python -m venv torch && torch/bin/pip install torch==2.13.0 numpy`), and with a large matrix product. Further
measurements are the effect of mixed precision on the loss, the time that training waits for data, and its memory over
time. Each measurement runs in a process of its own.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.machine import ROOT, measure

THIS = "benchmarks.training"

TARGETS = 4
NETWORKS = {  # name: (settings, examples in a batch, samples of each)
    "wavenet": ({}, 12, 4_410),
    "bandnet": ({"model": "bandnet", "sample_rate": 16_000}, 8, 32_768),
}
N_STEPS = 6  # number of steps that are measured; the median counts
MATMUL = 4_096  # rows and columns of the matrices
DTYPES = ("float32", "bfloat16")


def median_s(function: Callable[[], object], n: int) -> float:
    """Measures the median duration of a function over n calls, after one call that is not counted."""
    function()
    durations_s = []
    for _ in range(n):
        began_s = time.perf_counter()
        function()
        durations_s.append(time.perf_counter() - began_s)
    return sorted(durations_s)[n // 2]


def make_step(dtype: str, network: str) -> Callable[[], object]:
    """Makes a training step of sourcesep on a batch of noise."""
    import numpy as np

    from sourcesep.config import Config
    from sourcesep.train.losses import make_loss
    from sourcesep.train.training import make_stepper

    settings, batch, time = NETWORKS[network]
    stepper = make_stepper(Config.from_values({**settings, "mixed_precision": dtype}), make_loss("mae"))
    rng = np.random.default_rng(0)
    stems = 0.1 * rng.standard_normal((batch, time, TARGETS)).astype(np.float32)
    mixture = stems.sum(axis=2, keepdims=True)
    return lambda: stepper.step(mixture, stems)


def tensorflow_step(dtype: str, network: str) -> float:
    """Measures the seconds of a training step of sourcesep."""
    return median_s(make_step(dtype, network), N_STEPS)


def tensorflow_matmul(dtype: str) -> float:
    """Measures the seconds of a product of two square matrices."""
    import tensorflow as tf

    one = tf.cast(tf.random.normal([MATMUL, MATMUL]), dtype)
    return median_s(lambda: tf.reduce_sum(tf.matmul(one, one)[0, :1]).numpy(), N_STEPS)


def torch_step(dtype: str, name: str, is_compiled: bool) -> float:
    """Measures the seconds of a training step in PyTorch."""
    import torch

    from benchmarks.torch_networks import NETWORKS as TORCH_NETWORKS

    network = TORCH_NETWORKS[name]()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    forward = torch.compile(network) if is_compiled else network
    _, batch, time = NETWORKS[name]
    stems = 0.1 * torch.randn(batch, TARGETS, time)
    mixture = stems.sum(1, keepdim=True)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            estimates = forward(mixture)
        loss = (estimates.float() - stems).abs().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return median_s(step, N_STEPS)


def torch_eager(dtype: str, network: str) -> float:
    """Measures the seconds of a training step in PyTorch without torch.compile."""
    return torch_step(dtype, network, False)


def torch_compiled(dtype: str, network: str) -> float:
    """Measures the seconds of a training step with torch.compile."""
    return torch_step(dtype, network, True)


def profile(dtype: str, network: str) -> dict[str, float]:
    """Measures the share of the time that each kind of operation takes in a training step of sourcesep."""
    import collections
    import tempfile

    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step = make_step(dtype, network)
    step()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                kind = name.rpartition(":")[2].strip()
                if ":" in name and "::" not in name and not kind.startswith("__"):  # operations are named NODE:KIND
                    seconds[kind] += event.duration_ps / 1e12
    total = sum(seconds.values())
    return {kind: value / total for kind, value in seconds.most_common(7)}


def loss_after(dtype: str) -> float:
    """Returns the mean loss of steps 101 to 200 of a WaveNet with 64 filters and 2 stacks, on composed pieces."""
    return _train("--stacks=2", "--filters=64", "--head_filters=128,128", f"--mixed_precision={dtype}", steps=200)[0]


def waiting_and_memory(dtype: str) -> list:
    """Returns [share of the time that training waits for data, peak memory in MB after 100 and 500 steps] at 16 kHz."""
    flags = ["--stacks=2", "--filters=32", "--head_filters=64", "--sample_rate=16000", f"--mixed_precision={dtype}"]
    return _train(*flags, steps=500)[1]


def _train(*command: str, steps: int) -> tuple[float, list]:
    """Trains with these flags; returns (mean loss of the last 100 steps, values of `waiting_and_memory`)."""
    import tempfile

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *command, f"--run_dir={folder}", f"--steps={steps}"]
        command += ["--validate_every=0", "--learning_rate=1e-3"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        events = EventAccumulator(folder, size_guidance={"tensors": 0}).Reload()
    series = {
        name: {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(name)}
        for name in ("loss", "wait_share", "memory_mb")
    }
    tail = [value for step, value in series["loss"].items() if step > steps - 100]
    memory = [series["memory_mb"][step] for step in (100, steps) if step in series["memory_mb"]]
    waits = list(series["wait_share"].values())
    return sum(tail) / len(tail), [sum(waits[4:]) / len(waits[4:]), *memory]


def compare(network: str, torch_python: str) -> None:
    """Prints how fast a network is trained by sourcesep and by PyTorch, and where sourcesep's time goes."""
    from sourcesep.config import Config
    from sourcesep.models import build
    from sourcesep.models.receptive_field import gflop_per_s

    settings, batch, time = NETWORKS[network]
    config = Config.from_values(settings)
    # The backward pass costs twice the forward pass.
    gflop = 3 * gflop_per_s(build(config), config.sample_rate) * batch * time / config.sample_rate
    rows = {
        "sourcesep": (sys.executable, "tensorflow_step"),
        "PyTorch, eager": (torch_python, "torch_eager"),
        "PyTorch, torch.compile": (torch_python, "torch_compiled"),
    }
    print(f"{network}, batch {batch} x {time:,}: {gflop:,.0f} GFLOP per step.\n")
    print(
        "| | precision | seconds per step | GFLOP/s | share of the matrix product | times the duration of sourcesep |"
    )
    print("|---|---|---|---|---|---|")
    for dtype in DTYPES:
        ceiling = 2 * MATMUL**3 / 1e9 / measure(THIS, sys.executable, "tensorflow_matmul", dtype)
        print(f"| matrix product of {MATMUL} | {dtype} | | {ceiling:,.0f} | 100% | |", flush=True)
        ours_s = None
        for label, (python, name) in rows.items():
            seconds = measure(THIS, python, name, dtype, network) if python else None
            if seconds is None:
                print(f"| {label} | {dtype} | not measured | | | |")
                continue
            ours_s = ours_s or seconds
            figures = f"{seconds:.2f} | {gflop / seconds:,.0f} | {gflop / seconds / ceiling:.0%}"
            print(f"| {label} | {dtype} | {figures} | {seconds / ours_s:.2f} |", flush=True)
    for dtype in DTYPES:
        shares = measure(THIS, sys.executable, "profile", dtype, network)
        print(f"\nWhere the operations of a {dtype} step spend their time: ", end="")
        print(", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()) + ".\n", flush=True)


def main(torch_python: str, names: list[str]) -> None:
    """Measures sourcesep and PyTorch alternately, and prints the results; with names, only those networks."""
    for network in names or NETWORKS:
        compare(network, torch_python)
    if names:
        return
    losses = [measure(THIS, sys.executable, "loss_after", dtype) for dtype in DTYPES]
    print(f"\nLoss after 200 steps (64 filters, 2 stacks): float32 {losses[0]:.5f}, bfloat16 {losses[1]:.5f}: ", end="")
    print(f"{losses[1] / losses[0] - 1:+.1%}.", flush=True)
    waits, *memory = measure(THIS, sys.executable, "waiting_and_memory", "bfloat16")
    print(f"\n500 steps at 16 kHz: {waits:.1%} of the time waited for data; peak memory after 100 steps ", end="")
    print(f"{memory[0]:,.0f} MB, after 500 {memory[1]:,.0f} MB.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        from absl import app, flags

        flags.DEFINE_string("torch_python", "", "Python of an environment with PyTorch; empty to leave it out.")
        app.run(lambda arguments: main(flags.FLAGS.torch_python, arguments[1:]))
