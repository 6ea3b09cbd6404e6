"""Do we play MIDI as FluidSynth's own player does? `python benchmarks/fidelity.py --midi_dir=DIR`.

The judge is the `fluidsynth` program on each whole file, against the sum of our stems with every instrument rendered.
The player's clock jitters by a block, so samples cannot agree; spectra and envelopes can.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
import subprocess
import tempfile

import numpy as np
import soundfile
from absl import app, flags

from data_gen import synth
from data_gen.instruments import Instrument
from data_gen.midi import read_midi

MIDI_DIR = flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files.")
SOUNDFONT = flags.DEFINE_string("soundfont", "", "SoundFont; empty for the default one.")

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


def judge(job: tuple[str, str]) -> tuple[str, float, float]:
    """(path, spectral difference in dB, envelope correlation) of one file."""
    path, soundfont = job
    piece = read_midi(path)
    stems = synth.Synthesizer(soundfont, EVERYTHING, RATE).render(piece, 0, round((piece.duration_s + 1) * RATE))
    return path, *difference(stems.sum(axis=1), play(path, soundfont))


def main(_) -> None:
    """Judges every file and prints the distribution and the worst."""
    soundfont = SOUNDFONT.value or synth.default_soundfont()
    jobs = [(str(path), soundfont) for path in sorted(pathlib.Path(MIDI_DIR.value).rglob("*.mid"))]
    with concurrent.futures.ProcessPoolExecutor() as executor:
        judged = sorted(executor.map(judge, jobs), key=lambda row: -row[1])
    spectral, envelope = np.array([row[1:] for row in judged]).T
    print(f"{len(judged)} files, {pathlib.Path(soundfont).name}\n")
    print("| | median | 90th percentile | worst |\n|---|---|---|---|")
    print(f"| log-spectral difference, dB | {np.median(spectral):.2f} | {np.quantile(spectral, 0.9):.2f} |", end="")
    print(f" {spectral.max():.2f} |")
    print(f"| envelope correlation | {np.median(envelope):.4f} | {np.quantile(envelope, 0.1):.4f} |", end="")
    print(f" {envelope.min():.4f} |\n")
    for path, difference_db, correlation in judged[:10]:
        print(f"{difference_db:.2f} dB, {correlation:.4f}: {path}")


if __name__ == "__main__":
    app.run(main)
