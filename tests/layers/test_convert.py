"""Weights from and to Keras, PyTorch and TensorFlow Addons, biases random."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from oracles import array, sequences

import keras_gated
from keras_gated import from_addons, from_keras, from_torch, to_keras

BIAS = {"bias_initializer": "random_normal"}
KERAS_LAYERS = {
    "SimpleRNN": lambda **k: keras.layers.SimpleRNN(4, **BIAS, **k),
    "LSTM": lambda **k: keras.layers.LSTM(4, **BIAS, **k),
    "GRU": lambda **k: keras.layers.GRU(4, **BIAS, **k),
    "GRU, reset before": lambda **k: keras.layers.GRU(
        4, reset_after=False, **BIAS, **k
    ),
    "RNN": lambda **k: keras.layers.RNN(keras.layers.GRUCell(4, **BIAS), **k),
}


@pytest.mark.parametrize("name", KERAS_LAYERS)
@pytest.mark.parametrize("use", [{}, {"return_sequences": True, "go_backwards": True}])
def test_keras_there_and_back(name, use):
    theirs = KERAS_LAYERS[name](**use)
    x, _ = sequences()
    expected = array(theirs(x))
    ours = from_keras(theirs)
    assert ours.loop.startswith("fast")
    np.testing.assert_allclose(array(ours(x)), expected, atol=1e-6)
    again = to_keras(ours)
    np.testing.assert_allclose(array(again(x)), expected, atol=1e-6)
    for a, b in zip(again.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("convert", [from_keras, to_keras])
def test_frozen_stateful_and_regularized_layers(convert):
    x, _ = sequences()
    kind = keras.layers.GRU if convert is from_keras else keras_gated.GRU
    layer = kind(4, stateful=True, activity_regularizer="l2", trainable=False)
    layer.build(x.shape)
    layer(x)
    other = convert(layer)
    np.testing.assert_allclose(array(other(x)), array(layer(x)), atol=1e-6)
    assert len(other.losses) == len(layer.losses) == 1
    assert other.trainable_variables == []
    layer.trainable = True
    layer.cell.trainable = False
    np.testing.assert_allclose(array(convert(layer)(x)), array(layer(x)), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: keras_gated.LSTM(4), "no peepholes"),
        (lambda: keras_gated.SimplifiedGRU(4), "no layer for SimplifiedGRUCell"),
        (lambda: keras_gated.GRU(4, weight_noise=0.1), "no weight noise"),
        (lambda: keras_gated.GRU(4), "no weights yet"),
    ],
)
def test_to_keras_says_why_not(layer, reason):
    with pytest.raises(ValueError, match=reason):
        to_keras(layer())


def test_from_says_what_it_takes():
    with pytest.raises(ValueError, match="from_keras takes"):
        from_keras(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="from_torch takes"):
        from_torch(keras.layers.Dense(3))
    with pytest.raises(ValueError, match=r"shapes: \[\(3, 16\)\]"):
        from_addons([np.zeros((3, 16))])


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu", "bias": False}),
        ("LSTM", {"num_layers": 2, "dropout": 0.5}),
        ("LSTM", {"num_layers": 2, "proj_size": 2, "bidirectional": True}),
        ("LSTM", {"proj_size": 2, "bias": False}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
        ("GRU", {"bias": False}),
    ],
)
def test_torch(kind, arguments):
    import torch

    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(3, 4, batch_first=True, **arguments).eval()
    x, _ = sequences()
    expected, _ = module(torch.tensor(x))
    got = array(from_torch(module)(x, training=False))
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
def test_torch_of_other_kinds():
    import torch

    module = torch.nn.GRU(3, 4, batch_first=True)
    x, _ = sequences()
    expected = array(from_torch(module.to(torch.bfloat16))(x))
    exact = module.to(torch.float32)(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(expected, exact, atol=1e-6)
    quantized = torch.ao.nn.quantized.dynamic.GRU(3, 4)
    with pytest.raises(ValueError, match="was quantized"):
        from_torch(quantized)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("peephole", keras_gated.LSTM),
        ("layer_norm_lstm", keras_gated.LSTM),
        ("layer_norm_lstm_without_bias", keras_gated.LSTM),
        ("layer_norm_simple", keras_gated.TanhRNN),
        ("layer_norm_simple_without_bias", keras_gated.TanhRNN),
    ],
)
def test_addons(name, kind):
    """See make_addons.py for where the numbers come from."""
    made = np.load(pathlib.Path(__file__).with_name("addons.npz"))
    of_cell = {k.split("/")[1]: v for k, v in made.items() if k.startswith(f"{name}/")}
    weights = [v for k, v in of_cell.items() if k.startswith("weight")]
    layer = from_addons(weights, return_sequences=True, return_state=True)
    assert type(layer) is kind
    for k, output in enumerate(layer(made["x"])):
        np.testing.assert_allclose(array(output), of_cell[f"output_{k}"], atol=1e-5)
