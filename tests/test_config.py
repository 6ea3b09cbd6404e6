import dataclasses
import json
import re
import subprocess
import sys

import pytest
from absl import flags
from conftest import ROOT, change

from data_gen import InputError
from sourcesep.config import Config, define_flags
from sourcesep.loss_terms import TERMS
from sourcesep.models import tasnet

CONTRACT = (
    "run_dir model instruments targets midi_dir soundfonts sample_rate chunk_ms context_ms batch_size learning_rate "
    "steps loss stacks blocks filters head_filters pool_chunks reuse chunks_per_piece workers seed mixed_precision"
).split()


def test_the_saved_json_gives_the_same_config_back(config):
    assert Config.from_json(config.to_json()) == config


def test_the_defaults_are_the_published_experiment():
    config = Config()
    assert (config.sample_rate, config.chunk_samples, config.context_samples) == (44_100, 4_410, 0)
    network = config.network
    assert (network.stacks, network.blocks, network.filters, network.head_filters) == (4, 10, 128, (512, 256))
    assert (config.batch_size, config.learning_rate, config.max_steps, config.loss) == (12, 1e-4, 1_500, "mae")
    assert config.targets == config.instruments == ("drums", "piano", "strings", "bass")


def test_helpfull_explains_every_flag_of_the_contract_with_its_default():
    shown = subprocess.run(
        [sys.executable, "train.py", "--helpfull"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    for name in CONTRACT:
        assert f"--{name}:" in shown or f"--[no]{name}:" in shown or f"--{name}: <" in shown, name
    assert "default: '44100'" in shown
    assert "in milliseconds" in shown


def test_the_flagfile_of_the_published_experiment_gives_the_defaults_without_variation():
    given = dict(
        line[2:].split("=", 1) for line in (ROOT / "wavenet.flags").read_text().splitlines() if line.startswith("--")
    )
    del given["run_dir"]
    for name, text in given.items():
        default = Config().max_steps if name == "steps" else Config().values()[name]
        if name.startswith("vary_"):
            assert text == "0", name
        elif isinstance(default, tuple):
            assert tuple(text.split(",")) == tuple(map(str, default)), name
        else:
            assert type(default)(text) == default, name
    assert {name for name in given if name.startswith("vary_")} == {
        name for name, value in Config().values().items() if name.startswith("vary_") and value
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "wavenot"}, "wavenet"),
        ({"instruments": ()}, "at least one instrument"),
        ({"midi_share": -0.5}, "midi_share=-0.5"),
        ({"instruments": ("drums", "double bass")}, "instrument name 'double bass': use letters"),
        ({"instruments": ("drums", "bass", "bass:3")}, "'bass' is named twice"),
        ({"targets": ("piano",)}, "piano"),
        ({"targets": ("bass", "bass")}, "'bass' is named twice"),
        ({"sample_rate": 0}, "--sample_rate"),
        ({"keep_solo": 1.5}, "--keep_solo"),
        ({"head_filters": (0,)}, "--head_filters"),
        ({"patience": 3, "validate_every": 0}, "--patience=3.*--validate_every"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(config, changes, named):
    with pytest.raises(InputError, match=named):
        change(config, **{"targets": (), **changes})


def parsed(*arguments):
    """The Config that command line flags give."""
    values = flags.FlagValues()
    define_flags(values)
    values(["train.py", *arguments])
    return Config.from_flags(values)


def test_flags_set_fields_and_settings_of_the_model_and_leave_out_what_is_not_given():
    assert parsed("--model=tasnet", "--filters=16") == Config(model="tasnet", network=tasnet.Settings(filters=16))
    assert parsed("--head_filters=64,32").network.head_filters == (64, 32)
    assert parsed("--head_filters=").network.head_filters == ()
    assert not parsed("--model=wave_u_net", "--nodifference").network.difference


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model=tasnet", "--kernel_size=5"],
            "--kernel_size is a setting of baseline, baseline_skip; --model=tasnet has none",
        ),
        (["--nodifference"], "--difference is a setting of wave_u_net; --model=wavenet has none"),
        (["--head_filters=64,many"], "--head_filters=64,many: it takes a list of whole numbers such as 512,256"),
        (["--head_filters=64,0"], "--head_filters=64,0: each must be at least 1"),
        (["--blocks=21"], "--blocks=21: it must be from 1 to 20"),
        (["--learning_rate=nan"], "--learning_rate=nan: it must be at least 0.0"),
    ],
)
def test_flags_that_the_model_lacks_or_that_are_out_of_range_are_refused_in_one_line(arguments, message):
    with pytest.raises(InputError) as refused:
        parsed(*arguments)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("--drop_stems=0.5", "drop", 0.5),
        ("--average_weights=0.9", "average", 0.9),
        ("--chunk_reuse=2", "reuse", "2"),
        ("--noappend_rest", "difference", False),
    ],
)
def test_a_flag_may_be_given_by_its_alias(alias, name, value):
    arguments = ["--model=wave_u_net"] if name == "difference" else []
    assert parsed(*arguments, alias).values()[name] == value


def test_the_help_of_a_setting_names_the_models_that_have_it_and_their_defaults():
    values = flags.FlagValues()
    define_flags(values)
    assert values["kernel_size"].help == "baseline, baseline_skip: Width of each convolution, in samples. Default: 101."
    assert values["filters"].help.startswith("wavenet, tasnet: ")
    assert "baseline, baseline_skip: " in values["filters"].help
    for term in TERMS:
        assert f"{term}, " in values["loss"].help


def test_saved_json_holds_the_settings_of_its_model_only_and_files_with_those_of_all_models_are_read(config):
    saved = json.loads(config.to_json())
    assert saved["head_filters"] == [16, 8]
    assert "encoder_filters" not in saved
    before = {**saved, "encoder_filters": 256, "kernel_size": 101, "difference": True}
    assert Config.from_json(json.dumps(before)) == config
    with pytest.raises(ValueError, match="it has colour, which this version does not know"):
        Config.from_json(json.dumps({**saved, "colour": 1}))


def test_any_name_can_be_an_instrument_of_a_config():
    assert Config(instruments=("vocals", "guitar"), targets=("vocals",)).stem_names == ("vocals",)


def test_a_config_does_not_keep_the_settings_of_another_model(config):
    with pytest.raises(InputError, match="settings of another model than tasnet; use Config.from_values"):
        dataclasses.replace(config, model="tasnet")


def test_a_loss_that_does_not_exist_is_refused_without_tensorflow_and_before_anything_is_rendered():
    script = (
        "import sys; sys.modules.update(tensorflow=None, keras=None); sys.argv = ['train.py', '--loss=nonsense'];"
        "from sourcesep.cli import train; train()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: --loss=nonsense: 'nonsense' is not a loss; known are mae, mse")
    assert len(done.stderr.splitlines()) == 1


def test_the_presets_that_the_pages_name_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "flags").glob("*")]
    named = {name for page in pages for name in re.findall(r"\bflags/\w+\.flags", page.read_text())}
    assert "flags/quickstart.flags" in named
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]
