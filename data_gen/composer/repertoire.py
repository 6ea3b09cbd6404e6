"""The tables that the composer draws from: metres, harmony, rhythms, grooves, styles, forms, families of instruments.

Entries that are to be drawn more often are repeated. Positions and lengths are counted in steps: a step is a sixteenth
note, in 6/8 as well.
"""

from __future__ import annotations

from typing import NamedTuple


def _table(text: str) -> dict[str, list[str]]:
    """Parses lines `name | entry | ...` into {name: entries}; a name may have several lines."""
    table: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        name, *entries = (cell.strip() for cell in line.split("|"))
        table.setdefault(name, []).extend(entries)
    return table


METRES = {"4/4": (16, 4), "3/4": (12, 4), "6/8": (12, 6), "5/4": (20, 4), "7/8": (14, 4)}  # steps of a bar, of a beat
KEY_NAMES = "C Db D Eb E F Gb G Ab A Bb B".split()
NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}  # semitones above the tonic
CHORDS = {  # semitones above the root, by the suffix of the numeral; m: a numeral in lower case
    "": "0 4 7", "7": "0 4 7 10", "maj7": "0 4 7 11", "6": "0 4 7 9", "9": "0 2 4 7 10", "5": "0 7", "sus": "0 5 7",
    "+": "0 4 8", "m": "0 3 7", "m7": "0 3 7 10", "m9": "0 2 3 7 10", "m6": "0 3 7 9", "m5": "0 7", "mo": "0 3 6",
    "mo7": "0 3 6 9", "mh7": "0 3 6 10",
}  # fmt: skip
MODES = _table("""
major | 0 2 4 5 7 9 11 | 0 2 4 5 7 9 11 | 0 2 4 5 7 9 10 | 0 2 4 6 7 9 11 | 0 2 4 7 9
minor | 0 2 3 5 7 8 10 | 0 2 3 5 7 9 10 | 0 2 3 5 7 8 11 | 0 1 3 5 7 8 10 | 0 3 5 7 10 | 0 3 5 6 7 10
""")
PROGRESSIONS = _table("""
pop | I V vi IV | I vi IV V | vi IV I V | I IV V IV | I iii IV iv | IV V iii vi | I I+ I6 I7 IV iv I V
minor | i bVI bIII bVII | i bVII bVI V7 | i iv i V7 | i bVI iv V | i v bVI bVII | i bIII bVII IV
rock | I bVII IV I | I IV I V | I5 bIII5 IV5 V5 | i bVII IV i | I I IV V | Isus I IVsus IV
metal | i5 i5 bII5 bV5 | i5 i5 bVI5 bVII5 | i5 bIII5 bII5 i5 | i5 i5 #iv5 iv5 | i5 bVI5 vii5 bII5
blues | I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7 | i7 i7 i7 i7 iv7 iv7 i7 i7 bVI7 V7 i7 V7
blues | I7 IV7 I7 I7 IV7 #ivo7 I7 VI7 ii7 V7 I7 V7
jazz | ii7 V7 Imaj7 VI7 | Imaj7 vi7 ii7 V7 | iih7 V7 i7 i6 | iii7 VI7 ii7 V7 | Imaj7 IVmaj7 iii7 VI7
jazz | i7 iv7 bVII7 bIIImaj7 bVImaj7 iih7 V7 i6
bossa | Imaj7 II9 ii9 V7 | i9 iv7 iih7 V7 | Imaj7 #io7 ii7 V9 | Imaj7 bIIImaj7 ii7 bII7
funk | i7 i7 i7 IV7 | I9 I9 IV9 I9 | i9 IV9 | i7 bIII bVII IV7
classical | I IV V7 I | I vi ii V7 | i iv V7 i | I V vi iii IV I IV V | i V7 i bVII bIII bVII i V7 | I bVI IV V
classical | I V7 V7 I IV I V7 I | i io7 V7 i
modal | i IV | I bVII | i bII | I II | i i | i bVII
""")
# Rhythms: X accent, x stroke, g ghost, - held, . rest, one character a step; in 4/4 twelve characters are triplets.
RHYTHMS = _table("""
hold | X---------------
half | X-------x------- | X-----x---------
pulse | X---x---X---x--- | X-..x-..X-..x-.. | X---x---x---x---
back | ....X-......X-.. | ..x-..x-..x-..x- | ....X-....x-X-..
eighths | X-x-x-x-X-x-x-x- | X-x-x-X-x-x-X-x-
sixteenths | XxxxXxxxXxxxXxxx | X-xxX-xxX-xxX-xx | XxxXxxXxxXxxXxxx
triplets | XxxXxxXxxXxx | X-xX-xX-xX-x
strum | X---x-xx..xxx-x- | X-x-x-xxX-xxx-xx | X---X-x-..x-X-x- | X-xxxxxxX-xxxxxx
sync | X--x--x---x--x-- | X-..x-.x-.x-x-.. | x-.X--.x-.X-.x-- | X--x--x-X--x--x-
charleston | X--...x-........ | ..x-....X-....x- | X-....x-..x-.... | ......X-....x-..
bossa | X-.x.-x-..x-.x-. | X-..x-.X-..x-.x- | x-.X-..x-.x-..x-
montuno | X-x-xx.xx.xx.xx. | Xx.xx.x-Xx.xx.x-
funk | X-.x..x..xx..x.. | ..xx..x...xx.x.x | X.xx.xx.x.xxx.x. | x..X..x.x..X.xx.
chug | X-xxX-xxX-xxX-xx | XxxxXxxxXxxxXxxx | X-x-x-x-x-x-x-x- | X..x..X..X..X.x. | Xxx-xx-xx-Xxx-x-
stab | X-.............. | ..........X-X-.. | X-....X-........ | ....X.......X.X. | ..X..X..X.......
house | ..X-..X-..X-..X- | X--X--X--X--X-X- | X-..X-..X-..X-..
""")
RHYTHMS_68 = {  # instead of the first twelve steps of the rhythm above
    "pulse": ["X---x-X---x-", "X-..x-X-..x-"], "back": ["..x-x-..x-x-", "......X-...."], "sixteenths": ["X-x-xxX-x-xx"],
    "sync": ["X---x---x---", "X--x--x--x--"], "chug": ["X-xxxxX-xxxx"], "stab": ["X-..........", "......X-..x-"],
}  # fmt: skip
CELLS = _table("""
slow 4 | X--------------- | X------- | X-----x- | X---x--- | ....x--- | X-----------x---
medium 4 | X--- | X-x- | X-.. | ..x- | X--x | X-----x- | X--x--x- | ....
fast 4 | Xxxx | X-xx | Xxx- | X-x- | .xxx | X--- | ..xx
triplet 4 | Xxx | X-x | X-- | ...
slow 6 | X----- | X----------- | X---x-
medium 6 | X-x-x- | X---x- | X--x-- | ..x-x- | ......
fast 6 | Xxxxxx | X-xxxx | X-x-xx | X-x-x-
triplet 6 | X-x-x- | X-----
""")  # rhythmic cells of melodies, by pace and steps of a beat
DRUM_KEYS = {  # letter of a groove -> keys of the General MIDI percussion map, one of which is drawn for a piece
    "k": (36, 36, 35), "s": (38, 38, 40), "r": (37, 37, 40), "c": (39, 39, 38), "h": (42, 42, 42, 44), "o": (46,),
    "p": (44,), "d": (51, 51, 59, 53), "x": (52, 55, 57), "m": (70, 82, 69, 54), "w": (56, 76, 54), "g": (63, 62, 60),
    "G": (64, 61, 77), "v": (75, 76, 31), "a": (67, 68, 80), "y": (65, 66, 58), "t": (41, 43, 45), "T": (47, 48, 50),
}  # fmt: skip
FILLS = ("s", "50 48 47 45 43 41", "48 45 41", "s 47 43 k", "g G")  # keys or letters, as they follow
GROOVES = _table("""
rock | k:X.......X.x..... s:....X... h:x. | k:X..x..x.X....... s:....X... h:x. | k:X.....x.X.x..... s:....X... o:x...
rock | k:X.x...x.X.x..... s:....X... d:x. | k:X......xX....... s:....X..g.g..X... h:X.x.
punk | k:X...X... s:..X. h:x. | k:X.x...x. s:..X. d:X. | k:X... s:..X. o:X...
metal | k:xxxx s:....X... d:X... | k:X.xxx.xx s:....X... x:X... | k:X.x. s:.x.x d:X.
metal | k:X..x..X..x..X.x. s:........X... x:X...
ballad | k:X.....x...x..... s:........X... h:x. | k:X.......x....... r:....X... h:x... | k:X..... d:x. r:....X...
funk | k:X..x..x...x..x.. s:....X..g.g.gX..g h:x | k:X.x.......x..... s:....X..g.g..X..g h:x.
funk | k:X...x..x..x..... s:....X.g. h:x.xx o:..............x. | k:X..X..X.x..X.... c:....X... h:xxx. w:x...
disco | k:X... s:....X... h:x. o:..x. | k:X... c:....X... o:..X. m:x | k:X... s:....X... h:xx.x w:..x.
house | k:X... c:....X... o:..X. h:x. | k:X... h:..x. m:x.xx | k:X... s:....X..x.x..X... h:..X. a:x..x..x.
break | k:X.X.......X..... s:....X..x.x..X..x h:x. | k:X.........X..... s:....X.......X... d:x. m:x
trap | k:X.....x...x..... c:........X....... h:xxx.xxxxxx.xxxxx | k:X..x......x..... s:........X... h:x.xxx.x.
swing | d:X...x.x. p:....x... k:g... | d:X...x.x. p:....X... s:......g...g... k:x.........g.....
swing | s:x...X.x. p:....x... k:x....... | h:X...x.x. k:X.......x....... s:....X...
bossa | k:X.....x. r:X..X..X...X..X.. h:x. | k:X..x r:x..x..x....x.x.. m:x | k:x.....x.X... h:xx g:..x...xx
latin | G:......xx g:..x. v:..X.X...X..X..X. w:x... | k:...x..x. y:x.xx.xx. a:x.x.xx.x m:x
latin | k:X..x s:...x..X. h:x. g:..x...xx | g:..X...xx G:....x... w:x.x. v:X..X..X...X.X...
reggae | k:........X....... r:........X....... h:x. | k:X...X... s:........X....... h:x.xx
march | k:X... s:..x...xx | k:X.......X....... s:x..xx.x.x.xxx.x. x:X............... | k:X...x... s:..x.xxx. p:..x.
tribal | k:X... t:x..xx.x. T:..x..x.. | t:X..x..x. T:....x.xx m:x. | k:X.......x....... t:..x.x.xx G:x..x.... a:x...
waltz | k:X........... s:....x...x... h:x... | k:X........... p:....x...x... d:x... | k:X........... y:....x...x.x.
waltz | k:X.........x. r:....x...x... h:x.
six | k:X........... s:......X..... h:x. | k:X...x....... s:......X...x. d:x. | k:X.....x..... r:....x.....x. m:x.
six | s:X.xxx.X.x.x. k:X.....
""")  # letter:rhythm for each drum; a rhythm is repeated to fill the bar


