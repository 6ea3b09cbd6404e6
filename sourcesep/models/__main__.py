"""What each model costs: `python -m sourcesep.models [--measure] [FILE.flags ...]` prints a table.

A row for every model with the flags given (for what is not, the defaults), and one for each file of flags.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Iterable

import keras
import numpy as np
from absl import app, flags

from data_gen import InputError
from sourcesep.config import Config, define_flags
from sourcesep.models import MODELS, build, plain
from sourcesep.models.receptive_field import gflop_per_s, receptive_field

HEADINGS = ("model", "sample rate", "parameters", "receptive field", "GFLOP per second of audio", "times real time")


def describe(name: str, config: Config, measure: bool) -> tuple[str, ...]:
    """A row of the table, as HEADINGS has it. The model's weights are random: they do not matter here."""
    model = plain(build(config), config)
    field_ms = 1_000 * receptive_field(model).samples / config.sample_rate
    return (
        name,
        f"{config.sample_rate:,} Hz",
        f"{model.count_params():,}",
        f"{field_ms:,.0f} ms",
        f"{gflop_per_s(model, config.sample_rate):,.1f}",
        f"{times_real_time(model, config):,.2f}" if measure else "",
    )


def times_real_time(model: keras.Model, config: Config) -> float:
    """Seconds of audio (mono, float32) that a Separator splits in a second on this machine, over two windows."""
    from sourcesep.separate.separation import Separator

    separator = Separator.from_model(model, config.outputs, config.sample_rate)
    window = (0.1 * np.random.default_rng(0).standard_normal(separator.window_samples)).astype(np.float32)
    separator.separate(window, config.sample_rate)  # the first call also makes the graph
    began_s = time.perf_counter()
    separator.separate(np.tile(window, 2), config.sample_rate)
    return 2 * len(window) / config.sample_rate / (time.perf_counter() - began_s)


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_flags(path: str) -> Config:
    """The Config that a file of flags gives. Raises InputError if it cannot be read."""
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_string("run_dir", "", "", flag_values=values)
    try:
        values([path, f"--flagfile={path}"])
    except (flags.Error, OSError) as error:
        raise InputError(f"{path}: cannot be read as flags ({error})") from None
    return Config.from_flags(values)


def _main(arguments: list[str]) -> int:
    try:
        given = Config.from_flags()
        configs = {name: dataclasses.replace(given, model=name) for name in MODELS}
        configs.update((pathlib.Path(path).stem, read_flags(path)) for path in arguments[1:])
        print(markdown(describe(name, config, flags.FLAGS.measure) for name, config in configs.items()))
    except InputError as error:
        print(f"sourcesep.models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_bool("measure", False, "Also measure how fast each model runs, which takes seconds to a minute each.")
    app.run(_main)
