"""The loop on TensorFlow: `tf.while_loop` inside `tf.custom_gradient`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
from keras import tree
from tensorflow.python.eager import context
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.layers import loop_shards as shards
from keras_gated.layers.loop import Arguments, Kept, Loop, split, swapped

_compiled = partial(tf.function, jit_compile=True, autograph=False)


def scan(
    step: Callable[[list[Tensor], Any], tuple[list[Tensor], Any]],
    carry: list[Tensor],
    inputs: Any,
    reverse: bool = False,
) -> tuple[list[Tensor], Any]:
    """`Scan` by `tf.while_loop`."""
    flat = tree.flatten(inputs)
    steps = flat[0].shape[0]
    steps = tf.shape(flat[0])[0] if steps is None else steps
    structure = None

    def run(carry: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        nonlocal structure
        now = [None if tensor is None else tensor[t] for tensor in flat]
        new_carry, structure = step(carry, tree.pack_sequence_as(inputs, now))
        for new, old in zip(new_carry, carry, strict=True):
            new.set_shape(old.shape)
        return new_carry, tree.flatten(structure)

    # The loop needs the shapes of its outputs before it begins. The values of this
    # step are not used; in a graph they are not computed.
    _, first = run(carry, 0)

    def body(k: Tensor, carry: list, arrays: list) -> tuple[Tensor, list, list]:
        t = steps - 1 - k if reverse else k
        carry, outputs = run(carry, t)
        pairs = zip(arrays, outputs, strict=True)
        return k + 1, carry, [array.write(t, output) for array, output in pairs]

    arrays = [
        tf.TensorArray(output.dtype, size=steps, element_shape=output.shape)
        for output in first
    ]
    _, carry, arrays = tf.while_loop(
        lambda k, *_: k < steps,
        body,
        (0, list(carry), arrays),
        maximum_iterations=steps,
    )
    outputs = [array.stack() for array in arrays]
    return list(carry), tree.pack_sequence_as(structure, outputs)


class FastLoop:
    """Runs a loop; while training, forward and backward are compiled with XLA.

    In a model that is not compiled as a whole, Keras's default without a GPU,
    TensorFlow takes longer to schedule a step of few units than to compute it.
    Inference is not compiled, because compiled functions cannot be exported to other
    formats.

    What is compiled keeps one core busy. So the cores share the batch: see
    `loop_shards`.
    """

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        self._loop = Loop(equations, truncate, scan)
        self._compiled = _compiled(self._forward), _compiled(self._backward)

    def _forward(
        self, arguments: Arguments, shared: bool = False, keep: bool = True
    ) -> tuple[Tensor, States, Kept]:
        arguments = shards.in_parts(arguments) if shared else arguments
        states, kept = self._loop.forward(arguments, keep)
        return swapped(kept.history[0]), states, kept

    def _backward(self, arguments: Arguments, shared: bool, *more: Any) -> Arguments:
        arguments = shards.in_parts(arguments) if shared else arguments
        return self._loop.backward(arguments, *more)

    def __call__(self, arguments: Arguments, training: bool) -> tuple[Tensor, States]:
        tensors, pack, pick = split(arguments)
        forward, backward, n = self._forward, self._backward, 1
        if _may_compile():
            forward, backward = self._compiled
            n = shards.number(arguments.inputs.shape[0])

        # Nothing in here may be recorded on a tape: automatic differentiation would
        # keep intermediate results of the loop, which XLA does not return.
        @tf.custom_gradient
        def run(*tensors: Tensor) -> tuple[list[Tensor], Callable]:
            arguments = pack([tf.stop_gradient(tensor) for tensor in tensors])
            batch = tf.shape(arguments.inputs)[0]
            if training:
                parts = [forward(part, n > 1) for part in shards.share(arguments, n)]
            else:
                parts = [self._forward(arguments, keep=False)]
            outputs, states, kept = zip(*parts, strict=True)

            def gradient(*d: Tensor) -> list[Tensor]:
                # In a branch of tf.cond, a compiled function cannot capture tensors of
                # the forward pass, while other operations can.
                arguments_, kept_ = tree.map_structure(_identity, (arguments, kept))

                @tf.custom_gradient
                def once(*inputs: Tensor) -> tuple[list[Tensor], Callable]:
                    parts, kept = shards.share(arguments_, n), kept_
                    if not training:  # nothing was kept
                        kept = [forward(part, n > 1)[-1] for part in parts]
                    d_outputs, *d_states = map(tf.stop_gradient, inputs[: len(d)])
                    d_parts = shards.share_rows([d_outputs, d_states], n)
                    gradients = [
                        backward(part, n > 1, of_part, *d_part)
                        for part, of_part, d_part in zip(
                            parts, kept, d_parts, strict=True
                        )
                    ]
                    batch = tf.shape(d_outputs)[0]
                    gradients = pick(shards.add(gradients, arguments_.W, batch))
                    return [g for g in gradients if g is not None], _no_second_gradient

                dense = map(tf.convert_to_tensor, d)  # tf.gather has sparse ones
                found = once(*dense, *tensors)
                return [*found, *[None] * (len(tensors) - len(found))]

            results = [shards.join(outputs, batch)]
            of_states = zip(*states, strict=True)
            results += [shards.join(of_parts, batch) for of_parts in of_states]
            # A compiled function may have been traced for less specific shapes.
            units = results[0].shape[-1]
            results[0].set_shape((*arguments.inputs.shape[:2], units))
            for result, state in zip(results[1:], arguments.states, strict=True):
                result.set_shape(state.shape)
            if "loop_body" in tf.get_current_name_scope():
                results = [_only_gradient(result, tensors[0]) for result in results]
            return results, gradient

        # No variables, and tensors of this graph: a gradient within branches of
        # branches cannot reach those of others.
        outputs, *states = run(*map(tf.identity, tensors))
        return outputs, states


def _identity(leaf: Any) -> Any:
    return tf.identity(leaf) if tf.is_tensor(leaf) else leaf


def _only_gradient(result: Tensor, argument: Tensor) -> Tensor:
    """Makes any gradient other than the loop's own an error.

    `tf.vectorized_map` (whose scope is `loop_body`) ignores custom gradients: a
    gradient taken around it would silently be zero.
    """
    nothing = tf.raw_ops.PreventGradient(
        input=tf.reduce_sum(argument[:0]),
        message="tf.vectorized_map loses the gradient that the fast loop brings. "
        "Take the gradient within the function that is mapped, or construct the layer "
        "with use_fast_loop=False.",
    )
    return result + nothing


def _may_compile() -> bool:
    """Whether to compile the loop on its own.

    Not within a graph that XLA compiles as a whole, where a nested function would take
    dynamic sizes for static ones; and not under `tf.debugging`, which inspects every
    operation and cannot look into compiled code.
    """
    graph = tf.compat.v1.get_default_graph()
    return not (GraphOrParentsInXlaContext(graph) or context.context().op_callbacks)


def _no_second_gradient(*_: Tensor) -> None:
    raise NotImplementedError(
        "On TensorFlow the fast loop has no gradient of its gradient. "
        "Construct the layer with use_fast_loop=False to have one."
    )
