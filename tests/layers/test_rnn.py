"""The fast loop beside Keras's loop over the same cell."""

import contextlib
import itertools
import logging
import os
import subprocess
import sys
from concurrent import futures
from unittest import mock

import keras
import numpy as np
import pytest
from differentiate import gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from oracles import (
    BATCH,
    INPUTS,
    ROWS,
    TIME,
    UNITS,
    array,
    built,
    precise_activations,
    randomise,
    sequences,
    some,
)

import keras_gated
from keras_gated import RNN
from keras_gated.cells.gru import GRUEquations
from keras_gated.cells.tanh import TanhEquations

each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
SOME = ROWS[1::3]
BACKEND = keras.config.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
KERAS_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])
GAPS = [[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]]
ALL = {"return_sequences": True, "return_state": True}


def both_loops(row, x, layer=None, call=None, dtype="float64", training=True, **cell):
    """Outputs and gradients by Keras's loop and by the fast one, flat."""
    results = []
    for fast in (False, True):
        own = {**precise_activations(row), **cell}
        made = row.make(dtype=dtype, seed=5, **own)
        made.build((None, x.shape[-1]))
        randomise(made)
        options = dict(layer or {})
        if not fast:
            options.pop("recompute_states", None)
        rnn = RNN(made, dtype=dtype, use_fast_loop=fast, **options)
        rnn.build(x.shape)
        for state in getattr(rnn, "initial_states", []):
            state.assign(np.linspace(-1, 1, state.shape[0]))
        call_ = dict(call or {})
        if call_.pop("states", False):
            _, states = sequences(dtype=dtype, batch=len(x))
            count = len(keras.tree.flatten(made.state_size))
            call_["initial_state"] = states[:count]
        keras.utils.set_random_seed(11)  # PyTorch's dropout has no other seed
        value, by_weight, by_input = gradients(rnn, [x], training, **call_)
        outputs = keras.tree.flatten(rnn(x, training=False, **call_))
        states = rnn.states or []
        results.append(
            [value, *by_weight, by_input, *map(array, outputs), *map(array, states)]
        )
    return results


def assert_same(results, atol=1e-9):
    for pair in zip(*results, strict=True):
        theirs, ours = (np.asarray(x).astype("float64") for x in pair)
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=atol)


# Each case has several options at once; the random search below mixes them.
CASES = {
    "plain": ({}, {}, {}),
    "masked, from a state": (ALL, {"mask": GAPS, "states": True}, {}),
    "backwards, masked, zeros": (
        {**ALL, "go_backwards": True, "zero_output_for_mask": True},
        {"mask": GAPS},
        {},
    ),
    "dropouts and noise": (
        {"return_sequences": True},
        {"mask": GAPS},
        {"dropout": 0.3, "recurrent_dropout": 0.4, "weight_noise": 0.2},
    ),
    "stateful, no bias": ({"stateful": True}, {}, {"use_bias": False}),
    "normalized, zoned out": (
        {**ALL, "learn_initial_state": True, "go_backwards": True},
        {"mask": GAPS},
        {"layer_norm": True, "zoneout": 0.3},
    ),
    "computing states again": (
        {**ALL, "recompute_states": True},
        {"mask": GAPS, "states": True},
        {"recurrent_dropout": 0.4},
    ),
}


@pytest.mark.parametrize(("case", "row"), some(itertools.product(CASES, ROWS)))
def test_fast_loop_equals_keras_loop(case, row):
    """Outputs, states, and the gradients of weights and inputs, in float64."""
    layer, call, cell = CASES[case]
    call = {k: np.array(v, bool) if k == "mask" else v for k, v in call.items()}
    x, _ = sequences(dtype="float64")
    assert_same(both_loops(row, x, layer, call, **cell))


@contextlib.contextmanager
def automatic_gradients():
    """The gradients that the cells bring are taken away from them."""
    shared = keras_gated.layers.rnn._shared_loop
    shared.cache_clear()
    taken = mock.patch.object(keras_gated.Equations, "lacks", return_value="taken away")
    with taken:
        yield
    shared.cache_clear()


@pytest.mark.parametrize("row", some(ROWS))
def test_automatic_gradient_equals_keras_loop(row):
    """With all options at once; the random search mixes them."""
    layer, call = {**ALL, "recompute_states": row in SOME}, {"states": True}
    call["mask"] = np.array(GAPS, bool)
    x, _ = sequences(dtype="float64")
    with automatic_gradients():
        assert_same(both_loops(row, x, layer, call, **CASES["dropouts and noise"][2]))


