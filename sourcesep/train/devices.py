"""The devices that train: which ones tf.distribute uses, their arithmetic, and the memory of this process."""

from __future__ import annotations

import pathlib
import re

import psutil
import tensorflow as tf

from sourcesep.cluster import is_cluster, machine_number
from sourcesep.config import Config

BFLOAT16_CAPABILITY = (8, 0)  # CUDA compute capability from which NVIDIA GPUs compute in bfloat16 (Ampere)


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """Returns the tf.distribute strategy that `--strategy` names. Call it before anything else of TensorFlow.

    Raises InputError if several machines should train and TF_CONFIG does not describe them.
    """
    if is_cluster(config):
        machine_number(config)  # raises InputError for a missing or malformed TF_CONFIG
        return tf.distribute.MultiWorkerMirroredStrategy()
    n_gpus = len(tf.config.list_logical_devices("GPU"))
    if config.strategy == "mirrored" or (config.strategy == "auto" and n_gpus > 1):
        devices = None if n_gpus else [device.name for device in tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def dtype_policy(mixed_precision: str) -> str:
    """Returns the Keras dtype policy for `--mixed_precision`.

    "auto" gives mixed_bfloat16 if the GPU, or the processor where there is no GPU, computes in bfloat16.
    """
    has_bfloat16 = _has_bfloat16() if mixed_precision == "auto" else mixed_precision == "bfloat16"
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def _has_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return tuple(capability) >= BFLOAT16_CAPABILITY
    cpu_info = pathlib.Path("/proc/cpuinfo")  # Linux only; elsewhere float32 is the safe choice
    return cpu_info.exists() and "avx512_bf16" in cpu_info.read_text()


def peak_memory_mb() -> float:
    """Returns the largest resident memory of this process so far, in MB.

    Linux and Windows record the peak. Elsewhere (macOS) this is the memory in use now.
    """
    status = pathlib.Path("/proc/self/status")  # of Linux, where psutil does not report the peak
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if peak:
        return int(peak[1]) / 2**10
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**20  # peak_wset: Windows
