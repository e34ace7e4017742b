"""Piano rolls: from notes, to notes, in batches for training, as a picture.

A roll is `uint8 [T, 88]`: `roll[t, j]` is 1 while the MIDI pitch `21 + j`
sounds in step `t`. A row of zeros is a rest, which is data like any other.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_gated.files import require

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.axes import Axes

LOWEST_PITCH = 21
"""The MIDI pitch of a piano's lowest key, A0."""
KEYS = 88
"""The number of a piano's keys."""


def from_notes(notes: Sequence, ticks_per_step: int | Fraction) -> np.ndarray:
    """A roll from notes on a grid of ticks.

    A moment of `x` ticks falls to the nearest line of the grid of steps, halves
    upward: `q(x) = floor(x / ticks_per_step + 1/2)`. A note is on in the steps
    `q(start) ... q(end) - 1`; one that is rounded to nothing vanishes. Notes
    that overlap or touch at one pitch merge. Notes beyond the 88 keys are left
    out.

    Args:
        notes: Integers `(notes, 3)`: start and end in ticks, MIDI pitch.
        ticks_per_step: Ticks in a step, positive.

    Returns:
        The roll, `uint8 [T, 88]`, where T is the largest `q(end)`.

    Raises:
        ValueError: `notes` has another shape, negative times, or an end before
            its start; or `ticks_per_step` is not positive; or the numbers are
            too large to be exact.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 480, 60), (240, 960, 64)], 240)
    >>> roll.shape
    (4, 88)
    >>> roll[:, [60 - 21, 64 - 21]].T.tolist()
    [[1, 1, 0, 0], [0, 1, 1, 1]]
    """
    notes = np.asarray(notes)
    if not notes.size:
        notes = np.empty((0, 3), np.int64)
    if notes.ndim != 2 or notes.shape[1] != 3 or notes.dtype.kind not in "iu":
        raise ValueError(
            "Argument `notes` must hold integers (start, end, pitch), of shape "
            f"(notes, 3). Received: shape {notes.shape} and dtype {notes.dtype}"
        )
    notes = notes.astype(np.int64)
    step = Fraction(ticks_per_step)
    if step <= 0:
        raise ValueError(
            f"Argument `ticks_per_step` must be positive. Received: {ticks_per_step!r}"
        )
    start, end, pitch = notes.T
    if (start < 0).any() or (end < start).any():
        raise ValueError(
            "Argument `notes` must hold rows (start, end, pitch) with 0 <= start <= "
            f"end. Received: {notes[(start < 0) | (end < start)][0].tolist()}"
        )
    key = pitch - LOWEST_PITCH
    piano = (key >= 0) & (key < KEYS)
    twice, ticks = 2 * step.denominator, step.numerator
    if twice * int(end.max(initial=0)) + 2 * ticks >= 2**63:
        raise ValueError(
            "Times of `notes` and `ticks_per_step` must fit 64 bits together. "
            f"Received: ticks_per_step={step} and notes up to {end.max(initial=0)}"
        )
    start, end = (
        (twice * x[piano] + ticks) // (2 * ticks) for x in (start, end)
    )  # floor(x / step + 1/2) in whole numbers
    roll = np.zeros((end.max(initial=0), KEYS), np.uint8)
    for first, last, j in zip(start, end, key[piano], strict=True):
        roll[first:last, j] = 1
    return roll


def to_notes(roll: np.ndarray) -> np.ndarray:
    """The notes of a roll; consecutive steps of a pitch are one note.

    Args:
        roll: `[T, 88]`, zeros and ones.

    Returns:
        Integers `(notes, 3)`: first step, the step after the last, MIDI pitch;
        ordered by start, then pitch.

    Raises:
        ValueError: `roll` is no roll.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 2, 60), (1, 4, 64)], 1)
    >>> piano_roll.to_notes(roll).tolist()
    [[0, 2, 60], [1, 4, 64]]
    """
    roll = check_roll(roll, "roll")
    edges = np.diff(roll.astype(np.int8), axis=0, prepend=0, append=0)
    key, start = np.nonzero(edges.T == 1)
    _, end = np.nonzero(edges.T == -1)
    notes = np.stack([start, end, key + LOWEST_PITCH], axis=1)
    return notes[np.lexsort((key, start))]


def check_roll(roll: Any, name: str) -> np.ndarray:
    """The roll as `uint8`, if it is one.

    Args:
        roll: What should be an array `[T, 88]` of zeros and ones.
        name: What the error calls it.

    Returns:
        `uint8 [T, 88]`.

    Raises:
        ValueError: It is not; the message says what it is.
    """
    array = np.asarray(roll)
    if array.ndim != 2 or array.shape[1] != KEYS:
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}]. Received: {name} of shape "
            f"{list(array.shape)}"
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        strange = array[~np.isin(array, (0, 1))].flat[0]
        raise ValueError(
            "A piano roll holds zeros and ones alone (binarise velocities first). "
            f"Received: {name} with the value {strange!r}"
        )
    return array.astype(np.uint8)


