"""Long sequences in blocks of steps, on TensorFlow.

A block after the other is compiled code; the loop over the blocks is TensorFlow's own.
So what is compiled does not depend on the length, and all but the states themselves is
alive for one block at a time: backward computes the gates of a block again, from its
states.
"""

from typing import Any

import tensorflow as tf
from keras import tree

from keras_gated.cells.equations import States, Tensor
from keras_gated.layers.loop import Arguments, Keep, Passes, Stretch
from keras_gated.layers.loop_scan import scan

LARGEST = 2**24
"""Numbers in a state of all steps of a block, which bounds its memory."""
MOST = 1024
"""Steps of a block; with 64 or 256 a training step took up to half as long again."""


def most_steps(batch: int | None, units: int) -> int:
    """The steps up to which a sequence is one block."""
    return max(64, min(MOST, LARGEST // max(1, (batch or 1) * units)))


def size(steps: int | Tensor, most: int, training: bool) -> int | Tensor:
    """The steps of a block.

    Those of one sequence are of the same size, of few sizes, since each is compiled,
    and nearly full where that counts, in training.
    """
    sizes = [*range(64, most + 64, 64)] if training else [2**i for i in range(5, 11)]
    if isinstance(steps, int):
        per_block = -(-steps // max(1, -(-steps // most)))
        return next(size for size in sizes if size >= per_block)
    per_block = -(-steps // tf.maximum(1, -(-steps // most)))
    return tf.gather(sizes, tf.searchsorted(sizes, [per_block])[0])


def in_blocks(passes: Passes, size: int | Tensor) -> Passes:
    """Passes over sequences by those over blocks of `size` steps."""

    def of_block(arguments: Arguments, k: Tensor, states: States) -> Arguments:
        steps = tf.shape(arguments.inputs)[1]
        return arguments._replace(
            inputs=_block(arguments.inputs, k, size),
            states=states,
            mask=_block(arguments.mask, k, size),
            zone=arguments.zone
            and [_block(state, k, size) for state in arguments.zone],
            stretch=Stretch(k * size, tf.minimum(size, steps - k * size)),
        )

    def numbers(arguments: Arguments) -> Tensor:
        return tf.range(-(-tf.shape(arguments.inputs)[1] // size))

    def forward(arguments: Arguments, keep: Keep) -> tuple[Tensor, States, Any]:
        def run(states: States, k: Tensor) -> tuple[States, Any]:
            part = of_block(arguments, k, states)
            outputs, new_states, kept = passes.forward(part, keep)
            return new_states, (outputs, states, kept)

        states, (outputs, first, kept) = scan(run, arguments.states, numbers(arguments))
        steps = tf.shape(arguments.inputs)[1]
        return _whole(outputs, steps), states, (first, kept)

    def backward(
        arguments: Arguments,
        outputs: Tensor | None,
        kept: Any,
        d_outputs: Tensor,
        d_states: States,
    ) -> Arguments:
        recurrent = arguments.recurrent._replace(drop=None)
        weights = arguments.W, arguments.b, recurrent, arguments.norm
        sums = tree.map_structure(_zeros, weights)
        n = len(d_states)

        def run(carry: list[Tensor], inputs: tuple) -> tuple[list[Tensor], Tensor]:
            k, states, kept = inputs
            part = of_block(arguments, k, states)
            y, d_y = (_block(of_all, k, size) for of_all in (outputs, d_outputs))
            found = passes.backward(part, y, kept, d_y, carry[:n])
            more = _present((found.W, found.b, found.recurrent, found.norm))
            sums = [a + b for a, b in zip(carry[n:], more, strict=True)]
            return [*found.states, *sums], found.inputs

        first, kept = kept
        inputs = numbers(arguments), first, kept
        carry, d_inputs = scan(run, [*d_states, *_present(sums)], inputs, reverse=True)
        left = iter(carry[n:])
        d_W, d_b, d_recurrent, d_norm = tree.map_structure(
            lambda zeros: None if zeros is None else next(left), sums
        )
        steps = tf.shape(arguments.inputs)[1]
        d_inputs = _whole(d_inputs, steps)
        return Arguments(d_inputs, d_W, d_b, d_norm, carry[:n], d_recurrent)

    return Passes(forward, backward)


def _block(tensor: Tensor | None, k: Tensor, size: int | Tensor) -> Tensor | None:
    """The steps of block `k`, with zeros after the last."""
    if tensor is None:
        return None
    part = tensor[:, k * size : (k + 1) * size]
    part = tf.pad(part, [[0, 0], [0, size - tf.shape(part)[1]], [0, 0]])
    known = size if isinstance(size, int) else None
    part.set_shape((tensor.shape[0], known, tensor.shape[2]))
    return part


def _whole(blocks: Tensor, steps: Tensor) -> Tensor:
    """The steps of all blocks, `(batch, time, …)`."""
    _, batch, _, columns = blocks.shape
    blocks = tf.transpose(blocks, (1, 0, 2, 3))
    batch = tf.shape(blocks)[0] if batch is None else batch
    count, size = tf.shape(blocks)[1], tf.shape(blocks)[2]
    return tf.reshape(blocks, (batch, count * size, columns))[:, :steps]


def _zeros(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tf.zeros_like(tensor)


def _present(structure: Any) -> list[Tensor]:
    return [leaf for leaf in tree.flatten(structure) if leaf is not None]
