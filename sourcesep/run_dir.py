"""What a run leaves on disk, and how to open it again.

config.json          the Config
checkpoints/         everything needed to go on training
best.weights.h5      the weights to use
events.out.tfevents* for TensorBoard
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence

import h5py
import numpy as np

from data_gen import InputError
from data_gen.files import write_atomically
from sourcesep.config import Config
from sourcesep.models import build, unconditioned
from sourcesep.models.settings import as_flag

PRETRAINED = pathlib.Path(__file__).with_name("pretrained")  # the run whose model comes with the package

_CHECKSUM = "sourcesep_sha256"  # attribute of the file of weights


class RunDir:
    """A run directory.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of the training checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> pathlib.Path:
        """The file of the weights to use."""
        return self.path / "best.weights.h5"

    def create(self, config: Config) -> None:
        """Makes the folder and writes the Config; in a folder that holds a run already, checks that it is the same.

        Raises InputError if the Config contradicts the run's, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--run_dir={self.path}: cannot make this folder ({error.strerror})") from None
        if (self.path / "config.json").exists():
            before, now = self.config().values(), config.values()
            for name, field in config.setting_fields().items():  # the model comes first, so that it is the same below
                if now[name] != before[name] and not field.metadata["may_change"]:
                    raise InputError(
                        f"--{name}={as_flag(now[name])} contradicts the run in {self.path}, which was begun with "
                        f"{as_flag(before[name])}; name another --run_dir, or leave the flag as it was"
                    )
        write_atomically(self.path / "config.json", config.to_json().encode())

    def config(self) -> Config:
        """The run's Config. Raises InputError if there is none, or none that this version understands."""
        path = self.path / "config.json"
        try:
            return Config.from_json(path.read_text())
        except OSError:
            raise InputError(f"{self.path}: no run directory (it has no config.json); train.py makes one") from None
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}: damaged, or written by another version of sourcesep ({error}); "
                "use that version, or train into another --run_dir"
            ) from None

    def check_weights(self) -> None:
        """Raises InputError if there is no file of weights."""
        if not self.weights.exists():
            raise InputError(f"{self.path}: no weights there yet (best.weights.h5); train.py --run_dir writes them")

    def model(self, dtype_policy: str = "float32", present: Sequence[str] = ()):
        """The run's model with its weights, from the mixture alone to stems; `present` as in `models.unconditioned`.

        Raises InputError if there are no weights, or none that fit, and for stems that the model does not have.
        """
        return unconditioned(self.trained_model(dtype_policy), self.config(), present)

    def trained_model(self, dtype_policy: str = "float32"):
        """The run's model with its weights, as `models.build` makes it. Raises InputError for weights like `model`."""
        config = self.config()
        self.check_weights()
        model = build(config, dtype_policy)
        try:
            with h5py.File(self.weights) as file:
                if file.attrs.get(_CHECKSUM, checksum := _checksum(file)) != checksum:
                    raise ValueError("its checksum is another")
            model.load_weights(self.weights)
        except Exception as error:  # whatever h5py and Keras raise for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.weights}: damaged, or of another model than config.json says ({reason}); "
                "restore it, or train again"
            ) from None
        return model

    def save_weights(self, model) -> None:
        """Writes the weights to use; a reader sees the old file or the new one, never half of it."""
        partial = self.path / "partial.weights.h5"
        model.save_weights(partial)
        with h5py.File(partial, "r+") as file:
            file.attrs[_CHECKSUM] = _checksum(file)
        os.replace(partial, self.weights)


def _checksum(file: h5py.File) -> str:
    """Of all arrays and their names; HDF5 itself does not notice when some of its bytes change."""
    digest = hashlib.sha256()

    def add(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + np.asarray(item).tobytes())

    file.visititems(add)
    return digest.hexdigest()
