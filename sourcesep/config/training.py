"""The settings of a training: batches, learning rate, duration, loss."""

from __future__ import annotations

import dataclasses
import math
import os

from sourcesep.loss_terms import describe_terms
from sourcesep.models.settings import setting

STEPS = 1_500  # training steps of the original report


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained: a group of the fields of Config."""

    pool_chunks: int = setting(
        1_000, "Number of chunks in the pool from which batches are drawn.", minimum=1, may_change=True
    )
    reuse: str = setting(
        "auto",
        "How often each chunk is used; auto raises it up to 3 while training waits for data, and lowers it again.",
        choices=("auto", "1", "2", "3"),
        may_change=True,
        alias="chunk_reuse",
    )
    render: str = setting(
        "processes",
        "Where chunks are rendered: processes, on this machine; ray, by Ray Data on the machines of a Ray cluster.",
        choices=("processes", "ray"),
        may_change=True,
    )
    workers: int = setting(
        -1,
        "Number of processes that render chunks; 0 renders in the training process, -1 uses one less than there are "
        "processor cores.",
        may_change=True,
    )
    strategy: str = setting(
        "auto",
        "Devices to train on: one; mirrored, all GPUs of this machine; multi_worker, the machines in TF_CONFIG; auto, "
        "multi_worker if TF_CONFIG is set, else mirrored if there are several GPUs, else one.",
        choices=("auto", "one", "mirrored", "multi_worker"),
        may_change=True,
    )
    batch_size: int = setting(12, "Number of chunks in a batch, on each device.", minimum=1)
    optimizer: str = setting(
        "adam",
        "How weights follow gradients: adam, as in the original report, or muon, which changes matrices in all "
        "directions alike, and of which bandnet learns more in a step; its learning rates are near 3e-3.",
        choices=("adam", "muon"),
    )
    learning_rate: float = setting(1e-4, "Learning rate.", minimum=0.0, may_change=True)
    schedule: str = setting(
        "constant",
        "Learning rate over the training: constant, or cosine, which rises from zero during the first twentieth of the "
        "steps or minutes and then falls to zero along half a cosine.",
        choices=("constant", "cosine"),
    )
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay (AdamW): each step multiplies kernels by 1 - learning_rate * weight_decay. 0 disables "
        "it.",
        minimum=0.0,
    )
    clip_norm: float = setting(
        0.0,
        "Largest global norm of the gradients; larger gradients are scaled down to it. 0 disables it.",
        minimum=0.0,
        may_change=True,
    )
    average: float = setting(
        0.0,
        "Decay of a running average of the weights, e.g. 0.999; the average is then what is validated and saved. 0 "
        "disables it.",
        minimum=0.0,
        maximum=0.99999,
        alias="average_weights",
    )
    steps: int = setting(
        -1,
        f"Number of training steps, including those before a resume; -1 for {STEPS:,}, or as many as --minutes allows; "
        "0 is a dry run, which makes a few steps, writes nothing and prints what to expect.",
        minimum=-1,
        may_change=True,
    )
    minutes: float = setting(
        0.0,
        "Minutes of training, including those before a resume, after which training ends even if --steps are not "
        "reached; the first step, which compiles, and the last validation are not counted. 0 sets no limit.",
        minimum=0.0,
        may_change=True,
    )
    validate_every: int = setting(
        500,
        "Number of steps between validations, each of which scores the model on held-out songs; the best weights are "
        "kept. 0 disables validation and keeps the last weights.",
        minimum=0,
        may_change=True,
    )
    patience: int = setting(
        0,
        "Number of validations in a row without a new best after which training ends; 0 disables it.",
        minimum=0,
        may_change=True,
    )
    checkpoint_minutes: float = setting(
        5.0,
        "Time between checkpoints, in minutes: at most this much training is lost in a crash.",
        minimum=0.0,
        may_change=True,
    )
    loss: str = setting("mae", f"Loss: a sum of weighted terms such as mae+0.5*spectrogram. Terms: {describe_terms()}.")
    start_from: str = setting(
        "",
        "Run directory to copy initial weights from, for every layer with the same name and shapes, and in bandnet for "
        "the bands that both models have; pretrained copies them from the model in the package.",
    )
    seed: int = setting(0, "Seed of all random numbers: songs, chunks, initial weights.", minimum=0)
    mixed_precision: str = setting(
        "auto",
        "Number format of the layers in training; auto is bfloat16 if the processor or GPU supports it, else float32.",
        choices=("auto", "bfloat16", "float32"),
        may_change=True,
    )

    @property
    def max_steps(self) -> float:
        """Number of steps after which training ends, with the default resolved; infinite if only time bounds it."""
        default = math.inf if self.minutes else STEPS
        return default if self.steps < 0 else self.steps

    @property
    def n_workers(self) -> int:
        """Number of render processes, with the default resolved."""
        return max(1, (os.cpu_count() or 2) - 1) if self.workers < 0 else self.workers
