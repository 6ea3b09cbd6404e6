"""Draws random changes at each visit to a song, so that a model does not learn one rendering by heart.

A `Variation` sets the range of each draw; with its defaults nothing varies. `vary` changes the piece, `draw_effects`
and `draw_timbre` are for the synthesiser and `draw_gains` for the mix: stems still sum to the mixture. What changes
whole batches (remixing, dropped stems) is in `sourcesep.train.augmentation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_gen import midi, soundfont_file
from data_gen.instruments import Instrument, playable_pitches

DRUM_KITS = (0, 8, 16, 24, 25, 32, 40)  # General MIDI 2 / GS kits that most SoundFonts have


@dataclasses.dataclass(frozen=True)
class Variation:
    """Ranges of the random changes at each visit to a piece.

    Attributes:
        transpose: all melodic notes move by up to this many semitones, within the range of the instruments.
        tempo: the piece is played up to this share faster or slower.
        velocity: strength of a random curve on velocities: 127 (v / 127) ** g, with g from 1 / (1 + x) to 1 + x.
        presets: probability that an instrument plays on other ones of its programs than the piece asks for.
        reverb, chorus: probability that a visit has the effect, with a strength drawn for each instrument.
        timbre: probability, for each instrument, that its sound is changed in FluidSynth: see `draw_timbre`.
    """

    transpose: int = 0
    tempo: float = 0.0
    velocity: float = 0.0
    presets: float = 0.0
    reverb: float = 0.0
    chorus: float = 0.0
    timbre: float = 0.0


class Effects(NamedTuple):
    """Effects of one instrument. The sends are the values of MIDI controllers 91 and 93, from 0 (off) to 127."""

    reverb_send: int = 0
    reverb_room: float = 0.5  # 0 to 1
    chorus_send: int = 0


class Sound(NamedTuple):
    """What plays one instrument, and how.

    Attributes:
        font: number of the SoundFont.
        gain: linear, on all that it plays.
        generators: (number of a SoundFont generator, what is added to its value) of each note.
        shift: semitones by which keys are moved; a generator tunes them back, so that other samples are heard.
        layer: (number of a SoundFont, program) of a second preset that plays the same notes; None for none.
        seed: of the presets, where the SoundFont is computed (`procedural`).
    """

    font: int = 0
    gain: float = 1.0
    generators: tuple[tuple[int, float], ...] = ()
    shift: int = 0
    layer: tuple[int, int] | None = None
    seed: int = 0


def vary(
    piece: midi.Piece, instruments: Sequence[Instrument], variation: Variation, rng: np.random.Generator
) -> midi.Piece:
    """Returns a piece with random tempo, transposition, velocities and programs, as far as these are switched on."""
    if variation == Variation():
        return piece
    events = piece.events.copy()
    is_note = events["kind"] == midi.NOTE_ON
    duration_s = piece.duration_s
    if variation.tempo:
        stretch = 1.0 / rng.uniform(1.0 - variation.tempo, 1.0 + variation.tempo)
        events["time_s"] *= stretch
        events["end_s"] *= stretch
        duration_s *= stretch
    if variation.transpose:
        shift = _shift(events[is_note], instruments, variation.transpose, rng)
        # The keys of percussion are not pitches.
        is_pitched = np.isin(events["kind"], (midi.NOTE_ON, midi.NOTE_OFF, midi.KEY_PRESSURE))
        is_pitched &= ~midi.is_percussion(events)
        events["number"][is_pitched] = np.clip(events["number"][is_pitched].astype(np.int16) + shift, 0, 127)
    if variation.velocity:
        curve = (1.0 + variation.velocity) ** rng.uniform(-1.0, 1.0)
        velocities = np.round(127 * (events["value"][is_note] / 127) ** curve)
        events["value"][is_note] = np.clip(velocities, 1, 127)
    if variation.presets:
        for instrument in instruments:
            if rng.random() < variation.presets:
                _draw_presets(events, is_note, instrument, rng)
    return midi.Piece(piece.name, events, duration_s)


def draw_gains(n_stems: int, gain_db: float, rng: np.random.Generator) -> np.ndarray:
    """Returns linear gains, float32 [stem], drawn from -gain_db to gain_db."""
    return (10 ** (rng.uniform(-gain_db, gain_db, n_stems) / 20)).astype(np.float32)


def draw_places(n_stems: int, pan: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """Draws where stems of two channels sound from, and how wide.

    Args:
        n_stems: number of stems.
        pan: largest shift to one side, as a share of the way: at 1 a stem may come from one side alone.
        width: largest change of the difference of the channels, as a share of it.
        rng: draws both for each stem.

    Returns:
        float32 [stem, new channel, channel], a matrix for each stem. Its energy stays about the same.
    """
    angles = np.pi / 4 * (1 + rng.uniform(-pan, pan, n_stems))  # left is their cosine, right their sine
    widths = 1 + rng.uniform(-width, width, n_stems)
    same, across = (1 + widths) / 2, (1 - widths) / 2
    widened = np.array([[same, across], [across, same]])
    balance = np.sqrt(2) * np.array([np.cos(angles), np.sin(angles)])
    return (balance[:, None] * widened).transpose(2, 0, 1).astype(np.float32)


def draw_effects(n_instruments: int, variation: Variation, rng: np.random.Generator) -> tuple[Effects, ...]:
    """Returns the effects of each instrument, or () if this visit has none, which is faster to render."""
    has_reverb, has_chorus = rng.random(2) < (variation.reverb, variation.chorus)
    if not (has_reverb or has_chorus):
        return ()
    reverb_sends = rng.integers(0, 100, n_instruments) * has_reverb
    chorus_sends = rng.integers(0, 100, n_instruments) * has_chorus
    rooms = rng.uniform(0.2, 0.9, n_instruments)
    return tuple(map(Effects, reverb_sends.tolist(), rooms.tolist(), chorus_sends.tolist()))


def draw_timbre(
    sound: Sound, instrument: Instrument, notes: np.ndarray, layers: Sequence[int], rng: np.random.Generator
) -> Sound:
    """Returns a sound with random changes: filter, envelope, vibrato, tuning, formants, a second preset.

    Args:
        sound: what is changed.
        instrument: what it plays.
        notes: the NOTE_ON rows that it plays.
        layers: numbers of the SoundFonts from which a second preset may come; empty for none.
        rng: draws the changes.
    """
    generators: dict[int, float] = {
        soundfont_file.ATTACK: rng.uniform(-1_200, 2_400),  # timecents: half to four times as long
        soundfont_file.DECAY: rng.uniform(-1_200, 1_200),
        soundfont_file.RELEASE: rng.uniform(-1_200, 1_200),
        soundfont_file.FINE_TUNE: rng.uniform(-30, 30),
    }
    if rng.random() < 0.6:
        generators[soundfont_file.FILTER_HZ] = rng.uniform(-4_200, 0)  # cents: from 13,500, 20 kHz, down to 1.8 kHz
        generators[soundfont_file.RESONANCE] = rng.uniform(0, 80)  # tenths of a dB
    shift = 0
    if instrument.is_percussion:
        generators[soundfont_file.COARSE_TUNE] = rng.uniform(-3, 3)
    else:
        if rng.random() < 0.3:
            generators[soundfont_file.VIBRATO_CENTS] = rng.uniform(5, 30)
            generators[soundfont_file.VIBRATO_HZ] = rng.uniform(-1_200, 0)  # cents: from 8.2 Hz down to 4.1 Hz
        if rng.random() < 0.5:
            shift = _shift(notes, (instrument,), 4, rng)
            generators[soundfont_file.COARSE_TUNE] = -shift
    layer = None
    if len(layers) and rng.random() < 0.2:
        programs = DRUM_KITS if instrument.is_percussion else instrument.programs
        layer = (int(rng.choice(layers)), int(rng.choice(programs)))
    return sound._replace(
        generators=tuple(generators.items()),
        shift=shift,
        layer=layer,
        gain=sound.gain * (1.0 if layer is None else 0.5**0.5),  # two sounds have twice the power of one
    )


def _shift(notes: np.ndarray, instruments: Sequence[Instrument], most: int, rng: np.random.Generator) -> int:
    """Draws a shift in semitones that takes no instrument further out of its playable range than it is."""
    lowest, highest = -most, most
    for instrument in instruments:
        if instrument.is_percussion:
            continue
        mine = notes[instrument.owns(notes)]["number"]
        if len(mine):
            low, high = playable_pitches(instrument)
            lowest = max(lowest, min(0, low - int(mine.min())))
            highest = min(highest, max(0, high - int(mine.max())))
    return int(rng.integers(lowest, highest + 1))


def _draw_presets(events: np.ndarray, is_note: np.ndarray, instrument: Instrument, rng: np.random.Generator) -> None:
    """Replaces each program of an instrument by a random one of its own, by the same one wherever it occurs."""
    mine = is_note & instrument.owns(events)
    choices = DRUM_KITS if instrument.is_percussion else instrument.programs
    if not instrument.is_percussion:
        events["bank"][mine] = 0
    drawn = np.arange(256)
    programs = np.unique(events["program"][mine])
    drawn[programs] = rng.choice(choices, len(programs))
    events["program"][mine] = drawn[events["program"][mine]]
