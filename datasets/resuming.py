"""Data sets that can be told where to go on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import checks
from .files import require

if TYPE_CHECKING:
    import tensorflow as tf


class Place:
    """Where the next pass over a data set begins.

    Args:
        batches: The number of batches of a pass.
    """

    def __init__(self, batches: int) -> None:
        tf = require("tensorflow")
        self._batches = batches
        with tf.init_scope(), tf.device("CPU:0"):
            self._next = tf.Variable([0, 0], dtype=tf.int64, trainable=False)

    def move_on(self) -> "tuple[tf.Tensor, tf.Tensor]":
        """Within the graph of a data set, at the beginning of a pass.

        Returns:
            The number of the pass, and how many of its batches are to be passed over;
            after the others as many of the pass that follows are to come.
        """
        now = self._next.read_value()
        self._next.assign_add([1, 0])
        return now[0], now[1]

    def given_to(
        self, dataset: "tf.data.Dataset", identity: Mapping[str, Any]
    ) -> "tf.data.Dataset":
        """The data set with the attributes that `resumable` describes.

        Args:
            dataset: The data set.
            identity: What distinguishes it from others.
        """
        tf = require("tensorflow")
        known = tf.data.experimental.assert_cardinality(self._batches)
        dataset = dataset.apply(known)
        dataset.start_at, dataset.identity = self._start_at, dict(identity)
        return dataset

    def _start_at(self, batch: int) -> None:
        self._next.assign(divmod(batch, self._batches))


def resumable(
    make: "Callable[[tf.Tensor], tf.data.Dataset]",
    batches: int,
    identity: Mapping[str, Any] | None = None,
) -> "tf.data.Dataset":
    """Makes a data set, in another order in each pass, that can start anywhere.

    `callbacks.BackupAndRestore` goes on with the batch after the last that the model
    has seen. An order that a data set draws for itself cannot be drawn again from the
    middle, so here each pass is made from its number.

    Args:
        make: Makes a pass from its number, an `int64` tensor: 0, 1, and so on. What it
            draws must depend on the number alone, as
            `dataset.shuffle(1000, seed=number)` does.
        batches: The number of batches of a pass.
        identity: What distinguishes the data from other data: names and numbers,
            strings, lists or `None`. A training is not resumed with other data.
            Default: `None`, nothing is known.

    Returns:
        A `tf.data.Dataset`, of `batches` batches, with two attributes more:
        `start_at(batch)` lets the next pass over it, and over what was made of it
        (`repeat`, `map`), begin with that of all batches of all passes, and go on
        into the pass that follows; `identity`. Without it, the first pass is pass 0,
        and every further one the next.

    Raises:
        ValueError: `batches` is not a positive integer.
        tf.errors.FailedPreconditionError: (in iteration) A pass has fewer batches.

    Example:

    >>> import tensorflow as tf
    >>> from keras_gated.datasets import resumable
    >>> numbers = tf.data.Dataset.range(6)
    >>> data = resumable(lambda n: numbers.shuffle(6, seed=n).batch(2), 3)
    >>> passes = [[x.numpy().tolist() for x in data] for _ in range(3)]
    >>> data.start_at(4)
    >>> rest = [x.numpy().tolist() for x in data]
    >>> rest == passes[1][1:] + passes[2][:1]
    True
    """
    tf = require("tensorflow")
    place = Place(checks.whole("batches", batches))

    def whole(number: tf.Tensor) -> tf.data.Dataset:
        return make(number).apply(tf.data.experimental.assert_cardinality(batches))

    def from_there(_: tf.Tensor) -> tf.data.Dataset:
        number, passed_over = place.move_on()
        two = tf.data.Dataset.range(number, number + 2).flat_map(whole).enumerate()
        # TensorFlow crashes where `skip` has a tensor that is 0.
        there = two.filter(lambda batch, _: batch >= passed_over)
        return there.map(lambda _, parts: parts).take(batches)

    dataset = tf.data.Dataset.from_tensors(0).flat_map(from_there)
    return place.given_to(dataset, identity or {})
