"""The settings that say which songs are heard, and through which SoundFonts."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from data_gen import InputError
from data_gen.files import expand
from data_gen.soundfont_file import PROCEDURAL
from sourcesep.models.settings import setting

# Those that are paths, or lists of them.
PATH_SETTINGS = ("midi_dir", "soundfonts", "validate_soundfonts", "stems_dir", "validate_stems_dir", "solo_dir")


@dataclasses.dataclass(frozen=True)
class SongSettings:
    """Which songs are heard, and through which SoundFonts: a group of the fields of Config."""

    midi_dir: str = setting(
        "",
        "Folders of MIDI files to train on, read recursively, separated by commas, each with a weight if you like, as "
        "in songs,quartets:0.5, which says how often each of its songs is played. Empty for composed pieces.",
    )
    composed_share: float = setting(
        0.0,
        "Share of the visits to pieces that play composed ones, where --midi_dir is given, 0 to 1.",
        minimum=0.0,
        maximum=1.0,
    )
    remix_match: float = setting(
        0.0,
        "Probability that instruments of a visit play from other pieces, matched in tempo and key, 0 to 1. Makes bands "
        "of folders that hold one kind of instrument each; these need --require=any.",
        minimum=0.0,
        maximum=1.0,
    )
    stems_dir: tuple[str, ...] = setting(
        (),
        "Folders of recorded songs to train on, separated by commas, in place of MIDI or beside it (--midi_share): a "
        "folder per song with a file per stem (drums.wav, ...), or the layout of MUSDB18, Slakh2100 or MoisesDB.",
    )
    midi_share: float = setting(
        -1.0,
        "Share of the visits that play MIDI (composed pieces without --midi_dir) where --stems_dir is given, 0 to 1; "
        "-1 for 0.5 with --midi_dir, and 0 without.",
        minimum=-1.0,
        maximum=1.0,
    )
    solo_dir: tuple[str, ...] = setting(
        (),
        "Folders of recordings of one instrument alone, as INSTRUMENT:FOLDER, separated by commas: --remix puts them "
        "into mixtures. other:FOLDER is for sounds that shall not end up in a stem, such as voices and noises.",
    )
    stem_aliases: tuple[str, ...] = setting(
        (),
        "More names of stems in --stems_dir, as INSTRUMENT:NAME+NAME, separated by commas, e.g. "
        "guitar:gtr+rhythm_guitar; docs/training.md lists those that are known.",
        alias="stem_names",
    )
    require: str = setting(
        "all",
        "Which songs are used: those that contain all of the instruments, or those that contain any of them.",
        choices=("all", "any"),
    )
    soundfonts: tuple[str, ...] = setting(
        (),
        "SoundFonts (SF2, SF3) to play the pieces with, separated by commas: files, folders or patterns, each with a "
        "weight if you like, as in fonts/,drums.sf2:0.5; or the word procedural, for sounds that are computed, other "
        "ones each time. At each visit to a piece one is drawn for each instrument, "
        "among those that have it. Empty for FluidR3_GM.sf2 if it is installed, else TimGM6mb.sf2, which pretty_midi "
        "contains.",
    )
    validate_soundfonts: tuple[str, ...] = setting(
        (),
        "SoundFonts that training does not hear, separated by commas; the best weights are then chosen by how well the "
        "model separates held-out songs that are played through them. Empty for the first of --soundfonts.",
    )
    validate_stems_dir: tuple[str, ...] = setting(
        (),
        "Folders of recorded songs, in the layouts of --stems_dir, by which the best weights are chosen, beside or in "
        "place of --validate_soundfonts. They are not trained on.",
    )

    @property
    def solo_folders(self) -> tuple[tuple[str, str], ...]:
        """(instrument, folder) of each of `solo_dir`."""
        return tuple(_split_pair(text, "solo_dir", "INSTRUMENT:FOLDER") for text in self.solo_dir)

    @property
    def more_stem_names(self) -> dict[str, tuple[str, ...]]:
        """The names in `stem_aliases`, by instrument."""
        pairs = [_split_pair(text, "stem_names", "INSTRUMENT:NAME+NAME") for text in self.stem_aliases]
        return {
            name: tuple(more for other, names in pairs if other == name for more in names.split("+"))
            for name, _ in pairs
        }

    @property
    def played_share(self) -> float:
        """Share of the visits that play MIDI, with the default resolved."""
        if not self.stems_dir:
            return 1.0
        return self.midi_share if self.midi_share >= 0 else 0.5 if self.midi_dir else 0.0

    def check_shares(self) -> None:
        """Raises InputError for shares of the visits that cannot be, or leave songs unused."""
        if self.midi_share != -1 and not self.stems_dir:
            raise InputError(f"--midi_share={self.midi_share:g}: needs --stems_dir, with which MIDI shares the visits")
        if -1 < self.midi_share < 0:
            raise InputError(f"--midi_share={self.midi_share:g}: it must be from 0 to 1, or -1")
        if self.midi_dir and not self.played_share:
            raise InputError(f"--midi_dir={self.midi_dir}: --midi_share=0 leaves it unused; leave out one of them")


def expand_setting(name: str, paths: Any) -> Any:
    """Returns one of PATH_SETTINGS, or a list as a tuple, with absolute paths and the home folder in place of ~."""
    if name == "solo_dir":
        return tuple(
            f"{instrument}{colon}{expand(folder)}" for instrument, colon, folder in (p.partition(":") for p in paths)
        )
    if name == "midi_dir" and not os.path.isdir(paths):
        return ",".join(map(expand, paths.split(",")))
    if name == "soundfonts":
        return tuple(path if path.partition(":")[0] == PROCEDURAL else expand(path) for path in paths)
    return expand(paths) if isinstance(paths, str) else tuple(map(expand, paths))


def _split_pair(text: str, flag: str, syntax: str) -> tuple[str, str]:
    """Returns (instrument, what follows the colon). Raises InputError if one of them is missing."""
    name, _, rest = text.partition(":")
    if not name or not rest:
        raise InputError(f"--{flag}={text}: write {syntax}")
    return name, rest
