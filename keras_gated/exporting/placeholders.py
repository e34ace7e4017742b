"""Recurrent layers as one operation each, while a model is traced for ONNX.

A layer whose equations ONNX has is traced as a placeholder instead of a loop, an
operation of TensorFlow that is never run. Whatever else is in the model is traced as it
is. Where the graph of TensorFlow becomes one of ONNX, `Placeholders.handlers` puts the
operators, with the weights of the layers, in the places.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_gated import stepping
from keras_gated.exporting.operators import NoOperatorError, Operator, of_layer

Tensor = Any

FLOAT = 1
"""float32, as ONNX numbers types."""


class Placeholders:
    """The layers of a model that are placeholders while it is traced.

    Args:
        model: A built model; `None`, no layer is one.

    Attributes:
        about: What each recurrent layer becomes, by its name: the operator, or
            `"loop: …"` and why.
    """

    def __init__(self, model: keras.Model | None) -> None:
        self.about: dict[str, str] = {}
        self._operators: dict[keras.layers.RNN, list[Operator]] = {}
        self._placed: dict[str, tuple[Operator, bool, bool]] = {}
        """Operators by token, whether they run backwards, and whether under a mask."""
        for layer in stepping.layers_within(model) if model else ():
            if isinstance(layer, keras.layers.RNN):
                try:
                    self._operators[layer] = of_layer(layer)
                    self.about[layer.name] = self._operators[layer][0].kind
                except NoOperatorError as error:
                    self.about[layer.name] = f"loop: {error}"

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Within the block, the layers are placeholders."""
        with contextlib.ExitStack() as stack:
            for layer, operators in self._operators.items():
                stack.enter_context(self._placed_in(layer, operators))
            yield

    @contextlib.contextmanager
    def _placed_in(
        self, layer: keras.layers.RNN, operators: list[Operator]
    ) -> Iterator[None]:
        first, zeros = layer.get_initial_state, []

        def get_initial_state(batch_size: Any) -> list[Tensor]:
            states = first(batch_size)
            if not getattr(layer, "learn_initial_state", False):
                zeros[:] = map(id, keras.tree.flatten(states))
                kept[:] = keras.tree.flatten(states)
            return states

        kept: list[Tensor] = []  # so that no other tensor gets the same id

        def inner_loop(
            sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
        ) -> tuple[Tensor, Tensor, Any]:
            states = keras.tree.flatten(initial_state)
            given = None if zeros == list(map(id, states)) else states
            last, outputs, new = self._run(
                layer, operators, sequences, states, given, mask
            )
            return last, outputs, keras.tree.pack_sequence_as(initial_state, new)

        layer.inner_loop, layer.get_initial_state = inner_loop, get_initial_state
        try:
            yield
        finally:
            del layer.inner_loop, layer.get_initial_state

    def _run(
        self,
        layer: keras.layers.RNN,
        operators: list[Operator],
        sequences: Tensor,
        states: list[Tensor],
        given: list[Tensor] | None,
        mask: Any,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        import tensorflow as tf

        backwards = layer.go_backwards
        outputs, count, lengths = tf.cast(sequences, "float32"), None, None
        if mask is not None:
            mask = tf.reshape(tf.cast(mask, "bool"), tf.shape(sequences)[:2])
            if backwards:
                outputs, mask = tf.reverse(outputs, [1]), tf.reverse(mask, [1])
            outputs, count, lengths = _only_marked(outputs, mask)
            backwards = False
        new, at = [], 0
        for operator in operators:
            part = slice(at, at + operator.states)
            at = part.stop
            own = None if given is None else given[part]
            outputs, *last = self._place(operator, backwards, outputs, own, lengths)
            if backwards:  # as Keras has them: in the order of computation
                outputs, backwards = tf.reverse(outputs, [1]), False
            if lengths is not None:
                some = lengths[:, None] > 0
                pairs = zip(last, states[part], strict=True)
                last = [tf.where(some, *pair) for pair in pairs]
            new += last
        if mask is None:
            return new[-operators[-1].states], outputs, new
        outputs = tf.gather(outputs, tf.maximum(count - 1, 0), batch_dims=1)
        shown = mask if layer.zero_output_for_mask else count > 0
        outputs = tf.where(shown[..., None], outputs, tf.zeros_like(outputs))
        return outputs[:, -1], outputs, new

    def _place(
        self,
        operator: Operator,
        backwards: bool,
        sequences: Tensor,
        states: list[Tensor] | None,
        lengths: Tensor | None,
    ) -> list[Tensor]:
        """The outputs of all steps, and the last states."""
        import tensorflow as tf

        token = f"keras_gated_{len(self._placed)}"
        inputs = [sequences, *(states or [])]
        inputs += [] if lengths is None else [tf.cast(lengths, "int32")]
        self._placed[token] = operator, backwards, lengths is not None
        found = tf.raw_ops.PyFuncStateless(
            input=inputs, token=token, Tout=["float32"] * (1 + operator.states)
        )
        batch, steps, _ = sequences.shape
        shapes = [(batch, steps, operator.units)]
        shapes += [(batch, operator.units)] * operator.states
        return [tf.ensure_shape(*pair) for pair in zip(found, shapes, strict=True)]

    @property
    def handlers(self) -> dict[str, tuple[Callable, list]]:
        """`custom_op_handlers` of tf2onnx."""
        return {"PyFuncStateless": (self._put, []), "ReverseV2": (_reverse, [])}

    def _put(self, graph: Any, node: Any, name: str, args: Any) -> None:
        """Replaces a placeholder by its operator."""
        operator, backwards, masked = self._placed[
            node.get_attr_value("token").decode()
        ]
        sequences, *states = node.input
        lengths = states.pop() if masked else ""
        outputs = node.output
        graph.remove_node(node.name)

        def make(kind: str, inputs: list[str], **more: Any) -> Any:
            return graph.make_node(kind, inputs, op_name_scope=name, **more)

        def axis(number: int) -> str:
            return _constant(graph, _int64([number]))

        weights = {
            letter: _constant(graph, value)
            for letter, value in operator.weights.items()
        }
        first = [make("Unsqueeze", [s, axis(0)]).output[0] for s in states]
        inputs = [make("Transpose", [sequences], attr={"perm": [1, 0, 2]}).output[0]]
        inputs += [weights["W"], weights["R"], weights["B"], lengths, *first]
        if "P" in weights:
            inputs += [""] * (7 - len(inputs)) + [weights["P"]]
        while not inputs[-1]:
            inputs.pop()
        attributes = {"hidden_size": operator.units, **operator.attributes}
        attributes |= {"direction": "reverse"} if backwards else {}
        count = 1 + operator.states
        run = make(operator.kind, inputs, attr=attributes, output_count=count)
        steps = make("Squeeze", [run.output[0], axis(1)])
        make(
            "Transpose",
            [steps.output[0]],
            attr={"perm": [1, 0, 2]},
            outputs=[outputs[0]],
            dtypes=[FLOAT],
        )
        for old, state in zip(outputs[1:], run.output[1:], strict=True):
            make("Squeeze", [state, axis(0)], outputs=[old], dtypes=[FLOAT])


def _constant(graph: Any, value: Any) -> str:
    from tf2onnx.utils import make_name

    return graph.make_const(make_name("keras_gated"), value).output[0]


def _int64(values: list[int]) -> Any:
    import numpy as np

    return np.array(values, "int64")


def _reverse(graph: Any, node: Any, name: str, args: Any) -> None:
    """Reverses the only axis in one operation; tf2onnx takes several."""
    axes = node.inputs[1].get_tensor_value()
    source, output = node.input[0], node.output[0]
    dtype, shape = graph.get_dtype(output), graph.get_shape(output)
    graph.remove_node(node.name)
    bounds = ([-1], [-(2**63) + 1], axes, [-1])
    parts = [
        _constant(graph, _int64(values * len(axes) if k != 2 else values))
        for k, values in enumerate(bounds)
    ]
    graph.make_node(
        "Slice",
        [source, *parts],
        op_name_scope=name,
        outputs=[output],
        dtypes=[dtype],
        shapes=[shape],
    )


def _only_marked(sequences: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The marked steps first, in their order.

    Operators of ONNX skip steps at the end alone.

    Returns:
        The sequences, how many steps are marked up to each, and in each sequence.
    """
    import tensorflow as tf

    steps = tf.shape(mask)[1]
    place = tf.range(steps)[None]
    order = tf.cast(tf.where(mask, steps - place, -place), "float32")
    _, order = tf.math.top_k(order, steps)
    count = tf.cumsum(tf.cast(mask, "int32"), axis=1)
    return tf.gather(sequences, order, batch_dims=1), count, count[:, -1]
