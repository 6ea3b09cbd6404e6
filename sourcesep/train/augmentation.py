"""Augmentation of batches: new mixtures made of the stems of a batch.

What is varied in one song before its chunks are cut (transposition, tempo, gains ...) is in `data_gen.variation`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Augmentation = Callable[[tf.Tensor, tf.Tensor, float, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def augment(dataset: tf.data.Dataset, remix: float, drop: float, seed: int) -> tf.data.Dataset:
    """Applies `remix_stems`, then `drop_stems`, then with two channels `swap_channels`, to every batch.

    Args:
        dataset: batches (mixture float32 [batch, time, channel], stems float32 [batch, time, channel * target], ...).
        remix, drop: their probabilities; 0 leaves the batches unchanged.
        seed: of everything that is drawn.

    Returns:
        Batches of the same shapes.
    """
    if remix:
        dataset = _apply(dataset, remix_stems, remix, seed)
    if drop:
        dataset = _apply(dataset, drop_stems, drop, seed + 1)
    if dataset.element_spec[0].shape[2] == 2:
        dataset = _apply(dataset, swap_channels, 0.5, seed + 2)
    return dataset


def _apply(dataset: tf.data.Dataset, augmentation: Augmentation, probability: float, seed: int) -> tf.data.Dataset:
    """Applies one augmentation to each batch, with two random numbers as its seed."""

    def change_batch(batch: tuple, drawn: tf.Tensor) -> tuple:
        mixture, stems, *rest = batch
        columns = [-1, *mixture.shape[1:], stems.shape[2] // mixture.shape[2]]
        changed_mixture, changed_stems = augmentation(
            mixture[..., None], tf.reshape(stems, columns), probability, drawn
        )
        return tf.reshape(changed_mixture, tf.shape(mixture)), tf.reshape(changed_stems, tf.shape(stems)), *rest

    seeds = tf.data.Dataset.random(seed=seed).batch(2)
    return tf.data.Dataset.zip((dataset, seeds)).map(change_batch)


def remix_stems(
    mixture: tf.Tensor, stems: tf.Tensor, probability: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces the stems of some chunks, each by the same stem of another chunk of the batch.

    This gives more mixtures than there are songs (Uhlich et al. 2017, "Improving music source separation based on deep
    neural networks through data augmentation and network blending"). What a mixture holds besides the stems is
    exchanged like one more stem.

    Args:
        mixture: float32 [batch, time, channel, 1].
        stems: float32 [batch, time, channel, target].
        probability: probability that a chunk is replaced by such a mixture, 0 to 1.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        (mixture, stems), with the same shapes.
    """
    remainder = mixture - tf.reduce_sum(stems, axis=3, keepdims=True)
    parts = tf.concat([stems, remainder], axis=3)  # to [chunk, time, channel, part]
    n_chunks, n_parts = tf.shape(parts)[0], parts.shape[3]
    draws = tf.random.stateless_uniform([n_chunks, 1 + n_parts], seed)
    is_remixed = draws[:, :1, None, None] < probability  # [chunk, 1, 1, 1]
    chunk_of_part = tf.transpose(tf.argsort(draws[:, 1:], axis=0))  # [part, chunk], a permutation for each part
    by_part = tf.transpose(parts, [3, 0, 1, 2])  # to [part, chunk, time, channel]
    shuffled = tf.gather(by_part, chunk_of_part, batch_dims=1)
    parts = tf.where(is_remixed, tf.transpose(shuffled, [1, 2, 3, 0]), parts)  # [chunk, time, channel, part]
    return tf.reduce_sum(parts, axis=3, keepdims=True), parts[..., :-1]


def drop_stems(
    mixture: tf.Tensor, stems: tf.Tensor, probability: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Removes some stems from the mixture; they become silent.

    Then the model sees each instrument alone or with few others more often than songs have it, and learns to output
    silence for the others (Luo & Yu 2023, "Music source separation with band-split RNN").

    Args:
        mixture: float32 [batch, time, channel, 1].
        stems: float32 [batch, time, channel, target].
        probability: probability that a stem is removed, 0 to 1.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        (mixture, stems), with the same shapes.
    """
    draws = tf.random.stateless_uniform([tf.shape(stems)[0], 1, 1, stems.shape[3]], seed)
    kept = tf.where(draws < probability, 0.0, stems)
    return mixture - tf.reduce_sum(stems - kept, axis=3, keepdims=True), kept


def swap_channels(
    mixture: tf.Tensor, stems: tf.Tensor, probability: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Swaps left and right in some chunks, so that a model treats both alike.

    Args:
        mixture: float32 [batch, time, 2, 1].
        stems: float32 [batch, time, 2, target].
        probability: probability that a chunk is swapped, 0 to 1.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        (mixture, stems), with the same shapes.
    """
    is_swapped = tf.random.stateless_uniform([tf.shape(stems)[0], 1, 1, 1], seed) < probability
    mixture, stems = (tf.where(is_swapped, tf.reverse(audio, [2]), audio) for audio in (mixture, stems))
    return mixture, stems
