"""Computes instruments from a seed: presets of a SoundFont that no recording is needed for, and no two of them alike.

Struck and plucked sounds are sums of damped partials, at the frequencies of a stiff string or of the modes of a bar or
a membrane (Fletcher and Rossing, The Physics of Musical Instruments). Held sounds are loops whose partials have a
random width (the PADsynth algorithm of Paul Nasca), or frequency modulation. Random resonances shape them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft

from data_gen import soundfont_file as sf
from data_gen.instruments import Instrument, playable_pitches
from data_gen.soundfont_file import Preset, Sample, Zone, timecents

RATE_HZ = 32_000
VERSION = 1  # raise it when the level of the sounds changes
ZONE_KEYS = 8  # keys that share a sample
_LOOP = 2**14  # samples of a loop, about half a second
_LEVEL = 0.12  # RMS of a sample
_MEMBRANE = np.array([1.0, 1.59, 2.14, 2.30, 2.65, 2.92, 3.16, 3.50, 3.60, 4.06])  # modes, relative to the lowest
_BAR = np.array([1.0, 2.76, 5.40, 8.93, 13.34])


class _Voice(NamedTuple):
    """How the sounds of a preset are made: what all its zones share.

    Attributes:
        kind: "string", "bar", "membrane", "held" or "modulated".
        slope_db: fall of the partials with each octave.
        peaks: [peak, 3] resonances: centre in octaves above 20 Hz, width in octaves, gain in dB.
        values: further draws from 0 to 1, whose meaning depends on the kind.
        envelope: generators of the volume envelope.
    """

    kind: str
    slope_db: float
    peaks: np.ndarray
    values: np.ndarray
    envelope: dict[int, int]


def make_presets(
    instrument: Instrument, programs: Iterable[int], keys: Sequence[int], seed: int, bank: int
) -> list[Preset]:
    """Computes presets of an instrument.

    Args:
        instrument: gives the range, and says whether it is percussion, which has one preset of program 0.
        programs: those that are wanted.
        keys: the MIDI keys that are wanted; a key sounds the same whatever others are.
        seed: of everything.
        bank: SoundFont bank of the presets.
    """
    if instrument.is_percussion:
        rng = np.random.default_rng([seed, 128])
        tuning, length = 2 ** rng.uniform(-0.5, 0.5), 2 ** rng.uniform(-0.8, 0.6)
        zones = [_drum(key, tuning, length, np.random.default_rng([seed, 128, _group(key)])) for key in keys]
        return [Preset("kit", bank, 0, zones)]
    low, high = playable_pitches(instrument)
    roots = sorted({min(max(key, low), high) // ZONE_KEYS * ZONE_KEYS + ZONE_KEYS // 2 for key in keys})
    return [Preset(f"p{program}", bank, program, list(_zones(program, roots, seed))) for program in programs]


def _zones(program: int, roots: Sequence[int], seed: int) -> Iterable[Zone]:
    voice = _draw_voice(program, np.random.default_rng([seed, program]))
    for number, root in enumerate(roots):
        sample = _sample(voice, root, np.random.default_rng([seed, program, root]))
        lowest = root - ZONE_KEYS // 2 if number else 0
        highest = root + ZONE_KEYS // 2 - 1 if number + 1 < len(roots) else 127
        yield Zone(sample, (lowest, highest), generators=voice.envelope)


def _draw_voice(program: int, rng: np.random.Generator) -> _Voice:
    """Draws how a General MIDI program sounds, from what its family of eight has in common."""
    family = program // 8
    attack_s, release_s, slope_db = rng.uniform(0.001, 0.01), rng.uniform(0.1, 0.5), rng.uniform(4, 12)
    decaying = {
        0: ("string", "string", "modulated"),
        1: ("bar", "modulated"),
        3: ("string",),
        4: ("string", "modulated"),
    }
    decaying |= {13: ("string", "bar"), 14: ("bar", "membrane"), 15: ("membrane", "held")}
    kinds = decaying.get(family, ("held", "held", "modulated") if family >= 10 else ("held",))
    if program in (45, 46, 47):  # pizzicato, harp, timpani
        kinds = ("membrane",) if program == 47 else ("string",)
    if program in (29, 30, 38, 39):  # distorted guitars and synthesised basses are held
        kinds = ("held",)
    kind = str(rng.choice(kinds))
    if kind == "held":
        if family in (5, 6, 11):  # bowed, choirs, pads
            attack_s, release_s = rng.uniform(0.03, 0.3), rng.uniform(0.15, 0.8)
        elif family in (7, 8, 9):  # blown
            attack_s, release_s = rng.uniform(0.015, 0.1), rng.uniform(0.05, 0.2)
    n_peaks = int(rng.integers(2, 6))
    peaks = np.stack([rng.uniform(2, 9, n_peaks), rng.uniform(0.2, 1.2, n_peaks), rng.uniform(-9, 12, n_peaks)], 1)
    values = rng.random(8)
    if family in (5, 6, 11):
        values[0] = 0.4 + 0.6 * values[0]  # many players: wide partials
    elif family in (7, 8, 9, 2):
        values[0] *= 0.3
    envelope = {sf.ATTACK: timecents(attack_s), sf.RELEASE: timecents(release_s)}
    if kind == "held" and family not in (2, 5, 6, 7, 8, 9):
        envelope |= {sf.DECAY: timecents(rng.uniform(0.3, 3)), sf.SUSTAIN: int(rng.uniform(0, 200))}
    return _Voice(kind, slope_db, peaks, values, envelope)


def _sample(voice: _Voice, key: int, rng: np.random.Generator) -> Sample:
    """Computes the sample of a key."""
    hz = 440 * 2 ** ((key - 69) / 12)
    if voice.kind == "held":
        return _held(voice, key, hz, rng)
    length_s = float(np.clip(3.5 - key / 30, 0.6, 2.5))
    if voice.kind == "modulated":
        wave = _modulated(voice, hz, length_s)
    else:
        wave = _struck(voice, hz, length_s, rng)
    wave[-400:] *= np.linspace(1, 0, 400)
    return Sample(_normalised(wave), RATE_HZ, key)


def _shape(voice: _Voice, hz: np.ndarray) -> np.ndarray:
    """Returns the linear amplitudes that the resonances of a voice give to partials, without its slope."""
    octaves = np.log2(hz / 20)
    centre, width, gain_db = voice.peaks.T[:, :, None]
    return 10 ** ((gain_db * np.exp(-0.5 * np.square((octaves - centre) / width))).sum(axis=0) / 20)


def _partials(hz: float, most: int = 40) -> np.ndarray:
    """Returns the numbers of the harmonics below the Nyquist frequency."""
    return np.arange(1, max(2, min(most, int(0.45 * RATE_HZ / hz))) + 1)


def _struck(voice: _Voice, hz: float, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Sums damped partials: of a stiff string (one to three of them, slightly out of tune), a bar or a membrane."""
    v = voice.values
    if voice.kind == "string":
        n = _partials(hz)
        ratios = n * np.sqrt(1 + 10 ** (-5 + 1.7 * v[0]) * n**2)
        amplitudes = np.abs(np.sin(np.pi * n * (0.06 + 0.4 * v[1]))) + 0.02  # where it is struck
        ratios = np.concatenate(
            [ratios * 2 ** (cents / 1_200) for cents in rng.normal(0, 2 * v[2], 1 + int(2.9 * v[3]))]
        )
        amplitudes = np.resize(amplitudes, len(ratios))
    else:
        ratios = (_BAR if voice.kind == "bar" else _MEMBRANE) * (1 + 0.03 * rng.standard_normal(1))
        amplitudes = rng.uniform(0.2, 1, len(ratios))
    frequencies = ratios * hz
    amplitudes = amplitudes * ratios ** (-voice.slope_db / 6) * _shape(voice, frequencies)
    decay_s = (0.3 + 2 * v[4]) * (200 / hz) ** 0.3 / (1 + (0.02 + 0.3 * v[5]) * (ratios - 1))
    wave = damped_partials(frequencies, amplitudes, decay_s, round(length_s * RATE_HZ), rng)
    knock = rng.standard_normal(1_000) * np.exp(-np.arange(1_000) / (100 + 200 * v[6]))
    wave[:1_000] += 0.3 * v[7] ** 2 * np.abs(wave).max() * knock / 3
    return wave


