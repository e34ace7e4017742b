"""Keras's contract for layers: configuration, saving, arguments, errors."""

import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase
from oracles import BATCH, INPUTS, ROWS, TIME, UNITS, array, built, sequences

import keras_gated

each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)

SHARED = {
    "units": 5,
    "activation": "softsign",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "recurrent_initializer": "glorot_normal",
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.01),
    "recurrent_regularizer": keras.regularizers.L1(0.02),
    "bias_regularizer": keras.regularizers.L1L2(0.03, 0.04),
    "kernel_constraint": "max_norm",
    "recurrent_constraint": "unit_norm",
    "bias_constraint": "non_neg",
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "weight_noise": 0.075,
    "layer_norm": True,
    "layer_norm_epsilon": 0.01,
    "zoneout": 0.25,
    "seed": 7,
    "name": "a_name",
    "dtype": "mixed_bfloat16",
    "trainable": False,
}


class TestKerasContract(TestCase):
    """Keras's own layer test, on each cell in a layer and on its own."""

    def test_rnn_over_cell(self):
        for row in ROWS:
            self.run_layer_test(
                keras_gated.RNN,
                init_kwargs={"cell": row.make(dropout=0.2, weight_noise=0.1, seed=3)},
                input_shape=(BATCH, TIME, INPUTS),
                expected_output_shape=(BATCH, UNITS),
                expected_num_trainable_weights=3 + row.peepholes,
                expected_num_non_trainable_weights=0,
                supports_masking=True,
            )

    def test_cell_alone(self):
        for row in ROWS:
            state = np.ones((BATCH, UNITS), "float32")
            count = len(keras.tree.flatten(row.make().state_size))
            self.run_layer_test(
                row.cell_class,
                init_kwargs={"units": UNITS, **row.arguments},
                input_data=np.ones((BATCH, INPUTS), "float32"),
                call_kwargs={"states": [state] * count},
                expected_num_trainable_weights=3 + row.peepholes,
                run_training_check=False,  # of layers that take one input
                run_mixed_precision_check=False,
            )


@pytest.mark.parametrize(
    "row",
    # One of each class: that with arguments of its own, if it has any.
    {r.cell_class: r for r in sorted(ROWS, key=lambda r: len(r.own))}.values(),
    ids=lambda row: row.id,
)
def test_config_round_trip_of_every_argument(row):
    arguments = {**SHARED, **row.own}
    cell = row.cell_class(**arguments)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(cell)))
    assert set(arguments) == set(config["config"]), "an argument is not tested"
    default = row.cell_class(3).get_config()
    same = [n for n in arguments if config["config"][n] == default[n]]
    assert same in ([], ["peephole"]), "an argument has its default"
    revived = keras.saving.deserialize_keras_object(config)
    assert revived.get_config() == cell.get_config()
    for layer in (cell, revived):
        layer.build((None, INPUTS))
    revived.set_weights(cell.get_weights())
    x, _ = sequences()
    states = cell.get_initial_state(BATCH)
    np.testing.assert_array_equal(
        *(
            array(keras.ops.cast(c(x[:, 0], states)[0], "float32"))
            for c in (cell, revived)
        )
    )


