"""The piece: style, key, form, parts, who plays when."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np

from data_gen import InputError
from data_gen.channels import DRUM_CHANNEL
from data_gen.composer.harmony import draw_chords
from data_gen.composer.performance import CHANGE, NOTE, make_clock, perform
from data_gen.composer.players import EXPRESSION, Part, Section
from data_gen.composer.repertoire import (
    DRUM_KEYS,
    FAMILIES,
    FORMS,
    KEY_NAMES,
    METRES,
    MODES,
    PROGRESSIONS,
    REGISTERS,
    STYLES,
    Style,
)
from data_gen.instruments import Instrument
from data_gen.midi import CONTROL, Piece, finish

VOLUME, PAN = 7, 10  # numbers of MIDI controllers


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
            chords = draw_chords(rng, symbols, tonic, mode, bar, longest)
            sections[letter] = Section(rng, style, metre, chords, longest)
            leads[letter] = rng.choice([p for p in playing[i] if "melody" in parts[p].family.roles] or [None])
        energy = (-8 if letter == "I" else 0) + rng.uniform(-6, 6)
        stops = bars >= 4 and rng.random() < 0.1  # all but the drums are silent in the last bar
        end = start + bars * bar
        for p in playing[i]:
            if (letter, p) not in sketches:
                sketches[letter, p] = _sketch(sections[letter], parts[p], kit, p == leads[letter], letter)
            notes, events, program = sketches[letter, p]
            notes = _excerpt(rng, parts[p], notes, bar, bars, stops)
            block = np.zeros(len(notes), NOTE)
            block["start"], block["length"], block["pitch"], block["accent"] = notes.T
            block["part"], block["program"], block["energy"] = p, program, energy
            block["start"] += start
            block["length"] = np.minimum(block["length"], end - block["start"])
            block["pitch"] += lift if i > len(form) * 2 / 3 and not parts[p].is_drums else 0
            blocks.append(block)
            controls += [(start + s, p, *event) for s, *event in events if s < bars * bar]
            neutral = {(kind, number): 127 if number == EXPRESSION else 0 for _, kind, number, _ in events}
            controls += [(end, p, kind, number, value) for (kind, number), value in neutral.items()]
        start = end
    seconds = make_clock(rng, noise, style, step_s, start // bar, metre)
    events = perform(rng, noise, parts, np.concatenate(blocks), np.array(controls, CHANGE), seconds)
    key = KEY_NAMES[tonic] + "m" * minor
    seeds = "-".join(map(str, np.atleast_1d(seed)))
    return finish(f"composed-{seeds}-{style_name}-{metre.replace('/', '_')}-{key}-{bpm:.0f}bpm", events)


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
