"""One frozen dataclass holds everything that defines a run: its fields make the flags and the saved JSON.

Nothing here imports TensorFlow, so that a command checks its flags at once and render processes start fast.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any

from absl import flags

from data_gen import InputError
from data_gen.instruments import CANDIDATES, OTHER, Instrument, choose, parse_instruments
from data_gen.variation import Variation
from sourcesep.models import CONDITIONED, MODELS

STEPS = 1_500  # training steps of the original report


def _flag(default: Any, help_text: str, **limits) -> Any:
    """A field with the help of its flag; limits are `minimum`, `maximum` and `choices`."""
    return dataclasses.field(default=default, metadata={"help": help_text, **limits})


@dataclasses.dataclass(frozen=True)
class Config:
    """What defines a run. The defaults are the original report's experiment on varied data.

    Lists are tuples here and comma-separated flags on the command line. `targets` is never empty: where it is not
    given it names all instruments.

    Raises InputError for instruments, targets or a model that do not exist, and for limits that are not kept.
    """

    model: str = _flag("wavenet", f"Model to train: {', '.join(MODELS)}.")
    instruments: tuple[str, ...] = _flag(
        ("drums", "piano", "strings", "bass"),
        f"Instruments that sound in the mixture: {', '.join(CANDIDATES)}, or any other as NAME:PROGRAMS with General "
        "MIDI programs from 0, e.g. choir:52-54.",
    )
    targets: tuple[str, ...] = _flag((), "Instruments to separate; empty for all of --instruments.")
    other: bool = _flag(False, "The sum of all instruments that are no targets is one more stem, named other.")
    conditioning: str = _flag(
        "none",
        "What the model is told beside the mixture: binary, which instruments are present; embedding, which one to "
        f"extract, and it runs once for each; for {' and '.join(CONDITIONED)}.",
        choices=("none", "binary", "embedding"),
    )
    blind: bool = _flag(
        False, "Of all its outputs separate.py finds out which the recording holds, and writes those alone."
    )
    consistent: bool = _flag(
        False, "The model's last layer corrects the stems so that they sum to the mixture; needs all stems."
    )
    midi_dir: str = _flag("", "Folder of MIDI files to train on, read recursively; empty for composed pieces.")
    require: str = _flag(
        "all",
        "Whether a piece must hold all of the instruments or any of them to be used.",
        choices=("all", "any"),
    )
    soundfonts: tuple[str, ...] = _flag(
        (),
        "SoundFonts (SF2, SF3) to play through, one drawn per visit to a piece; empty for FluidR3_GM.sf2 if it is "
        "installed, else the TimGM6mb.sf2 that pretty_midi contains.",
    )
    sample_rate: int = _flag(44_100, "Sample rate of the model, in Hz.", minimum=8_000, maximum=96_000)
    chunk_ms: float = _flag(100.0, "Length of a training chunk, in milliseconds.", minimum=1.0, maximum=60_000.0)
    context_ms: float = _flag(
        0.0,
        "Real audio before and after a chunk that the model sees and the loss ignores, in milliseconds.",
        minimum=0.0,
        maximum=60_000.0,
    )
    chunks_per_piece: int = _flag(50, "Chunks cut at most from a piece at each visit to it.", minimum=1)
    keep_silent: float = _flag(
        0.1, "Share of the chunks with a silent mixture that is kept, 0 to 1.", minimum=0.0, maximum=1.0
    )
    keep_solo: float = _flag(
        0.1, "Share of the chunks in which one instrument plays alone that is kept, 0 to 1.", minimum=0.0, maximum=1.0
    )
    vary_gain_db: float = _flag(
        3.0, "At each visit each stem is made louder or softer by up to this much, in dB.", minimum=0.0, maximum=40.0
    )
    vary_transpose: int = _flag(3, "At each visit a piece moves by up to this many semitones.", minimum=0, maximum=24)
    vary_tempo: float = _flag(
        0.1, "At each visit a piece is up to this share faster or slower.", minimum=0.0, maximum=0.5
    )
    vary_velocity: float = _flag(
        0.3, "At each visit velocities v become 127 (v/127)**g, g drawn from 1/(1+x) to 1+x for this x.", minimum=0.0
    )
    vary_presets: float = _flag(
        0.3,
        "At each visit the probability that an instrument plays on other programs of its own than the piece asks for.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_reverb: float = _flag(
        0.2,
        "Probability that a visit has reverb, with a strength and room drawn for each instrument.",
        minimum=0.0,
        maximum=1.0,
    )
    vary_chorus: float = _flag(
        0.1, "Probability that a visit has chorus, with a strength drawn for each instrument.", minimum=0.0, maximum=1.0
    )
    remix: float = _flag(
        0.0,
        "Probability that a chunk in a batch is mixed of stems from several of its chunks: against learning a small "
        "collection of MIDI files by heart.",
        minimum=0.0,
        maximum=1.0,
    )
    drop: float = _flag(
        0.0,
        "Probability that a stem is left out of a chunk's mixture: more chunks with few instruments, fewer traces of "
        "those that rest.",
        minimum=0.0,
        maximum=0.9,
    )
    pool_chunks: int = _flag(1_000, "Chunks in the pool from which batches are drawn.", minimum=1)
    reuse: str = _flag(
        "auto",
        "How often a chunk goes into the pool; auto goes up to 3 while training waits for data, and down again.",
        choices=("auto", "1", "2", "3"),
    )
    render: str = _flag(
        "processes",
        "Where chunks are rendered: in processes of this machine, or by Ray Data on the processors of a Ray cluster.",
        choices=("processes", "ray"),
    )
    workers: int = _flag(
        -1, "Processes that render chunks; 0 renders in the training process, -1 takes one less than there are cores."
    )
    strategy: str = _flag(
        "auto",
        "Devices to train on, by tf.distribute: one; mirrored, all GPUs of this machine; multi_worker, the machines in "
        "TF_CONFIG; auto is multi_worker where TF_CONFIG is set, else mirrored where there are several GPUs.",
        choices=("auto", "one", "mirrored", "multi_worker"),
    )
    batch_size: int = _flag(12, "Chunks in a batch, on each device.", minimum=1)
    learning_rate: float = _flag(1e-4, "Learning rate of Adam.", minimum=0.0)
    schedule: str = _flag(
        "constant",
        "Learning rate over the training: constant, or cosine, which rises from zero during the first twentieth of the "
        "steps or minutes and then falls to zero along half a cosine.",
        choices=("constant", "cosine"),
    )
    weight_decay: float = _flag(
        0.0,
        "Share of every kernel that is taken away at a learning rate of 1 and a step (AdamW); 0 for none.",
        minimum=0.0,
    )
    clip_norm: float = _flag(
        0.0, "Gradients are scaled down to this global norm where theirs is greater; 0 never does.", minimum=0.0
    )
    average: float = _flag(
        0.0,
        "Decay of the running average of the weights, which is then what is validated and saved, e.g. 0.999; 0 keeps "
        "the last weights.",
        minimum=0.0,
        maximum=0.99999,
    )
    steps: int = _flag(
        -1,
        f"Training steps in all, those before a resume included; -1 for {STEPS:,}, or for as many as --minutes allows; "
        "0 makes a few steps, writes nothing and reports what to expect.",
        minimum=-1,
    )
    minutes: float = _flag(
        0.0,
        "Minutes of training in all, those before a resume included, after which training ends even if --steps are not "
        "reached; a last validation comes on top. 0 sets no limit.",
        minimum=0.0,
    )
    validate_every: int = _flag(
        500,
        "After so many steps the model is scored on held-out pieces, and its weights are kept if they are the best so "
        "far; 0 never does, and keeps the last.",
        minimum=0,
    )
    patience: int = _flag(
        0, "Training ends after so many validations in a row without a better one; 0 goes on to the end.", minimum=0
    )
    checkpoint_minutes: float = _flag(
        5.0, "Time between checkpoints, which is what a crash can cost, in minutes.", minimum=0.0
    )
    loss: str = _flag(
        "mae",
        "Loss, a sum of weighted terms such as mae+0.5*spectrogram; terms: mae, mse, nmse, spectrogram, shares, "
        "difference.",
    )
    start_from: str = _flag(
        "",
        "Run directory whose weights training begins with, in every layer that has the same name and shape there; "
        "pretrained for those of the model in the package.",
    )
    stacks: int = _flag(4, "wavenet, tasnet: stacks of blocks.", minimum=1)
    blocks: int = _flag(10, "wavenet, tasnet: blocks in a stack; block b has dilation 2**b.", minimum=1, maximum=20)
    filters: int = _flag(
        128, "baseline, wavenet, tasnet: filters of the convolutions, but for encoder and head.", minimum=1
    )
    activation: str = _flag(
        "relu",
        "wavenet: a ReLU after every convolution, or gated: tanh times sigmoid in the blocks.",
        choices=("relu", "gated"),
    )
    bias: bool = _flag(True, "wavenet: whether convolutions before the last one have biases.")
    head_filters: tuple[int, ...] = _flag((512, 256), "wavenet: filters of the convolutions after the blocks.")
    encoder_filters: int = _flag(256, "tasnet: filters of the encoder.", minimum=1)
    encoder_stride: int = _flag(16, "tasnet: hop of the encoder, in samples; its frames are two hops long.", minimum=1)
    constant_q: bool = _flag(
        False, "tasnet: the separator also reads a spectrum of 24 bins to the octave, which tells notes apart."
    )
    mask: str = _flag(
        "sigmoid",
        "tasnet: activation of the masks over the encoder's output; with softmax those of all stems add up to one.",
        choices=("sigmoid", "relu", "softmax"),
    )
    kernel_size: int = _flag(101, "baseline: samples that each convolution spans.", minimum=1)
    levels: int = _flag(
        12, "wave_u_net: levels, each on half the sample rate of the one before.", minimum=1, maximum=16
    )
    level_filters: int = _flag(24, "wave_u_net: level i, from 1, has i times as many filters.", minimum=1)
    padding: str = _flag(
        "same",
        "wave_u_net: same pads every convolution with zeros; valid pads the mixture alone, as far as the model looks, "
        "with zeros where --context_ms brings no audio.",
        choices=("same", "valid"),
    )
    upsampling: str = _flag(
        "linear",
        "wave_u_net: new samples are the mean of their neighbours, or weighted as learned for each channel.",
        choices=("linear", "learned"),
    )
    difference: bool = _flag(True, "wave_u_net: the last stem is what the others leave of the mixture.")
    seed: int = _flag(0, "Seed of everything that is drawn: pieces, chunks, initial weights.", minimum=0)
    mixed_precision: str = _flag(
        "auto",
        "Arithmetic of the layers while training: auto is bfloat16 where the processor or GPU has it.",
        choices=("auto", "bfloat16", "float32"),
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_limits(field, getattr(self, field.name))
        if self.model not in MODELS:
            raise InputError(f"--model={self.model}: no such model; known are {', '.join(MODELS)}")
        names = tuple(target.name for target in choose(self.parsed_instruments, self.targets))
        object.__setattr__(self, "targets", names)
        self._check_setting()

    def _check_setting(self) -> None:
        """Raises InputError, by the flag's name, for flags that contradict each other."""
        if self.patience and not self.validate_every:
            raise InputError(f"--patience={self.patience} counts validations: set --validate_every as well")
        n_left = len(self.parsed_instruments) - len(self.targets)
        if self.other and not n_left:
            raise InputError("--other: every instrument is a target, nothing is left over; name fewer --targets")
        if self.other and any(instrument.name == OTHER for instrument in self.parsed_instruments):
            raise InputError(f"--other: an instrument is called {OTHER!r} already; rename it")
        if self.conditioning != "none" and self.model not in CONDITIONED:
            raise InputError(
                f"--conditioning={self.conditioning}: --model={self.model} cannot be told; {', '.join(CONDITIONED)} can"
            )
        if self.blind and self.conditioning != "none":
            raise InputError(f"--blind contradicts --conditioning={self.conditioning}, which tells what is there")
        if self.blind and self.require != "any":
            raise InputError("--blind needs --require=any, so that the model hears pieces that lack an instrument")
        for flag, is_set, instead in (
            ("consistent", self.consistent, "--noconsistent"),
            ("difference", self.difference and self.model == "wave_u_net", "--nodifference"),
            ("mask=softmax", self.mask == "softmax" and self.model == "tasnet", "--mask=sigmoid"),
            (f"loss={self.loss}", "nmse" in self.loss, "mse in place of nmse"),
        ):
            if is_set and n_left and not self.other:
                raise InputError(
                    f"--{flag}: the stems of these --targets do not make up the mixture; add --other, or {instead}"
                )
            if is_set and len(self.model_outputs) < 2:
                raise InputError(f"--{flag}: the model gives one stem at a time, nothing to sum; add {instead}")

    @property
    def parsed_instruments(self) -> tuple[Instrument, ...]:
        """The instruments that sound in the mixture."""
        return parse_instruments(self.instruments)

    @property
    def parsed_targets(self) -> tuple[Instrument, ...]:
        """The instruments that the model gives back."""
        return choose(self.parsed_instruments, self.targets)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the stems, in order: the targets, and "other" with --other."""
        return (*self.targets, OTHER) if self.other else self.targets

    @property
    def model_outputs(self) -> tuple[str, ...]:
        """Names of the stems that the model gives at once: `outputs`, or the one that it is asked for."""
        return ("wanted",) if self.conditioning == "embedding" else self.outputs

    @property
    def variation(self) -> Variation:
        """What the MIDI source draws at each visit to a piece."""
        return Variation(**{f.name: getattr(self, f"vary_{f.name}") for f in dataclasses.fields(Variation)})

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

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The inverse of `to_json`. Raises ValueError for other text, or for fields that do not exist here."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}, which this version does not know")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    @classmethod
    def from_flags(cls, flag_values: flags.FlagValues = flags.FLAGS) -> Config:
        """The Config that the parsed absl flags give."""
        values = {field.name: flag_values[field.name].value for field in dataclasses.fields(cls)}
        try:
            values["head_filters"] = tuple(int(filters) for filters in values["head_filters"])
        except ValueError:
            raise InputError("--head_filters takes whole numbers, e.g. 512,256") from None
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each field of Config."""
    define = {
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for field in dataclasses.fields(Config):
        name, default, help_text = field.name, field.default, field.metadata["help"]
        if "choices" in field.metadata:
            flags.DEFINE_enum(name, default, field.metadata["choices"], help_text, flag_values=flag_values)
        elif isinstance(default, tuple):
            flags.DEFINE_list(name, [str(value) for value in default], help_text, flag_values=flag_values)
        else:
            define[type(default)](name, default, help_text, flag_values=flag_values)


def _check_limits(field: dataclasses.Field, value: Any) -> None:
    minimum, maximum = field.metadata.get("minimum"), field.metadata.get("maximum")
    if minimum is not None and value < minimum or maximum is not None and value > maximum:
        wanted = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InputError(f"--{field.name}={value}: it must be {wanted}")
    if field.name == "head_filters" and any(filters < 1 for filters in value):
        raise InputError(f"--head_filters={','.join(map(str, value))}: each must be at least 1")
