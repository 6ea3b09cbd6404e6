"""Measures the speed of separation: `python -m benchmarks.separation --torch_python=PYTHON`. Prints Markdown.

The figures are seconds of mono audio per second of computing, with random weights: of each model in Keras, as a
SavedModel and in TFLite, of the same network in PyTorch, and for different lengths of windows. Each measurement runs in
a process of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.machine import measure

if TYPE_CHECKING:  # each measurement imports what it measures itself
    import numpy as np

    from sourcesep.config import Config

THIS = "benchmarks.separation"

RATE = 44_100
WINDOW_S = 3.0
WINDOWS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
MIN_S, MIN_CALLS = 6.0, 2  # shortest duration of a measurement, in seconds, and smallest number of calls
MODELS = {
    "wavenet": {},
    "tasnet": {"model": "tasnet", "stacks": 2, "blocks": 8, "encoder_stride": 16},
    "wave_u_net": {"model": "wave_u_net"},
    "baseline": {"model": "baseline"},
    "baseline_skip": {"model": "baseline_skip"},
}
PEERS = ("wavenet", "tasnet")  # the models that exist in PyTorch too, with these settings (torch_networks.py)


def times_real_time(function: Callable[[], object], seconds: float) -> float:
    """Measures the seconds of audio per second of a function that processes `seconds`; the fastest call counts."""
    function()
    durations_s, end_s = [], time.perf_counter() + MIN_S
    while len(durations_s) < MIN_CALLS or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        function()
        durations_s.append(time.perf_counter() - began_s)
    return seconds / min(durations_s)


def config_of(name: str) -> Config:
    """Returns the Config of a model."""
    from sourcesep.config import Config

    return Config.from_values(MODELS[name])


def noise(window_s: float) -> np.ndarray:
    """Returns a window of noise, float32 [1, time, 1]."""
    import numpy as np

    n_samples = round(window_s * RATE) // 4096 * 4096  # a multiple of the stride of every model
    return (0.1 * np.random.default_rng(0).standard_normal((1, n_samples, 1))).astype(np.float32)


def keras_speed(name: str, policy: str, window_s: float = WINDOW_S) -> float:
    """Measures a tf.function of the Keras model, as the Separator uses it."""
    import tensorflow as tf

    from sourcesep.models import build

    model = build(config_of(name), policy)
    forward = tf.function(lambda mixture: model(mixture, training=False))
    window = noise(window_s)
    return times_real_time(lambda: forward(window).numpy(), window.shape[1] / RATE)


def windows_speed(name: str, policy: str) -> list[float]:
    """Measures `keras_speed` for each of WINDOWS_S."""
    return [keras_speed(name, policy, window_s) for window_s in WINDOWS_S]


def saved_model_speed(name: str, _policy: str) -> float:
    """Measures the first signature of the SavedModel."""
    import tensorflow as tf

    from sourcesep.export import exporting, saved_model
    from sourcesep.models import build
    from sourcesep.models.receptive_field import receptive_field

    model = build(config_of(name))
    with tempfile.TemporaryDirectory() as folder:
        description = exporting.describe(config_of(name), receptive_field(model))
        saved_model.write(model, description, name, pathlib.Path(folder))
        separate = tf.saved_model.load(folder).signatures["serving_default"]
        window = noise(WINDOW_S)
        return times_real_time(lambda: separate(mixture=window[:, :, 0]), window.shape[1] / RATE)


def tflite_speed(name: str, type_: str) -> float:
    """Measures the TFLite interpreter, on all cores."""
    from sourcesep.export import exporting, tflite
    from sourcesep.models import build
    from sourcesep.models.receptive_field import receptive_field
    from sourcesep.separate.tflite_model import TFLiteModel

    model, window = build(config_of(name)), noise(WINDOW_S)
    ((_, flatbuffer),) = tflite.convert(model, [type_], window.shape[1])
    description = exporting.describe(config_of(name), receptive_field(model))
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        tflite.write(pathlib.Path(file.name), flatbuffer, {**description, "window_samples": window.shape[1]})
        lite = TFLiteModel(file.name, n_threads=os.cpu_count())
        return times_real_time(lambda: lite(window), window.shape[1] / RATE)


def torch_speed(name: str, policy: str) -> float:
    """Measures the same network in PyTorch."""
    import torch

    from benchmarks import torch_networks

    network = torch_networks.NETWORKS[name]().eval()
    window = torch.from_numpy(noise(WINDOW_S)).transpose(1, 2)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=policy == "mixed_bfloat16"):
            network(window)

    return times_real_time(forward, window.shape[2] / RATE)


def main(torch_python: str) -> None:
    """Measures and prints the results."""
    columns = {
        "Keras float32": (sys.executable, "keras_speed", "float32"),
        "PyTorch float32": (torch_python, "torch_speed", "float32"),
        "Keras bfloat16": (sys.executable, "keras_speed", "mixed_bfloat16"),
        "PyTorch bfloat16": (torch_python, "torch_speed", "mixed_bfloat16"),
        "SavedModel": (sys.executable, "saved_model_speed", "float32"),
        "TFLite float32": (sys.executable, "tflite_speed", "float32"),
        "TFLite dynamic": (sys.executable, "tflite_speed", "dynamic"),
    }
    print(
        f"Seconds of {RATE:,} Hz mono audio separated per second of computing, in windows of {WINDOW_S:g} s; tasnet "
        "has 2 x 8 blocks.\n"
    )
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in MODELS:
        cells = []
        for python, function, how in columns.values():
            is_there = python and (function != "torch_speed" or name in PEERS)
            value = measure(THIS, python, function, name, how) if is_there else None
            cells.append("-" if value is None else f"{value:.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n| windows of | {' | '.join(f'{window_s:g} s' for window_s in WINDOWS_S)} |")
    print(f"|---|{'---|' * len(WINDOWS_S)}")
    for name in ("wavenet", "tasnet"):
        values = measure(THIS, sys.executable, "windows_speed", name, "float32") or []
        print(f"| {name}, Keras float32 | {' | '.join(f'{value:.2f}' for value in values)} |", flush=True)
    print(
        "\nWindows overlap by the receptive field, which lowers these figures: by a quarter for windows of four fields."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(globals()[sys.argv[2]](sys.argv[3], sys.argv[4])))
    else:
        from absl import app, flags

        flags.DEFINE_string("torch_python", "", "Python of an environment with PyTorch; empty to leave it out.")
        app.run(lambda _: main(flags.FLAGS.torch_python))
