"""Reads what a training run left in its folder: losses, steps, training time, number of parameters."""

from __future__ import annotations

import json
import logging as python_logging
import pathlib
from typing import NamedTuple

from sourcesep.run_dir import RunDir

_PAUSE_FACTOR = 10  # a gap between two logged losses that is this many times longer than usual was a pause


def read_losses(run_dir: pathlib.Path) -> list[tuple[float, int, float]]:
    """Returns (time in seconds, step, loss) for every loss that a run logged for TensorBoard, by step.

    Steps that a killed run made after its last checkpoint, and made again when it went on, count once, the second time.
    """
    if not list(run_dir.glob("events.out.tfevents*")):
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    python_logging.getLogger("tensorboard").setLevel("WARNING")  # otherwise it logs each time it reads the folder
    events = EventAccumulator(str(run_dir), size_guidance={"tensors": 0}).Reload()
    if "loss" not in events.Tags()["tensors"]:
        return []
    points: list[tuple[float, int, float]] = []
    for event in sorted(events.Tensors("loss"), key=lambda event: event.wall_time, reverse=True):
        if not points or event.step < points[-1][1]:
            points.append((event.wall_time, event.step, float(make_ndarray(event.tensor_proto))))
    return points[::-1]


def training_time_s(points: list[tuple[float, int, float]]) -> float:
    """Computes the seconds of training from the times of the losses, without the pauses of an interrupted run.

    Args:
        points: as `read_losses` returns them.
    """
    gaps = [later[0] - earlier[0] for earlier, later in zip(points, points[1:])]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    # One usual gap is added for the time before the first loss.
    return usual + sum(gap if gap < _PAUSE_FACTOR * usual else usual for gap in gaps)


class Training(NamedTuple):
    """How a run was trained.

    Attributes:
        steps: how many.
        seconds: without the pauses of an interrupted run.
        device: the GPU of a run on JAX; None for a run of TensorFlow, which does not tell.
    """

    steps: int
    seconds: float
    device: str | None


def read_training(run_dir: pathlib.Path) -> Training | None:
    """Returns how a run was trained, or None if it does not tell."""
    if losses := read_losses(run_dir):
        return Training(losses[-1][1], training_time_s(losses), None)
    on_jax = RunDir(run_dir).jax_training
    return Training(**json.loads(on_jax.read_text())) if on_jax.exists() else None


def count_parameters(run_dir: pathlib.Path) -> int:
    """Returns the number of weights in a run's best.weights.h5, or the number in peer.json for a peer's run."""
    if (run_dir / "peer.json").exists():
        return json.loads((run_dir / "peer.json").read_text())["parameters"]
    import h5py

    sizes = []
    with h5py.File(run_dir / "best.weights.h5") as file:
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return int(sum(sizes))
