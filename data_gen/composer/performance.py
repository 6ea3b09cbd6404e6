"""A performance: positions in steps -> seconds, and the timing and the velocities of human players."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from data_gen.channels import DRUM_CHANNEL
from data_gen.composer.players import Part
from data_gen.composer.repertoire import METRES, Style
from data_gen.instruments import DRUM_BANK
from data_gen.midi import CONTROL, EVENT, NOTE_OFF, NOTE_ON

NOTE = np.dtype(  # of a part, before it is performed; start and length in steps
    [(name, float) for name in ("start", "length", "pitch", "accent", "energy")] + [("part", int), ("program", int)]
)
CHANGE = np.dtype(  # of a MIDI controller or the bend of a part; start in steps
    [("start", float), *((name, int) for name in ("part", "kind", "number", "value"))]
)
PLAYED = np.dtype([(name, float) for name in ("start_s", "end_s", "channel", "bank", "program", "pitch", "velocity")])
SHORTEST_S = 0.03  # strokes of one key that are closer than this sound as one


def make_clock(
    rng: random.Random, noise: np.random.Generator, style: Style, step_s: float, bars: int, metre: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from steps to seconds, with swing, a tempo that varies by bar and some ritardandos."""
    bar, beat = METRES[metre]
    bar_s = step_s * bar * (1 + noise.normal(0, rng.choice((0, 0, 0.004, 0.012)), bars + 1))
    if rng.random() < 0.3:
        bar_s[bars - 4 :] *= (1.04, 1.1, 1.2, 1.4, 1.4)
    if rng.random() < 0.15:  # a passage in another tempo
        first = rng.randrange(bars)
        bar_s[first : first + 8] *= rng.choice((0.9, 1.1, 1.2))
    bars_s = np.cumsum([0, rng.uniform(0.05, 0.4), *bar_s])  # before the first bar: time for the controls
    probability, unit = map(float, style.swing.split())
    swings = rng.random() < probability and bar % unit == 0 and (beat == 4 or unit == 2)
    late = unit / 2 * (1 + (rng.uniform(0.12, 0.36) if swings else 0))  # 1/3 makes triplets

    def seconds(steps: np.ndarray) -> np.ndarray:
        phase = steps % unit
        swung = steps - phase + np.interp(phase, (0, unit / 2, unit), (0, late, unit))
        return np.interp(swung, np.arange(-1, bars + 2) * bar, bars_s)

    return seconds


def perform(
    rng: random.Random,
    noise: np.random.Generator,
    parts: list[Part],
    notes: np.ndarray,
    controls: np.ndarray,
    seconds: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Gives the notes the timing and the velocities of human players.

    Args:
        rng, noise: what is drawn from.
        parts: the players.
        notes: [note] of the type NOTE.
        controls: [control] of the type CHANGE.
        seconds: from `make_clock`.

    Returns:
        The events in their order, [event] of the type `midi.EVENT`.
    """
    channels = np.array([part.channel for part in parts])
    played = _play(rng, noise, notes, channels, seconds)
    played = played[np.lexsort((played["start_s"], played["pitch"], played["channel"]))]
    same_key = (np.diff(played["channel"]) == 0) & (np.diff(played["pitch"]) == 0)
    before, after = played[:-1], played[1:]  # a key must be up before it is struck again
    before["end_s"] = np.where(same_key, np.minimum(before["end_s"], after["start_s"]), before["end_s"])
    played = played[played["end_s"] - played["start_s"] >= SHORTEST_S]

    events = np.zeros(len(controls) + 2 * len(played), EVENT)
    changes, ends, strokes = np.split(events, [len(controls), len(controls) + len(played)])
    changes["time_s"], changes["channel"] = seconds(controls["start"]), channels[controls["part"]]
    for name in ("kind", "number", "value"):
        changes[name] = controls[name]
    ends["kind"], ends["time_s"] = NOTE_OFF, played["end_s"]
    strokes["kind"], strokes["time_s"] = NOTE_ON, played["start_s"]
    for notes_of in (ends, strokes):
        notes_of["channel"], notes_of["number"] = played["channel"], played["pitch"]
    strokes["bank"], strokes["program"], strokes["value"] = played["bank"], played["program"], played["velocity"]
    rank = CONTROL - np.minimum(events["kind"], CONTROL)  # at one time: controls, ends, strokes
    return events[np.lexsort((rank, events["time_s"]))]


def _play(
    rng: random.Random,
    noise: np.random.Generator,
    notes: np.ndarray,
    channels: np.ndarray,
    seconds: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns the notes as they are played, [note] of the type PLAYED; `channels` are those of the parts."""
    flat, tight = rng.random() < 0.15, rng.random() < 0.4
    manner = [  # velocity, what an accent adds to it, seconds behind the beat
        (rng.choice((rng.triangular(40, 127, 98), rng.uniform(60, 135))), rng.choice((0, *[rng.uniform(3, 20)] * 5)),
         rng.uniform(-0.008, 0.015)) for _ in channels
    ]  # fmt: skip
    velocity, depth, late_s = (np.array(manner) * (1, not flat, not tight))[notes["part"]].T
    late_s = late_s + noise.normal(0, rng.choice((0, 0, 0.003, 0.006, 0.01)), len(notes))
    velocity = velocity + depth * (notes["accent"] + noise.normal(0, 0.3, len(notes)) + notes["energy"] / 10)
    played = np.zeros(len(notes), PLAYED)
    played["start_s"] = np.maximum(seconds(notes["start"]) + late_s, 0)
    ends_s = seconds(notes["start"] + notes["length"]) + late_s
    played["end_s"] = np.maximum(ends_s, played["start_s"] + 1.5 * SHORTEST_S)
    played["channel"], played["program"] = channels[notes["part"]], notes["program"]
    played["velocity"] = np.clip(np.round(velocity), 12, 127)
    is_drum = played["channel"] == DRUM_CHANNEL
    played["bank"] = np.where(is_drum, DRUM_BANK, 0)
    octaves = np.ceil(np.maximum(21 - notes["pitch"], 0) / 12) - np.ceil(np.maximum(notes["pitch"] - 108, 0) / 12)
    played["pitch"] = notes["pitch"] + 12 * np.where(is_drum, 0, octaves)  # into the range of a piano
    return played
