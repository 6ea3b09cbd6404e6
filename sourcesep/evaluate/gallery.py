"""A few seconds of some songs to listen to: sound and spectrograms of the stems as data URIs, for the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib.image
import numpy as np
import scipy.signal
import soundfile
import soxr

from sourcesep import metrics
from sourcesep.evaluate.scores import MODEL
from sourcesep.evaluate.songs import Song
from sourcesep.separate.stem_writer import FORMATS

EXAMPLES = 3  # songs of each condition that can be played
MAX_BYTES = 9_000_000  # of data URIs, above which no more examples are added; the page then stays below 15 MB
CLIP_S = 8.0  # length of an example, in seconds
PEAK = 0.9  # of the loudest track of an example; its other tracks are scaled by the same factor
PICTURE_WIDTH, PICTURE_HEIGHT = 320, 96  # of a spectrogram, in pixels
PICTURE_FRAME_S = 0.046  # about 2,048 samples at 44.1 kHz, rounded to a power of two
PICTURE_LOWEST_HZ = 50.0  # frequency of the lowest line of pixels
PICTURE_HIGHEST = 0.95  # frequency of the highest line, as a share of half the sample rate: resamplers cut off near it
PICTURE_RANGE_DB = 70.0  # from the darkest to the brightest colour
_MIXTURE = "mixture"  # name of its track, and of its only version
_ORIGINAL, _SEPARATED = "original", "separated"  # versions of a stem's track; the template uses these names
_TINY_POWER = 1e-20  # added to powers, so that silence has a logarithm


class Gallery:
    """Collects examples: the first songs of each condition, as long as the page stays small enough.

    Attributes:
        examples: as `make_example` returns them.
    """

    def __init__(self) -> None:
        self.examples: list[dict[str, Any]] = []

    def add(self, piece: Mapping[str, Any], song: Song, estimates: Mapping[str, np.ndarray]) -> None:
        """Adds a song if there is room for it; arguments as for `make_example`."""
        n_alike = sum(example["condition"] == piece["condition"] for example in self.examples)
        if n_alike < EXAMPLES and sum(map(count_bytes, self.examples)) < MAX_BYTES:
            self.examples.append(make_example(piece, song, estimates))


def make_example(piece: Mapping[str, Any], song: Song, estimates: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the busiest seconds of a song as data URIs: of the mixture, each reference, and each estimate.

    Args:
        piece: the scores of the song, as `scores.score_song` returns them, with its `name` and `condition`.
        song: its mixture and references.
        estimates: by name, [time, channel].

    Returns:
        name, condition, notes; begin_s, length_s; mixture: its `audio` and `picture`; stems: for each its name, its
        main score, and for each version, original and separated, its `audio` and `picture`.
    """
    rate = song.sample_rate
    begin = _find_busiest(song)
    inside = slice(begin, begin + round(CLIP_S * rate))
    tracks = {(_MIXTURE, _MIXTURE): song.mixture[inside]}
    for name, reference in song.references.items():
        tracks[name, _ORIGINAL] = reference[inside]
        tracks[name, _SEPARATED] = estimates[name][inside]
    length = len(tracks[_MIXTURE, _MIXTURE])
    scale = PEAK / max(1e-6, *(np.abs(track).max(initial=0.0) for track in tracks.values()))
    top_db = None
    media: dict[str, dict[str, dict[str, str]]] = {}
    for (name, version), track in tracks.items():
        track = np.pad(track[:length], ((0, max(0, length - len(track))), (0, 0))) * scale
        levels = _spectrogram_db(track, rate)
        top_db = levels.max() if top_db is None else top_db  # the mixture comes first, and sets the scale of colours
        media.setdefault(name, {})[version] = {
            "audio": _encode_audio(track, rate),
            "picture": _encode_picture(levels, top_db),
        }
    return {
        "name": piece["name"],
        "condition": piece["condition"],
        "notes": piece["notes"],
        "begin_s": begin / rate,
        "length_s": length / rate,
        "mixture": media.pop(_MIXTURE)[_MIXTURE],
        "stems": [
            {"name": name, "score": piece["instruments"][name][MODEL][metrics.MAIN_MEASURE], **versions}
            for name, versions in media.items()
        ],
    }


def count_bytes(example: Mapping[str, Any]) -> int:
    """Returns the length of an example's data URIs."""
    versions = [example["mixture"], *(stem[v] for stem in example["stems"] for v in (_ORIGINAL, _SEPARATED))]
    return sum(len(uri) for version in versions for uri in version.values())


def _find_busiest(song: Song) -> int:
    """Returns the first sample of the CLIP_S seconds in which most stems are active; the earliest of several."""
    activity = np.sum([metrics.activity(stem, song.sample_rate) for stem in song.references.values()], axis=0)
    n_frames = max(1, min(len(activity), round(CLIP_S / metrics.FRAME_S)))
    totals = np.convolve(activity, np.ones(n_frames), "valid")
    return int(np.argmax(totals)) * round(metrics.FRAME_S * song.sample_rate)


def _encode_audio(track: np.ndarray, rate: int) -> str:
    """Encodes [time, channel] as MP3, or as FLAC if libsndfile cannot write MP3."""
    form = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    file_hz = FORMATS[form.lower()].nearest_rate(rate)
    if file_hz != rate:
        track = soxr.resample(track, rate, file_hz)
    data = io.BytesIO()
    soundfile.write(data, track[:, :2], file_hz, format=form)
    return f"data:audio/{'mpeg' if form == 'MP3' else 'flac'};base64,{base64.b64encode(data.getvalue()).decode()}"


def _spectrogram_db(track: np.ndarray, rate: int) -> np.ndarray:
    """Returns levels in dB [frequency, time] of PICTURE_HEIGHT x PICTURE_WIDTH; high frequencies first, log-spaced."""
    frame = 2 ** round(math.log2(PICTURE_FRAME_S * rate))
    mono = track.mean(axis=1)
    mono = np.pad(mono, (0, max(0, frame - len(mono))))
    hop = max(1, (len(mono) - frame) // (PICTURE_WIDTH - 1))
    hz, _, power = scipy.signal.spectrogram(mono, rate, "hann", frame, frame - hop if hop < frame else 0)
    rows = np.geomspace(rate / 2 * PICTURE_HIGHEST, PICTURE_LOWEST_HZ, PICTURE_HEIGHT)
    columns = np.linspace(0, power.shape[1] - 1, PICTURE_WIDTH).round().astype(int)
    levels = 10 * np.log10(power[:, columns] + _TINY_POWER)
    return np.stack([np.interp(rows, hz, column) for column in levels.T], axis=1)


def _encode_picture(levels: np.ndarray, top_db: float) -> str:
    """Encodes levels [line, column] as PNG, with the brightest colour at `top_db`."""
    data = io.BytesIO()
    matplotlib.image.imsave(data, levels, format="png", vmin=top_db - PICTURE_RANGE_DB, vmax=top_db, cmap="magma")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
