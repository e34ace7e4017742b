"""The layers by units: `GRU(4)` is `RNN(GRUCell(4))`, saved and loaded."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from oracles import BATCH, INPUTS, TIME, UNITS, array, sequences

import keras_gated
from keras_gated import GRU, LSTM, RNN, SimplifiedGRU, TanhRNN

LAYERS = {
    TanhRNN: (keras_gated.TanhCell, {"activation": "relu"}),
    LSTM: (keras_gated.LSTMCell, {"peephole": False, "unit_forget_bias": False}),
    GRU: (keras_gated.GRUCell, {"reset_after": True}),
    SimplifiedGRU: (
        keras_gated.SimplifiedGRUCell,
        {"recurrent_activation": "hard_sigmoid"},
    ),
}
each_layer = pytest.mark.parametrize("layer_class", LAYERS, ids=lambda c: c.__name__)
OPTIONS = {"return_sequences": True, "go_backwards": True, "use_fast_loop": True}


@each_layer
def test_is_rnn_over_its_cell(layer_class):
    cell_class, arguments = LAYERS[layer_class]
    layer = layer_class(UNITS, **arguments, **OPTIONS, dropout=0.1, name="mine")
    same = RNN(cell_class(UNITS, **arguments), **OPTIONS)
    x, _ = sequences()
    for each in (layer, same):
        each.build(x.shape)
    same.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(layer(x)), array(same(x)))
    assert (layer.name, layer.units, layer.dropout) == ("mine", UNITS, 0.1)


@each_layer
def test_config_and_file_round_trip(layer_class, tmp_path):
    _, arguments = LAYERS[layer_class]
    layer = layer_class(
        UNITS, **arguments, **OPTIONS, weight_noise=0.1, dtype="float64", seed=1
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert "cell" not in config["config"]
    revived = keras.saving.deserialize_keras_object(config)
    assert revived.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((TIME, INPUTS)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is layer_class
    x, _ = sequences()
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))


TWINS = {
    TanhRNN: keras.layers.SimpleRNN,
    LSTM: keras.layers.LSTM,
    GRU: keras.layers.GRU,
    SimplifiedGRU: keras.layers.GRU,
    RNN: keras.layers.RNN,
}


@pytest.mark.parametrize("layer_class", TWINS, ids=lambda c: c.__name__)
def test_has_the_signature_of_its_keras_layer(layer_class):
    """All its arguments in their order, with their defaults, then ours by keyword."""
    ours, theirs = (
        list(inspect.signature(c.__init__).parameters.values())[1:]
        for c in (layer_class, TWINS[layer_class])
    )
    if layer_class is SimplifiedGRU:
        theirs = [p for p in theirs if p.name != "reset_after"]
    *theirs, _ = theirs
    for our, their in zip(ours, theirs, strict=False):
        assert (our.name, our.kind) == (their.name, their.kind)
        assert our.default == their.default or our.name == "reset_after"
    added = ours[len(theirs) :]
    assert {p.kind for p in added} == {inspect.Parameter.KEYWORD_ONLY, ours[-1].kind}
    documented = re.findall(
        r"^    (?:\*\*)?(\w+): ", inspect.cleandoc(layer_class.__doc__), re.MULTILINE
    )
    assert [name for name in documented if name in {p.name for p in ours}] == [
        p.name for p in ours
    ]


@each_layer
def test_takes_the_arguments_of_keras_layers(layer_class):
    x, _ = sequences()
    layer = layer_class(UNITS, "tanh", implementation=2)
    assert layer(x).shape == (BATCH, UNITS)
    gates = [] if layer_class is TanhRNN else ["sigmoid"]
    assert not layer_class(UNITS, "tanh", *gates, False).use_bias
    if layer_class is not TanhRNN:
        layer_class(UNITS, use_cudnn="auto")
        with pytest.raises(ValueError, match="use_cudnn"):
            layer_class(UNITS, use_cudnn=True)
    with pytest.raises(ValueError, match="units=0"):
        layer_class(0)
    with pytest.raises(ValueError, match=f"{layer_class.__name__}.*no_such_argument"):
        layer_class(UNITS, no_such_argument=1)
    with pytest.raises(ValueError, match="ndim=3"):
        layer_class(UNITS)(x[0])
