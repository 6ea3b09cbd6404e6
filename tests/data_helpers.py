"""What the tests of data_gen share: pieces written by hand, corpora of them, a SoundFont of one sine, MIDI bytes.

Render processes import this module by its name, so what they are sent (the corpora) is defined here.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pathlib
import signal
import time

import mido
import numpy as np

from data_gen import InputError, midi
from data_gen.channels import DRUM_CHANNEL
from data_gen.chunks import Chunker, Visit
from data_gen.instruments import DRUM_BANK, Instrument, parse_instruments
from data_gen.played import PlayedStems
from data_gen.soundfont_file import Preset, Sample, Zone, write_soundfont
from data_gen.variation import Variation

SHARED = pathlib.Path(__file__).parents[2] / "shared"  # real MIDI files, beside the checkout where they are at hand
SOUNDFONT = str(pathlib.Path(importlib.util.find_spec("pretty_midi").origin).with_name("TimGM6mb.sf2"))
RATE_HZ = 16_000
BAND = parse_instruments(["drums", "bass", "piano", "strings"])
DRUMS, BASS, PIANO, STRINGS = BAND
ORGAN = Instrument("organ", (16, 17, 18, 19, 20))

Rows = list


# ---- Pieces ---------------------------------------------------------------------------------------------------------
def note(start_s, length_s, pitch, channel=0, program=0, velocity=100, bank=0) -> Rows:
    """One note, struck and released."""
    on = (start_s, midi.NOTE_ON, channel, bank, program, pitch, velocity)
    return [on, (start_s + length_s, midi.NOTE_OFF, channel, 0, 0, pitch, 0)]


def drum(start_s, pitch=38, program=0, velocity=100) -> Rows:
    """One stroke of a drum."""
    return note(start_s, 0.1, pitch, DRUM_CHANNEL, program, velocity, DRUM_BANK)


def control(time_s, number, value, channel=0) -> Rows:
    """One control change."""
    return [(time_s, midi.CONTROL, channel, 0, 0, number, value)]


def bend(time_s, value, channel=0) -> Rows:
    """One pitch bend, from -8192 to 8191."""
    return [(time_s, midi.BEND, channel, 0, 0, 0, value)]


def piece(*rows: Rows, name="by hand") -> midi.Piece:
    """The piece of these rows, which may come in any order."""
    return midi.make_piece(name, sorted((row for some in rows for row in some), key=lambda row: row[0]))


def band_rows(begin_s=0.0, end_s=8.0, seed=0) -> Rows:
    """Short notes of all four of BAND, at random; each is over 0.3 s after it began."""
    rng = np.random.default_rng(seed)
    rows = []
    for channel, program, low in ((1, 33, 36), (2, 0, 60), (3, 48, 65)):
        for start_s in np.arange(begin_s, end_s, 0.4):
            pitch, late_s, velocity = (
                int(low + rng.integers(12)),
                float(rng.uniform(0, 0.09)),
                int(rng.integers(60, 120)),
            )
            rows += note(float(start_s) + late_s, 0.2, pitch, channel, program, velocity)
    for start_s in np.arange(begin_s, end_s, 0.35):
        rows += drum(float(start_s) + 0.02, int(rng.choice([36, 38, 42])))
    return rows


# ---- Corpora --------------------------------------------------------------------------------------------------------
class Handmade:
    """A corpus of pieces made by hand; every split holds all of them."""

    def __init__(self, *pieces: midi.Piece):
        self.pieces = pieces

    def size(self, split: str) -> int:
        """Number of pieces."""
        return len(self.pieces)

    def draw(self, split: str, rng: np.random.Generator) -> int:
        """Number of a random piece."""
        return int(rng.integers(len(self.pieces)))

    def name(self, split: str, index: int) -> str:
        """Name of a piece."""
        return self.pieces[index].name

    def load(self, split: str, index: int) -> midi.Piece:
        """One piece."""
        return self.pieces[index]


class Vanishing(Handmade):
    """A corpus some of whose files are gone: those whose name begins with "gone"."""

    def load(self, split, index):
        if self.name(split, index).startswith("gone"):
            raise InputError(f"{self.name(split, index)}: No such file or directory")
        return super().load(split, index)


class Deadly(Handmade):
    """A corpus some of whose pieces kill the process that opens them: those whose name begins with "deadly"."""

    def load(self, split, index):
        if self.name(split, index).startswith("deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(split, index)


class Hanging(Handmade):
    """A corpus that hangs who opens a piece while the file `flag` is there; the file is removed, so it hangs once."""

    def __init__(self, flag: str, *pieces: midi.Piece):
        super().__init__(*pieces)
        self.flag = flag

    def load(self, split, index):
        if os.path.exists(self.flag):
            os.remove(self.flag)
            time.sleep(3600)
        return super().load(split, index)


def chunker(
    corpus, instruments=BAND, soundfonts=(SOUNDFONT,), sample_rate=RATE_HZ, variation=None, **changes
) -> Chunker:
    """A light chunker of BAND; `changes` are other values of its arguments."""
    source = PlayedStems(corpus, instruments, soundfonts, sample_rate, variation or Variation())
    arguments = {
        "split": "train",
        "targets": source.names,
        "chunk_samples": 1_600,
        "chunks_per_song": 8,
        "keep_silent": 1.0,
        "keep_solo": 1.0,
        **changes,
    }
    return Chunker(source, **arguments)


def are_equal(one: Visit, other: Visit) -> bool:
    """Whether two visits agree in every bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other))


