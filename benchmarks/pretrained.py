"""Puts a run's model into the package, with its card: `python -m benchmarks.pretrained --run_dir=runs/pretrained`.

Run evaluate.py on it first, with SoundFonts that it heard and others: its figures go into the card.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import h5py
import numpy as np
from absl import app, flags

from benchmarks.experiments import count_parameters, read_losses, training_time_s
from benchmarks.machine import processor
from data_gen import InputError
from data_gen.corpus import open_corpus
from data_gen.synth import default_soundfont
from sourcesep.run_dir import PRETRAINED, RunDir

MAX_BYTES = 10_000_000
SOUNDS = {  # licences of the SoundFonts that models in the package may have heard
    "FluidR3_GM.sf2": "FluidR3_GM.sf2 (Frank Wen) is under the MIT licence",
    "MuseScore_General_Full.sf2": "MuseScore_General_Full.sf2 (S. Christian Collins and others) is under the MIT"
    " licence, parts of it in the public domain or CC0",
}
COMMANDS = "## The commands that trained it, in their order\n\n"

CARD = """# The model in the package

Splits a recording into {outputs}.
`sourcesep_separate song.wav` uses it; in Python, `Separator.from_run()`. This folder is a run directory, for
export.py too.

- **Network**: {config.model}, {n_parameters:,} parameters, stored as float16; {config.sample_rate:,} Hz: what lies
  above {nyquist:,} Hz is in no stem.
- **Data**: {n_songs} openly licensed MIDI files (songs of games: Freedoom, Simutrans, EasyRPG and others, under BSD,
  Artistic, CC-BY, CC0 and zlib licences; none is contained here), played through
  {soundfonts}. No recording was used.
- **Sounds**: {sounds}.
- **Licence** of the weights: MIT, like the package.
- **Training**: batches of {config.batch_size} chunks of {config.chunk_ms:g} ms, loss {config.loss}; how many steps
  in how many minutes stands at the end.
- **Limits**: it has heard synthesised instruments alone. Real recordings, voices, effects and mastering are unknown to
  it, and how well it does on them is not known. What it has not heard ends up in other, or in the stem it resembles.

## Figures

SDR in dB where the instrument plays, medians over {n_test} songs kept out of training. Silence scores 0: a stem near
that is worth little more. In brackets the level in dBFS of what a stem holds while its instrument rests, which should
be low. The ideal ratio mask shows how far masks on a spectrogram get that know the stems. By

    python {command}

{table}

{commands}"""
SITTING = """{config.steps:,} steps in {minutes:.0f} minutes, {processor}:

    python train.py {training}
"""


def make_card(config, run: RunDir, scored: dict, before: str) -> str:
    """The README of the folder, from the Config, the weights and the figures of evaluate.py.

    A run that started from the model in the package adds its command to those that the card `before` lists.
    """
    lines = [f"| | {' | '.join(config.stem_names)} |"]
    lines.append("|---" * (1 + len(config.stem_names)) + "|")
    for condition, instruments in scored["summary"].items():
        for row in ("model", "mixture", "ideal ratio mask"):
            cells = [_cell(instruments[name][row]) for name in config.stem_names]
            lines.append(f"| {condition}: {row} | {' | '.join(cells)} |")
    corpus = open_corpus(config.midi_dir, config.parsed_instruments, config.require, config.seed)
    fonts = [pathlib.Path(path).name for path in config.soundfonts or (default_soundfont(),)]
    if unknown := [font for font in fonts if font not in SOUNDS]:
        raise InputError(f"{', '.join(unknown)}: of unknown licence; add it to SOUNDS in benchmarks/pretrained.py")
    sitting = SITTING.format(
        config=config,
        minutes=training_time_s(read_losses(run.path)) / 60,
        processor=processor(),
        training=" ".join(_flags(dataclasses.replace(config, midi_dir="MIDI", soundfonts=tuple(fonts)))),
    )
    commands = list_commands(before if config.start_from == "pretrained" else "", sitting)
    heard = [font for font in SOUNDS if font in commands]  # in earlier sittings too
    return CARD.format(
        config=config,
        outputs=", ".join(config.stem_names),
        nyquist=config.sample_rate // 2,
        n_parameters=count_parameters(run.path),
        n_songs=corpus.size("train"),
        n_test=len({piece["name"] for piece in scored["pieces"]}),
        soundfonts=" and ".join(heard),
        sounds="; ".join(SOUNDS[font] for font in heard),
        command=scored["command"],
        table="\n".join(lines),
        commands=commands,
    )


def list_commands(before: str, sitting: str) -> str:
    """The section of a card that ends with this `sitting`, after those that the card `before` lists."""
    earlier = before.partition(COMMANDS)[2].partition(sitting)[0].rstrip()
    return COMMANDS + (f"{earlier}\n\n{sitting}" if earlier else sitting)


def _flags(config) -> list[str]:
    """Those that differ from their defaults."""
    return [
        f"--{field.name}"
        if value is True
        else f"--{field.name}={','.join(value) if isinstance(value, tuple) else value}"
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
        if value != field.default
    ]


def _cell(scores: dict) -> str:
    sdr_db, residual_dbfs = scores["sdr_db"]["median"], scores["residual_dbfs"]["mean"]
    rests = "" if residual_dbfs is None else f" ({residual_dbfs:.0f})"
    return "–" if sdr_db is None else f"{sdr_db:.1f}{rests}"


def pack_weights(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a file of Keras weights with its arrays as float16, compressed and each with checksums of its own."""
    kept = {"dtype": np.float16, "compression": "gzip", "shuffle": True, "fletcher32": True}
    with h5py.File(source) as file, h5py.File(target, "w") as packed:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                packed.create_dataset(name, data=item[()], **kept)
            else:
                packed.require_group(name).attrs.update(item.attrs)

        file.visititems(copy)


def main(_) -> int:
    """Writes the folder."""
    run = RunDir(flags.FLAGS.run_dir)
    try:
        config = run.config()
        run.check_weights()
        scored = json.loads((run.path / "evaluation" / "metrics.json").read_text())
        card = make_card(config, run, scored, (PRETRAINED / "README.md").read_text())
        partial = PRETRAINED / "partial.weights.h5"
        pack_weights(run.weights, partial)
        if partial.stat().st_size > MAX_BYTES:
            partial.unlink()
            raise InputError(f"{run.weights}: over {MAX_BYTES / 1e6:.0f} MB when packed")
        partial.replace(RunDir(PRETRAINED).weights)
    except (InputError, OSError) as error:
        print(f"pretrained: {error}", file=sys.stderr)
        return 1
    # Nobody else has that folder or those paths, and a run cannot start from itself.
    kept = dataclasses.replace(config, midi_dir="", soundfonts=(), start_from="")
    (PRETRAINED / "config.json").write_text(kept.to_json())
    (PRETRAINED / "README.md").write_text(card)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", "runs/pretrained", "Folder of the run.")
    app.run(main)
