"""Stems of a source -> the chunks that are worth training on, and held-out excerpts.

A visit picks one song, takes one stretch of it and cuts the stretch into consecutive chunks, so that nothing rendered
is wasted. Visit number n depends on the seed and n only, so that chunks are the same in whatever process they are made.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data_gen import InputError, RenderError
from data_gen.effects import EffectChances, apply_effects
from data_gen.stems import SILENCE_DBFS, StemSource, add_up, choose_stems, to_channels
from data_gen.variation import draw_gains, draw_places

SOLO_DB = -30.0  # an instrument plays alone when all others together are this far below it


class Visit(NamedTuple):
    """What one visit to a song gave.

    Attributes:
        index: number of the visit.
        song: name of the song.
        starts_s: [chunk] where in the song each chunk begins, without its context, in seconds.
        mixture: [chunk, time, channel] in the number format of the Chunker, the sum of all stems.
        stems: [chunk, time, channel * target] in this format: for the first channel the targets in the order they were
            named, and the other stem, if wanted, last; then likewise for the second channel.
        n_silent, n_solo: chunks dropped because the mixture was silent, or one instrument played alone.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    song: str
    starts_s: np.ndarray
    mixture: np.ndarray
    stems: np.ndarray
    n_silent: int
    n_solo: int


@dataclasses.dataclass(frozen=True)
class Chunker:
    """Cuts the songs of a source into chunks. It can be sent to another process.

    Args:
        source: where stems come from.
        split: "train", "validation" or "test".
        targets: names of the stems that are wanted.
        chunk_samples: length of a chunk without its context.
        context_samples: real audio on each side of a chunk, so that `time` is chunk_samples + 2 * context_samples.
        chunks_per_song: how many chunks a visit cuts at most.
        keep_silent, keep_solo: share of the silent and the solo chunks that is kept, 0 to 1.
        seed: of everything that is drawn.
        n_channels: of the chunks; one is the mean of those of the source.
        pan, width: of two channels, where stems sound from and how wide is varied by up to this share, see
            `variation.draw_places`.
        gain_db: each stem is made louder or softer by up to this much, in dB.
        effects: how probable each effect on the stems and on the mixture is.
        other: whether the sum of all stems that are not targets is one more stem.
        dtype: number format of the chunks of a visit, "float32" or "float16".
    """

    source: StemSource
    split: str
    targets: tuple[str, ...]
    chunk_samples: int
    context_samples: int = 0
    chunks_per_song: int = 50
    keep_silent: float = 0.1
    keep_solo: float = 0.1
    seed: int = 0
    gain_db: float = 0.0
    effects: EffectChances = EffectChances()
    other: bool = False
    n_channels: int = 1
    pan: float = 0.0
    width: float = 0.0
    dtype: str = "float32"

    @property
    def time_samples(self) -> int:
        """Length of a chunk with its context."""
        return self.chunk_samples + 2 * self.context_samples

    def visit(self, index: int) -> Visit:
        """Makes visit number `index`.

        Raises RenderError or InputError if this song cannot be had; other visits may still succeed.
        """
        rng = np.random.default_rng([self.seed, index])
        take = self.source.draw(self.split, rng)
        n_chunks = max(1, min(self.chunks_per_song, take.n_samples // self.chunk_samples))
        start = int(rng.integers(max(1, take.n_samples - n_chunks * self.chunk_samples)))
        n_samples = n_chunks * self.chunk_samples + 2 * self.context_samples
        stems = to_channels(take.stems(start - self.context_samples, n_samples), self.n_channels)
        stems = apply_effects(stems, self.source.names, self.source.sample_rate, self.effects, rng)
        if self.n_channels == 2 and (self.pan or self.width):
            stems = draw_places(len(stems), self.pan, self.width, rng) @ stems
        if self.gain_db:
            stems = stems * draw_gains(len(stems), self.gain_db, rng)[:, None, None]
        wanted = choose_stems(stems, self.source.names, self.targets, self.other)
        mixture = add_up(wanted if self.other else stems)
        inner = slice(self.context_samples, n_samples - self.context_samples)
        is_silent, is_solo = _too_easy(
            stems[..., inner].reshape(*stems.shape[:2], n_chunks, self.chunk_samples),
            mixture[:, inner].reshape(-1, n_chunks, self.chunk_samples),
        )
        keep = np.where(is_silent, self.keep_silent, np.where(is_solo, self.keep_solo, 1.0))
        kept = rng.random(n_chunks) < keep

        firsts = np.flatnonzero(kept) * self.chunk_samples
        return Visit(
            index=index,
            song=take.name,
            starts_s=(start + firsts) / self.source.sample_rate,
            mixture=self._cut(mixture, firsts),
            stems=self._cut([stem[channel] for channel in range(self.n_channels) for stem in wanted], firsts),
            n_silent=int((is_silent & ~kept).sum()),
            n_solo=int((is_solo & ~is_silent & ~kept).sum()),
        )

    def _cut(self, waveforms: Sequence[np.ndarray] | np.ndarray, firsts: np.ndarray) -> np.ndarray:
        """Cuts waveforms [time of the stretch] into [chunk, time with context, waveform]; chunks begin at `firsts`."""
        chunks = np.empty((len(firsts), self.time_samples, len(waveforms)), self.dtype)
        for chunk, first in zip(chunks, firsts.tolist()):  # chunk by chunk, so that it stays in the processor's cache
            for position, waveform in enumerate(waveforms):
                chunk[:, position] = waveform[first : first + self.time_samples]
        return chunks


class HeldOut(NamedTuple):
    """An excerpt of a song as it is.

    Attributes:
        name: name of the song.
        mixture: float32 [time, channel], the sum of all stems.
        stems: float32 [time, channel * target], as in `Visit`.
    """

    name: str
    mixture: np.ndarray
    stems: np.ndarray


def hold_out(
    source: StemSource,
    split: str,
    targets: tuple[str, ...],
    other: bool,
    n_samples: int,
    n: int,
    first: int = 0,
    n_channels: int = 1,
) -> list[HeldOut]:
    """Returns the middle of each of the songs of a split, without those that are silent there.

    Where there are fewer songs than excerpts, long songs also give one at a quarter and one at three quarters.

    Args:
        source: where stems come from.
        split: one of SPLITS. Where it is empty, training songs are used.
        targets, other: as in `Chunker`.
        n_samples: length of an excerpt; a shorter song ends in silence.
        n: number of excerpts; fewer are returned where the songs do not give as many.
        first: number of the first song that is used; after the last song comes the first one.
        n_channels: as in `Chunker`.

    Raises InputError if there is none.
    """
    split = split if source.size(split) else "train"
    size = source.size(split)
    excerpts: list[HeldOut] = []
    for place, song in itertools.product((0.5, 0.25, 0.75), range(size)):
        if len(excerpts) == n:
            break
        try:
            take = source.load(split, (first + song) % size)
            if place != 0.5 and take.n_samples < 4 * n_samples:
                continue  # it would overlap the one in the middle
            stems = take.stems(max(0, round(place * take.n_samples) - n_samples // 2), n_samples)
        except (InputError, RenderError) as error:
            logging.warning("%s; held-out excerpts go on without it", error)
            continue
        stems = to_channels(stems, n_channels)
        mixture = add_up(stems)
        if np.mean(np.square(mixture)) > 10 ** (SILENCE_DBFS / 10):
            wanted = choose_stems(stems, source.names, targets, other)
            columns = (
                np.stack(wanted, axis=-1).transpose(1, 0, 2).reshape(n_samples, -1)
            )  # from [channel, time, target]
            excerpts.append(HeldOut(take.name, mixture.T, columns))
    if not excerpts:
        raise InputError(f"no song of the {split} split can be heard in its middle, so that there is no held-out audio")
    return excerpts


def _too_easy(stems: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which chunks are silent and in which one instrument plays alone, two arrays bool [chunk].

    Args:
        stems: [instrument, channel, chunk, time].
        mixture: [channel, chunk, time].
    """
    n_channels, _, n_samples = mixture.shape
    energies = np.einsum("ihct,ihct->ihc", stems, stems).sum(axis=1) / (n_channels * n_samples)
    mixture_energies = np.einsum("hct,hct->hc", mixture, mixture).sum(axis=0) / (n_channels * n_samples)
    is_silent = mixture_energies < 10 ** (SILENCE_DBFS / 10)
    loudest = energies.max(axis=0)
    is_solo = energies.sum(axis=0) - loudest <= loudest * 10 ** (SOLO_DB / 10)
    return is_silent, is_solo & (len(stems) > 1)
