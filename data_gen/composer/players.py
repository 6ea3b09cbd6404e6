"""What players do with a section: melodies, chords, bass lines, grooves, pedal and bends."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_gen.channels import DRUM_CHANNEL, SUSTAIN
from data_gen.composer.harmony import Chord, list_strokes, voice
from data_gen.composer.repertoire import (
    BASS_FIGURES,
    CELLS,
    CHORD_ROLES,
    FILLS,
    GROOVES,
    METRES,
    PACES,
    PLANS,
    RHYTHMS,
    RHYTHMS_68,
    SWELLS,
    Family,
    Style,
)
from data_gen.midi import BEND, CONTROL

MODULATION, EXPRESSION = 1, 11  # numbers of MIDI controllers

Note = tuple[float, float, int, float]
"""(start, length, pitch, accent from -1 to 1), in steps from the start of the section and MIDI pitches."""


class Part(NamedTuple):
    """What plays on one MIDI channel.

    Attributes:
        channel: MIDI channel, 0 to 15.
        programs: those of its instrument; empty for percussion.
        program: the one that it mostly plays on.
        family: what its kind of instrument can do.
        low, high: its register in this piece, MIDI pitches.
        roles: roles that it plays in this piece, drawn from those of its family.
    """

    channel: int
    programs: Sequence[int]
    program: int
    family: Family
    low: int
    high: int
    roles: list[str]

    @property
    def is_drums(self) -> bool:
        """Returns whether it is percussion."""
        return self.channel == DRUM_CHANNEL


class Section:
    """A section of the form: its harmony, and the methods that compose what a part plays over it.

    Args:
        rng: what is drawn from.
        style: gives rhythms, bass figures and grooves.
        metre: one of METRES.
        chords: the harmony, from the start to the end.
        bars: the length.
    """

    def __init__(self, rng: random.Random, style: Style, metre: str, chords: Sequence[Chord], bars: int):
        self.rng, self.style, self.bars, self.chords = rng, style, bars, chords
        self.bar, self.beat = METRES[metre]
        self.rhythms = {**RHYTHMS, **RHYTHMS_68} if self.beat == 6 else RHYTHMS
        self.chord_at = [chord for chord in chords for _ in range(chord.length)]

    def _strokes(self, names: str) -> list[tuple[float, float, int, Chord]]:
        """Draws one of the named rhythms and repeats it through the section; every fourth bar can have another one."""
        names = names.replace("style", self.style.rhythms)
        rhythms = [rhythm for n in names.split() for rhythm in self.rhythms.get(n, self.rhythms["eighths"])]
        main, other = (list_strokes(self.rng.choice(rhythms), self.bar) for _ in range(2))
        played = []
        for start in range(0, self.bars * self.bar, self.bar):
            varied = start // self.bar % 4 == 3 and self.rng.random() < 0.3
            played += [(start + s, n, a, self.chord_at[start + int(s)]) for s, n, a in (other if varied else main)]
        return played

    def play(self, part: Part, role: str) -> list[Note]:
        """Composes what the part plays in a role, with one articulation between staccato and legato."""
        rng = self.rng
        pivot = min(rng.randint(part.low, max(part.low, part.high - 12)), part.family.high - 10)
        notes = self._chordal(role, pivot) if role in CHORD_ROLES else LINES[role](self, part, pivot)
        gates = {"pad": (1.0,), "bass": (0.5, 0.9, 1.0, 1.0)}.get(role, (0.35, 0.6, 0.85, 0.95, 1.0, 1.0))
        gate = rng.choice(gates)
        return [(s, max(n * gate, 0.3), p, a) for s, n, p, a in notes]

    def _chordal(self, role: str, pivot: int) -> list[Note]:
        """Composes chords in a rhythm: pads, comping, strums, stabs, power chords, tremolo, and single hits."""
        rng = self.rng
        rhythms, voicings = CHORD_ROLES[role]
        strokes: list[tuple[float, float, int, Chord]]
        kind = rng.choice(voicings.split())
        if role == "pad" and rng.random() < 0.7:
            strokes = [(chord.start, chord.length, 0, chord) for chord in self.chords]
        elif role == "hits":
            starts = sorted(rng.sample(range(0, self.bars * self.bar, self.beat), 2 + self.bars // 3))
            strokes = [(s, self.beat * rng.choice((0.5, 1, 3)), 1, self.chord_at[s]) for s in starts]
        else:
            strokes = self._strokes(rhythms)
        stagger = rng.uniform(0.05, 0.22) if role == "strum" else rng.choice((0, 0, 0.1)) if role == "comp" else 0
        notes: list[Note] = []
        for i, (start, length, accent, chord) in enumerate(strokes):
            voicing = voice(chord, kind, pivot)
            up = stagger and i % 2  # every other strum goes upwards
            notes += [(start + j * stagger, length, p, accent) for j, p in enumerate(voicing[::-1] if up else voicing)]
        return notes

    def _arp(self, part: Part, pivot: int) -> list[Note]:
        """Composes broken chords and runs."""
        kind = self.rng.choice(("close", "wide", "open", "run"))
        order = self.rng.choice(("0123", "0212", "3210", "012321", "0213", "01234565"))
        notes: list[Note] = []
        for i, (start, length, accent, chord) in enumerate(self._strokes("eighths sixteenths triplets style")):
            voicing = voice(chord, kind, pivot)
            notes.append((start, length, voicing[int(order[i % len(order)]) % len(voicing)], accent))
        return notes

    def _stride(self, part: Part, pivot: int) -> list[Note]:
        """Composes for two hands: a low root on the strong beats, the chord on the others."""
        low = pivot - self.rng.choice((12, 12, 19, 24))
        notes: list[Note] = []
        for start, length, accent, chord in self._strokes("pulse"):
            bass = accent > 0 or start == chord.start
            voicing = (low + (chord.root - low) % 12,) if bass else voice(chord, "close", pivot)
            notes += [(start, length, pitch, accent) for pitch in voicing]
        return notes

    def _bass(self, part: Part, pivot: int) -> list[Note]:
        """Composes a bass: roots, fifths, octaves, riffs, or a line that approaches the next root by step."""
        rng, low = self.rng, part.low
        figure = rng.choice(self.style.basses.split())
        intervals = BASS_FIGURES.get(figure) or rng.choices((0, 0, 0, 3, 5, 7, 10, 12), k=6)
        rhythms = rng.choice(("style", "eighths", "eighths", "chug", "sync half pulse", "sixteenths"))
        strokes = self._strokes("pulse" if figure == "walk" else rhythms)
        notes: list[Note] = []
        before, k = None, 0
        for (start, length, accent, chord), (*_, following) in zip(strokes, strokes[1:] + strokes[:1]):
            k = k + 1 if chord is before else 0
            pitch = low + (chord.root - low) % 12 + (intervals[k % len(intervals)] if k else 0)
            if k and figure in ("walk", "line") and following is not chord:
                pitch = low + (following.root - low) % 12 + rng.choice((-1, 1, 2))
            elif k:
                pitch = chord.scale[bisect.bisect_left(chord.scale, pitch)]
            notes.append((start, length, pitch, accent))
            before = chord
        return notes

    def _riff(self, part: Part, pivot: int) -> list[Note]:
        """Composes one repeated motif."""
        return self._melody(part, pivot, ("fast", "medium"), ("aaaaaaab", "aaaabbbb"))

    def _melody(self, part: Part, pivot: int, paces: Sequence[str] = PACES, plans: Sequence[str] = PLANS) -> list[Note]:
        """Composes a line of one-bar motifs that recur: chord tones on accents, steps of the scale between them."""
        rng, low, high = self.rng, part.low, max(part.high, part.low + 14)
        pace, plan = rng.choice(paces), rng.choice(plans)
        bar = 12 if pace == "triplet" and self.bar == 16 else self.bar
        motifs = {}
        for letter in sorted(set(plan)):
            rhythm = "".join(rng.choices(CELLS[f"{pace} {self.beat}"], k=bar // 3))[:bar]
            rhythm = rhythm if "X" in rhythm else "X" + rhythm[1:]
            strokes = list_strokes(rhythm, self.bar)
            motifs[letter] = list(zip(strokes, rng.choices((-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 4), k=len(strokes))))
        pitch = home = rng.randint(low + 2, high - 2)
        notes: list[Note] = []
        for i in range(self.bars):
            pitch = home if len(plan) != 4 else pitch
            for (start, length, accent), move in motifs[plan[i % len(plan)]]:
                chord = self.chord_at[i * self.bar + int(start)]
                pool = chord.tones if accent > 0 else chord.scale
                at = bisect.bisect_left(pool, pitch)
                inside = [p for p in (pool[at + move], pool[at - move]) if low <= p <= high]
                pitch = inside[0] if inside else pool[bisect.bisect_left(pool, (low + high) // 2)]
                notes.append((i * self.bar + start, length, pitch, accent))
        if rng.random() < 0.25:  # in octaves or thirds
            shift = rng.choice((12, -12, 3, 4))
            return notes + [(s, n, p + shift, a - 0.5) for s, n, p, a in notes]
        return notes

    def drums(self, kit: dict[str, int], light: bool) -> list[Note]:
        """Composes a groove, with a crash at the start and a fill at the end; `light` keeps only one or two drums."""
        rng, bar, end = self.rng, self.bar, self.bars * self.bar
        name = {12: "waltz" if self.beat == 4 else "six"}.get(bar) or rng.choice(self.style.grooves.split())
        lanes = [lane.split(":") for lane in rng.choice(GROOVES[name]).split()]
        if light:
            lanes = rng.sample(lanes, min(len(lanes), rng.choice((1, 2))))
        elif rng.random() < 0.4:  # an additional player: any percussion, any rhythm
            rhythm = "".join(rng.choices("xxg...", k=rng.choice((3, 7, bar - 1))))
            lanes.append([rng.choice("mwgGvayTtcx"), "x" + rhythm])
        swap = {"h": rng.choice("hhhhhdpm"), "d": rng.choice("ddddh")}
        length = rng.choice((0.5, 1, 1, 2, 4))
        fill = 0 if light else rng.choice((0, 0, 4, 6, 8, bar))  # steps
        notes: list[Note] = []
        for letter, rhythm in lanes:
            strokes = list_strokes(rhythm if len(rhythm) != 12 else rhythm + rhythm[:4], bar)  # not triplets
            key = kit[swap.get(letter, letter)]
            notes += [(b + s, length, key, a) for b in range(0, end, bar) for s, _, a in strokes if b + s < end - fill]
        keys = [kit[key] if key in kit else int(key) for key in rng.choice(FILLS).split()]
        density = rng.choice((0.6, 0.9, 1.0))
        for s in range(fill):
            if s == 0 or rng.random() < density:
                notes.append((end - fill + s, length, keys[s * len(keys) // fill], 2 * s / fill - 1))
        if not light and rng.random() < 0.7:
            notes.append((0, 4, rng.choice((49, 49, 57, 55, 52)), 1))
        return notes

    def controls(self, part: Part, role: str, notes: Sequence[Note]) -> list[tuple[float, int, int, int]]:
        """Returns pedal, swells, delayed vibrato and bends: [(start, kind, number, value)], start in steps."""
        rng = self.rng
        if rng.random() < 0.65:
            return []
        if role in ("comp", "arp", "pad", "stride") and (part.program < 16 or part.program == 46):
            return [(c.start + s, CONTROL, SUSTAIN, v) for c in self.chords for s, v in ((0, 0), (0.4, 127))]
        if role == "pad":
            shape = list(enumerate(rng.choice(SWELLS)))
            return [(c.start + i * c.length / 6, CONTROL, EXPRESSION, v) for c in self.chords for i, v in shape]
        if role not in ("melody", "riff") or part.program < 16:
            return []
        long = [note for note in notes if note[1] >= 3][::2]
        if rng.random() < 0.4:
            return [(s + at, CONTROL, MODULATION, v) for s, n, *_ in long for at, v in ((0, 0), (n / 3, 80))]
        depth = rng.choice((-8192, -4096, -2048, 1400))
        return [(s + i * 0.3, BEND, 0, round(depth * (1 - i / 4))) for s, *_ in long for i in range(5)]


# The roles of repertoire.FAMILIES that are not chords in a rhythm (CHORD_ROLES).
LINES: dict[str, Callable[[Section, Part, int], list[Note]]] = {
    "arp": Section._arp,
    "bass": Section._bass,
    "melody": Section._melody,
    "riff": Section._riff,
    "stride": Section._stride,
}