class HalvedEquations(GRUEquations):
    """A step of its own, with the gradient of another."""

    def step(self, x, states, recurrent):
        (h,), gates = super().step(x, states, recurrent)
        return [0.5 * h], gates


class Halved(keras_gated.GRUCell):
    equations_class = HalvedEquations


AUTOMATIC = {
    "own step": (lambda **more: Halved(4, **more), "HalvedEquations has no step_vjp"),
    "activation": (
        lambda **more: keras_gated.LSTMCell(4, recurrent_activation="softsign", **more),
        "no derivative is known for recurrent_activation softsign",
    ),
}


@pytest.mark.parametrize("case", AUTOMATIC)
def test_gradient_is_automatic_where_a_cell_brings_none(case):
    make, reason = AUTOMATIC[case]
    dtype = "float64" if BACKEND == "tensorflow" else "float32"  # of activations
    x, _ = sequences(dtype=dtype)
    results = []
    for fast in (True, False):
        layer = RNN(make(dtype=dtype), use_fast_loop=fast, dtype=dtype, **ALL)
        layer.build(x.shape)
        randomise(layer)
        value, by_weight, by_input = gradients(layer, [x], True)
        results.append([value, *by_weight, by_input, *map(array, layer(x))])
        assert not fast or reason in layer.loop
    assert_same(results, atol=1e-9 if dtype == "float64" else 1e-5)


OF_KERAS = {
    "simple": lambda **more: keras.layers.SimpleRNNCell(
        4, dropout=0.3, recurrent_dropout=0.4, seed=1, **more
    ),
    "lstm": lambda **more: keras.layers.LSTMCell(4, dropout=0.3, seed=1, **more),
    "gru": lambda **more: keras.layers.GRUCell(4, **more),
    "gru, reset before": lambda **more: keras.layers.GRUCell(
        4, reset_after=False, use_bias=False, dropout=0.3, seed=1, **more
    ),
    "stack": lambda **more: keras.layers.StackedRNNCells(
        [
            keras.layers.LSTMCell(4, dropout=0.3, seed=1, **more),
            keras_gated.GRUCell(3, recurrent_dropout=0.4, seed=2, **more),
            keras.layers.SimpleRNNCell(5, **more),
        ],
        dtype=more["dtype"],
    ),
}


@pytest.mark.parametrize("case", some(OF_KERAS))
def test_cells_of_keras_equal_keras_loop(case):
    dtype = "float64" if BACKEND == "tensorflow" else "float32"  # of activations
    x, _ = sequences(dtype=dtype)
    mask = np.array(GAPS, bool)
    for options, call in (
        (ALL, {}),
        ({"go_backwards": True, "zero_output_for_mask": True}, {"mask": mask}),
    ):
        results = []
        for fast in (True, False):
            cell = OF_KERAS[case](dtype=dtype)
            layer = RNN(cell, use_fast_loop=fast, dtype=dtype, **options)
            layer.build(x.shape)
            randomise(layer)
            keras.utils.set_random_seed(11)
            value, by_weight, by_input = gradients(layer, [x], True, **call)
            outputs = keras.tree.flatten(layer(x, **call))
            results.append([value, *by_weight, by_input, *map(array, outputs)])
        assert_same(results, atol=1e-9 if dtype == "float64" else 1e-5)


BAD_STEPS = {
    "number": (lambda h, a: ([a, h], {}), "as many states as it is given, 1"),
    "shape": (lambda h, a: ([a[:, :1]], {}), r"\(2, 4\) and float32"),
    "dtype": (lambda h, a: ([ops.cast(a, "float16")], {}), "float16"),
    "no gates": (lambda h, a: [a], "return two things"),
    "numpy": (lambda h, a: ([np.tanh(a)], {}), "keras.ops has its functions"),
    "random numbers": (
        lambda h, a: ([a + keras.random.normal((4,), seed=SEED)], {}),
        "draws random numbers",
    ),
    "not pure": (lambda h, a: ([a + next(COUNT)], {}), "other states the second"),
}
SEED, COUNT = keras.random.SeedGenerator(1), itertools.count()


BAD_PRODUCTS = {
    "twice": (
        lambda r, h: r.product("h", r.product("h", h)[0])[0],
        "'h' was multiplied before",
    ),
    "kernel": (lambda r, h: h @ r.U["h"], "recurrent.product"),
    "unknown": (lambda r, h: r.product("x", h)[0], "one of its cell's products"),
    "missing": (lambda r, h: h, "multiply with each of the products"),
}


