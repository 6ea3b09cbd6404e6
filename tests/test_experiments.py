"""The page of the experiments, made from results that are written by hand here; and the benchmarks as commands."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags
from conftest import ROOT, SOUNDFONT

import benchmarks.__main__
from benchmarks import experiments, experiments_page, runs
from sourcesep import config


def result(variant, seed, sdr_db, steps=100):
    rows = {
        row: {"sdr_db": {"n": 7, "median": value}}
        for row, value in (
            *(("model", sdr_db), ("mixture", -8.0), ("mixture / K", 0.5), ("zeros", 0.0)),
            ("ideal ratio mask", 7.5),
        )
    }
    return {
        **{"variant": variant, "seed": seed, "steps": steps, "parameters": 1_234, "train_s": 600.0, "songs": 7},
        **{"command": "python train.py --steps=100", "machine": "a machine", "date": "2020-01-01", "seconds": 20.0},
        "summary": {"a.sf2 (heard in training)": {"drums": rows, "bass": rows}},
        "curve": [[10, 0.5], [20, 0.25]],
    }


@pytest.fixture
def written(tmp_path):
    folder = tmp_path / "results" / "models-all"
    folder.mkdir(parents=True)
    for variant, seed, sdr_db in (("tasnet", 0, 3.0), ("tasnet", 1, 4.0), ("WaveNet", 0, -0.04)):
        path = folder / f"{variant.lower()}-seed{seed}.json"
        path.write_text(json.dumps(result(variant, seed, sdr_db)))
    (tmp_path / "results" / "peers").mkdir()
    (tmp_path / "results" / "peers" / "hdemucs-seed0.json").write_text(json.dumps(result("HDemucs", 0, 1.0)))
    (folder / "notes.md").write_text("The drums sound like rain.")
    experiments_page.write(experiments.experiments(SOUNDFONT), tmp_path / "results", tmp_path / "docs")
    return tmp_path / "docs"


def test_the_page_has_means_over_seeds_with_their_range_in_the_order_of_the_experiment(written):
    lines = (written / "experiments.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| WaveNet", "| tasnet"))]
    assert rows == [
        "| WaveNet | 1,234 | 100 | 0.0 | 0.0 | 0.0 |",
        "| tasnet, 2 seeds | 1,234 | 100 | 3.5 (3.0 to 4.0) | 3.5 (3.0 to 4.0) | 3.5 (3.0 to 4.0) |",
    ]
    assert "| *mixture* |  |  | -8.0 | -8.0 | -8.0 |" in lines


def test_the_page_has_command_seed_wall_time_machine_curves_and_what_was_heard(written):
    text = (written / "experiments.md").read_text()
    assert "tasnet, seed 1: 100 steps in 10.0 minutes, 2020-01-01, a machine" in text
    assert "`python train.py --steps=100`" in text
    assert "The drums sound like rain." in text
    assert "(experiments/models-all.png)" in text
    assert (written / "experiments" / "models-all.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_that_repeats_another_shows_its_runs_under_its_own_name(written):
    text = (written / "experiments.md").read_text()
    peers = text[text.index("## Peers") :]
    assert "| sourcesep tasnet, 2 seeds | 1,234 | 100 | 3.5 (3.0 to 4.0) |" in peers
    assert "| HDemucs | 1,234 | 100 | 1.0 |" in peers


def test_experiments_that_were_not_run_are_not_on_the_page(written):
    text = (written / "experiments.md").read_text()
    assert "Four losses" not in text
    assert "One SoundFont or several" not in text  # all that is there of it are the runs of another


def test_an_anchor_that_only_some_results_have_is_shown_for_these(tmp_path):
    newer = result("tasnet", 0, 3.0)
    for rows in newer["summary"]["a.sf2 (heard in training)"].values():
        rows["constant"] = {"sdr_db": {"n": 7, "median": 1.5}}
    (tmp_path / "models-all").mkdir()
    (tmp_path / "models-all" / "tasnet-seed0.json").write_text(json.dumps(newer))
    experiments_page.write(experiments.experiments(SOUNDFONT), tmp_path, tmp_path / "docs")
    lines = (tmp_path / "docs" / "experiments.md").read_text().splitlines()
    assert "| *constant* |  |  | 1.5 | 1.5 | 1.5 |" in lines
    assert (
        lines.index("| *constant* |  |  | 1.5 | 1.5 | 1.5 |")
        == lines.index("| *mixture* |  |  | -8.0 | -8.0 | -8.0 |") + 1
    )


COMMANDS = [
    *(["-m", f"benchmarks.{name}"] for name in (*benchmarks.__main__.NAMES, "experiments", "peers")),
    *(["-m", "benchmarks"], ["tools/package_model.py"]),
]


def test_every_benchmark_and_tool_shows_its_help():
    running = [
        subprocess.Popen(
            [sys.executable, *command, "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command in COMMANDS
    ]
    for command, process in zip(COMMANDS, running):
        output = process.communicate()[0].decode()
        assert process.returncode == 1 and "flags:" in output, (command, output)  # absl ends --help with status 1


def test_a_benchmark_without_a_folder_of_midi_files_asks_for_it():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "--midi_dir" in done.stderr


def test_pauses_do_not_count_as_training():
    points = [(100.0, 10, 1.0), (110.0, 20, 0.9), (5_000.0, 30, 0.8), (5_010.0, 40, 0.7)]
    assert runs.training_time_s(points) == 40.0


def test_steps_that_a_killed_run_made_twice_count_once(tmp_path):
    for start_s, steps in ((1_000, range(1, 9)), (2_000, range(5, 11))):  # killed after 8, checkpoint after 4
        with tf.summary.create_file_writer(str(tmp_path), filename_suffix=f".{start_s}").as_default():
            for step in steps:
                tf.summary.scalar("loss", start_s + step, step)
    points = runs.read_losses(tmp_path)
    assert [(step, loss) for _, step, loss in points] == [
        *((step, 1_000 + step) for step in range(1, 5)),
        *((step, 2_000 + step) for step in range(5, 11)),
    ]
    assert points == sorted(points)


def test_a_long_curve_is_thinned_to_means():
    thin = experiments._thin([(step, float(step)) for step in range(1, 1001)], most=100)
    assert len(thin) == 100 and thin[0] == (10, 5.5) and thin[-1] == (1000, 995.5)


def test_minutes_are_those_of_the_machine_that_the_first_row_was_timed_on(tmp_path):
    wavenet, tasnet, peer = (experiments.Variant(name, (step_s,)) for name, step_s in (
        ("WaveNet", "0.5"), ("tasnet", "0.2"), ("HDemucs", "1.0")
    ))  # fmt: skip

    def times(slowness):  # on a machine on which a step takes as many seconds as its flag, times this
        return experiments.StepTimes(
            tmp_path / "times.json", lambda variant: slowness * float(variant.flags[0]), tasnet
        )

    assert times(1.0).steps(wavenet, minutes=10) == 1_200
    assert times(1.0).steps(tasnet, minutes=10) == 3_000
    assert times(0.5).steps(peer, minutes=10) == 600  # in five minutes, there
    assert times(0.5).steps(wavenet, minutes=10) == 1_200


def test_rows_that_compute_the_same_share_one_time_for_a_step():
    known = experiments.experiments(SOUNDFONT)
    timed_as = {(name, row.name): row.timed_as for name, experiment in known.items() for row in experiment.variants}
    for row in (("models-all", "tasnet"), ("models-one", "tasnet"), ("soundfonts", "several"), ("corpus", "real")):
        assert timed_as[row] == "tasnet"
    assert timed_as["context", "no context"] == "no context"


def test_every_row_is_a_run_that_train_py_accepts(monkeypatch):
    monkeypatch.chdir(ROOT)  # the folder of wavenet.flags
    known = flags.FlagValues()
    flags.DEFINE_string("run_dir", "", "", flag_values=known)
    config.define_flags(known)
    for experiment in experiments.experiments(SOUNDFONT).values():
        for variant in experiment.variants:
            known.unparse_flags()
            known(["train.py", *variant.flags])
            config.Config.from_flags(known)


def test_each_row_of_what_to_train_on_adds_to_the_one_before():
    rows = experiments.experiments("a.sf2,b.sf2", "songs,quartets", "other:voices")["sounds-added"].variants
    for before, after in zip(rows, rows[1:]):
        assert after.flags[: len(before.flags)] == before.flags and len(after.flags) > len(before.flags)
    added = ("--soundfonts=a.sf2,b.sf2,procedural:0.3", "--midi_dir=songs,quartets", "--solo_dir=other:voices")
    assert rows[-1].flags[-4:] == (*added, "--vary_low_cut=0.35")


def test_the_best_loss_is_that_of_the_highest_sdr(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    (tmp_path / "losses").mkdir()
    for sdr_db, name in enumerate(("mse", "mae___difference", "mae", "mae___spectrogram")):
        (tmp_path / "losses" / f"{name}-seed0.json").write_text(json.dumps(result(name, 0, float(sdr_db))))
    assert experiments.best_loss() == "mae+spectrogram"
    (tmp_path / "losses" / "mse-seed0.json").unlink()
    with pytest.raises(experiments.InputError, match="run the experiment `losses` first"):
        experiments.best_loss()
