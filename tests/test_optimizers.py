"""RMSProp's rescaling of gradients of any size, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops
from oracles import array

from keras_gated.optimizers import RMSprop, rescale


def gradients(scale, seed=0):
    random = np.random.default_rng(seed)
    return [
        (scale * random.normal(size=shape)).astype("float32")
        for shape in [(3, 4), (4,), ()]
    ]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e18, 1e25, 3e37])
def test_rescaled_to_the_norm(scale):
    """NumPy's longer floats hold any of these norms."""
    grads = gradients(scale)
    norm = np.sqrt(sum((g.astype("longdouble") ** 2).sum() for g in grads))
    got = rescale([*map(ops.convert_to_tensor, grads[:2]), None, grads[2]], 2.0)
    assert got.pop(2) is None
    for ours, g in zip(got, grads, strict=True):
        expected = g if norm <= 2 else g.astype("longdouble") / norm * 2
        np.testing.assert_allclose(array(ours), expected.astype("float32"), rtol=1e-6)
        if norm <= 2:
            np.testing.assert_array_equal(array(ours), g)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_updates_nothing(wrong):
    grads = gradients(1.0)
    grads[1][2] = wrong
    assert not any(array(g).any() for g in rescale(grads, 1.0))
    assert not any(array(g).any() for g in rescale([0 * g for g in gradients(1)], 1))


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_equals_keras_where_that_works(scale):
    weights = []
    for optimizer in (RMSprop, keras.optimizers.RMSprop):
        variables = [keras.Variable(np.ones_like(g)) for g in gradients(1)]
        ours = optimizer(0.01, global_clipnorm=1.0)
        for seed in range(3):
            grads = [ops.convert_to_tensor(g) for g in gradients(scale, seed)]
            ours.apply(grads, variables)
        weights.append([array(v) for v in variables])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_model_that_explodes_is_trained_and_saved(tmp_path):
    x = keras.Input((1,))
    huge = keras.initializers.Constant(1e22)
    scale = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=huge, trainable=False
    )
    y = scale(keras.layers.Dense(1, use_bias=False)(x))
    model = keras.Model(x, y)
    model.compile(RMSprop(0.01, global_clipnorm=1.0), lambda t, y: ops.mean(y, -1))
    before, _ = model.get_weights()
    data = np.ones((8, 1), "float32"), np.zeros((8, 1), "float32")
    model.fit(*data, batch_size=4, verbose=0)
    after, _ = model.get_weights()
    # RMSProp's own step: the rate over the root of the mean of the squares, 1 - 0.9^k.
    steps = 0.01 / np.sqrt(0.1) + 0.01 / np.sqrt(0.1 + 0.9 * 0.1)
    np.testing.assert_allclose(before - after, steps, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded.get_weights()[0], after)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(model.optimizer))
    assert type(again) is RMSprop
    assert again.global_clipnorm == 1.0
