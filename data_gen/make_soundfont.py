"""Makes a SoundFont of sample packs: `python -m data_gen.make_soundfont OUT.sf2 [INSTRUMENT=]SOURCE ...`.

A source is an SFZ file, a Hydrogen drum kit (its drumkit.xml or the folder of it), or a folder of sound files named by
note (Piano_C#4.wav; C4 is key 60) or by drum (kick.wav, snare_1.wav). INSTRUMENT is a known instrument or a General
MIDI program, counted from 0; drums need none.

Some SFZ files are mapped as music for their instrument is written, basses an octave above what sounds. Another SFZ file
moves them: `<control> octave_offset=-1 #include "bass.sfz"`.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
import struct
import xml.etree.ElementTree
from collections.abc import Iterable, Sequence

import numpy as np
import soundfile
from absl import app, flags, logging

from data_gen import InputError
from data_gen import soundfont_file as sf
from data_gen.command import exit_status
from data_gen.instruments import CANDIDATES, DRUM_BANK
from data_gen.sfz import read_regions, velocity_gains
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
        zones = _sfz_zones(path, bank == DRUM_BANK)
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        keys = {file: key for file in files if (key := note_key(file.stem)) is not None}
        if target == "drums" or (not target and 2 * len(keys) <= len(files)):
            bank, program, zones = DRUM_BANK, 0, _drum_zones(files)
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


def read_sample(
    path: pathlib.Path,
    key: int = 60,
    cents: int = 0,
    loop: tuple[int, int] | None = None,
    span: tuple[int, int] = (0, 0),
) -> Sample:
    """Reads a sound file, averages its channels and cuts off silence at the end.

    Args:
        path: of the file.
        key, cents, loop: as in Sample; the loop is counted from the begin of the file.
        span: first and last sample to read; 0 as the last one for all.

    Raises InputError if it cannot be read.
    """
    begin, last = span
    try:
        rate_hz = soundfile.info(path).samplerate
        stop = min(begin + int(MAX_S * rate_hz), last + 1 if last > 0 else 2**31)
        data, rate_hz = soundfile.read(path, start=begin, stop=stop, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    mono = data.mean(axis=1)
    audible = np.flatnonzero(np.abs(mono) > 1e-4)
    end = int(audible[-1]) + 1 if len(audible) else 0
    if loop:
        loop = (loop[0] - begin, loop[1] - begin)
        loop = loop if 0 <= loop[0] < loop[1] <= len(mono) else None
    return Sample(mono[: max(end, loop[1] if loop else 0, 64)], rate_hz, key, cents, loop, path.stem[-20:])


def embedded_loop(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns (first sample, sample after the last) of the loop that a WAV or FLAC file names; None for none.

    It is in the chunk `smpl`, which a FLAC file keeps in an application block of type `riff`.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head == b"RIFF":
            file.seek(12)
            while len(header := file.read(8)) == 8:
                tag, size = struct.unpack("<4sI", header)
                if tag == b"smpl":
                    return _smpl_loop(file.read(size))
                file.seek(size + size % 2, os.SEEK_CUR)
        elif head == b"fLaC":
            kind = 0
            while kind < 128 and len(header := file.read(4)) == 4:  # the highest bit says that it is the last block
                kind, block = header[0], file.read(int.from_bytes(header[1:], "big"))
                if kind % 128 == 2 and block[:8] == b"riffsmpl":
                    return _smpl_loop(block[12:])
    return None


def _smpl_loop(chunk: bytes) -> tuple[int, int] | None:
    if len(chunk) < 60 or not struct.unpack_from("<I", chunk, 28)[0]:
        return None
    start, end = struct.unpack_from("<II", chunk, 44)
    return (start, end + 1) if start < end else None


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
    """Returns one zone for each sample, the soft ones for low velocities.

    A soft recording is soft already: what it lacks to the loudest is not taken off by the velocity once more. Where it
    lacks enough, it plays at its own level at the highest velocity of its zone.
    """
    peaks_db = {sample: 20 * np.log10(np.abs(sample.data).max(initial=1e-5)) for sample in samples}
    ordered = sorted(samples, key=peaks_db.__getitem__)
    bounds = np.round(np.linspace(0, 128, len(ordered) + 1)).astype(int).tolist()
    zones: list[Zone] = []
    for sample, low, end in zip(ordered, bounds, bounds[1:]):
        lacking_db = peaks_db[ordered[-1]] - peaks_db[sample]
        curve = (2.0, float(min(lacking_db, 40 * np.log10(127 / (end - 1)))))
        zones.append(Zone(sample, keys, (low, end - 1), generators, curve))
    return zones


def _drum_zones(files: Iterable[pathlib.Path]) -> list[Zone]:
    """Returns the zones of files that are named by their drum, on its keys in General MIDI."""
    by_key: dict[int, list[pathlib.Path]] = collections.defaultdict(list)
    for file in files:
        for key in drum_keys(file.stem):
            by_key[key].append(file)
    read: dict[pathlib.Path, Sample] = {}
    zones: list[Zone] = []
    for key, of_key in sorted(by_key.items()):
        samples = [read.setdefault(file, read_sample(file)) for file in of_key]
        zones += _layers(samples, (key, key), _drum_generators(key))
    return zones


def _drum_generators(key: int) -> dict[int, int]:
    """Returns how a drum plays: at its own pitch, ringing on after the release; hi-hats stop each other."""
    return {sf.ROOT_KEY: key, sf.RELEASE: timecents(5.0)} | ({sf.EXCLUSIVE: 1} if key in (42, 44, 46) else {})


def _hydrogen_zones(kit: pathlib.Path) -> list[Zone]:
    """Returns the zones of a Hydrogen kit, as loud as Hydrogen plays them.

    It multiplies a sample by the velocity from 0 to 1 and by the gains of layer, component and instrument
    (Sampler::renderNote in its src/core/Sampler/Sampler.cpp). Instruments for one key would sound together here, and so
    would layers for one velocity: the first is kept, of instruments one that is named by its drum.

    Raises InputError if the kit cannot be read.
    """
    try:
        root = xml.etree.ElementTree.parse(kit).getroot()
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        raise InputError(f"{kit}: cannot be read ({error})") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # newer kits have a name space
    by_key: dict[int, list[Zone]] = {}
    named = [(drum_keys(element.findtext("name") or ""), element) for element in root.iter("instrument")]
    for number, (keys, instrument) in sorted(enumerate(named), key=lambda entry: not entry[1][0]):
        own = int(instrument.findtext("midiOutNote") or 60)
        own = 36 + number if own == 60 else own  # 60 is what the program writes where nobody chose one
        free = [key for key in keys or (min(own, 127),) if key not in by_key]
        layers = _hydrogen_layers(kit.parent, instrument) if free else []
        for key in free if layers else ():
            by_key[key] = [Zone(s, (key, key), span, _drum_generators(key), curve) for s, span, curve in layers]
    zones = [zone for _, of_key in sorted(by_key.items()) for zone in of_key]
    curves = [zone.velocity_curve for zone in zones]
    tops = [max(1, zone.velocities[1]) / 127 for zone in zones]
    loudest_db = max((db + 20 * exponent * np.log10(top) for top, (exponent, db) in zip(tops, curves)), default=0.0)
    return [
        dataclasses.replace(zone, velocity_curve=(exponent, db - loudest_db))
        for zone, (exponent, db) in zip(zones, curves)
    ]


def _hydrogen_layers(
    folder: pathlib.Path, instrument: xml.etree.ElementTree.Element
) -> list[tuple[Sample, tuple[int, int], tuple[float, float]]]:
    """Returns (sample, velocities, velocity curve) of each layer of an instrument whose file is there."""

    def number(element: xml.etree.ElementTree.Element, name: str, default: float) -> float:
        return float(element.findtext(name) or default)

    exponent = 0.0 if instrument.findtext("applyVelocity") == "false" else 1.0
    layers = []
    for component in instrument.findall("instrumentComponent") or [instrument]:  # which sound together
        starts: dict[int, tuple[pathlib.Path, float]] = {}
        for layer in component.findall("layer") or [component]:
            file = folder / (layer.findtext("filename") or "")
            gains = [number(element, "gain", 1.0) for element in {instrument, component, layer}]
            gain = number(instrument, "volume", 1.0) * float(np.prod(gains))
            if file.is_file():
                start = min(127, round(128 * number(layer, "min", 0.0)))
                starts.setdefault(start, (file, float(20 * np.log10(max(gain, 1e-5)))))
        bounds = [0, *sorted(starts)[1:], 128]  # kits leave small holes between layers, and overlaps
        for start, low, end in zip(sorted(starts), bounds, bounds[1:]):
            file, db = starts[start]
            layers.append((read_sample(file), (low, end - 1), (exponent, db)))
    return layers


# ---- SFZ ------------------------------------------------------------------------------------------------------------
def _sfz_zones(path: pathlib.Path, is_kit: bool) -> list[Zone]:
    """Returns the zones of the regions of an SFZ file, of the opcodes that a SoundFont has too."""
    regions = read_regions(path, _sfz_key)
    present = [region for region in regions if (path.parent / region["sample"]).is_file()]
    if len(present) < len(regions):
        logging.warning(
            "%s: %d regions name no file that is there; they are left out", path, len(regions) - len(present)
        )
    loudest_db = max((float(region["volume"]) for region in present), default=0.0)
    read: dict[tuple[object, ...], Sample] = {}
    return [_sfz_zone(path.parent, region, loudest_db, is_kit, read) for region in present]


def _sfz_key(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else note_key(text)


def _sfz_zone(
    folder: pathlib.Path,
    opcodes: dict[str, str],
    loudest_db: float,
    is_kit: bool,
    read: dict[tuple[object, ...], Sample],
) -> Zone:
    def key_of(name: str, default: int) -> int:
        key = _sfz_key(opcodes.get(name, opcodes.get("key", "")))
        return min(127, max(0, default if key is None else key + int(opcodes["note_offset"])))

    def number(name: str, default: float) -> float:
        try:
            return float(opcodes.get(name, opcodes.get(name.replace("_", ""), default)))
        except ValueError:
            return default

    mode = opcodes.get("loop_mode", opcodes.get("loopmode", ""))
    loop: tuple[int, int] | None = None
    file = folder / opcodes["sample"]
    if mode not in ("one_shot", "no_loop"):
        found = embedded_loop(file)
        start, end = number("loop_start", found[0] if found else 0), number("loop_end", found[1] - 1 if found else 0)
        loop = (int(start), int(end) + 1) if end > start else None
    keycenter = key_of("pitch_keycenter", 60)
    span = int(number("offset", 0)), int(number("end", 0))
    what = (file, keycenter, loop, span)
    if what not in read:
        read[what] = read_sample(file, keycenter, 0, loop, span)
    cents = round(number("tune", 0))
    generators = {
        sf.COARSE_TUNE: int(number("transpose", 0)) + int(cents / 100),
        sf.FINE_TUNE: cents - 100 * int(cents / 100),
        sf.ATTENUATION: min(1_440, int(10 * (loudest_db - number("volume", 0)) / 0.4)),  # FluidSynth: 0.04 dB
    }
    for opcode, generator in (("attack", sf.ATTACK), ("decay", sf.DECAY), ("release", sf.RELEASE)):
        if f"ampeg_{opcode}" in opcodes:
            generators[generator] = timecents(number(f"ampeg_{opcode}", 0))
    if "ampeg_sustain" in opcodes:
        generators[sf.SUSTAIN] = int(min(1_000, -200 * np.log10(max(number("ampeg_sustain", 100) / 100, 1e-5))))
    if mode == "one_shot":
        generators[sf.RELEASE] = timecents(5.0)
    if is_kit:
        generators[sf.EXCLUSIVE] = int(number("off_by", number("group", 0)))
    generators = {generator: value for generator, value in generators.items() if value}
    if "pitch_keytrack" in opcodes:
        generators[sf.SCALE_TUNING] = int(number("pitch_keytrack", 100))
    keys = key_of("lokey", 0), key_of("hikey", 127)
    velocities = [int(number("lovel", 0)), int(number("hivel", 127))]
    if "xfin_hivel" in opcodes:  # layers that fade into each other take turns in the middle
        velocities[0] = int(number("xfin_lovel", 0) + number("xfin_hivel", 0)) // 2 + 1
    if "xfout_lovel" in opcodes:
        velocities[1] = int(number("xfout_lovel", 127) + number("xfout_hivel", 127)) // 2
    curve = _power_of_velocity(velocity_gains(opcodes), velocities[0], velocities[1])
    return Zone(read[what], keys, (velocities[0], velocities[1]), generators, curve)


def _power_of_velocity(gains: np.ndarray, low: int, high: int) -> tuple[float, float]:
    """Returns the velocity curve of a zone (exponent, gain in dB) that is nearest to gains at velocities low to high.

    SoundFonts have the powers of the velocity. A line from 0 to full level at the top of a layer is one of them.
    """
    low = min(max(1, low), 126)
    velocity = np.arange(low, max(low + 1, min(127, high)) + 1)
    gain = np.maximum(gains[velocity], 1e-3)
    exponent, gain_db = np.polyfit(20 * np.log10(velocity / 127), 20 * np.log10(gain), 1, w=gain)
    return round(float(exponent), 2), round(float(gain_db), 1)


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
