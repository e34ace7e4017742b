"""Batches of sequences of many lengths, in few shapes.

A model is compiled once for each shape of a batch, which takes a second or two. So
sequences of similar length share a batch, and lengths are rounded up to a few.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .files import require
from .resuming import Place

if TYPE_CHECKING:
    import tensorflow as tf


def batches(
    steps: Sequence[int],
    make: Callable,
    batch_size: int,
    shuffle: bool = False,
    seed: int | None = None,
    max_shapes: int = 12,
    content: str | None = None,
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
        content: A digest of what the sequences hold, for `identity`. Default: `None`.

    Returns:
        A `tf.data.Dataset` of what `make` returns, of known cardinality, that is
        `resumable`.
    """
    tf = require("tensorflow")
    identity = {
        "sequences": len(steps),
        "steps": int(np.sum(steps)),
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "max_shapes": max_shapes,
        "content": content,
    }
    if seed is None:
        seed = secrets.randbits(63)

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
    def planned(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """For each batch of a pass: its sequences (-1 for none), and its shape."""
        listed, order = members, tf.range(count)
        if shuffle:
            drawn = tf.random.stateless_uniform(
                (len(members) + count,), [seed, number], dtype=tf.float64
            )
            group_of = tf.repeat(tf.range(len(groups)), sizes)
            mixed = drawn[count:] + tf.cast(group_of, tf.float64)
            listed = tf.gather(listed, tf.argsort(mixed))
            order = tf.argsort(drawn[:count])
        first, end, rows, length = tf.unstack(tf.gather(layout, order, axis=1))
        within = tf.range(batch_size, dtype=tf.int64)
        places = first[:, None] + within
        there = (within < rows[:, None]) & (places < end[:, None])
        listed = tf.gather(listed, tf.where(there, places, 0))
        return tf.where(there, listed, -1), tf.stack([rows, length], axis=1)

    def one_pass(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        number, passed_over = place.move_on()
        # Both, always: `tf.cond` would take 40 ms to begin.
        here = planned(number)
        following = planned(number + 1) if shuffle else here
        plan = (tf.concat(x, 0) for x in zip(here, following, strict=True))
        listed, shapes = (x[passed_over:][:count] for x in plan)
        batch = number * count + passed_over + tf.range(count, dtype=tf.int64)
        other = tf.fill((count,), tf.constant(~seed, tf.int64))  # than of the order
        return listed, shapes, tf.stack([other, batch], axis=1)

    place = Place(count)
    dataset = tf.data.Dataset.from_tensors(0).map(one_pass).unbatch()
    dataset = dataset.map(
        lambda rows, size, own: make(rows[: size[0]], size[1], own),
        num_parallel_calls=2,
    )
    options = tf.data.Options()
    options.autotune.enabled = False  # it takes as long as a small set's whole pass
    return place.given_to(dataset.prefetch(2).with_options(options), identity)


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
