"""Models of ours are loaded in Keras's safe mode, by whoever imports the package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from comparison import joint
from comparison.training import Settings
from differentiate import array

import keras_gated
from keras_gated import losses, metrics, optimizers

KEYS, EVENTS = 88, 3
OPTIONS = {
    "layer_norm": True,
    "zoneout": 0.1,
    "weight_noise": 0.1,
    "dropout": 0.1,
    "learn_initial_state": True,
    "truncate_gradient": 3,
    "recompute_states": True,
    "kernel_regularizer": "l2",
    "kernel_constraint": "max_norm",
    "bias_initializer": keras.initializers.Constant(0.1),
}
"""Of all layers by units."""


def of_layer(layer):
    """Independent keys."""
    return keras.Sequential(
        [
            keras.Input((None, KEYS)),
            keras_gated.RollEncoding("4/3", "C"),
            layer,
            keras.layers.Dense(KEYS),
        ]
    )


def of_frames(**settings):
    """Whole frames, with onsets and features, and steps of the past."""
    columns = KEYS * (1 + bool(settings.get("onsets")))
    frames, targets = (keras.Input((None, columns)) for _ in range(2))
    told = keras.Input((None, 19))
    encoding = keras_gated.RollEncoding(
        2, "C", onsets=bool(settings.get("onsets")), features=["meter", "key"]
    )
    x = keras.layers.Concatenate()([encoding(frames), told])
    x = keras_gated.DelayLine([0, 1])(x)
    x = keras_gated.GRU(4, return_sequences=True)(x)
    known = [frames] if {"onsets", "tied_units"} & set(settings) else []
    logits = keras_gated.NADE(3, **settings)([x, targets, *known])
    return keras.Model([frames, targets, told], logits)


def of_sound():
    return keras.Sequential(
        [
            keras.Input((None, 6)),
            keras_gated.LSTM(4, coupled=True, return_sequences=True),
            keras_gated.GaussianMixture(2, EVENTS, event_mean=0.5, event_std=2),
        ]
    )


def compiled(model, loss, some):
    optimizer = optimizers.RMSprop(1e-3, global_clipnorm=1.0)
    model.compile(optimizer, loss, weighted_metrics=some)
    return model


def of_keys(model):
    some = [metrics.FrameNLL(), metrics.FrameNLL("sequence")]
    some += [metrics.FrameAccuracy(), metrics.FrameF1()]
    return compiled(model, losses.BernoulliNLL(), some)


def models():
    """Compiled models, by name: all that is in the package, and what examples write."""
    for name, layer in keras_gated.LAYERS.items():
        needed = {"projection_units": 3} if name == "projected_lstm" else {}
        for kind, more in (("plain", {}), ("options", OPTIONS)):
            made = layer(4, **needed, **more, return_sequences=True)
            yield f"{name}-{kind}", of_keys(of_layer(made))
    every = {"return_sequences": True}
    stack = [keras_gated.TanhCell(4), keras.layers.GRUCell(4)]
    for name, layer in (
        ("before", keras_gated.GRU(4, "relu", reset_after=False, **every)),
        ("both", keras.layers.Bidirectional(keras_gated.LSTM(4, **every))),
        ("stack", keras_gated.RNN(stack, **every)),
        ("cell", keras.layers.RNN(keras_gated.LSTMCell(4, peephole=False), **every)),
    ):
        yield name, of_keys(of_layer(layer))
    for name, settings in (
        ("nade", {}),
        ("tied", {"tied_units": 2, "window": 3}),
        ("onsets", {"onsets": True, "linear": False, "order": "ascending"}),
    ):
        yield name, of_keys(of_frames(**settings))
    some = [metrics.EventNLL(2, EVENTS, std=2.0)]
    yield "sound", compiled(of_sound(), losses.GaussianMixtureNLL(2, EVENTS), some)
    encoding = keras_gated.RollEncoding(2, features=["meter"])
    for head in joint.HEADS:
        settings = Settings(units=4, head=head)
        yield f"joint-{head}", joint.build_joint(settings, encoding)


def inputs(model):
    random = np.random.default_rng(3)
    return [
        random.integers(0, 2, (2, 5, x.shape[-1])).astype("float32")
        for x in model.inputs
    ]


LOAD = """
import pathlib, sys
import keras, numpy as np
import keras_gated
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(path)
    data = np.load(f"{path}.npz")
    *inputs, expected = data.values()
    found = model(inputs if len(inputs) > 1 else inputs[0])
    found = keras.ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert type(model.loss).__module__ == "keras_gated.losses"
    print(path.stem)
"""


@pytest.mark.slow
def test_every_model_loads_in_safe_mode_in_another_process(tmp_path):
    names = []
    for name, model in models():
        model.save(tmp_path / f"{name}.keras")
        data = inputs(model)
        outputs = array(model(data if len(data) > 1 else data[0]))
        np.savez(tmp_path / f"{name}.keras.npz", *data, outputs)
        names.append(name)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.split()) == sorted(names)
