"""How the MIDI source plays an instrument: a name and the General MIDI programs that belong to it.

Program numbers count from 0 (0 is the acoustic grand piano, 127 the gunshot), as in the MIDI message itself.
Percussion is what a MIDI file plays on a percussion channel, on any program.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from data_gen import InputError

DRUM_BANK = 128  # SoundFont bank of percussion presets


@dataclasses.dataclass(frozen=True)
class Instrument:
    """One separable instrument.

    Attributes:
        name: name of its stem.
        programs: General MIDI programs, 0 to 127, whose notes belong to it; empty for percussion, and for an instrument
            that only recordings hold.
        is_percussion: whether it is the percussion of a MIDI file.
    """

    name: str
    programs: tuple[int, ...] = ()
    is_percussion: bool = False

    def plays(self, bank: int, program: int) -> bool:
        """Returns whether a note of this SoundFont bank and program belongs to the instrument."""
        is_drum = bank == DRUM_BANK
        return is_drum if self.is_percussion else not is_drum and program in self.programs

    def owns(self, events: np.ndarray) -> np.ndarray:
        """Returns which notes belong to the instrument, bool [event].

        Args:
            events: array [event] of dtype `midi.EVENT`. Only its notes carry a bank and a program; what is returned
                for other events means nothing.
        """
        is_drum = events["bank"] == DRUM_BANK
        return is_drum if self.is_percussion else ~is_drum & np.isin(events["program"], self.programs)

    def __str__(self) -> str:
        if CANDIDATES.get(self.name) == self:
            return self.name
        if not self.programs:
            return self.name
        starts = [p for p in self.programs if p - 1 not in self.programs]
        ends = [p for p in self.programs if p + 1 not in self.programs]
        ranges = (str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends))
        return f"{self.name}:{'+'.join(ranges)}"


def _programs(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


CANDIDATES: dict[str, Instrument] = {
    instrument.name: instrument
    for instrument in (
        Instrument("drums", is_percussion=True),
        Instrument("bass", _programs(32, 39)),
        Instrument("piano", _programs(0, 7)),
        Instrument("strings", _programs(48, 51)),
        Instrument("guitar", _programs(24, 28)),
        Instrument("distorted_guitar", _programs(29, 31)),
        Instrument("brass", _programs(56, 63)),
        Instrument("reed", _programs(64, 71)),
        Instrument("pipe", _programs(72, 79)),
        Instrument("synth_lead", _programs(80, 87)),
    )
}
"""The instruments that need no list of programs: the ten most frequent ones in General MIDI files from the web."""

# Lowest and highest MIDI pitch that real instruments play, for each family of eight General MIDI programs. It is wider
# than the registers that the composer writes in (composer.repertoire.FAMILIES).
_PITCHES_OF_FAMILY = (
    *((21, 108), (45, 108), (36, 96), (40, 88), (23, 67), (28, 103), (28, 100), (28, 86)),
    *((34, 94), (48, 103), (24, 100), (24, 96), (24, 96), (36, 91), (36, 91), (0, 127)),
)


def playable_pitches(instrument: Instrument) -> tuple[int, int]:
    """Returns the lowest and highest MIDI pitch (60 is middle C) that any program of the instrument plays."""
    ranges = [_PITCHES_OF_FAMILY[program // 8] for program in instrument.programs] or [(0, 127)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


REST = "rest"
"""The instrument that needs no list of programs because it has all that no other instrument has."""

_SYNTAX = "NAME:PROGRAMS with General MIDI programs from 0 to 127, e.g. choir:52-54 or keys:0-7+16-20"
_KNOWN = ", ".join((*CANDIDATES, REST))


def name_of(text: str) -> str:
    """Returns the name in `choir:52-54` or `drums`.

    Raises InputError if the name has other characters than letters, digits and _.
    """
    name = text.strip().partition(":")[0]
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise InputError(f"instrument name {name!r}: use letters, digits and _ only, since it names files and outputs")
    return name


def parse_instrument(text: str, recorded: bool = False) -> Instrument:
    """Reads `drums` (a known instrument), `choir:52-54` (a name and its programs) or `rest` (without programs yet).

    Args:
        text: what the user wrote.
        recorded: whether a name is enough, since recordings may hold the instrument.

    Raises InputError for a name without programs that is not known, and for programs out of range.
    """
    if not text.strip():
        raise InputError(f"instrument '' has no name: choose from {_KNOWN}, or write {_SYNTAX}")
    name, (_, colon, ranges) = name_of(text), text.strip().partition(":")
    if not colon:
        if name == REST:
            return Instrument(name)
        if recorded:
            return CANDIDATES.get(name, Instrument(name))
        if name not in CANDIDATES:
            raise InputError(
                f"unknown instrument {name!r}: MIDI files are played for {_KNOWN}; for any other write {_SYNTAX}"
            )
        return CANDIDATES[name]
    programs: list[int] = []
    for part in ranges.split("+"):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= 127:
            raise InputError(f"instrument {text!r}: {part!r} is not a range of programs; write {_SYNTAX}")
        programs.extend(range(first, last + 1))
    return Instrument(name, tuple(sorted(set(programs))))


def parse_instruments(texts: Iterable[str], recorded: bool = False) -> tuple[Instrument, ...]:
    """Reads a list of instruments, in order; `rest` gets the programs that the others leave, but no percussion.

    `recorded` is as in `parse_instrument`.

    Raises InputError if it is empty, if two of them share a name or a program, or if nothing is left for `rest`.
    """
    instruments = tuple(parse_instrument(text, recorded) for text in texts)
    if not instruments:
        raise InputError(f"no instrument named: choose from {_KNOWN}, or write {_SYNTAX}")
    if Instrument(REST) in instruments:
        taken = {program for instrument in instruments for program in instrument.programs}
        rest = Instrument(REST, tuple(program for program in range(128) if program not in taken))
        if not rest.programs:
            raise InputError(f"the other instruments leave no program for {REST!r}: leave it out")
        instruments = tuple(rest if instrument == Instrument(REST) else instrument for instrument in instruments)
    for position, instrument in enumerate(instruments):
        for other in instruments[:position]:
            if other.name == instrument.name:
                raise InputError(f"instrument {instrument.name!r} is named twice")
            shared = set(other.programs) & set(instrument.programs)
            if shared or (other.is_percussion and instrument.is_percussion):
                raise InputError(
                    f"instruments {other.name!r} and {instrument.name!r} share the programs {sorted(shared)}: "
                    "a note can belong to one stem only"
                )
    return instruments
