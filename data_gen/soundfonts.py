"""Which instruments a SoundFont plays, how loud, and which samples several SoundFonts share.

`python -m data_gen.soundfonts A.sf2 B.sf3 ...` prints it. Training reads from here which SoundFont can play what, and
the gains that bring all SoundFonts of an instrument to one level.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import app, flags, logging

from data_gen import InputError, midi, procedural
from data_gen.channels import DRUM_CHANNEL
from data_gen.command import exit_status
from data_gen.files import short_name, split_weight, walk, write_atomically
from data_gen.index import cache_dir
from data_gen.instruments import CANDIDATES, DRUM_BANK, Instrument, parse_instruments, playable_pitches
from data_gen.soundfont_file import PROCEDURAL, SoundFontFile
from data_gen.synth import Synthesizer

SUFFIXES = (".sf2", ".sf3")
PROFILE_VERSION = 1  # raise it when the measurement changes: SoundFonts are then measured again
MAX_MATCH_DB = 15.0  # largest gain by which a SoundFont is matched to the others

_RATE_HZ = 16_000
_NOTE_S = 0.5  # from one note of the measurement to the next
_BEAT = ((36,), (42,), (38, 42), (42,), (36,), (42, 45), (38,), (46, 49))  # keys of General MIDI percussion
_TURN_S = len(_BEAT) * _NOTE_S + 0.5  # from one program to the next, on the same stem
_TURNS = 9  # programs of a stem, so that the 128 programs and the kit are 16 stems


# ---- Which files ----------------------------------------------------------------------------------------------------
def expand_soundfonts(entries: Iterable[str]) -> dict[str, float]:
    """Reads what --soundfonts lists.

    Args:
        entries: paths of files, of folders (searched recursively for *.sf2 and *.sf3) or patterns such as fonts/*.sf2,
            each with an optional weight as in fonts:0.5; or PROCEDURAL.

    Returns:
        {path of a file: weight}. A file that several entries name has the weight of the last of them.

    Raises InputError for a weight that is not above 0, and for an entry without any file.
    """
    found: dict[str, float] = {}
    for entry in entries:
        path, weight = split_weight(entry)
        if path == PROCEDURAL:
            files = [PROCEDURAL]
        elif os.path.isdir(path):
            files = [os.path.join(folder, name) for folder, _, names in walk(path) for name in names]
            files = [file for file in files if file.lower().endswith(SUFFIXES)]
        else:
            files = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
        if not files:
            raise InputError(f"--soundfonts={entry}: no SoundFont (*.sf2, *.sf3) there")
        found.update(dict.fromkeys(files, weight))
    return found


# ---- What a file plays, and how loud --------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Profile:
    """What a SoundFont can play.

    Attributes:
        programs: the General MIDI programs that it has in bank 0; none of a file of drums only.
        has_kit: whether it has a drum kit.
        levels_db: program, or -1 for the drum kit -> level of a fixed sequence of notes in dBFS (RMS).
    """

    programs: frozenset[int]
    has_kit: bool
    levels_db: Mapping[int, float]

    def plays(self, instrument: Instrument) -> bool:
        """Returns whether it has a preset of the instrument, or the instrument has none: it is recorded only."""
        if instrument.is_percussion:
            return self.has_kit
        return not instrument.programs or not self.programs.isdisjoint(instrument.programs)

    def levels_of(self, instrument: Instrument) -> dict[int, float]:
        """Returns the levels of the programs of an instrument that it has."""
        programs = (-1,) if instrument.is_percussion else instrument.programs
        return {program: self.levels_db[program] for program in programs if program in self.levels_db}


def profile(soundfont: str) -> Profile:
    """Returns what a SoundFont can play; its levels are measured once and kept in the user's cache folder.

    Raises InputError if it is missing or damaged.
    """
    if soundfont == PROCEDURAL:  # the levels of one seed, since all are computed to the same
        everything = range(128)
        levels = _levels(soundfont, f"{PROCEDURAL} {procedural.VERSION}", everything, True)
        return Profile(frozenset(everything), True, levels)
    file = SoundFontFile(soundfont)
    programs = frozenset() if file.is_kit else frozenset(program for bank, program in file.presets if bank == 0)
    levels = _levels(soundfont, _key(soundfont), sorted(programs), file.kit is not None)
    return Profile(programs, file.kit is not None, levels)


def _key(soundfont: str) -> str:
    """Returns what tells a file from all others, and from what it was before it was changed."""
    status = os.stat(soundfont)
    return f"{os.path.realpath(soundfont)} {status.st_size} {status.st_mtime_ns}"


def _levels(soundfont: str, key: str, programs: Sequence[int], has_kit: bool) -> dict[int, float]:
    """Returns the levels of a SoundFont from the cache, or measures them; `key` tells whether it has changed."""
    path = _cached(key, soundfont)
    try:
        return {int(program): float(level) for program, level in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):  # not measured yet, or damaged
        logging.info("%s: measuring its levels; this is done once", soundfont)
    levels = _measure_levels(soundfont, programs, has_kit)
    _keep(path, levels)
    return levels


def _cached(key: str, soundfont: str) -> pathlib.Path:
    """Returns the file in the user's cache folder for what was measured of a SoundFont under a key."""
    name = f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}-{short_name(soundfont)}.json"
    return cache_dir() / f"soundfonts-{PROFILE_VERSION}" / name


def _keep(path: pathlib.Path, measured: object) -> None:
    """Writes a file of the cache, which only saves time: an error is logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(measured).encode())
    except OSError as error:
        logging.warning("%s: cannot be written to (%s): SoundFonts are measured again", path, error.strerror)


def _measure_levels(soundfont: str, programs: Sequence[int], has_kit: bool) -> dict[int, float]:
    """Plays a fixed sequence of notes on each program, and a beat on the drum kit; returns RMS levels in dBFS."""
    groups = [tuple(programs[first : first + _TURNS]) for first in range(0, len(programs), _TURNS)]
    instruments = [Instrument(f"group{number}", group) for number, group in enumerate(groups)]
    instruments += [Instrument("kit", is_percussion=True)] if has_kit else []
    turns = [[*enumerate(one.programs or (-1,))] for one in instruments]
    rows = [row for place, of in enumerate(turns) for turn, program in of for row in _notes(program, place, turn)]
    piece = midi.make_piece("levels", sorted(rows, key=lambda row: row[0]))
    n_turn = round(_TURN_S * _RATE_HZ)
    stems = Synthesizer(soundfont, instruments, _RATE_HZ).render(piece, 0, _TURNS * n_turn)
    energies = np.square(stems, dtype=np.float64).reshape(_TURNS, n_turn, -1).mean(axis=1)
    return {
        program: round(float(10 * np.log10(energies[turn, place])), 2)
        for place, of in enumerate(turns)
        for turn, program in of
        if energies[turn, place] > 1e-12  # a program that is silent has no level to match
    }


def _notes(program: int, channel: int, turn: int) -> list[tuple]:
    """Returns notes over the register of a program, or a beat for -1, as rows for `midi.make_piece`."""
    bank = 0
    keys: Sequence[Sequence[int]] = _BEAT
    if program < 0:
        channel, bank, program = DRUM_CHANNEL, DRUM_BANK, 0
    else:
        low, high = playable_pitches(Instrument("one", (program,)))
        keys = [(round(low + (high - low) * at),) for at in np.linspace(0.25, 0.75, len(_BEAT))]
        channel += channel >= DRUM_CHANNEL
    rows = []
    for number, chord in enumerate(keys):
        start_s = turn * _TURN_S + 0.01 + number * _NOTE_S
        for key in chord:
            rows.append((start_s, midi.NOTE_ON, channel, bank, program, key, 90))
            rows.append((start_s + 0.8 * _NOTE_S, midi.NOTE_OFF, channel, 0, 0, key, 0))
    return rows


def match_levels(profiles: Sequence[Profile], instrument: Instrument) -> list[float]:
    """Returns the gain in dB that brings each SoundFont to the mean level of all that play an instrument.

    Levels are compared program by program, since not every SoundFont has the same ones. 0 dB for one that cannot be
    compared.
    """
    levels = [one.levels_of(instrument) for one in profiles]
    programs = {program for of_font in levels for program in of_font}
    mean = {program: np.mean([of[program] for of in levels if program in of]) for program in programs}
    above = [np.mean([level - mean[program] for program, level in of.items()]) if of else 0.0 for of in levels]
    return [float(np.clip(-offset, -MAX_MATCH_DB, MAX_MATCH_DB)) for offset in above]


# ---- Which samples are shared ---------------------------------------------------------------------------------------
_COMPARED = 4_096  # samples from the beginning of two sounds that are compared
_SHORTEST = 256  # shorter sounds are waves of synthesisers, alike by nature
_SAME_LENGTH = 0.02  # two copies differ in length by no more than this share
_SAME = 0.9  # correlation from which on two sounds are one recording, cut or encoded in two ways


@functools.cache
def _beginnings(soundfont: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads the sounds of a SoundFont.

    Returns:
        beginnings: float32 [sample, _COMPARED] of unit energy; those that are too short to compare are zero.
        lengths: int [sample].
        digests: of the whole sample; "" for those that are too short.
    """
    file = SoundFontFile(soundfont)
    n = len(file.sample_names)
    beginnings, lengths, digests = np.zeros((n, _COMPARED), np.float32), np.zeros(n, int), [""] * n
    for number in range(n):
        sample = file.sample(number)
        lengths[number] = len(sample)
        start = sample[:_COMPARED].astype(np.float32)
        energy = float(np.sqrt(np.square(start).sum()))
        if len(sample) >= _SHORTEST and energy > 0:
            beginnings[number, : len(start)] = start / energy
            digests[number] = hashlib.sha256(sample.tobytes()).hexdigest()
    return beginnings, lengths, digests


def shared_samples(soundfont: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns which samples of a SoundFont are also in another one.

    They are the same if their bits agree, or if they are about as long and the beginnings correlate: SF3 files hold
    samples with the errors of their encoding.

    Returns:
        shared: bool [sample].
        compared: bool [sample], False for silence and for what is shorter than _SHORTEST samples.
    """
    ours, our_lengths, our_digests = _beginnings(soundfont)
    theirs, their_lengths, their_digests = _beginnings(other)
    known = set(their_digests) - {""}
    shared = np.array([digest in known for digest in our_digests], bool)
    for number in np.flatnonzero(~shared & ours.any(axis=1)):
        alike = np.abs(their_lengths - our_lengths[number]) <= 64 + _SAME_LENGTH * our_lengths[number]
        shared[number] = bool(alike.any()) and (theirs[alike] @ ours[number]).max() > _SAME
    return shared, ours.any(axis=1)


def shared_share(soundfont: str, other: str) -> float:
    """Returns the share of the samples of a SoundFont, 0 to 1 of those long enough to compare, that another one has.

    It is found once, and kept in the user's cache folder. Raises OSError for a file that is missing, InputError for one
    that is damaged.
    """
    path = _cached(f"{_key(soundfont)} in {_key(other)}", soundfont)
    try:
        return float(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # not compared yet, or damaged
        logging.info("%s: comparing its samples with those of %s; this is done once", soundfont, other)
    shared, compared = shared_samples(soundfont, other)
    share = float(shared.sum() / max(1, compared.sum()))
    _keep(path, share)
    return share


# ---- The report -----------------------------------------------------------------------------------------------------
def report(soundfonts: Sequence[str], instruments: Sequence[Instrument]) -> str:
    """Returns what SoundFonts hold, as text: presets, missing programs, levels, and what they share.

    Raises InputError for a file that is missing or damaged.
    """
    profiles = {soundfont: profile(soundfont) for soundfont in soundfonts}
    gains = {instrument: match_levels(list(profiles.values()), instrument) for instrument in instruments}
    lines = []
    for place, (soundfont, one) in enumerate(profiles.items()):
        file = SoundFontFile(soundfont)
        lines.append(f"{soundfont}: {len(file.presets)} presets, {len(file.sample_names)} samples")
        lines.append(f"  {'instrument':18}{'presets':>9}{'level, dBFS':>13}{'gain to match, dB':>19}  missing programs")
        for instrument in instruments:
            levels = list(one.levels_of(instrument).values())
            if instrument.is_percussion:
                count, missing = sum(bank == DRUM_BANK for bank, _ in file.presets) or int(one.has_kit), ""
            else:
                count = sum(bank != DRUM_BANK and program in instrument.programs for bank, program in file.presets)
                lacked = [program for program in instrument.programs if program not in one.programs]
                missing = str(Instrument("", tuple(lacked))).lstrip(":") or "-"
                count = 0 if file.is_kit else count
            level = f"{np.mean(levels):.1f}" if levels else "-"
            gain = f"{gains[instrument][place]:+.1f}" if levels else "-"
            lines.append(f"  {instrument.name:18}{count:9}{level:>13}{gain:>19}  {missing}".rstrip())
        lines.append("")
    if len(soundfonts) > 1:
        lines.append("samples that another SoundFont holds too:")
        shares = [_share(one, other) for one in soundfonts for other in soundfonts if one != other]
        lines += [share for share in shares if share] or ["  none"]
    return "\n".join(lines).rstrip()


def _share(one: str, other: str) -> str:
    """Returns a line that says which samples of one SoundFont another one holds, by instrument; "" for none."""
    shared, compared = shared_samples(one, other)
    if not shared.any():
        return ""
    file, by_instrument = SoundFontFile(one), []
    for instrument in CANDIDATES.values():
        presets = [preset for preset in file.presets if instrument.plays(*preset)]
        if file.is_kit:
            presets = [*file.presets] if instrument.is_percussion else []
        samples = sorted({number for preset in presets for number in file.samples_of(*preset) if compared[number]})
        if samples and shared[samples].any():
            by_instrument.append(f"{instrument.name} {shared[samples].mean():.0%}")
    names = pathlib.Path(one).name, pathlib.Path(other).name
    return f"  {names[0]} in {names[1]}: {shared.sum()} of {compared.sum()} ({', '.join(by_instrument) or 'others'})"


def main(arguments: list[str]) -> int:
    """Prints the report. Returns the exit status."""
    if not arguments:
        raise InputError("name one or more SoundFonts (SF2, SF3), or folders of them")
    print(report(list(expand_soundfonts(arguments)), parse_instruments(flags.FLAGS.instruments)))
    return 0


if __name__ == "__main__":
    flags.DEFINE_list("instruments", list(CANDIDATES), "Instruments to list.")
    app.run(lambda argv: exit_status(main, argv[1:]))
