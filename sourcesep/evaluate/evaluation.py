"""Scores estimates song by song -> evaluation/metrics.json and evaluation/index.html.

Beside each model stand anchors: what the mixture, the mixture shared out equally, silence, and the ideal ratio mask
would score. Every song is loaded, separated, scored and forgotten before the next one.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_gen import InputError, RenderError
from data_gen.files import write_atomically
from data_gen.stems import SILENCE_DBFS
from sourcesep import metrics
from sourcesep.config import Config
from sourcesep.evaluate import report
from sourcesep.evaluate.sources import Song, Source
from sourcesep.run_dir import RunDir

MODEL, MIXTURE, SHARED, ZEROS, IDEAL = "model", "mixture", "mixture / K", "zeros", "ideal ratio mask"
ROWS = (MODEL, MIXTURE, SHARED, ZEROS, IDEAL)
BSS_EVAL = ("sdr_db", "isr_db", "sir_db", "sar_db")
COMPLETE_DB = 60.0  # references this far above what the mixture holds beyond them are all of it
PACKAGES = (
    *("sourcesep", "tensorflow", "keras", "tensorflow-io", "numpy", "scipy", "soundfile", "soxr", "pyfluidsynth"),
    "museval",
)

Separate = Callable[[Song, Callable[[float], None]], dict[str, np.ndarray]]
"""(song, advance) -> estimates by name, [time, channel]; `advance` is told which share of the song has been done."""


class Evaluation(NamedTuple):
    """What an evaluation found and where it lies.

    Attributes:
        figures: everything that metrics.json holds.
        table: the summary for a terminal.
        page: the HTML file.
    """

    figures: dict[str, Any]
    table: str
    page: pathlib.Path


def evaluate(
    sources: Sequence[Source],
    output_dir: str | pathlib.Path,
    title: str,
    separate: Separate | None = None,
    config: Config | None = None,
    with_museval: bool = False,
) -> Evaluation:
    """Scores every source, and writes metrics.json and index.html.

    Args:
        sources: what to score. One that fails to load is left out, and named with the reason in what is written.
        output_dir: the folder to write into.
        title: of the page.
        separate: makes the estimates of songs that come without.
        config: of the run, to be written beside the figures.
        with_museval: whether to add BSSEval v4.

    Raises InputError if nothing could be scored, the folder cannot be written, or museval is missing.
    """
    if with_museval:
        _import_museval()  # raises now, not after the first song
    output_dir = pathlib.Path(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output_dir}: cannot make this folder ({error.strerror})") from None
    pieces, left_out, examples = [], [], []
    bar = tqdm(total=len(sources), dynamic_ncols=True, bar_format=_BAR)
    with bar:
        for index, source in enumerate(sources):
            bar.set_description_str(pathlib.PurePath(source.name).stem[:30], refresh=False)
            try:
                song = source.load()
                if not song.mixture.any():
                    raise InputError(f"{source.name}: the part to be scored is silent")
            except (InputError, RenderError) as error:
                left_out.append({"name": source.name, "condition": source.condition, "reason": str(error)})
                bar.update(index + 1 - bar.n)
                continue
            estimates = song.estimates or separate(song, lambda share: bar.update(0.8 * share))
            piece = score_song(song, estimates, with_museval)
            pieces.append({"name": source.name, "condition": source.condition, **piece})
            n_alike = sum(example["condition"] == source.condition for example in examples)
            if n_alike < report.EXAMPLES and sum(map(report.example_bytes, examples)) < report.MAX_EXAMPLE_BYTES:
                examples.append(report.make_example(source, song, estimates, piece))
            del song, estimates  # before the next one is loaded
            bar.update(index + 1 - bar.n)
    if not pieces:
        raise InputError(f"nothing could be scored: {left_out[0]['reason']}" if left_out else "no song")
    figures = {
        **_circumstances(config),
        "pieces": pieces,
        "left_out": left_out,
        "summary": summarise(pieces),
        "museval": _summarise_museval(pieces),
    }
    write_atomically(output_dir / "metrics.json", to_json(figures).encode())
    page = output_dir / "index.html"
    write_atomically(page, report.make_page(title, figures, examples).encode())
    return Evaluation(figures, report.make_table(figures), page)


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} songs [{elapsed}<{remaining}]"


def evaluate_run(
    run_dir: str, sources: Callable[[Config, Sequence[str]], list[Source]], output_dir: str, with_museval: bool = False
) -> Evaluation:
    """Scores a run's model. One that is conditioned is told which of its outputs each song holds.

    Args:
        run_dir: the run.
        sources: (config, names of the model's outputs) -> what to score.
        output_dir: the folder to write into; empty for `evaluation` in the run directory.
        with_museval: whether to add BSSEval v4.
    """
    from sourcesep.separate.separation import Separator

    config = RunDir(run_dir).config()

    @functools.lru_cache(maxsize=4)  # songs with the same instruments share one
    def separator_of(present: tuple[str, ...]) -> Separator:
        return Separator.from_run(run_dir, present=present)

    separator_of(() if config.conditioning == "none" else config.stem_names)  # raises now, not after the first song

    def separate(song: Song, advance: Callable[[float], None]) -> dict[str, np.ndarray]:
        estimates = {name: np.zeros_like(song.mixture) for name in song.references}
        present = ()
        if config.conditioning != "none":
            present = tuple(name for name, stem in song.references.items() if metrics.level_dbfs(stem) > SILENCE_DBFS)
            if not present:
                return estimates
        separator = separator_of(present)

        def blocks():
            for start in range(0, len(song.mixture), song.sample_rate):
                yield song.mixture[start : start + song.sample_rate]
                advance(min(1.0, song.sample_rate / len(song.mixture)))

        stems = np.concatenate(list(separator.stream(blocks(), song.sample_rate)))
        separated = {name: stems[:, :, i] for i, name in enumerate(separator.stem_names)}
        return {name: separated.get(name, silence) for name, silence in estimates.items()}

    return evaluate(
        sources(config, config.stem_names),
        output_dir or RunDir(run_dir).path / "evaluation",
        f"{pathlib.Path(run_dir).name}: {', '.join(config.stem_names)}",
        separate,
        config,
        with_museval,
    )


def score_song(song: Song, estimates: dict[str, np.ndarray], with_museval: bool = False) -> dict[str, Any]:
    """All scores of one song.

    Args:
        song: the mixture and the clean stems.
        estimates: of each reference, [time, channel]; shorter ones are taken to end in silence.
        with_museval: whether to add BSSEval v4.

    Returns:
        seconds, sample_rate_hz, channels, notes; instruments: name -> row (the model, or an anchor) -> the scores of
        `metrics.score_stem`; consistency: as in `metrics.consistency`, NaN for the sum's SDR where the references are
        not the whole mixture; museval: name -> median over frames of SDR, ISR, SIR, SAR in dB.
    """
    mixture, references = song.mixture, song.references
    fitted = {name: _fitted(estimates[name], mixture) for name in references}
    ideal = metrics.ideal_ratio_mask(mixture, list(references.values()))
    instruments = {}
    for (name, reference), masked in zip(references.items(), ideal):
        rows = (fitted[name], mixture, mixture / len(references), np.zeros_like(mixture), masked)
        instruments[name] = {
            row: metrics.score_stem(reference, estimate, mixture, song.sample_rate) for row, estimate in zip(ROWS, rows)
        }
    total = np.sum(list(references.values()), axis=0)
    consistency = metrics.consistency(total, [estimates[name] for name in references], song.sample_rate)
    if metrics.level_dbfs(mixture) - metrics.level_dbfs(mixture - total) < COMPLETE_DB:
        consistency["sum_sdr_db"] = float("nan")
    scores = {
        "seconds": len(mixture) / song.sample_rate,
        "sample_rate_hz": song.sample_rate,
        "channels": mixture.shape[1],
        "notes": list(song.notes),
        "instruments": instruments,
        "consistency": consistency,
    }
    if with_museval:
        scores["museval"] = bss_eval(references, fitted, song.sample_rate)
    return scores


def _fitted(estimate: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """An estimate cut or continued with silence to the length of the mixture."""
    estimate = estimate[: len(mixture)]
    return np.pad(estimate, ((0, len(mixture) - len(estimate)), (0, 0)))


def bss_eval(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], sample_rate: int) -> dict[str, dict]:
    """BSSEval v4 (Stöter, Liutkus & Ito 2018) by museval: 1 s frames, 512-tap filters fixed over the song.

    A stem or estimate that is silent throughout is left out, since museval refuses it; frames in which any stem is
    silent have no score there, and `frames` says how many are left.

    Returns:
        name -> medians over frames sdr_db, isr_db, sir_db, sar_db, and frames; NaN where nothing is left.

    Raises InputError if museval, or the ffmpeg that it looks for, is not installed.
    """
    museval = _import_museval()
    names = [name for name in references if references[name].any() and estimates[name].any()]
    if not names:
        return {}
    window = round(metrics.FRAME_S * sample_rate)
    stacks = (np.stack([stems[name] for name in names]).astype(np.float64) for stems in (references, estimates))
    measures = museval.evaluate(*stacks, win=window, hop=window, mode="v4")  # SDR, ISR, SIR, SAR, each [stem, frame]
    scores = {}
    for position, name in enumerate(names):
        medians = (metrics.finite_median(measure[position]) for measure in measures)
        n_frames = int(np.isfinite(measures[0][position]).sum())
        scores[name] = {**dict(zip(BSS_EVAL, medians)), "frames": n_frames}
    return scores


def summarise(pieces: Sequence[dict]) -> dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]:
    """Statistics over pieces.

    Args:
        pieces: as `score_song` gives them, with their condition.

    Returns:
        condition -> instrument -> row -> measure -> n, mean, median, and the 95 % bootstrap intervals mean_low to
        mean_high and median_low to median_high. Pieces that have no such score do not count in n.
    """
    summary: dict = {}
    for condition in dict.fromkeys(piece["condition"] for piece in pieces):
        alike = [piece["instruments"] for piece in pieces if piece["condition"] == condition]
        summary[condition] = {
            name: {
                row: {measure: _statistics(alike, name, row, measure) for measure in metrics.MEASURES} for row in ROWS
            }
            for name in dict.fromkeys(name for instruments in alike for name in instruments)
        }
    return summary


def _statistics(alike: Sequence[dict], name: str, row: str, measure: str) -> dict[str, float]:
    values = np.array([instruments[name][row][measure] for instruments in alike if name in instruments])
    values = values[np.isfinite(values)]
    mean_low, mean_high = metrics.bootstrap_interval(values, np.mean)
    median_low, median_high = metrics.bootstrap_interval(values, np.median)
    return {
        "n": len(values),
        "mean": float(values.mean()) if len(values) else float("nan"),
        "mean_low": mean_low,
        "mean_high": mean_high,
        "median": metrics.finite_median(values),
        "median_low": median_low,
        "median_high": median_high,
    }


def _import_museval():
    try:
        import museval
    except ImportError:
        raise InputError("--museval needs the package museval: pip install sourcesep[museval]") from None
    except RuntimeError as error:  # a package that museval imports looks for ffmpeg
        raise InputError(f"--museval needs ffmpeg, e.g. apt install ffmpeg ({error})") from None
    return museval


def _summarise_museval(pieces: Sequence[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """condition -> instrument -> n, and medians over songs of what `bss_eval` gives; empty without museval."""
    scores: dict = {}
    for piece in pieces:
        for name, row in piece.get("museval", {}).items():
            scores.setdefault(piece["condition"], {}).setdefault(name, []).append(row)
    return {
        condition: {
            name: {
                "n": len(rows),
                **{key: metrics.finite_median([row[key] for row in rows]) for key in BSS_EVAL},
            }
            for name, rows in instruments.items()
        }
        for condition, instruments in scores.items()
    }


def to_json(figures: dict) -> str:
    """Figures as JSON; what is not a finite number becomes null."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(figures), indent=1, allow_nan=False) + "\n"


def _circumstances(config: Config | None) -> dict[str, Any]:
    """When, with what command, seed and packages, on what machine."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "seed": config.seed if config else None,
        "config": config.values() if config else None,
        "packages": {"python": platform.python_version(), **packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "protocol": {
            name.lower(): getattr(metrics, name)
            for name in ("FRAME_S", "ACTIVE_DBFS", "ACTIVE_RANGE_DB", "EPSILON", "AUDIBLE_DBFS", "MAX_ATTENUATION_DB")
        },
    }
