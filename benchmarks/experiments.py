"""Trains and compares models: `python -m benchmarks.experiments --midi_dir=DIR [NAME[/ROW] ...]`.

Each row of an experiment is trained, then scored on held-out songs through the SoundFont that it was trained with and
through another one; docs/experiments.md is written from the results. Ctrl-C stops it, and the same command continues.
Results are in benchmarks/results/experiments, one JSON file per run; a run whose file exists is not repeated, so delete
the file to repeat it. NAME/notes.md there holds comments, which are copied into the page.

The learning rate follows a schedule over the steps, so a time budget is converted into a number of steps before the
first run of a row, by measuring how long a step takes; nothing else should run on the machine during that time. The
measured times are in seconds_per_step.json there, as seconds on the machine that ran the first row. On another machine
or another day a step of tasnet is measured again, and all times are scaled by the ratio.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from benchmarks import experiments_page
from benchmarks.experiments_plan import INSTRUMENTS, LOSSES, TASNET_ROW, Variant, experiments, result_path
from benchmarks.machine import ROOT, processor
from benchmarks.runs import count_parameters, read_losses, training_time_s
from data_gen import InputError
from data_gen.corpus import open_corpus
from data_gen.files import write_atomically
from data_gen.instruments import parse_instruments
from data_gen.synth import default_soundfont, embedded_soundfont

RESULTS = ROOT / "benchmarks" / "results" / "experiments"
CALIBRATION_S = 30.0  # training time over which the duration of a step is measured, in seconds
CALIBRATION_POINTS = 4  # smallest number of losses that are logged in this time
MAX_CALIBRATION_S = 600.0  # time after which the measurement fails, in seconds
MIDI = "MIDI"  # stands for the folder of MIDI files in the commands that are shown


class StepTimes:
    """The duration of a step of each row, in a file, on the machine on which the first one was measured.

    Args:
        path: the file.
        measure: returns the seconds that a step of a row takes now.
        reference: the row that is measured again, since this may be another machine.
    """

    def __init__(self, path: pathlib.Path, measure: Callable[[Variant], float], reference: Variant) -> None:
        self._path, self._measure, self._reference = path, measure, reference

    def steps(self, variant: Variant, minutes: float) -> int:
        """Returns how many steps of a row fit into a number of minutes on that machine."""
        if variant.timed_as not in self._known():
            slowness = self._slowness
            self._keep(variant, self._measure(variant) / slowness)
        return max(1, round(60 * minutes / self._known()[variant.timed_as]))

    @functools.cached_property
    def _slowness(self) -> float:
        """How much longer a step takes now than on that machine."""
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

    def __init__(self, options: Any) -> None:
        self.options = options
        n_held_out = open_corpus(options.midi_dir, parse_instruments(INSTRUMENTS), "any", 0).size("test")
        if not n_held_out:
            raise InputError(f"--midi_dir={options.midi_dir}: too few songs to keep one for a test")
        self.n_songs = min(options.pieces, n_held_out)
        self.work_dir = pathlib.Path(options.work_dir)
        name, row = TASNET_ROW
        (tasnet,) = (variant for variant in experiments("")[name].variants if variant.name == row)
        self.times = StepTimes(RESULTS / "seconds_per_step.json", self._measure_step_s, tasnet)

    def run(self, name: str, variant: Variant, seed: int) -> None:
        """Trains and scores one row with one seed, unless its result exists."""
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
        how_much = [f"--pieces={self.n_songs}", f"--seconds={self.options.seconds}"]
        if variant.peer:
            command += [f"--test_soundfonts={soundfonts}", f"--test_midi_dir={self.options.midi_dir}", *how_much]
            _call(command)
        else:
            _call(command)
            _call(
                [sys.executable, "evaluate.py", f"--run_dir={run_dir}", f"--soundfonts={soundfonts}"]
                + [f"--midi_dir={self.options.midi_dir}", *how_much]
            )
        scored = json.loads((run_dir / "evaluation" / "metrics.json").read_text())
        summary = scored["summary"]
        if self.options.recordings_dir and not variant.peer:
            recorded = run_dir / "evaluation_of_recordings"
            _call(
                [sys.executable, "evaluate.py", f"--run_dir={run_dir}", f"--stems_dir={self.options.recordings_dir}"]
                + [f"--output_dir={recorded}", *how_much]
            )
            summary.update(json.loads((recorded / "metrics.json").read_text())["summary"])
        points = read_losses(run_dir)
        steps = json.loads((run_dir / "config.json").read_text())["steps"]
        result = {
            "variant": variant.name,
            "seed": seed,
            "command": self._show(command),
            "minutes": minutes,
            "train_s": training_time_s(points),
            "steps": steps if steps >= 0 else points[-1][1],  # --minutes sets no number of steps
            "parameters": count_parameters(run_dir),
            "machine": processor(),
            "date": time.strftime("%Y-%m-%d"),
            "packages": scored["packages"],
            "songs": len({piece["name"] for piece in scored["pieces"]}),
            "seconds": self.options.seconds,
            "summary": _select_scores(summary),
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
        """Returns the command that trains a row, without its seed, steps and run directory."""
        python = [sys.executable, "train.py"]
        if variant.peer:
            python = [os.path.abspath(self.options.peers_python), "-m", "benchmarks.peers", f"--peer={variant.peer}"]
        data = [f"--midi_dir={self.options.midi_dir}", f"--soundfonts={self.options.soundfont}"]
        return [*python, *data, *variant.flags]

    def _show(self, command: list[str]) -> str:
        """Returns a command as the page shows it: without the paths of this machine."""
        shown = shlex.join(["python", *command[1:]])
        options = self.options
        solos = [solo.partition(":")[2] for solo in options.solos.split(",")]
        for path in filter(None, [*options.more_soundfonts.split(","), *options.more_midi.split(","), *solos]):
            shown = shown.replace(path, os.path.basename(os.path.normpath(path)))
        return shown.replace(f"midi_dir={options.midi_dir}", f"midi_dir={MIDI}")


def measure_step_s(command: list[str], run_dir: pathlib.Path) -> float:
    """Trains until the logged losses span CALIBRATION_S, then stops; returns the seconds per step between them."""
    process = subprocess.Popen([*command, "--steps=1000000"], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + MAX_CALIBRATION_S
        while time.monotonic() < deadline_s and process.poll() is None:
            time.sleep(3)
            points = read_losses(run_dir)[1:]  # the first steps are slower than the rest
            if len(points) >= CALIBRATION_POINTS and points[-1][0] - points[0][0] >= CALIBRATION_S:
                return (points[-1][0] - points[0][0]) / (points[-1][1] - points[0][1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
    raise InputError(f"cannot measure the duration of a step of: {shlex.join(command)}")


def _call(command: list[str]) -> None:
    """Runs a command. After Ctrl-C the command saves and ends, then KeyboardInterrupt is raised.

    Raises InputError if it fails.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        status = process.wait()
    except SystemExit:  # SIGTERM is sent to this process only
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if status == 130 or status == -signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise InputError(f"failed with status {status}: {shlex.join(command)}")


