"""Draws spectrograms of separations: `python -m sourcesep.plots separated/SONG picture.png`."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import scipy.signal
from absl import app, flags
from matplotlib.axes import Axes

from data_gen import InputError, audio
from data_gen.command import exit_status

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FRAME_SAMPLES = 1024  # length of the frames of a spectrogram, 23 ms at 44.1 kHz
LOWEST_DB, HIGHEST_DB = -100, -40  # power spectral density of the darkest and the brightest colour, in dB
_TINY_POWER = 1e-12  # added to powers, so that silence has a logarithm


def plot_separation(folder: str, picture: str, start_s: float, length_s: float) -> None:
    """Draws the spectrograms of a mixture, and of each stem above its reference, with the same scale of colours.

    Args:
        folder: what separate.py writes for a MIDI file: mixture.wav, the stems, and the folder reference.
        picture: the PNG file to write.
        start_s, length_s: the part to draw, in seconds; it ends earlier if the song does.

    Raises InputError if the folder lacks one of these files, or the song ends before `start_s`.
    """
    root = pathlib.Path(folder)
    stems = sorted(path.name for path in root.glob("reference/*.wav"))
    if not stems:
        raise InputError(
            f"{folder}: holds no reference/*.wav; separate.py writes them for a MIDI file, or without a file"
        )
    titles = {"mixture": root / "mixture.wav"}
    for name in stems:
        titles[f"{name[:-4]}, separated"] = root / name
        titles[f"{name[:-4]}, original"] = root / "reference" / name
    figure, grid = plt.subplots(3, len(stems), figsize=(3.2 * len(stems), 6), sharex=True, sharey=True, squeeze=False)
    for axes in grid[0, 1:]:
        axes.remove()
    order = [grid[0, 0], *grid[1:].T.ravel()]
    for axes, (title, path) in zip(order, titles.items()):
        measures = audio.measure(path)
        rate, start = measures.sample_rate, round(start_s * measures.sample_rate)
        if not 0 <= start < measures.n_samples:
            raise InputError(f"{path}: lasts {measures.n_samples / rate:.1f} s; lower --start_s={start_s:g}")
        samples = audio.read_part(path, start, start + round(length_s * rate))[:, 0]
        draw_spectrogram(axes, samples, rate, title, start_s)
    for axes in grid[-1]:
        axes.set_xlabel("s")
    for axes in grid[:, 0]:
        axes.set_ylabel("kHz")
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    plt.close(figure)


def draw_spectrogram(axes: Axes, samples: np.ndarray, sample_rate: int, title: str, start_s: float = 0.0) -> None:
    """Draws the power spectral density of a waveform [time] over seconds and kHz."""
    samples = np.pad(samples, (0, max(0, FRAME_SAMPLES - len(samples))))
    hz, s, power = scipy.signal.spectrogram(samples, sample_rate, "hann", FRAME_SAMPLES, FRAME_SAMPLES * 3 // 4)
    levels = 10 * np.log10(power + _TINY_POWER)
    axes.pcolormesh(start_s + s, hz / 1000, levels, vmin=LOWEST_DB, vmax=HIGHEST_DB, rasterized=True)
    axes.set_title(title, fontsize=10)


def spectrograms_image(rows: Sequence[Mapping[str, np.ndarray]], sample_rate: int) -> np.ndarray:
    """Draws spectrograms of rows of named waveforms [time]; returns a picture, uint8 [height, width, RGB]."""
    shape = len(rows), max(map(len, rows))
    figure, grid = plt.subplots(
        *shape, figsize=(2.4 * shape[1], 1.9 * shape[0]), sharex=True, sharey=True, squeeze=False
    )
    for line, row in zip(grid, rows):
        for axes, (title, samples) in zip(line, row.items()):
            draw_spectrogram(axes, samples, sample_rate, title)
    figure.tight_layout()
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture


def _main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        raise InputError("name a folder of separate.py, and the picture to write: FOLDER PICTURE.png")
    folder, picture = arguments
    plot_separation(folder, picture, flags.FLAGS.start_s, flags.FLAGS.length_s)
    return 0


if __name__ == "__main__":
    flags.DEFINE_float("start_s", 20.0, "Start of the part to draw, in seconds.", lower_bound=0.0)
    flags.DEFINE_float("length_s", 6.0, "Length of the part to draw, in seconds.", lower_bound=0.0)
    app.run(lambda argv: exit_status(_main, argv[1:]))
