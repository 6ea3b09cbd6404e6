"""What people look at: a table for the terminal, and a page of tables, plots, spectrograms and players.

The page is one file that needs no network: pictures and sound are inside it.
"""

from __future__ import annotations

import base64
import io
import math
import pathlib
from typing import Any

import jinja2
import matplotlib.image
import numpy as np
import scipy.signal
import soundfile
import soxr

from sourcesep import metrics
from sourcesep.separate.stem_writer import MP3_RATES

EXAMPLES = 3  # songs that can be heard, for each condition
MAX_EXAMPLE_BYTES = 9_000_000  # after which no more songs are added
CLIP_S = 8.0
PEAK = 0.9  # of the loudest track of an example; all are scaled alike
PICTURE_WIDTH, PICTURE_HEIGHT = 320, 96
PICTURE_LOWEST_HZ, PICTURE_RANGE_DB = 50.0, 70.0
WORST_DB = -15.0  # scores below this are drawn at the left edge of the plot


def make_table(figures: dict[str, Any]) -> str:
    """The summary as text: for each condition and instrument the model, then the anchors."""
    lines = []
    for condition, instruments in figures["summary"].items():
        n_songs = sum(piece["condition"] == condition for piece in figures["pieces"])
        lines += [
            f"{condition}, {_count(n_songs, 'song')}",
            f"{'':20}{'n':>4}{'SDR dB':>8}{'mean':>7} {'95 % interval':^16}{'over mix':>9}{'SI-SDR':>8}"
            f"{'when silent: dBFS':>19}{'below mix':>11}{'audible':>9}",
        ]
        for name, rows in instruments.items():
            for row, scores in rows.items():
                label = name if row == "model" else f"  {row_label(row, len(instruments))}"
                low, high = scores["sdr_db"]["mean_low"], scores["sdr_db"]["mean_high"]
                interval = "" if math.isnan(low) else f"{_number(low)} to {_number(high)}"
                lines.append(
                    f"{label:20}{scores['sdr_db']['n']:>4}{_number(scores['sdr_db']['median']):>8}"
                    f"{_number(scores['sdr_db']['mean']):>7} {interval:^16}"
                    f"{_number(scores['sdr_improvement_db']['median']):>9}{_number(scores['si_sdr_db']['median']):>8}"
                    f"{_number(scores['residual_dbfs']['median']):>19}{_number(scores['attenuation_db']['median']):>11}"
                    f"{_percent(scores['audible_share']['mean']):>9}"
                )
        lines.append("")
    for condition, instruments in figures["museval"].items():
        lines += [f"{condition}, BSSEval v4", f"{'':20}{'n':>4}{'SDR dB':>8}{'ISR':>7}{'SIR':>7}{'SAR':>7}"]
        for name, row in instruments.items():
            scores = (row[measure] for measure in ("sdr_db", "isr_db", "sir_db", "sar_db"))
            lines.append(f"{name:20}{row['n']:>4} " + "".join(f"{_number(score):>7}" for score in scores))
        lines.append("")
    for piece in figures["left_out"]:
        lines.append(f"left out: {piece['name']}: {piece['reason']}")
    return "\n".join(lines).rstrip()


def row_label(row: str, n_stems: int) -> str:
    """The name of a row, with the number of stems in it."""
    return row.replace("K", str(n_stems))


def make_example(source, song, estimates: dict[str, np.ndarray], piece: dict[str, Any]) -> dict[str, Any]:
    """A few seconds of a song as data URIs: the mixture, each reference, each estimate.

    Args:
        source: the `sources.Source` of the song.
        song: the `sources.Song`.
        estimates: by name, [time, channel].
        piece: its scores, as `evaluation.score_song` gives them.
    """
    rate = song.sample_rate
    begin = _busiest(song, rate)
    inside = slice(begin, begin + round(CLIP_S * rate))
    tracks = {("mixture", "mixture"): song.mixture[inside]}
    for name, reference in song.references.items():
        tracks[name, "original"] = reference[inside]
        tracks[name, "separated"] = estimates[name][inside]
    length = len(tracks["mixture", "mixture"])
    scale = PEAK / max(1e-6, *(np.abs(track).max(initial=0.0) for track in tracks.values()))
    top_db = None
    media: dict[str, dict[str, dict[str, str]]] = {}
    for (name, bank), track in tracks.items():
        track = np.pad(track[:length], ((0, max(0, length - len(track))), (0, 0))) * scale
        levels = _spectrogram(track, rate)
        top_db = levels.max() if top_db is None else top_db  # the mixture, which comes first, sets the scale
        media.setdefault(name, {})[bank] = {"audio": _audio_uri(track, rate), "picture": _picture_uri(levels, top_db)}
    return {
        "name": source.name,
        "condition": source.condition,
        "notes": piece["notes"],
        "begin_s": begin / rate,
        "length_s": length / rate,
        "mixture": media.pop("mixture")["mixture"],
        "stems": [
            {"name": name, "sdr_db": piece["instruments"][name]["model"]["sdr_db"], **banks}
            for name, banks in media.items()
        ],
    }


