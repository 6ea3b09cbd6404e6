"""Losses: functions of (stems, estimates), both float32 [batch, time, instrument], that return a scalar.

`make_loss` reads them from a text such as "mae+0.5*spectrogram". Each term is a mean, so that its weight does not
depend on batch size, chunk length or number of instruments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import tensorflow as tf

from data_gen import InputError

FRAME_SAMPLES, HOP_SAMPLES = 1024, 256  # of the losses of spectrograms and shares
MAGNITUDE_FLOOR = 1e-6  # keeps the gradient of |STFT| finite at silence; 120 dB below full scale
ENERGY_FLOOR = 1e-6  # mean square of a mixture that is all but silent; 60 dB below full scale
SHARE_FLOOR = 0.01  # that every stem has at least of a magnitude: bounds the gradient at silent estimates
QUIET_MAGNITUDE = 1e-3  # mean magnitude of a mixture that is all but silent; that of noise 60 dB below full scale
DIFFERENCE_WEIGHT = 0.1  # of the difference loss when none is given

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def mae(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """Mean absolute error."""
    return tf.reduce_mean(tf.abs(estimates - stems))


def mse(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """Mean squared error."""
    return tf.reduce_mean(tf.square(estimates - stems))


def nmse(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """Normalised mean squared error: of each example, over the mean square of the mixture, the sum of its stems.

    So a quiet song counts as much as a loud one. A mixture below ENERGY_FLOOR counts as silence.
    """
    error = tf.reduce_mean(tf.square(estimates - stems), [1, 2])  # to [batch]
    energy = tf.reduce_mean(tf.square(tf.reduce_sum(stems, -1)), 1)
    return tf.reduce_mean(error / (energy + ENERGY_FLOOR))


def magnitudes(waveforms: tf.Tensor) -> tf.Tensor:
    """Linear magnitude spectrogram.

    Frames of FRAME_SAMPLES under a periodic Hann window; divided by the root of the window's energy, so that white
    noise of RMS r has magnitudes near r, whatever the frame length.

    Args:
        waveforms: float32 [batch, time, instrument].

    Returns:
        float32 [batch, instrument, frame, frequency].
    """
    spectra = tf.signal.stft(tf.transpose(waveforms, [0, 2, 1]), FRAME_SAMPLES, HOP_SAMPLES)
    scale = 1.0 / math.sqrt(3 / 8 * FRAME_SAMPLES)  # the energy of a periodic Hann window is 3/8 of its length
    squares = tf.square(tf.math.real(spectra) * scale) + tf.square(tf.math.imag(spectra) * scale)
    return tf.sqrt(squares + MAGNITUDE_FLOOR**2)


def spectrogram(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of linear magnitude spectrograms (original report, section V)."""
    return tf.reduce_mean(tf.square(magnitudes(estimates) - magnitudes(stems)))


def shares(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """How far the estimates share the spectrogram out otherwise than the stems do: a Kullback-Leibler divergence.

    At each point, a frequency in a frame, a stem's share is its magnitude over the sum of all stems' magnitudes; an
    estimate's likewise. SHARE_FLOOR of the stems' sum is added to each magnitude first. The divergence is averaged over
    the points, weighted by the stems' sum, and over the examples. Phase does not count, and level hardly does; which
    instrument a note was given to counts in a quiet one as in a loud one.
    """
    true, given = magnitudes(stems), magnitudes(estimates)
    weights = tf.reduce_sum(true, 1)  # to [batch, frame, frequency]
    true, given = (part + SHARE_FLOOR * weights[:, None] for part in (true, given))
    true, given = (part / tf.reduce_sum(part, 1, keepdims=True) for part in (true, given))
    divergences = tf.reduce_sum(true * tf.math.log(true / given), 1)
    weighted = tf.reduce_mean(weights * divergences, [1, 2]) / (tf.reduce_mean(weights, [1, 2]) + QUIET_MAGNITUDE)
    return tf.reduce_mean(weighted)


def difference(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
    """Minus the mean of |estimate i - stem j| over i != j: it drives an estimate away from the other stems.

    With the MAE as the diagonal of that matrix (original report, section V). Alone it falls without bound; added to
    the MAE it stays bounded below for weights under 1, since |e| - w |e| grows with |e|.
    """
    n_instruments = stems.shape[-1]
    pairs = tf.abs(estimates[..., :, None] - stems[..., None, :])  # to [batch, time, estimate, stem]
    off_diagonal = 1.0 - tf.eye(n_instruments, dtype=pairs.dtype)
    return -tf.reduce_mean(tf.reduce_sum(pairs * off_diagonal, [2, 3])) / (n_instruments * (n_instruments - 1))


TERMS = {"mae": mae, "mse": mse, "nmse": nmse, "spectrogram": spectrogram, "shares": shares, "difference": difference}


def make_loss(text: str, n_targets: int, chunk_samples: int) -> Loss:
    """Reads a sum of weighted terms, e.g. "mae", "mae+spectrogram", "mae+0.2*difference".

    Raises InputError for an unknown term or a weight that is none, a chunk shorter than a spectrogram frame, a term
    that needs two targets or more, shares alone, and a difference loss that nothing keeps bounded.
    """
    weights: dict[str, float] = {}
    for part in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:([\d.]+(?:e-?\d+)?)\*)?(\w+)", part)
        if not match or match[2] not in TERMS:
            raise InputError(
                f"--loss={text}: {part!r} is no loss; known are {', '.join(TERMS)}, summed and weighted as in "
                "mae+0.5*spectrogram"
            )
        try:
            weight = float(match[1] or (DIFFERENCE_WEIGHT if match[2] == "difference" else 1.0))
        except ValueError:
            raise InputError(f"--loss={text}: {match[1]!r} is no weight") from None
        weights[match[2]] = weights.get(match[2], 0.0) + weight
    if weights.keys() & {"spectrogram", "shares"} and chunk_samples < FRAME_SAMPLES:
        raise InputError(
            f"--loss={text}: a chunk of {chunk_samples} samples is shorter than one spectrogram window of "
            f"{FRAME_SAMPLES}; raise --chunk_ms"
        )
    for name in ("shares", "difference"):
        if name in weights and n_targets < 2:
            raise InputError(f"--loss={text}: {name} needs two targets or more")
    if weights.keys() == {"shares"}:
        raise InputError(f"--loss={text}: shares leave level and phase open; add it to another, as in nmse+0.1*shares")
    if "difference" in weights and weights["difference"] >= weights.get("mae", 0.0) and "mse" not in weights:
        raise InputError(
            f"--loss={text}: the difference loss falls without bound unless its weight is below that of the mae"
        )

    def loss(stems: tf.Tensor, estimates: tf.Tensor) -> tf.Tensor:
        return tf.add_n([weight * TERMS[name](stems, estimates) for name, weight in weights.items()])

    return loss
