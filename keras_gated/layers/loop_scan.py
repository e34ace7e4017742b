"""The loop over time on TensorFlow."""

import operator
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import tree

from keras_gated.cells.equations import Tensor


def scan(
    step: Callable[[list[Tensor], Any], tuple[list[Tensor], Any]],
    carry: list[Tensor],
    inputs: Any,
    reverse: bool = False,
    steps: Tensor | None = None,
) -> tuple[list[Tensor], Any]:
    """`Scan` by `tf.while_loop`."""
    flat = tree.flatten(inputs)
    size = flat[0].shape[0]
    size = tf.shape(flat[0])[0] if size is None else size
    # XLA would compile again for each value from which the place of a slice comes.
    take = operator.getitem if steps is None else tf.gather
    steps = size if steps is None else steps
    structure = None

    def run(carry: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        nonlocal structure
        now = [None if tensor is None else take(tensor, t) for tensor in flat]
        new_carry, structure = step(carry, tree.pack_sequence_as(inputs, now))
        for new, old in zip(new_carry, carry, strict=True):
            new.set_shape(old.shape)
        return new_carry, tree.flatten(structure)

    if tf.executing_eagerly():
        outputs = []
        for t in reversed(range(steps)) if reverse else range(steps):
            carry, of_step = run(carry, t)
            outputs.append(of_step)
        ordered = reversed(outputs) if reverse else outputs
        stacked = [tf.stack(of_all) for of_all in zip(*ordered, strict=True)]
        return list(carry), tree.pack_sequence_as(structure, stacked)

    # The loop needs the shapes of its outputs before it begins. The values of this
    # step are not used and not computed.
    _, first = run(carry, 0)

    def body(k: Tensor, carry: list, arrays: list) -> tuple[Tensor, list, list]:
        t = steps - 1 - k if reverse else k
        carry, outputs = run(carry, t)
        pairs = zip(arrays, outputs, strict=True)
        return k + 1, carry, [array.write(t, output) for array, output in pairs]

    arrays = [
        tf.TensorArray(output.dtype, size=size, element_shape=output.shape)
        for output in first
    ]
    _, carry, arrays = tf.while_loop(
        lambda k, *_: k < steps,
        body,
        (0, list(carry), arrays),
        maximum_iterations=size,
    )
    outputs = [array.stack() for array in arrays]
    return list(carry), tree.pack_sequence_as(structure, outputs)
