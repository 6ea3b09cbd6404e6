"""Lets each instrument play from another piece, at the tempo and in the key of the first one.

Folders that hold one kind of instrument each (quartets, drummers, songs with piano) become bands this way. Beat and key
are estimated from the notes: a wrong guess is one more variation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_gen import midi
from data_gen.instruments import Instrument

MAX_STRETCH = 2**0.5  # tempos further apart are matched at half or double speed
_STEP_S = 0.01  # resolution of the beat
_SHORTEST_S, _LONGEST_S = 0.25, 1.2  # period of a beat: 240 to 50 a minute
_MAX_REPEATS = 8  # of a short piece within a long one
_MAX_PORTS = 15  # pieces beside the first one, each on a port of its own


def combine(
    base: midi.Piece,
    parts: Mapping[Instrument, midi.Piece],
    instruments: Sequence[Instrument],
    rng: np.random.Generator,
) -> midi.Piece:
    """Returns the first piece with the parts of some instruments taken from other pieces.

    Args:
        base: gives the length, the tempo, the key and all parts that are not replaced.
        parts: instrument -> the piece that it plays instead.
        instruments: all that are played; notes of others stay out.
        rng: draws where each of the other pieces begins.
    """
    kept = [instrument for instrument in instruments if instrument not in parts]
    events = [_only(base.events, kept)]
    for port, (instrument, part) in enumerate(list(parts.items())[:_MAX_PORTS], start=1):
        events.append(_fit(part, instrument, base, port, rng))
    merged = np.concatenate(events)
    merged = merged[np.argsort(merged["time_s"], kind="stable")]
    return midi.Piece(base.name, merged, base.duration_s)


def _only(events: np.ndarray, instruments: Sequence[Instrument]) -> np.ndarray:
    """Returns the events of one port without the notes of other instruments."""
    is_note = events["kind"] == midi.NOTE_ON
    is_wanted = np.zeros(len(events), bool)
    for instrument in instruments:
        is_wanted |= is_note & instrument.owns(events)
    kept = events[is_wanted | ~is_note]
    return kept[kept["channel"] < 16]


def _fit(part: midi.Piece, instrument: Instrument, base: midi.Piece, port: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the events of a part on the beat and in the key of the first piece, as long as that one."""
    period_s, phase_s = beat(base)
    own_period_s, own_phase_s = beat(part)
    stretch = period_s / own_period_s
    while stretch > MAX_STRETCH:
        stretch /= 2
    while stretch < 1 / MAX_STRETCH:
        stretch *= 2
    own = _only(part.events, (instrument,)).copy()
    length_s = max(np.ceil(part.duration_s * stretch / period_s), 1) * period_s
    # It begins somewhere on a beat, and again from its beginning when it is over.
    begin_s = phase_s - own_phase_s * stretch - period_s * int(rng.integers(max(1, int(length_s / period_s))))
    repeats = min(_MAX_REPEATS, int((base.duration_s - begin_s) / length_s) + 1)
    shift = 0 if instrument.is_percussion else key_shift(part, base)
    if shift:
        is_pitched = np.isin(own["kind"], (midi.NOTE_ON, midi.NOTE_OFF, midi.KEY_PRESSURE))
        own["number"][is_pitched] = np.clip(own["number"][is_pitched].astype(np.int16) + shift, 0, 127)
    own["channel"] += 16 * port
    copies = []
    for repeat in range(repeats):
        copy = own.copy()
        for field in ("time_s", "end_s"):
            copy[field] = copy[field] * stretch + begin_s + repeat * length_s
        copies.append(copy)
    events = np.concatenate(copies)
    events = events[
        (events["time_s"] <= base.duration_s) & ((events["time_s"] >= 0) | (events["kind"] != midi.NOTE_ON))
    ]
    events["time_s"] = np.maximum(events["time_s"], 0)  # controllers from before the beginning hold in it
    events["end_s"] = np.clip(events["end_s"], 0, base.duration_s)
    return events


def beat(piece: midi.Piece) -> tuple[float, float]:
    """Estimates the beat from the onsets of the notes.

    Returns:
        period_s: the lag at which the onsets are most like themselves, weighted towards half a second.
        phase_s: time of a beat.
    """
    onsets = np.zeros(round(min(piece.duration_s, 120.0) / _STEP_S) + 2)
    at = np.round(piece.notes["time_s"] / _STEP_S).astype(int)
    np.add.at(onsets, at[at < len(onsets)], 1.0)
    onsets = np.convolve(np.sqrt(onsets), np.hanning(7), "same")
    spectrum = np.fft.rfft(onsets, 2 * len(onsets))
    likeness = np.fft.irfft(np.square(np.abs(spectrum)))
    lags = np.arange(round(_SHORTEST_S / _STEP_S), round(_LONGEST_S / _STEP_S))
    lags = lags[lags < len(onsets)]
    if not len(lags):
        return 0.5, 0.0
    weights = np.exp(-0.5 * np.square(np.log2(lags * _STEP_S / 0.5) / 0.8))
    period = int(lags[(likeness[lags] * weights).argmax()])
    whole = onsets[: len(onsets) // period * period].reshape(-1, period)
    return period * _STEP_S, float(whole.sum(axis=0).argmax()) * _STEP_S if len(whole) else 0.0


def key_shift(piece: midi.Piece, other: midi.Piece) -> int:
    """Returns by how many semitones, -5 to 6, to move a piece so that it sounds in the key of another one."""
    ours, theirs = _pitch_classes(piece), _pitch_classes(other)
    if not ours.any() or not theirs.any():
        return 0
    shifts = sorted(range(-5, 7), key=abs)
    return max(shifts, key=lambda shift: float(np.roll(ours, shift) @ theirs))


def _pitch_classes(piece: midi.Piece) -> np.ndarray:
    """Returns how long each of the twelve pitch classes sounds, of unit energy; zeros without pitched notes."""
    notes = piece.notes
    notes = notes[~midi.is_percussion(notes)]
    lengths_s = np.minimum(notes["end_s"] - notes["time_s"], 2.0)
    classes = np.bincount(notes["number"] % 12, lengths_s, 12)
    return classes / max(float(np.sqrt(np.square(classes).sum())), 1e-12)