def example_bytes(example: dict[str, Any]) -> int:
    """Length of an example's data URIs."""
    banks = [example["mixture"], *(stem[bank] for stem in example["stems"] for bank in ("original", "separated"))]
    return sum(len(uri) for bank in banks for uri in bank.values())


def make_page(title: str, figures: dict[str, Any], examples: list[dict[str, Any]]) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        figures: as in metrics.json.
        examples: from `make_example`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, clock=_clock)
    environment.globals.update(row_label=row_label, count=_count)
    return environment.get_template("report.html.j2").render(
        title=title, figures=figures, examples=examples, plot=_plot(figures), metrics=metrics
    )


def _busiest(song, rate: int) -> int:
    """Where the CLIP_S begin in which most stems are active, in samples; the earliest of several."""
    activity = np.sum([metrics.activity(stem, rate) for stem in song.references.values()], axis=0)
    n_frames = max(1, min(len(activity), round(CLIP_S / metrics.FRAME_S)))
    totals = np.convolve(activity, np.ones(n_frames), "valid")
    return int(np.argmax(totals)) * round(metrics.FRAME_S * rate)


def _audio_uri(track: np.ndarray, rate: int) -> str:
    """[time, channel] as an MP3, or as FLAC where libsndfile writes no MP3."""
    form = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    if form == "MP3" and rate not in MP3_RATES:
        track, rate = soxr.resample(track, rate, 44_100), 44_100
    data = io.BytesIO()
    soundfile.write(data, track[:, :2], rate, format=form)
    return f"data:audio/{'mpeg' if form == 'MP3' else 'flac'};base64,{base64.b64encode(data.getvalue()).decode()}"


def _spectrogram(track: np.ndarray, rate: int) -> np.ndarray:
    """Levels in dB [frequency, time], PICTURE_HEIGHT x PICTURE_WIDTH, frequencies spaced by ratio, high ones on top."""
    frame = 2 ** round(math.log2(0.046 * rate))
    mono = track.mean(axis=1)
    mono = np.pad(mono, (0, max(0, frame - len(mono))))
    hop = max(1, (len(mono) - frame) // (PICTURE_WIDTH - 1))
    hz, _, power = scipy.signal.spectrogram(mono, rate, "hann", frame, frame - hop if hop < frame else 0)
    rows = np.geomspace(rate / 2 * 0.95, PICTURE_LOWEST_HZ, PICTURE_HEIGHT)
    columns = np.linspace(0, power.shape[1] - 1, PICTURE_WIDTH).round().astype(int)
    levels = 10 * np.log10(power[:, columns] + 1e-20)
    return np.stack([np.interp(rows, hz, column) for column in levels.T], axis=1)


def _picture_uri(levels: np.ndarray, top_db: float) -> str:
    data = io.BytesIO()
    scale = {"vmin": top_db - PICTURE_RANGE_DB, "vmax": top_db, "cmap": "magma"}
    matplotlib.image.imsave(data, levels, format="png", **scale)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _plot(figures: dict[str, Any]) -> dict[str, Any]:
    """Where the plot's marks go: SDR of each instrument in each song, as percentages of the width."""
    summary = figures["summary"]
    scores = [
        (piece["condition"], name, piece["name"], rows["model"]["sdr_db"])
        for piece in figures["pieces"]
        for name, rows in piece["instruments"].items()
        if math.isfinite(rows["model"]["sdr_db"])
    ]
    medians = [
        rows[row]["sdr_db"]["median"]
        for instruments in summary.values()
        for rows in instruments.values()
        for row in ("mixture", "ideal ratio mask")
    ]
    drawn = [max(WORST_DB, value) for value in [0.0, *(s[3] for s in scores), *medians] if math.isfinite(value)]
    low, high = math.floor(min(drawn)) - 1, math.ceil(max(drawn)) + 1
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= 8)

    def place(value: float) -> float:
        return round(100 * (max(WORST_DB, value) - low) / (high - low), 2)

    lanes = {condition: position for position, condition in enumerate(summary)}
    instruments = {}
    for name in dict.fromkeys(name for stems in summary.values() for name in stems):
        rows = {condition: stems[name] for condition, stems in summary.items() if name in stems}
        marks = [
            {"lane": lanes[condition], "row": row, "value": rows[condition][row]["sdr_db"]["median"]}
            for condition in rows
            for row in ("model", "mixture", "ideal ratio mask")
            if math.isfinite(rows[condition][row]["sdr_db"]["median"])
        ]
        instruments[name] = {
            "dots": [
                {"lane": lanes[condition], "x": place(value), "value": value, "song": song, "shift": index % 5 - 2}
                for index, (condition, stem, song, value) in enumerate(scores)
                if stem == name
            ],
            "marks": [{**mark, "x": place(mark["value"])} for mark in marks],
        }
    ticks = [{"x": place(value), "value": value} for value in range(-(-low // step) * step, high + 1, step)]
    return {"conditions": list(summary), "instruments": instruments, "ticks": ticks}


def _number(value: float | None, digits: int = 1) -> str:
    """A score with a true minus sign, or an en dash for what cannot be said."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
