"""Exported files give the numbers of the models, at lengths not seen at export."""

from functools import partial

import keras
import numpy as np
import pytest
from differentiate import array
from export_model import opened
from oracles import some

import keras_gated
from keras_gated import GRU, LAYERS, LSTM, exporting, to_onnx

if keras.config.backend() != "tensorflow":
    pytest.skip("exports are TensorFlow's", allow_module_level=True)
pytest.importorskip("tf2onnx")
SIZES = (2, 7), (3, 4), (1, 1)
K = keras.layers
EVERY = {"return_sequences": True}
slow = pytest.mark.slow


def with_weights(model):
    random = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(0.5 * random.normal(size=weight.shape))
    return model


def sequential(*layers):
    return with_weights(keras.Sequential([keras.Input((None, 3)), *layers]))


def of_name(name):
    needed = {"projection_units": 3} if name == "projected_lstm" else {}
    return LAYERS[name](4, return_sequences=True, **needed)


def nade(**arguments):
    """A model of frames, which may see some of those before."""
    width = 24 if arguments.get("onsets") else 12
    frames, following = keras.Input((None, width)), keras.Input((None, width))
    known = [keras_gated.DelayLine((0, 2))(frames)] if arguments else []
    head = keras_gated.NADE(4, window=5, **arguments)
    y = head([K.Dropout(0.1)(GRU(4, **EVERY)(frames)), following, *known])
    return with_weights(keras.Model([frames, following], y))


MODELS = {
    name: lambda n=name: sequential(of_name(n), GRU(3, **EVERY)) for name in LAYERS
}
HEADS = {
    "mixture": lambda: sequential(GRU(4, **EVERY), keras_gated.GaussianMixture(2, 3)),
    "bernoulli": lambda: sequential(GRU(4, **EVERY), K.Dense(5, "sigmoid")),
    "nade": nade,
    "tied": lambda: nade(tied_units=3, onsets=True),
    "masked": lambda: sequential(K.Masking(), LSTM(4, **EVERY), GRU(3, **EVERY)),
    "learned": lambda: sequential(LSTM(4, learn_initial_state=True, **EVERY)),
    "last": lambda: sequential(
        keras_gated.RNN([keras_gated.LSTMCell(4), K.GRUCell(5)])
    ),
}


def inputs_of(model, batch, steps):
    """By name; several are of keys, of which those of a frame are given."""
    random, several = np.random.default_rng(2), len(model.inputs) > 1
    xs = [random.normal(size=(batch, steps, i.shape[-1])) for i in model.inputs]
    xs = [x > 0 if several else x for x in xs]
    if isinstance(model.layers[0], K.Masking):
        xs[0][random.random((batch, steps)) < 0.4] = 0
        xs[0][-1] = 0
    names = [f"x_{k}" for k in range(len(xs))] if several else ["x"]
    return {name: x.astype("float32") for name, x in zip(names, xs, strict=True)}


def step_by_step(model, call, given):
    """The outputs of a file of one step."""
    batch, steps, _ = next(iter(given.values())).shape
    states = exporting.SingleStep(model).initial_states(batch)
    states = {name: array(state) for name, state in states.items()}
    frames = []
    for t in range(steps):
        found = call(**{name: x[:, t] for name, x in given.items()}, **states)
        states = {name: array(found[f"new_{name}"]) for name in states}
        frames.append(found["y"])
    return np.stack(frames, 1)


def check(model, path, step=False, sizes=SIZES):
    call = opened(path)
    for size in sizes:
        given = inputs_of(model, *size)
        expected = array(model([*given.values()] if len(given) > 1 else given["x"]))
        found = step_by_step(model, call, given) if step else call(**given)["y"]
        found = found[:, -1] if found.ndim > expected.ndim else found
        np.testing.assert_allclose(found, expected, atol=1e-5)


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


@pytest.mark.parametrize("name", some(NATIVE))
def test_native_operators(name, tmp_path):
    model = sequential(*NATIVE[name]())
    about = to_onnx(model, tmp_path / "model.onnx")
    assert not [kind for kind in about.values() if kind.startswith("loop")]
    check(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", some(LAYERS))
def test_every_cell_of_sequences_in_onnx(name, tmp_path):
    model = sequential(of_name(name), K.Dense(2))
    about = to_onnx(model, tmp_path / "model.onnx")
    native = name in ("tanh", "lstm", "gru", "simplified_gru")
    assert next(iter(about.values())).startswith("loop") != native
    check(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", some([*LAYERS, "nade", "masked"]))
def test_every_cell_step_by_step_in_litert(name, tmp_path):
    model = (MODELS | HEADS)[name]()
    exporting.to_litert(model, tmp_path / "step.tflite", step=True)
    check(model, tmp_path / "step.tflite", step=True)


FORMS = {
    "sequences.onnx": (to_onnx, False),
    "step.onnx": (partial(to_onnx, step=True), True),
    "sequences.tflite": (partial(exporting.to_litert, batch_size=2), False),
    "step.tflite": (partial(exporting.to_litert, step=True), True),
    "sequences": (exporting.to_saved_model, False),
    "step": (partial(exporting.to_saved_model, step=True), True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) for n in MODELS | HEADS])
def test_every_form_of_every_cell_and_head(name, form, tmp_path):
    model = (MODELS | HEADS)[name]()
    write, step = FORMS[form]
    write(model, tmp_path / form)
    # LiteRT knows the size of a batch of sequences.
    sizes = ((2, 7), (2, 1), (2, 30)) if form == "sequences.tflite" else SIZES
    check(model, tmp_path / form, step, sizes)


@pytest.mark.parametrize("form", ["step.onnx", "sequences"])
def test_forms_of_a_mixture(form, tmp_path):
    test_every_form_of_every_cell_and_head("mixture", form, tmp_path)


@pytest.mark.parametrize("name", ["nade", "tied"])
def test_sequences_of_whole_frames_in_onnx(name, tmp_path):
    test_every_form_of_every_cell_and_head(name, "sequences.onnx", tmp_path)


def test_a_step_of_embedded_numbers(tmp_path):
    layers = [K.Embedding(5, 3), LSTM(4, **EVERY)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers])
    step = exporting.SingleStep(model)
    numbers, states, frames = np.array([[1, 4, 2]]), step.initial_states(1), []
    for t in range(3):
        y, *new = step({"x": numbers[:, t], **states}).values()
        states = dict(zip(states, new, strict=True))
        frames.append(array(y))
    np.testing.assert_allclose(np.stack(frames, 1), array(model(numbers)), atol=1e-6)


