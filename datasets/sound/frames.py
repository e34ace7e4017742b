"""Recordings to batches of frames, for models that predict a waveform.

`Step` says what a step sees and predicts, `Sequences` says where sequences lie in the
recordings, and `Frames` makes a batch of some of them.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import checks
from ..batching import batches
from ..files import require
from .recordings import Recordings, Standardization

if TYPE_CHECKING:
    import tensorflow as tf


def frames_dataset(
    recordings: Recordings,
    frame_length: int = 20,
    target_length: int = 10,
    hop: int | None = None,
    sequence_length: int | None = None,
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int | None = None,
    join: bool = False,
    remainder: str = "drop",
    standardization: Standardization | None = None,
    max_shapes: int = 12,
) -> "tf.data.Dataset":
    """Batches for a model that predicts a waveform, a few samples at a time.

    Step t of a sequence `x` sees `x[t*hop : t*hop + frame_length]` and predicts the
    `target_length` samples that follow (Chung et al., 2014, section 4.1). With
    the default hop the targets lie side by side: the sum of the steps' negative
    log-likelihoods is that of the waveform after its first frame (without the last
    samples, if they are fewer than a target).

    Args:
        recordings: The recordings, as `read_files` returns them. They stay on disk.
        frame_length: Samples that a step sees. Default: 20.
        target_length: Samples that it predicts. Default: 10.
        hop: Samples from one step to the next. Default: `target_length`.
        sequence_length: Cuts the recordings into sequences of so many samples.
            Default: `None`, whole recordings.
        batch_size: The largest number of sequences in a batch. Default: 16.
        shuffle: Whether each pass takes the sequences in a new order. Without it
            they keep theirs; if lengths differ, the longest come first. Default:
            `False`.
        seed: Makes the order repeatable. Default: `None`.
        join: Whether the recordings are joined, in their order, before they are
            cut, for sequences longer than a recording. Default: `False`.
        remainder: What becomes of the end of a recording that is shorter than a
            sequence: `"drop"`, or `"pad"` to fill it up with steps of weight 0.
            Default: `"drop"`.
        standardization: A pair of the mean to subtract from the samples and the
            standard deviation to divide them by. Default: `None`, the samples stay
            as they are.
        max_shapes: The largest number of lengths to pad to, if lengths differ.
            Default: 12.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, steps, frame_length], targets [batch,
        steps, target_length], weights [batch, steps])`, all `float32`. The weights
        are 1, and 0 for padding. If all sequences have `sequence_length` samples,
        there is no padding, and the last batch may be smaller.

    Raises:
        ValueError: No recording is long enough for a sequence, or an argument is
            out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio
    >>> audio.write(np.sin(np.arange(1200)), "tone.wav", 8000)
    >>> recordings = audio.read_files(["tone.wav"], verbose=False)
    >>> data = audio.frames_dataset(recordings, sequence_length=500)
    >>> for inputs, targets, weights in data:
    ...     print(inputs.shape, targets.shape, weights.shape)
    (2, 48, 20) (2, 48, 10) (2, 48)
    """
    step = Step.checked(frame_length, target_length, hop)
    checks.whole("sequence_length", sequence_length, step.samples, optional=True)
    batch_size = checks.whole("batch_size", batch_size)
    max_shapes = checks.whole("max_shapes", max_shapes)
    checks.one_of("remainder", remainder, ("drop", "pad"))
    padded = sequence_length is None or remainder == "pad"
    sequences = Sequences.of(recordings, step, sequence_length, join, padded)
    mean, std = standardization or (0.0, 1.0)
    standardization = Standardization(
        checks.number("standardization[0]", mean),
        checks.number("standardization[1]", std, above=0),
    )
    frames = Frames(recordings, step, sequences, padded, standardization)
    tf = require("tensorflow")

    def batch(rows: tf.Tensor, length: tf.Tensor, _: tf.Tensor) -> tuple:
        parts = tf.numpy_function(frames.batch, [rows, length], [tf.float32] * 3)
        shapes = (None, None, step.frame), (None, None, step.target), (None, None)
        return tuple(map(tf.ensure_shape, parts, shapes))

    return batches(frames.steps(), batch, batch_size, shuffle, seed, max_shapes)


class Step(NamedTuple):
    """What a step of a sequence sees and predicts, in samples."""

    frame: int
    target: int
    hop: int

    @classmethod
    def checked(cls, frame_length: int, target_length: int, hop: int | None) -> "Step":
        """A step of arguments that are checked; they are those of `frames_dataset`.

        Args:
            frame_length: Samples that a step sees.
            target_length: Samples that it predicts.
            hop: Samples from one step to the next, or `None`.

        Raises:
            ValueError: One is out of its range.
        """
        frame = checks.whole("frame_length", frame_length)
        target = checks.whole("target_length", target_length)
        return cls(frame, target, checks.whole("hop", hop, optional=True) or target)

    @property
    def samples(self) -> int:
        """How many samples one step needs."""
        return self.frame + self.target

    def count(self, samples: int | np.ndarray) -> int | np.ndarray:
        """The number of steps of a sequence.

        Args:
            samples: Its length, at least that of a step.
        """
        return (samples - self.samples) // self.hop + 1

    def length(self, steps: int) -> int:
        """The number of samples that so many steps need.

        Args:
            steps: The number of steps, positive.
        """
        return (steps - 1) * self.hop + self.samples


class Sequences:
    """Where sequences lie in recordings; no table of them is kept.

    Args:
        lengths: The lengths of the recordings, in samples.
        length: The length of a sequence; the last of a recording may be shorter.
        least: The smallest length of a sequence.
    """

    def __init__(self, lengths: np.ndarray, length: int, least: int) -> None:
        self.length = length
        """The largest length of a sequence."""
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - lengths
        self._counts = (lengths - least) // length + 1
        self._last = np.cumsum(self._counts)

    @classmethod
    def of(
        cls,
        recordings: Recordings,
        step: Step,
        sequence_length: int | None,
        join: bool,
        padded: bool,
    ) -> "Sequences":
        """The sequences of recordings; the arguments are those of `frames_dataset`.

        Raises:
            ValueError: There is none.
        """
        lengths = recordings.lengths
        if join:
            lengths = lengths.sum(keepdims=True)
        length = sequence_length or max(lengths.max(initial=0), step.samples)
        least = step.samples if padded else length
        sequences = cls(lengths, length, least)
        if not len(sequences):
            longest = recordings.lengths.max(initial=0)
            raise ValueError(
                f"No sequence of {least:,} samples can be cut from {len(recordings)} "
                f"recordings, the longest of which has {longest:,}. (join=True joins "
                "them; remainder='pad' takes shorter sequences.)"
            )
        return sequences

    def __len__(self) -> int:
        return int(self._last[-1])

    def find(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where some sequences begin, and how long they are.

        Args:
            numbers: Their numbers.

        Returns:
            Their first samples, in the recordings joined, and numbers of samples.
        """
        of = np.searchsorted(self._last, numbers, "right")
        within = numbers - (self._last - self._counts)[of]
        begins = self._begins[of] + self.length * within
        return begins, np.minimum(self.length, self._ends[of] - begins)


class Frames(NamedTuple):
    """Makes batches of sequences."""

    recordings: Recordings
    step: Step
    sequences: Sequences
    padded: bool
    standardization: Standardization

    def steps(self) -> np.ndarray:
        """The number of steps of each sequence."""
        if self.padded:
            _, lengths = self.sequences.find(np.arange(len(self.sequences)))
            return self.step.count(lengths)
        steps = self.step.count(self.sequences.length)
        return np.broadcast_to(steps, len(self.sequences))

    def batch(self, rows: np.ndarray, steps: int) -> tuple[np.ndarray, ...]:
        """Makes one batch.

        Args:
            rows: The numbers of its sequences, and then -1 for rows without one.
            steps: The number of steps to pad to.

        Returns:
            The inputs, the targets and the weights.
        """
        begins, lengths = self.sequences.find(rows[rows >= 0])
        size = len(rows) if self.padded else len(begins)
        block = np.zeros((size, self.step.length(steps)), np.float32)
        places = [row[:length] for row, length in zip(block, lengths, strict=False)]
        self.recordings.copy(begins, places)
        block -= self.standardization.mean
        block /= self.standardization.std
        windows = sliding_window_view(block, self.step.samples, axis=1)
        windows = windows[:, :: self.step.hop]
        weights = np.zeros((size, steps), np.float32)
        weights[: len(begins)] = np.arange(steps) < self.step.count(lengths)[:, None]
        if self.padded:
            windows = windows * weights[..., None]
        return (
            np.ascontiguousarray(windows[..., : self.step.frame]),
            np.ascontiguousarray(windows[..., self.step.frame :]),
            weights,
        )
