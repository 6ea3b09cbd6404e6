"""Makes a run's model one of those in the package, with its card.

    python tools/package_model.py --run_dir=runs/pretrained

A run with --blind becomes the model of the blind setting, any other the one that is used by default; that is there as
TFLite, too. Run evaluate.py on the run first, with SoundFonts that it heard and others, and on recordings: the card
shows these scores.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import jinja2
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.machine import processor  # noqa: E402
from benchmarks.runs import count_parameters, read_training  # noqa: E402
from data_gen import InputError  # noqa: E402
from data_gen.files import replacing  # noqa: E402
from sourcesep.config import Config  # noqa: E402
from sourcesep.config.songs import PATH_SETTINGS  # noqa: E402
from sourcesep.evaluate.columns import format_percent  # noqa: E402
from sourcesep.evaluate.scores import CONSTANT, IDEAL, MODEL  # noqa: E402
from sourcesep.evaluate.summary import Summary  # noqa: E402
from sourcesep.models.settings import as_flag  # noqa: E402
from sourcesep.run_dir import PRETRAINED, PRETRAINED_BLIND, RunDir  # noqa: E402
from sourcesep.separate.tflite_model import PACKAGED  # noqa: E402
from sourcesep.sources import list_soundfonts, open_played  # noqa: E402
from tools.average_runs import MEAN_FILE, PACKAGED_RUNS, open_run  # noqa: E402

MAX_BYTES = 25_000_000  # largest file of weights in the package
LEAST_TFLITE_DB = 45.0  # the TFLite file must be this close to the weights: SDR in dB, on noise
SOUNDS = {  # authors and licences of the SoundFonts with which models in the package may have been trained
    "FluidR3_GM.sf2": "Frank Wen; MIT",
    "MuseScore_General_Full.sf2": "S. Christian Collins and others; MIT, parts in the public domain or CC0",
    "MuseScore_General_Full.sf3": "the same, compressed",
    "Clean_1.sf3": "Salamander piano (Alexander Holm; CC-BY 3.0), electric pianos (Greg Sullivan; CC-BY 3.0), guitars "
    "and basses (Karoryfer; CC0), winds (MTG; CC-BY 4.0), Muldjord kit (DrumGizmo; CC-BY 4.0), VSCO 2 (CC0) and others "
    "in the public domain",
    "OPL-3_FM_128M.sf2": "Zandro Reveille; CC-BY-SA",
    "Black_Pearl_4_LV2.sf2": "AVL Drumkits, Glen MacArthur; CC-BY-SA 3.0, in avldrums.lv2 (GPL-2)",
    "Red_Zeppelin_4_LV2.sf2": "AVL Drumkits, Glen MacArthur; CC-BY-SA 3.0, in avldrums.lv2 (GPL-2)",
    # Made by data_gen.make_soundfont from SFZ files.
    "Emily_guitar.sf2": "Karoryfer Samples; CC0",
    "Shiny_guitar.sf2": "Karoryfer Samples; CC0",
    "Spanish_guitar.sf2": "FreePats; CC0",
    "Growly_bass.sf2": "Karoryfer Samples; CC0",
    "Swag_bass.sf2": "Karoryfer Samples; CC0",
    "Fashion_bass.sf2": "Karoryfer Samples; CC0",
    "Pasta_bass.sf2": "Karoryfer Samples; CC0",
    "Sneaky_bass.sf2": "Karoryfer Samples; CC0",
    "YR_bass.sf2": "FreePats; CC0",
    "Gogodze_kit.sf2": "Karoryfer Samples; CC0",
    "Splendid_piano.sf2": "AKAI; public domain",
    "Upright_piano_KW.sf2": "FreePats; CC0",
    "VPO_strings.sf2": "Virtual Playing Orchestra, Paul Battersby and others; CC0, CC-BY-SA and CC Sampling Plus",
    "Solo_strings.sf2": "Virtual Playing Orchestra; cello by Ethan Winer (public domain); Karoryfer Samples (CC0)",
    "Muldjord_kit.sf2": "Lars Muldjord; CC-BY 4.0",
    "Sonor_kit.sf2": "SamsSonor; CC-BY-SA 4.0",
    "Electric_pianos.sf2": "Greg Sullivan; CC-BY 3.0",
    "Emily_distorted.sf2": "Karoryfer Samples, distorted here; CC0",
    "Headroom_piano.sf2": "Bengt Nilsson; CC-BY 4.0",
    "Old_piano_FB.sf2": "FreePats; CC0",
    "Philharmonia_strings.sf2": "Philharmonia Orchestra; CC-BY-SA 3.0",
    "Philharmonia_winds.sf2": "Philharmonia Orchestra; CC-BY-SA 3.0",
    "Salamander_piano.sf2": "Alexander Holm; CC-BY 3.0",
    "VPO_others.sf2": "as VPO_strings.sf2",
    "Winds_brass.sf2": "Karoryfer Samples; CC0, and MTG, Ixox; CC-BY 4.0",
    **{
        f"H2_{kit}.sf2": f"drum kit of Hydrogen, {licence}"
        for kit, licence in {
            "BJA_Pacific": "Luc Tanguay, B. J. Anderson; CC-BY-SA 3.0",
            "ColomboAcousticDrumkit": "Marcos Guglielmetti; GPL-2 with an exception for compositions",
            "ElectricEmpireKit": "Artemiy Pavlov; GPL-2",
            "ForzeeStereo": "V. Sadovnikov, A. Belokurov; GPL-2",
            "GMRockKit": "Glen MacArthur, Sebastian Moors; GPL",
            "HardElectro1": "Artemiy Pavlov; GPL-2",
            "Millo_MultiLayered2": "Emiliano Grilli; GPL-2",
            "TR808EmulationKit": "Artemiy Pavlov; GPL",
            "rumpf_kit_z01_h2": "Emanuel Rumpf; CC-BY 3.0",
        }.items()
    },
    "FSBS_clean.sf2": "FreePats; CC0",
    "FSBS_distorted.sf2": "FreePats; CC0",
    "FreePats_FM_pianos.sf2": "Roberto, FreePats; CC0",
    "FreePats_GM.sf2": "FreePats, copyright Free Software Foundation; GPL-2 with an exception for compositions",
    "FreePats_lately_bass.sf2": "Yingchun Soul, FreePats; CC0",
    "FreePats_pads.sf2": "Roberto, Elf of Happy and Love, Strix SoundFont Team, Jeff Stauffer, FreePats; CC0",
    "FreePats_synth_kit.sf2": "Roberto, Xavimart, Gonzalo, Versilian Studios, FreePats; CC0",
    "FreePats_synths.sf2": "Roberto, Strix SoundFont Team, Elf of Happy and Love, FreePats; CC0",
    "Sonivox_GM.sf2": "Sonic Network Inc., The Android Open Source Project; Apache-2.0",
    "procedural": "computed by this package",
}
SOLOS = {  # authors and licences of the folders of recordings in --solo_dir, by the last two parts of their paths
    "data/voices": "spoken and sung by espeak-ng (data_gen.make_voices); a voice of VNDecorrelate (Unlicense)",
    "solo/voice": "announcements of Asterisk (Allison Smith, Digium; CC-BY-SA 3.0)",
    "solo/piano": "Kimiko Ishizaka (CC0)",
    "solo/strings": "US Army Strings (public domain), VNDecorrelate (Unlicense)",
    "solo/guitar": "songs of Frets on Fire by Muldjord (CC-BY-SA 3.0), VNDecorrelate (Unlicense)",
    "solo/drums": "loops of Sonic Pi (CC0) and LMMS (GPL-2), VNDecorrelate (Unlicense)",
    "solo/bass": "loops of LMMS (GPL-2)",
    "solo/synth": "Sonic Pi (CC0), loops of LMMS (GPL-2)",
    "solo/winds": "Philharmonia Orchestra (CC-BY-SA 3.0), Mihai Sorohan (CC-BY 3.0)",
}
COMMANDS = "## The commands that trained it, in their order\n\n"

SITTING = """`{name}`: {config.steps:,} steps in {minutes:.0f} minutes, {processor}:

    {backend}python train.py {training}
