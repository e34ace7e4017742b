"""What a recurrent layer does inside a model: its gates, and how far back it remembers.

Shapes: `batch` sequences of `time` steps; `units` of a state; `size` of all states of
a layer concatenated, which for an LSTM is twice the units.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_gated import stepping
from keras_gated.datasets import checks

Tensor = Any


def recurrent_layers(model: keras.layers.Layer) -> list[keras.layers.RNN]:
    """The recurrent layers of a model, at any depth, in order.

    Args:
        model: A model; or a layer, which may be recurrent itself.

    Returns:
        All instances of `keras.layers.RNN`, including those inside wrappers and inner
        models.

    Raises:
        ValueError: `model` is no Keras model or layer.

    Example:

    >>> import keras
    >>> from keras_gated import GRU, inspection
    >>> both = keras.layers.Bidirectional(GRU(4, name="gru"))
    >>> model = keras.Sequential([keras.Input((None, 3)), both])
    >>> [layer.name for layer in inspection.recurrent_layers(model)]
    ['forward_gru', 'backward_gru']
    """
    if not isinstance(model, keras.layers.Layer):
        raise checks.error("model", model, "a Keras model or layer")
    layers = (model, *stepping.layers_within(model))
    return [layer for layer in layers if isinstance(layer, keras.layers.RNN)]


def gates(
    model: keras.layers.Layer,
    sequence: np.ndarray,
    layer: keras.layers.Layer | str | int | None = None,
) -> dict[str, np.ndarray]:
    """What the gates of a recurrent layer do over a sequence.

    The layer may be anywhere in the model: inside another model or a wrapper such as
    `keras.layers.Bidirectional`, after a mask, stateful. The model is called as in
    inference, without dropout and noise, from the initial state, and stays unchanged.
    If it calls the layer several times, the first call counts.

    Args:
        model: A built model with one input, or a built layer.
        sequence: A batch of what the model takes, `(batch, time, ...)`, or one sequence
            without the first axis. If the model does not tell the shape of its input,
            as subclassed models do not, three axes mean a batch.
        layer: The layer: itself, its name, or its index among the recurrent layers of
            the model over cells of `keras_gated`. A wrapper or inner model that
            contains one such layer will do. Default: `None`, the only one.

    Returns:
        The values by the names of the gates that the cell has (`"update"`, `"reset"`,
        `"input"`, `"forget"`, `"output"`, `"candidate"`; `"state"` for a cell without
        gates): arrays `(batch, time, units)`, or `(time, units)` for one sequence, in
        float32 or, if the layer computes in it, float64. The steps are those that the
        layer receives, in the order of the sequence, even if the layer goes backwards.
        Masked steps are NaN.

    Raises:
        ValueError: The model is not built; `sequence` does not have the shape that the
            model takes; `layer` is none of its layers; it is `None`, and there are
            several or none (the message lists them); or the model does not call it.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU, inspection
    >>> model = keras.Sequential([keras.Input((None, 3)), GRU(4)])
    >>> for name, values in inspection.gates(model, np.eye(3)).items():
    ...     print(name, values.shape)
    update (3, 4)
    reset (3, 4)
    candidate (3, 4)
    """
    own = [x for x in recurrent_layers(model) if hasattr(x.cell, "gate_activations")]
    layer = _choose(model, layer, own, "recurrent layer over a cell of keras_gated")
    batch, single = _as_batch(model, sequence)
    # Without a graph TensorFlow takes milliseconds per step.
    steps = _steps(model, layer, batch, graph=True)
    parts = [_gates(layer, some) for some in steps]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: values[0] if single else values for name, values in joined.items()}


def jacobian_norms(
    model: keras.layers.Layer,
    sequence: np.ndarray,
    lags: int | None = None,
    layer: keras.layers.Layer | str | int | None = None,
) -> np.ndarray:
    """How much the last state of a recurrent layer depends on earlier states.

    The state `s` is everything that a step passes to the next, for an LSTM `[h, c]`.
    The Jacobian of the last state with respect to an earlier one is a product of the
    Jacobians of single steps,

        ∂s_T / ∂s_{T-k} = ∂s_T / ∂s_{T-1} · … · ∂s_{T-k+1} / ∂s_{T-k},

    each found by automatic differentiation of the cell. If its norm falls to zero as
    k grows, gradients vanish on their way back through time, and what happened long
    ago cannot be learned; if it grows, they explode (Bengio, Simard and Frasconi,
    1994, https://doi.org/10.1109/72.279181; Pascanu, Mikolov and Bengio, 2013,
    https://proceedings.mlr.press/v28/pascanu13.html).

    Args:
        model: As in `gates`.
        sequence: As in `gates`.
        lags: The largest k, a positive integer. Default: `None`, the number of steps.
        layer: As in `gates`, but among all recurrent layers: the cell may be any with
            states `(batch, units)`, Keras's own included.

    Returns:
        `(batch, lags)`, or `(lags,)` for one sequence, in float64: at index `k - 1` the
        spectral norm of `∂s_T / ∂s_{T-k}`, its largest singular value. `s_T` is the
        state after the step that the layer reads last, which is the first step of the
        sequence if the layer goes backwards. The Jacobian of a masked step is the
        identity. The products are formed in float64 and rescaled at every step, so
        that they neither underflow nor overflow; a norm beyond float64 is 0 or
        infinite.

    Raises:
        ValueError: As in `gates`; `lags` is out of its range; or a state or derivative
            is not finite.

    Example:

    >>> import numpy as np
    >>> from keras_gated import TanhRNN, inspection
    >>> layer = TanhRNN(4, recurrent_initializer="orthogonal")
    >>> layer.build((None, None, 3))
    >>> layer.set_weights([0 * layer.cell.kernel, np.eye(4), np.zeros(4)])
    >>> inspection.jacobian_norms(layer, np.zeros((5, 3)), lags=3)
    array([1., 1., 1.])
    """
    lags = checks.whole("lags", lags, optional=True)
    layer = _choose(model, layer, recurrent_layers(model), "recurrent layer")
    batch, single = _as_batch(model, sequence)
    norms = []
    # In a graph TensorFlow would change the order of sums, and so the rounding.
    for steps in _steps(model, layer, batch, graph=False):
        time = steps.inputs.shape[0]
        if lags is not None and lags > time:
            raise ValueError(
                f"Argument `lags` must be from 1 to {time}, the number of steps that "
                f"the layer {layer.name!r} receives. Received: lags={lags}"
            )
        jacobians = _jacobians(layer, steps, lags or time)
        norms += [_norms_of_products(each) for each in jacobians]
    return norms[0] if single else np.stack(norms)


# The layer, and the sequences.


def _choose(
    model: keras.layers.Layer,
    layer: Any,
    among: list[keras.layers.RNN],
    kind: str,
) -> keras.layers.RNN:
    """Finds the layer that the argument `layer` means.

    Args:
        model: The model.
        layer: The argument, as in `gates`.
        among: The layers of the model that it can mean.
        kind: What errors call such a layer.
    """
    whole = isinstance(layer, int | np.integer) and not isinstance(layer, bool)
    if whole and -len(among) <= layer < len(among):
        return among[layer]
    found = among
    if layer is not None:
        named = [
            inner
            for inner in (model, *stepping.layers_within(model))
            if inner is layer or (isinstance(layer, str) and inner.name == layer)
        ]
        inside = {id(x) for outer in named for x in recurrent_layers(outer)}
        found = [x for x in among if id(x) in inside]
    if len(found) == 1:
        return found[0]
    asked = "" if layer is None else f" for layer={layer!r}"
    if found:
        names = [x.name for x in found]
        raise ValueError(
            f"The model {model.name!r} has {len(found)} layers of the kind {kind!r}"
            f"{asked}: {names}. Argument `layer` must be one of them, its name, or its "
            "index."
        )
    layers = {x.name: type(x).__name__ for x in stepping.layers_within(model)}
    raise ValueError(
        f"The model {model.name!r} has no {kind}{asked}. Its layers are {layers}"
    )


def _as_batch(
    model: keras.layers.Layer, sequence: np.ndarray
) -> tuple[np.ndarray, bool]:
    """The argument `sequence` as a batch, and whether it was a single sequence."""
    takes = stepping.input_shape(model)
    if takes is not None and not isinstance(takes, tuple):
        raise ValueError(
            f"Argument `model` must have one input. Received: the model "
            f"{model.name!r} with inputs of the shapes {takes}"
        )
    takes = takes or (None, None, None)
    sequence = np.asarray(sequence)
    single = sequence.ndim == len(takes) - 1
    batch = sequence[None] if single else sequence
    fits = batch.ndim == len(takes) and all(
        size in (None, given)
        for size, given in zip(takes[1:], batch.shape[1:], strict=True)
    )
    if not fits or 0 in batch.shape or batch.dtype.kind not in "biuf":
        raise ValueError(
            "Argument `sequence` must hold numbers and have the shape that the model "
            f"{model.name!r} takes, {takes}, or that without its first axis, with at "
            f"least one step. Received: shape {sequence.shape}, dtype {sequence.dtype}"
        )
    return batch, single


class _Steps(NamedTuple):
    """The steps of a recurrent layer, in the order in which it reads them."""

    inputs: Tensor
    """`(time, batch, features)`."""
    before: list[Tensor]
    """The states before each step, a flat list of `(time, batch, units)`."""
    counts: Tensor
    """`False` for masked steps, of a shape that broadcasts to that of the states."""


def _steps(
    model: keras.layers.Layer, layer: keras.layers.RNN, batch: np.ndarray, graph: bool
) -> Iterator[_Steps]:
    """Runs the sequences, in batches of the size that the model takes.

    Args:
        model: The model.
        layer: The layer in it.
        batch: The sequences.
        graph: Whether TensorFlow runs in a graph.
    """
    shape = stepping.input_shape(model)
    size = (shape and shape[0]) or len(batch)

    def run(rows: int, batch: Tensor) -> tuple:
        call = stepping.call_of_layer(model, layer, batch)
        if rows < size:  # the other rows only fill the batch
            call = keras.tree.map_structure(
                lambda x: None if x is None else x[:rows], call
            )
        return tuple(_run_cell(layer, *call))

    @functools.cache
    def compiled(rows: int) -> Callable:
        function = functools.partial(run, rows)
        if graph and keras.config.backend() == "tensorflow":
            import tensorflow as tf

            spec = tf.TensorSpec((size, *batch.shape[1:]), batch.dtype)
            function = tf.function(function, autograph=False)
            function = function.get_concrete_function(spec)
        return function

    for begin in range(0, len(batch), size):
        some = batch[begin : begin + size]
        filled = some[np.arange(size) % len(some)]
        yield _Steps(*compiled(len(some))(ops.convert_to_tensor(filled)))


def _run_cell(
    layer: keras.layers.RNN, sequences: Tensor, initial_state: Any, mask: Any
) -> _Steps:
    inputs = ops.swapaxes(sequences, 0, 1)
    time, batch = ops.shape(inputs)[:2]
    counts = ops.ones((time, 1, 1), "bool")
    if mask is not None:
        counts = ops.cast(keras.tree.flatten(mask)[0], "bool")
        counts = counts if len(counts.shape) == 3 else ops.expand_dims(counts, -1)
        counts = ops.swapaxes(counts, 0, 1)
    if layer.go_backwards:
        inputs, counts = ops.flip(inputs, axis=0), ops.flip(counts, axis=0)
    first = [
        ops.broadcast_to(state, (batch, *state.shape[1:]))  # all may share one
        for state in keras.tree.flatten(initial_state)
    ]
    if any(len(state.shape) != 2 for state in first):
        raise ValueError(
            f"Argument `layer` must have states (batch, units). Received: the layer "
            f"{layer.name!r} with states {[tuple(state.shape) for state in first]}"
        )

    def step(states: list[Tensor], now: tuple) -> tuple[list[Tensor], list[Tensor]]:
        x, counts = now
        _, new = layer.cell.call(x, keras.tree.pack_sequence_as(initial_state, states))
        pairs = zip(keras.tree.flatten(new), states, strict=True)
        return [ops.where(counts, new, old) for new, old in pairs], states

    _, before = ops.scan(step, first, (inputs, counts))
    return _Steps(inputs, before, counts)


# The gates.


def _gates(layer: keras.layers.RNN, steps: _Steps) -> dict[str, np.ndarray]:
    """The gates at all steps, each `(batch, time, units)`."""
    time, batch = steps.inputs.shape[:2]
    x, *states = (
        ops.reshape(part, (time * batch, part.shape[-1]))
        for part in (steps.inputs, *steps.before)
    )
    found = layer.cell.gate_activations(x, states)
    if found.keys() == {"candidate"}:  # it becomes the state as it is
        found = {"state": found["candidate"]}
    counts = ops.convert_to_numpy(steps.counts)
    result = {}
    for name, gate in found.items():
        if keras.backend.standardize_dtype(gate.dtype) != "float64":
            gate = ops.cast(gate, "float32")
        values = ops.convert_to_numpy(gate).reshape(time, batch, -1)
        values = np.where(counts, values, np.nan).astype(values.dtype)
        values = values[::-1] if layer.go_backwards else values
        result[name] = values.swapaxes(0, 1)
    return result


# The Jacobians.


def _jacobians(
    layer: keras.layers.RNN, steps: _Steps, lags: int
) -> Iterator[np.ndarray]:
    """The Jacobians of the last steps, one sequence after the other.

    Yields:
        `(lags, size, size)`, in float64.
    """
    structure = layer.get_initial_state(batch_size=1)
    ends = np.cumsum([state.shape[-1] for state in steps.before]).tolist()
    size = ends[-1]

    def after(x: Tensor, state: Tensor) -> Tensor:
        """The states after a step, from those before it, both `(rows, size)`."""
        states = [state[:, a:b] for a, b in itertools.pairwise([0, *ends])]
        _, new = layer.cell.call(x, keras.tree.pack_sequence_as(structure, states))
        return ops.concatenate(keras.tree.flatten(new), axis=-1)

    inputs = steps.inputs[-lags:]
    before = ops.concatenate(steps.before, axis=-1)[-lags:]
    counts = ops.convert_to_numpy(steps.counts)[-lags:]
    by_row = _jacobian_by_row(after, inputs[:, 0], before[:, 0])
    for row in range(inputs.shape[1]):
        found = ops.convert_to_numpy(by_row(inputs[:, row], before[:, row]))
        count = counts[:, row % counts.shape[1]]
        count = np.tile(count, size // count.shape[-1])[..., None]
        yield np.where(count, found.astype("float64"), np.eye(size))


def _jacobian_by_row(function: Callable, *example: Tensor) -> Callable:
    """The Jacobian, with respect to the second argument, of each row of a function.

    Args:
        function: Maps `(rows, features)` and `(rows, size)` to `(rows, size)`; a row of
            the result depends on that row of the arguments alone.
        *example: Arguments of the shapes for which to compile it.

    Returns:
        A function of the same arguments that returns `(rows, size, size)`.
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def by_row(x: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(state)
                value = function(x, state)
            return tape.batch_jacobian(value, state)

        return by_row.get_concrete_function(*example)

    def of_row(x: Tensor, state: Tensor) -> Tensor:
        return function(x[None], state[None])[0]

    if backend == "jax":
        import jax

        return jax.jit(jax.vmap(jax.jacrev(of_row, argnums=1)))
    from torch import func

    return func.vmap(func.jacrev(of_row, argnums=1))


def _norms_of_products(steps: np.ndarray) -> np.ndarray:
    """The spectral norms of the products of the last 1, 2, … matrices.

    Args:
        steps: `(lags, size, size)`.

    Returns:
        `(lags,)`.
    """
    if not np.isfinite(steps).all():
        raise ValueError(
            "A state of the recurrent layer or its derivative is not finite (NaN or "
            "infinity): the training of the model has failed, or the sequence is far "
            "from what it was trained on."
        )
    norms = np.zeros(len(steps))
    product, logarithm = np.eye(steps.shape[-1]), 0.0
    for lag, step in enumerate(steps[::-1]):
        product = product @ step
        norm = math.sqrt(max(np.linalg.eigvalsh(product @ product.T)[-1], 0.0))
        if norm == 0:  # and so are all that follow
            break
        # Rescaled to norm 1: long products would underflow or overflow.
        logarithm += math.log(norm)
        product /= norm
        norms[lag] = math.exp(logarithm) if logarithm < 700 else math.inf
    return norms
