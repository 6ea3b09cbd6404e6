"""Scores one song: the estimate of each stem, and the anchors that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from data_gen import InputError
from sourcesep import metrics
from sourcesep.evaluate.songs import Song
from sourcesep.separate.blind import Finder

# The rows of a table: the model, and the anchors, which show what can be had without a model, and by knowing the stems.
MODEL = "model"
MIXTURE = "mixture"  # the mixture as the estimate
CONSTANT = "constant"  # the mixture at the gain that gives the stem its highest SDR
SHARED = "mixture / K"  # the mixture divided by the number of stems
ZEROS = "zeros"
IDEAL = "ideal ratio mask"
ROWS = (MODEL, MIXTURE, CONSTANT, SHARED, ZEROS, IDEAL)

BSS_EVAL = {"sdr_db": "SDR", "isr_db": "ISR", "sir_db": "SIR", "sar_db": "SAR"}  # key -> label, in museval's order
# References count as the whole mixture if what it holds beyond them is this far below it: what 16-bit files round off
# is about 80 dB below a mixture of usual level.
COMPLETE_DB = 60.0


def label_row(row: str, n_stems: int) -> str:
    """Returns the label of a row; `n_stems` is the number of references of a song."""
    return f"mixture / {n_stems}" if row == SHARED else row


def score_song(song: Song, estimates: Mapping[str, np.ndarray], with_museval: bool = False) -> dict[str, Any]:
    """Computes all scores of one song.

    Args:
        song: the mixture and the clean stems.
        estimates: one for each reference, by name, [time, channel]; one that is too short is continued with silence.
        with_museval: whether to add BSSEval v4.

    Returns:
        seconds, sample_rate_hz, channels, notes; instruments: name -> row of ROWS -> the scores of
        `metrics.score_stem`; consistency: as `metrics.consistency` returns it, with NaN for the SDR of the sum if the
        references are not the whole mixture; leakage: name of a reference -> name of an estimate -> the gain at which
        the estimate contains it, see `metrics.leakage`; museval: as `score_by_museval` returns it.

    Raises InputError if museval is wanted and not installed.
    """
    mixture, references, rate = song.mixture, song.references, song.sample_rate
    fitted = {name: _fit_length(estimates[name], len(mixture)) for name in references}
    ideal = metrics.ideal_ratio_mask(mixture, list(references.values()))
    instruments = {}
    for (name, reference), masked in zip(references.items(), ideal):
        rows = {
            MODEL: fitted[name],
            MIXTURE: mixture,
            CONSTANT: _best_constant_gain(reference, mixture, rate) * mixture,
            SHARED: mixture / len(references),
            ZEROS: np.zeros_like(mixture),
            IDEAL: masked,
        }
        instruments[name] = {row: metrics.score_stem(reference, rows[row], mixture, rate) for row in ROWS}
    total = np.sum(list(references.values()), axis=0)
    consistency = metrics.consistency(total, [estimates[name] for name in references], rate)
    if metrics.level_dbfs(mixture) - metrics.level_dbfs(mixture - total) < COMPLETE_DB:
        consistency["sum_sdr_db"] = float("nan")
    scores = {
        "seconds": len(mixture) / rate,
        "sample_rate_hz": rate,
        "channels": mixture.shape[1],
        "notes": list(song.notes),
        "instruments": instruments,
        "consistency": consistency,
        "leakage": {
            name: dict(zip(fitted, gains.tolist()))
            for name, gains in zip(references, metrics.leakage(list(references.values()), list(fitted.values()), rate))
        },
    }
    if with_museval:
        scores["museval"] = score_by_museval(references, fitted, rate)
    return scores


def compare_found(song: Song, estimates: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns the names of the stems that are `present` in a song, and of those that separate.py says it has `found`.

    A stem is present if it would be found in a perfect separation: the level above which `Finder` finds an estimate
    holds for the reference as well.

    Args:
        song, estimates: as for `score_song`.
    """
    fitted = {name: _fit_length(estimates[name], len(song.mixture)) for name in song.references}

    def find(stems: Mapping[str, np.ndarray]) -> list[str]:
        finder = Finder(list(stems), song.sample_rate)
        finder.add(song.mixture, np.stack(list(stems.values()), axis=2))
        return list(finder.found())

    return {"present": find(song.references), "found": find(fitted)}


def score_by_museval(
    references: Mapping[str, np.ndarray], estimates: Mapping[str, np.ndarray], sample_rate: int
) -> dict[str, dict[str, float]]:
    """Computes BSSEval v4 (Stöter, Liutkus & Ito 2018) by museval: 1 s frames, 512-tap filters fixed over the song.

    Stems whose reference or estimate is silent throughout are left out, since museval refuses them. Frames in which any
    stem is silent have no score there; `frames` is the number of those that have one.

    Args:
        references, estimates: by name, [time, channel], all of one shape.
        sample_rate: in Hz.

    Returns:
        name -> medians over frames of the measures of BSS_EVAL, NaN without frames, and `frames`.

    Raises InputError if museval, or the ffmpeg that it needs, is not installed.
    """
    museval = import_museval()
    names = [name for name in references if references[name].any() and estimates[name].any()]
    if not names:
        return {}
    window = round(metrics.FRAME_S * sample_rate)
    stacks = (np.stack([stems[name] for name in names]).astype(np.float64) for stems in (references, estimates))
    measures = museval.evaluate(*stacks, win=window, hop=window, mode="v4")  # SDR, ISR, SIR, SAR, each [stem, frame]
    scores = {}
    for position, name in enumerate(names):
        medians = {key: metrics.finite_median(measure[position]) for key, measure in zip(BSS_EVAL, measures)}
        scores[name] = {**medians, "frames": int(np.isfinite(measures[0][position]).sum())}
    return scores


def import_museval() -> ModuleType:
    """Returns the module museval. Raises InputError if it, or the ffmpeg that it needs, is not installed."""
    try:
        import museval
    except ImportError:
        raise InputError(
            "--museval needs the package museval: run pip install '.[museval]' in the folder of sourcesep"
        ) from None
    except RuntimeError as error:  # raised at import by a package of museval's that looks for ffmpeg
        raise InputError(f"--museval needs ffmpeg, e.g. apt install ffmpeg ({error})") from None
    return museval


def _best_constant_gain(reference: np.ndarray, mixture: np.ndarray, sample_rate: int) -> float:
    """Computes the best constant gain on the part in which the stem is active; 0 if it never is."""
    active = metrics.activity(reference, sample_rate)
    waveforms = (metrics.select_frames(waveform, active, sample_rate) for waveform in (reference, mixture))
    return metrics.best_constant_gain(*waveforms)


def _fit_length(estimate: np.ndarray, n_samples: int) -> np.ndarray:
    """Cuts an estimate [time, channel] to a length, or continues it with silence."""
    estimate = estimate[:n_samples]
    return np.pad(estimate, ((0, n_samples - len(estimate)), (0, 0)))
