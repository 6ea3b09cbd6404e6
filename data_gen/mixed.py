"""Several sources as one: MIDI and recordings side by side, and solo recordings in the mixtures of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_gen.recorded import draw_speed
from data_gen.recorded_take import RecordedTake
from data_gen.stems import SILENCE_DBFS, StemSource, Take
from data_gen.variation import Variation
from data_gen.windows import StemFile

SOLO_SHARE = 0.5  # in a visit that is remixed, each instrument with solo recordings is played by one this often
MAX_GAIN = 10.0  # a solo recording is made louder by up to this factor

_LONGEST_GAP_S = 0.5  # of silence between two recordings that are shorter than the stretch
_SILENT_POWER = 10 ** (SILENCE_DBFS / 10)


class MixedStems:
    """A StemSource: songs of several sources. See `data_gen.stems.StemSource` for the methods.

    Songs that are loaded as they are come from the first source as long as it has some. Solo recordings only come into
    songs that are drawn: in a part of the visits, some stems are replaced by stretches of solo recordings of the same
    instrument, as loud as what they replace.

    Args:
        names: names of the stems. A stem that a source does not have is silent in its songs.
        sources: of one sample rate, with one channel.
        shares: how often each of them is drawn; they sum to 1.
        solos: recordings of one instrument alone, by its name.
        remix: probability that a visit has solo recordings.
        variation: gives the speed of solo recordings, see `recorded.draw_speed`.
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[StemSource],
        shares: Sequence[float],
        solos: Mapping[str, Sequence[StemFile]],
        remix: float,
        variation: Variation,
    ):
        self.names = tuple(names)
        self.sources = tuple(sources)
        self.sample_rate = sources[0].sample_rate
        self.n_channels = sources[0].n_channels
        self.shares = tuple(shares)
        self.solos = dict(solos)
        self.remix = remix
        self.variation = variation

    def size(self, split: str) -> int:
        """Returns the number of songs in a split."""
        return sum(source.size(split) for source in self.sources)

    def draw(self, split: str, rng: np.random.Generator) -> Take:
        """Returns a random song of a random source, perhaps with solo recordings in it."""
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        take: Take = _Aligned(source.draw(split, rng), source.names, self.names)
        if self.solos and rng.random() < self.remix:
            drawn = {self.names.index(name): files for name, files in self.solos.items() if rng.random() < SOLO_SHARE}
            take = _WithSolos(take, drawn, self.sample_rate, self.variation, int(rng.integers(2**32)))
        return take

    def load(self, split: str, index: int) -> Take:
        """Returns a song as it is."""
        for source in self.sources:
            if index < source.size(split):
                return _Aligned(source.load(split, index), source.names, self.names)
            index -= source.size(split)
        raise IndexError(index)

    def prepare(self) -> None:
        """Prepares all sources."""
        for source in self.sources:
            source.prepare()


class _Aligned:
    """A Take with the stems `names`, of one with the stems `given`, which are some of them."""

    def __init__(self, take: Take, given: Sequence[str], names: Sequence[str]):
        self.name, self.n_samples = take.name, take.n_samples
        self._take = take
        self._places = [names.index(name) for name in given]
        self._n_stems = len(names)

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Returns a stretch of every stem."""
        given = self._take.stems(start, n_samples)
        if self._places == list(range(self._n_stems)):
            return given
        stems = np.zeros((self._n_stems, *given.shape[1:]), np.float32)
        stems[self._places] = given
        return stems


class _WithSolos:
    """A Take some of whose stems are replaced by solo recordings.

    Args:
        take: the song.
        solos: recordings by number of the stem.
        sample_rate: of the song, in Hz.
        variation: gives the speed.
        seed: of what is drawn.
    """

    def __init__(
        self,
        take: Take,
        solos: Mapping[int, Sequence[StemFile]],
        sample_rate: int,
        variation: Variation,
        seed: int,
    ):
        self.name, self.n_samples = take.name, take.n_samples
        self._take, self._solos, self._rate, self._variation, self._seed = take, solos, sample_rate, variation, seed

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Returns a stretch of every stem; of solo recordings another one for each length."""
        rng = np.random.default_rng(self._seed)
        stems = np.array(self._take.stems(start, n_samples))
        powers = np.square(stems).mean(axis=(1, 2))
        sounding = powers[powers > _SILENT_POWER]
        usual = sounding.mean() if len(sounding) else 0.0
        for place, files in self._solos.items():
            solo = self._lay_out(files, n_samples, stems.shape[1], rng)
            power = np.square(solo).mean()
            wanted = powers[place] if powers[place] > _SILENT_POWER else usual
            if power > _SILENT_POWER and wanted:
                solo *= min(MAX_GAIN, np.sqrt(wanted / power))
            stems[place] = solo
        return stems

    def _lay_out(
        self, files: Sequence[StemFile], n_samples: int, n_channels: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Returns a stretch of a recording, or several short ones one after the other, float32 [channel, time]."""
        stretch = np.zeros((n_channels, n_samples), np.float32)
        position = 0
        while position < n_samples:
            file = files[int(rng.integers(len(files)))]
            take = RecordedTake(file.path, [(file,)], self._rate, n_channels, draw_speed(self._variation, rng))
            n_left = n_samples - position
            begin = int(rng.integers(take.n_samples - n_left + 1)) if take.n_samples > n_left else 0
            length = min(n_left, take.n_samples)
            stretch[:, position : position + length] = take.stems(begin, length)[0]
            position += length + int(rng.integers(round(_LONGEST_GAP_S * self._rate)))
        return stretch
