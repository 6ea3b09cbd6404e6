"""Finds the recordings to separate: files that are named, and sound files in folders that are named."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from data_gen import InputError, audio
from data_gen.files import walk
from data_gen.midi import SUFFIXES as MIDI_SUFFIXES
from data_gen.midi import read_midi
from sourcesep.separate.file_plan import FilePlan

# Of sound files and videos. A file in a folder is taken for one by its suffix; one that cannot be read is named.
SOUND_SUFFIXES = tuple(
    ".3gp .aa .aac .aax .ac3 .adts .aif .aifc .aiff .alac .amr .ape .asf .au .avi .avr .bw64 .bwf .caf .dff .dsf .dts "
    ".eac3 .flac .flv .htk .ircam .m4a .m4b .m4p .m4v .mka .mkv .mov .mp1 .mp2 .mp3 .mp4 .mpc .mpeg .mpg .mpga .nist "
    ".oga .ogg .ogv .oma .opus .paf .pvf .ra .rf64 .rm .sds .sf .shn .snd .spx .svx .tak .tta .voc .vob .w64 .wav "
    ".wave .webm .wma .wmv .wv .wve .xi".split()
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
        found = _list_sound_files(path, output_dir) if os.path.isdir(path) else [(path, name_track(path))]
        if not found:
            failures.append(Failure(path, f"{path}: holds no sound file (*.wav, *.flac, *.mp3, *.m4a, ...)"))
        for file, name in found:
            if os.path.realpath(file) in seen:
                continue
            seen.add(os.path.realpath(file))
            try:
                tracks.append(Track(file, name, _length_s(file)))
            except InputError as error:
                failures.append(Failure(file, str(error)))
            except OSError as error:
                failures.append(Failure(file, f"{file}: cannot be read ({error.strerror})"))
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
    longest = os.pathconf(existing, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    recordings = {os.path.realpath(track.path): track.path for track in tracks}
    owners: dict[str, str] = {}
    for track in tracks:
        for path in plan.paths(track.name, stem_names, has_references=track.is_midi):
            for part in path.relative_to(plan.output_dir).parts:
                if (n_bytes := len(os.fsencode(part))) > longest:
                    raise InputError(
                        f"{track.path}: the name {part[:20]}... of what would be written has {n_bytes} bytes, and "
                        f"{existing} takes {longest}; rename the recording, or shorten --filename"
                    )
            real = os.path.realpath(path)
            if real in recordings:
                raise InputError(f"{path}: would replace {recordings[real]}; change --output_dir or --filename")
            if real in owners:
                raise InputError(
                    f"{owners[real]} and {track.path} would both be written to {path}; rename one, "
                    "separate them into two folders, or put {track} into --filename"
                )
            owners[real] = track.path


def name_track(path: str) -> str:
    """Returns the name of the track in a file: that of the file without suffix, with _ in place of dots only."""
    name = pathlib.PurePath(os.path.basename(path)).stem
    return name if name.strip(".") else name.replace(".", "_") or "_"


def _list_sound_files(folder: str, output_dir: str) -> list[tuple[str, str]]:
    """Returns (path, name of the track) of every sound file below a folder."""
    found = []
    skipped = os.path.realpath(output_dir)
    for place, folders, files in walk(folder):
        folders[:] = [
            name for name in folders if name[0] != "." and os.path.realpath(os.path.join(place, name)) != skipped
        ]
        for name in files:
            if name[0] != "." and name.lower().endswith(SOUND_SUFFIXES):
                path = os.path.join(place, name)
                track = os.path.join(os.path.relpath(place, folder), name_track(path))
                found.append((path, os.path.normpath(track)))
    return sorted(found)


def _length_s(path: str) -> float:
    if is_midi(path):
        return read_midi(path).duration_s
    with audio.open_audio(path) as file:
        return (file.n_samples or 0) / file.sample_rate
