"""Losses: functions of (stems, estimates), both float32 [batch, time, instrument], that return a scalar.

With two channels, left, right, and their sum and difference over the root of two count alike: what is the same in both
and what is not. Those with spectrograms take the number of channels too, and columns [batch, time, channel *
instrument], since the spectra of sum and difference follow from those of left and right.

They are written in keras.ops, for every backend of Keras.

`make_loss` builds one from a text such as "mae+0.5*spectrogram". Each term is a mean, so that its weight does not
depend on batch size, chunk length or number of instruments. To add a term, write its function here, its line in
FUNCTIONS, and its line in TERMS of loss_terms.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from sourcesep.loss_terms import FRAME_SAMPLES, TERMS, parse_loss

HOP_SAMPLES = 256  # distance between the frames of a spectrogram, in samples
MAGNITUDE_FLOOR = 1e-6  # keeps the gradient of |STFT| finite at silence; 120 dB below full scale
ENERGY_FLOOR = 1e-6  # mean square of a mixture at the level below which it counts as silence: 60 dB below full scale
ROOT_FLOOR = 1e-4  # added to a normalised error before its root: bounds the gradient; 40 dB below the mixture
LOG_FLOOR = 1e-3  # normalised error below which its logarithm hardly falls: 30 dB below the mixture is good enough
SHARE_FLOOR = 0.01  # share of a magnitude that every stem is given at least: bounds the gradient at silent estimates
COMPRESSION = 0.3  # exponent of compressed magnitudes
POWER_FLOOR = 1e-4  # added to powers relative to the mixture's before they are compressed: bounds the gradient
QUIET_MAGNITUDE = 1e-3  # mean magnitude of a mixture that is nearly silent: that of noise 60 dB below full scale

Tensor = Any  # of any Keras backend
Loss = Callable[[Tensor, Tensor], Tensor]


def mae(stems: Tensor, estimates: Tensor) -> Tensor:
    """Mean absolute error."""
    return ops.mean(ops.abs(estimates - stems))


def mse(stems: Tensor, estimates: Tensor) -> Tensor:
    """Mean squared error."""
    return ops.mean(ops.square(estimates - stems))


def nmse(stems: Tensor, estimates: Tensor) -> Tensor:
    """Normalised mean squared error: that of each example, divided by the mean square of its mixture (sum of stems).

    A quiet song counts as much as a loud one. A mixture below ENERGY_FLOOR counts as silence.
    """
    return ops.mean(_normalised_errors(stems, estimates))


def nrmse(stems: Tensor, estimates: Tensor) -> Tensor:
    """Mean over examples and stems of the root of the normalised squared error, sqrt(e + ROOT_FLOOR).

    The gradient of a stem's error grows as the error falls, so that a weak stem is learnt as well as a strong one (the
    root of the error per stem: SCNet, Tong et al. 2024).
    """
    return ops.mean(ops.sqrt(_normalised_errors(stems, estimates) + ROOT_FLOOR))


def log_nmse(stems: Tensor, estimates: Tensor) -> Tensor:
    """Mean over examples and stems of log10(1 + e / LOG_FLOOR), with e the normalised squared error.

    A decibel is worth the same in every stem, until its error is near the floor.
    """
    return ops.mean(ops.log1p(_normalised_errors(stems, estimates) / LOG_FLOOR)) / math.log(10.0)


def _normalised_errors(stems: Tensor, estimates: Tensor) -> Tensor:
    """Returns the mean square of each estimate's error, divided by that of the mixture, float32 [batch, stem]."""
    energy = ops.mean(ops.square(ops.sum(stems, -1)), 1)
    return ops.mean(ops.square(estimates - stems), 1) / (energy + ENERGY_FLOOR)[:, None]


