"""Composes pieces from a seed and instruments, so that training needs no folder of MIDI files.

A style gives tempo, metre, harmony, rhythms, bass figures and drum grooves. A form of sections gives each part a role
(melody, pad, comping, ...) or a rest. A performance adds what players do: swing, timing, accents, pedal, bends. The
aim is variety, not beauty: a model must not learn that strings play high or that drums never rest.

Positions and lengths are counted in steps: a step is a sixteenth note, in 6/8 as well.
"""

from __future__ import annotations

import bisect
import functools
import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data_gen import InputError
from data_gen.channels import DRUM_CHANNEL, SUSTAIN
from data_gen.instruments import DRUM_BANK, Instrument
from data_gen.midi import BEND, CONTROL, NOTE_OFF, NOTE_ON, Piece, make_piece
from data_gen.repertoire import (
    BASS_FIGURES,
    CELLS,
    CHORD_ROLES,
    CHORDS,
    DRUM_KEYS,
    FAMILIES,
    FILLS,
    FORMS,
    GROOVES,
    KEY_NAMES,
    METRES,
    MODES,
    NUMERALS,
    PACES,
    PLANS,
    PROGRESSIONS,
    REGISTERS,
    RHYTHMS,
    RHYTHMS_68,
    STYLES,
    SWELLS,
    Family,
    Style,
)

MODULATION, VOLUME, PAN, EXPRESSION = 1, 7, 10, 11
SHORTEST_S = 0.03  # strokes of one key that are closer than this sound as one


# ---- Harmony and rhythm: entries of the tables -> pitches and strokes -----------------------------------------------
class Chord(NamedTuple):
    """A chord of `length` steps: its root (a pitch class), and all pitches of the chord and of a matching scale."""

    start: int
    length: int
    root: int
    tones: tuple[int, ...]
    scale: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def _chord(symbol: str, tonic: int, mode: str) -> tuple:
    """Returns the fields root, tones and scale of a Chord."""
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
def _strokes(rhythm: str, bar: int) -> tuple[tuple[float, float, int], ...]:
    """Returns (start, length, accent from -1 to 1) of each stroke of a rhythm, repeated or cut to `bar` steps."""
    step = 4 / 3 if bar == 16 and len(rhythm) == 12 else 1
    rhythm = (rhythm * 20)[: round(bar / step)]
    found = re.finditer("[gxX]-*", rhythm)
    return tuple((m.start() * step, len(m[0]) * step, "gxX".index(m[0][0]) - 1) for m in found)


def _voicing(chord: Chord, kind: str, pivot: int) -> tuple[int, ...]:
    """Returns the pitches of a chord from the pivot up. With a constant pivot, voices move little between chords."""
    root = pivot + (chord.root - pivot) % 12
    i = bisect.bisect_left(chord.tones, pivot)
    if kind in ("power", "fifth", "octave", "shell"):
        upper = {"power": (root + 7, root + 12), "fifth": (root + 7,), "octave": (root + 12,)}
        return (root, *upper[kind]) if kind != "shell" else (root - 12, *chord.tones[i + 1 : i + 3])
    size = {"close": 4 if len(chord.tones) > 40 else 3, "wide": 5, "open": 6, "dyad": 2, "single": 1, "run": 7}[kind]
    return (chord.scale if kind == "run" else chord.tones)[i : i + size : 2 if kind == "open" else 1]


