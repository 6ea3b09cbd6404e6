"""Finds the recordings to separate: files that are named, and sound files in folders that are named."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from data_gen import InputError, audio
from data_gen.midi import SUFFIXES as MIDI_SUFFIXES
from data_gen.midi import read_midi
from sourcesep.separate.file_plan import FilePlan

SOUND_SUFFIXES = tuple(
    ".aif .aifc .aiff .au .avr .caf .flac .htk .ircam .mp3 .mpc .nist .oga .ogg .opus .paf .pvf .rf64 .sds .sf .snd "
    ".svx .voc .w64 .wav .wave .wve .xi".split()
)


class Track(NamedTuple):
    """A recording to separate.

    Attributes:
        path: its file.
        name: its name in the paths of its stems.
        length_s: its length in seconds, an estimate; 0 if it is unknown.
    """

    path: str
    name: str
    length_s: float

    @property
    def is_midi(self) -> bool:
        """Whether it is a MIDI file, which has to be played."""
        return is_midi(self.path)


class Failure(NamedTuple):
    """A file or folder that gave no stems.

    Attributes:
        path: of the file or folder.
        reason: why it failed, in one line that names it.
    """

    path: str
    reason: str


def is_midi(path: str) -> bool:
    """Returns whether the name of a file is that of a MIDI file."""
    return path.lower().endswith(MIDI_SUFFIXES)


def find_tracks(paths: Sequence[str], output_dir: str) -> tuple[list[Track], list[Failure]]:
    """Looks into folders, recursively, and into the headers of files.

    A file that is named gives the track its name; for one found in a folder, this is its path from that folder.
    Hidden files, and files in the output folder, are passed over; a file that is found twice is taken once.
    """
    tracks, failures, seen = [], [], set()
    for path in paths:
        found = _list_sound_files(path, output_dir) if os.path.isdir(path) else [(path, pathlib.Path(path).stem)]
        if not found:
            failures.append(Failure(path, f"{path}: holds no sound file"))
        for file, name in found:
            if os.path.realpath(file) in seen:
                continue
            seen.add(os.path.realpath(file))
            try:
                tracks.append(Track(file, name, _length_s(file)))
            except InputError as error:
                failures.append(Failure(file, str(error)))
    return tracks, failures


def check_paths(tracks: Sequence[Track], plan: FilePlan, stem_names: Sequence[str]) -> None:
    """Finds out beforehand what would go wrong in writing.

    Raises InputError if two files would get the same path, or one would replace a recording that is read, or if the
    output folder cannot be written in.
    """
    existing = pathlib.Path(plan.output_dir).absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--output_dir={plan.output_dir}: {existing} is not a folder that can be written in")
    recordings = {os.path.realpath(track.path): track.path for track in tracks}
    owners: dict[str, str] = {}
    for track in tracks:
        for path in plan.paths(track.name, stem_names, has_references=track.is_midi):
            real = os.path.realpath(path)
            if real in recordings:
                raise InputError(f"{path}: would replace {recordings[real]}; change --output_dir or --filename")
            if real in owners:
                raise InputError(
                    f"{owners[real]} and {track.path} would both be written to {path}; rename one, "
                    "separate them into two folders, or put {track} into --filename"
                )
            owners[real] = track.path


def _list_sound_files(folder: str, output_dir: str) -> list[tuple[str, str]]:
    """Returns (path, name of the track) of every sound file below a folder."""
    found = []
    skipped = os.path.realpath(output_dir)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and os.path.realpath(os.path.join(place, name)) != skipped
        )
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(SOUND_SUFFIXES):
                path = os.path.join(place, name)
                found.append((path, str(pathlib.PurePath(os.path.relpath(path, folder)).with_suffix(""))))
    return found


def _length_s(path: str) -> float:
    if is_midi(path):
        return read_midi(path).duration_s
    with audio.open_audio(path) as file:
        return (audio.stated_samples(file) or 0) / file.samplerate