def magnitudes(waveforms: Tensor, n_channels: int = 1) -> Tensor:
    """Linear magnitude spectrogram.

    Frames of FRAME_SAMPLES under a periodic Hann window; divided by the root of the window's energy, so that white
    noise of RMS r has magnitudes near r, whatever the frame length.

    Args:
        waveforms: float32 [batch, time, channel * instrument].
        n_channels: 1, or 2 for the spectrograms of left, right, middle and side.

    Returns:
        float32 [way * batch, instrument, frame, frequency].
    """
    real, imaginary = _spectra(waveforms, n_channels)
    return ops.sqrt(ops.square(real) + ops.square(imaginary) + MAGNITUDE_FLOOR**2)


def _spectra(waveforms: Tensor, n_channels: int) -> tuple[Tensor, Tensor]:
    """Returns the real and the imaginary parts of the spectrogram that `magnitudes` describes, without its floor."""
    rows = ops.transpose(waveforms, [0, 2, 1])
    if keras.backend.backend() == "tensorflow":
        parts = _tensorflow_spectra(rows)
    else:
        parts = ops.stft(rows, FRAME_SAMPLES, HOP_SAMPLES, FRAME_SAMPLES, center=False)
    if n_channels == 2:
        parts = tuple(_both_ways(part, from_axis=1, to_axis=0) for part in parts)
    scale = 1.0 / math.sqrt(3 / 8 * FRAME_SAMPLES)  # the energy of a periodic Hann window is 3/8 of its length
    return parts[0] * scale, parts[1] * scale


