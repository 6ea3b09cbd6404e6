"""Reads and writes SoundFont files: samples, and the presets that play them.

The layout is that of the SoundFont Technical Specification 2.04: a RIFF file of three lists, of which `sdta` holds the
samples one after the other and `pdta` the tables. An SF3 file holds each sample as Ogg Vorbis instead.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import pathlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_gen import InputError
from data_gen.files import write_atomically
from data_gen.instruments import DRUM_BANK

PROCEDURAL = "procedural"  # stands for a file: a SoundFont that is computed, see `data_gen.procedural`
KEY_RANGE, VELOCITY_RANGE, SAMPLE_MODES, SAMPLE, INSTRUMENT = 43, 44, 54, 53, 41  # generators, by their numbers
ATTACK, DECAY, SUSTAIN, RELEASE = 34, 36, 37, 38  # of the volume envelope: timecents, and tenths of a dB below full
FILTER_HZ, RESONANCE, ATTENUATION, COARSE_TUNE, FINE_TUNE, ROOT_KEY, EXCLUSIVE = 8, 9, 48, 51, 52, 58, 57
SCALE_TUNING = 56  # cents from key to key
VIBRATO_CENTS, VIBRATO_HZ = 6, 24  # depth and frequency of the low-frequency oscillator for the pitch
LOOPS = 1  # value of SAMPLE_MODES: the sample goes round its loop, also after the release
VORBIS = 0x10  # bit of a sample's type in SF3 files

_DRUMS = ("kick|bass ?drum", "snare", "hat|hh", "tom", "crash|ride|cymbal")  # in the names of a kit's samples
_GUARD_SAMPLES = 46  # zeros that follow each sample
_PRESET = np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "<u4", 3)])
_NAMED = np.dtype([("name", "S20"), ("bag", "<u2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("kind", "<u2"), ("value", "<i2")])
_MODULATOR = np.dtype(
    [("source", "<u2"), ("generator", "<u2"), ("amount", "<i2"), ("amount_source", "<u2"), ("transform", "<u2")]
)
_VELOCITY_CONCAVE, _VELOCITY_UP, _VELOCITY_DOWN = 0x502, 0x002, 0x102  # sources of modulators, as curves of velocity
_SAMPLE = np.dtype(
    [("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4"), ("rate_hz", "<u4")]
    + [("key", "u1"), ("cents", "i1"), ("link", "<u2"), ("kind", "<u2")]
)


# ---- Writing --------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A recorded or computed sound.

    Attributes:
        data: float [time], full scale is 1; clipped there.
        rate_hz: sample rate.
        key: MIDI key at which it sounds as it is.
        cents: how far its pitch is above that key, in cents, -99 to 99.
        loop: (first sample, sample after the last) of the part that is repeated while a key is held; None for none.
        name: up to 20 characters.
    """

    data: np.ndarray
    rate_hz: int
    key: int = 60
    cents: int = 0
    loop: tuple[int, int] | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Zone:
    """Which keys and velocities play a sample, and how.

    Attributes:
        sample: what is played.
        keys, velocities: (lowest, highest) of each.
        generators: number of a SoundFont generator -> its value.
        velocity_curve: (exponent, gain_db): velocity v sounds at gain_db + 20 exponent log10(v / 127) dB, but not above
            the level of the sample. The default is that of the format.
    """

    sample: Sample
    keys: tuple[int, int] = (0, 127)
    velocities: tuple[int, int] = (0, 127)
    generators: Mapping[int, int] = dataclasses.field(default_factory=dict)
    velocity_curve: tuple[float, float] = (2.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Preset:
    """The sounds of one program: all zones that a note falls into sound together."""

    name: str
    bank: int
    program: int
    zones: Sequence[Zone]


def timecents(seconds: float) -> int:
    """Returns a time in the unit of envelopes: 1,200 times the binary logarithm of the seconds."""
    return int(np.clip(round(1_200 * np.log2(max(seconds, 1e-6))), -12_000, 8_000))


def soundfont_bytes(presets: Sequence[Preset], name: str = "sounds") -> bytes:
    """Returns the SF2 file that holds these presets. Samples that several zones share are stored once."""
    presets = sorted(presets, key=lambda preset: (preset.bank, preset.program))
    samples = list({id(zone.sample): zone.sample for preset in presets for zone in preset.zones}.values())
    numbers = {id(sample): number for number, sample in enumerate(samples)}
    starts = np.cumsum([0] + [len(sample.data) + _GUARD_SAMPLES for sample in samples]).tolist()
    pcm = np.zeros(starts[-1], "<i2")
    headers = np.zeros(len(samples) + 1, _SAMPLE)
    for number, (sample, start) in enumerate(zip(samples, starts)):
        end = start + len(sample.data)
        pcm[start:end] = np.round(np.clip(sample.data, -1.0, 1.0) * 32_767)
        first, last = sample.loop or (0, len(sample.data))
        fields = (start, end, start + first, start + last, sample.rate_hz, sample.key, -sample.cents, 0, 1)
        headers[number] = (sample.name.encode(errors="replace") or f"sample {number}", *fields)
    headers[-1]["name"] = b"EOS"

    zones: list[tuple[int, int]] = []
    generators: list[tuple[int, int]] = []
    modulators: list[tuple[int, int, int, int, int]] = []
    first_bags: list[int] = []
    for preset in presets:
        first_bags.append(len(zones))
        for zone in preset.zones:
            zones.append((len(generators), len(modulators)))
            generators += _zone_generators(zone, numbers[id(zone.sample)])
            modulators += _zone_modulators(zone)
    n, n_zones = len(presets), len(zones)
    instruments = np.array([(p.name.encode(errors="replace"), b) for p, b in zip(presets, first_bags)], _NAMED)
    programs = [(p.name.encode(errors="replace"), p.program, p.bank, i, (0, 0, 0)) for i, p in enumerate(presets)]
    tables = {
        "phdr": np.array([*programs, (b"EOP", 0, 0, n, (0, 0, 0))], _PRESET),
        "pbag": np.array([(i, 0) for i in range(n + 1)], _BAG),
        "pmod": np.zeros(10, "u1"),
        "pgen": np.array([*((INSTRUMENT, i) for i in range(n)), (0, 0)], _GENERATOR),
        "inst": np.append(instruments, np.array([(b"EOI", n_zones)], _NAMED)),
        "ibag": np.array([*zones, (len(generators), len(modulators))], _BAG),
        "imod": np.array([*modulators, (0, 0, 0, 0, 0)], _MODULATOR),
        "igen": np.array([*generators, (0, 0)], _GENERATOR),
        "shdr": headers,
    }
    title = name.encode()[:254] + b"\0"
    information = {"ifil": struct.pack("<HH", 2, 1), "isng": b"EMU8000\0", "INAM": title + bytes(len(title) % 2)}
    lists = (
        ("INFO", information),
        ("sdta", {"smpl": pcm.tobytes()}),
        ("pdta", {tag: table.tobytes() for tag, table in tables.items()}),
    )
    body = b"".join(_chunk("LIST", tag.encode() + b"".join(_chunk(*item) for item in of.items())) for tag, of in lists)
    return _chunk("RIFF", b"sfbk" + body)


def write_soundfont(path: str | pathlib.Path, presets: Sequence[Preset]) -> None:
    """Writes an SF2 file, whole or not at all."""
    write_atomically(path, soundfont_bytes(presets, pathlib.Path(path).stem))


def _chunk(tag: str, data: bytes) -> bytes:
    return tag.encode() + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _zone_generators(zone: Zone, number: int) -> list[tuple[int, int]]:
    """Returns the generators of a zone: the format wants ranges first, keys before velocities, and the sample last."""
    ranges = ((KEY_RANGE, zone.keys), (VELOCITY_RANGE, zone.velocities))
    rows = [(kind, low | high << 8) for kind, (low, high) in ranges if (low, high) != (0, 127)]
    if zone.sample.loop:
        rows.append((SAMPLE_MODES, LOOPS))
    return [*rows, *((kind, int(value)) for kind, value in zone.generators.items()), (SAMPLE, number)]


def _zone_modulators(zone: Zone) -> list[tuple[int, int, int, int, int]]:
    """Returns the modulators of a zone, none for the velocity curve of the format, whose exponent is 2 for 960 cB.

    Attenuation cannot be negative, but what modulators add to it can. A rising and a falling line add up to a constant.
    """
    exponent, gain_db = zone.velocity_curve
    amounts = {_VELOCITY_CONCAVE: round(480 * exponent)} if exponent != 2 else {}
    amounts |= dict.fromkeys((_VELOCITY_UP, _VELOCITY_DOWN), round(-10 * gain_db)) if gain_db else {}
    return [(source, ATTENUATION, amount, 0, 0) for source, amount in amounts.items()]


# ---- Reading --------------------------------------------------------------------------------------------------------
class SoundFontFile:
    """What a SoundFont file holds. Samples are read when they are asked for.

    Args:
        path: of an SF2 or SF3 file.

    Attributes:
        presets: (bank, program) -> name.
        sample_names: [sample].
        kit: (bank, program) of the drum kit to play where no other is asked for; None if it has none.

    Raises InputError if the file is missing or damaged.
    """

    def __init__(self, path: str | pathlib.Path):
        try:
            with open(path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            chunks = dict(self._chunks(0, len(self._data)))
            tables = {tag: self._table(chunks[tag], dtype) for tag, dtype in _TABLES.items()}
            self._smpl, _ = chunks["smpl"]
        except OSError:
            raise InputError(f"no such SoundFont: {path}") from None
        except (KeyError, ValueError, struct.error):
            raise InputError(f"{path}: not a SoundFont (SF2 or SF3), or a damaged one") from None
        self._samples, self._phdr = tables["shdr"][:-1], tables["phdr"]
        self._tables = tables
        self.presets = {
            (int(row["bank"]), int(row["program"])): row["name"].decode("latin-1") for row in self._phdr[:-1]
        }
        self.sample_names = [name.decode("latin-1") for name in self._samples["name"]]

    @property
    def kit(self) -> tuple[int, int] | None:
        """Returns the kit: the first preset of the percussion bank, or of a file that holds nothing but drums."""
        kits = sorted(preset for preset in self.presets if preset[0] == DRUM_BANK)
        if not kits and len({name for name in _DRUMS if re.search(name, " ".join(self.sample_names), re.I)}) > 2:
            kits = sorted(self.presets)
        return kits[0] if kits else None

    @property
    def is_kit(self) -> bool:
        """Returns whether all presets are drum kits, whatever their bank."""
        return self.kit is not None and (self.kit[0] != DRUM_BANK or all(bank == DRUM_BANK for bank, _ in self.presets))

    def _chunks(self, begin: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yields tag and (begin, end) of all chunks, also of those inside lists."""
        while begin + 8 <= end:
            tag, size = struct.unpack_from("<4sI", self._data, begin)
            if tag in (b"RIFF", b"LIST"):
                yield from self._chunks(begin + 12, min(end, begin + 8 + size))
            else:
                yield tag.decode("latin-1"), (begin + 8, begin + 8 + size)
            begin += 8 + size + size % 2

    def _table(self, place: tuple[int, int], dtype: np.dtype) -> np.ndarray:
        return np.frombuffer(self._data[slice(*place)], dtype)

    def sample(self, number: int) -> np.ndarray:
        """Returns a sample as int16 [time]; an empty one where it is damaged."""
        row = self._samples[number]
        start, end = int(row["start"]), int(row["end"])
        if row["kind"] & VORBIS:
            import soundfile

            try:
                return soundfile.read(io.BytesIO(self._data[self._smpl + start : self._smpl + end]), dtype="int16")[0]
            except soundfile.LibsndfileError:
                return np.zeros(0, np.int16)
        return np.frombuffer(self._data[self._smpl + 2 * start : self._smpl + 2 * end], "<i2")

    def samples_of(self, bank: int, program: int) -> list[int]:
        """Returns the numbers of the samples that a preset plays."""
        tables = self._tables
        rows = np.flatnonzero((self._phdr["bank"][:-1] == bank) & (self._phdr["program"][:-1] == program))
        found: set[int] = set()
        for row in rows:
            for instrument in _values(tables["pbag"], tables["pgen"], self._phdr["bag"][row : row + 2], INSTRUMENT):
                if instrument + 1 < len(tables["inst"]):
                    bags = tables["inst"]["bag"][instrument : instrument + 2]
                    found.update(_values(tables["ibag"], tables["igen"], bags, SAMPLE))
        return sorted(number for number in found if number < len(self._samples))


_TABLES = {"phdr": _PRESET, "pbag": _BAG, "pgen": _GENERATOR, "inst": _NAMED, "ibag": _BAG, "igen": _GENERATOR}
_TABLES["shdr"] = _SAMPLE


def _values(bags: np.ndarray, generators: np.ndarray, span: np.ndarray, kind: int) -> list[int]:
    """Returns the values of a generator in the bags from span[0] to before span[1]."""
    first, last = bags["generator"][np.minimum(span, len(bags) - 1)]
    rows = generators[first:last]
    return rows["value"][rows["kind"] == kind].astype("<u2").tolist()
