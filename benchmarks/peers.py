"""Networks of other projects in PyTorch, trained on the same chunks and scored by the same code.

    python -m benchmarks.peers --peer=conv_tasnet --run_dir=runs/conv_tasnet --steps=1000 [flags of train.py]

Conv-TasNet is from asteroid, HDemucs and HTDemucs are from demucs. They need an environment of their own, without
TensorFlow:

    pip install torch==2.13.0
    pip install --no-deps asteroid asteroid-filterbanks demucs
    pip install absl-py einops h5py huggingface_hub jinja2 julius matplotlib mido pretty_midi pyfluidsynth
    pip install pyyaml requests safetensors scipy soundfile soxr tensorboard tqdm

Each is trained in float32 with Adam on the mean squared error. The learning rate follows --schedule=cosine, with the
authors' value at its peak. The trained network is applied in windows of the length that it was trained on, which
overlap by half and are cross-faded. Nothing else should run on the machine: PyTorch's threads wait for each other, and
lose most of their time if one of them is delayed.
"""

from __future__ import annotations

import dataclasses
import fractions
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import app, flags
from tqdm import tqdm

from data_gen.files import replacing, write_atomically
from data_gen.workers import Workers
from sourcesep import config as sourcesep_config
from sourcesep import sources
from sourcesep.config import Config
from sourcesep.evaluate import evaluation
from sourcesep.evaluate.songs import Song, list_held_out
from sourcesep.run_dir import RunDir

LEARNING_RATES = {"conv_tasnet": 1e-3, "hdemucs": 3e-4, "htdemucs": 3e-4}


def build(peer: str, config: Config) -> Any:
    """Builds a torch module from [batch, time] to [batch, time, target]."""
    import torch

    n_targets, rate = len(config.targets), config.sample_rate
    segment = fractions.Fraction(config.chunk_samples, rate)
    if peer == "conv_tasnet":
        from asteroid.models import ConvTasNet

        model = ConvTasNet(
            n_targets, n_filters=256, kernel_size=32, stride=16, n_blocks=8, n_repeats=2, mask_act="sigmoid",
            bn_chan=128, hid_chan=256, skip_chan=128, sample_rate=rate,
        )  # fmt: skip
    elif peer == "hdemucs":
        from demucs.hdemucs import HDemucs

        model = HDemucs(list(config.targets), audio_channels=1, channels=32, samplerate=rate, segment=segment)
    else:
        from demucs.htdemucs import HTDemucs

        model = HTDemucs(list(config.targets), audio_channels=1, samplerate=rate, segment=segment)

    class Peer(torch.nn.Module):
        """Gives all peers the same shapes of input and output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, mixture: torch.Tensor) -> torch.Tensor:
            """Separates [batch, time] into [batch, time, target]."""
            stems = self.model(mixture[:, None])
            return (stems[:, :, 0] if stems.ndim == 4 else stems).transpose(1, 2)

    return Peer()


def batches(workers: Workers, config: Config) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (mixture [batch, time], stems [batch, time, target]); each chunk is drawn once, from a pool of chunks."""
    rng = np.random.default_rng(config.seed)
    pool: list[tuple[np.ndarray, np.ndarray]] = []
    for visit in workers:
        pool += zip(visit.mixture[:, :, 0], visit.stems)
        while len(pool) >= config.pool_chunks + config.batch_size:
            drawn = [pool.pop(rng.integers(len(pool))) for _ in range(config.batch_size)]
            yield tuple(map(np.stack, zip(*drawn)))


def train(peer: str, config: Config, run_dir: pathlib.Path) -> Any:
    """Trains a peer, logs losses for TensorBoard, and returns the module; loads it if the run is complete."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(config.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = build(peer, config)
    weights = run_dir / "peer.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights))
        return model.eval()
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    write_atomically(run_dir / "peer.json", json.dumps({"parameters": n_parameters}).encode())
    for log in run_dir.glob("events.out.tfevents*"):  # from a run that was stopped; this one starts again
        log.unlink()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATES[peer])
    schedule = torch.optim.lr_scheduler.OneCycleLR(  # a pct_start of 0.05 divides by zero at 20 steps
        optimizer, LEARNING_RATES[peer], config.steps, pct_start=0.0499, cycle_momentum=False
    )
    chunker = dataclasses.replace(sources.make_chunker(config, "train"), context_samples=0)
    with (
        Workers(chunker, config.n_workers) as workers,
        SummaryWriter(run_dir, flush_secs=2) as log,
        tqdm(total=config.steps, unit="step", dynamic_ncols=True) as bar,
    ):
        for step, (mixture, stems) in enumerate(itertools.islice(batches(workers, config), config.steps), start=1):
            loss = torch.nn.functional.mse_loss(model(torch.from_numpy(mixture)), torch.from_numpy(stems))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            log.add_scalar("loss", float(loss), step, new_style=True)  # in the format that TensorFlow uses
            bar.set_postfix_str(f"loss {float(loss):.5f}", refresh=False)
            bar.update()
    with replacing(weights) as partial:
        torch.save(model.state_dict(), partial)
    return model.eval()


def separate_with(model: Any, config: Config) -> evaluation.Separate:
    """Returns the function that `evaluation.evaluate` separates songs with."""
    import torch

    width = config.chunk_samples
    hop = width // 2
    weight = np.minimum(np.arange(width) + 1, np.arange(width, 0, -1)).astype(np.float32)[:, None]

    def separate(song: Song, advance: evaluation.Advance) -> dict[str, np.ndarray]:
        mixture = song.mixture[:, 0]
        n_windows = -(-len(mixture) // hop) + 1
        padded = np.pad(mixture, (hop, n_windows * hop + width - hop - len(mixture)))
        total = np.zeros((len(padded), len(config.targets)), np.float32)
        weights = np.zeros((len(padded), 1), np.float32)
        for window in range(n_windows):
            inside = slice(window * hop, window * hop + width)
            with torch.no_grad():
                stems = model(torch.from_numpy(padded[None, inside]))[0].numpy()
            total[inside] += weight * stems
            weights[inside] += weight
            advance(1 / n_windows)
        stems = (total / np.maximum(weights, 1e-9))[hop : hop + len(mixture)]
        return {name: stems[:, [position]] for position, name in enumerate(config.targets)}

    return separate


def main(_) -> None:
    """Trains and scores one peer."""
    options = flags.FLAGS
    config = Config.from_flags()
    run_dir = pathlib.Path(options.run_dir)
    RunDir(run_dir).create_or_resume(config)
    model = train(options.peer, config, run_dir)
    songs = list_held_out(config, options.test_midi_dir, options.test_soundfonts, options.pieces, options.seconds)
    separate = separate_with(model, config)
    print(evaluation.evaluate(songs, run_dir / "evaluation", options.peer, separate, config).table)


if __name__ == "__main__":
    sourcesep_config.define_flags()
    flags.DEFINE_enum("peer", "conv_tasnet", list(LEARNING_RATES), "Which peer.")
    flags.DEFINE_string("run_dir", "runs/peer", "Folder of the run.")
    flags.DEFINE_string("test_midi_dir", "", "As --midi_dir of evaluate.py.")
    flags.DEFINE_list("test_soundfonts", [], "As --soundfonts of evaluate.py.")
    flags.DEFINE_integer("pieces", 20, "As in evaluate.py.")
    flags.DEFINE_float("seconds", 20.0, "As in evaluate.py.")
    app.run(main)
