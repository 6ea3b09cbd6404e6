"""What a conditioned model is told while it trains, taken from the stems of each chunk."""

from __future__ import annotations

import tensorflow as tf

from data_gen.stems import SILENCE_DBFS
from sourcesep.config import Config


def add_conditions(dataset: tf.data.Dataset, config: Config) -> tf.data.Dataset:
    """Batches (mixture [batch, time, 1], stems [batch, time, output], ...) -> (what the model takes, stems, ...).

    With conditioning "binary" the model takes (mixture, presences float32 [batch, output]): 1 where the stem is louder
    than SILENCE_DBFS within the chunk, its context left out. With "embedding" it takes (mixture, numbers int32 [batch])
    of outputs drawn with equal probability, silent ones too, and stems are [batch, time, 1]. With "none" nothing
    changes.
    """
    if config.conditioning == "none":
        return dataset

    def with_presences(mixture, stems, *rest):
        chunk = stems[:, config.context_samples : config.context_samples + config.chunk_samples]
        is_present = tf.reduce_mean(tf.square(chunk), axis=1) > 10 ** (SILENCE_DBFS / 10)
        return (mixture, tf.cast(is_present, tf.float32)), stems, *rest

    def with_one_wanted(mixture, stems, *rest):
        wanted = tf.random.uniform([tf.shape(stems)[0]], 0, len(config.stem_names), tf.int32, seed=config.seed)
        return (mixture, wanted), tf.gather(stems, wanted, axis=2, batch_dims=1)[:, :, None], *rest

    return dataset.map(with_presences if config.conditioning == "binary" else with_one_wanted)
