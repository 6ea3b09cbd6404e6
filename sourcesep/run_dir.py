"""A run directory: what a run writes to disk, and how it is read again.

config.json          the Config
checkpoints/         everything needed to resume training
best.weights.h5      the weights to use
events.out.tfevents* for TensorBoard
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import filelock
import h5py
import numpy as np

from data_gen import InputError
from data_gen.files import replacing, write_atomically
from sourcesep.config import Config
from sourcesep.config.songs import PATH_SETTINGS, expand_setting
from sourcesep.models import build, unconditioned
from sourcesep.models.settings import as_flag

if TYPE_CHECKING:
    import keras

# The run directories that come with the package: the model that is used by default, and that of the blind setting.
PRETRAINED = pathlib.Path(__file__).with_name("pretrained")
PRETRAINED_BLIND = pathlib.Path(__file__).with_name("pretrained_blind")

_CHECKSUM = "sourcesep_sha256"  # attribute of the weights file that holds its checksum


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
    def jax_checkpoint(self) -> pathlib.Path:
        """The checkpoint of training on JAX."""
        return self.checkpoints / "jax.npz"

    @property
    def jax_training(self) -> pathlib.Path:
        """The file that tells how long a run was trained on JAX: {"steps": ..., "seconds": ..., "device": ...}."""
        return self.path / "jax_training.json"

    @property
    def weights(self) -> pathlib.Path:
        """The file of the weights to use."""
        return self.path / "best.weights.h5"

    def create_or_resume(self, config: Config) -> None:
        """Creates the folder and writes the Config; if it holds a run already, first checks that the Configs agree.

        Settings that may change during a run are replaced. Raises InputError if others differ, or if the folder cannot
        be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--run_dir={self.path}: cannot create this folder ({error.strerror})") from error
        if (self.path / "config.json").exists():
            before, now = self.config().values(), config.values()
            for name, field in config.setting_fields().items():  # the model comes first, so that it is the same below
                if name in PATH_SETTINGS:  # a config.json written before may hold relative paths
                    before[name], now[name] = (expand_setting(name, values[name]) for values in (before, now))
                if now[name] != before[name] and not field.metadata["may_change"]:
                    raise InputError(
                        f"--{name}={as_flag(now[name])} contradicts the run in {self.path}, which was started with "
                        f"{as_flag(before[name])}; choose another --run_dir, or leave this flag as it was"
                    )
        write_atomically(self.path / "config.json", config.to_json().encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other trainings out of the folder while the block runs; creates the folder.

        The system gives the lock back when this process ends, however it ends.

        Raises InputError, which names the other one, if there is another training; or if the folder cannot be made.
        """
        owner = self.path / ".training"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            try:
                other = owner.read_text(encoding="utf-8")
            except OSError:
                other = "another process"
            raise InputError(
                f"--run_dir={self.path}: {other} is training there; wait until it ends, or choose another folder"
            ) from None
        except NotImplementedError:  # a file system without locks
            yield
            return
        except OSError as error:
            raise InputError(f"--run_dir={self.path}: cannot create this folder ({error.strerror})") from error
        try:
            with contextlib.suppress(OSError):
                write_atomically(owner, f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
            lock.release()

    def config(self) -> Config:
        """Returns the run's Config. Raises InputError if there is none, or if this version cannot read it."""
        path = self.path / "config.json"
        try:
            return Config.from_json(path.read_text())
        except OSError:
            raise InputError(f"{self.path}: no run directory (it has no config.json); train.py creates one") from None
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}: damaged, or written by another version of sourcesep ({error}); "
                "use that version, or train into another --run_dir"
            ) from None

    def check_weights(self) -> None:
        """Raises InputError if there are no weights yet."""
        if not self.weights.exists():
            raise InputError(f"{self.path}: no weights there yet (best.weights.h5); train.py --run_dir writes them")

    def model(self, dtype_policy: str = "float32", present: Sequence[str] = ()) -> keras.Model:
        """Returns the run's model with its weights, from the mixture to stems; `present` as in `models.unconditioned`.

        Raises InputError if there are no weights, if they do not fit, and for stems that the model does not have.
        """
        return unconditioned(self.trained_model(dtype_policy), self.config(), present)

    def trained_model(self, dtype_policy: str = "float32") -> keras.Model:
        """Returns the run's model with its weights, as `models.build` returns it.

        Raises InputError if there are no weights, or if they do not fit.
        """
        config = self.config()
        self.check_weights()
        model = build(config, dtype_policy)
        try:
            with h5py.File(self.weights) as file:
                if file.attrs.get(_CHECKSUM, checksum := _checksum(file)) != checksum:
                    raise ValueError("wrong checksum")
            model.load_weights(self.weights)
        except Exception as error:  # h5py and Keras raise many types of errors for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.weights}: damaged, or not the weights of the model in config.json ({reason}); "
                "restore it, or train again"
            ) from error
        return model

    def save_weights(self, model: keras.Model) -> None:
        """Writes the weights to use; a reader sees the old file or the new one, never half of it."""
        with replacing(self.weights) as partial:
            model.save_weights(partial)
            with h5py.File(partial, "r+") as file:
                file.attrs[_CHECKSUM] = _checksum(file)


def _checksum(file: h5py.File) -> str:
    """Returns the SHA-256 of the names and bytes of all arrays. HDF5 does not detect corrupted data itself."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + np.asarray(item).tobytes())

    file.visititems(add)
    return digest.hexdigest()
