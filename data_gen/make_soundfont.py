"""Makes a SoundFont of sample packs: `python -m data_gen.make_soundfont OUT.sf2 [INSTRUMENT=]SOURCE ...`.

A source is an SFZ file, a Hydrogen drum kit (its drumkit.xml or the folder of it), or a folder of sound files named by
note (Piano_C#4.wav; C4 is key 60) or by drum (kick.wav, snare_1.wav). INSTRUMENT is a known instrument or a General
MIDI program, counted from 0; drums need none.
"""

from __future__ import annotations

import collections
import os
import pathlib
import re
import xml.etree.ElementTree
from collections.abc import Iterable, Sequence

import numpy as np
import soundfile
from absl import app, flags, logging

from data_gen import InputError
from data_gen import soundfont_file as sf
from data_gen.command import exit_status
from data_gen.instruments import CANDIDATES, DRUM_BANK
from data_gen.soundfont_file import Preset, Sample, Zone, timecents, write_soundfont

SUFFIXES = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3")
MAX_S = 20.0  # longer samples are cut

_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NOTE = re.compile(r"(?<![a-z])([a-g])(#|s|b)?(-?\d)(?!\d)", re.I)
# Names of drums, the special ones first -> their keys in General MIDI.
_DRUMS = {
    "kick|bass ?drum|^bd": (35, 36), "stick|rim": (37,), "snare|^sd": (38, 40), "clap": (39,), "pedal|foot": (44,),
    "open.*(hat|hh)|(hat|hh).*open|^oh": (46,), "hat|hh": (42,), "cowbell": (56,), "tamb": (54,), "splash": (55,),
    "china": (52,), "bell": (53,), "ride": (51, 59), "crash|cymbal": (49, 57), "floor": (41, 43), "low.*tom": (45,),
    "hi.*tom": (48, 50), "tom": (45, 47, 48), "shaker|maraca": (70,), "triangle": (81,), "conga": (63, 64),
    "bongo": (60, 61),
}  # fmt: skip


def read_source(text: str) -> Preset:
    """Returns the preset of one `[INSTRUMENT=]SOURCE`. Raises InputError if there is none in it."""
    target, equals, source = text.partition("=")
    if not equals:
        target, source = "", text
    path = pathlib.Path(source).expanduser()
    kit = path if path.name == "drumkit.xml" else path / "drumkit.xml"
    if kit.is_file():
        bank, program, zones = DRUM_BANK, 0, _hydrogen_zones(kit)
    elif path.suffix.lower() == ".sfz" and path.is_file():
        bank, program = _place(target, text)
        zones = _sfz_zones(path)
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        keys = {file: key for file in files if (key := note_key(file.stem)) is not None}
        if target == "drums" or (not target and 2 * len(keys) <= len(files)):
            bank, program, zones = DRUM_BANK, 0, _drum_zones((file, file.stem, None) for file in files)
        else:
            bank, program = _place(target, text)
            zones = _note_zones(keys)
    else:
        raise InputError(f"{source}: no SFZ file, drumkit.xml or folder of sound files")
    if not zones:
        raise InputError(f"{source}: no sample in it whose note or drum is known; name files like C4.wav or snare.wav")
    name = path.parent.name if path.name == "drumkit.xml" else path.name.removesuffix(".sfz")
    return Preset(name, bank, program, zones)


def _place(target: str, text: str) -> tuple[int, int]:
    """Returns bank and program of an instrument or a program number. Raises InputError for any other text."""
    if target == "drums":
        return DRUM_BANK, 0
    if target in CANDIDATES:
        return 0, CANDIDATES[target].programs[0]
    if target.isdecimal() and int(target) < 128:
        return 0, int(target)
    example = f"piano={text.partition('=')[2] or text}"
    raise InputError(
        f"{text}: say what it is, as in {example}: {', '.join(CANDIDATES)}, or a General MIDI program from 0 to 127"
    )


def note_key(name: str) -> int | None:
    """Returns the MIDI key that the name of a file ends in, as C#4 or 061; None for none. C4 is 60."""
    if notes := _NOTE.findall(name):
        letter, sign, octave = notes[-1]
        return 12 * (int(octave) + 1) + _SEMITONES[letter.lower()] + {"b": -1, "": 0}.get(sign, 1)
    numbers = [int(number) for number in re.findall(r"(?<!\d)\d{2,3}(?!\d)", name) if 20 < int(number) < 109]
    return numbers[-1] if numbers else None


