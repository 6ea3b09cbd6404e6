"""separate.py: splits recordings."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from data_gen import InputError
from data_gen.command import program
from sourcesep.cli.common import define_refinements, list_scores, no_arguments, run
from sourcesep.config import Config
from sourcesep.interruption import Interruption
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.stem_writer import FORMATS, Encoding

if TYPE_CHECKING:
    from tqdm import tqdm

    from sourcesep.separate.separate_one import Separated
    from sourcesep.separate.separation import Separator

FLAGS = flags.FLAGS
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def separate() -> None:
    """Entry point of separate.py and sourcesep_separate."""
    flags.DEFINE_string("run_dir", "", "Folder of the run whose model is used; empty for the model in the package.")
    flags.DEFINE_bool(
        "blind",
        False,
        "Uses the other model in the package, which knows ten instruments: writes the stems of those that it finds.",
    )
    flags.DEFINE_string("tflite", "", "TFLite file written by export.py, to use in place of a run.")
    flags.DEFINE_string("output_dir", "separated", "Folder for the stems.")
    flags.DEFINE_list("present", [], "Stems to extract, for a model trained with --conditioning; empty for all.")
    flags.DEFINE_list("stems", [], "Stems to write; empty for all that the model separates.")
    flags.DEFINE_bool("residual", False, "Also writes what is left of the mixture when all stems are subtracted.")
    flags.DEFINE_list("minus", [], "Also writes the mixture without these stems, in a file named e.g. minus_drums.")
    flags.DEFINE_string(
        "filename",
        "{track}/{stem}.{ext}",
        "Path of each file in --output_dir. {track} is the name of the recording, for files in a folder with their "
        "path in it; {stem} is the name of the stem, or residual, or minus_drums; {ext} is the format.",
    )
    flags.DEFINE_enum("format", "wav", list(FORMATS), "Format of the files.")
    subtypes = {subtype: None for record in FORMATS.values() for subtype in record.subtypes}
    flags.DEFINE_enum("subtype", "", ["", *filter(None, subtypes)], _describe_subtypes())
    flags.DEFINE_float(
        "window_s",
        None,
        "Length of the windows that the model computes at a time, in seconds; changes speed and memory, not the "
        "result. By default 3, or four times the receptive field if that is more.",
    )
    flags.DEFINE_integer(
        "batch_windows",
        None,
        "Windows that the model computes together; each channel has windows of its own. More use a GPU better, and "
        "take as much more memory. By default 2 for LiteRT on two processors or more, but 1 with --stream, else 1.",
        lower_bound=1,
    )
    define_refinements()
    flags.DEFINE_integer(
        "jobs", 1, "Processes that separate files side by side; each loads the model.", lower_bound=1, upper_bound=1_000
    )
    flags.DEFINE_enum(
        "stream",
        "",
        ["", "stdout", "files"],
        "Separates standard input while it comes in, a WAV file or --raw samples: to standard output, as one WAV file "
        "with the channels of all stems one after the other, or to files.",
    )
    flags.DEFINE_string("raw", "", "With --stream: rate, channels and type of samples without a header: 44100,2,s16.")
    run(
        _separate,
        "Splits sound files, folders of them, or MIDI files, which it plays first; without any, a held-out song.",
    )


def _describe_subtypes() -> str:
    formats = []
    for record in FORMATS.values():
        default, *others = record.subtypes
        if others:
            formats.append(f"in {record.name} {', '.join([f'{default} (default)', *others[:-1]])} or {others[-1]}")
    return f"What samples are stored as: {'; '.join(formats)}."


def _separate(paths: list[str]) -> int:
    encoding = Encoding(FLAGS.format, FLAGS.subtype)
    plan = FilePlan(
        output_dir=FLAGS.output_dir,
        stems=tuple(FLAGS.stems),
        residual=FLAGS.residual,
        minus=tuple(FLAGS.minus),
        filename=FLAGS.filename,
        encoding=encoding,
    )
    if FLAGS.stream:
        no_arguments(paths)
    elif FLAGS.raw:
        raise InputError("--raw says what comes through a pipe: add --stream=stdout or --stream=files")
    config, stem_names, load = _choose_model(paths)
    plan.check(stem_names)
    try:
        if FLAGS.stream:
            return _separate_standard_input(load(), plan)
        if paths:
            return _separate_files(paths, config, stem_names, load, plan)
        assert config is not None  # _choose_model asks for files where there is no run
        return _separate_held_out(config, load, plan)
    except KeyboardInterrupt:
        print("stopped; what is named above is complete", file=sys.stderr)
        return INTERRUPTED


def _choose_model(paths: list[str]) -> tuple[Config | None, tuple[str, ...], Callable[[], Separator]]:
    """Returns the Config of the run, the names of the stems, and a function that loads the Separator.

    The function can be pickled, for the processes of --jobs. Without a run (--tflite) there is no Config.
    """
    from sourcesep.separate.tflite_model import PACKAGED
    from sourcesep.separate.tracks import is_midi

    n_threads = max(1, (os.cpu_count() or 1) // FLAGS.jobs)
    lite_windows = FLAGS.batch_windows or (1 if FLAGS.stream else min(2, n_threads))
    refinements = (FLAGS.shifts, FLAGS.adapt)

    if FLAGS.blind and (FLAGS.run_dir or FLAGS.tflite):
        raise InputError("--blind names a model in the package: leave out --run_dir and --tflite")
    if FLAGS.tflite:
        if not (paths or FLAGS.stream) or any(map(is_midi, paths)):
            raise InputError("--tflite splits sound files: name some, and no MIDI files")
        load = functools.partial(_load_tflite, FLAGS.tflite, lite_windows, n_threads, *refinements)
        return None, load().stem_names, load
    if not paths and not FLAGS.run_dir and not FLAGS.stream:
        raise InputError("name a sound file to split, or a --run_dir to split one of its held-out songs")
    from sourcesep.run_dir import PRETRAINED, PRETRAINED_BLIND, RunDir

    run_dir = RunDir(FLAGS.run_dir or (PRETRAINED_BLIND if FLAGS.blind else PRETRAINED))
    config = run_dir.config()
    run_dir.check_weights()
    present = tuple(FLAGS.present)
    if not (FLAGS.run_dir or FLAGS.blind) and _is_tflite_faster():
        logging.info("LiteRT computes, which starts sooner than TensorFlow")
        load = functools.partial(_load_tflite, PACKAGED, lite_windows, n_threads, *refinements)
        return config, config.stem_names, load
    logging.info("TensorFlow computes")
    batch_windows = FLAGS.batch_windows or 1
    load = functools.partial(_load_separator, run_dir.path, FLAGS.window_s, batch_windows, present, *refinements)
    return config, present or config.stem_names, load


def _is_tflite_faster() -> bool:
    """Returns whether the packaged model is to be computed as TFLite rather than by TensorFlow.

    LiteRT starts seconds sooner, and computes faster: four minutes in stereo take it 14.8 s in all, and TensorFlow
    31.5 s (two AVX2 cores of an AMD EPYC). But it does not use an NVIDIA GPU, and has windows of one length.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return True
    can = importlib.util.find_spec("ai_edge_litert") is not None and not FLAGS.present and FLAGS.window_s is None
    return can and not os.path.exists("/dev/nvidia0")