def _select_scores(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of the summary in metrics.json that is kept as a result."""
    wanted = ("sdr_db", "gain_over_constant_db", "si_sdr_db", "residual_dbfs")
    return {
        condition: {
            name: {row: {measure: scores[measure] for measure in wanted} for row, scores in rows.items()}
            for name, rows in instruments.items()
        }
        for condition, instruments in summary.items()
    }


def _thin(curve: Sequence[tuple[int, float]], most: int = 400) -> list[tuple[int, float]]:
    """Returns a curve of at most `most` points, each the mean of several consecutive ones."""
    width = -(-len(curve) // most) or 1
    groups = [curve[start : start + width] for start in range(0, len(curve), width)]
    return [(group[-1][0], round(sum(loss for _, loss in group) / len(group), 7)) for group in groups]


def best_loss() -> str:
    """Returns the loss with the highest SDR in the experiment `losses`, averaged over instruments and SoundFonts."""
    results = experiments_page.read_results(RESULTS, "losses", experiments("")["losses"].variants)
    if len({result["variant"] for result in results}) < len(LOSSES):
        raise InputError("run the experiment `losses` first: the published network is trained with the best of them")
    return LOSSES[max(results, key=experiments_page.overall_sdr)["variant"]]


def main(arguments: list[str]) -> int:
    """Runs the named experiments, or all of them, and writes the page after each run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = flags.FLAGS
    all_midi = ",".join(filter(None, (options.midi_dir, options.more_midi)))
    known = experiments(options.more_soundfonts, all_midi, options.solos)
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
                        logging.warning("%s is left out: name a Python with PyTorch by --peers_python", variant.name)
                        continue
                    runner.run(name, variant, seed)
                    experiments_page.write(known, RESULTS, ROOT / "docs")
    except InputError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    experiments_page.write(known, RESULTS, ROOT / "docs")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string(
        "midi_dir", None, "Folder of MIDI files; its train split is trained on, its test split scored.", required=True
    )
    flags.DEFINE_string("soundfont", default_soundfont(), "SoundFont to train with.")
    flags.DEFINE_string("unseen_soundfont", embedded_soundfont(), "SoundFont to score with in addition.")
    flags.DEFINE_string(
        "more_soundfonts",
        f"{default_soundfont()},/usr/share/sounds/sf2/sf_GMbank.sf2",  # the latter from Debian's csound-soundfont
        "SoundFonts, separated by commas, of the row that trains with several.",
    )
    flags.DEFINE_string(
        "more_midi", "", "Folders of MIDI files, separated by commas, of the rows that train with other songs too."
    )
    flags.DEFINE_string(
        "solos", "", "Recordings of one instrument, in the format of --solo_dir, of the rows that train with some."
    )
    flags.DEFINE_string("recordings_dir", "", "Folder of recorded stems to score on in addition.")
    flags.DEFINE_string("work_dir", "runs/experiments", "Folder for the run directories.")
    flags.DEFINE_string("peers_python", "", "Python of the environment that benchmarks/peers.py describes.")
    flags.DEFINE_list("seeds", [], "Seeds to use instead of those of each experiment.")
    flags.DEFINE_float("minutes", None, "Training time in minutes, instead of that of each row.")
    flags.DEFINE_integer("max_steps", None, "Number of steps instead of what the time allows, to try it out.")
    flags.DEFINE_integer("pieces", 20, "Largest number of held-out songs to score.")
    flags.DEFINE_float("seconds", 10.0, "Length of the middle part of each to score, in seconds.")
    app.run(main)
