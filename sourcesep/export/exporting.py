"""Exports a run's model as a SavedModel and as TFLite files, and compares each with the Keras model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.chunks import hold_out
from data_gen.corpus import split_folders
from data_gen.files import replacing
from data_gen.instruments import parse_instruments
from data_gen.stems import StemSource
from sourcesep import metrics
from sourcesep.config import Config
from sourcesep.export import saved_model, tflite, web_page
from sourcesep.models.reach import ReceptiveField
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import RunDir
from sourcesep.separate.separation import WINDOW_FIELDS, WINDOW_S
from sourcesep.separate.tflite_model import TFLiteModel
from sourcesep.sources import open_source

FORMATS = ("saved_model", "tflite", "web")
WEB_TYPE = "float16"  # half the size to load; the packaged weights are float16 anyway
CHECKED_S = 10.0  # length of the held-out excerpt on which TFLite files are compared with the Keras model, in seconds
# A TFLite file that loses more SDR is reported as worse. The packaged model loses up to 0.2 dB in the 8-bit types
# (docs/serving.md).
MAX_SDR_LOST_DB = 1.0
CALIBRATION_S = 12.0  # total length of the training excerpts that int8 files are calibrated on, in seconds,
CALIBRATION_WINDOWS = 4  # and the smallest number of them, so that long windows come from several songs too


class Exported(NamedTuple):
    """One export that was written.

    Attributes:
        path: the folder of the SavedModel, or the TFLite file.
        error: the largest difference from the Keras model, on a scale where 1 is full scale.
        sdr_lost_db: for a TFLite file, the SDR of the Keras model minus that of the file on a held-out mixture, in dB,
            for the stem that loses most. None for a SavedModel, which computes the same.
    """

    path: pathlib.Path
    error: float
    sdr_lost_db: float | None

    def report(self) -> str:
        """Returns path, error and loss in one line."""
        if self.sdr_lost_db is None:
            return f"{self.path}: SavedModel, within {self.error:.1e} of the Keras model"
        line = f"{self.path}: within {self.error:.1e} of the Keras model on a held-out mixture"
        if self.sdr_lost_db > MAX_SDR_LOST_DB:
            return f"{line}; WORSE than it by {self.sdr_lost_db:.1f} dB of SDR: use another type"
        return f"{line}, {max(0.0, self.sdr_lost_db):.2f} dB of SDR lost"


def export(
    run_dir: str,
    output_dir: str,
    formats: Sequence[str] = ("saved_model",),
    tflite_types: Sequence[str] = ("float32",),
    tflite_window_s: float | None = None,
    litert_dir: str = "",
) -> list[Exported]:
    """Writes a run's model as OUTPUT_DIR/NAME/VERSION/, OUTPUT_DIR/NAME-TYPE.tflite and OUTPUT_DIR/NAME-web/.

    NAME is that of the run's folder. A SavedModel gets the number after the highest that is there, from 1; the others
    replace older ones.

    Args:
        run_dir: folder of the run.
        output_dir: created if it does not exist.
        formats: some of FORMATS.
        tflite_types: some of tflite.TYPES; each gives one file.
        tflite_window_s: length of the window that a TFLite file computes, in seconds; by default 3 s, or three times
            the receptive field if that is more.
        litert_dir: for "web", as in `web_page.find_litert`.

    Raises:
        InputError: the run has no weights, a format or type does not exist, the window is too short, or the folder
            cannot be written. For TFLite files also: the run's songs cannot be read, or FluidSynth is missing.
        RuntimeError: an export does not compute what the model computes.
    """
    _check_choices("--formats", formats, FORMATS)
    _check_choices("--tflite_types", tflite_types, tflite.TYPES)
    run = RunDir(run_dir)
    config, model = run.config(), run.model()
    field = receptive_field(model)
    description = describe(config, field)
    name = run.path.resolve().name
    window_samples = choose_window(tflite_window_s, config.sample_rate, field) if {"tflite", "web"} & {*formats} else 0
    if "web" in formats:
        web_page.find_litert(litert_dir)  # may be missing: better known at once
    exported = []
    if "saved_model" in formats:
        exported.append(_export_saved_model(model, description, name, pathlib.Path(output_dir, name)))
    description = {**description, "window_samples": window_samples}
    source = open_source(_replace_missing_songs(config)) if window_samples else None
    if source and "tflite" in formats:
        exported += _export_tflite(model, description, config, source, tflite_types, pathlib.Path(output_dir, name))
    if source and "web" in formats:
        page = pathlib.Path(output_dir, f"{name}-web")
        with tempfile.TemporaryDirectory() as scratch:
            base = pathlib.Path(scratch, name)
            (lite,) = _export_tflite(model, description, config, source, [WEB_TYPE], base)
            web_page.write_page(page, lite.path, litert_dir)
        exported.append(lite._replace(path=page))
    return exported


def describe(config: Config, field: ReceptiveField) -> dict[str, Any]:
    """Returns what a program needs to know to use an exported model."""
    return {
        "model": config.model,
        "instruments": config.stem_names,
        "sample_rate_hz": config.sample_rate,
        "channels": config.channels,
        "receptive_field_samples": field._asdict(),
    }


def _export_saved_model(model: keras.Model, description: dict[str, Any], name: str, base: pathlib.Path) -> Exported:
    with _raise_input_error(base):
        base.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=base))  # servers ignore all but numbers
    try:
        error = saved_model.write(model, description, name, partial)
        partial.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
        folder = base / str(1 + max((int(path.name) for path in base.iterdir() if path.name.isdigit()), default=0))
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(folder, error, None)


def _export_tflite(
    model: keras.Model,
    description: dict[str, Any],
    config: Config,
    source: StemSource,
    types: Sequence[str],
    base: pathlib.Path,
) -> list[Exported]:
    window_samples = description["window_samples"]
    window_s = window_samples / config.sample_rate
    n_checked = max(1, round(CHECKED_S / window_s))
    wanted = (config.targets, config.other)
    (checked,) = hold_out(source, "test", *wanted, n_checked * window_samples, 1, n_channels=config.channels)
    # Both to [window, time, channel or channel * stem].
    mixture, stems = (waveform.reshape(n_checked, window_samples, -1) for waveform in (checked.mixture, checked.stems))
    expected = model.predict(mixture, batch_size=1, verbose=0)
    calibration = []
    if "int8" in types:
        n_windows = max(CALIBRATION_WINDOWS, round(CALIBRATION_S / window_s))
        windows = hold_out(source, "train", *wanted, window_samples, n_windows, n_channels=config.channels)
        calibration = [window.mixture[None] for window in windows]  # each to [1, time, channel]
    exported = []
    for type_, flatbuffer in tflite.convert(model, types, window_samples, calibration):
        path = base.with_name(f"{base.name}-{type_}.tflite")
        with _raise_input_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                tflite.write(partial, flatbuffer, description)
                estimates = TFLiteModel(partial)(mixture)
                error = float(np.abs(estimates - expected).max())
                if not error < (saved_model.MAX_ERROR if type_ == "float32" else np.inf):
                    raise RuntimeError(f"the TFLite model, {type_}, differs from the Keras model by {error:.1e}")
        exported.append(Exported(path, error, _compute_sdr_lost_db(stems, expected, estimates)))
    return exported


def _compute_sdr_lost_db(references: np.ndarray, expected: np.ndarray, estimates: np.ndarray) -> float:
    """Computes SDR of `expected` minus SDR of `estimates` in dB, for the stem with the largest difference.

    All arrays are [window, time, stem]. Stems that are silent in the reference are ignored.
    """
    references, expected, estimates = (
        waveforms.reshape(-1, waveforms.shape[-1]) for waveforms in (references, expected, estimates)
    )
    plays = references.any(axis=0)
    lost = metrics.sdr(references, expected) - metrics.sdr(references, estimates)
    return float(lost[plays].max(initial=-np.inf)) if plays.any() else 0.0


def _replace_missing_songs(config: Config) -> Config:
    """Returns the Config, with composed pieces if a folder of its songs is not on this machine.

    Raises InputError where composed pieces do not hold what the model separates.
    """
    folders = (*split_folders(config.midi_dir), *config.stems_dir, *(folder for _, folder in config.solo_folders))
    missing = [folder for folder in folders if folder and not os.path.isdir(folder)]
    if not missing:
        return config
    try:
        composed = dataclasses.replace(config, midi_dir="", stems_dir=(), solo_dir=(), midi_share=-1.0)
        parse_instruments(composed.instruments)
    except InputError:
        raise InputError(f"{missing[0]}: no such folder; the exports are compared on the songs in it") from None
    logging.warning("%s: no such folder; the exports are compared on composed pieces instead", missing[0])
    return composed


def choose_window(window_s: float | None, sample_rate: int, field: ReceptiveField) -> int:
    """Returns the length of a window in samples, a multiple of the model's stride; by default that of `Separator`.

    Raises InputError if it is too short.
    """
    if window_s is None:
        window_s = max(WINDOW_S, WINDOW_FIELDS * field.samples / sample_rate)
    n_samples = round(window_s * sample_rate) // field.stride * field.stride
    least = field.samples + 2 * field.stride
    if n_samples < least:
        raise InputError(
            f"--tflite_window_s={window_s:g}: shorter than the model's receptive field; "
            f"give at least {2 * least / sample_rate:.2g}"
        )
    return n_samples


def _check_choices(flag: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    for choice in chosen:
        if choice not in known:
            raise InputError(f"{flag}={choice}: choose from {', '.join(known)}")
    if not chosen:
        raise InputError(f"{flag}: name at least one of {', '.join(known)}")


@contextlib.contextmanager
def _raise_input_error(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError inside the block into an InputError that names a path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--output_dir: cannot write {path} ({error.strerror})") from None
