"""Runs an evaluation: songs are loaded, separated and scored one at a time -> metrics.json and index.html.

`evaluate_run` scores the model of a run, `evaluate` any separation. Only one song is in memory at a time.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_gen import InputError, RenderError
from data_gen.files import write_atomically
from data_gen.stems import SILENCE_DBFS
from sourcesep import metrics
from sourcesep.config import Config
from sourcesep.evaluate import page, scores, summary, table
from sourcesep.evaluate.gallery import Gallery
from sourcesep.evaluate.songs import LazySong, Song
from sourcesep.run_dir import RunDir

Advance = Callable[[float], object]
Separate = Callable[[Song, Advance], Mapping[str, np.ndarray]]
"""(song, advance) -> estimates by name, [time, channel]; calls `advance` with each further share of the song done."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} songs [{elapsed}<{remaining}]"
_TITLE_LETTERS = 30  # of a song's name that the progress bar shows, so that it fits into 80 columns


class Evaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
        figures: everything that metrics.json holds.
        table: the summary for a terminal.
        page: path of the HTML file.
    """

    figures: dict[str, Any]
    table: str
    page: pathlib.Path


def evaluate_run(
    run_dir: str | pathlib.Path,
    songs: Sequence[LazySong],
    output_dir: str | pathlib.Path = "",
    with_museval: bool = False,
    shifts: int = 1,
    adapt: bool = False,
) -> Evaluation:
    """Scores the model of a run; a conditioned model is given the names of the stems that sound in each song.

    Args:
        run_dir: folder of the run.
        songs: what to score.
        output_dir: the folder to write into; by default the folder `evaluation` of the run.
        with_museval: whether to add BSSEval v4.
        shifts, adapt: as in `Separator`.

    Raises InputError like `evaluate`, and if the run has no usable weights.
    """
    run = RunDir(run_dir)
    config = run.config()
    title = f"{run.path.name}: {', '.join(config.stem_names)}"
    separate = separate_with_run(run, config, shifts, adapt)
    return evaluate(songs, output_dir or run.path / "evaluation", title, separate, config, with_museval)


def separate_with_run(run: RunDir, config: Config, shifts: int = 1, adapt: bool = False) -> Separate:
    """Returns the function that separates a song with a run's model. Raises InputError if its weights are unusable."""
    from sourcesep.separate.separation import Separator

    is_conditioned = config.conditioning != "none"

    @functools.lru_cache(maxsize=4)  # songs with the same stems share a Separator, which takes seconds to build
    def load_separator(present: tuple[str, ...]) -> Separator:
        return Separator.from_run(run.path, present=present, shifts=shifts, adapt=adapt)

    load_separator(config.stem_names if is_conditioned else ())  # raises now rather than at the first song

    def separate(song: Song, advance: Advance) -> dict[str, np.ndarray]:
        estimates = {name: np.zeros_like(song.mixture) for name in song.references}
        present: tuple[str, ...] = ()
        if is_conditioned:
            present = tuple(name for name, stem in song.references.items() if metrics.level_dbfs(stem) > SILENCE_DBFS)
            if not present:
                return estimates
        separator = load_separator(present)

        def read_blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(song.mixture), song.sample_rate):
                yield song.mixture[start : start + song.sample_rate]
                advance(min(1.0, song.sample_rate / len(song.mixture)))

        stems = np.concatenate(list(separator.stream(read_blocks(), song.sample_rate)))
        separated = {name: stems[:, :, i] for i, name in enumerate(separator.stem_names)}
        return {name: separated.get(name, silence) for name, silence in estimates.items()}

    return separate


def _refuse(song: Song, advance: Advance) -> dict[str, np.ndarray]:
    raise InputError("a song without estimates needs a model: name a run")


def evaluate(
    songs: Sequence[LazySong],
    output_dir: str | pathlib.Path,
    title: str,
    separate: Separate = _refuse,
    config: Config | None = None,
    with_museval: bool = False,
) -> Evaluation:
    """Scores songs, and writes metrics.json and index.html.

    Args:
        songs: what to score. A song that fails to load is left out; its name and the reason are in all that is written.
        output_dir: the folder to write into; created if it does not exist.
        title: of the page.
        separate: makes the estimates of songs that come without.
        config: of the run that is scored, to be written into metrics.json.
        with_museval: whether to add BSSEval v4.

    Raises InputError if no song could be scored, the folder cannot be written, or museval is missing.
    """
    if with_museval:
        scores.import_museval()  # raises now rather than after the first song
    output_dir = pathlib.Path(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output_dir}: cannot make this folder ({error.strerror})") from None
    pieces: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    gallery = Gallery()
    with tqdm(total=len(songs), dynamic_ncols=True, bar_format=_BAR) as bar:
        for n_done, lazy in enumerate(songs, start=1):
            bar.set_description_str(pathlib.PurePath(lazy.name).stem[:_TITLE_LETTERS], refresh=False)
            named = {"name": lazy.name, "condition": lazy.condition}
            try:
                song = _load(lazy)
            except (InputError, RenderError) as error:
                left_out.append({**named, "reason": str(error)})
            else:
                estimates = song.estimates or separate(song, bar.update)
                piece = {**named, **scores.score_song(song, estimates, with_museval)}
                if config and config.blind:
                    piece |= scores.compare_found(song, estimates)
                pieces.append(piece)
                gallery.add(piece, song, estimates)
                del song, estimates  # frees their memory before the next song is loaded
            bar.update(n_done - bar.n)
    if not pieces:
        raise InputError(f"nothing could be scored: {left_out[0]['reason']}" if left_out else "no song to score")
    figures = summary.make_figures(pieces, left_out, config)
    write_atomically(output_dir / "metrics.json", summary.to_json(figures).encode())
    path = output_dir / "index.html"
    write_atomically(path, page.make_page(title, figures, gallery.examples).encode(errors="backslashreplace"))
    return Evaluation(figures, table.make_table(figures), path)


def _load(lazy: LazySong) -> Song:
    """Loads a song. Raises InputError or RenderError if that fails, and InputError if its mixture is silent."""
    song = lazy.load()
    if not song.mixture.any():
        raise InputError(f"{lazy.name}: the part to be scored is silent")
    return song