"""


def make_card(config: Config, run: RunDir, scored: Sequence[dict[str, Any]], before: str) -> str:
    """Returns the card, README.md in the folder of the model.

    Args:
        config: of the run.
        run: the run.
        scored: what evaluate.py wrote into metrics.json, of each evaluation to be shown.
        before: the card of the model that is in the package now. If the run started from that model, the commands in
            its card are kept, and that of the run is added.

    Raises InputError if the licence of a SoundFont is not in SOUNDS.
    """
    sittings = list_sittings(run)
    from_package = any(sitting.start_from_package for sitting in sittings)
    commands = list_commands(before if from_package else "", "\n".join(sitting.text for sitting in sittings))
    fonts = [font for sitting in sittings for font in sitting.soundfonts]
    if unknown := [font for font in fonts if font not in SOUNDS]:
        raise InputError(f"{', '.join(unknown)}: unknown licence; add it to SOUNDS in tools/package_model.py")
    solos = [solo for sitting in sittings for solo in sitting.solos]
    if unknown := [solo for solo in solos if solo not in SOLOS]:
        raise InputError(f"{', '.join(unknown)}: unknown licence; add it to SOLOS in tools/package_model.py")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.md.j2").render(
        config=config,
        stems=", ".join(config.stem_names),
        n_parameters=count_parameters(run.path),
        n_songs=open_played(config, config.midi_dir).size("train"),
        n_test=len({piece["name"] for piece in scored[0]["pieces"]}),
        scored=scored,
        scores=[row for one in scored for row in _score_rows(one["summary"], config.stem_names)],
        shares=_share_rows,
        found=_found_rows,
        # A font that is only in a command of the card before was heard in an earlier training.
        fonts={font: licence for font, licence in SOUNDS.items() if font in commands or font in fonts},
        solos={solo: licence for solo, licence in SOLOS.items() if solo in solos},
        commands=commands,
        table=_table,
    )


class Sitting(NamedTuple):
    """A training, or a mean of the weights of several, on the way to the model.

    Attributes:
        text: the steps, the minutes and the command of the training; what the mean is of.
        soundfonts: names of the SoundFonts that it heard.
        solos: its folders of recordings of one instrument each, by the last two parts of their paths.
        start_from_package: whether it began with the weights in the package.
    """

    text: str
    soundfonts: list[str]
    solos: list[str]
    start_from_package: bool


def list_sittings(run: RunDir) -> list[Sitting]:
    """Returns the trainings of a run and of those that its weights come from, and means, in their order, each once."""
    config, name = run.config(), _name(run.path)
    if (run.path / MEAN_FILE).exists():
        shares = json.loads((run.path / MEAN_FILE).read_text())
        sittings = [sitting for folder in shares for sitting in _list_earlier(folder)]
        parts = ", ".join(f"{share:g} of `{_name(folder)}`" for folder, share in shares.items())
        sittings.append(Sitting(f"`{name}`: the mean of the weights, {parts}.\n", [], [], "pretrained" in shares))
        return list({sitting.text: sitting for sitting in sittings}.values())
    earlier = _list_earlier(config.start_from)
    made = read_training(run.path)
    shown = dataclasses.replace(
        config,
        midi_dir=",".join(map(os.path.basename, config.midi_dir.split(","))),
        soundfonts=tuple(os.path.basename(os.path.normpath(path)) for path in config.soundfonts),
        solo_dir=tuple(
            f"{name}:{os.path.basename(os.path.normpath(folder))}"
            for name, _, folder in (solo.partition(":") for solo in config.solo_dir)
        ),
    )
    if earlier:
        shown = dataclasses.replace(shown, start_from=_name(config.start_from))
    if made:  # a run that minutes bounded made this many
        shown = dataclasses.replace(shown, steps=made.steps, minutes=0.0)
    text = SITTING.format(
        name=name,
        config=shown,
        minutes=made.seconds / 60 if made else 0,
        processor=made and made.device or processor(),
        backend="KERAS_BACKEND=jax " if made and made.device else "",
        training=" ".join(_flags(shown)),
    )
    fonts = [os.path.basename(path) for path in list_soundfonts(config)]
    solos = ["/".join(pathlib.Path(solo.partition(":")[2]).parts[-2:]) for solo in config.solo_dir]
    return [*earlier, Sitting(text, fonts, solos, config.start_from == "pretrained")]


def _list_earlier(start_from: str) -> list[Sitting]:
    """Returns the trainings behind what --start_from names; none for a model in the package, whose card lists them."""
    return list_sittings(open_run(start_from)) if start_from not in ("", *PACKAGED_RUNS) else []


def _name(path: str | pathlib.Path) -> str:
    return str(path) if str(path) in PACKAGED_RUNS else f"runs/{os.path.basename(path)}"


def list_commands(before: str, sitting: str) -> str:
    """Returns the section of a card that lists the trainings in the card `before`, and then `sitting`."""
    earlier = before.partition(COMMANDS)[2].partition(sitting)[0].rstrip()
    return COMMANDS + (f"{earlier}\n\n{sitting}" if earlier else sitting)


def _flags(config: Config) -> list[str]:
    """Returns the flags of train.py that give a Config, without those that have their default."""
    defaults = {name: field.default for name, field in config.setting_fields().items()}
    changed = {name: value for name, value in config.values().items() if value != defaults[name]}
    return [f"--{name}" if value is True else f"--{name}={as_flag(value)}" for name, value in changed.items()]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def _score_rows(summary: Summary, stem_names: Sequence[str]) -> list[list[str]]:
    rows = []
    for condition, instruments in summary.items():
        played = [instruments.get(name) for name in stem_names]
        for row in (MODEL, CONSTANT, IDEAL):
            rows.append([f"{condition}: {row}", *(_cell(scores and scores[row]) for scores in played)])
        gains = [_decibels(scores and scores[MODEL]["gain_over_constant_db"]) for scores in played]
        rows.append([f"{condition}: **model over constant**", *gains])
    return rows


def _share_rows(gains: dict[str, dict[str, float]]) -> list[list[str]]:
    """Returns a row for each instrument that is in a song."""
    rows = [[name, *map(format_percent, row.values())] for name, row in gains.items()]
    return [row for row in rows if set(row[1:]) != {format_percent(float("nan"))}]


def _found_rows(instruments: dict[str, dict[str, float]]) -> list[list[str]]:
    """Returns a row for each instrument that is in a song or is found in one."""
    return [
        [name, str(row["n_present"]), str(row["n_found"])]
        + [format_percent(row[share]) for share in ("precision", "recall")]
        for name, row in instruments.items()
        if row["n_present"] or row["n_found"]
    ]


def _cell(scores: dict[str, Any] | None) -> str:
    """Returns the median SDR, and in brackets the mean level of what is left while the instrument rests."""
    residual_dbfs = scores and scores["residual_dbfs"]["mean"]
    rests = "" if residual_dbfs is None else f" ({residual_dbfs:.0f})"
    return _decibels(scores and scores["sdr_db"]) + rests


def _decibels(statistics: dict[str, Any] | None) -> str:
    """Returns the median, or a dash where nothing was scored."""
    if not statistics or statistics["median"] is None:
        return "–"
    return f"{round(statistics['median'], 1) + 0.0:.1f}"  # no -0.0


def without_origin(config: Config) -> Config:
    """Returns the config of a run without this machine's folders, which users do not have, and without --start_from."""
    fields = config.setting_fields()
    return dataclasses.replace(
        config, **{name: fields[name].default for name in (*PATH_SETTINGS, "midi_share", "start_from")}
    )