@ops.custom_gradient
def _tensorflow_spectra(rows: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
    """Computes `tf.signal.stft` of [batch, row, time] as its real and its imaginary parts.

    The gradient is stated: with TensorFlow's, a loss with spectrograms takes 1.2 times as long.
    """
    import tensorflow as tf  # not at the top: other backends do without it

    spectra = tf.signal.stft(rows, FRAME_SAMPLES, HOP_SAMPLES)

    def gradient(of_real: Tensor, of_imaginary: Tensor) -> Tensor:
        # An inverse transform counts all frequencies but the first and the last twice, for the negative ones.
        half = np.full(FRAME_SAMPLES // 2 + 1, 0.5, np.float32)
        half[[0, -1]] = 1
        frames = tf.signal.irfft(tf.complex(half * of_real, half * of_imaginary))
        frames *= FRAME_SAMPLES * tf.signal.hann_window(FRAME_SAMPLES)
        covered = tf.signal.overlap_and_add(frames, HOP_SAMPLES)
        missing = tf.shape(rows)[-1] - tf.shape(covered)[-1]  # frames that are not complete are dropped
        return tf.pad(covered, [[0, 0], [0, 0], [0, missing]])

    return (tf.math.real(spectra), tf.math.imag(spectra)), gradient


def spectrogram(stems: Tensor, estimates: Tensor, n_channels: int = 1) -> Tensor:
    """Mean squared difference of linear magnitude spectrograms (original report, section V)."""
    return ops.mean(ops.square(magnitudes(estimates, n_channels) - magnitudes(stems, n_channels)))


def compressed(stems: Tensor, estimates: Tensor, n_channels: int = 1) -> Tensor:
    """Mean squared distance of spectra whose magnitudes are raised to COMPRESSION, and whose phases are kept.

    Quiet notes count for more than their energy (Ephrat et al. 2018, "Looking to listen at the cocktail party"). Levels
    are relative to that of the mixture, in each example.
    """
    mixture = ops.sum(ops.reshape(stems, (*ops.shape(stems)[:2], n_channels, -1)), -1)
    if n_channels == 2:
        mixture = _both_ways(mixture, from_axis=2, to_axis=0)
    level = ops.mean(ops.square(mixture), [1, 2]) + ENERGY_FLOOR  # to [way * batch]

    def compress(waveforms: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary = (part * ops.rsqrt(level)[:, None, None, None] for part in _spectra(waveforms, n_channels))
        scale = (ops.square(real) + ops.square(imaginary) + POWER_FLOOR) ** ((COMPRESSION - 1) / 2)
        return scale * real, scale * imaginary

    distances = (true - given for true, given in zip(compress(stems), compress(estimates)))
    return ops.mean(sum(ops.square(distance) for distance in distances))


def shares(stems: Tensor, estimates: Tensor, n_channels: int = 1) -> Tensor:
    """KL divergence between how the stems and how the estimates divide each spectrogram bin among the instruments.

    Penalises energy given to the wrong instrument, in quiet examples as much as in loud ones; ignores phase, and almost
    ignores level. In each bin, the share of a stem is its magnitude divided by the sum of the magnitudes of all stems,
    and likewise for the estimates. SHARE_FLOOR times the sum of the stems is added to each magnitude first. The
    divergence is averaged over the bins, weighted by the sum of the stems, and then over the examples.
    """
    true, given = magnitudes(stems, n_channels), magnitudes(estimates, n_channels)
    weights = ops.sum(true, 1)  # to [way * batch, frame, frequency]
    floor = SHARE_FLOOR * weights[:, None]
    true, given = true + floor, given + floor
    # As the logarithm of a quotient is the difference of logarithms, the shares themselves are not needed.
    sum_true, sum_given = ops.sum(true, 1), ops.sum(given, 1)
    divergences = ops.sum(true * (ops.log(true) - ops.log(given)), 1) / sum_true + ops.log(sum_given / sum_true)
    weighted = ops.mean(weights * divergences, [1, 2]) / (ops.mean(weights, [1, 2]) + QUIET_MAGNITUDE)
    return ops.mean(weighted)


def difference(stems: Tensor, estimates: Tensor) -> Tensor:
    """Minus the mean of |estimate i - stem j| over i != j: drives an estimate away from the other stems.

    The MAE is the diagonal of the same matrix (original report, section V). Without another term it falls without
    bound; added to the MAE it stays bounded below for weights under 1, since |e| - w |e| grows with |e|.
    """
    n_instruments = stems.shape[-1]
    pairs = ops.abs(estimates[..., :, None] - stems[..., None, :])  # to [batch, time, estimate, stem]
    off_diagonal = 1.0 - ops.eye(n_instruments, dtype=pairs.dtype)
    return -ops.mean(ops.sum(pairs * off_diagonal, [2, 3])) / (n_instruments * (n_instruments - 1))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "mae": mae,
    "mse": mse,
    "nmse": nmse,
    "nrmse": nrmse,
    "log_nmse": log_nmse,
    "spectrogram": spectrogram,
    "compressed": compressed,
    "shares": shares,
    "difference": difference,
}


def make_loss(text: str, n_channels: int = 1) -> Loss:
    """Returns the loss that a text such as "mae+0.2*difference" describes.

    Args:
        text: the loss.
        n_channels: 1, or 2 for a function of [batch, time, channel * instrument].

    Raises InputError as `parse_loss` does. Whether a model can be trained with it, a Config has checked.
    """
    weights = parse_loss(text)

    def compute_term(name: str, stems: Tensor, estimates: Tensor) -> Tensor:
        if TERMS[name].min_samples > 1:  # a spectrogram must not see one signal follow another
            return FUNCTIONS[name](stems, estimates, n_channels)
        if n_channels == 2:  # one after the other in time: what is normalised counts both channels together
            stems, estimates = (_both_ways(columns, from_axis=2, to_axis=1) for columns in (stems, estimates))
        return FUNCTIONS[name](stems, estimates)

    def loss(stems: Tensor, estimates: Tensor) -> Tensor:
        return sum(weight * compute_term(name, stems, estimates) for name, weight in weights.items())

    return loss


def _both_ways(columns: Tensor, from_axis: int, to_axis: int) -> Tensor:
    """Returns left, right, middle and side, concatenated along `to_axis`, of left and right along `from_axis`."""
    left, right = ops.split(columns, 2, axis=from_axis)
    middle, side = (left + right) * math.sqrt(0.5), (left - right) * math.sqrt(0.5)
    return ops.concatenate([left, right, middle, side], to_axis)
