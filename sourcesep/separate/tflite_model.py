"""Runs TFLite files written by export.py."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from data_gen import InputError
from sourcesep.models.reach import ReceptiveField

PACKAGED = pathlib.Path(__file__).parents[1] / "pretrained" / "model.tflite"  # the packaged model, float16 weights
DESCRIPTION = "sourcesep.json"  # name of the description in the ZIP archive that follows the flatbuffer


class TFLiteModel:
    """The model in a TFLite file.

    Called with a mixture, float32 [batch, time, channel] of at most `window_samples`, it returns the stems, float32
    [batch, time, channel * stem]. A shorter mixture is followed by silence.

    Args:
        path: of the file.
        n_threads: number of threads that compute. On a machine that is also busy with other programs, several are
            slower than one, since each operation waits for all of them.
        n_at_once: number of windows of a batch that are computed at the same time. LiteRT does half of the work, the
            Fourier transforms among it, in one thread, so that two windows at once take three quarters of the time of
            one after the other. Each takes as much memory as the first.

    Attributes:
        stem_names: names of the stems.
        sample_rate: in Hz.
        field: the receptive field.
        window_samples: the length that the model computes at once.
        n_channels: its channels.

    Raises InputError if the file is missing, damaged or not written by export.py.
    """

    def __init__(self, path: str | pathlib.Path, n_threads: int = 1, n_at_once: int = 1):
        flatbuffer, description = read_file(path)
        self.stem_names = tuple(description["instruments"])
        self.sample_rate = description["sample_rate_hz"]
        self.field = ReceptiveField(**description["receptive_field_samples"])
        self.window_samples = description["window_samples"]
        self.n_channels = description.get("channels", 1)  # files of earlier versions do not say
        self._n_at_once = n_at_once
        self._make = functools.partial(_interpreter_class(), model_content=flatbuffer, num_threads=n_threads)
        self._interpreters: list[Any] = []  # made when the first batch of as many windows comes
        self._prepare(1)
        self._input = self._interpreters[0].get_input_details()[0]["index"]
        self._output = self._interpreters[0].get_output_details()[0]["index"]

    def __call__(self, mixture: np.ndarray) -> np.ndarray:
        """Returns the stems, [batch, time, channel * stem], of a mixture [batch, time, channel]."""
        n_samples = mixture.shape[1]
        padded = np.pad(mixture, ((0, 0), (0, self.window_samples - n_samples), (0, 0)))
        stems = np.empty((len(mixture), n_samples, self.n_channels * len(self.stem_names)), np.float32)

        def compute(interpreter: Any, positions: range) -> None:
            for position in positions:
                interpreter.set_tensor(self._input, padded[position : position + 1])
                interpreter.invoke()
                # Copied once, where get_tensor() copies too; no view of the memory may live when it is invoked again.
                stems[position] = interpreter.tensor(self._output)()[0, :n_samples]

        # More threads than windows would be idle; Python's lock is released while an interpreter computes.
        interpreters = self._prepare(min(self._n_at_once, len(mixture)))
        shares = [range(first, len(mixture), len(interpreters)) for first in range(len(interpreters))]
        with ThreadPoolExecutor(len(interpreters)) as executor:
            list(executor.map(compute, interpreters, shares))
        return stems

    def _prepare(self, n: int) -> list[Any]:
        """Returns n interpreters."""
        while len(self._interpreters) < n:
            with _silent_stderr():
                interpreter = self._make()
                interpreter.allocate_tensors()
            self._interpreters.append(interpreter)
        return self._interpreters[:n]


def read_file(path: str | pathlib.Path) -> tuple[bytes, dict[str, Any]]:
    """Returns the flatbuffer and the description in a TFLite file.

    Raises InputError if the file is missing, damaged or not written by export.py.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        with zipfile.ZipFile(path) as archive:
            flatbuffer = data[: archive.getinfo(DESCRIPTION).header_offset]
            description = json.loads(archive.read(DESCRIPTION))
        checksum = description["flatbuffer_sha256"]
        ReceptiveField(**description["receptive_field_samples"])
        for name in ("instruments", "sample_rate_hz", "window_samples"):
            description[name]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError):
        raise InputError(f"{path}: not a TFLite file written by export.py, or cut; export the run again") from None
    if hashlib.sha256(flatbuffer).hexdigest() != checksum:
        raise InputError(f"{path}: damaged (its checksum is wrong); export the run again")
    return flatbuffer, description


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what is written to standard error: the interpreter's greeting. Its errors come as exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _interpreter_class() -> Any:
    """Returns LiteRT's interpreter if it is installed, else TensorFlow's, which newer versions no longer have."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError:
        pass
    try:
        from tensorflow.lite import Interpreter

        return Interpreter
    except ImportError:
        raise InputError("TFLite files need LiteRT: pip install ai-edge-litert") from None
