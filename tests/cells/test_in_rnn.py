"""The cells inside `keras.layers.RNN` and its relatives, beside Keras's cells."""

import itertools

import keras
import numpy as np
import pytest
from differentiate import gradients
from oracles import (
    BATCH,
    INPUTS,
    ROWS,
    TIME,
    UNITS,
    array,
    built,
    built_pair,
    sequences,
    some,
)

each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)

MASKS = {
    "none": None,
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]],
    "gaps": [[1, 0, 1, 0, 1], [0, 1, 0, 0, 1]],
    "a row of nothing": [[0, 0, 0, 0, 0], [1, 1, 1, 1, 0]],
}

ALL_OUTPUTS = {"return_sequences": True, "return_state": True}
BACKWARDS = {"go_backwards": True, **ALL_OUTPUTS}
ZEROS = {"zero_output_for_mask": True, **ALL_OUTPUTS}

# Every mask with all outputs, and every option with the hardest mask.
CASES = {
    **{f"mask: {mask}": (mask, ALL_OUTPUTS) for mask in MASKS},
    "the last output": ("gaps", {}),
    "backwards": ("gaps", BACKWARDS),
    "backwards without a mask": ("none", BACKWARDS),
    "unrolled": ("gaps", {"unroll": True, **ALL_OUTPUTS}),
    "zeros for mask": ("gaps", ZEROS),
    "backwards, zeros for mask": ("a row of nothing", {**BACKWARDS, **ZEROS}),
}


def flat(outputs):
    return [array(y) for y in keras.tree.flatten(outputs)]


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        np.testing.assert_allclose(a, b, **{"atol": 1e-5, "rtol": 0, **tolerance})


@pytest.mark.parametrize(("case", "row"), some(itertools.product(CASES, ROWS)))
def test_options_and_masks(case, row):
    mask, options = CASES[case]
    cell, twin = built_pair(row)
    x, _ = sequences()
    mask = None if MASKS[mask] is None else np.array(MASKS[mask], bool)
    ours, theirs = (keras.layers.RNN(c, **options)(x, mask=mask) for c in (cell, twin))
    assert_same(ours, theirs)


@each_cell
def test_gradients_through_a_mask_and_an_initial_state(row):
    # The only backend on which Keras's own cells compute in float64.
    exact = keras.config.backend() == "tensorflow"
    dtype, atol = ("float64", 1e-10) if exact else ("float32", 1e-5)
    cell, twin = built_pair(row, dtype=dtype)
    x, states = sequences(dtype=dtype)
    states = states[: len(keras.tree.flatten(cell.state_size))]
    options = {"return_sequences": True, "return_state": True, "dtype": dtype}
    call = {"initial_state": states, "mask": np.array(MASKS["gaps"], bool)}
    results = []
    for c in (cell, twin):
        layer = keras.layers.RNN(c, **options)
        layer(x, **call)
        results.append(gradients(layer, [x], **call))
    (value, by_weight, by_input), (twin_value, twin_by_weight, twin_by_input) = results
    assert value == pytest.approx(twin_value, rel=atol)
    np.testing.assert_allclose(by_input, twin_by_input, atol=atol)
    if row.same_weights:
        expected = row.to_keras(by_weight)
        for ours, theirs in zip(expected, twin_by_weight, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=atol)


@each_cell
def test_stateful_goes_on_where_it_stopped(row):
    cell, _ = built(row)
    x, _ = sequences()
    whole = keras.layers.RNN(cell, return_sequences=True)(x)
    layer = keras.layers.RNN(cell, return_sequences=True, stateful=True)
    halves = [layer(x[:, :2]), layer(x[:, 2:])]
    assert_same(keras.ops.concatenate(halves, axis=1), whole, atol=1e-6)
    layer.reset_state()
    assert_same(layer(x[:, :2]), whole[:, :2], atol=1e-6)


@each_cell
def test_state_returned_goes_on_as_initial_state(row):
    cell, _ = built(row)
    x, _ = sequences()
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    whole, *_ = layer(x)
    first, *states = layer(x[:, :2])
    second, *_ = layer(x[:, 2:], initial_state=states)
    assert_same(keras.ops.concatenate([first, second], axis=1), whole, atol=1e-6)


@each_cell
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_bidirectional(row, merge_mode):
    x, _ = sequences()
    mask = np.array(MASKS["right"], bool)
    layers = []
    for make in (row.make, row.twin):
        layer = keras.layers.Bidirectional(
            keras.layers.RNN(make(), return_sequences=True), merge_mode=merge_mode
        )
        layer(x)
        layers.append(layer)
    ours, theirs = layers
    for direction in ("forward_layer", "backward_layer"):
        cell, twin = (getattr(layer, direction).cell for layer in (ours, theirs))
        source, source_twin = built_pair(row, seed=len(direction))
        cell.set_weights(source.get_weights())
        twin.set_weights(source_twin.get_weights())
    assert_same(ours(x, mask=mask), theirs(x, mask=mask))


