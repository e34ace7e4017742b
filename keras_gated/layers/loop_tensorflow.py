"""The loop on TensorFlow, inside `tf.custom_gradient`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
from keras import tree
from tensorflow.python.eager import context
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.layers import loop_blocks as blocks
from keras_gated.layers import loop_shards as shards
from keras_gated.layers.loop import Arguments, Keep, Loop, Passes, split
from keras_gated.layers.loop_scan import scan
from keras_gated.layers.step_gradients import gradient_of

FEW = 32
"""Steps that are not worth compiling where nothing is trained."""
SMALL = 250_000
"""Multiplications of a step with which it is small, measured."""
OF_TRAINER = {
    "one_step_on_data",
    "one_step_on_data_distributed",
    "multi_step_on_data",
    "multi_step_on_iterator",
}
"""The graphs of `keras.Model`'s `fit`, `evaluate` and `predict`."""

eagerly = tf.init_scope
compiled = partial(tf.function, jit_compile=True, autograph=False)


class FastLoop:
    """Runs a loop; forward and backward are compiled with XLA.

    In a model that is not compiled as a whole, Keras's default without a GPU,
    TensorFlow takes longer to schedule a step of few units than to compute it. A graph
    of inference that might be exported is not compiled, because other formats have no
    compiled functions.

    What is compiled keeps one core busy. So the cores share the batch: see
    `loop_shards`. A long sequence is computed in blocks of steps: see `loop_blocks`.
    """

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        self._gates = equations.gates
        loop = Loop(gradient_of(equations, vjp, _known), truncate, scan)
        self._plain = Passes(loop.forward, loop.backward)
        self._compiled = Passes(*map(compiled, self._plain))
        self._of_shard = Passes(*map(compiled, shards.of_a_shard(self._plain)))

    def __call__(
        self, arguments: Arguments, training: bool, recompute: bool
    ) -> tuple[Tensor, States]:
        batch, steps, _ = arguments.inputs.shape
        keep = training and not recompute
        if not _may_compile():
            passes = shards.shared(self._plain, 1)
            return _run(passes, "gates" if keep else "nothing", arguments)
        n = shards.number(batch)
        passes = shards.shared(self._of_shard if n > 1 else self._compiled, n)
        if not (training or _may_compile_inference(steps)):
            forward, _ = shards.shared(self._plain, 1)
            return _run(passes._replace(forward=forward), "nothing", arguments)

        widest = max(state.shape[-1] for state in arguments.states)
        most = blocks.most_steps(batch, widest)
        now = tf.shape(arguments.inputs)[1] if steps is None else steps
        in_blocks = blocks.in_blocks(passes, blocks.size(now, most, training))
        known = self._to_keep(arguments)

        def whole() -> tuple[Tensor, States]:
            return _run(passes, known if keep else "nothing", arguments)

        def long() -> tuple[Tensor, States]:
            return _run(in_blocks, "states" if keep else "nothing", arguments)

        # What trains has few lengths, and is compiled for each. What is predicted, one
        # file after the other, may have any.
        if not training and (steps is None or tf.executing_eagerly()):
            return long()
        if steps is None:
            return tf.cond(now <= most, whole, long)
        return whole() if steps <= most else long()

    def _to_keep(self, arguments: Arguments) -> Keep:
        """What is worth keeping of a sequence that is one block.

        With few units, all gates at once are computed again sooner than kept at every
        step. The only gate of a cell that has one is its state.
        """
        batch = arguments.states[0].shape[0] or shards.ROWS
        sizes = (math.prod(U.shape) for U in arguments.recurrent.U.values())
        multiplications = batch * sum(sizes)
        few = multiplications <= SMALL and len(self._gates) > 1
        return "inputs" if few else "gates"


def _run(passes: Passes, keep: Keep, arguments: Arguments) -> tuple[Tensor, States]:
    """The outputs of all steps and the last states, with a gradient of its own."""
    tensors, pack, pick = split(arguments)

    # Nothing in here may be recorded on a tape: automatic differentiation would
    # keep intermediate results of the loop, which XLA does not return.
    @tf.custom_gradient
    def run(*tensors: Tensor) -> tuple[list[Tensor], Callable]:
        arguments = pack([tf.stop_gradient(tensor) for tensor in tensors])
        outputs, states, kept = passes.forward(arguments, keep)
        known = None if keep == "nothing" else outputs, kept

        def gradient(*d: Tensor) -> list[Tensor]:
            # In a branch of tf.cond, a compiled function cannot capture tensors of
            # the forward pass, while other operations can.
            arguments_, known_ = tree.map_structure(_identity, (arguments, known))

            @tf.custom_gradient
            def once(*inputs: Tensor) -> tuple[list[Tensor], Callable]:
                d_outputs, *d_states = map(tf.stop_gradient, inputs[: len(d)])
                found = passes.backward(arguments_, *known_, d_outputs, d_states)
                gradients = [g for g in pick(found) if g is not None]
                return gradients, _no_second_gradient

            dense = map(tf.convert_to_tensor, d)  # tf.gather has sparse ones
            found = once(*dense, *tensors)
            return [*found, *[None] * (len(tensors) - len(found))]

        # A compiled function may have been traced for less specific shapes.
        outputs.set_shape((*arguments.inputs.shape[:2], outputs.shape[-1]))
        for new, old in zip(states, arguments.states, strict=True):
            new.set_shape(old.shape)
        results = [outputs, *states]
        if "loop_body" in tf.get_current_name_scope():
            results = [_only_gradient(result, tensors[0]) for result in results]
        return results, gradient

    # No variables, and tensors of this graph: a gradient within branches of
    # branches cannot reach those of others.
    outputs, *states = run(*map(tf.identity, tensors))
    return outputs, states


def vjp(
    function: Callable, arguments: list[Tensor], d: list[Tensor]
) -> tuple[list[Tensor], Any]:
    """`step_gradients.VJP`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(arguments)
        results, more = function(*arguments)
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(results, arguments, d, unconnected_gradients=zero), more


def _known(h: Tensor, u: Tensor, pullback: Callable) -> Tensor:
    @tf.custom_gradient
    def product(h: Tensor, u: Tensor) -> tuple[Tensor, Callable]:
        return tf.identity(u), lambda d: (pullback(d), d)

    return product(h, u)


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


def _may_compile_inference(steps: int | None) -> bool:
    """Whether to compile what does not train.

    Not in a graph that might be exported, which may be any but those of `predict`,
    `evaluate` and `fit`; and not for a few steps one after the other, which compute
    before the compiler has begun.
    """
    if tf.executing_eagerly():
        return steps >= FEW
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if getattr(graph, "name", None) in OF_TRAINER:
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _no_second_gradient(*_: Tensor) -> None:
    raise NotImplementedError(
        "On TensorFlow the fast loop has no gradient of its gradient. "
        "Construct the layer with use_fast_loop=False to have one."
    )
