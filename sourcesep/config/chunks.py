"""The settings that say how training chunks are cut from songs, and how they vary."""

from __future__ import annotations

import dataclasses
from typing import Any

from data_gen.effects import EffectChances
from data_gen.variation import Variation
from sourcesep.models.settings import setting


def _chance(what: str) -> Any:
    """Returns the setting of an effect's probability."""
    return setting(0.0, f"Probability, drawn at each visit to a song, that {what}, 0 to 1.", minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class ChunkSettings:
    """How chunks are cut from songs, and how they vary: a group of the fields of Config."""

    sample_rate: int = setting(44_100, "Sample rate of the model, in Hz.", minimum=8_000, maximum=96_000)
    channels: int = setting(
        1, "Channels of the model: 1, or 2 for one that hears left and right together.", minimum=1, maximum=2
    )
    chunk_ms: float = setting(100.0, "Length of a training chunk, in milliseconds.", minimum=1.0, maximum=60_000.0)
    context_ms: float = setting(
        0.0,
        "Length of the audio before and after a chunk that the model receives and the loss ignores, in milliseconds.",
        minimum=0.0,
        maximum=60_000.0,
    )
    chunks_per_piece: int = setting(50, "Largest number of chunks cut from a song at each visit to it.", minimum=1)
    keep_silent: float = setting(
        0.1, "Share of the chunks with a silent mixture that is kept, 0 to 1.", minimum=0.0, maximum=1.0
    )
    keep_solo: float = setting(
        0.1, "Share of the chunks with only one instrument that is kept, 0 to 1.", minimum=0.0, maximum=1.0
    )
    vary_gain_db: float = setting(
        3.0,
        "Largest change of the level of a stem, up or down, in dB; drawn for each stem at each visit to a song.",
        minimum=0.0,
        maximum=40.0,
    )
    vary_pan: float = setting(
        0.5,
        "With --channels=2, largest shift of a stem to one side, as a share of the way; drawn for each stem at each "
        "visit to a song.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_width: float = setting(
        0.5,
        "With --channels=2, largest change of the difference between the channels of a stem, as a share of it; "
        "likewise.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_transpose: int = setting(
        3,
        "Largest transposition, up or down, in semitones; drawn at each visit to a piece.",
        minimum=0,
        maximum=24,
    )
    vary_tempo: float = setting(
        0.1,
        "Largest change of tempo, faster or slower, as a share of it (0.1 is 10 %); drawn at each visit to a piece.",
        minimum=0.0,
        maximum=0.5,
    )
    vary_velocity: float = setting(
        0.3,
        "Strength x of the change of velocities: at each visit to a piece a velocity v becomes 127 (v/127)**g, with g "
        "drawn from 1/(1+x) to 1+x.",
        minimum=0.0,
    )
    vary_presets: float = setting(
        0.3,
        "Probability, for each instrument at each visit to a piece, that it plays with other programs of its own than "
        "those in the piece, 0 to 1.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_reverb: float = setting(
        0.2,
        "Probability that a visit to a piece has reverb, 0 to 1; its strength and room are drawn for each instrument.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_chorus: float = setting(
        0.1,
        "Probability that a visit to a piece has chorus, 0 to 1; its strength is drawn for each instrument.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_equaliser: float = _chance("a stem passes through random shelves and peaks of an equaliser")
    vary_compression: float = _chance("a stem passes through a compressor")
    vary_saturation: float = _chance("a stem is softly clipped")
    vary_room: float = _chance("a stem sounds in an artificial room")
    vary_bandwidth: float = _chance("a stem loses its highest or lowest frequencies")
    vary_codec: float = _chance("a stem is encoded as MP3 and decoded, which takes longer than all other effects")
    vary_noise: float = _chance("a stem has the noise of a microphone, 30 to 60 dB below it")
    vary_low_cut: float = _chance("all but drums and bass lose what is below 60 to 180 Hz, where a bass plays")
    vary_master: float = _chance("the mixture, and with it every stem, passes through an equaliser and a limiter")
    vary_timbre: float = setting(
        0.0,
        "Probability, for each instrument at each visit to a piece, that its sound is changed while it is played, 0 to "
        "1: filter, envelope, vibrato, tuning, formants, a second preset.",
        minimum=0.0,
        maximum=1.0,
    )
    remix: float = setting(
        0.0,
        "Probability that a chunk is replaced by a mix of stems from several others, 0 to 1. Keeps the model "
        "from memorising a small collection of MIDI files.",
        minimum=0.0,
        maximum=1.0,
    )
    drop: float = setting(
        0.0,
        "Probability that a stem is left out of the mixture of a chunk, 0 to 0.9. Gives more chunks with few "
        "instruments, and less leakage into the stems of instruments that do not play.",
        minimum=0.0,
        maximum=0.9,
        alias="drop_stems",
    )

    @property
    def variation(self) -> Variation:
        """What a source draws at each visit to a song."""
        return Variation(**{f.name: getattr(self, f"vary_{f.name}") for f in dataclasses.fields(Variation)})

    @property
    def effects(self) -> EffectChances:
        """How probable the effects on stems and mixtures are."""
        return EffectChances(**{f.name: getattr(self, f"vary_{f.name}") for f in dataclasses.fields(EffectChances)})

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk without context, in samples."""
        return max(1, round(self.sample_rate * self.chunk_ms / 1_000))

    @property
    def context_samples(self) -> int:
        """Length of the context on each side of a chunk, in samples."""
        return round(self.sample_rate * self.context_ms / 1_000)
