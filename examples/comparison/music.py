"""Piano rolls: how the next frame is predicted, and the batches."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras

from keras_gated import losses, metrics
from keras_gated.datasets import bach_chorales, piano_roll

if TYPE_CHECKING:
    import tensorflow as tf

Rolls = bach_chorales.Splits
"""The rolls of training, validation and test."""

MAX_SHAPES = 12
"""The most shapes of batches. Each is compiled, which pays if lengths differ a lot."""


def likelihood() -> tuple[
    int,
    Callable[[], keras.layers.Layer],
    keras.losses.Loss,
    list[keras.metrics.Metric],
]:
    """The arguments `input_dim`, `head`, `loss`, `metrics` of `comparison.build`.

    Every key of the next frame is a Bernoulli variable of its own.
    """
    return (
        piano_roll.KEYS,
        lambda: keras.layers.Dense(piano_roll.KEYS),
        losses.BernoulliNLL(),
        [
            metrics.FrameNLL(name="nll"),
            metrics.FrameNLL("sequence", name="nll_sequence"),
            metrics.FrameAccuracy(name="accuracy"),
        ],
    )


def batches(
    data: Rolls,
    batch_size: int,
    seed: int,
    sequence_length: int | None = None,
    evaluation_batch_size: int | None = None,
    max_shapes: int = MAX_SHAPES,
    teacher_forcing: bool = False,
) -> "tuple[tf.data.Dataset, ...]":
    """The data sets of training, validation and test.

    Args:
        data: The rolls.
        batch_size: Sequences per update.
        seed: Of the order of training.
        sequence_length: Cuts the rolls of training into sequences of this many steps;
            validation and test always have whole pieces. Default: `None`, whole ones.
        evaluation_batch_size: Of validation and test: larger ones are faster, and the
            figures do not depend on it. Default: `batch_size`.
        max_shapes: Of batches. Default: 12.
        teacher_forcing: Whether the targets are inputs, too. Default: `False`.

    Returns:
        As `piano_roll.next_step_dataset` returns them; training is shuffled.
    """
    common = {"seed": seed, "max_shapes": max_shapes}
    common["teacher_forcing"] = teacher_forcing
    training = piano_roll.next_step_dataset(
        data[0], batch_size, shuffle=True, sequence_length=sequence_length, **common
    )
    batch_size = evaluation_batch_size or batch_size
    return (
        training,
        *(piano_roll.next_step_dataset(x, batch_size, **common) for x in data[1:]),
    )
