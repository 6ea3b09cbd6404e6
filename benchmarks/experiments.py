"""The original report's experiment and its relatives: `python benchmarks/experiments.py [NAME[/ROW] ...]`.

Trains, scores on held-out MIDI with a SoundFont that training heard and with one that it did not, and writes
docs/experiments.md. Ctrl-C stops it; the same command goes on from there. What is done lies in
benchmarks/results/experiments, one JSON file a run, and is not done again; delete a file to repeat its run. What
the tables show, and a listener has to say, stands in NAME/notes.md there and is copied into the page.

A time budget is turned into steps before the first run of a variant, from how long a step takes once training is under
way, since the learning rate follows a schedule over the steps; nothing else should run on the machine then. The times
lie in seconds_per_step.json there. Minutes are those of the machine that ran the first row: on another one, or on
another day, a step of tasnet is timed again, and all times are scaled by it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging as python_logging
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from absl import app, flags, logging

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import experiments_page  # noqa: E402
from benchmarks.experiments_plan import (  # noqa: E402
    INSTRUMENTS,
    LOSSES,
    TASNET_ROW,
    Variant,
    experiments,
    result_path,
)
from benchmarks.machine import processor  # noqa: E402
from data_gen import InputError  # noqa: E402
from data_gen.corpus import open_corpus  # noqa: E402
from data_gen.files import write_atomically  # noqa: E402
from data_gen.instruments import parse_instruments  # noqa: E402
from data_gen.synth import default_soundfont  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "experiments"
CALIBRATION_S = 30.0
CALIBRATION_POINTS = 4  # losses logged, at least
MAX_CALIBRATION_S = 600.0


class StepTimes:
    """How long a step of each row takes, kept in a file, on the machine that the first one was measured on.

    Args:
        path: of the file.
        measure: from a row to the seconds that a step of it takes now.
        reference: the row that is measured again where this may be another machine.
    """

    def __init__(self, path: pathlib.Path, measure: Callable[[Variant], float], reference: Variant):
        self._path, self._measure, self._reference = path, measure, reference

    def steps(self, variant: Variant, minutes: float) -> int:
        """How many steps of a row fit into so many minutes there."""
        if variant.timed_as not in self._known():
            slowness = self._slowness
            self._keep(variant, self._measure(variant) / slowness)
        return max(1, round(60 * minutes / self._known()[variant.timed_as]))

    @functools.cached_property
    def _slowness(self) -> float:
        """How much longer a step takes now than it did there."""
        now_s = self._measure(self._reference)
        if self._reference.timed_as not in self._known():
            self._keep(self._reference, now_s)
        return now_s / self._known()[self._reference.timed_as]

    def _known(self) -> dict[str, float]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def _keep(self, variant: Variant, step_s: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            self._path, (json.dumps({**self._known(), variant.timed_as: step_s}, indent=1) + "\n").encode()
        )


class Runner:
    """Runs variants with the options of the command line."""

    def __init__(self, options):
        self.options = options
        self.midi_dir = os.path.relpath(options.midi_dir, ROOT)
        n_held_out = open_corpus(options.midi_dir, parse_instruments(INSTRUMENTS), "any", 0).size("test")
        if not n_held_out:
            raise InputError(f"--midi_dir={options.midi_dir}: too few songs to have kept one for a test")
        self.pieces = min(options.pieces, n_held_out)
        self.work_dir = pathlib.Path(os.path.relpath(options.work_dir, ROOT))  # commands run in ROOT,
        os.chdir(ROOT)  # and so does this
        name, row = TASNET_ROW
        (tasnet,) = (variant for variant in experiments("")[name].variants if variant.name == row)
        self.times = StepTimes(RESULTS / "seconds_per_step.json", self._measure_step_s, tasnet)

    def run(self, name: str, variant: Variant, seed: int) -> None:
        """Trains and scores one row with one seed, unless that is done."""
        path = RESULTS / result_path(name, variant, seed)
        if path.exists():
            return
        run_dir = self.work_dir / path.relative_to(RESULTS).with_suffix("")
        logging.info("%s: %s, seed %d", name, variant.name, seed)
        command = [*self._training(variant), f"--seed={seed}", f"--run_dir={run_dir}"]
        minutes = None if variant.minutes is None else self.options.minutes or variant.minutes
        if self.options.max_steps:
            command.append(f"--steps={self.options.max_steps}")
        elif minutes is not None:
            command.append(f"--steps={self.times.steps(variant, minutes)}")
        soundfonts = f"{self.options.soundfont},{self.options.unseen_soundfont}"
        how_much = [f"--pieces={self.pieces}", f"--seconds={self.options.seconds}"]
        if variant.peer:
            command += [f"--test_soundfonts={soundfonts}", f"--test_midi_dir={self.midi_dir}", *how_much]
            _call(command)
        else:
            _call(command)
            _call(
                [sys.executable, "evaluate.py", f"--run_dir={run_dir}", f"--soundfonts={soundfonts}"]
                + [f"--midi_dir={self.midi_dir}", *how_much]
            )
        points = read_losses(run_dir)
        scored = json.loads((run_dir / "evaluation" / "metrics.json").read_text())
        result = {
            "variant": variant.name,
            "seed": seed,
            "command": shlex.join(["python", *command[1:]]),
            "minutes": minutes,
            "train_s": training_time_s(points),
            "steps": json.loads((run_dir / "config.json").read_text())["steps"],
            "parameters": count_parameters(run_dir),
            "machine": processor(),
            "date": time.strftime("%Y-%m-%d"),
            "packages": scored["packages"],
            "songs": len({piece["name"] for piece in scored["pieces"]}),
            "seconds": self.options.seconds,
            "summary": _brief(scored["summary"]),
            "curve": _thin([(step, loss) for _, step, loss in points]),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(result) + "\n").encode())

    def _measure_step_s(self, variant: Variant) -> float:
        run_dir = self.work_dir / "calibration"
        shutil.rmtree(run_dir, ignore_errors=True)
        try:
            return measure_step_s([*self._training(variant), f"--run_dir={run_dir}"], run_dir)
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)

    def _training(self, variant: Variant) -> list[str]:
        """The command that trains a row, but for its seed, its steps and its run directory."""
        python = [sys.executable, "train.py"]
        if variant.peer:
            python = [os.path.abspath(self.options.peers_python), "-m", "benchmarks.peers", f"--peer={variant.peer}"]
        return [*python, f"--midi_dir={self.midi_dir}", f"--soundfonts={self.options.soundfont}", *variant.flags]


def measure_step_s(command: list[str], run_dir: pathlib.Path) -> float:
    """Trains until the losses logged span CALIBRATION_S, and stops; returns seconds per step between them."""
    process = subprocess.Popen([*command, "--steps=1000000"], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + MAX_CALIBRATION_S
        while time.monotonic() < deadline_s and process.poll() is None:
            time.sleep(3)
            points = read_losses(run_dir)[1:]  # the first one is from before the machine is warm
            if len(points) >= CALIBRATION_POINTS and points[-1][0] - points[0][0] >= CALIBRATION_S:
                return (points[-1][0] - points[0][0]) / (points[-1][1] - points[0][1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
    raise InputError(f"no rate of training from: {shlex.join(command)}")


def read_losses(run_dir: pathlib.Path) -> list[tuple[float, int, float]]:
    """(time in seconds, step, loss) of every loss that a run has logged for TensorBoard, by step."""
    if not list(run_dir.glob("events.out.tfevents*")):
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    python_logging.getLogger("tensorboard").setLevel("WARNING")  # it tells of every look into the folder
    events = EventAccumulator(str(run_dir), size_guidance={"tensors": 0}).Reload()
    if "loss" not in events.Tags()["tensors"]:
        return []
    return sorted(
        ((event.wall_time, event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")),
        key=lambda point: point[1],
    )


def training_time_s(points: list[tuple[float, int, float]]) -> float:
    """Seconds of training, by the times at which losses were logged, without the pauses in which it was stopped."""
    gaps = [later[0] - earlier[0] for earlier, later in zip(points, points[1:])]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    return usual + sum(gap if gap < 10 * usual else usual for gap in gaps)  # the first loss took a gap too


def count_parameters(run_dir: pathlib.Path) -> int:
    """Number of weights in a run's best.weights.h5; a peer tells it."""
    if (run_dir / "peer.json").exists():
        return json.loads((run_dir / "peer.json").read_text())["parameters"]
    import h5py

    sizes = []
    with h5py.File(run_dir / "best.weights.h5") as file:
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return int(sum(sizes))


