"""Random effects on rendered or recorded stems, such as a producer, a room and a microphone put on them.

Effects are drawn for each visit to a song, so that a model does not learn the sound of a few sources. Whatever they do,
the mixture stays the sum of the stems: what changes the mixture as a whole is applied to every stem, linear parts as
they are and the limiter as the gain over time that it computes from the mixture.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # its modules are loaded when they are used, since that takes a second
import soundfile

from data_gen.stems import add_up

BLOCK_S = 0.002  # level detectors work on blocks of this length
LOW_END = ("drums", "bass")  # stems that keep their lowest frequencies in a mixture
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclasses.dataclass(frozen=True)
class EffectChances:
    """How probable each effect is, 0 to 1: for each stem at each visit, `low_cut` and `master` for the whole mixture.

    Attributes:
        equaliser: one to three shelves and peaks of up to 9 dB.
        compression: a compressor with a ratio of 2 to 8.
        saturation: soft clipping.
        room: an artificial room, with a reverberation time of 0.1 to 0.8 s.
        bandwidth: a low-pass or a high-pass filter, as of old recordings and cheap microphones.
        codec: MP3, encoded and decoded.
        noise: the noise of a microphone, 30 to 60 dB below the stem.
        low_cut: a high-pass filter at 60 to 180 Hz on all stems but drums and bass, where a bass plays: engineers leave
            the low end to these two.
        master: equaliser, limiter and gain on the mixture, and thereby on every stem.
    """

    equaliser: float = 0.0
    compression: float = 0.0
    saturation: float = 0.0
    room: float = 0.0
    bandwidth: float = 0.0
    codec: float = 0.0
    noise: float = 0.0
    low_cut: float = 0.0
    master: float = 0.0


def apply_effects(
    stems: np.ndarray, names: Sequence[str], sample_rate: int, chances: EffectChances, rng: np.random.Generator
) -> np.ndarray:
    """Returns stems with random effects; silent stems stay as they are.

    Args:
        stems: float32 [stem, channel, time].
        names: of the stems.
        sample_rate: in Hz.
        chances: how probable each effect is.
        rng: draws which effects there are, and their strength.

    Returns:
        float32 [stem, channel, time]. With all chances 0 it is `stems`, and nothing is drawn.
    """
    if chances == EffectChances():
        return stems
    # All stems draw their effects first: what one draws does not depend on whether another is silent.
    probabilities = [getattr(chances, name) for name in STEM_EFFECTS]
    has_effect = rng.random((len(stems), len(STEM_EFFECTS))) < probabilities
    seeds = rng.integers(2**63, size=len(stems))
    has_low_cut, has_master = rng.random(2) < (chances.low_cut, chances.master)
    has_low_cut &= any(name == "bass" and stem.any() for name, stem in zip(names, stems))
    treated = np.empty(stems.shape, np.float32)
    for position, stem in enumerate(stems):
        stem_rng = np.random.default_rng(seeds[position])
        if stem.any():
            for effect, is_on in zip(STEM_EFFECTS.values(), has_effect[position]):
                if is_on:
                    stem = effect(stem, sample_rate, stem_rng)
            if has_low_cut and names[position] not in LOW_END:
                stem = cut_low_end(stem, sample_rate, stem_rng)
        treated[position] = stem
    if has_master:
        treated = _master(treated, sample_rate, rng)
    return treated


def equalise(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [..., time] through one to three random shelves and peaks."""
    sections = []
    for kind in rng.choice(("low shelf", "peak", "high shelf"), rng.integers(1, 4)):
        lowest, highest = {"low shelf": (60, 400), "peak": (120, 6_000), "high shelf": (1_500, 7_000)}[kind]
        frequency = np.exp(rng.uniform(np.log(lowest), np.log(min(highest, 0.4 * sample_rate))))
        width = rng.uniform(0.5, 2.0) if kind == "peak" else 0.7
        sections.append(_biquad(kind, frequency, rng.uniform(-9.0, 9.0), width, sample_rate))
    return _filter(np.stack(sections), audio)


