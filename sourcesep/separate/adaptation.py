"""Adapts stems to the recording that they come from: each is weighted by where it is, in frequency and in stereo.

A model hears a few seconds at a time, and where it is in doubt it divides a sound among stems. Over a whole song there
is less doubt: its bass is in these bands, its guitar on the left. So the energy of each stem is counted in each band
and at each position between left and right, and the stem is weighted by its share there, relative to its share of the
song. The weighted masks divide the mixture anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft

PIECE_S = 5.0  # seconds of audio that are weighted at once, by what they and all before them hold
WINDOW_S = 0.093  # length of the frames of the spectrograms; they overlap by half
N_BANDS = 8
LOWEST_HZ = 200.0  # bands are as wide as each other below this frequency, and grow in proportion to it above
N_POSITIONS = 15
WIDEST_DB = 18.0  # level difference of the channels at the outermost positions
# Chosen by the SDR on 20 songs through GeneralUser GS, among 0 to 1.
BAND_EXPONENT, POSITION_EXPONENT = 0.3, 0.6
LEAST_SHARE = 1e-3  # of a stem in the song, a band or a cell
# Energy with the shares of its band that is added to each cell, relative to the mean energy of a cell: positions with
# little energy follow their band.
LEAST_ENERGY = 0.02
TINY = 1e-20  # added to powers, so that silence is not divided by


class Adaptation:
    """Weights the stems of one recording, piece by piece, by the shares that they had until then.

    Args:
        sample_rate: of the recording, in Hz.

    Attributes:
        delay: the most samples that it holds back.
    """

    def __init__(self, sample_rate: int) -> None:
        self._length = 2 ** max(2, round(math.log2(WINDOW_S * sample_rate)))
        self._hop = self._length // 2
        self._window = np.sqrt(np.hanning(self._length + 1)[:-1]).astype(np.float32)  # squared, adds up to 1
        self._piece = max(1, round(PIECE_S * sample_rate / self._hop)) * self._hop
        self.delay = self._piece + self._length
        frequencies = np.arange(self._hop + 1) * sample_rate / self._length
        octaves = np.log2(1 + frequencies / LOWEST_HZ)
        self._bands = np.minimum((octaves / octaves[-1] * N_BANDS).astype(int), N_BANDS - 1)
        self._energies: np.ndarray | float = 0.0  # [stem, band * position], added up over the pieces

    def apply(self, mixture: Iterable[np.ndarray], stems: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields weighted stems: float32 [time, channel, stem], in all as many samples as came in.

        Args:
            mixture: blocks [time, channel].
            stems: blocks [time, channel, stem] of the same recording, of any lengths.
        """
        margin = self._length  # pieces overlap by a frame, of which the inner half is kept
        mixtures, separated = _Buffer(mixture, margin), _Buffer(stems, margin)
        while True:
            n_new = min(mixtures.fill(self._piece + margin), separated.fill(self._piece + margin))
            n_kept = min(self._piece, n_new)
            if not n_kept:
                return
            x, y = mixtures.take(n_kept), separated.take(n_kept)
            yield self._weigh(x, y)[margin : margin + n_kept]

    def _weigh(self, mixture: np.ndarray, stems: np.ndarray) -> np.ndarray:
        """Returns stems [time, channel, stem] of one piece and its margins; the outermost half frames are faded."""
        n_samples, n_channels, n_stems = stems.shape
        mixed = self._spectra(mixture.T)  # [channel, frame, frequency]
        power = mixed.real**2 + mixed.imag**2 + np.float32(TINY)
        # The share of each stem in each channel, and of what the stems leave of the mixture, which is weighted, too.
        shares = np.empty((n_stems + 1, *mixed.shape), np.float32)
        for share, stem in zip(shares, stems.transpose(2, 1, 0)):
            spectra = self._spectra(stem)
            np.maximum(0, (spectra.real * mixed.real + spectra.imag * mixed.imag) / power, out=share)
        np.maximum(0, 1 - shares[:-1].sum(axis=0), out=shares[-1])
        shares /= shares.sum(axis=0)
        cells = self._cells(power)
        self._energies = self._energies + self._count(shares, power, cells)
        for share, weights in zip(shares, self._weights()):
            share *= weights[cells]
        shares /= shares.sum(axis=0)
        weighted = np.empty((n_samples, n_channels, n_stems), np.float32)
        for stem, share in enumerate(shares[:-1]):
            weighted[:, :, stem] = self._waveforms(share * mixed)[:, :n_samples].T
        return weighted

    def _cells(self, power: np.ndarray) -> np.ndarray:
        """Returns the cell of each [frame, frequency]: its band and position. All but stereo has one position."""
        position: np.ndarray | int = N_POSITIONS // 2
        if len(power) == 2:
            difference = 10 * np.log10(power[0] / power[1])
            scaled = (difference + WIDEST_DB) / (2 * WIDEST_DB) * N_POSITIONS
            position = np.clip(scaled, 0, N_POSITIONS - 1).astype(int)
        return np.broadcast_to(self._bands * N_POSITIONS + position, power.shape[1:])

    def _count(self, shares: np.ndarray, power: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Returns the energy of each stem in each cell, [stem, cell]."""
        inner = slice(1, -2)  # frames in the middle of the margins belong to other pieces
        numbers = cells[inner].ravel()
        energies = [(share * power).sum(axis=0)[inner].ravel() for share in shares]
        return np.stack([np.bincount(numbers, energy, N_BANDS * N_POSITIONS) for energy in energies])

    def _weights(self) -> np.ndarray:
        """Returns what each stem is weighted by in each cell, [stem, cell]."""
        energies = np.reshape(self._energies, (-1, N_BANDS, N_POSITIONS))
        all_stems = energies.sum(axis=0)
        of_song = (energies.sum(axis=(1, 2)) / all_stems.sum()).clip(LEAST_SHARE)[:, None]
        of_band = (energies.sum(axis=2) / (all_stems.sum(axis=1) + TINY)).clip(LEAST_SHARE)
        least = LEAST_ENERGY * all_stems.mean() + TINY
        of_cell = (energies + least * of_band[..., None]) / (all_stems + least)
        in_band = (of_cell / of_band[..., None]).clip(LEAST_SHARE) ** POSITION_EXPONENT
        weights = (of_band / of_song)[..., None] ** BAND_EXPONENT * in_band
        return weights.reshape(len(energies), -1).astype(np.float32)

    def _spectra(self, waveforms: np.ndarray) -> np.ndarray:
        """Returns complex64 [channel, frame, frequency] of float32 [channel, time], and of zeros to a whole frame."""
        missing = -waveforms.shape[1] % self._hop
        waveforms = np.ascontiguousarray(np.pad(waveforms, ((0, 0), (0, missing))))
        frames = np.lib.stride_tricks.sliding_window_view(waveforms, self._length, axis=1)[:, :: self._hop]
        return scipy.fft.rfft(frames * self._window)

    def _waveforms(self, spectra: np.ndarray) -> np.ndarray:
        """Returns float32 [channel, time] of [channel, frame, frequency]."""
        n_channels, n_frames, _ = spectra.shape
        frames = scipy.fft.irfft(spectra) * self._window
        waveforms = np.zeros((n_channels, n_frames + 1, self._hop), np.float32)
        waveforms[:, :-1] = frames[:, :, : self._hop]
        waveforms[:, 1:] += frames[:, :, self._hop :]
        return waveforms.reshape(n_channels, -1)


class _Buffer:
    """A stream of blocks [time, ...] from which pieces with margins are taken.

    Args:
        blocks: the stream.
        margin: number of samples before and after a piece, zeros at the ends of the stream.
    """

    def __init__(self, blocks: Iterable[np.ndarray], margin: int) -> None:
        self._blocks = iter(blocks)
        self._margin = margin
        self._held: list[np.ndarray] = []  # the margin before the next piece, and what follows
        self._n_new = 0  # samples held that no piece had yet

    def fill(self, n_samples: int) -> int:
        """Reads until `n_samples` more than the margin are held, or the stream ends; returns how many there are."""
        while self._n_new < n_samples and (block := next(self._blocks, None)) is not None:
            if not self._held:
                self._held.append(np.zeros((self._margin, *block.shape[1:]), np.float32))
            self._held.append(block)
            self._n_new += len(block)
        return self._n_new

    def take(self, n_samples: int) -> np.ndarray:
        """Returns the next `n_samples` with a margin on both sides."""
        held = np.concatenate(self._held)
        self._held = [held[n_samples:]]
        self._n_new -= n_samples
        piece = held[: n_samples + 2 * self._margin]
        missing = n_samples + 2 * self._margin - len(piece)
        return np.pad(piece, ((0, missing), *((0, 0),) * (piece.ndim - 1)))
