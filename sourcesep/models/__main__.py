"""Prints a table of what each model costs: `python -m sourcesep.models [--measure] [FILE.flags ...]`.

It has a row for every model, with the flags given and defaults for the others, and a row for each preset (a file of
flags). A model ignores flags that are settings of other models.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from data_gen import InputError
from sourcesep.cli.common import run
from sourcesep.config import Config, define_flags
from sourcesep.models import MODELS, build, unconditioned

if TYPE_CHECKING:
    import keras

HEADINGS = ("model", "sample rate", "parameters", "receptive field", "GFLOP per second of audio", "times real time")


def describe(name: str, config: Config, measure: bool) -> tuple[str, ...]:
    """Returns a row of the table, with the columns of HEADINGS. The weights are random: costs do not depend on them."""
    from sourcesep.models.receptive_field import gflop_per_s, receptive_field

    model = unconditioned(build(config), config)
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
    """Measures how many seconds of audio (float32) a Separator splits in a second here, over two windows."""
    from sourcesep.separate.separation import Separator

    separator = Separator.from_model(model, config.stem_names, config.sample_rate)
    shape = (separator.window_samples, config.channels)
    window = (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    separator.separate(window, config.sample_rate)  # the first call also builds the graph
    began_s = time.perf_counter()
    separator.separate(np.tile(window, (2, 1)), config.sample_rate)
    return 2 * len(window) / config.sample_rate / (time.perf_counter() - began_s)


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a table in Markdown, with the columns of HEADINGS; all columns except the first are numbers."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_flags(path: str) -> Config:
    """Returns the Config of a preset (a file of flags). Raises InputError if it cannot be read."""
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_string("run_dir", "", "", flag_values=values)
    try:
        values([path, f"--flagfile={path}"])
    except (flags.Error, OSError) as error:
        raise InputError(f"{path}: cannot be read as flags ({error})") from None
    return Config.from_flags(values)


def _main(paths: list[str]) -> int:
    configs = {name: Config.from_flags(model=name) for name in MODELS}
    configs.update((pathlib.Path(path).stem, read_flags(path)) for path in paths)
    print(markdown(describe(name, config, flags.FLAGS.measure) for name, config in configs.items()))
    return 0


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_bool("measure", False, "Also measure how fast each model runs, which takes seconds to a minute each.")
    run(_main, __doc__)