class Style(NamedTuple):
    """What is typical of a style: names in the tables above, separated by spaces, and these numbers.

    tempo_bpm holds the lowest and highest tempo in beats per minute; swing holds its probability and the length in
    steps of the unit that is divided unevenly; kits holds General MIDI drum kits.
    """

    tempo_bpm: str
    swing: str
    metres: str
    progressions: str
    rhythms: str
    basses: str
    grooves: str
    kits: str


STYLES = {
    name: Style(*columns)
    for name, columns in _table("""
rock | 96 168 | 0.05 4 | 4/4 4/4 4/4 6/8 | pop rock minor | eighths strum sync | root octave riff | rock punk | 0 8 16
metal | 90 180 | 0 4 | 4/4 4/4 7/8 6/8 | metal minor | chug sixteenths half | root riff | metal punk rock | 0 16
ballad | 60 92 | 0.1 4 | 4/4 4/4 6/8 | pop minor classical | half eighths pulse | root fifth line | ballad rock | 0 8
funk | 88 122 | 0.4 2 | 4/4 | funk blues | funk sync back | octave riff line | funk disco break | 0 8 24
swing | 90 180 | 0.9 4 | 4/4 4/4 4/4 3/4 | jazz blues | charleston pulse back | walk | swing | 0 32 40
blues | 66 150 | 0.7 4 | 4/4 4/4 6/8 | blues | pulse triplets back | walk riff fifth | rock swing | 0 8
bossa | 100 160 | 0 4 | 4/4 | bossa jazz | bossa sync half | fifth line | bossa latin | 0 32 40
latin | 90 130 | 0 4 | 4/4 | modal pop minor | montuno sync | fifth octave riff | latin bossa | 0
reggae | 64 96 | 0.3 4 | 4/4 | modal pop minor | back | riff root | reggae | 0 8
waltz | 80 180 | 0.2 4 | 3/4 3/4 6/8 | classical jazz | pulse half eighths | root fifth line | waltz | 0 40
classical | 60 150 | 0 4 | 4/4 3/4 6/8 | classical | pulse eighths half sixteenths | root line fifth | march | 48 0
dance | 110 150 | 0 4 | 4/4 | modal minor pop | house sixteenths sync | octave root riff | house disco | 24 25 0
hip_hop | 66 100 | 0.4 2 | 4/4 | modal funk jazz | half charleston sync | riff root | trap break | 25 24 0
march | 96 132 | 0.1 4 | 4/4 4/4 6/8 | classical rock | pulse back eighths | fifth root | march | 0 48 16
game | 90 176 | 0 4 | 4/4 3/4 5/4 7/8 | minor modal classical | eighths sixteenths | riff line | rock break tribal | 0
ambient | 60 100 | 0 4 | 4/4 4/4 5/4 6/8 | modal pop | hold half | root | tribal ballad trap | 0 24
""").items()
}
FORMS = ("IABABCB", "AABA", "IAABCAB", "ABACA", "IABCDB", "IAAABB")  # I: an introduction


