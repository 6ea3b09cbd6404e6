"""Config: one frozen dataclass holds everything that defines a run. Its fields make the flags and the saved JSON.

Nothing here imports TensorFlow, so that a command checks its flags at once and render processes start fast.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from data_gen import InputError
from data_gen.effects import EffectChances
from data_gen.files import expand
from data_gen.instruments import CANDIDATES, name_of
from data_gen.soundfont_file import PROCEDURAL
from data_gen.stems import OTHER
from data_gen.variation import Variation
from sourcesep.loss_terms import TERMS, check_loss, describe_terms, parse_loss
from sourcesep.models import MODELS, make_settings, models_with, settings_class, takes_channels, takes_condition
from sourcesep.models.settings import as_flag, check_limits, define_flag, from_flag, setting, setting_fields

STEPS = 1_500  # training steps of the original report


def _conditioned_models() -> list[str]:
    return [model for model in MODELS if takes_condition(model)]


def _chance(what: str) -> Any:
    """Returns the setting of an effect's probability."""
    return setting(0.0, f"Probability, drawn at each visit to a song, that {what}, 0 to 1.", minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines a run. The defaults are the original report's experiment on varied data.

    Lists are tuples here and comma-separated flags on the command line. `targets` is never empty: if it is not given,
    it names all instruments. `network` holds the settings of the model; if it is not given, they are the model's
    defaults. `Config.from_values` takes fields and settings of the model alike, by the names of their flags.

    Raises InputError for names, values and combinations that are not allowed.
    """

    model: str = setting("wavenet", f"Model to train: {', '.join(MODELS)}.")
    instruments: tuple[str, ...] = setting(
        ("drums", "piano", "strings", "bass"),
        f"Instruments that sound in the mixture, separated by commas: {', '.join(CANDIDATES)}, or any other as "
        "NAME:PROGRAMS with General MIDI programs from 0, e.g. choir:52-54.",
    )
    targets: tuple[str, ...] = setting((), "Instruments to separate, separated by commas; empty for all instruments.")
    other: bool = setting(
        False, "Adds one more stem, named other: the sum of all instruments that are not in --targets."
    )
    conditioning: str = setting(
        "none",
        "What the model receives in addition to the mixture: binary, which instruments are present; embedding, which "
        f"one to extract (the model runs once for each). For the models {' and '.join(_conditioned_models())}.",
        choices=("none", "binary", "embedding"),
    )
    blind: bool = setting(False, "separate.py detects which instruments are present and writes only their stems.")
    consistent: bool = setting(
        False,
        "Adds a last layer that corrects the stems so that they sum to the mixture; needs all instruments as "
        "--targets, or --other.",
    )
    midi_dir: str = setting(
        "",
        "Folders of MIDI files to train on, read recursively, separated by commas, each with a weight if you like, as "
        "in songs,quartets:0.5, which says how often each of its songs is played. Empty for composed pieces.",
    )
    composed_share: float = setting(
        0.0,
        "Share of the visits to pieces that play composed ones, where --midi_dir is given, 0 to 1.",
        minimum=0.0,
        maximum=1.0,
    )
    remix_match: float = setting(
        0.0,
        "Probability that instruments of a visit play from other pieces, matched in tempo and key, 0 to 1. Makes bands "
        "of folders that hold one kind of instrument each; these need --require=any.",
        minimum=0.0,
        maximum=1.0,
    )
    stems_dir: tuple[str, ...] = setting(
        (),
        "Folders of recorded songs to train on, separated by commas, in place of MIDI or beside it (--midi_share): a "
        "folder per song with a file per stem (drums.wav, ...), or the layout of MUSDB18, Slakh2100 or MoisesDB.",
    )
    midi_share: float = setting(
        -1.0,
        "Share of the visits that play MIDI (composed pieces without --midi_dir) where --stems_dir is given, 0 to 1; "
        "-1 for 0.5 with --midi_dir, and 0 without.",
        minimum=-1.0,
        maximum=1.0,
    )
    solo_dir: tuple[str, ...] = setting(
        (),
        "Folders of recordings of one instrument alone, as INSTRUMENT:FOLDER, separated by commas: --remix puts them "
        "into mixtures. other:FOLDER is for sounds that shall not end up in a stem, such as voices and noises.",
    )
    stem_aliases: tuple[str, ...] = setting(
        (),
        "More names of stems in --stems_dir, as INSTRUMENT:NAME+NAME, separated by commas, e.g. "
        "guitar:gtr+rhythm_guitar; docs/training.md lists those that are known.",
        alias="stem_names",
    )
    require: str = setting(
        "all",
        "Which songs are used: those that contain all of the instruments, or those that contain any of them.",
        choices=("all", "any"),
    )
    soundfonts: tuple[str, ...] = setting(
        (),
        "SoundFonts (SF2, SF3) to play the pieces with, separated by commas: files, folders or patterns, each with a "
        "weight if you like, as in fonts/,drums.sf2:0.5; or the word procedural, for sounds that are computed, other "
        "ones each time. At each visit to a piece one is drawn for each instrument, "
        "among those that have it. Empty for FluidR3_GM.sf2 if it is installed, else TimGM6mb.sf2, which pretty_midi "
        "contains.",
    )
    validate_soundfonts: tuple[str, ...] = setting(
        (),
        "SoundFonts that training does not hear, separated by commas; the best weights are then chosen by how well the "
        "model separates held-out songs that are played through them. Empty for the first of --soundfonts.",
    )
    validate_stems_dir: tuple[str, ...] = setting(
        (),
        "Folders of recorded songs, in the layouts of --stems_dir, by which the best weights are chosen, beside or in "
        "place of --validate_soundfonts. They are not trained on.",
    )
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
        "Probability that a chunk is replaced by a mix of stems from several chunks of its batch, 0 to 1. Keeps the "
        "model from memorising a small collection of MIDI files.",
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
    pool_chunks: int = setting(
        1_000, "Number of chunks in the pool from which batches are drawn.", minimum=1, may_change=True
    )
    reuse: str = setting(
        "auto",
        "How often each chunk is used; auto raises it up to 3 while training waits for data, and lowers it again.",
        choices=("auto", "1", "2", "3"),
        may_change=True,
        alias="chunk_reuse",
    )
    render: str = setting(
        "processes",
        "Where chunks are rendered: processes, on this machine; ray, by Ray Data on the machines of a Ray cluster.",
        choices=("processes", "ray"),
        may_change=True,
    )
    workers: int = setting(
        -1,
        "Number of processes that render chunks; 0 renders in the training process, -1 uses one less than there are "
        "processor cores.",
        may_change=True,
    )
    strategy: str = setting(
        "auto",
        "Devices to train on: one; mirrored, all GPUs of this machine; multi_worker, the machines in TF_CONFIG; auto, "
        "multi_worker if TF_CONFIG is set, else mirrored if there are several GPUs, else one.",
        choices=("auto", "one", "mirrored", "multi_worker"),
        may_change=True,
    )
    batch_size: int = setting(12, "Number of chunks in a batch, on each device.", minimum=1)
    learning_rate: float = setting(1e-4, "Learning rate of Adam.", minimum=0.0, may_change=True)
    schedule: str = setting(
        "constant",
        "Learning rate over the training: constant, or cosine, which rises from zero during the first twentieth of the "
        "steps or minutes and then falls to zero along half a cosine.",
        choices=("constant", "cosine"),
    )
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay (AdamW): each step multiplies kernels by 1 - learning_rate * weight_decay. 0 disables "
        "it.",
        minimum=0.0,
    )
    clip_norm: float = setting(
        0.0,
        "Largest global norm of the gradients; larger gradients are scaled down to it. 0 disables it.",
        minimum=0.0,
        may_change=True,
    )
    average: float = setting(
        0.0,
        "Decay of a running average of the weights, e.g. 0.999; the average is then what is validated and saved. 0 "
        "disables it.",
        minimum=0.0,
        maximum=0.99999,
        alias="average_weights",
    )
    steps: int = setting(
        -1,
        f"Number of training steps, including those before a resume; -1 for {STEPS:,}, or as many as --minutes allows; "
        "0 is a dry run, which makes a few steps, writes nothing and prints what to expect.",
        minimum=-1,
        may_change=True,
    )
    minutes: float = setting(
        0.0,
        "Minutes of training, including those before a resume, after which training ends even if --steps are not "
        "reached; the first step, which compiles, and the last validation are not counted. 0 sets no limit.",
        minimum=0.0,
        may_change=True,
    )
    validate_every: int = setting(
        500,
        "Number of steps between validations, each of which scores the model on held-out songs; the best weights are "
        "kept. 0 disables validation and keeps the last weights.",
        minimum=0,
        may_change=True,
    )
    patience: int = setting(
        0,
        "Number of validations in a row without a new best after which training ends; 0 disables it.",
        minimum=0,
        may_change=True,
    )
    checkpoint_minutes: float = setting(
        5.0,
        "Time between checkpoints, in minutes: at most this much training is lost in a crash.",
        minimum=0.0,
        may_change=True,
    )
    loss: str = setting("mae", f"Loss: a sum of weighted terms such as mae+0.5*spectrogram. Terms: {describe_terms()}.")
    start_from: str = setting(
        "",
        "Run directory to copy initial weights from, for every layer with the same name and shapes; pretrained copies "
        "them from the model in the package.",
    )
    seed: int = setting(0, "Seed of all random numbers: songs, chunks, initial weights.", minimum=0)
    mixed_precision: str = setting(
        "auto",
        "Number format of the layers in training; auto is bfloat16 if the processor or GPU supports it, else float32.",
        choices=("auto", "bfloat16", "float32"),
        may_change=True,
    )
    network: Any = None  # the Settings of the model; without a flag of its own

    def __post_init__(self) -> None:
        check_limits(self)
        if self.network is None:
            object.__setattr__(self, "network", make_settings(self.model, {}))
        if type(self.network) is not settings_class(self.model):
            raise InputError(
                f"network: settings of another model than {self.model}; use Config.from_values to change the model"
            )
        self._check_names()
        object.__setattr__(self, "targets", self.targets or self.instrument_names)
        self._check_combinations()

    def _check_names(self) -> None:
        """Raises InputError for names of instruments and targets that cannot be used."""
        names = self.instrument_names
        if not names:
            raise InputError("--instruments: name at least one instrument")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"--instruments: {name!r} is named twice")
        for target in self.targets:
            if target not in names:
                raise InputError(f"--targets: {target!r} is not among the instruments ({', '.join(names)})")
            if self.targets.count(target) > 1:
                raise InputError(f"--targets: {target!r} is named twice")

    def _check_recordings(self) -> None:
        """Raises InputError for recordings that contradict other settings."""
        for name in (name for name, _ in self.solo_folders if name not in (*self.instrument_names, OTHER)):
            raise InputError(f"--solo_dir: {name!r} is not among the instruments ({', '.join(self.instrument_names)})")
        for name in (name for name in self.more_stem_names if name not in self.instrument_names):
            raise InputError(
                f"--stem_names: {name!r} is not among the instruments ({', '.join(self.instrument_names)})"
            )
        if self.solo_dir and not self.remix:
            raise InputError("--solo_dir: remixing puts solo recordings into mixtures; set e.g. --remix=0.5")
        if self.midi_share != -1 and not self.stems_dir:
            raise InputError(f"--midi_share={self.midi_share:g}: needs --stems_dir, with which MIDI shares the visits")
        if -1 < self.midi_share < 0:
            raise InputError(f"--midi_share={self.midi_share:g}: it must be from 0 to 1, or -1")
        if self.midi_dir and not self.played_share:
            raise InputError(f"--midi_dir={self.midi_dir}: --midi_share=0 leaves it unused; leave out one of them")

    def _check_combinations(self) -> None:
        """Raises InputError, by the name of the flag, for flags that contradict each other."""
        if self.patience and not self.validate_every:
            raise InputError(f"--patience={self.patience} counts validations: set --validate_every as well")
        self._check_recordings()
        if self.other and not self.has_rest and not self.stems_dir:
            raise InputError("--other: every instrument is a target, nothing is left over; name fewer --targets")
        if self.other and OTHER in self.instrument_names:
            raise InputError(f"--other: an instrument is called {OTHER!r} already; rename it")
        if self.conditioning != "none" and not takes_condition(self.model):
            raise InputError(
                f"--conditioning={self.conditioning}: --model={self.model} takes no condition; "
                f"{', '.join(_conditioned_models())} can"
            )
        if self.blind and self.conditioning != "none":
            raise InputError(
                f"--blind contradicts --conditioning={self.conditioning}, which states which instruments are present"
            )
        if self.blind and self.require != "any":
            raise InputError(
                "--blind needs --require=any, so that the model is trained on pieces without an instrument"
            )
        if self.channels > 1 and not takes_channels(self.model):
            raise InputError(
                f"--channels={self.channels}: --model={self.model} has one channel; "
                f"{', '.join(filter(takes_channels, MODELS))} can"
            )
        if self.channels > 1 and (self.conditioning != "none" or self.consistent):
            raise InputError(f"--channels={self.channels}: not together with --conditioning or --consistent")
        if self.consistent:
            self.require_whole_mixture("consistent", "--noconsistent")
        check_loss(self.loss, len(self.model_stems), self.chunk_samples)
        for term in parse_loss(self.loss):
            if TERMS[term].uses_mixture:
                self.require_whole_mixture(f"loss={self.loss}", f"a loss without {term}")
        self.network.check(self)

    def require_whole_mixture(self, flag: str, instead: str) -> None:
        """Raises InputError unless the stems that the model gives sum to the mixture.

        Args:
            flag: the flag that needs it, without dashes.
            instead: what to use where they do not.
        """
        if self.has_rest and not self.other:
            raise InputError(
                f"--{flag}: the stems of these --targets do not make up the mixture; add --other, or use {instead}"
            )
        if len(self.model_stems) < 2:
            raise InputError(f"--{flag}: the model gives one stem at a time, nothing to sum; use {instead}")

    @property
    def has_rest(self) -> bool:
        """Whether something sounds in the mixture that is not a target."""
        return len(self.targets) < len(self.instrument_names) or OTHER in dict(self.solo_folders)

    @property
    def stems_make_up_mixture(self) -> bool:
        """Whether the model gives several stems at once, and they sum to the mixture."""
        return len(self.model_stems) > 1 and (self.other or not self.has_rest)

    @property
    def instrument_names(self) -> tuple[str, ...]:
        """Names of the instruments that sound in the mixture."""
        return tuple(name_of(text) for text in self.instruments)

    @property
    def stem_names(self) -> tuple[str, ...]:
        """Names of the stems, in order: the targets, and "other" with --other."""
        return (*self.targets, OTHER) if self.other else self.targets

    @property
    def model_stems(self) -> tuple[str, ...]:
        """Names of the stems that the model gives at once: `stem_names`, or with an embedding only the one wanted."""
        return ("wanted",) if self.conditioning == "embedding" else self.stem_names

    @property
    def solo_folders(self) -> tuple[tuple[str, str], ...]:
        """(instrument, folder) of each of `solo_dir`."""
        return tuple(_split_pair(text, "solo_dir", "INSTRUMENT:FOLDER") for text in self.solo_dir)

    @property
    def more_stem_names(self) -> dict[str, tuple[str, ...]]:
        """The names in `stem_aliases`, by instrument."""
        pairs = [_split_pair(text, "stem_names", "INSTRUMENT:NAME+NAME") for text in self.stem_aliases]
        return {
            name: tuple(more for other, names in pairs if other == name for more in names.split("+"))
            for name, _ in pairs
        }

    @property
    def played_share(self) -> float:
        """Share of the visits that play MIDI, with the default resolved."""
        if not self.stems_dir:
            return 1.0
        return self.midi_share if self.midi_share >= 0 else 0.5 if self.midi_dir else 0.0

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

    @property
    def max_steps(self) -> float:
        """Number of steps after which training ends, with the default resolved; infinite if only time bounds it."""
        default = math.inf if self.minutes else STEPS
        return default if self.steps < 0 else self.steps

    @property
    def n_workers(self) -> int:
        """Number of render processes, with the default resolved."""
        return max(1, (os.cpu_count() or 2) - 1) if self.workers < 0 else self.workers

    def setting_fields(self) -> dict[str, dataclasses.Field]:
        """Returns all fields that have a flag, by the flag's name: those of Config and the settings of the model."""
        return {**setting_fields(self), **setting_fields(self.network)}

    def values(self) -> dict[str, Any]:
        """Returns the values of `setting_fields`, by the flag's name."""
        common = {name: getattr(self, name) for name in setting_fields(self)}
        return {**common, **{name: getattr(self.network, name) for name in setting_fields(self.network)}}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Config:
        """Returns the Config with these values, by the flag's name; the inverse of `values`.

        Args:
            values: fields of Config and settings of the model; what is left out has its default.

        Raises InputError as Config does, and for a setting that the model does not have.
        """
        common = {name: value for name, value in values.items() if name in setting_fields(cls)}
        own = {name: value for name, value in values.items() if name not in common}
        return cls(**common, network=make_settings(values.get("model", cls.model), own))

    def to_json(self) -> str:
        """Returns `values` as a JSON object."""
        return json.dumps(self.values(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Returns the Config of a JSON object; the inverse of `to_json`.

        Settings of other models are ignored: files of earlier versions hold those of all models.

        Raises ValueError (InputError is one) for any other text, and for values that do not exist here.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        unknown = sorted(name for name in values if name not in setting_fields(cls) and not models_with(name))
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}, which this version does not know")
        return cls.from_values(
            without_foreign_settings(
                {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            )
        )

    @classmethod
    def from_flags(cls, flag_values: flags.FlagValues = flags.FLAGS, model: str | None = None) -> Config:
        """Returns the Config that the parsed absl flags give.

        Args:
            flag_values: the parsed flags, from `define_flags`.
            model: a model to use in place of that of --model; settings that it does not have are then ignored.

        Raises InputError as `from_values` does.
        """
        values = {name: from_flag(field, flag_values[name].value) for name, field in setting_fields(cls).items()}
        for name, fields in _fields_of_models().items():
            if flag_values[name].value is not None:  # unset stands for the default of the model
                values[name] = from_flag(next(iter(fields.values())), flag_values[name].value)
        for name in PATH_SETTINGS:  # absolute, since a run is also used from other folders
            if name in values:
                values[name] = expand_setting(name, values[name])
        return cls.from_values(without_foreign_settings({**values, "model": model}) if model else values)


# Settings that are paths, or lists of them.
PATH_SETTINGS = ("midi_dir", "soundfonts", "validate_soundfonts", "stems_dir", "validate_stems_dir", "solo_dir")


def expand_setting(name: str, paths: Any) -> Any:
    """Returns one of PATH_SETTINGS, or a list as a tuple, with absolute paths and the home folder in place of ~."""
    if name == "solo_dir":
        return tuple(f"{instrument}:{expand(folder)}" for instrument, _, folder in (p.partition(":") for p in paths))
    if name == "midi_dir" and not os.path.isdir(paths):
        return ",".join(map(expand, paths.split(",")))
    if name == "soundfonts":
        return tuple(path if path.partition(":")[0] == PROCEDURAL else expand(path) for path in paths)
    return expand(paths) if isinstance(paths, str) else tuple(map(expand, paths))


def _split_pair(text: str, flag: str, syntax: str) -> tuple[str, str]:
    """Returns (instrument, what follows the colon). Raises InputError if one of them is missing."""
    name, _, rest = text.partition(":")
    if not name or not rest:
        raise InputError(f"--{flag}={text}: write {syntax}")
    return name, rest


def without_foreign_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values without the settings that only other models than `values["model"]` have."""
    own = setting_fields(settings_class(values.get("model", Config.model)))
    return {name: value for name, value in values.items() if name in own or not models_with(name)}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each field of Config and for each setting of a model.

    Models may share a setting, so its flag has no default: unset stands for the default of the model. Its help names
    the models that have it, and their defaults.
    """
    for field in setting_fields(Config).values():
        define_flag(field, field.default, field.metadata["help"], flag_values)
    for fields in _fields_of_models().values():
        models_by_help: dict[str, list[str]] = {}
        for model, field in fields.items():
            help_text = f"{field.metadata['help']} Default: {as_flag(field.default)}."
            models_by_help.setdefault(help_text, []).append(model)
        help_text = " ".join(f"{', '.join(models)}: {text}" for text, models in models_by_help.items())
        define_flag(next(iter(fields.values())), None, help_text, flag_values)


def _fields_of_models() -> dict[str, dict[str, dataclasses.Field]]:
    """Returns the fields of all settings of models: by the name of the setting, then by that of the model."""
    fields: dict[str, dict[str, dataclasses.Field]] = {}
    for model in MODELS:
        for name, field in setting_fields(settings_class(model)).items():
            fields.setdefault(name, {})[model] = field
    return fields
