"""separate.py: splits recordings."""

from __future__ import annotations

import functools
import sys

from absl import flags

from data_gen import InputError
from data_gen.midi import SUFFIXES as MIDI_SUFFIXES
from sourcesep import config
from sourcesep.cli.common import listed, program, run
from sourcesep.interruption import Interruption

FLAGS = flags.FLAGS


def separate() -> None:
    """Entry point of separate.py and sourcesep_separate."""
    flags.DEFINE_string("run_dir", "", "Folder of the run whose model is used; empty for the one in the package.")
    flags.DEFINE_string("tflite", "", "TFLite file of export.py to use in place of a run.")
    flags.DEFINE_string("output_dir", "separated", "Folder for the stems.")
    flags.DEFINE_list("present", [], "Stems to extract, for a model trained with --conditioning; empty for all.")
    flags.DEFINE_list("stems", [], "Instruments to write; empty for all that the model separates.")
    flags.DEFINE_bool(
        "residual", False, "Also writes what the mixture holds beside all stems: mixture minus their sum."
    )
    flags.DEFINE_list("minus", [], "Also writes the mixture without these instruments, as e.g. minus_drums.")
    flags.DEFINE_string(
        "filename",
        "{track}/{stem}.{ext}",
        "Path of each file in --output_dir. {track} is the name of the recording, with its path in the folder that was "
        "named; {stem} the instrument, or residual, or minus_drums; {ext} the format.",
    )
    flags.DEFINE_enum("format", "wav", ["wav", "flac", "ogg", "mp3"], "Format of the files.")
    flags.DEFINE_enum(
        "subtype",
        "",
        ["", "float32", "int16", "int24"],
        "What samples are stored as, in wav float32 (default), int16 or int24; in flac int16 (default) or int24.",
    )
    flags.DEFINE_float(
        "window_s",
        None,
        "Length of the windows that the model sees, in seconds; changes speed and memory, not the result. By default "
        "3, or three times the receptive field if that is more.",
    )
    flags.DEFINE_integer(
        "batch_windows",
        1,
        "Windows that the model computes together, where each channel has its own; more of them use a GPU better, and "
        "as much more memory.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "jobs", 1, "Processes that separate files side by side; each loads the model.", lower_bound=1, upper_bound=1_000
    )
    run(
        _separate,
        "Splits sound files, folders of them, or MIDI files that it plays first; without any, a held-out piece.",
    )


def _separate(paths: list[str]) -> int:
    from sourcesep.separate.outputs import Outputs
    from sourcesep.separate.stem_writer import Encoding

    encoding = Encoding(FLAGS.format, FLAGS.subtype)
    outputs = Outputs(tuple(FLAGS.stems), FLAGS.residual, tuple(FLAGS.minus), FLAGS.filename, encoding)
    run_config, instruments, load = _model_to_use(paths)
    outputs.check(instruments)
    try:
        if paths:
            return _separate_files(paths, run_config, instruments, load, outputs)
        return _separate_held_out(run_config, load, outputs)
    except KeyboardInterrupt:
        print("stopped; what is named above is complete", file=sys.stderr)
        return 130


def _model_to_use(paths: list[str]):
    """(Config of the run, names of the stems, a function that loads the Separator: also in the processes of --jobs)."""
    if FLAGS.tflite:
        if not paths or any(path.lower().endswith(MIDI_SUFFIXES) for path in paths):
            raise InputError("--tflite splits sound files: name some, and no MIDI files")
        load = functools.partial(_load_tflite, FLAGS.tflite, FLAGS.batch_windows)
        return None, load().instruments, load
    from sourcesep.run_dir import PRETRAINED, RunDir

    if not paths and not FLAGS.run_dir:
        raise InputError("name a sound file to split, or a --run_dir one of whose held-out pieces to take")
    run = RunDir(FLAGS.run_dir or PRETRAINED)
    run_config = run.config()
    run.check_weights()
    present = tuple(FLAGS.present)
    load = functools.partial(_load_separator, run.path, FLAGS.window_s, FLAGS.batch_windows, present)
    return run_config, present or run_config.stem_names, load


def _load_separator(*arguments):
    from sourcesep.separate.separation import Separator

    return Separator.from_run(*arguments)


def _load_tflite(*arguments):
    from sourcesep.separate.separation import Separator

    return Separator.from_tflite(*arguments)


def _separate_files(paths: list[str], run_config, instruments: tuple[str, ...], load, outputs) -> int:
    from tqdm import tqdm

    from sourcesep.separate import separate_files

    tracks, failures = separate_files.find_tracks(paths, FLAGS.output_dir)
    separate_files.check_paths(tracks, FLAGS.output_dir, outputs, instruments)
    n_inputs = len(tracks) + len(failures)
    with Interruption() as interruption:
        for result in separate_files.separate_tracks(
            tracks, load, run_config, FLAGS.output_dir, outputs, FLAGS.jobs, lambda: interruption.asked
        ):
            if isinstance(result, separate_files.Failure):
                failures.append(result)
            else:
                tqdm.write(_described(result))  # beside the progress bar
    for failure in failures:
        print(f"{program()}: {failure.reason}", file=sys.stderr)
    if failures and n_inputs > 1:
        print(f"{len(failures)} of {n_inputs} could not be separated.", file=sys.stderr)
    return 1 if failures else 0


def _separate_held_out(run_config: config.Config, load, outputs) -> int:
    from sourcesep.separate import separate_pieces

    separator = load()
    print(_described(separate_pieces.separate_held_out(separator, run_config, FLAGS.output_dir, outputs)))
    print(f"median SDR over held-out pieces: {listed(separate_pieces.score_held_out(separator, run_config))}")
    return 0


def _described(result) -> str:
    lines = [f"{result.folder}: {', '.join(result.files)}", *(f"  {note}" for note in result.notes)]
    if result.sdr_db:
        lines.append(f"SDR in dB (silence scores 0, higher is better): {listed(result.sdr_db)}")
    return "\n".join(lines)
