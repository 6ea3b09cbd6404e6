"""Compares our rendering with FluidSynth's own MIDI player: `python -m benchmarks.fidelity --midi_dir=DIR`.

The reference is what the `fluidsynth` program plays of each whole file; it is compared with the sum of our stems of all
instruments. FluidSynth's player counts in whole milliseconds and ticks, and starts counting again at each tempo change,
so that its notes are some blocks off their true time, and drift. Each file is therefore compared twice: at its true
times, as we render it, and at the times of FluidSynth's player, which shows all other differences.
"""

from __future__ import annotations

import concurrent.futures
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile
from absl import app, flags
from tqdm import tqdm

from data_gen import midi, midi_file, synth
from data_gen.instruments import Instrument

EVERYTHING = (Instrument("drums", is_percussion=True), Instrument("melodic", tuple(range(128))))
RATE = 44_100
FRAME = 4096  # length of the frames of the log spectra, in samples
FLOOR_DB = -50.0  # bins in which both spectra are below this level are ignored; a full-scale sine is at 0 dB
ENVELOPE_S = 0.05  # length of the frames of the RMS envelopes, in seconds
BLOCK_FRAMES = 512  # frames that are transformed at a time, to limit memory


def play(path: str, soundfont: str) -> np.ndarray:
    """Plays a file with the fluidsynth program; returns float32 [time], mono."""
    with tempfile.TemporaryDirectory() as folder:
        wav = pathlib.Path(folder, "out.wav")
        command = ["fluidsynth", "-ni", "-R", "0", "-C", "0", "-g", str(synth.GAIN), "-r", str(RATE)]
        command += ["-o", f"synth.polyphony={synth.POLYPHONY}", "-O", "float", "-T", "wav", "-F", str(wav)]
        subprocess.run([*command, soundfont, path], check=True, capture_output=True)
        return soundfile.read(wav, dtype="float32")[0].mean(axis=1)


def spectra_db(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yields blocks of log spectra [frame, frequency] in dB, of Hann-windowed frames without overlap."""
    window = np.hanning(FRAME).astype(np.float32)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    for start in range(0, len(frames), BLOCK_FRAMES):
        magnitudes = np.abs(np.fft.rfft(frames[start : start + BLOCK_FRAMES] * window)) * (2 / window.sum())
        yield 20 * np.log10(magnitudes + 1e-9)


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Returns (mean absolute difference of log spectra in dB in bins above FLOOR_DB, correlation of RMS envelopes)."""
    length = min(len(ours), len(theirs))
    total = n_bins = 0.0
    for a, b in zip(spectra_db(ours[:length]), spectra_db(theirs[:length])):
        is_audible = np.maximum(a, b) > FLOOR_DB
        total += np.abs(np.maximum(a, FLOOR_DB) - np.maximum(b, FLOOR_DB))[is_audible].sum()
        n_bins += is_audible.sum()
    hop = round(ENVELOPE_S * RATE)
    envelopes = [np.sqrt(np.square(x[: length // hop * hop].reshape(-1, hop)).mean(axis=1)) for x in (ours, theirs)]
    return total / max(n_bins, 1), float(np.corrcoef(*envelopes)[0, 1])


def on_the_players_clock(path: str) -> midi.Piece:
    """Reads a file with each event at the block at which FluidSynth's player sends it.

    At block k the player is at millisecond m = floor(1000 * 64 k / rate) and at tick s + round((m - m0) / d), where s
    and m0 are the tick and the millisecond of the last tempo change, and d is the duration of a tick. It sends all
    events up to that tick, and they sound from the next block on (fluid_player_callback, FluidSynth 2.3).
    """
    song = midi_file.parse(pathlib.Path(path).read_bytes(), str(path))
    messages, channels, contents = midi.merge(song)
    start_ms = start_tick = block = 0
    tick_ms = 500.0 / song.ticks_per_beat
    times_s = []
    for row, (tick, _, status, number, _) in enumerate(messages.tolist()):
        due_ms = start_ms + max(0, math.ceil((tick - start_tick - 0.5) * tick_ms - 1e-9))
        block = max(block, math.ceil(due_ms * RATE / (1000 * synth.BLOCK_SAMPLES) - 1e-9))
        times_s.append((block + 1) * synth.BLOCK_SAMPLES / RATE)
        is_tempo = (status, number) == (midi_file.META, midi_file.SET_TEMPO)
        us_per_beat = int.from_bytes(contents[row][:3], "big") if is_tempo else 0
        if us_per_beat:
            now_ms = int(1000.0 * block * synth.BLOCK_SAMPLES / RATE)
            start_tick += int((now_ms - start_ms) / tick_ms + 0.5)
            start_ms, tick_ms = now_ms, us_per_beat / 1000 / song.ticks_per_beat
    return midi.finish(path, midi.make_events(np.array(times_s), messages, channels, contents))


def render(piece: midi.Piece, soundfont: str) -> np.ndarray:
    """Renders the sum of our stems of a whole piece, float32 [time]."""
    n_samples = round((piece.duration_s + 1) * RATE)
    return synth.Synthesizer(soundfont, EVERYTHING, RATE).render(piece, 0, n_samples).sum(axis=1)


def compare(job: tuple[str, str]) -> tuple[str, float, float, float, float]:
    """Compares a file, (path, SoundFont), with FluidSynth's player.

    Returns:
        (path, spectral difference in dB and envelope correlation at true times, both at the times of the player)
    """
    path, soundfont = job
    theirs = play(path, soundfont)
    pieces = midi.read_midi(path), on_the_players_clock(path)
    return path, *(figure for piece in pieces for figure in difference(render(piece, soundfont), theirs))


def main(_) -> None:
    """Compares every file; prints the distribution and the worst files."""
    soundfont = flags.FLAGS.soundfont or synth.embedded_soundfont()
    jobs = [(str(path), soundfont) for path in sorted(pathlib.Path(flags.FLAGS.midi_dir).rglob("*.mid"))]
    with concurrent.futures.ProcessPoolExecutor() as executor:
        compared = sorted(tqdm(executor.map(compare, jobs), total=len(jobs), desc="files"), key=lambda row: -row[1])
    print(f"{len(compared)} files, {pathlib.Path(soundfont).name}\n")
    print("| | median | 90th percentile | worst |\n|---|---|---|---|")
    columns = np.array([row[1:] for row in compared]).T
    for clock, (spectral, envelope) in {"true times": columns[:2], "times of the player": columns[2:]}.items():
        figures = np.median(spectral), np.quantile(spectral, 0.9), spectral.max()
        print(f"| {clock}: log-spectral difference, dB | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
        figures = np.median(envelope), np.quantile(envelope, 0.1), envelope.min()
        print(f"| {clock}: envelope correlation | {' | '.join(f'{figure:.5f}' for figure in figures)} |")
    print("\nThe worst at true times; then the same files at the times of the player:\n")
    for path, difference_db, correlation, clocked_db, clocked in compared[:8]:
        name = pathlib.Path(path).relative_to(flags.FLAGS.midi_dir)
        print(f"- {name}: {difference_db:.2f} dB, {correlation:.4f}; {clocked_db:.3f} dB, {clocked:.5f}")


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", None, "Folder of MIDI files.", required=True)
    flags.DEFINE_string("soundfont", "", "SoundFont; empty for the TimGM6mb.sf2 that pretty_midi contains.")
    app.run(main)
