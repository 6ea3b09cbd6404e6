"""Validation: scores of a model on held-out excerpts while it trains, also shown in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data_gen.chunks import hold_out
from data_gen.stems import StemSource
from sourcesep import metrics
from sourcesep.train.losses import Loss

N_EXCERPTS = 24  # excerpts in all, as far as possible each from another song
EXCERPT_S = 8.0  # length of an excerpt, in seconds
N_SHOWN = 4  # excerpts whose audio and spectrograms TensorBoard gets


class Scores(NamedTuple):
    """Scores from one validation.

    Attributes:
        loss: the training loss on the excerpts.
        sdr_db: median SDR by stem, over the excerpts in which the stem sounds; stems that never sound are missing.
        spread_db: the tenths of these excerpts with the lowest and the highest SDR end here; likewise.
        gain_db: median by stem of the gain over the best constant gain on the mixture, where others sound; likewise.
        residual_dbfs: mean level by stem of the estimate where the stem is silent and others sound; likewise.
    """

    loss: float
    sdr_db: dict[str, float]
    spread_db: dict[str, tuple[float, float]]
    gain_db: dict[str, float]
    residual_dbfs: dict[str, float]


class Excerpts:
    """Stretches of validation songs, without variation: the same throughout a run.

    Args:
        sources: from `sources.open_validation`; the excerpts are shared equally among them. Where one has no validation
            split, its training songs are used.
        other: whether the model gives the sum of the stems that are not targets.
        names: names of the model's stems.
        n_channels: channels of the model.
    """

    def __init__(self, sources: Sequence[StemSource], other: bool, names: tuple[str, ...], n_channels: int = 1):
        self.names = names
        self.sample_rate = sources[0].sample_rate
        targets = names[:-1] if other else names
        n_samples, n = round(EXCERPT_S * self.sample_rate), -(-N_EXCERPTS // len(sources))
        excerpts = [
            excerpt
            for number, source in enumerate(sources)  # other songs through each
            for excerpt in hold_out(source, "validation", targets, other, n_samples, n, number * n, n_channels)
        ]
        self._excerpts = [(excerpt.mixture[None], excerpt.stems[None]) for excerpt in excerpts]
        self._shown_before = False

    def score(self, model: keras.Model, loss_function: Loss) -> tuple[Scores, list[np.ndarray]]:
        """Returns the scores of a model, and its estimates float32 [1, time, channel * stem] of each excerpt."""
        estimates = [model(mixture, training=False).numpy() for mixture, _ in self._excerpts]
        losses = [float(loss_function(stems, e)) for (_, stems), e in zip(self._excerpts, estimates)]
        found = Scores(float(np.mean(losses)), {}, {}, {}, {})
        for i, name in enumerate(self.names):
            scores = [
                metrics.score_stem(self._stem(stems, i), self._stem(e, i), mixture[0], self.sample_rate)
                for (mixture, stems), e in zip(self._excerpts, estimates)
            ]

            def collect(key: str, scores: list[dict[str, float]] = scores) -> list[float]:
                return [score[key] for score in scores if not np.isnan(score[key])]

            if sdr_db := collect("sdr_db"):
                found.sdr_db[name] = float(np.median(sdr_db))
                low, high = np.quantile(sdr_db, (0.1, 0.9)).tolist()
                found.spread_db[name] = (low, high)
            if gain_db := collect("gain_over_constant_db"):
                found.gain_db[name] = float(np.median(gain_db))
            if residual_dbfs := collect("residual_dbfs"):
                found.residual_dbfs[name] = float(np.mean(residual_dbfs))
        return found, estimates

    def _stem(self, columns: np.ndarray, i: int) -> np.ndarray:
        """Returns stem i of [1, time, channel * stem], as [time, channel]."""
        return columns[0, :, i :: len(self.names)]

    def show(self, scores: Scores, estimates: list[np.ndarray], step: int) -> None:
        """Writes the scores, and audio and spectrograms of N_SHOWN excerpts, to TensorBoard's default writer."""
        from sourcesep import plots  # matplotlib takes half a second to import

        tf.summary.scalar("validation/loss", scores.loss, step)
        kinds = {
            "sdr_db": scores.sdr_db,
            "sdr_db_lowest_tenth": {name: low for name, (low, _) in scores.spread_db.items()},
            "sdr_db_highest_tenth": {name: high for name, (_, high) in scores.spread_db.items()},
            "gain_over_constant_db": scores.gain_db,
            "residual_dbfs": scores.residual_dbfs,
        }
        for kind, values in kinds.items():
            for name, value in values.items():
                tf.summary.scalar(f"validation/{kind}/{name}", value, step)
        for number, ((mixture, stems), estimate) in enumerate(zip(self._excerpts[:N_SHOWN], estimates)):
            # The left channel alone.
            waveforms = {f"{name}, separated": estimate[0, :, i] for i, name in enumerate(self.names)}
            references = {f"{name}, original": stems[0, :, i] for i, name in enumerate(self.names)}
            picture = plots.spectrograms_image([waveforms, references], self.sample_rate)
            tf.summary.image(f"excerpt{number}", picture[None], step)
            originals = {} if self._shown_before else {"mixture": mixture[0, :, 0], **references}
            for name, waveform in {**originals, **waveforms}.items():
                clip = waveform[None, :, None]
                tf.summary.audio(f"excerpt{number}/{name.replace(', ', '/')}", clip, self.sample_rate, step)
        self._shown_before = True