@pytest.mark.skipif(
    keras.config.backend() == "jax", reason="slow; tested on the other backends"
)
@pytest.mark.slow
def test_saved_models_load_in_another_process(tmp_path):
    """Without custom objects; a model of every cell."""
    x, _ = sequences()
    np.save(tmp_path / "x.npy", x)
    for row in ROWS:
        layer = keras.layers.RNN(row.make(weight_noise=0.1, dropout=0.1))
        model = keras.Sequential([keras.Input((None, INPUTS)), layer])
        model.save(tmp_path / f"{row.id}.keras")
        np.save(tmp_path / f"{row.id}.npy", array(model(x)))
    code = (
        "import pathlib, sys, keras, keras_gated, numpy as np\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for path in folder.glob('*.keras'):\n"
        "    model = keras.saving.load_model(path)\n"
        "    y = model(np.load(folder / 'x.npy'))\n"
        "    expected = np.load(path.with_suffix('.npy'))\n"
        "    y = keras.ops.convert_to_numpy(y)\n"
        "    np.testing.assert_allclose(y, expected, atol=1e-6)\n"
        "    print(path.stem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == {row.id for row in ROWS}


@each_cell
def test_weights_file_goes_from_model_to_model(row, tmp_path):
    x, _ = sequences()
    models = [
        keras.Sequential([keras.Input((None, INPUTS)), keras.layers.RNN(row.make())])
        for _ in range(2)
    ]
    models[0].save_weights(tmp_path / "model.weights.h5")
    assert np.abs(array(models[0](x)) - array(models[1](x))).max() > 1e-3
    models[1].load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(array(models[0](x)), array(models[1](x)))


@each_cell
def test_regularizers_and_constraints_act(row):
    cell, _ = built(
        row,
        kernel_regularizer="l2",
        recurrent_regularizer="l2",
        bias_regularizer="l2",
        kernel_constraint="non_neg",
        recurrent_constraint="non_neg",
        bias_constraint="non_neg",
    )
    expected = 0.01 * sum((array(w) ** 2).sum() for w in cell.trainable_variables[:3])
    assert float(sum(cell.losses)) == pytest.approx(expected, rel=1e-5)
    names = ["kernel", "recurrent_kernel", "bias"]
    assert [w.name for w in cell.trainable_variables[:3]] == names
    assert all(w.constraint is not None for w in cell.trainable_variables[:3])


def test_initial_bias():
    for row in ROWS:
        cell = row.make(bias_initializer="zeros")
        cell.build((None, INPUTS))
        bias = array(cell.bias)
        expected = np.zeros(bias.shape)
        if row.arguments.get("coupled"):
            expected[:UNITS] = -1
        elif row.cell_class is keras_gated.LSTMCell:
            expected[UNITS : 2 * UNITS] = 1
        np.testing.assert_array_equal(bias, expected)
    plain = keras_gated.LSTMCell(UNITS, unit_forget_bias=False)
    plain.build((None, INPUTS))
    np.testing.assert_array_equal(array(plain.bias), 0)


@each_cell
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("units", 0),
        ("units", -1),
        ("units", 2.5),
        ("units", "8"),
        ("units", None),
        ("units", True),
        ("activation", "tangent"),
        ("weight_noise", math.nan),
        ("weight_noise", math.inf),
        ("weight_noise", -0.1),
        ("weight_noise", "0.1"),
        ("dropout", 1.5),
        ("dropout", -0.1),
        ("recurrent_dropout", math.nan),
    ],
)
def test_bad_argument(row, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be") as error:
        row.make(**{"units": 3, argument: value})
    assert f"{argument}={value!r}" in str(error.value)


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row.id)
def test_bad_recurrent_activation(row):
    with pytest.raises(ValueError, match="`recurrent_activation` must be"):
        row.make(recurrent_activation="step")


@each_cell
def test_bad_shapes(row):
    cell, _ = built(row)
    x, states = sequences()
    states = states[: len(keras.tree.flatten(cell.state_size))]
    with pytest.raises(ValueError, match=r"`inputs` of shape \(batch, 3\)"):
        cell(x, states)  # a sequence instead of a step
    with pytest.raises(ValueError, match=r"`inputs` of shape \(batch, 3\)"):
        cell(x[:, 0, :2], states)
    with pytest.raises(ValueError, match=r"takes \d state\(s\) of shape"):
        cell(x[:, 0], [*states, states[0]])
    with pytest.raises(ValueError, match=r"takes \d state\(s\) of shape"):
        cell(x[:, 0], [s[:, :2] for s in states])
    with pytest.raises(ValueError, match=r"takes \d state\(s\) of shape"):
        keras.layers.RNN(cell)(x, initial_state=[*states, states[0]])
    with pytest.raises(ValueError, match=r"shape \(batch, features\)"):
        row.make().build((None, TIME, INPUTS))
    with pytest.raises(ValueError, match=r"shape \(batch, features\)"):
        keras.layers.RNN(row.make())(x[:, 0])


def test_whole_numbers_of_numpy_are_units():
    assert keras_gated.GRUCell(np.int64(3)).get_config()["units"] == 3
