"""Raw sound: how the next samples are predicted, and the batches."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_gated import GaussianMixture, losses, metrics
from keras_gated.datasets import audio

if TYPE_CHECKING:
    import tensorflow as tf

FRAME, EVENT, COMPONENTS = 20, 10, 20
"""Samples that a step sees, samples that it predicts, and Gaussians in the mixture."""

Parts = tuple[audio.Recordings, audio.Recordings, audio.Recordings]
"""The recordings of training, validation and test."""


def likelihood(
    data: Parts,
) -> tuple[
    int,
    Callable[[], keras.layers.Layer],
    keras.losses.Loss,
    list[keras.metrics.Metric],
]:
    """The arguments `input_dim`, `head`, `loss`, `metrics` of `comparison.build`.

    The next samples have a mixture of Gaussians. Its layer keeps the mean and the
    standard deviation by which the samples are standardized.
    """
    mean, std = data[0].standardization()
    return (
        FRAME,
        lambda: GaussianMixture(COMPONENTS, EVENT, event_mean=mean, event_std=std),
        losses.GaussianMixtureNLL(COMPONENTS, EVENT),
        [
            metrics.EventNLL(COMPONENTS, EVENT, name="nll"),
            metrics.EventNLL(COMPONENTS, EVENT, "sequence", name="nll_sequence"),
        ],
    )


def batches(
    data: Parts, batch_size: int, seed: int, sequence_length: int
) -> "tuple[tf.data.Dataset, ...]":
    """The data sets of training, validation and test.

    Args:
        data: The recordings.
        batch_size: Sequences per update.
        seed: Of the order of training.
        sequence_length: Samples of a sequence. Recordings are joined where most are
            shorter.

    Returns:
        As `audio.frames_dataset` returns them, standardized by the recordings of
        training; training is shuffled.
    """
    return tuple(
        audio.frames_dataset(
            part,
            FRAME,
            EVENT,
            sequence_length=sequence_length,
            batch_size=batch_size,
            shuffle=part is data[0],
            seed=seed,
            join=sequence_length > np.median(part.lengths),
            standardization=data[0].standardization(),
        )
        for part in data
    )