def drum_keys(name: str) -> tuple[int, ...]:
    """Returns the General MIDI keys of a drum by its name; () for an unknown one."""
    name = re.sub(r"[_\W]+", " ", name).strip()
    return next((keys for pattern, keys in _DRUMS.items() if re.search(pattern, name, re.I)), ())


def read_sample(path: pathlib.Path, key: int = 60, cents: int = 0, loop: tuple[int, int] | None = None) -> Sample:
    """Reads a sound file, averages its channels and cuts off silence at the end. Raises InputError if it cannot."""
    try:
        data, rate_hz = soundfile.read(
            path, int(MAX_S * soundfile.info(path).samplerate), dtype="float32", always_2d=True
        )
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    mono = data.mean(axis=1)
    audible = np.flatnonzero(np.abs(mono) > 1e-4)
    end = int(audible[-1]) + 1 if len(audible) else 0
    if loop and not 0 <= loop[0] < loop[1] <= len(mono):
        loop = None
    return Sample(mono[: max(end, loop[1] if loop else 0, 64)], rate_hz, key, cents, loop, path.stem[-20:])


def _note_zones(keys: dict[pathlib.Path, int]) -> list[Zone]:
    """Returns zones that reach halfway to the next note; several files of a note are layers of velocity."""
    by_key: dict[int, list[pathlib.Path]] = collections.defaultdict(list)
    for file, key in keys.items():
        by_key[key].append(file)
    roots = sorted(by_key)
    bounds = [0, *((low + high) // 2 + 1 for low, high in zip(roots, roots[1:])), 128]
    zones: list[Zone] = []
    for root, first, end in zip(roots, bounds, bounds[1:]):
        zones += _layers([read_sample(file, root) for file in by_key[root]], (first, end - 1), {})
    return zones


def _layers(samples: Sequence[Sample], keys: tuple[int, int], generators: dict[int, int]) -> list[Zone]:
    """Returns one zone for each sample, the soft ones for low velocities."""
    ordered = sorted(samples, key=lambda sample: float(np.abs(sample.data).max(initial=0)))
    bounds = np.round(np.linspace(0, 128, len(ordered) + 1)).astype(int).tolist()
    return [Zone(s, keys, (low, high - 1), generators) for s, low, high in zip(ordered, bounds, bounds[1:])]


def _drum_zones(files: Iterable[tuple[pathlib.Path, str, int | None]]) -> list[Zone]:
    """Returns zones of (file, name of the drum, key or None); keys of General MIDI come from the names."""
    by_key: dict[int, list[pathlib.Path]] = collections.defaultdict(list)
    for file, name, key in files:
        for one in drum_keys(name) or (() if key is None else (key,)):
            by_key[one].append(file)
    read: dict[pathlib.Path, Sample] = {}
    zones: list[Zone] = []
    for key, of_key in sorted(by_key.items()):
        samples = [read.setdefault(file, read_sample(file)) for file in dict.fromkeys(of_key)]
        generators = {sf.ROOT_KEY: key, sf.RELEASE: timecents(5.0)}  # it rings on after the release
        generators |= {sf.EXCLUSIVE: 1} if key in (42, 44, 46) else {}
        zones += _layers(samples, (key, key), generators)
    return zones


def _hydrogen_zones(kit: pathlib.Path) -> list[Zone]:
    """Returns the zones of a Hydrogen kit: of each instrument the files of its layers."""
    try:
        root = xml.etree.ElementTree.parse(kit).getroot()
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        raise InputError(f"{kit}: cannot be read ({error})") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # newer kits have a name space
    files: list[tuple[pathlib.Path, str, int | None]] = []
    for number, instrument in enumerate(root.iter("instrument")):
        key = int(instrument.findtext("midiOutNote") or 60)
        key = 36 + number if key == 60 else key  # 60 is what the program writes where nobody chose one
        names = [name.text for name in instrument.iter("filename") if name.text]
        files += [(kit.parent / name, instrument.findtext("name") or "", min(key, 127)) for name in names]
    return _drum_zones((file, name, key) for file, name, key in files if file.is_file())


# ---- SFZ ------------------------------------------------------------------------------------------------------------
def _sfz_zones(path: pathlib.Path) -> list[Zone]:
    """Returns the zones of the regions of an SFZ file, of the opcodes that a SoundFont has too."""
    text = re.sub(r"//.*|/\*.*?\*/", "", path.read_text(encoding="utf-8", errors="replace"))
    for name, value in re.findall(r"#define\s+(\$\w+)\s+(\S+)", text):
        text = text.replace(name, value)
    inherited: dict[str, dict[str, str]] = {}
    zones, n_missing = [], 0
    order = ("control", "global", "master", "group", "region")
    for header, body in re.findall(r"<(\w+)>([^<]*)", text):
        opcodes = {k: v.strip() for k, v in re.findall(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)", body, re.M)}
        if header not in order:
            continue
        inherited[header] = opcodes
        for lower in order[order.index(header) + 1 :]:
            inherited.pop(lower, None)
        if header != "region":
            continue
        merged = {name: value for level in order for name, value in inherited.get(level, {}).items()}
        is_other_take = merged.get("seq_position", "1") != "1" or float(merged.get("lorand", 0)) > 0
        if "sample" not in merged or merged.get("trigger", "attack") != "attack" or is_other_take:
            continue
        file = path.parent / (merged.get("default_path", "") + merged["sample"]).replace("\\", "/")
        if file.is_file():
            zones.append(_sfz_zone(file, merged))
        else:
            n_missing += 1
    if n_missing:
        logging.warning("%s: %d regions name files that are not there; they are left out", path, n_missing)
    return zones


def _sfz_zone(file: pathlib.Path, opcodes: dict[str, str]) -> Zone:
    def key_of(name: str, default: int) -> int:
        value = opcodes.get(name, opcodes.get("key", ""))
        if re.fullmatch(r"-?\d+", value):
            return min(127, max(0, int(value)))
        key = note_key(value)
        return default if key is None else key

    def number(name: str, default: float) -> float:
        try:
            return float(opcodes.get(name, default))
        except ValueError:
            return default

    loop = None
    if opcodes.get("loop_mode", "").startswith("loop") and "loop_end" in opcodes:
        loop = (int(number("loop_start", 0)), int(number("loop_end", 0)) + 1)
    generators = {
        sf.COARSE_TUNE: int(number("transpose", 0)),
        sf.FINE_TUNE: int(number("tune", 0)),
        sf.ATTENUATION: int(max(0.0, -10 * number("volume", 0)) / 0.4),  # FluidSynth counts it as 0.04 dB
    }
    for opcode, generator in (("attack", sf.ATTACK), ("decay", sf.DECAY), ("release", sf.RELEASE)):
        if f"ampeg_{opcode}" in opcodes:
            generators[generator] = timecents(number(f"ampeg_{opcode}", 0))
    if "ampeg_sustain" in opcodes:
        generators[sf.SUSTAIN] = int(min(1_000, -200 * np.log10(max(number("ampeg_sustain", 100) / 100, 1e-5))))
    if opcodes.get("loop_mode") == "one_shot":
        generators[sf.RELEASE] = timecents(5.0)
    keys = key_of("lokey", 0), key_of("hikey", 127)
    velocities = int(number("lovel", 0)), int(number("hivel", 127))
    generators = {generator: value for generator, value in generators.items() if value}
    return Zone(read_sample(file, key_of("pitch_keycenter", 60), 0, loop), keys, velocities, generators)


def main(arguments: list[str]) -> int:
    """Writes the SoundFont. Returns the exit status."""
    if len(arguments) < 2 or not arguments[0].lower().endswith(".sf2"):
        raise InputError("name the file to write and one or more sources, as in OUT.sf2 piano=Piano/ Kit/drumkit.xml")
    out, *sources = arguments
    presets = [read_source(source) for source in sources]
    places = [(preset.bank, preset.program) for preset in presets]
    for place, source in zip(places, sources):
        if places.count(place) > 1:
            raise InputError(f"{source}: another source is bank {place[0]}, program {place[1]} too")
    if not os.path.isdir(os.path.dirname(os.path.abspath(out))):
        raise InputError(f"{out}: no such folder")
    write_soundfont(out, presets)
    named = ", ".join(f"{preset.name} ({len(preset.zones)} zones)" for preset in presets)
    print(f"{out}: {os.path.getsize(out) / 2**20:.1f} MB, {named}")
    return 0


if __name__ == "__main__":
    flags.FLAGS.set_default("verbosity", logging.WARNING)
    app.run(lambda argv: exit_status(main, argv[1:]))
