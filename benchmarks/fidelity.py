"""Do we play MIDI as FluidSynth's own player does? `python -m benchmarks.fidelity --midi_dir=DIR`.

The judge is the `fluidsynth` program on each whole file, against the sum of our stems with every instrument rendered.
Its player counts in whole milliseconds and ticks and begins anew at each tempo change, so that its notes come some
blocks off their true time, and drift. Each file is therefore judged twice: as we play it, at its true times, and with
that clock put in place of ours, which leaves every other difference to be seen.
"""

from __future__ import annotations

import concurrent.futures
import io
import math
import pathlib
import subprocess
import tempfile

import mido
import numpy as np
import soundfile
from absl import app, flags
from tqdm import tqdm

from data_gen import midi, synth
from data_gen.instruments import Instrument

EVERYTHING = (Instrument("drums"), Instrument("melodic", tuple(range(128))))
RATE = 44_100
FRAME = 4096  # of the log spectra
FLOOR_DB = -50.0  # bins in which both are below this count for nothing; a full-scale sine is at 0 dB
ENVELOPE_S = 0.05
BLOCK_FRAMES = 512


def play(path: str, soundfont: str) -> np.ndarray:
    """What the fluidsynth program makes of a file: float32 [time], mono."""
    with tempfile.TemporaryDirectory() as folder:
        wav = pathlib.Path(folder, "out.wav")
        command = ["fluidsynth", "-ni", "-R", "0", "-C", "0", "-g", str(synth.GAIN), "-r", str(RATE)]
        command += ["-o", f"synth.polyphony={synth.POLYPHONY}", "-O", "float", "-T", "wav", "-F", str(wav)]
        subprocess.run([*command, soundfont, path], check=True, capture_output=True)
        return soundfile.read(wav, dtype="float32")[0].mean(axis=1)


def spectra_db(samples: np.ndarray):
    """Yields blocks of log spectra [frame, frequency], in dB, of frames without overlap under a Hann window."""
    window = np.hanning(FRAME).astype(np.float32)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    for start in range(0, len(frames), BLOCK_FRAMES):
        magnitudes = np.abs(np.fft.rfft(frames[start : start + BLOCK_FRAMES] * window)) * (2 / window.sum())
        yield 20 * np.log10(magnitudes + 1e-9)


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """(mean absolute difference of log spectra in dB over bins above FLOOR_DB, correlation of the RMS envelopes)."""
    length = min(len(ours), len(theirs))
    total = n_bins = 0.0
    for a, b in zip(spectra_db(ours[:length]), spectra_db(theirs[:length])):
        heard = np.maximum(a, b) > FLOOR_DB
        total += np.abs(np.maximum(a, FLOOR_DB) - np.maximum(b, FLOOR_DB))[heard].sum()
        n_bins += heard.sum()
    hop = round(ENVELOPE_S * RATE)
    envelopes = [np.sqrt(np.square(x[: length // hop * hop].reshape(-1, hop)).mean(axis=1)) for x in (ours, theirs)]
    return total / max(n_bins, 1), float(np.corrcoef(*envelopes)[0, 1])


def on_the_players_clock(path: str) -> midi.Piece:
    """A file with each event at the block at which FluidSynth's player sends it.

    At block k the player is at m = floor(1000 * 64 k / rate) milliseconds and at tick s + round((m - m0) / d), where s
    and m0 are tick and millisecond of the last tempo change and d is the length of a tick; it sends all events up to
    that tick, and what it sends is heard from the next block on. (fluid_player_callback, FluidSynth 2.3)
    """
    song = mido.MidiFile(file=io.BytesIO(pathlib.Path(path).read_bytes()), clip=True)
    ticks, messages = midi._merged(song)
    start_ms = start_tick = block = 0
    tick_ms = 500.0 / song.ticks_per_beat
    times_s = []
    for tick, message in zip(ticks, messages):
        due_ms = start_ms + max(0, math.ceil((tick - start_tick - 0.5) * tick_ms - 1e-9))
        block = max(block, math.ceil(due_ms * RATE / (1000 * synth.BLOCK_SAMPLES) - 1e-9))
        times_s.append((block + 1) * synth.BLOCK_SAMPLES / RATE)
        if message.type == "set_tempo" and message.tempo > 0:
            now_ms = int(1000.0 * block * synth.BLOCK_SAMPLES / RATE)
            start_tick += int((now_ms - start_ms) / tick_ms + 0.5)
            start_ms, tick_ms = now_ms, message.tempo / 1000 / song.ticks_per_beat
    return midi.make_piece(path, midi._playable(np.array(times_s), messages))


def render(piece: midi.Piece, soundfont: str) -> np.ndarray:
    """The sum of our stems of a whole piece: float32 [time]."""
    n_samples = round((piece.duration_s + 1) * RATE)
    return synth.Synthesizer(soundfont, EVERYTHING, RATE).render(piece, 0, n_samples).sum(axis=1)


def judge(job: tuple[str, str]) -> tuple[str, float, float, float, float]:
    """(path, spectral difference in dB and envelope correlation at true times, and both on the player's clock)."""
    path, soundfont = job
    theirs = play(path, soundfont)
    pieces = midi.read_midi(path), on_the_players_clock(path)
    return path, *(figure for piece in pieces for figure in difference(render(piece, soundfont), theirs))


def main(_) -> None:
    """Judges every file and prints the distribution and the worst."""
    soundfont = flags.FLAGS.soundfont or synth.embedded_soundfont()
    jobs = [(str(path), soundfont) for path in sorted(pathlib.Path(flags.FLAGS.midi_dir).rglob("*.mid"))]
    with concurrent.futures.ProcessPoolExecutor() as executor:
        judged = sorted(tqdm(executor.map(judge, jobs), total=len(jobs), desc="judging"), key=lambda row: -row[1])
    print(f"{len(judged)} files, {pathlib.Path(soundfont).name}\n")
    print("| | median | 90th percentile | worst |\n|---|---|---|---|")
    columns = np.array([row[1:] for row in judged]).T
    for clock, (spectral, envelope) in {"true times": columns[:2], "player's clock": columns[2:]}.items():
        figures = np.median(spectral), np.quantile(spectral, 0.9), spectral.max()
        print(f"| {clock}: log-spectral difference, dB | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
        figures = np.median(envelope), np.quantile(envelope, 0.1), envelope.min()
        print(f"| {clock}: envelope correlation | {' | '.join(f'{figure:.5f}' for figure in figures)} |")
    print("\nThe worst at true times, and what they come to on the player's clock:\n")
    for path, difference_db, correlation, clocked_db, clocked in judged[:8]:
        name = pathlib.Path(path).relative_to(flags.FLAGS.midi_dir)
        print(f"- {name}: {difference_db:.2f} dB, {correlation:.4f}; {clocked_db:.3f} dB, {clocked:.5f}")


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files.")
    flags.DEFINE_string("soundfont", "", "SoundFont; empty for the embedded one.")
    app.run(main)
