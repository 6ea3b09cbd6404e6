"""The experiments: what is trained, on which data, for how long, with which seeds."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib

from sourcesep.metrics import MAIN_MEASURE

INSTRUMENTS = ("drums", "piano", "strings", "bass")
ONE = "bass"  # the one instrument out of four


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: name of the row and of its files.
        flags: flags of train.py, in addition to those of all rows.
        minutes: training time; None if the flags give the number of steps.
        computes_as: name of a row whose steps take the same time, because it differs only in its data.
        peer: the peer of benchmarks/peers.py that is trained instead.
        same_as: (experiment, name) of the row that this one repeats; it is run once and shown in both tables.
    """

    name: str
    flags: tuple[str, ...]
    minutes: float | None = 10.0
    computes_as: str = ""
    peer: str = ""
    same_as: tuple[str, str] | None = None

    @property
    def timed_as(self) -> str:
        """The name under which the duration of its steps is stored."""
        return self.same_as[1] if self.same_as else self.computes_as or self.name


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One section of the page.

    Attributes:
        title, question: shown above the table.
        variants: the rows.
        seeds: each row is trained once with each of them.
        measure: key of the measure in the tables.
    """

    title: str
    question: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0,)
    measure: str = MAIN_MEASURE


SMALL = (
    *("--sample_rate=16000", "--chunk_ms=1024", "--chunks_per_piece=10", "--pool_chunks=500", "--batch_size=8"),
    *("--require=any", "--loss=mse", "--learning_rate=1e-3", "--schedule=cosine"),
)
TASNET = (
    *(*SMALL, "--model=tasnet", "--stacks=2", "--blocks=6", "--filters=192"),
    *("--encoder_filters=512", "--encoder_stride=128"),
)
TASNET_ROW = ("models-all", "tasnet")
AS_PUBLISHED = ("--chunk_ms=100", "--chunks_per_piece=50", "--pool_chunks=1000", "--batch_size=12")
WAVENET = (*SMALL, "--model=wavenet", "--stacks=2", "--blocks=10", "--filters=64", "--head_filters=128,128")
MODELS = {
    "baseline": (*SMALL, "--model=baseline", "--filters=32", *AS_PUBLISHED),
    "baseline with skip": (*SMALL, "--model=baseline_skip", "--filters=32", *AS_PUBLISHED),
    "Wave-U-Net": (*SMALL, "--model=wave_u_net", "--learning_rate=1e-4"),  # as its authors used; it diverges with 1e-3
    "WaveNet": (*WAVENET, *AS_PUBLISHED),
    "tasnet": TASNET,
}
PUBLISHED = ("--flagfile=wavenet.flags", "--require=any", "--steps=1500")
REDUCED = (*PUBLISHED, "--stacks=2", "--filters=64")
LOSSES = {"MSE": "mse", "MAE": "mae", "MAE + spectrogram": "mae+spectrogram", "MAE + difference": "mae+difference"}
# The stems of the model in the package, and its network.
FIVE_STEMS = (
    *("--instruments=drums,piano,strings:40-44+48-51,bass,rest:8-31+45-47+52-127", "--other", "--require=any"),
    *("--targets=drums,piano,strings,bass", "--sample_rate=16000", "--chunk_ms=2048", "--chunks_per_piece=6"),
    *("--pool_chunks=400", "--reuse=2", "--remix=0.5", "--drop=0.1", "--learning_rate=1e-3", "--schedule=cosine"),
    *("--mixed_precision=float32", "--validate_every=0"),
)
LARGE_TASNET = (
    *("--model=tasnet", "--stacks=2", "--blocks=6", "--filters=192", "--encoder_filters=512", "--encoder_stride=128"),
    *("--constant_q", "--mask=softmax"),
)
PACKAGED = ("--model=bandnet", "--filters=128", "--bands_per_octave=4")
TRAINED_ON = (*FIVE_STEMS, *PACKAGED, "--start_from=pretrained", "--batch_size=4", "--average=0.995")
EFFECTS = (
    *("--vary_equaliser=0.4", "--vary_compression=0.2", "--vary_saturation=0.2", "--vary_room=0.3"),
    *("--vary_bandwidth=0.15", "--vary_noise=0.2", "--vary_master=0.3"),
)
# From random weights, on one core.
ONE_CORE = (*FIVE_STEMS, "--batch_size=2", "--average=0.999", "--loss=nmse+0.1*shares", "--workers=1")
FROM_RANDOM = (*ONE_CORE, "--vary_timbre=0.3", *EFFECTS)
BANDNET = ("--model=bandnet", "--window_ms=64", "--hop_ms=16")
COARSE = ("--model=bandnet", "--bands_per_octave=4")
MUON = ("--optimizer=muon", "--learning_rate=3e-3", "--mixed_precision=auto")
NETWORKS = {"tasnet": LARGE_TASNET, "bandnet": BANDNET}
SHORT_CHUNKS = ("--chunk_ms=1024", "--batch_size=4", "--pool_chunks=800", "--chunks_per_piece=12")
# One change to bandnet with frames of 64 ms every 16, or to how it is trained, each.
ABLATIONS = {
    "as it is": (),
    "windows of 32 ms": ("--window_ms=32", "--hop_ms=8"),
    "windows of 128 ms": ("--window_ms=128",),
    "128 ms every 32 ms": ("--window_ms=128", "--hop_ms=32"),
    "128 ms every 32 ms, 96 filters": ("--window_ms=128", "--hop_ms=32", "--filters=96"),
    "128 ms every 32 ms, chunks of 1 s": ("--window_ms=128", "--hop_ms=32", *SHORT_CHUNKS),
    "128 ms every 32 ms, chunks of 1 s from a pool of 3,200": (
        *("--window_ms=128", "--hop_ms=32"),
        *SHORT_CHUNKS,
        "--pool_chunks=3200",
    ),
    "128 ms every 32 ms, chunks of 0.5 s": (
        *("--window_ms=128", "--hop_ms=32", "--chunk_ms=512"),
        *("--batch_size=8", "--pool_chunks=1600", "--chunks_per_piece=24"),
    ),
    "128 ms every 32 ms, chunks of 1 s, 4 bands per octave": (
        *("--window_ms=128", "--hop_ms=32", "--bands_per_octave=4"),
        *SHORT_CHUNKS,
    ),
    "256 ms every 64 ms": ("--window_ms=256", "--hop_ms=64"),
    "4 bands per octave": ("--bands_per_octave=4",),
    "12 bands per octave": ("--bands_per_octave=12",),
    "lowest bands of 125 Hz": ("--band_hz=125",),
    "12 blocks of 44 filters": ("--stacks=2", "--filters=44"),
    "4 blocks of 80 filters": ("--blocks=4", "--filters=80"),
    "loss nmse": ("--loss=nmse",),
    "loss nrmse+0.1*shares": ("--loss=nrmse+0.1*shares",),
    "loss nmse+0.3*compressed": ("--loss=nmse+0.3*compressed",),
    "chunks of 1 s": SHORT_CHUNKS,
    "chunks of 4 s": ("--chunk_ms=4096", "--batch_size=1", "--pool_chunks=200", "--chunks_per_piece=3"),
    "batches of 8": ("--batch_size=8", "--steps=325", "--average=0.996"),
    "learning rate 5e-4": ("--learning_rate=5e-4",),
    "learning rate 2e-3": ("--learning_rate=2e-3",),
    "no average": ("--average=0",),
}


def experiments(more_soundfonts: str, all_midi: str = "", solos: str = "") -> dict[str, Experiment]:
    """Returns all experiments by name.

    Args:
        more_soundfonts: paths in the format of --soundfonts, for rows that train with several.
        all_midi: folders in the format of --midi_dir, for rows that train with several.
        solos: folders in the format of --solo_dir, for rows that train with recorded solos.
    """
    one = {"Wave-U-Net": ("--nodifference",)}
    return {
        "models-all": Experiment(
            "Models, all four instruments",
            "Which network is best after equal training time at 16 kHz? Chunks of 1 s (baselines, WaveNet: 100 ms).",
            tuple(Variant(name, own) for name, own in MODELS.items()),
            (0, 1, 2),
        ),
        "models-one": Experiment(
            f"Models, one instrument out of four: {ONE}",
            "Is one instrument easier to learn than four? Same training time, same mixtures of four instruments.",
            tuple(
                Variant(name, (*own, f"--targets={ONE}", *one.get(name, ()))) for name, own in MODELS.items()
            ),
        ),
        "losses": Experiment(
            "Four losses",
            "Which loss is best? A WaveNet with 64 filters and 2 stacks of 10 blocks at 44.1 kHz, 1,500 steps each.",
            tuple(Variant(name, (*REDUCED, f"--loss={loss}"), None) for name, loss in LOSSES.items()),
        ),
        "published": Experiment(
            "The published network",
            "128 filters, 4 stacks of 10 blocks, for the published 1,500 steps, with the best loss of the table above.",
            (Variant("WaveNet 4 x 10, 128 filters", PUBLISHED, None),),
        ),
        "context": Experiment(
            "Real audio around a chunk",
            "WaveNet on chunks of 100 ms at 44.1 kHz, with zeros around them, or real audio in its receptive field.",
            tuple(
                Variant(name, (*REDUCED, "--learning_rate=1e-3", "--schedule=cosine", f"--context_ms={ms}"))
                for name, ms in (("no context", 0), ("46.5 ms on each side", 46.5))
            ),
            (0, 1, 2),
        ),
        "soundfonts": Experiment(
            "One SoundFont or several",
            "Does training with several SoundFonts give better scores with a SoundFont that was not used?",
            (
                Variant("one", TASNET, same_as=TASNET_ROW),
                Variant("several", (*TASNET, f"--soundfonts={more_soundfonts}"), computes_as="tasnet"),
            ),
            (0, 1, 2),
        ),
        "sounds": Experiment(
            "More sounds",
            "Does the packaged model, trained on with a SoundFont drawn for each instrument and visit, carry over to "
            "sounds that it has not heard?",
            (
                Variant("packaged model", (*TRAINED_ON, "--learning_rate=0", "--average=0", "--steps=1"), None),
                Variant(
                    "several SoundFonts",
                    (*TRAINED_ON, "--minutes=80", "--loss=nmse+0.1*shares", f"--soundfonts={more_soundfonts}"),
                    None,
                ),
                Variant(
                    "several SoundFonts, effects, root of the error",
                    (*TRAINED_ON, "--minutes=80", "--loss=nrmse+0.1*shares", f"--soundfonts={more_soundfonts}")
                    + EFFECTS,
                    None,
                ),
            ),
            measure="gain_over_constant_db",
        ),
        "networks": Experiment(
            "tasnet or bandnet",
            "Which network separates five stems better after an hour of one core, from random weights, with several "
            "SoundFonts and effects?",
            tuple(
                Variant(name, (*FROM_RANDOM, *own, "--minutes=60", f"--soundfonts={more_soundfonts}"), None)
                for name, own in NETWORKS.items()
            ),
            (0, 1),
            measure="gain_over_constant_db",
        ),
        "sounds-added": Experiment(
            "What to train on",
            "Which data carry over to sounds that were not heard? bandnet from random weights, 8,000 steps of Muon (20 "
            "minutes of one core with AMX); each row adds to the one above it.",
            _adding_up(
                (*ONE_CORE, *COARSE, *MUON, "--steps=8000"),
                {
                    "one SoundFont": (),
                    "+ a SoundFont for each instrument and visit": (f"--soundfonts={more_soundfonts}",),
                    "+ generators": ("--vary_timbre=0.3",),
                    "+ effects": EFFECTS,
                    "+ computed sounds": (f"--soundfonts={more_soundfonts},procedural:0.3",),
                    "+ songs of other kinds": (f"--midi_dir={all_midi}",),
                    "+ recorded solos and voices": (f"--solo_dir={solos}",),
                    "+ the low end for drums and bass": ("--vary_low_cut=0.35",),
                },
            ),
            (0, 1),
            measure="gain_over_constant_db",
        ),
        "optimizers": Experiment(
            "Adam or Muon",
            "How much does bandnet learn from random weights, in 12,000 steps of Adam (27 minutes of one core with "
            "AMX) and 8,000 of Muon (20 minutes)?",
            tuple(
                Variant(f"Adam, {name}", (*ONE_CORE, *COARSE, "--steps=12000", *own), None)
                for name, own in {
                    "one SoundFont": (),
                    "a SoundFont for each instrument and visit": (f"--soundfonts={more_soundfonts}",),
                    "generators as well": (f"--soundfonts={more_soundfonts}", "--vary_timbre=0.3"),
                }.items()
            )
            + tuple(
                Variant(f"Muon, {name}", (), None, same_as=("sounds-added", row))
                for name, row in {
                    "one SoundFont": "one SoundFont",
                    "a SoundFont for each instrument and visit": "+ a SoundFont for each instrument and visit",
                    "generators as well": "+ generators",
                }.items()
            ),
            measure="gain_over_constant_db",
        ),
        "fresh-chunks": Experiment(
            "How often a chunk is heard",
            "8,000 steps of Muon with batches of two chunks, half of them remixed: does it matter how many chunks are "
            "made for them, and of how many a remixed one takes its stems?",
            (
                Variant("each twice, remixed among 2", (), None, same_as=("sounds-added", "+ effects")),
                *(
                    Variant(
                        f"each {often}, remixed among 16",
                        (
                            *(*ONE_CORE, *COARSE, *MUON, "--steps=8000", f"--soundfonts={more_soundfonts}"),
                            *("--vary_timbre=0.3", *EFFECTS, f"--reuse={reuse}"),
                        ),
                        None,
                    )
                    for often, reuse in (("twice", 2), ("once", 1))
                ),
            ),
            measure="gain_over_constant_db",
        ),
        "bandnet": Experiment(
            "What bandnet's score depends on",
            "1,300 batches of 4 s of audio from random weights (ten minutes of one core), with several SoundFonts and "
            "effects. The first row has frames of 64 ms every 16; the others change what they say.",
            tuple(
                Variant(
                    name,
                    (*FROM_RANDOM, *BANDNET, "--steps=1300", f"--soundfonts={more_soundfonts}", *own),
                    None,
                )
                for name, own in ABLATIONS.items()
            ),
            measure="gain_over_constant_db",
        ),
        "corpus": Experiment(
            "Composed or real MIDI",
            "Training on pieces of the built-in composer, or on real ones; scored on real ones.",
            (
                Variant("real", TASNET, same_as=TASNET_ROW),
                Variant("composed", (*TASNET, "--midi_dir="), computes_as="tasnet"),
            ),
            (0, 1, 2),
        ),
        "peers": Experiment(
            "Peers",
            "Conv-TasNet from asteroid, HDemucs and HTDemucs from demucs (PyTorch, float32), trained in the same way.",
            (
                Variant("sourcesep bandnet", (*SMALL, *COARSE, *MUON)),
                Variant("sourcesep tasnet", TASNET, same_as=TASNET_ROW),
                *(
                    Variant(name, SMALL, peer=peer)
                    for name, peer in (("Conv-TasNet", "conv_tasnet"), ("HDemucs", "hdemucs"), ("HTDemucs", "htdemucs"))
                ),
            ),
            (0, 1, 2),
        ),
    }  # fmt: skip


def _adding_up(start: tuple[str, ...], steps: dict[str, tuple[str, ...]]) -> tuple[Variant, ...]:
    """Returns a row for each step, which adds its flags to those of the row before; the first one adds to `start`."""
    _, *flags = itertools.accumulate(steps.values(), initial=start)
    return tuple(Variant(name, own, None) for name, own in zip(steps, flags))


def result_path(experiment: str, variant: Variant, seed: int | str) -> pathlib.Path:
    """Returns the path of the result of a row with a seed, relative to the folder of results."""
    experiment, name = variant.same_as or (experiment, variant.name)
    slug = "".join(letter if letter.isalnum() else "_" for letter in name.lower())
    return pathlib.Path(experiment, f"{slug}-seed{seed}.json")
