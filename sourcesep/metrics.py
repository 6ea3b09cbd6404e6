"""Scores of separated stems, in NumPy.

A waveform is [time] or [time, channel]; the samples of all channels are scored together, as one long signal. The part
of a song in which a stem is active is scored by the error of its estimate (SDR, SI-SDR); the part in which it is silent
while others play, by the level of what is left in its estimate. The two are never averaged: an estimate of zeros has an
SDR of 0 dB, and the SI-SDR of silence is undefined.

MEASURES is the table of all scores. `score_stem`, the summary over songs, the terminal's table and the HTML page
iterate over it, so that a new score is one function and one row here. A score that is undefined is NaN.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.signal
import scipy.stats

EPSILON = 1e-7  # added to both energies of an SDR, so that silence has one: 0 dB for zeros as the estimate of zeros
FRAME_S = 1.0  # length of the frames that are active or silent, in seconds; museval's default too
ACTIVE_DBFS = -60.0  # a frame below this level is silent,
ACTIVE_RANGE_DB = 40.0  # and so is a frame that is this much softer than the stem's loudest frame
LOWEST_DBFS = -120.0  # level reported for digital silence, whose true level is minus infinity
MAX_ATTENUATION_DB = 80.0  # highest attenuation reported; digital silence would have an infinite one
AUDIBLE_DBFS = -50.0  # a frame above this level counts as audible
ALONE_DB = 40.0  # where the mixture has this SDR, the stem is all there is, and a separator has nothing to gain
MAX_LAG_S = 0.25  # longest delay that `consistency` searches for, in seconds
RESAMPLES = 2_000  # of the bootstrap; Efron & Tibshirani 1993, section 13.3, ask for at least 1,000
MASK_FRAME_SAMPLES = 2_048  # STFT frame of the ideal ratio mask, as in SiSEC 2018


def sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Computes the signal-to-distortion ratio, 10 log10(sum s**2 / sum (s - e)**2), in dB.

    This is the global form of the Music Demixing Challenge 2021 (Mitsufuji et al. 2022, equation 2). An estimate of
    zeros scores 0 dB.

    Args:
        references, estimates: [..., time, instrument].

    Returns:
        [..., instrument].
    """
    references, estimates = np.asarray(references, np.float64), np.asarray(estimates, np.float64)
    signal = np.square(references).sum(axis=-2)
    distortion = np.square(references - estimates).sum(axis=-2)
    return 10 * np.log10((signal + EPSILON) / (distortion + EPSILON))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Computes the scale-invariant SDR, 10 log10(|a s|**2 / |a s - e|**2) with a = <e, s> / |s|**2, in dB.

    As in Le Roux et al. 2019, "SDR: half-baked or well done?", equation 4, without subtracting means.

    Args:
        reference, estimate: waveforms of one shape.

    Returns:
        The ratio; NaN if the reference or the estimate is all zero.
    """
    reference, estimate = np.ravel(reference).astype(np.float64), np.ravel(estimate).astype(np.float64)
    energy = reference @ reference
    if not energy or not estimate.any():
        return float("nan")
    projection = (estimate @ reference) / energy * reference
    distortion = estimate - projection
    with np.errstate(divide="ignore"):
        return float(10 * np.log10((projection @ projection) / (distortion @ distortion)))


def level_dbfs(waveform: np.ndarray) -> float:
    """Computes the RMS level, 10 log10(mean x**2), in dB relative to a full-scale square wave; at least LOWEST_DBFS."""
    power = np.mean(np.square(waveform, dtype=np.float64)) if np.size(waveform) else 0.0
    return float(max(LOWEST_DBFS, 10 * np.log10(power))) if power else LOWEST_DBFS


def frames(waveform: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Cuts a waveform [time, ...] into frames of FRAME_S; the last one may be shorter."""
    frame_samples = round(FRAME_S * sample_rate)
    return [waveform[start : start + frame_samples] for start in range(0, len(waveform), frame_samples)]


