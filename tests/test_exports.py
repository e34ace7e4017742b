"""Exported files give the numbers of the models, at lengths not seen at export."""

import keras
import numpy as np
import pytest
from differentiate import array

import keras_gated
from keras_gated import GRU, LAYERS, LSTM, exporting, to_onnx

if keras.config.backend() != "tensorflow":
    pytest.skip("exports are TensorFlow's", allow_module_level=True)
pytest.importorskip("tf2onnx")
SIZES = (2, 7), (3, 4), (1, 1)
K = keras.layers


def sequential(*layers):
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    random = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(0.5 * random.normal(size=weight.shape))
    return model


def of_name(name):
    needed = {"projection_units": 3} if name == "projected_lstm" else {}
    return LAYERS[name](4, return_sequences=True, **needed)


def run(path, **given):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def batches(masked=False):
    random = np.random.default_rng(2)
    for size in SIZES:
        x = random.normal(size=(*size, 3)).astype("float32")
        if masked:
            x[random.random(size) < 0.4] = 0
            x[-1] = 0
        yield x


def check(model, path, masked=False):
    for x in batches(masked):
        np.testing.assert_allclose(run(path, x=x)["y"], array(model(x)), atol=1e-5)


EVERY = {"return_sequences": True}
NATIVE = {
    "coupled": lambda: [LSTM(4, coupled=True, **EVERY)],
    "after": lambda: [GRU(4, reset_after=True, **EVERY)],
    "backwards": lambda: [GRU(4, go_backwards=True, **EVERY)],
    "learned": lambda: [LSTM(4, learn_initial_state=True)],
    "both": lambda: [K.Bidirectional(LSTM(4, **EVERY)), K.Bidirectional(GRU(3))],
    "stack": lambda: [keras_gated.RNN([keras_gated.LSTMCell(4), K.GRUCell(5)])],
    "keras": lambda: [K.LSTM(4, **EVERY), K.GRU(5, **EVERY), K.SimpleRNN(3)],
    "masked": lambda: [K.Masking(), LSTM(4, **EVERY), K.Bidirectional(GRU(3))],
    "activations": lambda: [LSTM(4, "relu", "hard_sigmoid")],
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_operators(name, tmp_path):
    model = sequential(*NATIVE[name]())
    about = to_onnx(model, tmp_path / "model.onnx")
    assert not [kind for kind in about.values() if kind.startswith("loop")]
    check(model, tmp_path / "model.onnx", masked=name == "masked")


@pytest.mark.parametrize("name", LAYERS)
def test_every_cell_of_sequences_in_onnx(name, tmp_path):
    model = sequential(of_name(name), K.Dense(2))
    about = to_onnx(model, tmp_path / "model.onnx")
    native = name in ("tanh", "lstm", "gru", "simplified_gru")
    assert next(iter(about.values())).startswith("loop") != native
    check(model, tmp_path / "model.onnx")


def steps(model, call):
    """The outputs of the steps one after the other, by a file."""
    for x in batches():
        states = exporting.SingleStep(model).initial_states(len(x))
        states = {name: array(state) for name, state in states.items()}
        frames = []
        for t in range(x.shape[1]):
            found = call(x=x[:, t], **states)
            states = {name: array(found[f"new_{name}"]) for name in states}
            frames.append(found["y"])
        expected = array(model(x))
        np.testing.assert_allclose(np.stack(frames, 1), expected, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore")
def test_every_cell_step_by_step(name, tmp_path):
    import tensorflow as tf

    model = sequential(of_name(name), GRU(3, **EVERY))
    to_onnx(model, tmp_path / "step.onnx", step=True)
    steps(model, lambda **given: run(tmp_path / "step.onnx", **given))
    exporting.to_litert(model, tmp_path / "step.tflite", step=True)
    lite = tf.lite.Interpreter(str(tmp_path / "step.tflite"))
    steps(model, lambda **given: lite.get_signature_runner()(**given))


@pytest.mark.parametrize(
    ("layers", "step", "message"),
    [
        (lambda: [K.Bidirectional(GRU(2, name="g"))], True, "backwards"),
        (lambda: [GRU(2, go_backwards=True, name="g")], True, "layer 'g'"),
        (lambda: [GRU(2, dtype="float16", name="g")], False, "computes in float16"),
    ],
)
def test_what_cannot_be_exported_is_named_and_leaves_nothing(
    layers, step, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        to_onnx(sequential(*layers()), tmp_path / "model.onnx", step=step)
    assert not [*tmp_path.iterdir()]
