"""Fingerprints of recordings: which of them are the same recording, whatever its master, encoding or sample rate.

Features are pairs of spectral peaks close to each other in time (Wang 2003, "An industrial-strength audio search
algorithm"). A peak is louder than all around it, so equalisers, compressors, gains and lossy codecs leave many of them
where they are. As with MIDI, hashed minima of the features estimate how many of them two recordings share.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import scipy.ndimage

from data_gen.songs import minhash

RATE_HZ = 8_000  # sample rate of what is examined
WINDOW_S = 6.0  # of a song this much is examined
EVERY_S = 20.0  # in every stretch of this length, counted from its beginning
SIZE = 128  # hashed minima that are kept
# Share of equal minima from which on two recordings are the same one. Twelve songs played through FluidR3 and three
# excerpts of recordings agree in up to 0.07 with each other; with their own MP3 at 96 kbit/s in 0.30 or more, with
# another master (equaliser, limiter) in 0.65, without their first 0.37 s in 0.16, after heavy distortion in 0.09.
SAME_RECORDING = 0.1

_FRAME, _HOP = 1_024, 256  # of the spectrum, in samples: 128 ms, every 32 ms
_LOWEST, _HIGHEST = 13, 448  # bins in which peaks are looked for: 100 Hz to 3.5 kHz
_AROUND = (15, 21)  # frames and bins around a peak in which nothing is louder
_BELOW_DB = 50.0  # peaks this far below the loudest one are not used
_PARTNERS = 4  # peaks that follow, with which a peak makes pairs,
_LONGEST = 40  # at most this many frames later,
_ROUNDED = 3  # which is rounded to this many frames


def fingerprint(read: Callable[[int, int], np.ndarray], n_samples: int) -> tuple[int, ...]:
    """Returns the fingerprint of a recording; () if it is silent.

    Args:
        read: returns a window [time], given its first sample and its length at RATE_HZ.
        n_samples: length of the recording at RATE_HZ.
    """
    features: set[int] = set()
    for start in range(0, max(1, n_samples), round(EVERY_S * RATE_HZ)):
        features |= _pairs(*_peaks(read(start, round(WINDOW_S * RATE_HZ))))
    return minhash(features, SIZE)


def _peaks(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (frames, bins) of the peaks of a waveform [time], in the order of time."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_FRAME).astype(np.float32), axis=1))[:, _LOWEST:_HIGHEST]
    if not spectrum.any():
        return np.zeros(0, int), np.zeros(0, int)
    is_peak = spectrum == scipy.ndimage.maximum_filter(spectrum, _AROUND)
    is_peak &= spectrum > spectrum.max() * 10 ** (-_BELOW_DB / 20)
    frame, bin_ = np.nonzero(is_peak)
    return frame, bin_


def _pairs(frames: np.ndarray, bins: np.ndarray) -> set[int]:
    """Returns the hashed pairs (frequency, frequency, time between) of peaks."""
    features = set()
    for step in range(1, _PARTNERS + 1):
        later = frames[step:] - frames[:-step]
        pairs = np.stack([bins[:-step], bins[step:], later // _ROUNDED], axis=1)[later <= _LONGEST]
        features |= {zlib.crc32(pair.tobytes()) for pair in pairs.astype(np.int16)}
    return features