@pytest.mark.parametrize("step", some([False, True]))
def test_eight_bits_are_smaller_and_near(step, tmp_path):
    model = sequential(GRU(48, **EVERY), K.Dense(2))
    given, found = inputs_of(model, 1, 9), {}
    for quantize in (False, True):
        path = tmp_path / f"{quantize}.tflite"
        exporting.to_litert(model, path, step=step, quantize=quantize)
        call = opened(path)
        y = step_by_step(model, call, given) if step else call(**given)["y"]
        found[quantize] = path.stat().st_size, y
    assert found[True][0] < 0.6 * found[False][0]
    error = np.abs(found[True][1] - found[False][1]).max()
    assert 0 < error < 0.05 * np.ptp(found[False][1])


def quantized():
    model = sequential(GRU(16, **EVERY), K.Dense(3, name="d"))
    model.quantize("int8")
    return model


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_what_keras_has_quantized(tmp_path):
    model = quantized()
    to_onnx(model, tmp_path / "model.onnx")
    check(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="layer 'd' was quantized by Keras"):
        exporting.to_litert(model, tmp_path / "step.tflite", step=True)


class Eigen(K.Layer):
    """An operation that LiteRT does not have."""

    def call(self, x):
        return x + keras.ops.svd(x[..., None] * x[..., None, :], compute_uv=False)


def computed():
    x, h = keras.Input((None, 3)), keras.Input((2,))
    return keras.Model([x, h], GRU(2, name="g")(x, initial_state=K.Dense(2)(h)))


def in_two_places():
    x, layer = keras.Input((None, 3)), GRU(3, name="g", **EVERY)
    return keras.Model(x, layer(layer(x)))


def subclassed():
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.layer = GRU(2)

        def call(self, x):
            return self.layer(x)

    model = Model()
    model.build((None, None, 3))
    return model


def stateful():
    layer = GRU(2, stateful=True, name="g")
    return keras.Sequential([keras.Input(batch_shape=(1, None, 3)), layer])


to_onnx_step = partial(to_onnx, step=True)
REFUSED = [
    (lambda: sequential(K.Bidirectional(GRU(2), name="b")), to_onnx_step, "layer 'b'"),
    (
        lambda: sequential(GRU(2, go_backwards=True, name="g")),
        to_onnx_step,
        "layer 'g'",
    ),
    (lambda: sequential(sequential(GRU(2))), to_onnx_step, "A model within a model"),
    (computed, to_onnx_step, "`initial_state` for the layer 'g'"),
    (in_two_places, to_onnx_step, "layer 'g' in several places"),
    *(
        (
            lambda layer=layer: sequential(layer, GRU(2)),
            to_onnx_step,
            "layer 'c' of class",
        )
        for layer in (
            K.Conv1D(3, 3, padding="causal", name="c"),
            K.Conv1D(3, 3, name="c"),
        )
    ),
    (
        lambda: sequential(GRU(2, **EVERY), K.GlobalAveragePooling1D(name="p")),
        partial(exporting.to_litert, step=True),
        "layer 'p' of class",
    ),
    (
        lambda: sequential(GRU(2, dtype="float16", name="g")),
        to_onnx,
        "layer 'g' computes",
    ),
    (stateful, to_onnx, "layer 'g' is stateful"),
    (stateful, exporting.to_saved_model, "layer 'g' is stateful"),
    (subclassed, to_onnx, "the model 'mine'"),
    (lambda: keras.Sequential([GRU(2)]), exporting.to_litert, "is not built"),
    (lambda: GRU(2), to_onnx, "must be a keras.Model"),
    (
        lambda: sequential(Eigen(), GRU(2)),
        partial(exporting.to_litert, step=True),
        "no operators for Svd",
    ),
]


@pytest.mark.parametrize(("make", "write", "message"), REFUSED)
def test_what_cannot_be_exported_is_named_and_leaves_nothing(
    make, write, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        write(make(), tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="which is replaced"):
        exporting.to_saved_model(sequential(GRU(2)), tmp_path)
    assert [*tmp_path.iterdir()] == [tmp_path / "mine.txt"]


def test_another_backend_says_where_files_are_written(monkeypatch, tmp_path):
    model = sequential(GRU(2))
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        to_onnx(model, tmp_path / "model.onnx")
