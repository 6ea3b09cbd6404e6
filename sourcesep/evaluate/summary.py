"""Computes statistics over songs, and collects everything else that is in metrics.json."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sourcesep import metrics
from sourcesep.config import Config
from sourcesep.evaluate.scores import BSS_EVAL, ROWS

PACKAGES = (
    *("sourcesep", "tensorflow", "keras", "tensorflow-io", "numpy", "scipy", "soundfile", "soxr", "pyfluidsynth"),
    "museval",
)
PROTOCOL = ("FRAME_S", "ACTIVE_DBFS", "ACTIVE_RANGE_DB", "EPSILON", "AUDIBLE_DBFS", "MAX_ATTENUATION_DB", "ALONE_DB")

SIDES = ("present", "found")  # lists of `scores.compare_found`
ALL = "all together"  # the row that counts all instruments; no name of an instrument has a space

Summary = dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]
"""condition -> instrument -> row -> key of a measure -> statistic."""


def make_figures(
    pieces: Sequence[dict[str, Any]], left_out: Sequence[dict[str, str]], config: Config | None
) -> dict[str, Any]:
    """Returns everything that metrics.json holds.

    Args:
        pieces: the scores of each song, as `scores.score_song` returns them, with its `name` and `condition`.
        left_out: name, condition and reason for each song that could not be scored.
        config: of the run that was scored; None without a run.
    """
    return {
        **describe_circumstances(config),
        "pieces": list(pieces),
        "left_out": list(left_out),
        "summary": summarise(pieces),
        "leakage": summarise_leakage(pieces),
        "found": summarise_found(pieces),
        "museval": summarise_museval(pieces),
    }


def summarise(pieces: Sequence[dict[str, Any]]) -> Summary:
    """Computes statistics over the songs of each condition.

    Args:
        pieces: as for `make_figures`.

    Returns:
        The statistics of each measure: n, mean, median, and the 95 % bootstrap intervals mean_low to mean_high and
        median_low to median_high. Songs in which the measure is undefined are not counted.
    """
    summary: Summary = {}
    for condition in dict.fromkeys(piece["condition"] for piece in pieces):
        songs = [piece["instruments"] for piece in pieces if piece["condition"] == condition]
        names = dict.fromkeys(name for instruments in songs for name in instruments)
        summary[condition] = {
            name: {
                row: {
                    measure.key: _compute_statistics([song[name][row][measure.key] for song in songs if name in song])
                    for measure in metrics.MEASURES
                }
                for row in ROWS
            }
            for name in names
        }
    return summary


def _compute_statistics(values: Sequence[float]) -> dict[str, float]:
    finite = np.array([value for value in values if math.isfinite(value)])
    mean_low, mean_high = metrics.bootstrap_interval(finite, np.mean)
    median_low, median_high = metrics.bootstrap_interval(finite, np.median)
    return {
        "n": len(finite),
        "mean": float(finite.mean()) if len(finite) else float("nan"),
        "mean_low": mean_low,
        "mean_high": mean_high,
        "median": metrics.finite_median(finite),
        "median_low": median_low,
        "median_high": median_high,
    }


def summarise_leakage(pieces: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Computes where the stems go in the songs of each condition.

    Args:
        pieces: as for `make_figures`.

    Returns:
        condition -> name of a reference -> name of an estimate -> the median, over the songs in which the reference
        sounds, of the gain at which the estimate contains it; NaN if it sounds in none.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for condition in dict.fromkeys(piece["condition"] for piece in pieces):
        songs = [piece["leakage"] for piece in pieces if piece["condition"] == condition]
        names = list(dict.fromkeys(name for gains in songs for name in gains))
        summary[condition] = {
            name: {
                other: metrics.finite_median([song[name][other] for song in songs if {name, other} <= song.keys()])
                for other in names
            }
            for name in names
        }
    return summary


def summarise_found(pieces: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Computes how well a blind model says which stems are there.

    Args:
        pieces: as for `make_figures`; those of a blind model have the lists of `scores.compare_found`.

    Returns:
        condition -> instrument, and ALL for all together -> n_present and n_found, the numbers of songs in which it is
        present and found; precision, the share of the songs in which it is found where it is present; recall, the share
        of those in which it is present where it is found; NaN for a share of none. Empty unless the model is blind.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for condition in dict.fromkeys(piece["condition"] for piece in pieces if "found" in piece):
        songs = [piece for piece in pieces if piece["condition"] == condition]
        names = list(dict.fromkeys(name for song in songs for name in song["instruments"]))
        # [song, instrument]
        present, found = (np.array([[name in song[side] for name in names] for song in songs]) for side in SIDES)
        both = present & found
        counts = {name: (present[:, i].sum(), found[:, i].sum(), both[:, i].sum()) for i, name in enumerate(names)}
        counts[ALL] = (present.sum(), found.sum(), both.sum())
        summary[condition] = {
            name: {
                "n_present": int(n_present),
                "n_found": int(n_found),
                "precision": n_both / n_found if n_found else float("nan"),
                "recall": n_both / n_present if n_present else float("nan"),
            }
            for name, (n_present, n_found, n_both) in counts.items()
        }
    return summary


def summarise_museval(pieces: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Computes medians of BSSEval v4 over the songs of each condition.

    Args:
        pieces: as for `make_figures`.

    Returns:
        condition -> instrument -> n, and the median of each measure of BSS_EVAL; empty without museval.
    """
    scores: dict[str, dict[str, list[dict[str, float]]]] = {}
    for piece in pieces:
        for name, row in piece.get("museval", {}).items():
            scores.setdefault(piece["condition"], {}).setdefault(name, []).append(row)
    return {
        condition: {
            name: {"n": len(rows), **{key: metrics.finite_median([row[key] for row in rows]) for key in BSS_EVAL}}
            for name, rows in instruments.items()
        }
        for condition, instruments in scores.items()
    }


def describe_circumstances(config: Config | None) -> dict[str, Any]:
    """Returns when, by which command, with which config and packages, on which machine the figures were made."""
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
        "protocol": {name.lower(): getattr(metrics, name) for name in PROTOCOL},
    }


def to_json(figures: Mapping[str, Any]) -> str:
    """Returns the figures as JSON, with null for every number that is not finite."""

    def make_finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: make_finite(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [make_finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(make_finite(figures), indent=1, allow_nan=False) + "\n"
