"""The cell of the example beside its paper, and a small run of the example."""

import importlib
import json
import sys
from types import SimpleNamespace

import keras
import lem
import numpy as np
import pytest
from differentiate import gradients
from oracles import array, precise_activations

import keras_gated
from keras_gated.datasets import bach_chorales

for package in ("matplotlib", "tensorboard"):
    pytest.importorskip(package, reason="the extra 'examples' is not installed")
own_cell = importlib.import_module("own_cell")

UNITS, FEATURES, DT = 3, 2, 0.7
# On PyTorch, `keras.ops.matmul` multiplies float64 in float32.
DIGITS = 1e-5 if keras.config.backend() == "torch" else 1e-11


def twin(**options):
    """A layer in float64 with random weights, the same for all options."""
    layer = lem.LEM(
        UNITS,
        dt=DT,
        dtype="float64",
        return_sequences=True,
        return_state=True,
        **precise_activations(SimpleNamespace(cell_class=lem.LEMCell)),
        **options,
    )
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(0, 0.8, w.shape) for w in layer.get_weights()])
    return layer


@pytest.fixture
def arguments():
    """Sequences, and states before them that are not zero."""
    random = np.random.default_rng(1)
    x = random.normal(size=(4, 6, FEATURES))
    return x, [random.normal(size=(4, UNITS)) for _ in range(2)]


def by_the_paper(layer, x, y, z):
    """Equation 3 of Rusch et al. (2022), gate by gate, with the paper's letters."""
    kernel, recurrent, bias = layer.get_weights()
    W_1, W_2, W_z, W_y = np.split(kernel, 4, axis=1)
    V_1, V_2, V_z, V_y = np.split(recurrent, 4, axis=1)
    b_1, b_2, b_z, b_y = np.split(bias, 4)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    outputs = []
    for u in x.swapaxes(0, 1):
        dt = DT * sigmoid(y @ V_1 + u @ W_1 + b_1)
        dt_bar = DT * sigmoid(y @ V_2 + u @ W_2 + b_2)
        z = (1 - dt) * z + dt * np.tanh(y @ V_z + u @ W_z + b_z)
        y = (1 - dt_bar) * y + dt_bar * np.tanh(z @ V_y + u @ W_y + b_y)
        outputs.append(y)
    return np.stack(outputs, axis=1), y, z


@pytest.mark.parametrize("use_fast_loop", [True, False])
def test_the_cell_is_the_papers(arguments, use_fast_loop):
    layer = twin(use_fast_loop=use_fast_loop)
    assert layer.loop.startswith("fast" if use_fast_loop else "keras")
    x, states = arguments
    expected = by_the_paper(layer, x, *states)
    for found, right in zip(layer(x, initial_state=states), expected, strict=True):
        np.testing.assert_allclose(array(found), right, rtol=DIGITS, atol=DIGITS)


def test_gradients_are_those_of_keras_s_loop(arguments):
    x, states = arguments
    layers = [twin(use_fast_loop=loop) for loop in (True, False)]
    ours, theirs = (gradients(layer, [x], initial_state=states) for layer in layers)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=DIGITS)
    for one, other in zip([*ours[1], ours[2]], [*theirs[1], theirs[2]], strict=True):
        np.testing.assert_allclose(one, other, rtol=DIGITS, atol=DIGITS)


def test_a_model_with_it_is_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((None, FEATURES)), lem.LEM(UNITS, dt=DT)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(2).normal(size=(4, 6, FEATURES)).astype("float32")
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[-1].cell.dt == DT
    with pytest.raises(ValueError, match=r"`dt` must be positive. Received: dt=0"):
        lem.LEMCell(UNITS, dt=0)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the example on few small chorales; its exit code, output and errors."""
    random = np.random.default_rng(0)
    rolls = [(random.random((24, 88)) < 0.05).astype("uint8") for _ in range(9)]
    small = rolls[:4], rolls[4:6], rolls[6:]
    monkeypatch.setattr(bach_chorales, "load_data", lambda steps: small)

    def run_here(*arguments):
        words = ["own_cell.py", "--log-dir", tmp_path / "runs", *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        try:
            code = own_cell.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run_here


SMALL = ("--cells", "tanh", "--units", 4, "--epochs", 1, "--rounds", 1)


@pytest.mark.slow
def test_a_small_run_writes_everything(call, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    code, out, errors = call(*SMALL, "--dt", 0.5)
    assert code == 0, errors
    (run,) = (tmp_path / "runs").iterdir()
    record = json.loads((run / "results.json").read_text())
    assert [row["cell"] for row in record["rows"]] == ["tanh", "LEM"]
    assert record["difference_of_gradients"] < 1e-4
    timing = record["timing"]
    assert timing["shape"] == [4, 23, 88]
    assert f"{timing['fast_loop_ms']:.1f} ms, and {timing['keras_loop_ms']:.1f}" in out
    assert "is fast: the gradient of the step of LEMCell is automatic" in out
    model = keras.saving.load_model(run / "LEM" / "best.keras")
    (layer,) = keras_gated.inspection.recurrent_layers(model)
    assert layer.cell.dt == 0.5
    assert layer.cell.weight_noise == 0.075
    for name in ("memory", "learning_curves"):
        assert (run / f"{name}.png").read_bytes()[1:4] == b"PNG"
    log = event_accumulator.EventAccumulator(str(run / "LEM"))
    log.Reload()
    assert {"gates", "gates/a", "gates/b"} <= set(log.Tags()["tensors"])


def test_wrong_gradients_end_the_run(call, monkeypatch, tmp_path):
    def gradient(model, rolls):
        fast = model.layers[0].use_fast_loop
        return [np.ones(2), np.array([1.0, -2.0]) * (1.1 if fast else 1)]

    monkeypatch.setattr(own_cell, "gradient", gradient)
    code, _, errors = call(*SMALL)
    assert code == 2
    assert "own_cell.py: error: the gradients of the fast loop of LEM are" in errors
    assert not (tmp_path / "runs").exists()


def test_an_argument_that_is_out_of_range(call):
    code, _, errors = call("--dt", -1)
    assert code == 2
    assert "--dt: invalid positive number value: '-1'" in errors
