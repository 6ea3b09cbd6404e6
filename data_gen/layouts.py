"""Finds recorded songs in folders, and which of their files belong to which instrument: the one table of both.

| layout | a song is | its stems are |
|---|---|---|
| named files, also MUSDB18-HQ | a folder with sound files | files named after instruments: drums.wav, Bass_2.flac |
| MUSDB18 | one file *.stem.mp4 | its sound tracks: mixture, drums, bass, other, vocals |
| Slakh2100 | a folder with metadata.yaml | stems/SNN.wav or .flac, by General MIDI program |
| MoisesDB | a folder with data.json | STEM/ID.wav, by the track type and the stem name in data.json |

A name is compared without upper case, numbers, separators and sides: "01_KickDrum (L).wav" is kick_drum. It belongs to
the instrument of that name, else to the instrument for which it is in `ALIASES`, where `--stem_names` can add more.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from data_gen import InputError
from data_gen.files import walk
from data_gen.instruments import DRUM_BANK, Instrument

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a", ".w64", ".caf", ".au", ".wv")
STEM_SUFFIXES = (".stem.mp4", ".stem.m4a")  # files whose sound tracks are the stems of a song
MUSDB_TRACKS = ("mixture", "drums", "bass", "other", "vocals")  # the tracks of *.stem.mp4 in MUSDB18, in order
MIXTURES = ("mixture", "mix", "full_mix", "mixdown", "master")  # names of what is the mixture and not a stem
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}

ALIASES: dict[str, str] = {
    "drums": "drum drum_kit drumkit kit drum_machine full_acoustic_drumkit beat beats percussion perc "
    "a_tonal_percussion kick kick_drum bass_drum snare snare_drum hat hats hihat hi_hat tom toms cymbal cymbals crash "
    "ride overhead overheads clap claps shaker tambourine conga congas bongos cowbell",
    "bass": "bass_guitar electric_bass acoustic_bass bass_synth bass_synthesizer synth_bass sub_bass double_bass "
    "upright_bass contrabass",
    "piano": "pianos grand_piano upright_piano electric_piano e_piano epiano rhodes wurlitzer clavinet",
    "strings": "string string_section string_ensemble bowed_strings violin violins viola violas cello cellos "
    "violin_section viola_section cello_section orchestral_strings other_strings",
    "guitar": "guitars gtr gtrs acoustic_guitar electric_guitar clean_guitar clean_electric_guitar rhythm_guitar "
    "lead_guitar distorted_guitar distorted_electric_guitar lap_steel_guitar_or_slide_guitar",
    "distorted_guitar": "distorted_electric_guitar overdriven_guitar",
    "brass": "trumpet trumpets trombone trombones tuba horn horns french_horn brass_section",
    "reed": "reeds sax saxes saxophone saxophones alto_sax tenor_sax baritone_sax clarinet oboe bassoon english_horn",
    "pipe": "pipes flute flutes piccolo recorder pan_flute",
    "synth_lead": "lead_synth",
    "synth_pad": "pad pads synth_pads",
    "organ": "organs electric_organ organ_electric_organ hammond church_organ",
    "vocals": "vocal voice voices vox singer singing lead_vocal lead_vocals lead_vox backing_vocals background_vocals "
    "lead_male_singer lead_female_singer other_vocals choir human_choir",
    "choir": "human_choir choirs",
}
"""Instrument -> names of files that belong to it as well, separated by spaces. An instrument that is asked for by such
a name, e.g. `violin`, gets these files itself."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast: Slakh has 2,100 files
_SIDES = r"l|r|left|right|mono|stereo"


class StemPlace(NamedTuple):
    """Where a stem is, and what is known about it.

    Attributes:
        path: of the file.
        labels: what the data set calls it; the first of them that is an instrument counts.
        track: number of the sound track in the file.
        voice: SoundFont bank and General MIDI program, where the data set states them.
    """

    path: pathlib.Path
    labels: tuple[str, ...]
    track: int = 0
    voice: tuple[int, int] | None = None


class RecordedSong(NamedTuple):
    """A song as it lies on disk.

    Attributes:
        name: path relative to the folder that was searched.
        folder: its folder, or its file.
        places: its stems; empty if `problem` says why there are none.
        mixture: the mixture, where there is one.
        split: "train", "validation" or "test", if it lies in a folder of that meaning; else None.
        splits: all splits that the data set has folders for.
        problem: why the song cannot be used, or "".
    """

    name: str
    folder: pathlib.Path
    places: tuple[StemPlace, ...] = ()
    mixture: StemPlace | None = None
    split: str | None = None
    splits: frozenset[str] = frozenset()
    problem: str = ""


