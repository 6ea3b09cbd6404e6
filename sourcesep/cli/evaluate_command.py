"""The command evaluate.py: scores a model, or a finished separation."""

from __future__ import annotations

import itertools
import os

from absl import flags

from data_gen import InputError
from sourcesep.cli.common import define_refinements, no_arguments, run

FLAGS = flags.FLAGS


def evaluate() -> None:
    """Runs evaluate.py and sourcesep_evaluate."""
    flags.DEFINE_string("run_dir", "runs/wavenet", "Folder of the run to score.")
    flags.DEFINE_string(
        "midi_dir", "", "Folder of MIDI files to score on; empty for the songs that the run kept for tests."
    )
    flags.DEFINE_list(
        "soundfonts", [], "SoundFonts to play the songs through, one after the other; empty for those of the run."
    )
    flags.DEFINE_integer("pieces", 20, "Largest number of songs to score.", lower_bound=1)
    flags.DEFINE_float(
        "seconds",
        30.0,
        "Length of the middle part of each song to score, in seconds; 0 for whole songs.",
        lower_bound=0.0,
    )
    flags.DEFINE_string(
        "stems_dir",
        "",
        "Folder of recorded stems to score on instead: one folder per song with one file per stem (drums.wav, ...), or "
        "the layout of MUSDB18, Slakh2100 or MoisesDB.",
    )
    flags.DEFINE_string("references", "", "Folder of clean stems with which --estimates are compared, without a model.")
    flags.DEFINE_string("estimates", "", "Folder of separated stems, with the names of the files in --references.")
    define_refinements()
    flags.DEFINE_boolean("museval", False, "Also computes BSSEval v4; needs the package museval.")
    flags.DEFINE_string(
        "output_dir",
        "",
        "Folder for metrics.json and index.html; empty for RUN_DIR/evaluation or ESTIMATES/evaluation.",
    )
    run(_evaluate, "Scores a model on songs that were not used in training, or stems that were separated before.")


def _evaluate(arguments: list[str]) -> int:
    no_arguments(arguments)
    if bool(FLAGS.references) != bool(FLAGS.estimates):
        raise InputError("--references and --estimates go together: name the clean stems and the stems to score")
    for one, other in itertools.product(("references", "stems_dir"), ("stems_dir", "midi_dir", "soundfonts")):
        if one != other and FLAGS[one].value and FLAGS[other].value:
            raise InputError(f"--{one} and --{other} contradict each other: leave out one of them")
    from sourcesep.evaluate import evaluation, songs
    from sourcesep.run_dir import RunDir

    n_songs, seconds = FLAGS.pieces, FLAGS.seconds
    if FLAGS.references:
        result = evaluation.evaluate(
            songs.list_finished(FLAGS.references, FLAGS.estimates, n_songs, seconds),
            FLAGS.output_dir or os.path.join(FLAGS.estimates, "evaluation"),
            os.path.basename(os.path.abspath(FLAGS.estimates)),
            with_museval=FLAGS.museval,
        )
    else:
        config = RunDir(FLAGS.run_dir).config()
        if FLAGS.stems_dir:
            listed = songs.list_recorded(config, FLAGS.stems_dir, n_songs, seconds)
        else:
            listed = songs.list_held_out(config, FLAGS.midi_dir, FLAGS.soundfonts, n_songs, seconds)
        result = evaluation.evaluate_run(
            FLAGS.run_dir, listed, FLAGS.output_dir, FLAGS.museval, FLAGS.shifts, FLAGS.adapt
        )
    print(result.table)
    print(f"{result.page}: the same as a page, with sound; metrics.json in the same folder has every figure")
    return 0