def pack_weights(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a file of Keras weights, with its arrays as float16, compressed, and with checksums."""
    kept = {"dtype": np.float16, "compression": "gzip", "shuffle": True, "fletcher32": True}
    with h5py.File(source) as file, h5py.File(target, "w") as packed:

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                packed.create_dataset(name, data=item[()], **kept)
            else:
                packed.require_group(name).attrs.update(item.attrs)

        file.visititems(copy)


def pack_tflite(run: RunDir, target: pathlib.Path) -> None:
    """Writes a run's model as TFLite with float16 weights. Raises InputError if it computes something else."""
    from sourcesep import metrics
    from sourcesep.export import exporting, tflite
    from sourcesep.models.receptive_field import receptive_field
    from sourcesep.separate.tflite_model import TFLiteModel

    model, config = run.model(), run.config()
    field = receptive_field(model)
    window_samples = exporting.choose_window(None, config.sample_rate, field)
    ((_, flatbuffer),) = tflite.convert(model, ["float16"], window_samples)
    tflite.write(target, flatbuffer, {**exporting.describe(config, field), "window_samples": window_samples})
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, window_samples, config.channels), np.float32)
    close_db = metrics.sdr(model.predict(noise, verbose=0)[0], TFLiteModel(target)(noise)[0]).min()
    if not close_db > LEAST_TFLITE_DB:
        raise InputError(f"{target}: only within {close_db:.1f} dB of the weights; look for numbers that float16 lacks")


