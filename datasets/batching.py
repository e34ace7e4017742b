"""Batches of sequences of many lengths, in few shapes.

A model is compiled once for each shape of a batch, which takes a second or two. So
sequences of similar length share a batch, and lengths are rounded up to a few.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .files import require

if TYPE_CHECKING:
    import tensorflow as tf


def batches(
    steps: Sequence[int],
    make: Callable,
    batch_size: int,
    shuffle: bool = False,
    seed: int | None = None,
    max_shapes: int = 12,
) -> "tf.data.Dataset":
    """Batches of at most `max_shapes` shapes, in a new order in each pass.

    The sequences are put into at most `max_shapes` groups, each with batches of one
    shape; the groups are those with little padding in few batches. A batch holds
    `batch_size` sequences or a few less, so that a group fills its batches.

    Args:
        steps: The number of steps of each sequence.
        make: Makes a batch, in the graph, from the numbers of its sequences,
            `int64 [batch]` (-1 for none), its length, `int64`, and a random seed,
            `int64 [2]`.
        batch_size: The largest number of sequences in a batch.
        shuffle: Whether each pass puts the sequences of a group and the batches in
            a new order. Without it, the longest come first, and those of one length
            in their order. Default: `False`.
        seed: Makes the order repeatable. Default: `None`.
        max_shapes: The largest number of different shapes. Default: 12.

    Returns:
        A `tf.data.Dataset` of what `make` returns, of known cardinality.
    """
    tf = require("tensorflow")

    groups = groups_of_like_length(steps, batch_size, max_shapes)
    members = np.concatenate([group.members for group in groups])
    sizes = [len(group.members) for group in groups]
    # For each batch: its first member, the end of its group, its size, its length.
    layout = np.concatenate(
        [
            np.stack(np.broadcast_arrays(np.arange(end - n, end, rows), end, rows, to))
            for (_, rows, to), n, end in zip(
                groups, sizes, np.cumsum(sizes), strict=True
            )
        ],
        axis=1,
    )
    count = layout.shape[1]
    # Tensors: arrays would be copied into every graph that uses them.
    members, sizes, layout = (tf.constant(x) for x in (members, sizes, layout))

    # All in the graph: Python would take more time than the rest.
    def one_pass(draw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """For each batch: its sequences (-1 for none), its shape, and a seed."""

        def random(number: int, shape: tuple, **use: Any) -> tf.Tensor:
            return tf.random.stateless_uniform(shape, [draw, number], **use)

        listed, order = members, tf.range(count)
        if shuffle:
            group_of = tf.repeat(tf.range(len(groups)), sizes)
            mixed = random(0, members.shape, dtype=tf.float64)
            mixed += tf.cast(group_of, tf.float64)
            listed = tf.gather(listed, tf.argsort(mixed))
            order = tf.argsort(random(1, (count,)))
        first, end, rows, length = tf.unstack(tf.gather(layout, order, axis=1))
        within = tf.range(batch_size, dtype=tf.int64)
        places = first[:, None] + within
        there = (within < rows[:, None]) & (places < end[:, None])
        listed = tf.gather(listed, tf.where(there, places, 0))
        own = random(2, (count, 2), minval=None, maxval=None, dtype=tf.int64)
        return tf.where(there, listed, -1), tf.stack([rows, length], axis=1), own

    draws = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    plan = draws.take(1).map(one_pass).unbatch()
    dataset = plan.map(
        lambda rows, size, own: make(rows[: size[0]], size[1], own),
        num_parallel_calls=2,
    )
    dataset = dataset.prefetch(2)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    options = tf.data.Options()
    options.autotune.enabled = False  # it takes as long as a small set's whole pass
    return dataset.with_options(options)


class Group(NamedTuple):
    """Sequences whose batches have one shape."""

    members: np.ndarray
    batch: int
    length: int


MAX_BOUNDARIES = 500
"""The largest number of boundaries between groups that are tried."""


def groups_of_like_length(
    lengths: Sequence[int], batch_size: int, max_groups: int
) -> list[Group]:
    """Finds the groups of sequences that take the least work.

    Args:
        lengths: The lengths of the sequences.
        batch_size: The largest number of sequences in a batch.
        max_groups: The largest number of groups.

    Returns:
        The groups, those of the longest sequences first. Each is a run of the
        sequences in the order of their lengths.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    descending = np.asarray(lengths)[order]

    def work(begin: np.ndarray, end: int) -> np.ndarray:
        batches, batch = _batches(end - begin, batch_size)
        # The time that any batch takes is about that of one more sequence.
        return batches * (batch + 1) * descending[begin]

    groups = []
    for begin, end in _partition(np.cumsum(descending), work, max_groups):
        _, batch = _batches(end - begin, batch_size)
        groups.append(Group(order[begin:end], int(batch), int(descending[begin])))
    return groups


def lengths_with_least_padding(counts: dict[int, int], max_lengths: int) -> list[int]:
    """Finds the lengths to pad sequences to with the least padding.

    Args:
        counts: How many sequences there are, by their number of steps.
        max_lengths: The largest number of lengths.

    Returns:
        The lengths, ascending; the last is that of the longest sequence.

    Example:

    >>> from keras_gated.datasets import batching
    >>> batching.lengths_with_least_padding({10: 5, 11: 5, 100: 1}, 2)
    [11, 100]
    """
    lengths = np.array(sorted(counts, reverse=True))
    number = np.array([counts[length] for length in lengths])
    before = np.concatenate([[0], np.cumsum(number)])

    def work(begin: np.ndarray, end: int) -> np.ndarray:
        return (before[end] - before[begin]) * lengths[begin]

    runs = _partition(np.cumsum(number * lengths), work, max_lengths)
    return [int(lengths[begin]) for begin, _ in reversed(runs)]


def _partition(
    steps: np.ndarray,
    work: Callable[[np.ndarray, int], np.ndarray],
    max_runs: int,
) -> list[tuple[int, int]]:
    """Parts items into runs `begin ... end - 1` with the least work in total.

    By dynamic programming. The result is exact if all boundaries are tried; if there
    are too many, those are tried that are about equally many steps apart.

    Args:
        steps: The number of steps up to and including each item.
        work: The work of the runs from some beginnings to one end.
        max_runs: The largest number of runs.
    """
    places = np.arange(len(steps) + 1)
    if len(steps) > MAX_BOUNDARIES:
        evenly = np.linspace(0, steps[-1], MAX_BOUNDARIES + 1)
        places = np.unique(np.searchsorted(np.append(0, steps), evenly))
    n = len(places) - 1
    # least[j]: the least work of the items before places[j] in k runs or fewer,
    # the last of which begins at places[begin[k][j]].
    least = np.concatenate([[0], np.full(n, np.inf)])
    begins = []
    for _ in range(min(max_runs, n)):
        begin = np.zeros(n + 1, int)
        fewer = least.copy()
        for j in range(1, n + 1):
            sums = fewer[:j] + work(places[:j], places[j])
            begin[j] = np.argmin(sums)
            least[j] = sums[begin[j]]
        begins.append(begin)
    runs, end = [], n
    for begin in reversed(begins):
        if end == 0:
            break
        runs.append((int(places[begin[end]]), int(places[end])))
        end = begin[end]
    return runs[::-1]


def _batches(members: int | np.ndarray, batch_size: int) -> tuple:
    """The smallest number of batches that holds all members, and their size."""
    batches = -(-members // batch_size)
    return batches, -(-members // batches)