@pytest.mark.parametrize("case", [*BAD_STEPS, *BAD_PRODUCTS])
def test_bad_step_is_an_error_that_says_what_to_do(case):
    result, message = {**BAD_STEPS, **BAD_PRODUCTS}[case]

    class BadEquations(TanhEquations):
        def step(self, x, states, recurrent):
            (h,) = states
            if case in BAD_PRODUCTS:
                return [BAD_PRODUCTS[case][0](recurrent, h)], {}
            return result(h, x[0] + recurrent.product("h", h)[0])

    class Bad(keras_gated.TanhCell):
        equations_class = BadEquations

    with pytest.raises((TypeError, ValueError), match=message) as caught:
        RNN(Bad(4)).build((2, 3, INPUTS))
    assert "BadEquations.step" in str(caught.value)
    if case in ("random numbers", "not pure"):
        RNN(Bad(4), use_fast_loop=False)(np.ones((2, 3, INPUTS), "float32"))


def test_step_that_reads_a_variable_runs_on_keras_loop():
    """The fast loop would not know the variable's gradient."""
    gain = keras.Variable(np.ones(4, "float32"), name="gain")

    class ReadingEquations(TanhEquations):
        def step(self, x, states, recurrent):
            (h,), gates = super().step(x, states, recurrent)
            return [h * gain], gates

    class Reading(keras_gated.TanhCell):
        equations_class = ReadingEquations

        def build(self, input_shape):
            super().build(input_shape)
            self.gain = gain

    layer = RNN(Reading(4))
    layer.build((2, TIME, INPUTS))
    assert layer.loop.startswith("keras: ReadingEquations.step reads the variable gain")
    x, _ = sequences()
    _, by_weight, _ = gradients(layer, [x])
    assert np.abs(by_weight[-1]).min() > 0
    with pytest.raises(ValueError, match="reads the variable gain"):
        RNN(Reading(4), use_fast_loop=True).build((2, TIME, INPUTS))