# ---- Sound ----------------------------------------------------------------------------------------------------------
def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-noise ratio of an estimate of a waveform [time]."""
    signal, noise = (np.square(waveform, dtype=np.float64).sum() for waveform in (reference, reference - estimate))
    return float(10 * np.log10((signal + 1e-12) / (noise + 1e-20)))


def rms(waveform: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))


def pitch_hz(waveform: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    """Frequency of the strongest partial of a waveform [time], to within 0.5 Hz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 2 * rate_hz))
    return float(spectrum.argmax() / 2)


def sine_sample(hz: float, level: float, name: str = "sine") -> Sample:
    """A sine that sounds at A4 as it is, for frequencies of which the loop of 100 ms holds whole periods."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(6_600) / 44_000)
    return Sample(wave, 44_000, key=69, loop=(1_100, 5_500), name=name)


def write_sine_soundfont(path: pathlib.Path, presets: list[tuple[int, int]]) -> str:
    """Writes a SoundFont whose presets [(bank, program)] all play one looped sine without an envelope: A4 is 440 Hz."""
    zones = [Zone(sine_sample(440, 0.25))]
    write_soundfont(path, [Preset("sine", bank, program, zones) for bank, program in sorted(presets)])
    return str(path)


# ---- MIDI files -----------------------------------------------------------------------------------------------------
def on(pitch, time=0, channel=0, velocity=90) -> mido.Message:
    """A key struck, `time` ticks after the message before it."""
    return mido.Message("note_on", note=pitch, velocity=velocity, time=time, channel=channel)


def off(pitch, time=0, channel=0) -> mido.Message:
    """A key released."""
    return mido.Message("note_off", note=pitch, time=time, channel=channel)


def cc(number, value, time=0, channel=0) -> mido.Message:
    """A control change."""
    return mido.Message("control_change", control=number, value=value, time=time, channel=channel)


def program(number, time=0, channel=0) -> mido.Message:
    """A program change."""
    return mido.Message("program_change", program=number, time=time, channel=channel)


def tempo(us_per_beat, time=0) -> mido.MetaMessage:
    """A tempo change."""
    return mido.MetaMessage("set_tempo", tempo=us_per_beat, time=time)


def midi_bytes(*tracks: list, type=1, ticks_per_beat=480) -> bytes:
    """The file that holds these tracks."""
    file = mido.MidiFile(type=type, ticks_per_beat=ticks_per_beat)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def song_bytes(melody: list[int], ticks=240, us_per_beat=500_000, programs=(0,)) -> bytes:
    """A file in which each of the programs plays the melody, on a channel of its own."""
    tracks = [[tempo(us_per_beat)]]
    for channel, number in enumerate(programs):
        track = [program(number, channel=channel)]
        for pitch in melody:
            track += [on(pitch, 0, channel), off(pitch, ticks, channel)]
        tracks.append(track)
    return midi_bytes(*tracks)
