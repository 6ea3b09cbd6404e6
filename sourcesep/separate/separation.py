"""The Separator: splits arrays and streams of audio into stems, window by window and in constant memory."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_gen import InputError, audio
from sourcesep.models.reach import ReceptiveField
from sourcesep.run_dir import PRETRAINED, RunDir
from sourcesep.separate.adaptation import Adaptation
from sourcesep.separate.tflite_model import PACKAGED, TFLiteModel

if TYPE_CHECKING:
    import keras

# The default length of a window: 3 s, or 4 receptive fields if that is longer. Windows overlap by one receptive field:
# 4 fields cost a third more than what they give, 3 cost half more; longer ones take too much memory at 44.1 kHz.
WINDOW_S, WINDOW_FIELDS = 3.0, 4

MAX_CHANNELS = 32  # more are a sign of swapped axes

Forward = Callable[[np.ndarray], np.ndarray]  # float32 [batch, time, channel] to [batch, time, channel * stem]


class _Window(NamedTuple):
    """What the model is given at once, and what is kept of its output.

    Attributes:
        samples: float32 [time, channel].
        first, last: the output from sample `first` up to sample `last` is kept.
    """

    samples: np.ndarray
    first: int
    last: int


class Separator:
    """Splits recordings into stems with a trained model.

    Windows overlap by the receptive field and begin at multiples of the model's stride, and only the part of each
    output that its edges do not reach is kept: the result equals one pass over the whole recording. With `adapt` the
    stems are then weighted by what the recording held until then.

    A model of one channel separates each channel of a recording by itself. A model of two separates a recording of two
    channels as one. It is given any other recording channel by channel, each on both of its own channels, and the mean
    of its two outputs is the stem.

    Args:
        forward: from float32 [batch, time, channel] to [batch, time, channel * stem], for any batch up to
            `batch_windows` and any time (or `fixed_samples`).
        field: the receptive field of `forward`.
        stem_names: names of its outputs.
        sample_rate: of its input, in Hz. Recordings at other rates are resampled to it and back.
        window_s: length of the windows, in seconds; it changes speed, memory and latency, but not the result. By
            default 3 s, or four times the receptive field if that is more.
        batch_windows: number of windows in one forward call; each channel of a recording has windows of its own.
        fixed_samples: the only length that `forward` takes, a multiple of the field's stride; then `window_s` has no
            effect. A shorter recording is followed by silence. None if it takes any length.
        n_channels: channels of the model, 1 or 2.
        shifts: number of passes, each later than the one before by a part of the model's stride; their mean is the
            result. The model then sees a sound at several places of its frames, which gives better stems, and takes as
            many times longer.
        adapt: whether to weight the stems by where they are in frequency and in stereo, see `adaptation`. They then
            divide the mixture among them by masks.

    Attributes:
        window_samples: length of a window.
        hop_samples: how many samples of a window the windows before it did not keep.

    Raises InputError if the windows are not longer than the receptive field.
    """

    def __init__(
        self,
        forward: Forward,
        field: ReceptiveField,
        stem_names: tuple[str, ...],
        sample_rate: int,
        window_s: float | None = None,
        batch_windows: int = 1,
        fixed_samples: int | None = None,
        n_channels: int = 1,
        shifts: int = 1,
        adapt: bool = False,
    ):
        self.stem_names = tuple(stem_names)
        self.sample_rate = sample_rate
        self.field = field
        self.batch_windows = batch_windows
        self._forward = forward
        self._fixed_samples = fixed_samples
        self._n_channels = n_channels
        self._adapt = adapt
        self._shifts = sorted({field.stride * i // shifts for i in range(shifts)})
        # Rounded up to whole strides, so that every window begins at a multiple of the stride.
        self._before = -(-max(0, field.before) // field.stride) * field.stride
        self._after = -(-max(0, field.after) // field.stride) * field.stride
        context = self._before + self._after
        if fixed_samples is not None:
            wanted = fixed_samples
        elif window_s is None:
            wanted = max(round(WINDOW_S * sample_rate), WINDOW_FIELDS * context + field.stride)
        else:
            wanted = round(window_s * sample_rate) if math.isfinite(window_s) else 0
        self.hop_samples = (wanted - context) // field.stride * field.stride
        if self.hop_samples <= 0:
            shortest, good = ((context + field.stride) / sample_rate, 3 * context / sample_rate)
            raise InputError(
                f"a window of {wanted / sample_rate:.3f} s (--window_s) is no longer than the model's receptive field; "
                f"it takes over {shortest:.3f} s, better {good:.3f} s"
            )
        self.window_samples = context + self.hop_samples
        if fixed_samples is not None and fixed_samples != self.window_samples:
            raise InputError(
                f"a window of {fixed_samples} samples is not a multiple of the model's stride, {field.stride}"
            )

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        stem_names: tuple[str, ...],
        sample_rate: int,
        window_s: float | None = None,
        batch_windows: int = 1,
        shifts: int = 1,
        adapt: bool = False,
    ) -> Separator:
        """Returns the separator of a model from [batch, time, channel] to [batch, time, channel * stem]."""
        import tensorflow as tf

        from sourcesep.models.receptive_field import receptive_field

        n_channels = model.input_shape[-1]
        call = tf.function(
            lambda mixture: model(mixture, training=False),
            input_signature=[tf.TensorSpec([None, None, n_channels], tf.float32)],
        )

        def forward(mixture: np.ndarray) -> np.ndarray:
            try:
                return call(mixture).numpy()
            except tf.errors.ResourceExhaustedError:
                raise InputError("out of memory: lower --window_s, --batch_windows or --jobs") from None

        field = receptive_field(model)
        return cls(
            forward,
            field,
            stem_names,
            sample_rate,
            window_s,
            batch_windows,
            n_channels=n_channels,
            shifts=shifts,
            adapt=adapt,
        )

    @classmethod
    def from_run(
        cls,
        run_dir: str | pathlib.Path = PRETRAINED,
        window_s: float | None = None,
        batch_windows: int = 1,
        present: tuple[str, ...] = (),
        shifts: int = 1,
        adapt: bool = False,
    ) -> Separator:
        """Returns the separator of a training run.

        Args:
            run_dir: folder of the run; by default the one that comes with the package.
            window_s, batch_windows: see the class.
            present: stems to extract, for a model trained with --conditioning; empty for all.
            shifts, adapt: see the class.

        Raises InputError if the run has no weights, or its model cannot extract what `present` names.
        """
        run = RunDir(run_dir)
        config = run.config()
        model = run.model(present=present)
        names = present or config.stem_names
        return cls.from_model(model, names, config.sample_rate, window_s, batch_windows, shifts, adapt)

    @classmethod
    def from_tflite(
        cls,
        path: str | pathlib.Path = PACKAGED,
        batch_windows: int = 1,
        n_threads: int = 1,
        shifts: int = 1,
        adapt: bool = False,
    ) -> Separator:
        """Returns the separator of a TFLite file that export.py wrote, which needs LiteRT and no TensorFlow.

        Args:
            path: of the file; by default that of the model in the package.
            batch_windows: see the class; as many windows as this, or as `n_threads`, are computed at the same time.
            n_threads: number of threads that compute.
            shifts, adapt: see the class.

        Raises InputError if the file is missing, damaged or not by export.py.
        """
        model = TFLiteModel(path, n_threads, min(batch_windows, n_threads))
        return cls(
            model,
            model.field,
            model.stem_names,
            model.sample_rate,
            batch_windows=batch_windows,
            fixed_samples=model.window_samples,
            n_channels=model.n_channels,
            shifts=shifts,
            adapt=adapt,
        )

    @property
    def latency_ms(self) -> float:
        """The most audio that `stream` reads before it yields the stems of its first sample, in milliseconds.

        That is what the model needs to know of the future, and the new part of the windows that are computed together:
        1,000 (after + hop_samples * batch_windows) / sample_rate. With windows of a fixed length, the first one has to
        be full, so what the model needs to know of the past counts too. With `adapt`, a piece of 5 s is added. For a
        recording at another rate than the model's, soxr holds back some audio as well: 20 ms each way between 44.1 and
        48 kHz, up to 140 ms between 8 and 44.1 kHz. The time to compute is added to that. It is window_samples /
        hop_samples times the time of one pass over the recording, so that short windows answer sooner and cost more.
        """
        ahead = self._after + self.hop_samples * self.batch_windows + self._shifts[-1]
        if self._adapt:
            ahead += Adaptation(self.sample_rate).delay
        return 1_000 * (ahead + (self._before if self._fixed_samples else 0)) / self.sample_rate

    def separate(self, samples: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Splits a recording.

        Args:
            samples: floats with full scale at 1, [time] or [time, channel].
            sample_rate: of the samples, in Hz.

        Returns:
            float32 stems by name, each of the shape of `samples`.

        Raises InputError if the samples are not finite floats of such a shape, or the rate is not positive.
        """
        columns = _check_samples(samples)
        if not (sample_rate > 0 and float(sample_rate).is_integer()):
            raise InputError(f"a sample rate of {sample_rate} Hz; it must be a positive whole number")
        blocks = list(self.stream([columns], sample_rate))
        stems = np.concatenate(blocks) if blocks else np.zeros((*columns.shape, len(self.stem_names)), np.float32)
        return {name: stems[:, :, i].reshape(np.shape(samples)) for i, name in enumerate(self.stem_names)}

    def stream(self, blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        """Splits a recording that comes in blocks. Before it reads the next one, it is at most `latency_ms` behind.

        Args:
            blocks: float32 [time, channel], of any lengths.
            sample_rate: of the blocks, in Hz.

        Yields:
            float32 [time, channel, stem]; in all as many samples as the blocks have, at the same rate.

        Raises InputError if the samples, or what the model computes from them, are not finite numbers.
        """
        n_read = n_written = n_channels = 0

        def count() -> Iterator[np.ndarray]:
            nonlocal n_read, n_channels
            for block in blocks:
                if not np.isfinite(block).all():
                    raise InputError("the recording holds samples that are not finite numbers")
                n_read += len(block)
                n_channels = block.shape[1]
                if len(block):
                    yield np.asarray(block, np.float32)

        mixture, *resampled = itertools.tee(
            audio.resample(count(), sample_rate, self.sample_rate), 1 + len(self._shifts)
        )
        passes = [self._pass(of_pass, shift) for of_pass, shift in zip(resampled, self._shifts)]
        stems = _mean(passes) if len(passes) > 1 else passes[0]
        if self._adapt:
            stems = Adaptation(self.sample_rate).apply(mixture, stems)
        del mixture, resampled  # a stream that nobody reads would hold the whole recording
        n_stems = len(self.stem_names)
        columns = (block.reshape(len(block), n_channels * n_stems) for block in stems)  # to [time, channel * stem]
        for block in audio.resample(columns, self.sample_rate, sample_rate):
            block = block[: n_read - n_written]
            n_written += len(block)
            yield block.reshape(len(block), n_channels, n_stems)
        if n_written < n_read:  # resampling twice may end a few samples early
            yield np.zeros((n_read - n_written, n_channels, n_stems), np.float32)

    def _pass(self, blocks: Iterator[np.ndarray], shift: int) -> Iterator[np.ndarray]:
        """Yields the stems [time, channel, stem] that the model gives blocks [time, channel] after `shift` zeros."""
        if not shift:
            yield from self._stems(self._windows(blocks))
            return
        if (first := next(blocks, None)) is None:
            return
        later = itertools.chain([np.pad(first, ((shift, 0), (0, 0)))], blocks)
        for block in self._stems(self._windows(later)):
            yield block[shift:]
            shift = max(0, shift - len(block))

    def _windows(self, blocks: Iterable[np.ndarray]) -> Iterator[_Window]:
        """Cuts blocks [time, channel] at the model's rate into windows whose kept parts follow without a gap.

        A window begins `before` samples ahead of the part that is kept, or at the first sample, and ends `after`
        samples behind it. So the first windows are shorter, unless the length is fixed, and the last one is, too.
        """
        held: list[np.ndarray] = []  # blocks that are still needed: n_held samples, from sample `begin` on
        n_held = begin = done = 0  # output up to sample `done` is part of the windows so far
        start, end = 0, self._fixed_samples or self.hop_samples + self._after  # of the next window
        for block in blocks:
            held.append(block)
            n_held += len(block)
            if end > begin + n_held:
                continue
            held = [np.concatenate(held)]
            while end <= begin + n_held:
                yield _Window(held[0][start - begin : end - begin], done - start, end - self._after - start)
                done = end - self._after
                start = max(0, done - self._before)
                end = start + self._fixed_samples if self._fixed_samples else done + self.hop_samples + self._after
            # The last window begins at `start`, or a fixed length before the end.
            drop = max(0, min(start, begin + n_held - self.window_samples) - begin)
            held, n_held, begin = [held[0][drop:]], n_held - drop, begin + drop
        total = begin + n_held
        if done < total:
            if self._fixed_samples:
                start = max(0, -(-(total - self._fixed_samples) // self.field.stride) * self.field.stride)
            yield _Window(np.concatenate(held)[start - begin :], done - start, total - start)

    def _stems(self, windows: Iterable[_Window]) -> Iterator[np.ndarray]:
        """Yields the kept parts of the outputs for windows, [time, channel, stem]."""
        batch: list[_Window] = []
        for window in windows:
            length = len(window.samples)
            n_rows = 1 if self._is_whole(window) else window.samples.shape[1]
            if batch and length != len(batch[0].samples):
                yield from self._apply(batch)
                batch = []
            batch.append(window)
            if (len(batch) + 1) * n_rows > self.batch_windows:
                yield from self._apply(batch)
                batch = []
        if batch:
            yield from self._apply(batch)

    def _apply(self, batch: list[_Window]) -> Iterator[np.ndarray]:
        """Yields the kept part of the output for each window, [time, channel, stem]; all are of one length."""
        is_whole, n_channels = self._is_whole(batch[0]), batch[0].samples.shape[1]
        if is_whole:
            rows = np.stack([window.samples for window in batch])  # [window, time, channel]
        else:
            rows = np.concatenate([window.samples.T for window in batch])[:, :, None]  # [window * channel, time, 1]
            rows = np.repeat(rows, self._n_channels, axis=2)
        if self._fixed_samples:
            rows = np.pad(rows, ((0, 0), (0, self._fixed_samples - rows.shape[1]), (0, 0)))
        parts = [
            np.asarray(self._forward(rows[i : i + self.batch_windows])) for i in range(0, len(rows), self.batch_windows)
        ]
        outputs = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if not np.isfinite(outputs).all():
            raise InputError(
                "the model computes values that are not finite: its weights are damaged, or training diverged"
            )
        n_rows = 1 if is_whole else n_channels
        for position, window in enumerate(batch):
            of_window = outputs[position * n_rows : (position + 1) * n_rows, window.first : window.last]
            n_samples = of_window.shape[1]
            if is_whole:
                yield of_window.reshape(n_samples, n_channels, -1)
            elif self._n_channels == 1:
                yield of_window.transpose(1, 0, 2)
            else:
                yield of_window.reshape(n_rows, n_samples, self._n_channels, -1).mean(axis=2).transpose(1, 0, 2)

    def _is_whole(self, window: _Window) -> bool:
        """Returns whether the model is given all channels of a recording at once."""
        return window.samples.shape[1] == self._n_channels > 1


def _mean(passes: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yields the mean of streams of equal length in all, whose blocks [time, ...] differ in length."""
    *others, last = passes  # the last one is shifted most, so that the others are ahead of it
    held: list[np.ndarray | None] = [None] * len(others)
    for block in last:
        total = block.copy()
        for i, stream in enumerate(others):
            kept = held[i]
            ahead = block[:0] if kept is None else kept
            while len(ahead) < len(block):
                ahead = np.concatenate([ahead, next(stream)])
            total += ahead[: len(block)]
            held[i] = ahead[len(block) :]
        yield total / len(passes)


def _check_samples(samples: np.ndarray) -> np.ndarray:
    """Returns samples as float32 [time, channel]. Raises InputError for arrays that `separate` cannot split."""
    try:
        samples = np.asarray(samples)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"samples are not an array ({error})") from None
    if samples.dtype.kind in "iu":
        raise InputError(
            f"samples are {samples.dtype}; they must be floats with full scale at 1: divide 16-bit ones by 32768"
        )
    if samples.dtype.kind != "f":
        raise InputError(f"samples are {samples.dtype}; they must be floats with full scale at 1")
    if samples.ndim not in (1, 2):
        raise InputError(f"samples have {samples.ndim} axes; they must be [time] or [time, channel], one recording")
    columns = samples[:, None] if samples.ndim == 1 else samples
    n_samples, n_channels = columns.shape
    if n_channels > MAX_CHANNELS or not n_channels:
        raise InputError(
            f"samples of shape {samples.shape} have {n_channels} channels; the first axis is time, the second channel "
            f"(1 to {MAX_CHANNELS}): pass samples.T if yours are [channel, time]"
        )
    if not np.isfinite(columns).all():
        raise InputError("the recording holds samples that are not finite numbers")
    with np.errstate(over="ignore"):
        columns = columns.astype(np.float32)
    if not np.isfinite(columns).all():
        raise InputError("the recording holds samples that are too large; full scale is 1")
    return columns
