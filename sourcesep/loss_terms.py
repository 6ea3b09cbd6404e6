"""The terms of a loss, and how a text such as "mae+0.5*spectrogram" is read and checked.

Nothing here imports TensorFlow, so that a loss that cannot be used is refused before anything is rendered. The
functions of the terms are in train/losses.py, under the same names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from data_gen import InputError

FRAME_SAMPLES = 1024  # window length of the spectrograms in the losses, in samples


class Term(NamedTuple):
    """What is known of a term without computing it.

    Attributes:
        help: what it measures.
        weight: its weight where the text gives none.
        min_stems: how many stems it needs.
        min_samples: how many samples a chunk needs, without its context.
        uses_mixture: whether it takes the sum of the stems for the mixture.
    """

    help: str
    weight: float = 1.0
    min_stems: int = 1
    min_samples: int = 1
    uses_mixture: bool = False


TERMS = {
    "mae": Term("mean absolute error"),
    "mse": Term("mean squared error"),
    "nmse": Term("mean squared error of each chunk, divided by the energy of its mixture", uses_mixture=True),
    "nrmse": Term(
        "square root of the squared error of each stem of a chunk, divided by the energy of its mixture: a weak stem "
        "counts for more than with nmse",
        uses_mixture=True,
    ),
    "log_nmse": Term(
        "logarithm of the squared error of each stem of a chunk, divided by the energy of its mixture: weak stems "
        "count as much as strong ones",
        uses_mixture=True,
    ),
    "spectrogram": Term("mean squared error of magnitude spectrograms", min_samples=FRAME_SAMPLES),
    "compressed": Term(
        "mean squared error of spectrograms with compressed magnitudes, relative to the level of the mixture: quiet "
        "notes count for more",
        min_samples=FRAME_SAMPLES,
        uses_mixture=True,
    ),
    "shares": Term(
        "divergence between how the stems and how the estimates divide the spectrogram among the instruments",
        min_stems=2,
        min_samples=FRAME_SAMPLES,
    ),
    "difference": Term("minus the mean distance between an estimate and the other stems", weight=0.1, min_stems=2),
}


def describe_terms() -> str:
    """Returns one line that names and explains every term."""
    return "; ".join(f"{name}, {term.help}" for name, term in TERMS.items())


def parse_loss(text: str) -> dict[str, float]:
    """Reads a sum of weighted terms, e.g. "mae", "mae+spectrogram", "mae+0.2*difference".

    Returns:
        The weight of each term that is named.

    Raises InputError for an unknown term or a weight that is not a number.
    """
    weights: dict[str, float] = {}
    for part in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:([\d.]+(?:e-?\d+)?)\*)?(\w+)", part)
        if not match or match[2] not in TERMS:
            raise InputError(
                f"--loss={text}: {part!r} is not a loss; known are {', '.join(TERMS)}, summed and weighted as in "
                "mae+0.5*spectrogram"
            )
        try:
            weight = float(match[1] or TERMS[match[2]].weight)
        except ValueError:
            raise InputError(f"--loss={text}: {match[1]!r} is not a weight; write a number such as 0.5") from None
        weights[match[2]] = weights.get(match[2], 0.0) + weight
    return weights


def check_loss(text: str, n_stems: int, chunk_samples: int) -> None:
    """Checks that a model can be trained with a loss.

    Args:
        text: the loss.
        n_stems: number of stems that the model gives at once.
        chunk_samples: length of a chunk without its context, in samples.

    Raises InputError as `parse_loss` does, for too few stems or too short chunks, for shares without another term, and
    for a difference term that no other term keeps bounded.
    """
    weights = {name: weight for name, weight in parse_loss(text).items() if weight > 0}
    if not weights:
        raise InputError(f"--loss={text}: every weight is 0; give one term a weight above 0")
    for name in weights:
        if chunk_samples < TERMS[name].min_samples:
            raise InputError(
                f"--loss={text}: {name} needs chunks of at least {TERMS[name].min_samples} samples, and these have "
                f"{chunk_samples}; raise --chunk_ms"
            )
        if n_stems < TERMS[name].min_stems:
            raise InputError(
                f"--loss={text}: {name} needs {TERMS[name].min_stems} stems or more; the model gives {n_stems}"
            )
    if weights.keys() == {"shares"}:
        raise InputError(f"--loss={text}: shares ignores level and phase; add another term, as in nmse+0.1*shares")
    # |e| - w |e| grows with |e| for w < 1, and a square grows faster than any multiple of |e|.
    is_bounded = weights.keys() & {"mse", "nmse"} or weights.get("difference", 0.0) < weights.get("mae", 0.0)
    if "difference" in weights and not is_bounded:
        raise InputError(
            f"--loss={text}: difference falls without bound; add mae with a greater weight, or add mse or nmse"
        )