def next_step_dataset(
    rolls: Sequence[np.ndarray],
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int | None = None,
    max_shapes: int = 6,
) -> "tf.data.Dataset":
    """Batches for a model that predicts every next frame.

    A sequence `x` gives the inputs `x[:-1]`, the targets `x[1:]`, and a weight
    of 1 for each of their steps. Sequences of like length share a batch, filled
    up on the right with steps of weight 0 that no step of a causal model sees.
    Rests keep their weight of 1.

    Keras compiles a model once for each shape of a batch, about two seconds
    each. All batches therefore have `batch_size` rows, the last filled with
    rows of weight 0, and at most `max_shapes` lengths, chosen so that padding
    is least.

    Args:
        rolls: Piano rolls, `[T, 88]`, each of two steps or more.
        batch_size: Sequences a batch. Default: 16.
        shuffle: Whether each pass puts the sequences of like length and the
            batches in a new order. Without it, the longest come first.
            Default: `False`.
        seed: Makes the order repeatable: the first pass over two data sets of
            the same seed is the same, and so is the second. Default: `None`.
        max_shapes: The largest number of lengths. Default: 6.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`, all `float32`, of known cardinality. Give
        the weights to metrics through `compile(weighted_metrics=[...])`.

    Raises:
        ValueError: There are no rolls, one is no roll or shorter than two
            steps, or a number is not positive.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets.piano_roll import next_step_dataset
    >>> rolls = [np.ones((4, 88)), np.ones((6, 88))]
    >>> for inputs, targets, weights in next_step_dataset(rolls, batch_size=2):
    ...     print(inputs.shape, weights.numpy().tolist())
    (2, 5, 88) [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    for name, value in (("batch_size", batch_size), ("max_shapes", max_shapes)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(
                f"Argument `{name}` must be a positive integer. "
                f"Received: {name}={value!r}"
            )
    rolls = [check_roll(roll, f"rolls[{i}]") for i, roll in enumerate(rolls)]
    if not rolls:
        raise ValueError("Argument `rolls` must hold at least one roll; it is empty.")
    for i, roll in enumerate(rolls):
        if len(roll) < 2:
            raise ValueError(
                "A sequence needs two steps or more: one to see and one to predict. "
                f"Received: rolls[{i}] with {len(roll)}"
            )
    import tensorflow as tf

    groups = _groups_of_like_length([len(r) - 1 for r in rolls], batch_size, max_shapes)
    batches = sum(-(-len(group) // batch_size) for group, _ in groups)
    random = np.random.default_rng(seed)

    def one_pass() -> Any:
        plan = []
        for group, length in groups:
            members = random.permutation(group) if shuffle else group
            plan += [
                (members[i : i + batch_size], length)
                for i in range(0, len(members), batch_size)
            ]
        for k in random.permutation(batches) if shuffle else range(batches):
            members, length = plan[k]
            inputs = np.zeros((batch_size, length, KEYS), np.float32)
            targets, weights = np.zeros_like(inputs), np.zeros(inputs.shape[:2], "f4")
            for row, member in enumerate(members):
                steps = len(rolls[member]) - 1
                inputs[row, :steps] = rolls[member][:-1]
                targets[row, :steps] = rolls[member][1:]
                weights[row, :steps] = 1
            yield inputs, targets, weights

    frames = tf.TensorSpec((batch_size, None, KEYS), tf.float32)
    steps = tf.TensorSpec((batch_size, None), tf.float32)
    dataset = tf.data.Dataset.from_generator(
        one_pass, output_signature=(frames, frames, steps)
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _groups_of_like_length(
    lengths: Sequence[int], batch_size: int, max_groups: int
) -> list[tuple[np.ndarray, int]]:
    """The members of each group, and the length to which they are padded.

    From the longest sequence to the shortest, whole batches are formed; a group
    is a run of batches, so that only the very last batch, of the shortest, may
    be incomplete. Which runs leave the least padding is found exactly, by
    dynamic programming over the batches.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    longest = np.asarray(lengths)[order][::batch_size]  # of each batch, descending
    n = len(longest)
    # least[j]: the fewest padded steps of the first j batches in k groups or
    # fewer; the last of these groups begins at the batch begin[k][j].
    least = np.concatenate([[0], np.full(n, np.inf)])
    begins = []
    for _ in range(min(max_groups, n)):
        begin = np.zeros(n + 1, int)
        fewer = least.copy()
        for j in range(1, n + 1):
            cost = fewer[:j] + longest[:j] * (j - np.arange(j))
            begin[j] = np.argmin(cost)
            least[j] = cost[begin[j]]
        begins.append(begin)
    groups, end = [], n
    for begin in reversed(begins):
        if end == 0:
            break
        members = order[begin[end] * batch_size : end * batch_size]
        groups.append((members, int(longest[begin[end]])))
        end = begin[end]
    return groups[::-1]


def plot(
    roll: np.ndarray,
    axes: "Axes | None" = None,
    title: str | None = None,
    **imshow_arguments: Any,
) -> "Axes":
    """Draws a roll: time to the right, pitch upward.

    Args:
        roll: `[T, 88]`, values from 0 (white) to 1 (black); probabilities are
            welcome.
        axes: Where to draw; by default a new figure, sized to the roll. Save it
            with `axes.figure.savefig(path)`.
        title: The title. Default: none.
        **imshow_arguments: Passed on to `matplotlib.axes.Axes.imshow`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `roll` is not `[T, 88]`.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> axes = piano_roll.plot(np.eye(88), title="a chromatic scale")
    >>> axes.get_ylabel()
    'pitch'
    """
    figure = require("matplotlib.figure", extra="examples")
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS:
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}]. Received: {list(roll.shape)}"
        )
    if axes is None:
        width = min(max(4.0, len(roll) / 16), 24.0)
        axes = figure.Figure((width, 4), layout="constrained").subplots()
    axes.imshow(
        roll.T,
        **{
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "nearest",
            "cmap": "Greys",
            "vmin": 0,
            "vmax": 1,
            "extent": (-0.5, len(roll) - 0.5, LOWEST_PITCH - 0.5, 108.5),
            **imshow_arguments,
        },
    )
    octaves = range(1, 9)
    axes.set_yticks(
        [12 * (octave + 1) for octave in octaves], [f"C{o}" for o in octaves]
    )
    axes.grid(axis="y", linewidth=0.3)
    axes.set(xlabel="step", ylabel="pitch", title=title)
    return axes