def compress(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [channel, time] from a compressor: what is louder than a threshold rises more slowly.

    The level that it follows is the power of all channels, smoothed over 5 to 50 ms. The RMS level is kept.
    """
    block = max(1, round(BLOCK_S * sample_rate))
    powers = _block_maxima(np.square(audio).mean(axis=0), block)
    memory = np.exp(-BLOCK_S / rng.uniform(0.005, 0.05))
    powers = scipy.signal.lfilter([1 - memory], [1, -memory], powers)
    levels_db = 10 * np.log10(powers + 1e-10)
    loud_db = np.percentile(levels_db, 90)
    threshold_db = loud_db - rng.uniform(3.0, 20.0)
    slope = 1 / rng.uniform(2.0, 8.0) - 1
    gains = 10 ** (slope * np.maximum(0.0, levels_db - threshold_db) / 20)
    return _with_power_of(audio, audio * _between_blocks(gains, block, audio.shape[-1]))


def saturate(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [channel, time] softly clipped, a little to strongly. The RMS level is kept."""
    del sample_rate
    drive = 10 ** (rng.uniform(-6.0, 15.0) / 20) / max(1e-5, 3 * float(np.sqrt(np.square(audio).mean())))
    return _with_power_of(audio, np.tanh(drive * audio))


def reverberate(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [channel, time] in an artificial room: each channel has its own decaying noise as the echo."""
    decay_s = rng.uniform(0.1, 0.8)  # until the echo is 60 dB down
    n_echo = round(decay_s * sample_rate)
    times_s = np.arange(n_echo) / sample_rate
    echo = rng.standard_normal((len(audio), n_echo)) * 10 ** (-3 * times_s / decay_s)
    brightness = _butterworth(rng.uniform(1_500, 6_000), "lowpass", 1, sample_rate)
    echo = scipy.signal.sosfilt(brightness, echo, axis=-1)
    echo[:, : round(rng.uniform(0.001, 0.02) * sample_rate)] = 0  # the first reflection comes later than the sound
    echo /= np.sqrt(np.square(echo).sum(axis=-1, keepdims=True)) + 1e-9
    echo *= 10 ** (-rng.uniform(3.0, 18.0) / 20)
    return audio + scipy.signal.oaconvolve(audio, echo.astype(np.float32), axes=-1)[:, : audio.shape[-1]]


def limit_bandwidth(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [..., time] without its highest or its lowest frequencies."""
    if rng.random() < 0.5:
        return _filter(_butterworth(rng.uniform(2_000, 7_500), "lowpass", 4, sample_rate), audio)
    return _filter(_butterworth(rng.uniform(40, 250), "highpass", 2, sample_rate), audio)


def cut_low_end(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [..., time] without what is below 60 to 180 Hz, which mixtures leave to drums and bass."""
    return _filter(_butterworth(rng.uniform(60, 180), "highpass", 2, sample_rate), audio)


def encode(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [channel, time] as an MP3 file gives it back; unchanged at rates that MP3 does not have."""
    if sample_rate not in MP3_RATES or len(audio) > 2:
        return audio
    peak = float(np.abs(audio).max()) + 1e-9
    file = io.BytesIO()
    soundfile.write(
        file,
        (audio / peak * 0.5).T,
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",
        compression_level=rng.uniform(0.3, 0.9),
    )
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32", always_2d=True)[0].T
    whole = np.zeros_like(audio)
    n = min(audio.shape[-1], decoded.shape[-1])
    whole[:, :n] = decoded[:, :n] * (peak / 0.5)
    return whole


def add_noise(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns audio [channel, time] with noise between white and brown, 30 to 60 dB below it."""
    del sample_rate
    colour = rng.uniform(0.0, 0.98)
    noise = scipy.signal.lfilter([1.0], [1.0, -colour], rng.standard_normal(audio.shape, np.float32), axis=-1)
    level = 10 ** (-rng.uniform(30.0, 60.0) / 20) * np.sqrt(np.square(audio).mean() / np.square(noise).mean())
    return audio + (level * noise).astype(np.float32)


# In the order in which a recording meets them.
STEM_EFFECTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "saturation": saturate,
    "room": reverberate,
    "bandwidth": limit_bandwidth,
    "noise": add_noise,
    "codec": encode,
    "compression": compress,
    "equaliser": equalise,
}


def limiter_gain(mixture: np.ndarray, sample_rate: int, ceiling: float) -> np.ndarray:
    """Returns the gain over time, float32 [time], that keeps a mixture [channel, time] within a ceiling, smoothly.

    The lowest gain needed within 5 ms before and after a sample is averaged over the same time, so that the gain is
    down when a peak comes.
    """
    needed = np.minimum(1.0, ceiling / (np.abs(mixture).max(axis=0) + 1e-9))
    width = 2 * round(0.005 * sample_rate) + 1
    lowest = scipy.ndimage.minimum_filter1d(needed, width, mode="nearest")
    return scipy.ndimage.uniform_filter1d(lowest, width, mode="nearest").astype(np.float32)


def _master(stems: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns stems [stem, channel, time] as they sound in a mixture with equaliser, limiter and gain."""
    stems = equalise(stems, sample_rate, rng)
    mixture = add_up(stems)
    ceiling = float(np.abs(mixture).max()) * 10 ** (-rng.uniform(0.0, 9.0) / 20)
    gain = limiter_gain(mixture, sample_rate, ceiling) if ceiling else np.float32(1)
    return stems * gain * np.float32(10 ** (rng.uniform(-6.0, 6.0) / 20))


def _biquad(kind: str, frequency: float, gain_db: float, width: float, sample_rate: int) -> np.ndarray:
    """Returns a second-order section [b0, b1, b2, 1, a1, a2] of the Audio EQ Cookbook by Robert Bristow-Johnson.

    Args:
        kind: "peak", "low shelf" or "high shelf".
        frequency: centre or corner, in Hz.
        gain_db: at the centre, or beyond the corner.
        width: the Q of the cookbook.
        sample_rate: in Hz.
    """
    amplitude = 10 ** (gain_db / 40)
    angle = 2 * np.pi * frequency / sample_rate
    cosine, alpha = np.cos(angle), np.sin(angle) / (2 * width)
    if kind == "peak":
        b = (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude)
        a = (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude)
    else:
        sign = 1 if kind == "low shelf" else -1
        more, less, root = amplitude + 1, amplitude - 1, 2 * np.sqrt(amplitude) * alpha
        b = (
            amplitude * (more - sign * less * cosine + root),
            sign * 2 * amplitude * (less - sign * more * cosine),
            amplitude * (more - sign * less * cosine - root),
        )
        a = (
            more + sign * less * cosine + root,
            sign * -2 * (less + sign * more * cosine),
            more + sign * less * cosine - root,
        )
    return np.array([*b, *a]) / a[0]


def _butterworth(frequency: float, kind: str, order: int, sample_rate: int) -> np.ndarray:
    return scipy.signal.butter(order, min(frequency, 0.45 * sample_rate), kind, fs=sample_rate, output="sos")


def _filter(sections: np.ndarray, audio: np.ndarray) -> np.ndarray:
    return scipy.signal.sosfilt(sections.astype(np.float32), audio, axis=-1)


def _block_maxima(values: np.ndarray, block: int) -> np.ndarray:
    n_blocks = -(-len(values) // block)
    return np.pad(values, (0, n_blocks * block - len(values))).reshape(n_blocks, block).max(axis=1)


def _between_blocks(gains: np.ndarray, block: int, n_samples: int) -> np.ndarray:
    """Interpolates one gain per block, at its centre, to one per sample; float32 [time]."""
    centres = (np.arange(len(gains)) + 0.5) * block
    return np.interp(np.arange(n_samples), centres, gains).astype(np.float32)


def _with_power_of(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return after * np.sqrt(np.square(before).mean() / (np.square(after).mean() + 1e-12)).astype(np.float32)
