"""evaluate.py: scores a model."""

from __future__ import annotations

import itertools
import os

from absl import flags

from data_gen import InputError
from sourcesep.cli.common import no_arguments, run

FLAGS = flags.FLAGS


def evaluate() -> None:
    """Entry point of evaluate.py and sourcesep_evaluate."""
    flags.DEFINE_string("run_dir", "runs/wavenet", "Folder of the run whose model is scored.")
    flags.DEFINE_string("midi_dir", "", "Folder of MIDI files to score on; empty for the run's own held-out pieces.")
    flags.DEFINE_list(
        "soundfonts", [], "SoundFonts to play the pieces through, one after the other; empty for the run's."
    )
    flags.DEFINE_integer("pieces", 20, "Pieces or songs to score at most.", lower_bound=1)
    flags.DEFINE_float("seconds", 30.0, "How much of the middle of each, in seconds; 0 for all of it.", lower_bound=0.0)
    flags.DEFINE_string(
        "stems_dir",
        "",
        "Folder of recorded stems to score on instead, one folder per song with one file per stem (drums.wav, ...; "
        "MUSDB18-HQ and Slakh2100 are understood).",
    )
    flags.DEFINE_string("references", "", "Folder of reference stems, to score --estimates against, without a model.")
    flags.DEFINE_string("estimates", "", "Folder of separated stems, named like those in --references.")
    flags.DEFINE_boolean("museval", False, "Whether to add BSSEval v4 (needs the extra sourcesep[museval]).")
    flags.DEFINE_string("output_dir", "", "Folder for metrics.json and index.html; empty for RUN_DIR/evaluation.")
    run(_evaluate, "Scores a model on music that training has not heard, or stems that have been separated already.")


def _evaluate(arguments: list[str]) -> int:
    no_arguments(arguments)
    if bool(FLAGS.references) != bool(FLAGS.estimates):
        raise InputError("--references and --estimates go together: the clean stems, and those to be scored")
    for one, other in itertools.product(("references", "stems_dir"), ("stems_dir", "midi_dir", "soundfonts")):
        if one != other and FLAGS[one].value and FLAGS[other].value:
            raise InputError(f"--{one} and --{other} contradict each other: leave one of them out")
    from sourcesep.evaluate import evaluation, sources

    how_much = FLAGS.pieces, FLAGS.seconds
    if FLAGS.references:
        result = evaluation.evaluate(
            sources.finished(FLAGS.references, FLAGS.estimates, *how_much),
            FLAGS.output_dir or os.path.join(FLAGS.estimates, "evaluation"),
            os.path.basename(os.path.abspath(FLAGS.estimates)),
            with_museval=FLAGS.museval,
        )
    else:

        def chosen(run_config, outputs):
            if FLAGS.stems_dir:
                return sources.recorded(run_config, outputs, FLAGS.stems_dir, *how_much)
            return sources.rendered(run_config, outputs, FLAGS.midi_dir, FLAGS.soundfonts, *how_much)

        result = evaluation.evaluate_run(FLAGS.run_dir, chosen, FLAGS.output_dir, FLAGS.museval)
    print(result.table)
    print(f"{result.page}: the same to look at and to hear; metrics.json beside it has every figure")
    return 0