def test_stacked_cells_of_every_kind():
    """A stack in one RNN equals RNNs in a row, and trains."""
    rows = ROWS[::2] if keras.config.backend() == "jax" else ROWS  # slow there
    cells = [row.make(3 + i) for i, row in enumerate(rows)]
    x, _ = sequences()
    stack = keras.layers.RNN(cells, return_sequences=True)
    stacked = stack(x)
    y = x
    for cell in cells:
        y = keras.layers.RNN(cell, return_sequences=True)(y)
    assert_same(stacked, y, atol=1e-6)
    _, by_weight, _ = gradients(stack, [x])
    assert all(np.abs(g).max() > 0 for g in by_weight)


def model_for_fit(row, jit_compile, **arguments):
    layer = keras.layers.RNN(row.make(12, **arguments), return_sequences=True)
    model = keras.Sequential([layer, keras.layers.Dense(INPUTS)])
    adam = keras.optimizers.Adam(0.02)
    model.compile(adam, "mse", jit_compile=jit_compile, run_eagerly=False)
    return model


# torch.compile is not Keras's default and needs a C++ compiler.
JIT_COMPILE = [False] if keras.config.backend() == "torch" else [True, False]


@pytest.mark.parametrize("row", some(ROWS[1::3]))
def test_fit_learns_with_everything_on(row):
    """To echo the input of the step before."""
    x = np.random.default_rng(0).normal(size=(32, 6, INPUTS)).astype("float32")
    y = np.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
    small = {"weight_noise": 0.01, "dropout": 0.01, "recurrent_dropout": 0.01}
    model = model_for_fit(row, JIT_COMPILE[-1], **small)
    losses = model.fit(x, y, batch_size=8, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.skipif(len(JIT_COMPILE) == 1, reason="compiled nowhere on this backend")
@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS[::3], ids=lambda row: row.id)
def test_fit_is_the_same_compiled_and_not(row):
    x, _ = sequences()
    losses = []
    for jit_compile in JIT_COMPILE:
        keras.utils.set_random_seed(3)
        model = model_for_fit(row, jit_compile)
        losses.append(model.fit(x, x, epochs=3, verbose=0).history["loss"])
    assert losses[0][0] > losses[0][-1]
    np.testing.assert_allclose(losses[-1], losses[0], rtol=1e-4)


@each_cell
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(row, policy):
    """Computes in half precision, keeps weights in full, stays near float32."""
    exact, _ = built(row)
    cell, _ = built(row, dtype=policy)
    x, _ = sequences()
    options = {"return_sequences": True, "return_state": True}
    outputs = keras.layers.RNN(cell, **options, dtype=policy)(x)
    half = policy.removeprefix("mixed_")
    for y in keras.tree.flatten(outputs):
        assert keras.backend.standardize_dtype(y.dtype) == half
    assert {w.dtype for w in cell.trainable_variables} == {"float32"}
    full = keras.layers.RNN(exact, **options)(x)
    outputs = [keras.ops.cast(y, "float32") for y in keras.tree.flatten(outputs)]
    atol = {"bfloat16": 0.06, "float16": 0.01}[half]
    assert_same(outputs, full, atol=atol)

    gates = cell.gate_activations(x[:, 0], cell.get_initial_state(BATCH))
    assert {keras.backend.standardize_dtype(g.dtype) for g in gates.values()} == {half}


@pytest.mark.parametrize(
    ("policy", "row"),
    some(itertools.product(["mixed_bfloat16", "mixed_float16"], ROWS), 0),
)
def test_fit_in_mixed_precision(policy, row):
    cell = row.make(dtype=policy, weight_noise=0.1, dropout=0.1)
    model = keras.Sequential([keras.layers.RNN(cell, dtype=policy)])
    model.compile("adam", "mse")
    x, _ = sequences()
    target = np.zeros((BATCH, UNITS), "float32")
    history = model.fit(x, target, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@each_cell
def test_unknown_length_and_batch(row):
    """One functional model serves any batch and any length."""
    inputs = keras.Input((None, INPUTS))
    cell, _ = built(row)
    model = keras.Model(inputs, keras.layers.RNN(cell, return_sequences=True)(inputs))
    for batch, time in ((1, 1), (2, TIME), (3, 9)):
        x, _ = sequences(batch=batch, time=time)
        assert model(x).shape == (batch, time, UNITS)
        step_by_step = cell.get_initial_state(batch)
        for t in range(time):
            y, step_by_step = cell(x[:, t], step_by_step)
        assert_same(model(x)[:, -1], y, atol=1e-6)


def test_whole_number_inputs():
    """A piano roll of `uint8` is as good as one of floats."""
    x = np.random.default_rng(0).integers(0, 2, (BATCH, TIME, INPUTS))
    for training in (False, True):
        outputs = []
        for dtype in ("uint8", "float32"):
            cell, _ = built(ROWS[3], dropout=0.5, seed=1)
            keras.utils.set_random_seed(1)
            layer = keras.layers.RNN(cell)
            outputs.append(layer(x.astype(dtype), training=training))
        assert_same(*outputs, atol=1e-6)
