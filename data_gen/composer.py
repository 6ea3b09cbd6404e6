"""The embedded corpus: a seed and instruments -> Piece, composed, so that nobody needs a folder of MIDI files to train.

A style gives tempo, metre, chord progressions, rhythms, bass figures and drum grooves. A form of sections gives each
part a role (melody, pad, comping, ...) or a rest. A performance adds what players do: swing, timing, accents, pedal,
bends. The aim is variety rather than beauty: a model must not learn that strings play high or that drums never rest.

Positions and lengths are counted in steps: a step is a sixteenth note, in 6/8 as well.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_gen import InputError
from data_gen.instruments import DRUM_BANK, Instrument
from data_gen.midi import BEND, CONTROL, DRUM_CHANNEL, NOTE_OFF, NOTE_ON, SUSTAIN, Piece, make_piece

MODULATION, VOLUME, PAN, EXPRESSION = 1, 7, 10, 11
METRES = {"4/4": (16, 4), "3/4": (12, 4), "6/8": (12, 6), "5/4": (20, 4), "7/8": (14, 4)}  # steps of a bar, of a beat
SHORTEST_S = 0.03  # notes of one key that are closer than this sound as one

# ---- The tables: harmony, rhythm, drums, styles, instruments -------------------------------------------------------
KEY_NAMES = "C Db D Eb E F Gb G Ab A Bb B".split()
NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}  # semitones above the tonic
CHORDS = {  # suffix of an upper-case numeral, or m + suffix of a lower-case one -> semitones above the root
    "": (0, 4, 7), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "6": (0, 4, 7, 9), "9": (0, 4, 7, 10, 2), "5": (0, 7),
    "sus": (0, 5, 7), "+": (0, 4, 8), "m": (0, 3, 7), "m7": (0, 3, 7, 10), "m9": (0, 3, 7, 10, 2), "m6": (0, 3, 7, 9),
    "mo": (0, 3, 6), "mo7": (0, 3, 6, 9), "mh7": (0, 3, 6, 10), "m5": (0, 7),
}  # fmt: skip
MODES = {
    "major": ((0, 2, 4, 5, 7, 9, 11), (0, 2, 4, 5, 7, 9, 10), (0, 2, 4, 6, 7, 9, 11), (0, 2, 4, 7, 9)),
    "minor": ((0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 3, 5, 7, 8, 11), (0, 1, 3, 5, 7, 8, 10),
              (0, 3, 5, 7, 10), (0, 3, 5, 6, 7, 10)),
}  # fmt: skip
PROGRESSIONS = {
    "pop": ("I V vi IV", "I vi IV V", "vi IV I V", "I IV V IV", "I iii IV iv", "IV V iii vi", "I I+ I6 I7 IV iv I V"),
    "minor": ("i bVI bIII bVII", "i bVII bVI V7", "i iv i V7", "i bVI iv V", "i v bVI bVII", "i bIII bVII IV"),
    "rock": ("I bVII IV I", "I IV I V", "I5 bIII5 IV5 V5", "i bVII IV i", "I I IV V", "Isus I IVsus IV"),
    "metal": ("i5 i5 bII5 bV5", "i5 i5 bVI5 bVII5", "i5 bIII5 bII5 i5", "i5 i5 #iv5 iv5", "i5 bVI5 vii5 bII5"),
    "blues": ("I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "i7 i7 i7 i7 iv7 iv7 i7 i7 bVI7 V7 i7 V7",
              "I7 IV7 I7 I7 IV7 #ivo7 I7 VI7 ii7 V7 I7 V7"),
    "jazz": ("ii7 V7 Imaj7 VI7", "Imaj7 vi7 ii7 V7", "iih7 V7 i7 i6", "iii7 VI7 ii7 V7", "Imaj7 IVmaj7 iii7 VI7",
             "i7 iv7 bVII7 bIIImaj7 bVImaj7 iih7 V7 i6"),
    "bossa": ("Imaj7 II9 ii9 V7", "i9 iv7 iih7 V7", "Imaj7 #io7 ii7 V9", "Imaj7 bIIImaj7 ii7 bII7"),
    "funk": ("i7 i7 i7 IV7", "I9 I9 IV9 I9", "i9 IV9", "i7 bIII bVII IV7"),
    "classical": ("I IV V7 I", "I vi ii V7", "i iv V7 i", "I V vi iii IV I IV V", "i V7 i bVII bIII bVII i V7",
                  "I V7 V7 I IV I V7 I", "i io7 V7 i", "I bVI IV V"),
    "modal": ("i IV", "I bVII", "i bII", "I II", "i i", "i bVII"),
}  # fmt: skip
# Rhythms: X accent, x stroke, g ghost, - held, . rest; one character a step (12 characters in 4/4: triplets).
RHYTHMS = {
    "hold": ("X---------------",), "half": ("X-------x-------", "X-----x---------"),
    "pulse": ("X---x---X---x---", "X-..x-..X-..x-..", "X---x---x---x---"),
    "back": ("....X-......X-..", "..x-..x-..x-..x-", "....X-....x-X-.."),
    "eighths": ("X-x-x-x-X-x-x-x-", "X-x-x-X-x-x-X-x-"),
    "sixteenths": ("XxxxXxxxXxxxXxxx", "X-xxX-xxX-xxX-xx", "XxxXxxXxxXxxXxxx"),
    "triplets": ("XxxXxxXxxXxx", "X-xX-xX-xX-x"),
    "strum": ("X---x-xx..xxx-x-", "X-x-x-xxX-xxx-xx", "X---X-x-..x-X-x-", "X-xxxxxxX-xxxxxx"),
    "sync": ("X--x--x---x--x--", "X-..x-.x-.x-x-..", "x-.X--.x-.X-.x--", "X--x--x-X--x--x-"),
    "charleston": ("X--...x-........", "..x-....X-....x-", "X-....x-..x-....", "......X-....x-.."),
    "bossa": ("X-.x-.x-..x-.x-.", "X-..x-.X-..x-.x-", "x-.X-..x-.x-..x-"),
    "montuno": ("X-x-xx.xx.xx.xx.", "Xx.xx.x-Xx.xx.x-"),
    "funk": ("X-.x..x..xx..x..", "..xx..x...xx.x.x", "X.xx.xx.x.xxx.x.", "x..X..x.x..X.xx."),
    "chug": ("X-xxX-xxX-xxX-xx", "XxxxXxxxXxxxXxxx", "X-x-x-x-x-x-x-x-", "X..x..X..x..X.x.", "Xxx-xx-xx-Xxx-x-"),
    "stab": ("X-..............", "..........X-X-..", "X-....X-........", "....X.......X.X.", "..X..X..X......."),
    "house": ("..X-..X-..X-..X-", "X--X--X--X--X-X-", "X-..X-..X-..X-.."),
}  # fmt: skip
RHYTHMS_68 = {
    "hold": ("X-----------",), "half": ("X-----x-----",), "pulse": ("X---x-X---x-", "X-..x-X-..x-"),
    "eighths": ("X-x-x-X-x-x-",), "sixteenths": ("XxxxxxXxxxxx", "X-x-xxX-x-xx"), "back": ("..x-x-..x-x-", "......X-...."),
    "sync": ("X---x---x---", "X--x--x--x--", "X-..x-..x-..x-.."), "stab": ("X-..........", "......X-..x-"),
    "chug": ("X-xxxxX-xxxx", "X-x-x-X-x-x-"),
}  # fmt: skip
CELLS = {  # what melodies are made of, by steps of a beat and pace; the triplet cells fill a bar of 12
    4: {"slow": ("X---------------", "X-------", "X-----x-", "X---x---", "....x---", "X-----------x---"),
        "medium": ("X---", "X-x-", "X-..", "..x-", "X--x", "X-----x-", "X--x--x-", "...."),
        "fast": ("Xxxx", "X-xx", "Xxx-", "X-x-", ".xxx", "X---", "..xx"), "triplet": ("Xxx", "X-x", "X--", "...")},
    6: {"slow": ("X-----", "X-----------", "X---x-"), "medium": ("X-x-x-", "X---x-", "X--x--", "..x-x-", "......"),
        "fast": ("Xxxxxx", "X-xxxx", "X-x-xx", "X-x-x-"), "triplet": ("X-x-x-", "X-----")},
}  # fmt: skip
DRUM_KEYS = {  # letter in a groove -> keys of the General MIDI percussion map, one drawn per piece
    "k": (36, 36, 35), "s": (38, 38, 40), "r": (37, 37, 40), "c": (39, 39, 38), "h": (42, 42, 42, 44), "o": (46,),
    "p": (44,), "d": (51, 51, 59, 53), "t": (41, 43, 45), "T": (47, 48, 50), "m": (70, 82, 69, 54), "w": (56, 76, 54),
    "g": (63, 62, 60), "G": (64, 61, 77), "v": (75, 76, 31), "a": (67, 68, 80, 81), "y": (65, 66, 58), "x": (52, 55, 57),
}  # fmt: skip
GROOVES = {  # each lane is repeated to fill the bar
    "rock": ("k:X.......X.x..... s:....X... h:x.", "k:X..x..x.X....... s:....X... h:x.", "k:X.x...x.X.x..... s:....X... d:x.",
             "k:X......xX....... s:....X..g.g..X... h:X.x.", "k:X.....x.X.x..... s:....X... o:x..."),
    "punk": ("k:X...X... s:..X. h:x.", "k:X.x...x. s:..X. d:X.", "k:X... s:..X. o:X..."),
    "metal": ("k:xxxx s:....X... d:X...", "k:X.xxx.xx s:....X... x:X...", "k:X.x. s:.x.x d:X.", "k:X..x..X..x..X.x. s:........X... x:X..."),
    "ballad": ("k:X.....x...x..... s:........X....... h:x.", "k:X.......x....... r:....X... h:x...", "k:X..... d:x. r:........X......."),
    "funk": ("k:X..x..x...x..x.. s:....X..g.g.gX..g h:x", "k:X.x.......x..... s:....X..g.g..X..g h:x.",
             "k:X...x..x..x..... s:....X.g. h:x.xx o:..............x.", "k:X..X..X.x..X.... c:....X... h:xxx. w:x..."),
    "disco": ("k:X... s:....X... h:x. o:..x.", "k:X... c:....X... o:..X. m:x", "k:X... s:....X..... h:xx.x w:..x."),
    "house": ("k:X... c:....X... o:..X. h:x.", "k:X... h:..x. m:x.xx", "k:X... s:....X..x.x..X... h:..X. a:x..x..x."),
    "break": ("k:X.X.......X..... s:....X..x.x..X..x h:x.", "k:X.........X..... s:....X.......X... d:x. m:x"),
    "trap": ("k:X.....x...x..... c:........X....... h:xxx.xxxxxx.xxxxx", "k:X..x......x..... s:........X... h:x.xxx.x. w:......x."),
    "swing": ("d:X...x.x. p:....x... k:g...", "d:X...x.x. p:....X... s:......g...g... k:x.........g.....", "s:x...X.x. p:....x... k:x.......",
              "h:X...x.x. k:X.......x....... s:....X..."),
    "bossa": ("k:X.....x. r:X..X..X...X..X.. h:x.", "k:X..x r:x..x..x....x.x.. m:x", "k:x.....x.X... h:xx g:..x...xx"),
    "latin": ("G:......xx g:..x. v:..X.X...X..X..X. w:x...", "k:...x..x. y:x.xx.xx. a:x.x.xx.x m:x", "k:X..x s:...x..X. h:x. g:..x...xx",
              "g:..X...xx G:....x... w:x.x. v:X..X..X...X.X..."),
    "reggae": ("k:........X....... r:........X....... h:x.", "k:X...X... s:........X....... h:x.xx"),
    "march": ("k:X... s:..x...xx", "k:X.......X....... s:x..xx.x.x.xxx.x. x:X...............", "k:X...x... s:..x.xxx. p:..x."),
    "tribal": ("k:X... t:x..xx.x. T:..x..x..", "t:X..x..x. T:....x.xx m:x.", "k:X.......x....... t:..x.x.xx G:x..x.... a:x..."),
    "waltz": ("k:X........... s:....x...x... h:x...", "k:X........... p:....x...x... d:x...", "k:X.........x. r:....x...x... h:x.",
              "k:X........... y:....x...x.x."),
    "six": ("k:X........... s:......X..... h:x.", "k:X...x....... s:......X...x. d:x.", "k:X.....x..... r:....x.....x. m:x.", "s:X.xxx.X.x.x. k:X....."),
}  # fmt: skip


class Style(NamedTuple):
    """Names in the tables above; tempo in beats per minute; swing as (probability, step of the beat that is late)."""

    tempo_bpm: tuple[int, int]
    metres: str
    progressions: str
    rhythms: str
    basses: str
    grooves: str
    swing: tuple[float, int] = (0.05, 4)
    kits: tuple[int, ...] = (0, 0, 0, 8, 16)


STYLES = {
    "rock": Style((96, 168), "4/4 4/4 4/4 6/8", "pop rock minor", "eighths strum sync", "root octave riff", "rock punk"),
    "metal": Style((90, 180), "4/4 4/4 4/4 7/8 6/8", "metal minor", "chug sixteenths half", "root riff", "metal punk rock"),
    "ballad": Style((60, 92), "4/4 4/4 6/8", "pop minor classical", "half eighths pulse", "root fifth line", "ballad rock"),
    "funk": Style((88, 122), "4/4", "funk blues", "funk sync back", "octave riff line", "funk disco break", (0.4, 2)),
    "swing": Style((90, 180), "4/4 4/4 4/4 3/4", "jazz blues", "charleston pulse back", "walk", "swing", (0.9, 4), (0, 32, 40)),
    "blues": Style((66, 150), "4/4 4/4 6/8", "blues", "pulse triplets back", "walk riff fifth", "rock swing", (0.7, 4)),
    "bossa": Style((100, 160), "4/4", "bossa jazz", "bossa sync half", "fifth line", "bossa latin", (0, 4), (0, 0, 32, 40)),
    "latin": Style((90, 130), "4/4", "modal pop minor", "montuno sync", "fifth octave riff", "latin bossa", (0, 4)),
    "reggae": Style((64, 96), "4/4", "modal pop minor", "back", "riff root", "reggae", (0.3, 4)),
    "waltz": Style((80, 180), "3/4 3/4 6/8", "classical jazz", "pulse half eighths", "root fifth line", "waltz", (0.2, 4)),
    "classical": Style((60, 150), "4/4 3/4 6/8", "classical", "pulse eighths half sixteenths", "root line fifth", "march", kits=(48, 0)),
    "dance": Style((110, 150), "4/4", "modal minor pop", "house sixteenths sync", "octave root riff", "house disco", kits=(24, 25, 0)),
    "hip hop": Style((66, 100), "4/4", "modal funk jazz", "half charleston sync", "riff root", "trap break", (0.4, 2), (25, 24, 0)),
    "march": Style((96, 132), "4/4 4/4 6/8", "classical rock", "pulse back eighths", "fifth root", "march", kits=(0, 48, 16)),
    "game": Style((90, 176), "4/4 4/4 3/4 5/4 7/8", "minor modal classical", "eighths sixteenths sync", "riff octave root line", "rock break tribal"),
    "ambient": Style((60, 100), "4/4 4/4 5/4 6/8", "modal pop", "hold half", "root", "tribal ballad trap"),
}  # fmt: skip
TEMPLATES = ("IABABCB", "AABA", "IAABCAB", "ABACA", "IABCDB", "IAAABB")  # I: introduction; the last section is O


class Family(NamedTuple):
    """Eight neighbouring programs: the playable pitches, the weight of each role, how readily they play."""

    low: int
    high: int
    roles: dict[str, float]
    activity: float = 0.55
    sustains: bool = True


FAMILIES = (  # by program // 8
    Family(28, 98, {"comp": 4, "arp": 3, "melody": 2, "stride": 2, "pad": 2, "riff": 1, "bass": 0.7}, 0.88, False),  # piano
    Family(45, 96, {"melody": 3, "arp": 3, "riff": 2, "comp": 1, "hits": 1}, 0.4, False),  # chromatic percussion
    Family(36, 92, {"pad": 4, "comp": 3, "arp": 1, "melody": 2, "riff": 1, "bass": 0.5}),  # organ
    Family(40, 82, {"strum": 4, "arp": 3, "riff": 3, "melody": 2, "power": 1.5, "comp": 2}, 0.6, False),  # guitar
    Family(24, 52, {"bass": 14, "riff": 1, "melody": 0.5}, 0.85, False),  # bass
    Family(36, 92, {"melody": 4, "pad": 3, "riff": 2, "tremolo": 1, "hits": 1}, 0.5),  # solo strings
    Family(32, 92, {"pad": 6, "melody": 3, "tremolo": 1, "riff": 1.5, "arp": 0.7, "hits": 0.7, "bass": 0.7}, 0.84),  # ensemble
    Family(40, 84, {"stabs": 4, "melody": 4, "pad": 3, "riff": 1, "bass": 0.4}, 0.42),  # brass
    Family(46, 86, {"melody": 6, "stabs": 1, "pad": 2, "riff": 1}, 0.45),  # reed
    Family(55, 96, {"melody": 7, "pad": 1, "riff": 1, "arp": 0.7}, 0.42),  # pipe
    Family(28, 92, {"melody": 5, "riff": 3, "arp": 3, "comp": 1, "pad": 1, "bass": 1.5}, 0.58),  # synth lead
    Family(34, 88, {"pad": 7, "arp": 1, "melody": 1.5, "comp": 1}, 0.6),  # synth pad
    Family(36, 84, {"pad": 3, "arp": 2, "hits": 2, "melody": 1, "riff": 1}, 0.5),  # effects
    Family(44, 84, {"melody": 3, "arp": 3, "riff": 2, "strum": 1}, 0.5, False),  # ethnic
    Family(36, 80, {"riff": 3, "hits": 3, "bass": 1, "melody": 0.5}, 0.45, False),  # percussive
    Family(40, 80, {"hits": 4, "pad": 1, "riff": 1}, 0.35),  # sound effects
)
DISTORTED = Family(38, 80, {"power": 6, "riff": 3, "melody": 3, "strum": 0.7, "pad": 1.5, "bass": 0.4}, 0.6)
RANGES = {43: (28, 55), 47: (38, 57), 58: (28, 58), 67: (36, 69), 70: (34, 72), 72: (70, 100)}  # unlike their family
RHYTHMS_OF = {"pad": "hold", "tremolo": "sixteenths eighths triplets", "stabs": "stab sync back", "power": "chug eighths half sync"}
VOICINGS_OF = {"pad": "close close wide open octave dyad single", "tremolo": "dyad octave close single", "stabs": "close dyad octave",
               "power": "power power fifth", "strum": "wide close", "comp": "close close dyad shell", "hits": "single close power"}  # fmt: skip


# ---- Harmony and rhythm: table entries -> pitches and strokes ------------------------------------------------------
class Chord(NamedTuple):
    """A chord from `start` for `length` steps: root pitch class, pitches 0 to 127 of the chord and of the scale on it."""

    start: int
    length: int
    root: int
    tones: tuple[int, ...]
    scale: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def _chord_pitches(symbol: str, tonic: int, mode: tuple[int, ...]) -> tuple[int, tuple, tuple]:
    accidental, numeral, suffix = re.fullmatch(r"([b#]?)([iIvV]+)(.*)", symbol).groups()
    root = NUMERALS[numeral.lower()] + {"b": -1, "#": 1, "": 0}[accidental]
    tones = {(root + interval) % 12 for interval in CHORDS[("m" if numeral.islower() else "") + suffix]}
    foreign = tones - set(mode)  # such a tone displaces its neighbours in the scale
    scale = tones | {p for p in mode if not {(p - 1) % 12, (p + 1) % 12} & foreign}
    return (tonic + root) % 12, *(tuple(p for p in range(128) if (p - tonic) % 12 in s) for s in (tones, scale))


@functools.lru_cache(maxsize=4096)
def _strokes(rhythm: str, bar: int) -> list[tuple[float, float, int]]:
    """One bar (steps) of a rhythm -> (start, length, accent -1 to 1) in steps."""
    step = bar / len(rhythm) if bar == 16 and len(rhythm) == 12 else 1
    rhythm = (rhythm * 3)[: round(bar / step)]
    accents = {"g": -1, "x": 0, "X": 1}
    return [
        (match.start() * step, (match.end() - match.start()) * step, accents[match[0][0]])
        for match in re.finditer("[Xxg]-*", rhythm)
    ]


def _voicing(chord: Chord, kind: str, pivot: int) -> tuple[int, ...]:
    """Pitches from the pivot up. A fixed pivot leads the voices: common tones stay, the others move little."""
    tones, root = chord.tones, pivot + (chord.root - pivot) % 12
    if kind in ("power", "fifth", "octave"):
        return {"power": (root, root + 7, root + 12), "fifth": (root, root + 7), "octave": (root, root + 12)}[kind]
    i = bisect.bisect_left(tones, pivot)
    if kind == "shell":
        return (root - 12, *tones[i + 1 : i + 3])
    size = {"close": 4 if len(tones) > 40 else 3, "wide": 5, "open": 6, "dyad": 2, "single": 1, "run": 7}[kind]
    return tones[i : i + size : 2 if kind == "open" else 1]


# ---- The players ---------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Part:
    """One MIDI channel and the habits of its player, drawn once a piece."""

    channel: int
    bank: int
    program: int
    programs: tuple[int, ...]
    family: Family
    roles: list[str]
    low: int  # of the register, a pitch
    high: int
    velocity: float
    accent: float  # velocity that an accent adds
    late_s: float
    gate: float  # sounding share of a note's written length
    pedal: bool
    bends: bool
    swells: bool


class Section:
    """The harmony of one section and what every part plays in it; a section that returns is played again alike."""

    def __init__(self, rng: random.Random, style: Style, metre: str, tonic: int, mode, progression: str, bars: int):
        """Draws the harmonic rhythm; `mode` are semitones above the tonic, `bars` the length of the section."""
        self.rng, self.style, self.bars = rng, style, bars
        self.bar, self.beat = METRES[metre]
        self.rhythms = {**RHYTHMS, **RHYTHMS_68} if self.beat == 6 else RHYTHMS
        symbols = progression.split()
        span = self.bar * (1 if len(symbols) > 8 else rng.choice((1, 1, 1, 2)))
        spans = [span // 2] * 2 if len(symbols) % 4 == 0 and span % 4 == 0 and rng.random() < 0.2 else [span]
        self.chords: list[Chord] = []
        start = 0
        while start < bars * self.bar:
            symbol, length = symbols[len(self.chords) % len(symbols)], spans[len(self.chords) % len(spans)]
            self.chords.append(Chord(start, length, *_chord_pitches(symbol, tonic, mode)))
            start += length
        if rng.random() < 0.3:  # a secondary dominant in the second half of a chord, on the way to the next
            i = rng.randrange(len(self.chords))
            chord, target = self.chords[i], self.chords[(i + 1) % len(self.chords)].root
            half = chord.length // 2
            dominant = Chord(chord.start + half, chord.length - half, *_chord_pitches("V7", target, MODES["major"][0]))
            self.chords[i : i + 1] = [chord._replace(length=half), dominant]
        self.chord_at = [chord for chord in self.chords for _ in range(chord.length)]

    def strokes(self, names: str, variety: float = 0.3) -> list[tuple[float, float, int, Chord]]:
        """A rhythm drawn from the named ones, over the whole section, some bars varied: [(start, length, accent, chord)]."""
        rhythms = [r for name in names.split() for r in self.rhythms.get(name, self.rhythms["eighths"])]
        main, other = self.rng.choice(rhythms), self.rng.choice(rhythms)
        bars = [other if i % 4 == 3 and self.rng.random() < variety else main for i in range(self.bars)]
        return [
            (i * self.bar + start, length, accent, self.chord_at[i * self.bar + int(start)])
            for i, rhythm in enumerate(bars)
            for start, length, accent in _strokes(rhythm, self.bar)
        ]

    def play(self, part: Part, role: str) -> list[tuple[float, float, int, float]]:
        """What a part plays in a role: notes (start, length, pitch, accent) in steps and MIDI pitches."""
        rng, pivot = self.rng, rng_pivot(self.rng, part)
        gate = 1.0 if role == "pad" else min(part.gate * rng.uniform(0.8, 1.2), 1.0)
        if role == "bass":
            notes = self.bass(part)
        elif role in ("melody", "riff"):
            notes = self.melody(part, role == "riff")
            if rng.random() < (0.3 if part.family.sustains else 0.2):  # doubled at the octave, or in thirds
                shift = rng.choice((12, -12, 3, 4))
                notes += [(s, n, p + shift, a - 0.5) for s, n, p, a in notes if 12 < p < 112]
        elif role == "arp":
            notes = self.arpeggio(pivot)
        elif role == "stride":
            notes = self.stride(pivot)
        else:
            notes = self.block(role, pivot)
        return [(s, max(n * gate, 0.3), p, a) for s, n, p, a in notes]

    def block(self, role: str, pivot: int) -> list[tuple[float, float, int, float]]:
        """Chords in a rhythm: pads, comping, strums, stabs, power chords, tremolo, rare hits."""
        rng = self.rng
        kind = rng.choice(VOICINGS_OF[role].split())
        stagger = rng.uniform(0.05, 0.22) if role == "strum" else rng.choice((0, 0, 0, 0.1)) if role == "comp" else 0
        if role == "hits":
            starts = sorted(rng.sample(range(0, self.bars * self.bar, self.beat), max(2, self.bars // 2)))
            strokes = [(s, self.beat * rng.choice((0.5, 1, 3)), 1, self.chord_at[s]) for s in starts]
        elif role == "pad" and rng.random() < 0.8:
            strokes = [(chord.start, chord.length, 0, chord) for chord in self.chords]
        else:
            strokes = self.strokes(RHYTHMS_OF.get(role, self.style.rhythms + (" strum" if role == "strum" else "")))
        notes = []
        for i, (start, length, accent, chord) in enumerate(strokes):
            voicing = _voicing(chord, kind, pivot)
            if stagger and i % 2:  # the up-stroke of a strum
                voicing = voicing[::-1]
            for j, pitch in enumerate(voicing):
                notes.append((start + j * stagger, length, pitch, accent))
        return notes

    def arpeggio(self, pivot: int) -> list[tuple[float, float, int, float]]:
        """Broken chords and runs."""
        rng = self.rng
        kind = rng.choice(("close", "wide", "open", "run"))
        order = rng.choice(((0, 1, 2, 3), (0, 2, 1, 2), (3, 2, 1, 0), (0, 1, 2, 3, 2, 1), (0, 2, 1, 3), (0, 1, 2, 3, 4, 5, 6, 5)))
        notes = []
        for i, (start, length, accent, chord) in enumerate(self.strokes("eighths sixteenths triplets " + self.style.rhythms)):
            voicing = _voicing(chord._replace(tones=chord.scale) if kind == "run" else chord, kind, pivot)
            notes.append((start, length, voicing[order[i % len(order)] % len(voicing)], accent))
        return notes

    def stride(self, pivot: int) -> list[tuple[float, float, int, float]]:
        """Two hands: a low root on the strong beats, the chord on the others."""
        low = pivot - self.rng.choice((12, 12, 19, 24))
        notes = []
        for start, length, accent, chord in self.strokes("pulse"):
            strong = accent > 0 or start == chord.start
            for pitch in (low + (chord.root - low) % 12,) if strong else _voicing(chord, "close", pivot):
                notes.append((start, length, pitch, accent))
        return notes

    def bass(self, part: Part) -> list[tuple[float, float, int, float]]:
        """Roots, fifths, octaves, arpeggios, riffs, or a walk that approaches the next root by step."""
        rng = self.rng
        figure = rng.choice(self.style.basses.split())
        rhythm = "pulse" if figure == "walk" else self.style.rhythms + " " + rng.choice(("eighths", "eighths", "chug", "half", "pulse", "sync"))
        steps = {"root": (0,), "octave": (0, 12), "fifth": (0, 7, 12, 7), "line": (0, 4, 7, 9), "walk": (0, 4, 7, 9, 7, 5)}
        intervals = steps.get(figure) or tuple(rng.choice((0, 0, 0, 3, 5, 7, 10, 12)) for _ in range(6))
        strokes = self.strokes(rhythm)
        notes, k, low = [], 0, part.low
        for i, (start, length, accent, chord) in enumerate(strokes):
            following = strokes[i + 1][3] if i + 1 < len(strokes) else self.chords[0]
            k = k + 1 if notes and strokes[i - 1][3] is chord else 0
            root = low + (chord.root - low) % 12
            pitch = root + (intervals[k % len(intervals)] if k else 0)
            if figure in ("line", "walk") and k and following is not chord:
                pitch = low + (following.root - low) % 12 + rng.choice((-1, 1, 2))
            elif k and pitch not in chord.scale:
                pitch = chord.scale[bisect.bisect_left(chord.scale, pitch)]
            notes.append((start, length, pitch, accent))
        return notes

    def melody(self, part: Part, riff: bool) -> list[tuple[float, float, int, float]]:
        """A line of motifs that return; chord tones on accents, scale steps between. A riff repeats one motif."""
        rng = self.rng
        low, high = part.low, max(part.high, part.low + 14)
        pace = rng.choice(("fast", "medium", "medium") if riff else ("slow", "slow", "medium", "medium", "medium", "fast", "triplet"))
        plan = "aaaaaaab" if riff else rng.choice(("abac", "aaab", "abab", "abcb", "aabc", "abcd"))
        cells, whole = CELLS[self.beat][pace], 12 if pace == "triplet" and self.bar == 16 else self.bar
        motifs = {}
        for letter in "abcd":
            rhythm = ""
            while len(rhythm) < whole:
                rhythm += rng.choice(cells)
            if "X" not in rhythm[:whole]:
                rhythm = "X" + rhythm[1:]
            motifs[letter] = [(stroke, rng.choice((-2, -1, -1, -1, 0, 1, 1, 1, 2, 4, -3))) for stroke in _strokes(rhythm[:whole], self.bar)]
        pitch = first = rng.randint(low + 2, high - 2)
        notes = []
        for bar in range(self.bars):
            if riff:
                pitch = first
            for (start, length, accent), move in motifs[plan[bar % len(plan)]]:
                chord = self.chord_at[bar * self.bar + int(start)]
                pool = chord.tones if accent > 0 else chord.scale
                i = bisect.bisect_left(pool, pitch)
                pitch = pool[i + move]
                if not low <= pitch <= high:
                    pitch = pool[i - move] if low <= pool[i - move] <= high else pool[bisect.bisect_left(pool, (low + high) // 2)]
                notes.append((bar * self.bar + start, length, pitch, accent))
        return notes

    def drums(self, part: Part, kit: dict[str, int], light: bool) -> list[tuple[float, float, int, float]]:
        """A groove with a crash at the start, ghost strokes, a varied last lane and a fill in the last bar."""
        rng, bar = self.rng, self.bar
        names = {12: "waltz" if self.beat == 4 else "six"}.get(bar, rng.choice(self.style.grooves.split()))
        lanes = [lane.split(":") for lane in rng.choice(GROOVES[names]).split()]
        if light:  # quiet sections keep one or two lanes
            lanes = rng.sample(lanes, min(len(lanes), rng.choice((1, 2))))
        elif rng.random() < 0.4:  # another player: any percussion, any rhythm
            rhythm = "".join(rng.choice("x..") for _ in range(rng.choice((4, 8, 16))))
            lanes.append([rng.choice("mwgGvayTtcx"), "x" + rhythm[1:]])
        swap = {"h": rng.choice("hhhhhdpm"), "d": rng.choice("ddddh")}
        hits = [
            (s, part.gate, kit[swap.get(letter, letter)], accent)
            for letter, rhythm in lanes
            for s, _, accent in _strokes((rhythm * 20)[:bar] if bar != 16 or len(rhythm) != 12 else rhythm + "....", bar)
        ]
        if rng.random() < 0.2:
            hits += [(rng.randrange(bar), 1, kit["s"], -1) for _ in range(3)]
        notes = [(i * bar + s, n, key, a) for i in range(self.bars) for s, n, key, a in hits]
        fill = rng.choice((0, 0, 4, 6, 8, bar))  # steps at the end
        if fill and not light:
            end = self.bars * bar
            notes = [note for note in notes if note[0] < end - fill]
            keys = rng.choice(((kit["s"],), (50, 48, 47, 45, 43, 41), (48, 45, 41), (kit["s"], 47, 43, kit["k"]), (kit["g"], kit["G"])))
            density = rng.choice((0.6, 0.9, 1.0))
            for s in range(fill):
                if s == 0 or rng.random() < density:
                    notes.append((end - fill + s, 1, keys[s * len(keys) // fill], -1 + 2 * s / fill))
        if not light and rng.random() < 0.7:
            notes.append((0, 4, rng.choice((49, 49, 57, 55, 52)), 1))
        return notes

    def controls(self, part: Part, role: str, notes: list) -> list[tuple[float, int, int, int]]:
        """Pedal, swells, vibrato and bends of a part: (start, kind, number, value), start in steps."""
        if part.pedal and role in ("comp", "arp", "pad", "stride"):
            pairs = [((c.start, CONTROL, SUSTAIN, 0), (c.start + 0.4, CONTROL, SUSTAIN, 127)) for c in self.chords]
            return [event for pair in pairs for event in pair]
        if part.swells and role == "pad":
            shape = self.rng.choice(((60, 75, 90, 105, 120, 127), (127, 110, 95, 85, 75, 70), (70, 95, 120, 115, 95, 70)))
            return [(c.start + i * c.length / 6, CONTROL, EXPRESSION, v) for c in self.chords for i, v in enumerate(shape)]
        if part.bends and role in ("melody", "riff"):
            long = [note for note in notes if note[1] >= 3][::2]
            if self.rng.random() < 0.4:  # vibrato that sets in late
                return [e for s, n, _, _ in long for e in ((s, CONTROL, MODULATION, 0), (s + n / 3, CONTROL, MODULATION, 80))]
            depth = self.rng.choice((-4096, -2048, -8192, 1400))
            return [(s + i * 0.3, BEND, 0, round(depth * (1 - i / 4))) for s, _, _, _ in long for i in range(5)]
        return []


def rng_pivot(rng: random.Random, part: Part) -> int:
    """The lowest pitch of a chord, such that its voicing stays near the register of the part."""
    return min(rng.randint(part.low, max(part.low, part.high - 12)), part.family.high - 10)


# ---- The piece -----------------------------------------------------------------------------------------------------
def compose(seed: int | Sequence[int], instruments: Sequence[Instrument]) -> Piece:
    """Composes a piece of about 60 to 150 s in which every one of the instruments plays, and no other.

    Drawn: style, tempo, metre, key, form, harmony, the parts, who rests when, and how it is performed. The name of the
    piece says which, as in `composed-7-waltz-3_4-Ebm-120bpm`. The same arguments compose the same piece.

    Raises InputError for more instruments than MIDI has channels.
    """
    noise = np.random.default_rng(seed)
    rng = random.Random(int(noise.integers(1 << 62)))  # ten times faster than NumPy for single draws
    style_name = rng.choice(list(STYLES))
    style = STYLES[style_name]
    metre = rng.choice(style.metres.split())
    bar, beat = METRES[metre]
    bpm = rng.uniform(*style.tempo_bpm) * (0.7 if beat == 6 else 1)
    tonic = rng.randrange(12)
    progressions = PROGRESSIONS[rng.choice(style.progressions.split())]
    main = rng.choice(progressions)
    minor = _is_minor(main)
    progressions = [p for p in progressions if _is_minor(p) == minor]
    mode = rng.choice(MODES["minor" if minor else "major"])
    form = _form(rng, rng.uniform(66, 136) * bpm * beat / 60 / bar, 60 / bpm / beat * bar, len(main.split()))
    parts, players = _cast(rng, style, instruments)
    active = _arrange(rng, [label for label, _ in form], parts, players)

    kit = {letter: rng.choice(keys) for letter, keys in DRUM_KEYS.items()}
    cover = rng.choice((0.0, 0.0, 2.0))  # semitones that the last third goes up
    sections, sketches = {}, {}
    blocks, controls, start = [], [], 0
    for i, (label, bars) in enumerate(form):
        if label not in sections:
            progression = main if label in "IAO" or len(main.split()) > 8 else rng.choice(progressions)
            longest = max(n for other, n in form if other == label)
            section = sections[label] = Section(rng, style, metre, tonic, mode, progression, longest)
            singers = [p for p in active[i] if "melody" in parts[p].family.roles and parts[p].bank != DRUM_BANK]
            section.lead = rng.choice(singers) if singers else None
        section = sections[label]
        energy = {"I": -8, "O": -5, "Z": 0}.get(label, 0) + rng.uniform(-6, 6)
        solo_bars = rng.random() < 0.1
        for p in active[i]:
            part = parts[p]
            if (label, p) not in sketches:
                sketches[label, p] = _sketch(rng, section, part, kit, p == section.lead, label)
            notes, events, program = sketches[label, p]
            notes = notes[notes[:, 0] < bars * bar]
            turn = rng.random()  # some play only a part of the section
            if turn < 0.2 and part.family is not FAMILIES[4] and bars >= 4 and label != "Z":
                number = notes[:, 0] // bar
                mask = number % 4 >= 2 if turn < 0.08 else number % 4 < 2 if turn < 0.14 else number >= bars / 2
                if mask.any():
                    notes = notes[mask]
            elif solo_bars and part.bank != DRUM_BANK and bars >= 4:  # the band stops, the drums fill
                notes = notes[notes[:, 0] < (bars - 1) * bar]
            block = np.empty((len(notes), 7))
            block[:, :4] = notes
            block[:, 0] += start
            block[:, 1] = np.minimum(block[:, 1], start + bars * bar - block[:, 0])
            block[:, 4:] = p, program, energy
            if part.bank != DRUM_BANK and i > len(form) * 2 / 3:
                block[:, 2] += cover
            blocks.append(block)
            controls += [(start + s, p, *event) for s, *event in events if s < bars * bar]
            resets = {(kind, number) for _, kind, number, _ in events}
            rest = {SUSTAIN: 0, EXPRESSION: 127, MODULATION: 0}
            controls += [(start + bars * bar, p, k, n, 0 if k == BEND else rest[n]) for k, n in sorted(resets)]
        start += bars * bar
    seeds = "-".join(map(str, np.atleast_1d(seed)))
    key = KEY_NAMES[tonic] + "m" * minor
    name = f"composed-{seeds}-{style_name.replace(' ', '_')}-{metre.replace('/', '_')}-{key}-{bpm:.0f}bpm"
    seconds = _clock(rng, noise, style, 60 / bpm / beat, start, bar, beat)
    return make_piece(name, _perform(rng, noise, parts, np.concatenate(blocks), controls, seconds))


def _is_minor(progression: str) -> bool:
    return any(re.match("i(?![iv])", symbol) for symbol in progression.split())


def _form(rng: random.Random, n_bars: float, bar_s: float, n_chords: int) -> list[tuple[str, int]]:
    """Labels and lengths (bars) of the sections: a template, repeated and cut to `n_bars`, and a closing bar (Z)."""
    long = n_chords if n_chords > 8 else 4 if bar_s > 2.4 else 8
    form, left, template = [], round(n_bars) - 1, rng.choice(TEMPLATES)
    while left > 0:
        for label in template.replace("I", "" if form else "I"):
            bars = min(long if label != "I" else max(4, long // 2), left)
            if bars > 0:
                form.append((label if bars < left else "O", bars if left - bars >= 4 else left))
                left -= form[-1][1]
    return [*form, ("Z", 1)]


def _cast(rng: random.Random, style: Style, instruments: Sequence[Instrument]) -> tuple[list[Part], list[int]]:
    """Draws the parts, and for each the number of its instrument; with few instruments some have two parts."""
    melodic = [i for i, instrument in enumerate(instruments) if not instrument.is_drums]
    channels = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    if len(melodic) > len(channels):
        raise InputError(f"{len(melodic)} melodic instruments: MIDI has channels for {len(channels)}; name fewer")
    doubled = [i for i in melodic if rng.random() < 0.45 - 0.06 * len(melodic)]
    players = [i for i, instrument in enumerate(instruments) if instrument.is_drums] + (melodic + doubled)[: len(channels)]
    flat, tight = rng.random() < 0.15, rng.random() < 0.4
    rng.shuffle(channels)
    parts = []
    for i in players:
        programs = instruments[i].programs
        program = rng.choice(programs) if programs else rng.choice(style.kits if rng.random() < 0.7 else (0,))
        family = DISTORTED if program in (29, 30, 31) else FAMILIES[program // 8]
        low, high = RANGES.get(program, family[:2]) if programs else (27, 87)
        width = min(high - low, rng.randint(14, 32))
        low = rng.randint(low, high - width)
        roles, weights = list(family.roles), list(family.roles.values())
        parts.append(
            Part(
                channel=channels.pop() if programs else DRUM_CHANNEL,
                bank=0 if programs else DRUM_BANK,
                program=program,
                programs=programs,
                family=family,
                roles=rng.choices(roles, weights, k=2),
                low=low,
                high=low + width,
                velocity=rng.choice((rng.triangular(40, 127, 98), rng.uniform(60, 135))),
                accent=0 if flat or rng.random() < 0.15 else rng.uniform(3, 18),
                late_s=0 if tight else rng.uniform(-0.008, 0.015),
                gate=rng.choice((0.4, 0.6, 0.8, 0.9, 0.97, 1.0) if programs else (0.5, 1, 1, 2, 3)),
                pedal=rng.random() < 0.35 and (program < 16 or program == 46),
                bends=rng.random() < 0.35 and program > 15,
                swells=rng.random() < 0.35 and family.sustains,
            )
        )
    return parts, players


def _arrange(rng: random.Random, labels: list[str], parts: list[Part], players: list[int]) -> list[list[int]]:
    """Draws which parts play in each section: everybody somewhere, hardly anybody everywhere, sometimes one or two."""
    drums_bass = [p for p, part in enumerate(parts) if part.bank == DRUM_BANK or part.family is FAMILIES[4]]
    crowd = max(1.0, (len(parts) - len(drums_bass)) / 6)  # many instruments take turns
    steady = [rng.uniform(0.75, 1.1) if p in drums_bass else part.family.activity / crowd for p, part in enumerate(parts)]
    active = []
    for label in labels:
        mood = {"I": 0.6, "O": 0.8, "Z": 1.0}.get(label, 1.1)
        playing = [p for p in range(len(parts)) if rng.random() < steady[p] * mood]
        if rng.random() < 0.12 or not playing:
            playing = rng.sample(range(len(parts)), min(len(parts), rng.choice((1, 2, 2))))
        active.append(sorted(playing))
    for player in sorted(set(players)):
        own = [p for p, other in enumerate(players) if other == player]
        sections = [i for i in range(len(labels) - 1) if any(p in active[i] for p in own)]
        for i in rng.sample(range(len(labels) - 1), max(0, min(2, len(labels) - 1) - len(sections))):
            active[i] = sorted({*active[i], rng.choice(own)})
    return active


def _sketch(rng: random.Random, section: Section, part: Part, kit: dict, leads: bool, label: str) -> tuple:
    """What a part plays in a section: (notes [note, (start, length, pitch, accent)], controls, program)."""
    program = rng.choice(part.programs) if part.programs and rng.random() < 0.05 else part.program
    if part.bank == DRUM_BANK:
        closing = [(0, 4, kit["k"], 1), (0, 4, kit["x"], 1)]
        notes = closing if label == "Z" else section.drums(part, kit, rng.random() < (0.5 if label == "I" else 0.1))
        return np.array(notes, float), [], program
    role = "pad" if label == "Z" else "melody" if leads else rng.choice(part.roles)
    if role == "melody" and not leads and rng.random() < 0.5:
        role = rng.choice(list(part.family.roles))
    notes = section.play(part, role)
    if leads and role == "melody" and not part.family.sustains and rng.random() < 0.4 and "arp" in part.family.roles:
        notes += section.play(part, rng.choice(("comp", "arp", "stride")))  # two hands
    return np.array(notes, float), section.controls(part, role, notes), program


def _clock(rng: random.Random, noise, style: Style, step_s: float, n_steps: int, bar: int, beat: int):
    """Steps -> seconds: swing, a tempo that breathes from bar to bar, a ritardando in some pieces."""
    bars = n_steps // bar + 2
    slowness = 1 + noise.normal(0, rng.choice((0, 0, 0.004, 0.012)), bars)
    if rng.random() < 0.3:
        slowness[-5:] *= (1.04, 1.12, 1.25, 1.5, 1.5)
    if rng.random() < 0.15:  # a passage in another tempo
        first = rng.randrange(bars)
        slowness[first : first + 8] *= rng.choice((0.9, 1.1, 1.2))
    bar_starts_s = rng.uniform(0, 0.4) + np.concatenate([[0], np.cumsum(slowness * step_s * bar)])
    unit = style.swing[1]
    swings = rng.random() < style.swing[0] and (unit == 2 or (beat == 4 and bar % 4 == 0))
    late = unit / 2 * (1 + (rng.uniform(0.12, 0.36) if swings else 0))  # 1/3: triplets

    def seconds(steps: np.ndarray) -> np.ndarray:
        phase = steps % unit
        swung = steps - phase + np.interp(phase, (0, unit / 2, unit), (0, late, unit))
        return np.interp(swung, np.arange(bars + 1) * bar, bar_starts_s)

    return seconds


def _perform(rng: random.Random, noise, parts: list[Part], notes: np.ndarray, controls: list, seconds) -> list[tuple]:
    """Notes [note, (start, length, pitch, accent, part, program, energy)] and controls -> rows for `make_piece`."""
    start, length, pitch, accent, part, program, energy = notes.T
    part = part.astype(int)
    of_part = np.array([(p.channel, p.bank, p.velocity, p.accent, p.late_s) for p in parts])
    channel, bank, velocity, depth, late_s = of_part[part].T
    jitter_s = noise.normal(0, rng.choice((0, 0, 0.003, 0.006, 0.01)), len(notes)) + late_s
    start_s = np.maximum(seconds(start) + jitter_s, 0)
    end_s = np.maximum(seconds(start + length) + jitter_s, start_s + 1.5 * SHORTEST_S)
    pitch = np.where(bank, pitch, np.where(pitch > 108, pitch - 24, np.where(pitch < 21, pitch + 12, pitch)))
    loud = velocity + depth * (accent + noise.normal(0, 0.3, len(notes))) + np.where(depth > 0, energy, 0)
    loud = np.clip(np.round(loud + np.where(bank, 0, 0)), 12, 127)

    order = np.lexsort((start_s, pitch, channel))
    columns = np.array([start_s, end_s, channel, bank, program, pitch, loud])[:, order]
    again = (np.diff(columns[2]) == 0) & (np.diff(columns[5]) == 0)  # the next note strikes the same key
    columns = columns[:, np.concatenate([[True], ~(again & (np.diff(columns[0]) < SHORTEST_S))])]
    again = (np.diff(columns[2]) == 0) & (np.diff(columns[5]) == 0)
    start_s, end_s, channel, bank, program, pitch, loud = columns
    end_s[:-1] = np.where(again, np.minimum(end_s[:-1], start_s[1:]), end_s[:-1])

    control = np.array([(s, parts[p].channel, kind, number, value) for s, p, kind, number, value in controls]).reshape(-1, 5).T
    volume = [(0, p.channel, CONTROL, n, v) for p in parts for n, v in ((VOLUME, rng.randint(64, 127)), (PAN, _pan(rng)))]
    volume = np.array(volume).T
    zeros = np.zeros(len(start_s))
    rows = np.concatenate(
        [
            np.array([volume[0], volume[2], volume[1], *np.zeros((2, len(volume[0]))), volume[3], volume[4]]),
            np.array([seconds(control[0]), control[2], control[1], *np.zeros((2, len(control[0]))), control[3], control[4]]),
            np.array([end_s, zeros + NOTE_OFF, channel, zeros, zeros, pitch, zeros]),
            np.array([start_s, zeros + NOTE_ON, channel, bank, program, pitch, loud]),
        ],
        axis=1,
    )
    rank = np.repeat((0, 0, 1, 2), (len(volume[0]), len(control[0]), len(start_s), len(start_s)))
    rows = rows[:, np.lexsort((rank, rows[0]))]
    return list(zip(rows[0].tolist(), *rows[1:].astype(int).tolist()))


def _pan(rng: random.Random) -> int:
    return rng.choice((64, 64, rng.randint(34, 94), rng.randint(8, 120)))