def _read_scores(path: pathlib.Path) -> dict[str, Any]:
    """Reads the metrics.json of an evaluation. Raises InputError if there is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; evaluate.py writes it")
    return json.loads(path.read_text())


def main(_) -> int:
    """Writes the folder of the model in the package; returns the exit status."""
    run = RunDir(flags.FLAGS.run_dir)
    try:
        config = run.config()
        run.check_weights()
        target = PRETRAINED_BLIND if config.blind else PRETRAINED
        folders = flags.FLAGS.evaluations or [run.path / "evaluation"]
        scored = [_read_scores(pathlib.Path(folder, "metrics.json")) for folder in folders]
        card = make_card(config, run, scored, (PRETRAINED / "README.md").read_text() if not config.blind else "")
        target.mkdir(exist_ok=True)
        with replacing(RunDir(target).weights) as partial:
            pack_weights(run.weights, partial)
            if partial.stat().st_size > MAX_BYTES:
                raise InputError(f"{run.weights}: over {MAX_BYTES / 1e6:.0f} MB when packed")
        if not config.blind:
            with replacing(PACKAGED) as partial:
                pack_tflite(run, partial)
    except (InputError, OSError) as error:
        print(f"package_model.py: {error}", file=sys.stderr)
        return 1
    (target / "config.json").write_text(without_origin(config).to_json())
    (target / "README.md").write_text(card)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", "runs/pretrained", "Folder of the run.")
    flags.DEFINE_list("evaluations", [], "Folders that evaluate.py wrote, for the card; empty for RUN_DIR/evaluation.")
    app.run(main)