def _call(command: list[str]) -> None:
    """Runs a command. Ctrl-C goes to it alone, so that it can save; then this ends too."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        status = process.wait()
    except SystemExit:  # SIGTERM came to this process alone
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if status == 130 or status == -signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise InputError(f"failed with status {status}: {shlex.join(command)}")


def _brief(summary: dict) -> dict:
    """What the page needs of the summary in metrics.json."""
    wanted = ("sdr_db", "si_sdr_db", "residual_dbfs")
    return {
        condition: {
            name: {row: {measure: scores[measure] for measure in wanted} for row, scores in rows.items()}
            for name, rows in instruments.items()
        }
        for condition, instruments in summary.items()
    }


def _thin(curve: list[tuple[int, float]], most: int = 400) -> list[tuple[int, float]]:
    """A curve of at most so many points, each the mean of those that it stands for."""
    width = -(-len(curve) // most) or 1
    groups = [curve[start : start + width] for start in range(0, len(curve), width)]
    return [(group[-1][0], round(sum(loss for _, loss in group) / len(group), 7)) for group in groups]


def best_loss() -> str:
    """The loss of the losses experiment with the highest SDR, averaged over instruments and SoundFonts."""
    results = experiments_page.read_results(RESULTS, "losses", experiments("")["losses"].variants)
    if len({result["variant"] for result in results}) < len(LOSSES):
        raise InputError("run the experiment `losses` first: the published network is trained with the best of them")
    return LOSSES[max(results, key=experiments_page.overall_sdr)["variant"]]


def main(arguments: list[str]) -> int:
    """Runs the experiments named, or all, and writes the page after each run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = flags.FLAGS
    known = experiments(options.more_soundfonts)
    try:
        for name in arguments[1:]:
            experiment, _, row = name.partition("/")
            if experiment not in known:
                raise InputError(f"no experiment {experiment!r}; known are {', '.join(known)}")
            if row and row not in (rows := [variant.name for variant in known[experiment].variants]):
                raise InputError(f"no row {row!r} in {experiment}; it has {', '.join(rows)}")
        runner = Runner(options)
        for name in arguments[1:] or known:
            name, _, row = name.partition("/")
            variants = [variant for variant in known[name].variants if row in ("", variant.name)]
            if name == "published":
                variants = [dataclasses.replace(variants[0], flags=(*variants[0].flags, f"--loss={best_loss()}"))]
            for seed in [int(seed) for seed in options.seeds] or known[name].seeds:
                for variant in variants:
                    if variant.peer and not options.peers_python:
                        logging.warning("%s is left out: --peers_python names no Python with PyTorch", variant.name)
                        continue
                    runner.run(name, variant, seed)
                    experiments_page.write(known, RESULTS, ROOT / "docs")
    except InputError as error:
        print(f"experiments.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    experiments_page.write(known, RESULTS, ROOT / "docs")
    return 0


if __name__ == "__main__":
    SOUNDFONTS = pathlib.Path("/usr/share/sounds/sf2")
    flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files; training has its train split.")
    flags.DEFINE_string("soundfont", default_soundfont(), "SoundFont to train with.")
    flags.DEFINE_string("unseen_soundfont", str(SOUNDFONTS / "TimGM6mb.sf2"), "SoundFont to judge with as well.")
    flags.DEFINE_string(
        "more_soundfonts",
        f"{default_soundfont()},{SOUNDFONTS / 'sf_GMbank.sf2'}",
        "SoundFonts, comma-separated, of the row that trains with several.",
    )
    flags.DEFINE_string("work_dir", "runs/experiments", "Folder for the run directories.")
    flags.DEFINE_string("peers_python", "", "Python of the environment that benchmarks/peers.py describes.")
    flags.DEFINE_list("seeds", [], "Seeds in place of those that each experiment names.")
    flags.DEFINE_float("minutes", None, "Training time in place of that which each experiment names.")
    flags.DEFINE_integer("max_steps", None, "Steps in place of what the time allows, to try it out.")
    flags.DEFINE_integer("pieces", 20, "Held-out songs to judge on at most.")
    flags.DEFINE_float("seconds", 10.0, "How much of each, in seconds.")
    app.run(main)
