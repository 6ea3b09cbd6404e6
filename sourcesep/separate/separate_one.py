"""Separates one recording: blocks in, through the Separator, stems out to files."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sourcesep.separate.blind import Finder
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import Input
from sourcesep.separate.separation import Separator
from sourcesep.separate.stem_writer import StemWriter


class Separated(NamedTuple):
    """What was written for one recording.

    Attributes:
        folder: the folder that holds its files.
        files: paths of the files, relative to the folder.
        sdr_db: SDR in dB of each stem that sounds, where the right stems are known.
        notes: what the user should know about it, in words.
    """

    folder: pathlib.Path
    files: tuple[str, ...]
    sdr_db: dict[str, float]
    notes: tuple[str, ...]


def separate_one(
    separator: Separator,
    recording: Input,
    plan: FilePlan,
    track: str,
    report: Callable[[float], None] = lambda _: None,
    blind: bool = False,
) -> Separated:
    """Splits a recording into files of its length, rate and channels.

    If its right stems are known, they and the mixture are written too, and the stems are scored.

    Args:
        separator: a Separator.
        recording: what to separate; it is closed at the end.
        plan: which files are written.
        track: name of the recording in their paths.
        report: called with the seconds of audio done since the last call; an exception that it raises stops the work.
        blind: whether to write only the stems of instruments that are found in the recording.

    Raises InputError if the recording cannot be read, or the stems cannot be written.
    """
    stem_names, rate, references = separator.stem_names, recording.sample_rate, recording.references
    has_references = references is not None
    paths = plan.paths(track, stem_names, has_references)
    writer = StemWriter(paths, rate, recording.n_channels, plan.encoding, recording.n_samples)
    finder = Finder(stem_names, rate) if blind else None
    for_scores: list[tuple[np.ndarray, np.ndarray]] = []
    n_done = 0
    try:
        with writer:
            for mixture, stems in _with_mixture(separator, recording.blocks(), rate):
                known = None if references is None else references[n_done : n_done + len(mixture)]
                writer.write(plan.select(mixture, stems, stem_names, known))
                if finder:
                    finder.add(mixture, stems)
                if has_references:
                    for_scores.append((mixture, stems))
                n_done += len(mixture)
                report(len(mixture) / rate)
            if finder:
                absent = set(stem_names) - set(finder.found())
                labels = plan.labels(stem_names, has_references)
                writer.leave_out(path for path, label in zip(paths, labels) if label in absent)
        notes = recording.notes() + ([finder.note()] if finder else []) + writer.notes()
    finally:
        recording.close()
    folder = pathlib.Path(os.path.commonpath([path.parent for path in writer.written]) if writer.written else ".")
    files = tuple(os.path.relpath(path, folder) for path in writer.written)
    sdr_db = {}
    if references is not None:
        whole_mixture, whole_stems = (np.concatenate(blocks) for blocks in zip(*for_scores))
        sdr_db = score_stems(references, whole_stems, whole_mixture, stem_names, rate)
    return Separated(folder, files, sdr_db, tuple(notes))


def separate_stream(
    separator: Separator, recording: Input, plan: FilePlan, write: Callable[[np.ndarray], None]
) -> None:
    """Splits a recording while it comes in.

    Args:
        separator, recording, plan: as in `separate_one`.
        write: takes each block of what the plan selects, float32 [time, channel, label].

    Raises InputError if the recording cannot be read.
    """
    for mixture, stems in _with_mixture(separator, recording.blocks(), recording.sample_rate):
        write(plan.select(mixture, stems, separator.stem_names))


def score_stems(
    references: np.ndarray, stems: np.ndarray, mixture: np.ndarray, stem_names: Sequence[str], sample_rate: int
) -> dict[str, float]:
    """Returns the SDR in dB of each stem over the seconds in which it sounds, without stems that never do.

    Args:
        references: the right stems, [time, channel, stem].
        stems: the separated stems, of the same shape.
        mixture: what they were separated from, [time, channel].
        stem_names: names along the last axis.
        sample_rate: in Hz.
    """
    from sourcesep import metrics  # which SciPy takes a second to import for

    scores = {}
    for position, name in enumerate(stem_names):
        pair = references[:, :, position], stems[:, :, position]
        score = metrics.score_stem(*pair, mixture, sample_rate)["sdr_db"]
        if not np.isnan(score):
            scores[name] = score
    return scores


def _with_mixture(
    separator: Separator, blocks: Iterable[np.ndarray], rate: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (mixture [time, channel], stems [time, channel, stem]) of the same samples."""
    waiting: collections.deque[np.ndarray] = collections.deque()

    def keep() -> Iterator[np.ndarray]:
        for block in blocks:
            waiting.append(block)
            yield block

    for stems in separator.stream(keep(), rate):
        while len(stems):
            mixture = waiting.popleft()
            if len(mixture) > len(stems):
                waiting.appendleft(mixture[len(stems) :])
                mixture = mixture[: len(stems)]
            yield mixture, stems[: len(mixture)]
            stems = stems[len(mixture) :]
