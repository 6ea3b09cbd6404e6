"""Augmentation of groups of chunks: new mixtures made of their stems.

What is varied in one song before its chunks are cut (transposition, tempo, gains ...) is in `data_gen.variation`. The
functions are written in keras.ops, for every backend of Keras, and are given the random numbers that they use.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any  # of any Keras backend


def n_draws(n_targets: int) -> int:
    """Returns how many random numbers `augment` needs for each chunk."""
    return 2 * n_targets + 3


def augment(mixture: Tensor, stems: Tensor, remix: float, drop: float, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Applies `remix_stems`, then `drop_stems`, then with two channels `swap_channels`, to a batch.

    Args:
        mixture: float32 [batch, time, channel].
        stems: float32 [batch, time, channel * target].
        remix, drop: their probabilities; 0 leaves the batch unchanged.
        draws: float32 [batch, n_draws(target)], uniform from 0 to 1.

    Returns:
        (mixture, stems), with the same shapes.
    """
    (batch, time, n_channels), n_columns = ops.shape(mixture), stems.shape[2]
    n_targets = n_columns // n_channels
    mixture, stems = mixture[..., None], ops.reshape(stems, (batch, time, n_channels, n_targets))
    if remix:
        mixture, stems = remix_stems(mixture, stems, remix, draws[:, : n_targets + 2])
    if drop:
        mixture, stems = drop_stems(mixture, stems, drop, draws[:, n_targets + 2 : -1])
    if n_channels == 2:
        mixture, stems = swap_channels(mixture, stems, 0.5, draws[:, -1:])
    return mixture[..., 0], ops.reshape(stems, (batch, time, n_columns))


def remix_stems(mixture: Tensor, stems: Tensor, probability: float, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces the stems of some chunks, each by the same stem of another chunk of the batch.

    This gives more mixtures than there are songs (Uhlich et al. 2017, "Improving music source separation based on deep
    neural networks through data augmentation and network blending"). What a mixture holds besides the stems is
    exchanged like one more stem.

    Args:
        mixture: float32 [batch, time, channel, 1].
        stems: float32 [batch, time, channel, target].
        probability: probability that a chunk is replaced by such a mixture, 0 to 1.
        draws: float32 [batch, 2 + target], uniform from 0 to 1.

    Returns:
        (mixture, stems), with the same shapes.
    """
    remainder = mixture - ops.sum(stems, axis=3, keepdims=True)
    parts = ops.concatenate([stems, remainder], axis=3)  # to [chunk, time, channel, part]
    is_remixed = draws[:, :1, None, None] < probability  # [chunk, 1, 1, 1]
    sources = ops.argsort(draws[:, 1:], axis=0)  # [chunk, part], a permutation of the chunks for each part
    taken = [ops.take(parts[..., part], sources[:, part], axis=0) for part in range(parts.shape[3])]
    parts = ops.where(is_remixed, ops.stack(taken, axis=3), parts)
    return ops.sum(parts, axis=3, keepdims=True), parts[..., :-1]


def drop_stems(mixture: Tensor, stems: Tensor, probability: float, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Removes some stems from the mixture; they become silent.

    Then the model sees each instrument alone or with few others more often than songs have it, and learns to output
    silence for the others (Luo & Yu 2023, "Music source separation with band-split RNN").

    Args:
        mixture: float32 [batch, time, channel, 1].
        stems: float32 [batch, time, channel, target].
        probability: probability that a stem is removed, 0 to 1.
        draws: float32 [batch, target], uniform from 0 to 1.

    Returns:
        (mixture, stems), with the same shapes.
    """
    kept = ops.where(draws[:, None, None] < probability, 0.0, stems)
    return mixture - ops.sum(stems - kept, axis=3, keepdims=True), kept


def swap_channels(mixture: Tensor, stems: Tensor, probability: float, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Swaps left and right in some chunks, so that a model treats both alike.

    Args:
        mixture: float32 [batch, time, 2, 1].
        stems: float32 [batch, time, 2, target].
        probability: probability that a chunk is swapped, 0 to 1.
        draws: float32 [batch, 1], uniform from 0 to 1.

    Returns:
        (mixture, stems), with the same shapes.
    """
    is_swapped = draws[:, :, None, None] < probability
    mixture, stems = (ops.where(is_swapped, ops.flip(audio, axis=2), audio) for audio in (mixture, stems))
    return mixture, stems