class Family(NamedTuple):
    """Eight neighbouring programs: comfortable pitches, share of the sections in which they play, plausible roles.

    The pitches are narrower than those of `instruments.playable_pitches`, which are the limits of what is possible.
    """

    low: int
    high: int
    activity: float
    roles: tuple[str, ...]


FAMILIES = {
    name: Family(int(pitches.split()[0]), int(pitches.split()[1]), float(activity), tuple(roles.split()))
    for name, (pitches, activity, roles) in _table("""
piano | 28 98 | 0.95 | comp comp comp comp arp arp arp melody melody stride stride pad pad riff bass
mallets | 45 96 | 0.45 | melody melody melody arp arp arp riff riff comp hits
organ | 36 92 | 0.65 | pad pad pad pad comp comp comp melody melody arp riff bass
guitar | 40 82 | 0.65 | strum strum strum strum arp arp arp riff riff melody melody comp comp power
bass | 24 52 | 0.9 | bass bass bass bass bass bass bass bass bass bass bass bass bass riff melody
solo strings | 36 92 | 0.6 | melody melody melody melody pad pad pad riff riff tremolo hits
strings | 32 92 | 0.9 | pad pad pad pad pad pad pad pad pad melody melody tremolo riff arp hits bass
brass | 38 84 | 0.5 | stabs stabs stabs stabs melody melody melody melody pad pad pad riff bass
reed | 46 86 | 0.5 | melody melody melody melody melody stabs pad pad riff
pipe | 55 96 | 0.5 | melody melody melody melody melody melody pad riff arp
lead | 28 92 | 0.65 | melody melody melody melody riff riff riff arp arp arp comp pad bass
synth pad | 34 88 | 0.65 | pad pad pad pad pad pad arp melody comp
effects | 36 84 | 0.55 | pad pad pad arp arp hits hits melody riff
ethnic | 44 84 | 0.55 | melody melody melody arp arp arp riff riff strum
percussive | 36 80 | 0.45 | riff riff riff hits hits hits bass melody
sounds | 40 80 | 0.4 | hits hits hits hits pad riff
distorted | 38 80 | 0.65 | power power power power power power riff riff riff melody melody melody pad strum bass
drums | 0 127 | 1.0 | drums
""").items()
}
REGISTERS = {
    43: (28, 55),
    47: (38, 57),
    58: (28, 58),
    67: (36, 69),
    70: (34, 72),
    72: (70, 100),
}  # unlike their family
BASS_FIGURES = {  # semitones above the root, stroke by stroke
    "root": (0,), "octave": (0, 12), "fifth": (0, 7, 12, 7), "line": (0, 4, 7, 9), "walk": (0, 4, 7, 9, 7, 5),
}  # fmt: skip
CHORD_ROLES = _table("""
pad | hold hold hold hold half | close close wide open octave dyad single
comp | style | close close dyad shell
strum | style strum | wide wide close
stabs | stab sync back | close dyad octave
power | chug eighths half sync | power power fifth
tremolo | sixteenths eighths triplets | dyad octave close single
hits | stab | single close power
""")  # rhythms and voicings
PACES = ("slow", "slow", "medium", "medium", "medium", "fast", "triplet")
PLANS = ("abac", "aaab", "abab", "abcb", "aabc", "abcd")  # the motif of each bar
SWELLS = ((60, 75, 90, 105, 120, 127), (127, 110, 95, 85, 75, 70), (70, 95, 120, 115, 95, 70))