def damped_partials(
    hz: np.ndarray, amplitudes: np.ndarray, decay_s: np.ndarray, n_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Sums partials with random phases, float [time].

    The time n = a B + b of each partial e^(s n) factors into e^(s a B) and e^(s b), so that the sum is one product of
    two small matrices, where computing each sine would take a hundred times as long.

    Args:
        hz: frequency of each partial; those above the Nyquist frequency are left out.
        amplitudes, decay_s: of each; time in which it falls to 1 / e.
        n_samples: how many.
        rng: draws the phases.
    """
    audible = hz < 0.48 * RATE_HZ
    hz, amplitudes, decay_s = hz[audible], amplitudes[audible], decay_s[audible]
    block = int(np.ceil(np.sqrt(n_samples)))
    steps = (2j * np.pi * hz - 1 / decay_s) / RATE_HZ
    first = amplitudes * np.exp(2j * np.pi * rng.random(len(hz)))
    starts = np.cumprod(np.vstack([first, np.tile(np.exp(steps * block), (block - 1, 1))]), axis=0)
    within = np.cumprod(np.vstack([np.ones(len(hz)), np.tile(np.exp(steps), (block - 1, 1))]), axis=0).T
    product = starts.real.astype(np.float32) @ within.real.astype(np.float32)
    product -= starts.imag.astype(np.float32) @ within.imag.astype(np.float32)
    return product.ravel()[:n_samples].astype(np.float64)


def _held(voice: _Voice, key: int, hz: float, rng: np.random.Generator) -> Sample:
    """Computes a loop: each partial is a narrow band of random phases, as of players who are not quite in tune."""
    v = voice.values
    n = _partials(hz, 64)
    amplitudes = n ** (-voice.slope_db / 6) * _shape(voice, n * hz)
    if v[1] < 0.3:  # a closed pipe or a square wave
        amplitudes[1::2] *= v[2]
    if v[6] > 0.7:  # drawbars
        amplitudes *= rng.random(len(n)) < 0.5 + 0.5 * (n == 1)
    cycles = max(1, round(hz * _LOOP / RATE_HZ))  # a whole number, so that the loop is seamless
    spectrum = np.zeros(_LOOP // 2 + 1, complex)
    width = 1 + v[0] ** 2 * 0.015 * n * cycles  # bins: up to 25 cents to each side
    for number, amplitude, bins in zip(n.tolist(), amplitudes.tolist(), width.tolist()):
        reach = int(2 * bins) if bins > 1.5 else 0
        at = number * cycles + np.arange(-reach, reach + 1)
        at = at[(at > 0) & (at < len(spectrum))]
        profile = np.exp(-np.square((at - number * cycles) / bins))
        spectrum[at] += (
            amplitude * profile / np.sqrt(np.square(profile).sum()) * np.exp(2j * np.pi * rng.random(len(at)))
        )
    if v[3] > 0.6:  # breath or bow
        noise = np.exp(2j * np.pi * rng.random(len(spectrum))) * _shape(voice, np.arange(1, len(spectrum) + 1) * 1.0)
        spectrum += 0.002 * v[4] * np.sqrt(np.square(amplitudes).sum()) * noise
    wave = np.fft.irfft(spectrum)
    if v[5] > 0.8 or voice.envelope.get(sf.SUSTAIN, 0) > 150:  # overdriven
        wave = np.tanh(wave * (1 + 6 * v[7]) / (np.sqrt(np.square(wave).mean()) + 1e-12))
    cents = 1_200 * np.log2(cycles * RATE_HZ / _LOOP / hz)
    wave = _normalised(np.concatenate([wave, wave[:64]]))
    shift = round(cents / 100)  # of very low keys, whose loop has few cycles
    return Sample(wave, RATE_HZ, key + shift, int(np.clip(round(cents - 100 * shift), -99, 99)), (16, 16 + _LOOP))


def _modulated(voice: _Voice, hz: float, length_s: float) -> np.ndarray:
    """Modulates the phase of a sine by another, less and less (Chowning 1973)."""
    v = voice.values
    time_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    ratio = (1, 1, 2, 3, 0.5, 4, 7, 14)[int(7.99 * v[0])] * (1 + 0.002 * (v[1] - 0.5))
    depth = min(0.5 + 5 * v[2], 0.3 * RATE_HZ / hz / max(ratio, 1)) * np.exp(-time_s / (0.1 + 1.5 * v[3]))
    fall = np.exp(-time_s / (0.3 + 2 * v[4]))
    return fall * np.sin(2 * np.pi * hz * time_s + depth * np.sin(2 * np.pi * hz * ratio * time_s))


def _normalised(wave: np.ndarray) -> np.ndarray:
    """Brings a wave to the level _LEVEL in its loudest quarter of a second."""
    block = RATE_HZ // 4
    loudest = max(np.square(wave[i : i + block]).mean() for i in range(0, len(wave), block))
    wave = wave * (_LEVEL / np.sqrt(loudest + 1e-12))
    return np.clip(wave, -1.0, 1.0)


# ---- Percussion -----------------------------------------------------------------------------------------------------
_KICKS, _SNARES, _CLICKS, _TOMS = (35, 36), (38, 40), (31, 37, 39, 75, 76, 77), (41, 43, 45, 47, 48, 50)
_HATS, _CYMBALS, _SHAKEN = (42, 44, 46), (49, 51, 52, 53, 55, 57, 59), (54, 58, 69, 70, 73, 74, 80, 81, 82)
_CLOSE_S = {42: 0.06, 44: 0.05, 46: 0.45}  # decay of the hats
_TOM_SEMITONES = {41: 0, 43: 2, 45: 5, 47: 7, 48: 10, 50: 12}


def _group(key: int) -> int:
    """Returns a number for drums that are one instrument: hats share their metal, toms their shell."""
    for number, group in enumerate((_KICKS, _SNARES, _TOMS, _HATS)):
        if key in group:
            return number
    return 10 + key


def _drum(key: int, tuning: float, length: float, rng: np.random.Generator) -> Zone:
    """Computes a drum of the General MIDI percussion map; keys outside it are drums of their own pitch."""
    v = rng.random(6)
    exclusive = {}
    if key in _KICKS:
        wave, level = _skin(50 * tuning, 0.25 * length, 1 + 3 * v[0], 0.05 + 0.3 * v[1], rng), 0.9
    elif key in _SNARES:
        skin = _skin(190 * tuning, 0.12 * length, 0.5 * v[0], 0.1, rng)
        wires = _noise(len(skin), 1_500 + 2_000 * v[1], 0.1 * length * (0.6 + v[2]), rng)
        wave, level = skin + (0.5 + 1.5 * v[3]) * wires, 0.7
    elif key in _TOMS:
        hz = 85 * tuning * 2 ** (_TOM_SEMITONES[key] / 12)
        wave, level = _skin(hz, 0.35 * length, 0.3 * v[0], 0.1 * v[1], rng), 0.7
    elif key in (*_HATS, *_CYMBALS):
        decay_s = _CLOSE_S.get(key, 0.9 * (0.5 + v[0])) * length
        wave = _metal(key in _HATS, decay_s, v, rng)
        level = 0.3 if key in _HATS else 0.4
        exclusive = {sf.EXCLUSIVE: 1} if key in _HATS else {}
    elif key in _CLICKS or key in _SHAKEN:
        decay_s = (0.02 if key in _CLICKS else 0.08) * length * (0.5 + v[0])
        wave, level = _noise(_length(6 * decay_s), 800 + 4_000 * v[1], decay_s, rng), 0.4
    else:
        wave, level = _skin(120 * tuning * 2 ** (v[0] * 2), 0.2 * length, 0.2 * v[1], 0.1, rng), 0.5
    wave[-400:] *= np.linspace(1, 0, len(wave[-400:]))
    wave = wave * (level / (np.abs(wave).max() + 1e-12))
    # A stroke rings until it has faded, however short the note is.
    return Zone(Sample(wave, RATE_HZ, key), (key, key), generators={sf.RELEASE: timecents(3.0), **exclusive})


def _length(seconds: float) -> int:
    """Returns the number of samples of a drum that has faded after some seconds, at most two."""
    return round(min(seconds, 2.0) * RATE_HZ)


def _skin(hz: float, decay_s: float, glide: float, click: float, rng: np.random.Generator) -> np.ndarray:
    """Computes a membrane whose pitch falls by `glide` octaves at the stroke, with a click."""
    n = _length(6 * decay_s)
    time_s = np.arange(n) / RATE_HZ
    phase = 2 * np.pi * hz * (time_s + glide * 0.03 * (1 - np.exp(-time_s / 0.03)))
    wave = np.sin(phase) * np.exp(-time_s / decay_s)
    modes = _MEMBRANE[1:]
    wave += damped_partials(hz * modes, 0.4 * rng.random(len(modes)), decay_s / (1 + modes), n, rng)
    return wave + click * _noise(n, 500, 0.008, rng)


def _metal(is_hat: bool, decay_s: float, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Computes a cymbal: many partials without order, and noise."""
    lowest = (2_000 if is_hat else 400) * (0.7 + 0.8 * v[1])
    hz = lowest * (0.48 * RATE_HZ / lowest) ** rng.random(80)
    n = _length(5 * decay_s)
    partials = damped_partials(hz, rng.random(80), decay_s * rng.uniform(0.4, 1.2, 80), n, rng)
    return partials + 4 * v[2] * _noise(n, 2 * lowest, 0.7 * decay_s, rng)


def _noise(n_samples: int, lowest_hz: float, decay_s: float, rng: np.random.Generator) -> np.ndarray:
    """Computes noise above a frequency that decays."""
    n = 2 * scipy.fft.next_fast_len(n_samples // 2 + 2, real=True)
    hz = np.arange(n // 2 + 1) * (RATE_HZ / n)
    spectrum = np.fft.rfft(rng.standard_normal(n)) / (1 + (lowest_hz / np.maximum(hz, 1.0)) ** 2)
    return np.fft.irfft(spectrum)[:n_samples] * np.exp(-np.arange(n_samples) / (decay_s * RATE_HZ))