def _load_separator(*arguments: Any) -> Separator:
    from sourcesep.separate.separation import Separator

    return Separator.from_run(*arguments)


def _load_tflite(*arguments: Any) -> Separator:
    from sourcesep.separate.separation import Separator

    return Separator.from_tflite(*arguments)


def _separate_files(
    paths: list[str], config: Config | None, stem_names: tuple[str, ...], load: Callable[[], Separator], plan: FilePlan
) -> int:
    from tqdm import tqdm

    from sourcesep.separate.tracks import Failure, check_paths, find_tracks

    tracks, failures = find_tracks(paths, plan.output_dir)
    check_paths(tracks, plan, stem_names)
    n_inputs = len(tracks) + len(failures)
    if tracks:
        from sourcesep.separate.jobs import separate_tracks

        with Interruption() as interruption, _progress_bar([track.length_s for track in tracks]) as bar:
            report = _reporter(bar, interruption)
            for result in separate_tracks(tracks, load, config, plan, FLAGS.jobs, report):
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    tqdm.write(_describe(result))  # print would break the progress bar
    for failure in failures:
        print(f"{program()}: {failure.reason}", file=sys.stderr)
    if failures and n_inputs > 1:
        print(f"{len(failures)} of {n_inputs} could not be separated.", file=sys.stderr)
    return 1 if failures else 0


def _separate_standard_input(separator: Separator, plan: FilePlan) -> int:
    from sourcesep.separate.separate_one import separate_one, separate_stream
    from sourcesep.separate.standard_streams import StandardInput, StandardOutput

    print(f"{program()}: {separator.latency_ms:.0f} ms behind, and the time to compute", file=sys.stderr)
    recording = StandardInput(sys.stdin.buffer, FLAGS.raw)
    if FLAGS.stream == "files":
        print(_describe(separate_one(separator, recording, plan, "stream")))
        return 0
    try:
        labels = plan.labels(separator.stem_names)
        output = StandardOutput(sys.stdout.buffer, labels, recording.sample_rate, recording.n_channels)
        print(f"{program()}: {output.layout}", file=sys.stderr)
        separate_stream(separator, recording, plan, output.write)
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
    return 0


def _separate_held_out(config: Config, load: Callable[[], Separator], plan: FilePlan) -> int:
    from sourcesep.evaluate.quick_scores import score_held_out
    from sourcesep.separate.inputs import play_held_out
    from sourcesep.separate.separate_one import separate_one
    from sourcesep.separate.tracks import name_track
    from sourcesep.sources import open_source

    source = open_source(config)
    separator = load()
    song = play_held_out(source, config, separator.stem_names)
    with Interruption() as interruption, _progress_bar([song.n_samples / song.sample_rate]) as bar:
        track = name_track(song.name)
        result = separate_one(separator, song, plan, track, _reporter(bar, interruption), config.blind)
    print(_describe(result))
    print(f"median SDR over held-out songs: {list_scores(score_held_out(separator, source, config))}")
    return 0


def _progress_bar(lengths_s: Sequence[float]) -> tqdm:
    """Returns a bar of seconds of audio; without a total if the length of any recording is unknown (0)."""
    from tqdm import tqdm

    total_s = sum(lengths_s) if all(lengths_s) else None
    if total_s is None:
        columns = "{desc} {n:.0f} s of audio [{elapsed}, {rate_fmt}]"
    else:
        columns = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}, {rate_fmt}]"
    return tqdm(total=total_s, unit="s", desc="separating", bar_format=columns, dynamic_ncols=True, leave=False)


def _reporter(bar: tqdm, interruption: Interruption) -> Callable[[float], None]:
    """Returns a function that moves the bar on by seconds of audio, and ends the work after Ctrl-C."""

    def report(seconds: float) -> None:
        bar.update(seconds)
        if interruption.stop_requested:
            raise KeyboardInterrupt

    return report


def _describe(result: Separated) -> str:
    lines = [f"{result.folder}: {', '.join(result.files)}", *(f"  {note}" for note in result.notes)]
    if result.sdr_db:
        lines.append(f"SDR in dB (silence scores 0, higher is better): {list_scores(result.sdr_db)}")
    return "\n".join(lines)
