"""What tests share: a small Config, the embedded SoundFont, a trained run, the folder of real MIDI."""

import importlib.util
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from sourcesep.config import Config, without_foreign_settings
from sourcesep.models import wavenet

ROOT = pathlib.Path(__file__).parents[1]
SOUNDFONT = str(pathlib.Path(importlib.util.find_spec("pretty_midi").origin).with_name("TimGM6mb.sf2"))


# Values that make every model small, for `change`.
TINY = {
    "context_ms": 0.0,
    "filters": 8,
    "head_filters": (16, 8),
    "stacks": 2,
    "blocks": 2,
    "encoder_filters": 16,
    "encoder_stride": 4,
    "kernel_size": 12,
    "levels": 2,
    "level_filters": 4,
    "mix_filters": 3,
    "window_ms": 4.0,
    "hop_ms": 1.0,
    "band_hz": 250.0,
    "bands_per_octave": 2,
}


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """Keeps the MIDI index of tests out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def config():
    """The smallest Config that still has everything: context, two stacks, two instruments."""
    return Config(
        instruments=("drums", "bass"),
        soundfonts=(SOUNDFONT,),
        sample_rate=8_000,
        chunk_ms=100.0,
        context_ms=10.0,
        chunks_per_piece=20,
        pool_chunks=40,
        workers=0,
        batch_size=4,
        learning_rate=1e-3,
        steps=3,
        validate_every=0,
        mixed_precision="float32",
        network=wavenet.Settings(stacks=2, blocks=3, filters=8, head_filters=(16, 8)),
    )


def change(config, **changes):
    """A Config with other fields, or other settings of its model; settings that only other models have are ignored."""
    return Config.from_values(without_foreign_settings({**config.values(), **changes}))


def as_flags(config, **changes):
    """The command line flags that give a Config."""
    return [
        f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in change(config, **changes).values().items()
    ]


@pytest.fixture(scope="session")
def real_midi():
    """The folder of real MIDI files, on machines that have it."""
    folder = ROOT.parent / "shared" / "midi"
    if not folder.is_dir():
        pytest.skip("no folder of real MIDI files next to the checkout")
    return folder
