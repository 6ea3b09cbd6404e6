"""Scores of separated stems, in NumPy."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-7  # added to both energies, so that silence has a score: 0 dB for zeros in place of zeros


def sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Signal-to-distortion ratio, 10 log10(sum s**2 / sum (s - e)**2), in dB.

    The global form used in the Music Demixing Challenge 2021 (Mitsufuji et al. 2022, equation 2). All-zero estimates
    score 0 dB.

    Args:
        references, estimates: [..., time, instrument].

    Returns:
        [..., instrument].
    """
    references, estimates = np.asarray(references, np.float64), np.asarray(estimates, np.float64)
    signal = np.square(references).sum(axis=-2)
    distortion = np.square(references - estimates).sum(axis=-2)
    return 10 * np.log10((signal + EPSILON) / (distortion + EPSILON))
