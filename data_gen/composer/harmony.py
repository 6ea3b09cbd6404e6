"""Harmony and rhythm: entries of the tables -> pitches and strokes."""

from __future__ import annotations

import bisect
import functools
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from data_gen.composer.repertoire import CHORDS, MODES, NUMERALS


class Chord(NamedTuple):
    """A chord of `length` steps: its root (a pitch class), and all pitches of the chord and of a matching scale."""

    start: int
    length: int
    root: int
    tones: tuple[int, ...]
    scale: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def make_chord(symbol: str, tonic: int, mode: str) -> tuple:
    """Returns the fields root, tones and scale of the Chord that a symbol such as bVII7 stands for in a key.

    Args:
        symbol: accidental, Roman numeral (lower case: minor) and suffix, see repertoire.CHORDS.
        tonic: pitch class of the key, 0 for C.
        mode: the scale of the key, semitones above the tonic.
    """
    match = re.fullmatch(r"([b#]?)([iIvV]+)(.*)", symbol)
    assert match, symbol
    accidental, numeral, suffix = match.groups()
    root = tonic + NUMERALS[numeral.lower()] + {"b": -1, "": 0, "#": 1}[accidental]
    tones = {(root + int(n)) % 12 for n in CHORDS["m" * numeral.islower() + suffix].split()}
    key = {(tonic + int(n)) % 12 for n in mode.split()}
    # A chord tone outside the key replaces the neighbouring tones of the key.
    scale = tones | {p for p in key if not {(p - 1) % 12, (p + 1) % 12} & (tones - key)}
    return root % 12, *(tuple(p for p in range(128) if p % 12 in pitches) for pitches in (tones, scale))


@functools.lru_cache(maxsize=4096)
def list_strokes(rhythm: str, bar: int) -> tuple[tuple[float, float, int], ...]:
    """Returns (start, length, accent from -1 to 1) of each stroke of a rhythm, repeated or cut to `bar` steps."""
    step = 4 / 3 if bar == 16 and len(rhythm) == 12 else 1
    rhythm = (rhythm * 20)[: round(bar / step)]
    found = re.finditer("[gxX]-*", rhythm)
    return tuple((m.start() * step, len(m[0]) * step, "gxX".index(m[0][0]) - 1) for m in found)


def voice(chord: Chord, kind: str, pivot: int) -> tuple[int, ...]:
    """Returns the pitches of a chord from the pivot up. With a constant pivot, voices move little between chords."""
    root = pivot + (chord.root - pivot) % 12
    i = bisect.bisect_left(chord.tones, pivot)
    if kind in ("power", "fifth", "octave", "shell"):
        upper = {"power": (root + 7, root + 12), "fifth": (root + 7,), "octave": (root + 12,)}
        return (root, *upper[kind]) if kind != "shell" else (root - 12, *chord.tones[i + 1 : i + 3])
    size = {"close": 4 if len(chord.tones) > 40 else 3, "wide": 5, "open": 6, "dyad": 2, "single": 1, "run": 7}[kind]
    return (chord.scale if kind == "run" else chord.tones)[i : i + size : 2 if kind == "open" else 1]


def draw_chords(rng: random.Random, symbols: Sequence[str], tonic: int, mode: str, bar: int, bars: int) -> list[Chord]:
    """Draws how fast the chords of a progression follow each other, and repeats it through a section.

    Args:
        rng: what is drawn from.
        symbols: the progression.
        tonic, mode: the key, as for `make_chord`.
        bar: length of a bar, in steps.
        bars: length of the section.
    """
    length = bar * (1 if len(symbols) > 8 else rng.choice((1, 1, 1, 2)))
    if len(symbols) % 4 == 0 and rng.random() < 0.15:
        length //= 2
    chords = []
    for i, start in enumerate(range(0, bars * bar, length)):
        chords.append(Chord(start, length, *make_chord(symbols[i % len(symbols)], tonic, mode)))
    if rng.random() < 0.3:  # a secondary dominant leads to the next chord
        i = rng.randrange(len(chords))
        chord, half, target = chords[i], length // 2, chords[(i + 1) % len(chords)].root
        dominant = Chord(chord.start + half, length - half, *make_chord("V7", target, MODES["major"][0]))
        chords[i : i + 1] = [chord._replace(length=half), dominant]
    return chords
