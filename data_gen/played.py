"""MIDI pieces played through SoundFonts: a source of stems."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.corpus import Corpus
from data_gen.instruments import Instrument
from data_gen.midi import Piece
from data_gen.synth import BLOCK_SAMPLES, Synthesizer
from data_gen.variation import Effects, Variation, draw_effects, vary


class PlayedStems:
    """A StemSource: pieces of MIDI, each instrument a stem. See `data_gen.stems.StemSource` for the methods.

    Each draw plays a random piece through one of the SoundFonts, with what `variation` changes.

    Args:
        corpus: the pieces.
        instruments: what sounds in the mixture, in the order of the stems. Nothing else is played.
        soundfonts: paths of SF2 or SF3 files.
        sample_rate: in Hz.
        variation: what is drawn for each visit to a piece.
    """

    n_channels = 1

    def __init__(
        self,
        corpus: Corpus,
        instruments: Sequence[Instrument],
        soundfonts: Sequence[str],
        sample_rate: int,
        variation: Variation = Variation(),  # noqa: B008 (it is immutable)
    ):
        self.corpus = corpus
        self.instruments = tuple(instruments)
        self.names = tuple(instrument.name for instrument in instruments)
        self.soundfonts = tuple(soundfonts)
        self.sample_rate = sample_rate
        self.variation = variation
        self._synthesizers: dict[str, Synthesizer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_synthesizers": {}}  # each process loads the SoundFonts itself

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""
        return self.corpus.size(split)

    def draw(self, split: str, rng: np.random.Generator) -> PlayedTake:
        """Returns a random piece, varied, through a random SoundFont."""
        n_pieces = self.corpus.size(split)
        if not n_pieces:
            raise InputError(f"no piece in the {split} split: it takes about ten songs to have one")
        piece = self.corpus.load(split, int(rng.integers(n_pieces)))
        synthesizer = self._synthesizer(self.soundfonts[rng.integers(len(self.soundfonts))])
        piece = vary(piece, self.instruments, self.variation, rng)
        return PlayedTake(piece, synthesizer, draw_effects(len(self.instruments), self.variation, rng))

    def load(self, split: str, index: int) -> PlayedTake:
        """Returns piece number `index` of a split as it is, through the first SoundFont."""
        return self.play(self.corpus.load(split, index))

    def play(self, piece: Piece) -> PlayedTake:
        """Returns a piece as it is, through the first SoundFont.

        Raises InputError if none of the instruments plays in it.
        """
        if not any(len(piece.notes_of(instrument)) for instrument in self.instruments):
            raise InputError(f"{piece.name}: none of the instruments plays in it ({', '.join(self.names)})")
        return PlayedTake(piece, self._synthesizer(self.soundfonts[0]))

    def prepare(self) -> None:
        """Loads the SoundFonts. Damaged ones are logged and no longer used.

        Raises InputError if one is missing, or none can be used.
        """
        usable: list[str] = []
        damaged: list[InputError] = []
        for soundfont in self.soundfonts:
            if not os.path.isfile(soundfont):
                raise InputError(f"no such SoundFont: {soundfont}")
            try:
                self._synthesizer(soundfont)
                usable.append(soundfont)
            except InputError as error:
                damaged.append(error)
        if not usable:
            raise damaged[0]
        for reason in damaged:
            logging.warning("%s; going on without it", reason)
        self.soundfonts = tuple(usable)

    def _synthesizer(self, soundfont: str) -> Synthesizer:
        if soundfont not in self._synthesizers:
            self._synthesizers[soundfont] = Synthesizer(soundfont, self.instruments, self.sample_rate)
        return self._synthesizers[soundfont]


class PlayedTake:
    """A Take: one piece through one SoundFont. See `data_gen.stems.Take`."""

    def __init__(self, piece: Piece, synthesizer: Synthesizer, effects: tuple[Effects, ...] = ()):
        self.name = piece.name
        self.n_samples = int(piece.duration_s * synthesizer.sample_rate)
        self._piece, self._synthesizer, self._effects = piece, synthesizer, effects

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Plays a stretch; float32 [instrument, 1, time]."""
        n_before = min(n_samples, max(0, -start))  # samples of silence before the piece
        offset = max(0, start) % BLOCK_SAMPLES  # the synthesiser starts at whole blocks
        n_played = n_samples - n_before + offset
        stems = self._synthesizer.render(self._piece, max(0, start), n_played, self._effects)[offset:]
        stems = np.pad(stems, ((n_before, 0), (0, 0))) if n_before else stems
        return stems.T[:, None]  # [time, instrument] to [instrument, 1, time]