@pytest.mark.parametrize("row", SOME, ids=lambda row: row.id)
def test_fast_loop_equals_keras_loop_in_float32(row):
    x, _ = sequences()
    call = {"mask": np.array(GAPS, bool), "states": True}
    assert_same(both_loops(row, x, ALL, call, dtype="float32"), atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("row", some(ROWS, 0))
def test_cores_share_a_batch(row, monkeypatch):
    """Of three rows, which two shards cannot share without one that fills the last."""
    from keras_gated.layers import loop_shards as shards

    monkeypatch.setattr(shards, "number", lambda batch: 2)
    monkeypatch.setattr(shards, "LARGEST", 20)  # each product in several parts
    x, _ = sequences(dtype="float64", batch=3)
    call = {"mask": np.array([*GAPS, [0, 0, 0, 1, 0]], bool), "states": True}
    cell = {"dropout": 0.3, "recurrent_dropout": 0.4, "weight_noise": 0.2}
    assert_same(both_loops(row, x, ALL, call, **cell))


@pytest.fixture
def blocks(monkeypatch, request):
    """Sequences of more than three steps go in blocks of two, and are compiled."""
    size = getattr(request, "param", 2)
    if size is None or BACKEND != "tensorflow":
        return
    from keras_gated.layers import loop_blocks, loop_tensorflow

    monkeypatch.setattr(loop_blocks, "most_steps", lambda batch, units: 3)
    monkeypatch.setattr(loop_blocks, "size", lambda steps, most, training: size)
    monkeypatch.setattr(loop_tensorflow, "FEW", 0)


@on_tensorflow
@pytest.mark.parametrize(
    ("recompute", "row"), some(itertools.product([False, True], ROWS))
)
def test_long_sequences_go_in_blocks(row, recompute, blocks):
    """The last of which is not full; two shards in a graph of unknown length."""
    x, _ = sequences(dtype="float64")
    call = {"mask": np.array(GAPS, bool), "states": True}
    cell = {"dropout": 0.3, "recurrent_dropout": 0.4, "weight_noise": 0.2}
    layer = {**ALL, "recompute_states": recompute}
    assert_same(both_loops(row, x, layer, call, **cell))


@on_tensorflow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("batch", "units"), [(16, 46), (None, 227), (512, 1024)])
def test_blocks_are_of_few_sizes_and_none_is_empty(batch, units, training):
    import tensorflow as tf

    from keras_gated.layers import loop_blocks

    most = loop_blocks.most_steps(batch, units)
    sizes = set()
    for steps in range(1, 5000, 7):
        size = loop_blocks.size(steps, most, training)
        blocks = -(-steps // size)
        assert blocks * size - steps < (64 * blocks if training else size)
        sizes.add(size)
    assert len(sizes) <= (16 if training else 6)
    assert loop_blocks.size(tf.constant(steps), most, training) == size


@on_tensorflow
def test_several_threads_at_once_get_the_same_numbers():
    layer = keras_gated.LSTM(5, return_sequences=True)
    model = keras.Sequential([keras.Input((None, INPUTS)), layer])
    random = np.random.default_rng(0)
    shapes = [(3, 40), (1, 33), (2, 1100), (3, 1)]
    xs = [random.normal(size=(*shape, INPUTS)).astype("float32") for shape in shapes]
    expected = [array(layer(x)) for x in xs]

    def differences(begin):
        order = [(begin + k) % len(xs) for k in range(2 * len(xs))]
        return [
            np.abs(array(call(xs[i])) - expected[i]).max()
            for i in order
            for call in (model, model.predict_on_batch)
        ]

    with futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(differences, range(4), timeout=120):
            assert max(found) < 1e-6


@pytest.mark.slow
@on_tensorflow
def test_trainings_are_the_same_bit_for_bit():
    """With deterministic operations, shards, blocks, noise and dropout."""
    code = (
        "import hashlib, keras, keras_gated, numpy as np, tensorflow as tf\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "keras.utils.set_random_seed(1)\n"
        "x = np.random.default_rng(0).normal(size=(6, 1300, 4)).astype('float32')\n"
        "model = keras.Sequential([keras.Input((None, 4)), keras_gated.LSTM(4, "
        "return_sequences=True, weight_noise=0.05, recurrent_dropout=0.1)])\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(x, x, epochs=2, batch_size=4, verbose=0)\n"
        "found = [*model.get_weights(), model.predict(x, verbose=0)]\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in found)).hexdigest())\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 65


@pytest.mark.slow
@on_tensorflow
def test_long_sequences_share_what_is_compiled():
    """XLA says what it compiles: forward and backward for blocks of two sizes, once."""
    code = (
        "import keras, keras_gated, numpy as np, sys, tensorflow as tf\n"
        "def batches():\n"
        "    for steps in (1100, 1130, 1150, 1180, 1210):\n"
        "        x = np.ones((2, steps, 3), 'float32')\n"
        "        yield x, x\n"
        "spec = (tf.TensorSpec((2, None, 3)),) * 2\n"
        "data = tf.data.Dataset.from_generator(batches, output_signature=spec)\n"
        "layer = keras_gated.GRU(3, return_sequences=True)\n"
        "model = keras.Sequential([keras.Input((None, 3)), layer])\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(data, verbose=0)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "0",
            "TF_CPP_VMODULE": "device_compilation_profiler=1",
        },
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert said.count("] Compiled __inference") == 4


@on_tensorflow
def test_predictions_are_compiled_and_graphs_for_export_are_not():
    import tensorflow as tf

    layer = keras_gated.GRU(5, return_sequences=True, name="compiled")
    model = keras.Sequential([keras.Input((None, INPUTS)), layer])
    model.compile("sgd", "mse")
    (loop,) = layer._fast_loops()
    x = np.ones((2, 40, INPUTS), "float32")

    def traces():
        both = loop._compiled.forward, loop._of_shard.forward
        return sum(forward.experimental_get_tracing_count() for forward in both)

    counts = [traces()]
    by_hand = tf.function(lambda x: model(x), autograph=False)(x)
    for use in (
        lambda: model.predict(x, verbose=0),
        lambda: model.evaluate(x, x[:, :, :1] * np.ones(5), verbose=0),
        lambda: model(x),
        lambda: model(x[:, :3]),
    ):
        counts.append(traces())
        use()
    np.testing.assert_allclose(by_hand, model.predict(x, verbose=0), atol=1e-6)
    assert counts[1] == counts[0] < counts[2] <= counts[3] <= counts[4] == traces()


@on_tensorflow
def test_as_many_shards_as_cores_threads_and_rows(monkeypatch):
    import tensorflow as tf

    from keras_gated.layers import loop_shards as shards

    monkeypatch.setattr(shards.os, "sched_getaffinity", lambda _: {1, 3, 5, 7})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(
        tf.config.threading, "get_inter_op_parallelism_threads", lambda: 0
    )
    monkeypatch.delenv("TF_NUM_INTEROP_THREADS", raising=False)
    assert shards.number(16) == 1  # one operation after the other
    with tf.Graph().as_default():
        assert [shards.number(n) for n in (None, 16, 3, 1, 0)] == [4, 4, 3, 1, 1]
        monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "2")
        assert shards.number(16) == 2


@on_tensorflow
def test_batches_of_any_size_in_a_graph(monkeypatch, blocks):
    """Also those whose size is not known before they come, and of any length."""
    import tensorflow as tf

    from keras_gated.layers import loop_shards as shards

    monkeypatch.setattr(shards.os, "sched_getaffinity", lambda _: {0, 1})
    layer = RNN(keras_gated.LSTMCell(4, seed=1), return_sequences=True)
    layer.build((None, None, 3))

    def both(x):
        with tf.GradientTape() as tape:
            y = layer(x, training=True)
        return y, *tape.gradient(y, layer.trainable_variables)

    unknown = tf.TensorSpec((None, None, 3), tf.float32)
    graph = tf.function(both, input_signature=[unknown], autograph=False)
    for batch, steps in [(0, 3), (1, 3), (5, 3), (3, 7)]:
        random = np.random.default_rng(0)
        x = tf.constant(random.normal(size=(batch, steps, 3)), "float32")
        for theirs, ours in zip(both(x), graph(x), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


OF_KERNELS = {
    "lstm": lambda **more: keras_gated.LSTMCell(4, peephole=False, **more),
    "gru": lambda **more: keras_gated.GRUCell(4, reset_after=True, **more),
    "rnn_tanh": lambda **more: keras_gated.TanhCell(4, **more),
    "rnn_relu": lambda **more: keras_gated.TanhCell(4, "relu", **more),
}


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
@pytest.mark.parametrize("name", OF_KERNELS)
def test_kernels_of_pytorch_equal_keras_loop(name, monkeypatch):
    """Where there is no mask and no recurrent dropout; elsewhere they do not run."""
    import torch

    calls = []
    kernel = getattr(torch._VF, name)
    monkeypatch.setattr(
        torch._VF, name, lambda *a: calls.append(a) or kernel(*a), raising=False
    )
    x, states = sequences()
    for use_bias in (True, False):
        results = []
        for fast in (False, True):
            made = OF_KERNELS[name](seed=5, use_bias=use_bias, weight_noise=0.2)
            made.build((None, x.shape[-1]))
            randomise(made)
            rnn = RNN(made, use_fast_loop=fast, go_backwards=True, **ALL)
            rnn.build(x.shape)
            initial = states[: len(keras.tree.flatten(made.state_size))]
            value, by_weight, by_input = gradients(
                rnn, [x], True, initial_state=initial
            )
            results.append([value, *by_weight, by_input, *map(array, rnn(x))])
            assert len(calls) == 2 * fast
            rnn(x, mask=np.array(GAPS, bool))
            assert len(calls) == 2 * fast
        assert_same(results, atol=1e-5)
        assert f"kernel {name} runs" in rnn.loop
        calls.clear()
    assert "has no kernel" in RNN(keras_gated.LSTMCell(4)).loop
    assert "has no kernel" in RNN(keras_gated.GRUCell(4)).loop


# Every draw is compiled.
DRAWS = 3 if BACKEND == "jax" else 6


@settings(max_examples=DRAWS, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_fast_loop_equals_keras_loop_by_random_search(data):
    flag = st.booleans()
    row = data.draw(st.sampled_from(ROWS))
    batch, time = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    layer = {
        name: data.draw(flag)
        for name in (
            "return_sequences",
            "return_state",
            "go_backwards",
            "stateful",
            "zero_output_for_mask",
        )
    }
    call = {"states": data.draw(flag)}
    if data.draw(flag):
        bits = st.lists(flag, min_size=batch * time, max_size=batch * time)
        call["mask"] = np.reshape(data.draw(bits), (batch, time))
    zeros = not (layer["stateful"] or call["states"])
    layer["learn_initial_state"] = zeros and data.draw(flag)
    cell = {"use_bias": data.draw(flag), "layer_norm": data.draw(flag)}
    cell["zoneout"] = data.draw(st.sampled_from([0.0, 0.4]))
    for name in ("dropout", "recurrent_dropout", "weight_noise"):
        cell[name] = data.draw(st.sampled_from([0.0, 0.25]))
    activations = st.sampled_from([None, "relu", "linear"])
    activation = data.draw(activations)
    if activation and issubclass(row.cell_class, keras_gated.GatedCell):
        cell["activation"] = activation  # a linear loop without gates explodes
    dtype = "float64" if BACKEND == "tensorflow" or not activation else "float32"
    x, _ = sequences(dtype=dtype, batch=batch, time=time)
    training = data.draw(flag)
    layer["recompute_states"] = data.draw(flag)
    with contextlib.ExitStack() as patches:
        if data.draw(flag):
            patches.enter_context(automatic_gradients())
        if BACKEND == "tensorflow":
            from keras_gated.layers import loop_blocks, loop_shards

            size, n = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
            for module, name, value in [
                (loop_blocks, "most_steps", size),
                (loop_blocks, "size", size),
                (loop_shards, "number", min(n, batch)),
            ]:
                patch = mock.patch.object(module, name, lambda *_, value=value: value)
                patches.enter_context(patch)
        results = both_loops(
            row, x, layer, call, dtype=dtype, training=training, **cell
        )
    assert_same(results, atol=1e-9 if dtype == "float64" else 2e-4)


@pytest.mark.parametrize("row", some(ROWS, 0))
def test_gradient_agrees_with_finite_differences(row):
    """Of all weights and of the input, along a random direction, in float64."""
    cell, _ = built(row, dtype="float64", **precise_activations(row))
    layer = RNN(cell, dtype="float64", use_fast_loop=True, **ALL)
    x, _ = sequences(dtype="float64")
    layer.build(x.shape)
    mask = {"mask": np.array(GAPS, bool)}
    _, by_weight, by_input = gradients(layer, [x], training=True, **mask)
    random = np.random.default_rng(3)
    values = [array(w).copy() for w in layer.trainable_variables]
    directions = [random.normal(size=v.shape) for v in [*values, x]]
    step, sides = 1e-6, []
    for sign in (1, -1):
        for variable, value, direction in zip(
            layer.trainable_variables, values, directions[:-1], strict=True
        ):
            variable.assign(value + sign * step * direction)
        moved = x + sign * step * directions[-1]
        sides.append(gradients(layer, [moved], training=True, **mask)[0])
    slope = sum(
        np.sum(g * d) for g, d in zip([*by_weight, by_input], directions, strict=True)
    )
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope, rel=1e-7)


class Stack(keras.layers.StackedRNNCells):
    """It might call its cells in another way."""

    state_size = 4

    def call(self, inputs, states, training=False):
        (cell,) = self.cells
        return cell(inputs, states, training=training)

    def get_initial_state(self, batch_size=None):
        return self.cells[0].get_initial_state(batch_size)


@pytest.mark.parametrize(
    ("row", "length", "blocks", "automatic"),
    [
        *some([(row, 2, None, False) for row in ROWS]),
        *some([(ROWS[3], length, 2, False) for length in (1, 3, 5)]),
        *some([(ROWS[3], 3, size, True) for size in (None, 2)]),
    ],
    indirect=["blocks"],
)
def test_truncated_gradient_equals_that_of_stretches(row, length, blocks, automatic):
    """Keras's loop over stretches, each from the states of the last as constants."""
    x, states = sequences(dtype="float64")
    cell = row.make(dtype="float64", **precise_activations(row))
    states = states[: len(keras.tree.flatten(cell.state_size))]
    layer = RNN(cell, truncate_gradient=length, dtype="float64", **ALL)
    layer.build(x.shape)
    randomise(cell)
    by_keras = RNN(cell, use_fast_loop=False, dtype="float64", **ALL)
    by_keras.build(x.shape)

    class Stretches(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.layer = by_keras
            self.built = True

        def call(self, x, training=False):
            now, parts = states, []
            for begin in range(0, x.shape[1], length):
                part, *now = by_keras(x[:, begin : begin + length], initial_state=now)
                parts.append(part)
                last, now = now, [keras.ops.stop_gradient(state) for state in now]
            return [keras.ops.concatenate(parts, 1), *last]

    with automatic_gradients() if automatic else contextlib.nullcontext():
        ours = gradients(layer, [x], True, initial_state=states)
    theirs = gradients(Stretches(), [x], True)
    for a, b in zip(*map(keras.tree.flatten, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9, rtol=1e-9)


def test_options_of_the_gradient_are_kept_and_need_the_fast_loop():
    for option in ({"truncate_gradient": 5}, {"recompute_states": True}):
        layer = keras_gated.GRU(3, **option)
        assert keras_gated.GRU.from_config(layer.get_config()).get_config() == (
            layer.get_config()
        )
        assert option.items() <= layer.get_config().items()
        with pytest.raises(ValueError, match=r"needs the fast loop.*was asked for"):
            RNN(keras_gated.GRUCell(3), use_fast_loop=False, **option)
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="truncate_gradient"):
            keras_gated.GRU(3, truncate_gradient=wrong)


FALLBACKS = {
    "another stack": (
        lambda: Stack([keras_gated.TanhCell(4)]),
        {},
        "Stack is a stack of a kind of its own",
    ),
    "masks": (
        lambda: keras.layers.LSTMCell(4, recurrent_dropout=0.1),
        {},
        "keras.layers.LSTMCell has a dropout mask of each gate",
    ),
    "unrolled": (lambda: keras_gated.GRUCell(4), {"unroll": True}, "unroll=True"),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_falls_back_and_says_why(case, caplog):
    cell, options, reason = FALLBACKS[case]
    with pytest.raises(ValueError, match=reason):
        RNN(cell(), use_fast_loop=True, **options)
    layer = RNN(cell(), name="here", **options)
    assert layer.loop.startswith("keras: ")
    assert reason in layer.loop
    theirs = keras.layers.RNN(layer.cell, **options)
    x, _ = sequences()
    with caplog.at_level(logging.INFO, logger="keras_gated"):
        np.testing.assert_array_equal(array(layer(x)), array(theirs(x)))
        layer(x)
    assert caplog.messages == [f"here: {layer.loop}"]


@each_cell
def test_fast_loop_runs(row, monkeypatch):
    cell, _ = built(row)
    layer = RNN(cell)
    said = f"fast: {type(cell).__name__} brings the gradient of its step"
    if row.id == "lstm_coupled":
        said = "fast: the gradient of the step of LSTMCell is automatic"
    assert layer.loop.startswith(said)
    monkeypatch.setattr(cell, "_step", None)  # what Keras's loop would call
    x, _ = sequences()
    assert layer(x).shape == (BATCH, UNITS)


@pytest.mark.parametrize("wrong", ["slow", "fast", None, 1])
def test_use_fast_loop_is_one_of_three(wrong):
    with pytest.raises(ValueError, match="`use_fast_loop` must be 'auto', True or"):
        RNN(keras_gated.GRUCell(4), use_fast_loop=wrong)


def test_path_is_the_place_in_the_model():
    """As that of any layer of Keras."""
    layer = keras_gated.GRU(4, name="inner")
    keras.Sequential([keras.Input((None, 3)), layer], name="outer")
    assert layer.path == "outer/inner"


def test_dtype_policy_map_finds_the_layer_by_its_place():
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["outer/inner"] = keras.dtype_policies.DTypePolicy("bfloat16")
    model = keras.Sequential(name="outer")
    model.add(RNN(keras_gated.GRUCell(4), name="inner", dtype=policies))
    model.build((None, TIME, INPUTS))
    assert model.layers[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@each_cell
def test_mixed_precision(row, policy):
    cell, _ = built(row, dtype=policy)
    exact, _ = built(row)
    x, _ = sequences()
    y = RNN(cell, dtype=policy, use_fast_loop=True, return_sequences=True)(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    expected = RNN(exact, return_sequences=True)(x)
    np.testing.assert_allclose(
        array(keras.ops.cast(y, "float32")), array(expected), atol=0.06
    )


@pytest.mark.parametrize("policy", some(["mixed_bfloat16", "mixed_float16"]))
def test_automatic_gradient_in_mixed_precision(policy):
    x, _ = sequences()
    call = {"mask": np.array(GAPS, bool)}
    options = {"layer_norm": True, "zoneout": 0.3, "weight_noise": 0.1}
    results = both_loops(ROWS[3], x, ALL, call, dtype=policy, **options)
    assert_same(results, atol={"mixed_bfloat16": 0.1, "mixed_float16": 0.01}[policy])


COMPILED = {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND]


def test_fit_is_the_same_on_both_loops():
    """A stack under masks, in both directions; predictions of another length."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4, 6, INPUTS)).astype("float32")
    x[:2, 4:] = -1.0
    y = random.normal(size=(4, 6, UNITS)).astype("float32")
    results = []
    for fast, jit_compile in [(False, COMPILED[0]), (True, COMPILED[-1])]:
        keras.utils.set_random_seed(3)
        lower = RNN(ROWS[3].make(3), return_sequences=True, use_fast_loop=fast)
        model = keras.Sequential(
            [
                keras.Input((None, INPUTS)),
                keras.layers.Masking(-1.0),
                keras.layers.Bidirectional(lower),
                RNN(ROWS[1].make(), return_sequences=True, use_fast_loop=fast),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        history = model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
        shorter = model.predict(x[:, :3], verbose=0)
        results.append([np.array(history.history["loss"]), shorter])
    for found in results[1:]:
        assert_same([results[0], found], atol=1e-5)


def test_masks_reach_the_layers_above():
    x = np.random.default_rng(0).normal(size=(2, 5, INPUTS)).astype("float32")
    x[:, 3:] = 0
    layers = [RNN(ROWS[0].make(), return_sequences=True), RNN(ROWS[3].make())]
    model = keras.Sequential([keras.layers.Masking(), *layers])
    np.testing.assert_allclose(array(model(x)), array(model(x[:, :3])), atol=1e-6)


def test_second_order_gradient_works_or_says_that_it_does_not():
    x, _ = sequences()
    layer = keras_gated.GRU(4)
    layer.build(x.shape)
    keras_loop = RNN(layer.cell, use_fast_loop=False)
    keras_loop.build(x.shape)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        U = layer.cell.recurrent_kernel.value
        x = tf.constant(x)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x))
            first = tf.reduce_sum(inner.gradient(y, x))
        with pytest.raises(NotImplementedError, match="use_fast_loop=False"):
            outer.gradient(first, U)
    elif BACKEND == "torch":
        import torch

        def second(layer):
            U = layer.cell.recurrent_kernel.value
            at = torch.tensor(x, requires_grad=True)
            (first,) = torch.autograd.grad(layer(at).sum(), at, create_graph=True)
            return torch.autograd.grad((first**2).sum(), [at, U])

        for ours, theirs in zip(second(layer), second(keras_loop), strict=True):
            np.testing.assert_allclose(array(ours), array(theirs), atol=1e-5)
    else:
        import jax

        def second(layer):
            def total(x):
                weights = [w.value for w in layer.trainable_variables]
                others = [w.value for w in layer.non_trainable_variables]
                return layer.stateless_call(weights, others, x)[0].sum()

            return jax.grad(lambda x: (jax.grad(total)(x) ** 2).sum())(x)

        np.testing.assert_allclose(second(layer), second(keras_loop), atol=1e-5)


def test_layers_that_compute_the_same_share_a_loop():
    """So that it is compiled once; to share is not to draw other weights."""
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(2)
        # Nobody has made such a layer before the first time.
        layers = [keras_gated.GRU(units, name=f"of_{units}") for units in (17, 17, 4)]
        layers.append(keras_gated.GRU(17, reset_after=True, name="after"))
        layers.append(keras_gated.GRU(17, truncate_gradient=3, name="truncated"))
        layers.append(keras_gated.GRU(17, weight_noise=0.1, name="noisy"))
        for layer in layers:
            layer.build((None, 2, 3))
        weights += [layer.get_weights() for layer in layers[:1]]
        first, *others = (layer._fast_loops()[0] for layer in layers)
        assert [other is first for other in others] == [True, *[False] * 3, True]
    for once, again in zip(*weights, strict=True):
        np.testing.assert_array_equal(once, again)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="its own backend; once will do")
def test_other_backends_have_keras_loop():
    pytest.importorskip("jax")  # Keras's backend of NumPy needs it
    code = (
        "import numpy as np, keras_gated\n"
        "layer = keras_gated.GRU(4)\n"
        "assert layer(np.ones((2, 5, 3))).shape == (2, 4)\n"
        "print(layer.loop)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "keras: the backend numpy has no fast loop\n"


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="exports are TensorFlow's")
def test_exported_models_give_the_same_at_other_lengths(tmp_path):
    import tensorflow as tf

    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model = keras.Sequential([keras.Input((None, INPUTS))])
    for row in ROWS[::2]:
        model.add(RNN(row.make(), return_sequences=True, use_fast_loop=True))
    x, _ = sequences(batch=3, time=7)
    expected = model.predict(x, verbose=0)  # compiled, as what is exported is not
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(saved.serve(x), expected, atol=1e-6)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # An interpreter that could run this one (with TensorFlow's own operators,
    # which every recurrent layer of Keras needs too) is not in any wheel here.
    if KERAS_VERSION >= (3, 13):
        model.export(tmp_path / "model.tflite", format="litert", verbose=False)
        assert (tmp_path / "model.tflite").stat().st_size > 1000