# ---- Players --------------------------------------------------------------------------------------------------------
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

    The methods return notes [(start, length, pitch, accent)], in steps from the start of the section and MIDI pitches.
    """

    def __init__(self, rng: random.Random, style: Style, metre: str, tonic: int, mode: str, symbols: list, bars: int):
        """Draws the harmony from the chord `symbols`; `mode` holds semitones above the tonic, `bars` is the length."""
        self.rng, self.style, self.bars = rng, style, bars
        self.bar, self.beat = METRES[metre]
        self.rhythms = {**RHYTHMS, **RHYTHMS_68} if self.beat == 6 else RHYTHMS
        length = self.bar * (1 if len(symbols) > 8 else rng.choice((1, 1, 1, 2)))
        if len(symbols) % 4 == 0 and rng.random() < 0.15:
            length //= 2
        chords = []
        for i, start in enumerate(range(0, bars * self.bar, length)):
            chords.append(Chord(start, length, *_chord(symbols[i % len(symbols)], tonic, mode)))
        if rng.random() < 0.3:  # a secondary dominant leads to the next chord
            i = rng.randrange(len(chords))
            chord, half, target = chords[i], length // 2, chords[(i + 1) % len(chords)].root
            dominant = Chord(chord.start + half, length - half, *_chord("V7", target, MODES["major"][0]))
            chords[i : i + 1] = [chord._replace(length=half), dominant]
        self.chords = chords
        self.chord_at = [chord for chord in chords for _ in range(chord.length)]

    def strokes(self, names: str) -> list[tuple[float, float, int, Chord]]:
        """Draws one of the named rhythms and repeats it through the section; every fourth bar can have another one."""
        names = names.replace("style", self.style.rhythms)
        rhythms = [rhythm for n in names.split() for rhythm in self.rhythms.get(n, self.rhythms["eighths"])]
        main, other = (_strokes(self.rng.choice(rhythms), self.bar) for _ in range(2))
        played = []
        for start in range(0, self.bars * self.bar, self.bar):
            varied = start // self.bar % 4 == 3 and self.rng.random() < 0.3
            played += [(start + s, n, a, self.chord_at[start + int(s)]) for s, n, a in (other if varied else main)]
        return played

    def play(self, part: Part, role: str) -> list[tuple[float, float, int, float]]:
        """Composes what the part plays in a role, with one articulation between staccato and legato."""
        rng = self.rng
        pivot = min(rng.randint(part.low, max(part.low, part.high - 12)), part.family.high - 10)
        notes = self.chordal(role, pivot) if role in CHORD_ROLES else getattr(self, role)(part, pivot)
        gates = {"pad": (1.0,), "bass": (0.5, 0.9, 1.0, 1.0)}.get(role, (0.35, 0.6, 0.85, 0.95, 1.0, 1.0))
        gate = rng.choice(gates)
        return [(s, max(n * gate, 0.3), p, a) for s, n, p, a in notes]

    def chordal(self, role: str, pivot: int) -> list:
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
            strokes = self.strokes(rhythms)
        stagger = rng.uniform(0.05, 0.22) if role == "strum" else rng.choice((0, 0, 0.1)) if role == "comp" else 0
        notes = []
        for i, (start, length, accent, chord) in enumerate(strokes):
            voicing = _voicing(chord, kind, pivot)
            up = stagger and i % 2  # every other strum goes upwards
            notes += [(start + j * stagger, length, p, accent) for j, p in enumerate(voicing[::-1] if up else voicing)]
        return notes

    def arp(self, part: Part, pivot: int) -> list:
        """Composes broken chords and runs."""
        kind = self.rng.choice(("close", "wide", "open", "run"))
        order = self.rng.choice(("0123", "0212", "3210", "012321", "0213", "01234565"))
        notes = []
        for i, (start, length, accent, chord) in enumerate(self.strokes("eighths sixteenths triplets style")):
            voicing = _voicing(chord, kind, pivot)
            notes.append((start, length, voicing[int(order[i % len(order)]) % len(voicing)], accent))
        return notes

    def stride(self, part: Part, pivot: int) -> list:
        """Composes for two hands: a low root on the strong beats, the chord on the others."""
        low = pivot - self.rng.choice((12, 12, 19, 24))
        notes = []
        for start, length, accent, chord in self.strokes("pulse"):
            bass = accent > 0 or start == chord.start
            voicing = (low + (chord.root - low) % 12,) if bass else _voicing(chord, "close", pivot)
            notes += [(start, length, pitch, accent) for pitch in voicing]
        return notes

    def bass(self, part: Part, pivot: int) -> list:
        """Composes a bass: roots, fifths, octaves, riffs, or a line that approaches the next root by step."""
        rng, low = self.rng, part.low
        figure = rng.choice(self.style.basses.split())
        intervals = BASS_FIGURES.get(figure) or rng.choices((0, 0, 0, 3, 5, 7, 10, 12), k=6)
        rhythms = rng.choice(("style", "eighths", "eighths", "chug", "sync half pulse", "sixteenths"))
        strokes = self.strokes("pulse" if figure == "walk" else rhythms)
        notes, before, k = [], None, 0
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

    def riff(self, part: Part, pivot: int) -> list:
        """Composes one repeated motif."""
        return self.melody(part, pivot, ("fast", "medium"), ("aaaaaaab", "aaaabbbb"))

    def melody(self, part: Part, pivot: int, paces: Sequence[str] = PACES, plans: Sequence[str] = PLANS) -> list:
        """Composes a line of one-bar motifs that recur: chord tones on accents, steps of the scale between them."""
        rng, low, high = self.rng, part.low, max(part.high, part.low + 14)
        pace, plan = rng.choice(paces), rng.choice(plans)
        bar = 12 if pace == "triplet" and self.bar == 16 else self.bar
        motifs = {}
        for letter in sorted(set(plan)):
            rhythm = "".join(rng.choices(CELLS[f"{pace} {self.beat}"], k=bar // 3))[:bar]
            rhythm = rhythm if "X" in rhythm else "X" + rhythm[1:]
            strokes = _strokes(rhythm, self.bar)
            motifs[letter] = list(zip(strokes, rng.choices((-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 4), k=len(strokes))))
        pitch = home = rng.randint(low + 2, high - 2)
        notes = []
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

    def drums(self, kit: dict[str, int], light: bool) -> list:
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
        notes: list[tuple[float, float, int, float]] = []
        for letter, rhythm in lanes:
            strokes = _strokes(rhythm if len(rhythm) != 12 else rhythm + rhythm[:4], bar)  # not triplets
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

    def controls(self, part: Part, role: str, notes: list) -> list[tuple[float, int, int, int]]:
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


# ---- The piece ------------------------------------------------------------------------------------------------------
def compose(seed: int | Sequence[int], instruments: Sequence[Instrument]) -> Piece:
    """Composes a piece of about 60 to 150 s in which each of the instruments plays, and no other.

    Drawn: style, tempo, metre, key, form, harmony, parts, who rests when, and how it is performed. The name says some
    of it, as `composed-7-waltz-3_4-Ebm-120bpm`. The same arguments compose the same piece.

    Raises InputError for more instruments than MIDI has channels.
    """
    noise = np.random.default_rng(seed)
    rng = random.Random(int(noise.integers(1 << 62)))  # single draws are ten times faster than NumPy's
    style_name = rng.choice(list(STYLES))
    style = STYLES[style_name]
    metre = rng.choice(style.metres.split())
    bar, beat = METRES[metre]
    bpm = rng.uniform(*map(int, style.tempo_bpm.split())) * (0.7 if beat == 6 else 1)
    step_s = 60 / bpm / beat
    tonic = rng.randrange(12)
    progressions = PROGRESSIONS[rng.choice(style.progressions.split())]
    main = rng.choice(progressions)
    minor = _is_minor(main)
    others = [progression for progression in progressions if _is_minor(progression) == minor]
    mode = rng.choice(MODES["minor" if minor else "major"])
    parts = _cast(rng, style, instruments)
    long = 12 if main.count(" ") == 11 else 8 if bar * step_s < 2.4 else 4  # bars of a section
    form = _form(rng, rng.uniform(66, 136) / step_s / bar, long)
    playing = _arrange(rng, [letter for letter, _ in form], parts)
    kit = {letter: rng.choice(keys) for letter, keys in DRUM_KEYS.items()}
    lift = rng.choice((0, 0, 2))  # semitones by which the last third is higher

    sections: dict[str, Section] = {}
    leads: dict[str, int | None] = {}
    sketches: dict[tuple[str, int], tuple] = {}
    blocks, controls, start = [], [], 0
    for p in range(len(parts)):
        controls.append((-bar, p, CONTROL, VOLUME, rng.randint(64, 127)))
        controls.append((-bar, p, CONTROL, PAN, rng.choice((64, 64, rng.randint(34, 94), rng.randint(8, 120)))))
    for i, (letter, bars) in enumerate(form):
        if letter not in sections:
            longest = max(length for other, length in form if other == letter)
            symbols = (main if letter in "IAZ" else rng.choice(others)).split()
            sections[letter] = Section(rng, style, metre, tonic, mode, symbols, longest)
            leads[letter] = rng.choice([p for p in playing[i] if "melody" in parts[p].family.roles] or [None])
        energy = {"I": -8, "Z": 0}.get(letter, 0) + rng.uniform(-6, 6)
        stops = bars >= 4 and rng.random() < 0.1  # all but the drums are silent in the last bar
        end = start + bars * bar
        for p in playing[i]:
            if (letter, p) not in sketches:
                sketches[letter, p] = _sketch(sections[letter], parts[p], kit, p == leads[letter], letter)
            notes, events, program = sketches[letter, p]
            notes = _excerpt(rng, parts[p], notes, bar, bars, stops)
            block = np.empty((len(notes), 7))
            block[:, :4], block[:, 4:] = notes, (p, program, energy)
            block[:, 0] += start
            block[:, 1] = np.minimum(block[:, 1], end - block[:, 0])
            block[:, 2] += lift if i > len(form) * 2 / 3 and not parts[p].is_drums else 0
            blocks.append(block)
            controls += [(start + s, p, *event) for s, *event in events if s < bars * bar]
            neutral = {(kind, number): 127 if number == EXPRESSION else 0 for _, kind, number, _ in events}
            controls += [(end, p, kind, number, value) for (kind, number), value in neutral.items()]
        start = end
    seconds = _clock(rng, noise, style, step_s, start // bar, metre)
    rows = _perform(rng, noise, parts, np.concatenate(blocks), np.array(controls), seconds)
    key = KEY_NAMES[tonic] + "m" * minor
    seeds = "-".join(map(str, np.atleast_1d(seed)))
    return make_piece(f"composed-{seeds}-{style_name}-{metre.replace('/', '_')}-{key}-{bpm:.0f}bpm", rows)


def _excerpt(rng: random.Random, part: Part, notes: np.ndarray, bar: int, bars: int, stops: bool) -> np.ndarray:
    """Selects the notes that a part plays this time: all that fit, every other two bars, the end, or no last bar."""
    number = notes[:, 0] // bar
    plays = number < bars
    if stops and not part.is_drums:
        plays &= number < bars - 1
    elif bars >= 4 and part.family not in (FAMILIES["bass"], FAMILIES["drums"]) and rng.random() < 0.2:
        plays &= rng.choice((number % 4 >= 2, number % 4 < 2, number >= bars // 2))
    return notes[plays] if plays.any() else notes[:1]


def _is_minor(progression: str) -> bool:
    return any(re.match("i(?![iv])", symbol) for symbol in progression.split())


def _form(rng: random.Random, n_bars: float, long: int) -> list[tuple[str, int]]:
    """Returns sections (letter, bars): a form, repeated and cut to `n_bars`, often with a last bar of one chord (Z)."""
    letters, left = rng.choice(FORMS), round(n_bars)
    form: list[tuple[str, int]] = []
    while left > 0:
        for letter in letters.replace("I", "") if form else letters:
            bars = max(4, long // 2) if letter == "I" else long
            bars = left if left < bars + 4 else bars  # a remainder below four bars joins the section before it
            if bars:
                form.append((letter, bars))
                left -= bars
    return form + [("Z", 1)] * (rng.random() < 0.75)


def _cast(rng: random.Random, style: Style, instruments: Sequence[Instrument]) -> list[Part]:
    """Draws the parts; with few instruments, some have two parts."""
    players = [instrument for instrument in instruments if not instrument.is_percussion]
    channels = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    if len(players) > len(channels):
        raise InputError(f"{len(players)} melodic instruments: MIDI has channels for {len(channels)}, so name fewer")
    doubled = [one for one in players if rng.random() < 0.4 - 0.05 * len(players) and one.programs[0] // 8 != 4]
    players = (players + doubled)[: len(channels)]
    parts = []
    if any(instrument.is_percussion for instrument in instruments):
        kit = int(rng.choice(style.kits.split())) if rng.random() < 0.5 else 0
        parts.append(Part(DRUM_CHANNEL, (), kit, FAMILIES["drums"], 0, 127, ["drums"]))
    families = list(FAMILIES.values())
    rng.shuffle(channels)
    for one in players:
        program = rng.choice(one.programs)
        family = FAMILIES["distorted"] if program in (29, 30, 31) else families[program // 8]
        low, high = REGISTERS.get(program, family[:2])
        width = min(high - low, rng.randint(14, 32))
        low = rng.randint(low, high - width)
        habits = rng.choices(family.roles, k=2)
        parts.append(Part(channels.pop(), one.programs, program, family, low, low + width, habits))
    return parts


def _arrange(rng: random.Random, letters: list[str], parts: list[Part]) -> list[list[int]]:
    """Draws which parts play in each section: each plays somewhere, few everywhere, and sometimes only one or two."""
    crowd = max(1.0, len(parts) / 9)  # many instruments take turns
    steady = [part.family.activity / crowd * rng.uniform(0.75, 1.15) for part in parts]
    playing = []
    for letter in letters:
        mood = {"I": 0.6, "Z": 1.2}.get(letter, 1.1)
        active = [p for p in range(len(parts)) if rng.random() < steady[p] * mood]
        if rng.random() < 0.1 or not active:
            active = rng.sample(range(len(parts)), min(len(parts), rng.choice((1, 2, 2))))
        playing.append(active)
    n_sections = len(letters) - (letters[-1] == "Z")
    for p in range(len(parts)):
        if sum(p in active for active in playing[:n_sections]) < 2:
            for i in rng.sample(range(n_sections), min(2, n_sections)):
                playing[i] = sorted({*playing[i], p})
    return playing


def _sketch(section: Section, part: Part, kit: dict, leads: bool, letter: str) -> tuple[np.ndarray, list, int]:
    """Composes a part of a section: notes [note, (start, length, pitch, accent)], controls, program."""
    rng = section.rng
    if part.is_drums:
        close = [(0, 4, kit["k"], 1), (0, 4, kit["x"], 1)]
        notes = close if letter == "Z" else section.drums(kit, rng.random() < (0.5 if letter == "I" else 0.08))
        return np.array(notes, float), [], part.program
    program = part.program if rng.random() < 0.95 else rng.choice(part.programs)
    role = "pad" if letter == "Z" else "melody" if leads else rng.choice(part.roles)
    notes = section.play(part, role)
    if leads and role == "melody" and {"comp", "arp"} <= set(part.family.roles) and rng.random() < 0.5:
        notes += section.play(part, rng.choice(("comp", "arp", "pad")))  # the other hand
    return np.array(notes, float), section.controls(part, role, notes), program


def _clock(
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


def _perform(
    rng: random.Random,
    noise: np.random.Generator,
    parts: list[Part],
    notes: np.ndarray,
    controls: np.ndarray,
    seconds: Callable[[np.ndarray], np.ndarray],
) -> list[tuple]:
    """Gives the notes the timing and the velocities of human players.

    `notes` [note, (start, length, pitch, accent, part, program, energy)] and
    `controls` [control, (start, part, kind, number, value)] -> rows for `make_piece`.
    """
    start, length, pitch, accent, part, program, energy = notes.T
    part = part.astype(int)
    flat, tight = rng.random() < 0.15, rng.random() < 0.4
    manner = [  # velocity, what an accent adds to it, seconds behind the beat
        (rng.choice((rng.triangular(40, 127, 98), rng.uniform(60, 135))), rng.choice((0, *[rng.uniform(3, 20)] * 5)),
         rng.uniform(-0.008, 0.015)) for _ in parts
    ]  # fmt: skip
    velocity, depth, late_s = (np.array(manner) * (1, not flat, not tight))[part].T
    channels = np.array([p.channel for p in parts])
    channel = channels[part]
    late_s = late_s + noise.normal(0, rng.choice((0, 0, 0.003, 0.006, 0.01)), len(notes))
    start_s = np.maximum(seconds(start) + late_s, 0)
    end_s = np.maximum(seconds(start + length) + late_s, start_s + 1.5 * SHORTEST_S)
    velocity = velocity + depth * (accent + noise.normal(0, 0.3, len(notes)) + energy / 10)
    bank = np.where(channel == DRUM_CHANNEL, DRUM_BANK, 0)
    octaves = np.maximum(np.ceil((21 - pitch) / 12), 0) - np.maximum(np.ceil((pitch - 108) / 12), 0)
    pitch = pitch + 12 * np.where(bank, 0, octaves)  # into the range of a piano

    columns = np.array([start_s, end_s, channel, bank, program, pitch, np.clip(np.round(velocity), 12, 127)])
    columns = columns[:, np.lexsort((start_s, pitch, channel))]
    again = (np.diff(columns[[2, 5]]) == 0).all(axis=0)  # a key must be up before it is struck again
    columns[1, :-1] = np.where(again, np.minimum(columns[1, :-1], columns[0, 1:]), columns[1, :-1])
    start_s, end_s, channel, bank, program, pitch, velocity = columns[:, columns[1] - columns[0] >= SHORTEST_S]

    step, part, kind, number, value = controls.T
    nil = np.zeros(len(step)), np.zeros(len(start_s))
    on = (start_s, nil[1] + NOTE_ON, channel, bank, program, pitch, velocity)
    off = (end_s, nil[1] + NOTE_OFF, channel, nil[1], nil[1], pitch, nil[1])
    control = (seconds(step), kind, channels[part.astype(int)], nil[0], nil[0], number, value)
    rows = np.concatenate((control, off, on), axis=1)
    rows = rows[:, np.lexsort((-np.minimum(rows[1], CONTROL), rows[0]))]  # at one time: controls, ends, strokes
    return list(zip(rows[0].tolist(), *rows[1:].astype(int).tolist()))