class Assigned(NamedTuple):
    """Which stems of a song belong to which instrument.

    Attributes:
        stems: the stems of each instrument, by its name, without instruments that have none.
        others: the stems that belong to no instrument, by their label.
        is_labelled: whether the others are known to contain none of the instruments.
    """

    stems: dict[str, list[StemPlace]]
    others: dict[str, list[StemPlace]]
    is_labelled: bool


def find_songs(folder: str | os.PathLike[str]) -> list[RecordedSong]:
    """Returns the songs in a folder, which may be a song itself, sorted by name.

    Raises InputError if there is no such folder, or no song in it.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    root = pathlib.Path(folder)
    songs: list[RecordedSong] = []
    for place, folders, files in walk(root):
        found = list(_songs_of(pathlib.Path(place), files))
        songs += found
        if found and not found[0].folder.is_file():  # what lies below belongs to this song
            folders.clear()
    if not songs:
        raise InputError(
            f"{folder}: holds no stems; it needs one folder per song with one file per stem, e.g. SONG/drums.wav, or "
            "the layout of MUSDB18, Slakh2100 or MoisesDB"
        )
    return sorted(_with_splits(songs, root), key=lambda song: song.name)


def assign(
    song: RecordedSong, instruments: Sequence[Instrument], stem_names: Mapping[str, Sequence[str]] | None = None
) -> Assigned:
    """Assigns the stems of a song to instruments.

    A stem with a General MIDI program belongs to the instrument that plays it, any other to the instrument that its
    labels name.

    Args:
        song: from `find_songs`.
        instruments: those that are asked for.
        stem_names: more names of stems for some of them.

    Raises InputError if the song cannot be used.
    """
    if song.problem:
        raise InputError(song.problem)
    owners = _owners(instruments, stem_names or {})
    stems: dict[str, list[StemPlace]] = {}
    others: dict[str, list[StemPlace]] = {}
    is_labelled = True
    for place in song.places:
        names = [name for label in place.labels for name in (label.lower(), normalize(label))]
        owner = next((owners[name] for name in names if name in owners), None)
        if place.voice is not None:
            owner = next((i.name for i in instruments if i.plays(*place.voice)), owner)
        (stems if owner else others).setdefault(owner or _without_number(place.labels[0]), []).append(place)
        is_labelled &= bool(owner or place.voice is not None or _KNOWN.intersection(names))
    return Assigned(stems, others, is_labelled)


def normalize(name: str) -> str:
    """Returns the name of a stem as it is compared: "01_KickDrum (L)" is kick_drum."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    name = re.sub(r"[\W_]+", "_", re.sub(r"\(([^()]{3,})\)", "", name).lower()).strip("_")
    shorter = re.sub(rf"^\d+_|(_?\d+|_({_SIDES}))+$", "", name)
    return shorter or name


