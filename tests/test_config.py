import subprocess
import sys

import pytest
from conftest import ROOT, change

from data_gen import InputError
from sourcesep.config import Config

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
    flags = dict(
        line[2:].split("=", 1) for line in (ROOT / "wavenet.flags").read_text().splitlines() if line.startswith("--")
    )
    del flags["run_dir"]
    for name, text in flags.items():
        default = Config().values()[name]
        if name.startswith("vary_"):
            assert text == "0", name
        elif isinstance(default, tuple):
            assert tuple(text.split(",")) == tuple(map(str, default)), name
        else:
            assert type(default)(text) == default, name
    varied = {name for name in Config().values() if name.startswith("vary_")}
    assert {name for name in flags if name.startswith("vary_")} == varied


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "wavenot"}, "wavenet"),
        ({"instruments": ()}, "at least one instrument"),
        ({"instruments": ("drums", "double bass")}, "'double bass' is not a name"),
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