def activity(stem: np.ndarray, sample_rate: int) -> np.ndarray:
    """Finds the frames in which a clean stem is active: RMS > max(-60 dBFS, the stem's loudest frame - 40 dB).

    Args:
        stem: waveform.
        sample_rate: in Hz.

    Returns:
        bool [frame].
    """
    levels = np.array([level_dbfs(frame) for frame in frames(stem, sample_rate)])
    return levels > max(ACTIVE_DBFS, levels.max(initial=LOWEST_DBFS) - ACTIVE_RANGE_DB)


def select_frames(waveform: np.ndarray, wanted: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the frames of a waveform at which `wanted`, bool [frame], is true, joined together."""
    chosen = [frame for frame, is_wanted in zip(frames(waveform, sample_rate), wanted) if is_wanted]
    return np.concatenate(chosen) if chosen else waveform[:0]


def frame_sdr(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> np.ndarray:
    """Computes the SDR of each frame, in dB [frame]; see `sdr`."""
    pairs = zip(frames(reference, sample_rate), frames(estimate, sample_rate))
    return np.array([_sdr(*pair) for pair in pairs])


def attenuation_db(mixture: np.ndarray, estimate: np.ndarray) -> float:
    """Computes level(mixture) - level(estimate) in dB, at most MAX_ATTENUATION_DB."""
    return min(MAX_ATTENUATION_DB, level_dbfs(mixture) - level_dbfs(estimate))


def audible_share(estimate: np.ndarray, sample_rate: int) -> float:
    """Computes the share of frames above AUDIBLE_DBFS, 0 to 1; NaN without frames."""
    levels = [level_dbfs(frame) for frame in frames(estimate, sample_rate)]
    return float(np.mean(np.array(levels) > AUDIBLE_DBFS)) if levels else float("nan")


def best_constant_gain(reference: np.ndarray, mixture: np.ndarray) -> float:
    """Computes g = <s, m> / <m, m>, the gain at which g * mixture has the highest SDR; 0 for a silent mixture.

    Args:
        reference, mixture: waveforms of one shape.
    """
    s, m = np.ravel(reference).astype(np.float64), np.ravel(mixture).astype(np.float64)
    energy = m @ m
    return float(s @ m / energy) if energy else 0.0


@dataclasses.dataclass(frozen=True)
class Part:
    """The active or the silent part of a song, as one stem is scored on it.

    Attributes:
        reference, estimate, mixture: waveforms of one shape.
        sample_rate: in Hz.
    """

    reference: np.ndarray
    estimate: np.ndarray
    mixture: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.reference) / self.sample_rate

    @functools.cached_property
    def sdr_db(self) -> float:
        """SDR of the estimate."""
        return _sdr(self.reference, self.estimate)

    @functools.cached_property
    def si_sdr_db(self) -> float:
        """SI-SDR of the estimate."""
        return si_sdr(self.reference, self.estimate)

    def frame_quantile_db(self, share: float) -> float:
        """The SDR that this share of the frames (0 to 1) stays below."""
        return float(np.quantile(self._frame_sdr_db, share))

    @functools.cached_property
    def _frame_sdr_db(self) -> np.ndarray:
        return frame_sdr(self.reference, self.estimate, self.sample_rate)

    def improvement_db(self) -> float:
        """SDR of the estimate minus that of the mixture; NaN where the stem is alone (ALONE_DB)."""
        return self.sdr_db - self._mixture_sdr_db if self._mixture_sdr_db < ALONE_DB else float("nan")

    def gain_over_constant_db(self) -> float:
        """SDR of the estimate minus that of the mixture at its best constant gain; NaN where the stem is alone."""
        if self._mixture_sdr_db >= ALONE_DB:
            return float("nan")
        gain = best_constant_gain(self.reference, self.mixture)
        return self.sdr_db - _sdr(self.reference, gain * self.mixture)

    @functools.cached_property
    def _mixture_sdr_db(self) -> float:
        return _sdr(self.reference, self.mixture)


class Measure(NamedTuple):
    """One score of a stem, and how tables show it.

    Attributes:
        key: its name in metrics.json.
        part: the part of a song that it is computed on, ACTIVE or SILENT.
        unit: "dB", "dBFS", "s", or "%" for a share of 0 to 1.
        score: computes it from that part, which is not empty.
        label: heading of its columns in tables; empty if it is only in metrics.json.
        averages: the averages over songs that tables show, a column each: "median", "mean" (with its interval).
        in_terminal: whether the terminal's table, which has less room than the page, shows it too.
        if_empty: its value if a song has no such part.
    """

    key: str
    part: str
    unit: str
    score: Callable[[Part], float]
    label: str = ""
    averages: tuple[str, ...] = ("median",)
    in_terminal: bool = True
    if_empty: float = float("nan")


ACTIVE, SILENT = "while it plays", "while it rests"

MEASURES = (
    Measure("active_s", ACTIVE, "s", lambda part: part.seconds, if_empty=0.0),
    Measure("sdr_db", ACTIVE, "dB", lambda part: part.sdr_db, "SDR", ("median", "mean")),
    Measure(
        "gain_over_constant_db", ACTIVE, "dB", lambda part: part.gain_over_constant_db(),
        "over constant", ("median", "mean"),
    ),
    Measure("sdr_improvement_db", ACTIVE, "dB", lambda part: part.improvement_db(), "over mixture"),
    Measure("si_sdr_db", ACTIVE, "dB", lambda part: part.si_sdr_db, "SI-SDR"),
    Measure(
        "si_sdr_improvement_db", ACTIVE, "dB", lambda part: part.si_sdr_db - si_sdr(part.reference, part.mixture)
    ),
    Measure(
        "frame_sdr_p10_db", ACTIVE, "dB", lambda part: part.frame_quantile_db(0.1),
        "frames, 10\u00a0%", in_terminal=False,
    ),
    Measure("frame_sdr_median_db", ACTIVE, "dB", lambda part: part.frame_quantile_db(0.5)),
    Measure(
        "frame_sdr_p90_db", ACTIVE, "dB", lambda part: part.frame_quantile_db(0.9),
        "frames, 90\u00a0%", in_terminal=False,
    ),
    Measure("silent_s", SILENT, "s", lambda part: part.seconds, if_empty=0.0),
    Measure("residual_dbfs", SILENT, "dBFS", lambda part: level_dbfs(part.estimate), "left"),
    Measure(
        "attenuation_db", SILENT, "dB", lambda part: attenuation_db(part.mixture, part.estimate), "below mixture"
    ),
    Measure(
        "audible_share", SILENT, "%", lambda part: audible_share(part.estimate, part.sample_rate),
        "audible", ("mean",),
    ),
)  # fmt: skip
MAIN_MEASURE = "sdr_db"  # what plots and examples show


def score_stem(reference: np.ndarray, estimate: np.ndarray, mixture: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Scores one stem by every measure.

    The stem's active part are the frames in which it is active; its silent part, those in which it is not, but the
    mixture is.

    Args:
        reference, estimate, mixture: waveforms of one shape; the reference is the clean stem.
        sample_rate: in Hz.

    Returns:
        The value of each measure of MEASURES, by its key; NaN where it is undefined.
    """
    active = activity(reference, sample_rate)
    silent = ~active & activity(mixture, sample_rate)
    parts = {}
    for name, wanted in ((ACTIVE, active), (SILENT, silent)):
        s, e, m = (select_frames(waveform, wanted, sample_rate) for waveform in (reference, estimate, mixture))
        parts[name] = Part(s, e, m, sample_rate)
    return {
        measure.key: measure.score(parts[measure.part]) if parts[measure.part].seconds else measure.if_empty
        for measure in MEASURES
    }


def consistency(mixture: np.ndarray, estimates: Sequence[np.ndarray], sample_rate: int) -> dict[str, float]:
    """Measures whether estimates add up to the mixture that they were separated from.

    Args:
        mixture: waveform, the sum of the stems that are estimated.
        estimates: one waveform per stem, of any length.
        sample_rate: in Hz.

    Returns:
        sum_sdr_db: SDR of the sum of the estimates as an estimate of the mixture.
        extra_samples: length of the longest estimate minus that of the mixture.
        lag_samples: delay of the sum relative to the mixture at which their cross-correlation is largest, within
            MAX_LAG_S; 0 for aligned estimates, NaN if the sum or the mixture is silent.
    """
    total = np.zeros((max(map(len, estimates)), *mixture.shape[1:]), np.float32)
    for estimate in estimates:
        total[: len(estimate)] += estimate
    length = min(len(mixture), len(total))
    mono = [np.asarray(w[:length], np.float64).reshape(length, -1).mean(axis=1) for w in (mixture, total)]
    lag = float("nan")
    if mono[0].any() and mono[1].any():
        correlation = scipy.signal.correlate(mono[1], mono[0], method="fft")
        lags = scipy.signal.correlation_lags(length, length)
        near = np.abs(lags) <= MAX_LAG_S * sample_rate
        lag = float(lags[near][np.argmax(np.abs(correlation[near]))])
    return {
        "sum_sdr_db": _sdr(mixture[:length], total[:length]),
        "extra_samples": float(len(total) - len(mixture)),
        "lag_samples": lag,
    }


def leakage(references: Sequence[np.ndarray], estimates: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
    """Finds out where each stem goes: the gain at which each reference is contained in each estimate.

    Each estimate is fitted as a sum of the references at constant gains, with the least squared error: the projection
    onto all sources of BSSEval, with gains in place of filters (Vincent, Gribonval & Févotte 2006). For a perfect
    separation it is the identity matrix.

    Args:
        references, estimates: waveforms of one shape.
        sample_rate: in Hz.

    Returns:
        float64 [reference, estimate]; NaN for a reference that is silent.
    """
    n = len(references)
    products = np.zeros((n, n + len(estimates)))  # of each reference with all waveforms
    for parts in zip(*(frames(waveform, sample_rate) for waveform in (*references, *estimates))):
        block = np.stack([np.ravel(part) for part in parts]).astype(np.float64)
        products += block[:n] @ block.T
    gains = np.linalg.lstsq(products[:, :n], products[:, n:], rcond=None)[0]
    gains[np.diag(products) == 0] = np.nan
    return gains


def ideal_ratio_mask(mixture: np.ndarray, references: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Applies the ideal ratio mask |S_i| / sum_j |S_j| of each reference to the mixture's spectrogram.

    This is the oracle IRM1 of SiSEC 2018 (Stöter, Liutkus & Ito 2018). What the mixture holds beyond the references
    counts as one more stem.

    Args:
        mixture: [time, channel].
        references: the stems, each [time, channel].

    Yields:
        The masked mixture for each reference, float32 [time, channel].
    """
    rest = mixture - np.sum(references, axis=0)
    spectrum, total = _stft(mixture), np.abs(_stft(rest))
    for reference in references:
        total += np.abs(_stft(reference))
    total += np.finfo(np.float32).tiny
    for reference in references:
        _, waveform = scipy.signal.istft(spectrum * (np.abs(_stft(reference)) / total), nperseg=MASK_FRAME_SAMPLES)
        yield waveform.T[: len(mixture)].astype(np.float32)


def finite_median(values: npt.ArrayLike) -> float:
    """Computes the median of the values that are finite; NaN if none is."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(numbers)) if len(numbers) else float("nan")


def bootstrap_interval(
    values: npt.ArrayLike, statistic: Callable = np.mean, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Computes the percentile bootstrap interval of a statistic over songs (Efron & Tibshirani 1993, section 13.3).

    Args:
        values: one number per song.
        statistic: numpy.mean, numpy.median, or another function with an `axis`.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        (low, high); NaN for fewer than two values.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    low, high = scipy.stats.bootstrap(
        (values,), statistic, n_resamples=RESAMPLES, confidence_level=confidence, method="percentile", random_state=rng
    ).confidence_interval
    return float(low), float(high)


def _sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Computes `sdr` of one waveform."""
    return float(sdr(np.reshape(reference, (-1, 1)), np.reshape(estimate, (-1, 1)))[0])


def _stft(waveform: np.ndarray) -> np.ndarray:
    """Transforms [time, channel] to complex64 [channel, frequency, frame]."""
    padded = np.pad(waveform, ((0, max(0, MASK_FRAME_SAMPLES - len(waveform))), (0, 0)))
    return scipy.signal.stft(padded.T, nperseg=MASK_FRAME_SAMPLES)[2]
