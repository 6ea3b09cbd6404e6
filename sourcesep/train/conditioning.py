"""Conditions: the second input of a conditioned model, derived from the stems of each chunk while it trains."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from data_gen.stems import SILENCE_DBFS
from sourcesep.config import Config


def add_conditions(dataset: tf.data.Dataset, config: Config) -> tf.data.Dataset:
    """Maps batches (mixture [batch, time, 1], stems [batch, time, stem], ...) to (model inputs, stems, ...).

    With conditioning "none" nothing changes. With "binary" the inputs are (mixture, presences float32 [batch, stem]):
    1 where the stem is louder than SILENCE_DBFS within the chunk without its context. With "embedding" they are
    (mixture, stem numbers int32 [batch]), each stem being drawn with equal probability, silent or not, and the stems
    are [batch, time, 1].
    """
    if config.conditioning == "none":
        return dataset

    def add_presences(mixture: tf.Tensor, stems: tf.Tensor, *rest: Any) -> tuple:
        chunk = stems[:, config.context_samples : config.context_samples + config.chunk_samples]
        is_present = tf.reduce_mean(tf.square(chunk), axis=1) > 10 ** (SILENCE_DBFS / 10)
        return (mixture, tf.cast(is_present, tf.float32)), stems, *rest

    def draw_stem(mixture: tf.Tensor, stems: tf.Tensor, *rest: Any) -> tuple:
        drawn = tf.random.uniform([tf.shape(stems)[0]], 0, len(config.stem_names), tf.int32, seed=config.seed)
        return (mixture, drawn), tf.gather(stems, drawn, axis=2, batch_dims=1)[:, :, None], *rest

    return dataset.map(add_presences if config.conditioning == "binary" else draw_stem)
