"""MIDI pieces played through SoundFonts: a source of stems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from data_gen import InputError
from data_gen.corpus import Corpus
from data_gen.instruments import Instrument
from data_gen.medley import combine
from data_gen.midi import Piece
from data_gen.soundfont_file import PROCEDURAL
from data_gen.soundfonts import Profile, match_levels, profile
from data_gen.synth import BLOCK_SAMPLES, Synthesizer
from data_gen.variation import Effects, Sound, Variation, draw_effects, draw_timbre, vary

_TRIES = 4  # pieces that are looked at for one that has an instrument


class PlayedStems:
    """A StemSource: pieces of MIDI, each instrument a stem. See `data_gen.stems.StemSource` for the methods.

    Each draw plays a random piece, with what `variation` changes. Of several SoundFonts one is drawn for each
    instrument, among those that have it, and brought to the level of the others.

    Args:
        corpus: the pieces.
        instruments: what sounds in the mixture, in the order of the stems. Nothing else is played.
        soundfonts: paths of SF2 or SF3 files; PROCEDURAL for presets that are computed, other ones for each visit.
        sample_rate: in Hz.
        variation: what is drawn for each visit to a piece.
        weights: how often each SoundFont is drawn, relative to the others; empty for equal shares.
        n_channels: 1 or 2, of the stems.
        remix_match: probability that instruments of a draw play from other pieces, see `medley`.
    """

    def __init__(
        self,
        corpus: Corpus,
        instruments: Sequence[Instrument],
        soundfonts: Sequence[str],
        sample_rate: int,
        variation: Variation = Variation(),  # noqa: B008 (it is immutable)
        weights: Sequence[float] = (),
        n_channels: int = 1,
        remix_match: float = 0.0,
    ):
        self.corpus = corpus
        self.instruments = tuple(instruments)
        self.names = tuple(instrument.name for instrument in instruments)
        self.soundfonts = tuple(soundfonts)
        self.weights = tuple(weights) or (1.0,) * len(self.soundfonts)
        self.sample_rate = sample_rate
        self.variation = variation
        self.n_channels = n_channels
        self.remix_match = remix_match
        self._choices: list[_Choice] = []  # of each instrument, where there are several SoundFonts
        self._synthesizers: dict[tuple[str, ...], Synthesizer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_synthesizers": {}}  # each process loads the SoundFonts itself

    def size(self, split: str) -> int:
        """Returns the number of pieces in a split."""
        return self.corpus.size(split)

    def draw(self, split: str, rng: np.random.Generator) -> PlayedTake:
        """Returns a random piece, varied, each instrument through a random SoundFont."""
        if not self.corpus.size(split):
            raise InputError(f"no piece in the {split} split: it takes about ten songs to have one")
        piece = self.corpus.load(split, self.corpus.draw(split, rng))
        if self.remix_match and rng.random() < self.remix_match:
            piece = self._remix(split, piece, rng)
        self.check()
        sounds = tuple(choice.draw(rng) for choice in self._choices)
        piece = vary(piece, self.instruments, self.variation, rng)
        effects = draw_effects(len(self.instruments), self.variation, rng)
        if self.variation.timbre:
            sounds = tuple(self._draw_timbres(piece, sounds, rng))
        return PlayedTake(piece, self._synthesizer(self.soundfonts), effects, sounds)

    def _remix(self, split: str, piece: Piece, rng: np.random.Generator) -> Piece:
        """Returns a piece in which half of the instruments, and those that it lacks, play from other pieces."""
        parts: dict[Instrument, Piece] = {}
        for instrument in self.instruments:
            if len(piece.notes_of(instrument)) and rng.random() < 0.5:
                continue
            for _ in range(_TRIES):
                other = self.corpus.load(split, self.corpus.draw(split, rng))
                if len(other.notes_of(instrument)):
                    parts[instrument] = other
                    break
        return combine(piece, parts, self.instruments, rng) if parts else piece

    def _draw_timbres(self, piece: Piece, sounds: Sequence[Sound], rng: np.random.Generator) -> Iterator[Sound]:
        for position, instrument in enumerate(self.instruments):
            sound = sounds[position] if sounds else Sound()
            if rng.random() < self.variation.timbre:
                is_computed = self.soundfonts[sound.font] == PROCEDURAL
                fonts = self._choices[position].fonts if sounds else (0,)
                layers = [font for font in fonts if self.soundfonts[font] != PROCEDURAL]
                notes = piece.notes_of(instrument)
                sound = draw_timbre(sound, instrument, notes, () if is_computed else layers, rng)
            yield sound

    def load(self, split: str, index: int) -> PlayedTake:
        """Returns piece number `index` of a split as it is, through the SoundFont that `play` takes."""
        return self.play(self.corpus.load(split, index))

    def play(self, piece: Piece) -> PlayedTake:
        """Returns a piece as it is, through the first SoundFont that has all instruments; without one, through all.

        Raises InputError if none of the instruments plays in it.
        """
        self.check()
        if not any(len(piece.notes_of(instrument)) for instrument in self.instruments):
            raise InputError(f"{piece.name}: none of the instruments plays in it ({', '.join(self.names)})")
        whole = [
            soundfont
            for number, soundfont in enumerate(self.soundfonts)
            if all(number in choice.fonts for choice in self._choices)
        ]
        return PlayedTake(piece, self._synthesizer(tuple(whole[:1]) or self.soundfonts))

    def check(self) -> None:
        """Finds out which SoundFonts can be used, and measures those that were never used before.

        One that cannot is logged and left out. Nothing is kept in memory but the first SoundFont.

        Raises InputError if one is missing, or none can be used.
        """
        if len(self.soundfonts) < 2 and self.soundfonts != (PROCEDURAL,):
            self._synthesizer(self.soundfonts)
            return
        if self._choices:
            return
        usable: list[tuple[str, float, Profile]] = []
        damaged: list[InputError] = []
        for soundfont, weight in zip(self.soundfonts, self.weights):
            if soundfont != PROCEDURAL and not os.path.isfile(soundfont):
                raise InputError(f"no such SoundFont: {soundfont}")
            try:
                usable.append((soundfont, weight, profile(soundfont)))
            except InputError as error:
                damaged.append(error)
        if not usable:
            raise damaged[0]
        for reason in damaged:
            logging.warning("%s; going on without it", reason)
        paths, self.weights, profiles = zip(*usable)
        self.soundfonts = paths
        if len(paths) > 1 or paths == (PROCEDURAL,):
            self._choices = [_Choice.of(instrument, self.weights, profiles, paths) for instrument in self.instruments]

    def prepare(self) -> None:
        """Loads the SoundFonts. Damaged ones are logged and no longer used.

        Raises InputError if one is missing, or none can be used.
        """
        self.check()
        self._synthesizer(self.soundfonts)

    def _synthesizer(self, soundfonts: tuple[str, ...]) -> Synthesizer:
        if soundfonts not in self._synthesizers:
            self._synthesizers[soundfonts] = Synthesizer(
                soundfonts, self.instruments, self.sample_rate, self.n_channels
            )
        return self._synthesizers[soundfonts]


class _Choice(NamedTuple):
    """Which SoundFonts an instrument is drawn from: their numbers, cumulated shares, gains in dB; which is computed."""

    fonts: tuple[int, ...]
    until: tuple[float, ...]
    gains_db: tuple[float, ...]
    computed: int | None

    @classmethod
    def of(
        cls, instrument: Instrument, weights: Sequence[float], profiles: Sequence[Profile], names: Sequence[str]
    ) -> _Choice:
        """Raises InputError if no SoundFont has the instrument."""
        fonts = tuple(number for number, one in enumerate(profiles) if one.plays(instrument))
        if not fonts:
            raise InputError(f"{', '.join(names)}: none of these SoundFonts has a preset for {instrument.name}")
        shares = np.cumsum([weights[font] for font in fonts])
        gains_db = match_levels([profiles[font] for font in fonts], instrument)
        computed = [place for place, font in enumerate(fonts) if names[font] == PROCEDURAL]
        return cls(fonts, tuple((shares / shares[-1]).tolist()), tuple(gains_db), computed[0] if computed else None)

    def draw(self, rng: np.random.Generator) -> Sound:
        """Draws one of the SoundFonts."""
        place = int(np.searchsorted(self.until, rng.random(), side="right"))
        sound = Sound(font=self.fonts[place], gain=float(10 ** (self.gains_db[place] / 20)))
        return sound._replace(seed=int(rng.integers(2**31))) if place == self.computed else sound


class PlayedTake:
    """A Take: one piece through the SoundFonts of a synthesiser. See `data_gen.stems.Take`."""

    def __init__(
        self,
        piece: Piece,
        synthesizer: Synthesizer,
        effects: tuple[Effects, ...] = (),
        sounds: tuple[Sound, ...] = (),
    ):
        self.name = piece.name
        self.n_samples = int(piece.duration_s * synthesizer.sample_rate)
        self._piece, self._synthesizer, self._effects, self._sounds = piece, synthesizer, effects, sounds

    def stems(self, start: int, n_samples: int) -> np.ndarray:
        """Plays a stretch; float32 [instrument, channel, time]."""
        n_before = min(n_samples, max(0, -start))  # samples of silence before the piece
        offset = max(0, start) % BLOCK_SAMPLES  # the synthesiser starts at whole blocks
        n_played = n_samples - n_before + offset
        stems = self._synthesizer.render(self._piece, max(0, start), n_played, self._effects, self._sounds)[offset:]
        stems = stems[:, :, None] if stems.ndim == 2 else stems  # [time, instrument, channel]
        stems = np.pad(stems, ((n_before, 0), (0, 0), (0, 0))) if n_before else stems
        return stems.transpose(1, 2, 0)