def _owners(instruments: Sequence[Instrument], stem_names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the instrument that a label belongs to: by --stem_names, by its own name, by the table.

    Labels are in lower case, or as `normalize` returns them.
    """
    owners = {normalize(label): name for name, more in stem_names.items() for label in more}
    for change in (str.lower, normalize):
        for instrument in instruments:
            owners.setdefault(change(instrument.name), instrument.name)
    for instrument in instruments:
        for alias in ALIASES.get(instrument.name, "").split():
            owners.setdefault(alias, instrument.name)
    return owners


_KNOWN = frozenset(ALIASES) | frozenset(alias for aliases in ALIASES.values() for alias in aliases.split())
"""Labels that say what a stem holds; one called "other" may hold anything."""


def list_sound_files(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], pathlib.Path | None]:
    """Lists the sound files directly in a folder.

    Returns:
        (stems by file name without suffix, sorted; the file of the mixture, or None)

    Raises InputError if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return _list_named(sorted(path for path in folder.iterdir() if path.is_file()))


def _list_named(paths: Sequence[pathlib.Path]) -> tuple[dict[str, pathlib.Path], pathlib.Path | None]:
    """Returns what `list_sound_files` does, of the files that are given."""
    sounds = [path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    mixtures = [path for path in sounds if normalize(path.stem) in MIXTURES]
    return {path.stem: path for path in sounds if path not in mixtures}, mixtures[0] if mixtures else None


def _songs_of(folder: pathlib.Path, files: Sequence[str]) -> Iterator[RecordedSong]:
    """Yields the songs that lie in one folder, from the names of its files; `name` and splits come later."""
    containers = [file for file in files if file.lower().endswith(STEM_SUFFIXES) and not file.startswith(".")]
    if "metadata.yaml" in files:
        yield _guarded(folder, _slakh_song)
    elif "data.json" in files and _is_moises(folder / "data.json"):
        yield _guarded(folder, _moises_song)
    elif containers:
        for file in containers:
            tracks = [StemPlace(folder / file, (label,), track) for track, label in enumerate(MUSDB_TRACKS)]
            yield RecordedSong("", folder / file, tuple(tracks[1:]), tracks[0])
    else:
        stems, mixture = _list_named([folder / file for file in files])
        if stems:
            places = tuple(StemPlace(path, (name,)) for name, path in stems.items())
            yield RecordedSong("", folder, places, StemPlace(mixture, ("mixture",)) if mixture else None)
        elif mixture:
            yield RecordedSong("", folder, problem=f"{folder}: holds a mixture and no stems")


def _without_number(name: str) -> str:
    """Returns a name without the number at its end: drums 2 is drums."""
    return re.sub(r"[\s_\-.]*\d*$", "", name) or name


def _guarded(folder: pathlib.Path, read: Callable[[pathlib.Path], RecordedSong]) -> RecordedSong:
    """Returns the song that `read` finds in a folder; its `problem` is the InputError that this raises."""
    try:
        return read(folder)
    except InputError as error:
        return RecordedSong("", folder, problem=str(error))


def _slakh_song(folder: pathlib.Path) -> RecordedSong:
    """Reads metadata.yaml of Slakh2100. Raises InputError if it is damaged, or a stem that it names is missing."""
    metadata = folder / "metadata.yaml"
    places = []
    try:
        for key, stem in yaml.load(metadata.read_bytes(), _LOADER)["stems"].items():
            if not stem.get("audio_rendered", True):
                continue
            paths = [path for path in (folder / "stems" / f"{key}{suffix}" for suffix in SUFFIXES) if path.exists()]
            if not paths:
                raise InputError(f"{folder}: stems/{key}.wav is missing, though metadata.yaml names it")
            voice = (DRUM_BANK if stem["is_drum"] else 0, int(stem["program_num"]))
            places.append(StemPlace(paths[0], (str(stem["inst_class"]),), 0, voice))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{metadata}: damaged, or not in the format of Slakh ({error!r})") from None
    return RecordedSong("", folder, tuple(places), _mixture_in(folder))


def _is_moises(data: pathlib.Path) -> bool:
    """Returns whether a data.json is that of a song: other programs use this name as well."""
    try:
        return "stemName" in data.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _moises_song(folder: pathlib.Path) -> RecordedSong:
    """Reads data.json of MoisesDB. Raises InputError if it is damaged, or a stem that it names is missing."""
    data = folder / "data.json"
    places = []
    try:
        for stem in json.loads(data.read_text(encoding="utf-8", errors="replace"))["stems"]:
            for track in stem["tracks"]:
                file = pathlib.Path(stem["stemName"], f"{track['id']}.{track['extension']}")
                if not (folder / file).exists():
                    raise InputError(f"{folder}: {file} is missing, though data.json names it")
                places.append(StemPlace(folder / file, (str(track["trackType"]), str(stem["stemName"]))))
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{data}: damaged, or not in the format of MoisesDB ({error!r})") from None
    return RecordedSong("", folder, tuple(places), _mixture_in(folder))


def _mixture_in(folder: pathlib.Path) -> StemPlace | None:
    mixture = list_sound_files(folder)[1]
    return StemPlace(mixture, ("mixture",)) if mixture else None


def _with_splits(songs: Sequence[RecordedSong], root: pathlib.Path) -> Iterator[RecordedSong]:
    """Yields songs with names relative to `root`, and the splits of the folders between it and them."""
    placed = []
    splits_of: dict[tuple[str, ...], set[str]] = {}  # the parts of the path before a folder such as train -> splits
    for song in songs:
        parts = song.folder.relative_to(root).parts
        at = next((i for i, part in enumerate(parts[:-1]) if part.lower() in SPLIT_FOLDERS), None)
        split = None if at is None else SPLIT_FOLDERS[parts[at].lower()]
        group = parts[:at] if at is not None else None
        if group is not None and split:
            splits_of.setdefault(group, set()).add(split)
        name = os.path.join(*parts) if parts else song.folder.name
        for suffix in STEM_SUFFIXES:
            name = name.removesuffix(suffix)
        placed.append((song._replace(name=name, split=split), group))
    for song, group in placed:
        yield song._replace(splits=frozenset(splits_of[group])) if group is not None else song
