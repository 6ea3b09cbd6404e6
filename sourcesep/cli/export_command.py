"""The command export.py: writes a SavedModel and TFLite files."""

from __future__ import annotations

from absl import flags

from sourcesep.cli.common import no_arguments, run

FLAGS = flags.FLAGS


def export() -> None:
    """Runs export.py and sourcesep_export."""
    flags.DEFINE_string("run_dir", "runs/wavenet", "Folder of the run to export.")
    flags.DEFINE_string(
        "output_dir",
        "exported",
        "Folder for NAME/VERSION/, NAME-TYPE.tflite and NAME-web/, where NAME is that of the run's folder.",
    )
    flags.DEFINE_list(
        "formats", ["saved_model"], "What to write: saved_model (for TensorFlow Serving), tflite, web (a page)."
    )
    flags.DEFINE_list(
        "tflite_types",
        ["float32"],
        "Numbers in the TFLite files, one file for each type: float32, float16 (weights), dynamic (8-bit weights), "
        "int8 (8-bit weights and activations).",
    )
    flags.DEFINE_float(
        "tflite_window_s",
        None,
        "Length of the window that a TFLite file computes, in seconds; by default 3, or four times the receptive "
        "field if that is more. Shorter windows answer sooner and cost more.",
    )
    flags.DEFINE_string(
        "litert_dir",
        "",
        "For web: folder in which npm install @litertjs/core ran; empty to let npm fetch it into the cache.",
    )
    run(
        _export,
        "Writes a run's model as a SavedModel, TFLite files or a web page, each compared with the Keras model.",
    )


def _export(arguments: list[str]) -> int:
    no_arguments(arguments)
    from sourcesep.export import exporting

    exported = exporting.export(
        FLAGS.run_dir, FLAGS.output_dir, FLAGS.formats, FLAGS.tflite_types, FLAGS.tflite_window_s, FLAGS.litert_dir
    )
    for one in exported:
        print(one.report())
    return 0
