"""NADE: an exact joint distribution over the keys of a frame."""

import itertools

import keras
import numpy as np
import pytest
from differentiate import gradients, projection
from keras import ops

from keras_gated import GRU, NADE, losses

K = 6
# Keras's own operations compute float64 in float32 on PyTorch.
EXACT, STEP = (1e-6, 1e-2) if keras.config.backend() == "torch" else (1e-12, 1e-6)
SETTINGS = [
    {},
    {"hidden_units": 0},
    {"linear": False},
    {"order": "ascending"},
    {"order": [3, 0, 5, 1, 4, 2]},
    {"hidden_units": 3, "order": [5, 3, 1, 0, 2, 4]},
]
each_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def layer_of(settings, dtype="float32", features=4, keys=K, seed=0):
    """A layer whose weights are all far from zero."""
    layer = NADE(**{"hidden_units": 5, **settings}, dtype=dtype)
    layer.build([(None, features), (None, keys)])
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(size=w.shape) for w in layer.weights])
    return layer


def all_frames(keys=K):
    return np.array(list(itertools.product([0, 1], repeat=keys)), "float64")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def log_probabilities(layer, features, frames):
    logits = numpy(layer([np.tile(features, (len(frames), 1)), frames]))
    return -(np.logaddexp(0, logits) - frames * logits).sum(axis=-1), logits


@each_setting
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("float64", 1e-12)])
def test_probabilities_of_all_frames_sum_to_one(settings, dtype, atol):
    layer = layer_of(settings, dtype)
    features = np.random.default_rng(1).normal(size=4).astype(dtype)
    found, logits = log_probabilities(layer, features, all_frames().astype(dtype))
    assert logits.dtype == dtype
    np.testing.assert_allclose(np.exp(found.astype("float64")).sum(), 1, atol=atol)


@each_setting
def test_logits_depend_on_the_keys_before_them_alone(settings):
    layer, random = layer_of(settings), np.random.default_rng(2)
    order = layer._places
    features, frames = random.normal(size=(1, 4)), random.integers(0, 2, (1, K))
    before = numpy(layer([features, frames]))
    for place, key in enumerate(order):
        other = frames.copy()
        other[0, key] = 1 - other[0, key]
        changed = numpy(layer([features, other])) != before
        assert not changed[0, order[: place + 1]].any()
        assert changed[0, order[place + 1 :]].all()


def test_equations():
    """The docstring's sums, key by key, in NumPy."""
    layer = layer_of({"order": [3, 0, 5, 1, 4, 2]}, "float64")
    c, C, A, b, B, W, V = (numpy(w) for w in layer.weights)
    random = np.random.default_rng(3)
    h, y = random.normal(size=4), random.integers(0, 2, K).astype("float64")
    expected, before = np.empty(K), []
    for j in layer.order:
        a = b + h @ B + sum((W[k] * y[k] for k in before), np.zeros(5))
        linear = sum(A[k, j] * y[k] for k in before)
        expected[j] = c[j] + h @ C[:, j] + linear + V[j] @ (1 / (1 + np.exp(-a)))
        before.append(j)
    both = (ops.convert_to_tensor(x[None], "float64") for x in (h, y))
    np.testing.assert_allclose(numpy(layer([*both]))[0], expected, EXACT)


@each_setting
def test_samples_have_the_probabilities(settings):
    from scipy.stats import chi2

    layer, count = layer_of(settings), 100_000
    features = np.random.default_rng(4).normal(size=4).astype("float32")
    drawn = numpy(layer.sample(np.tile(features, (count, 1)), seed=5))
    found, _ = log_probabilities(layer, features, all_frames().astype("float32"))
    expected = count * np.exp(found.astype("float64"))
    numbers = (drawn @ 2.0 ** np.arange(K)[::-1]).astype(int)
    observed = np.bincount(numbers, minlength=2**K)
    rare = expected < 5
    statistic = ((observed - expected)[~rare] ** 2 / expected[~rare]).sum()
    statistic += (observed - expected)[rare].sum() ** 2 / max(expected[rare].sum(), 1)
    assert statistic < chi2.ppf(1 - 1e-4, (~rare).sum())


@each_setting
def test_fixed_keys_and_temperature_zero(settings):
    layer, random = layer_of(settings), np.random.default_rng(6)
    features = random.normal(size=(7, 9, 4)).astype("float32")
    fixed = random.integers(-1, 2, (7, 9, K))
    noise = layer.noise((7, 9), seed=1)
    frames, logits = map(numpy, layer.from_noise(features, noise, 1.0, fixed))
    assert set(np.unique(frames)) == {0, 1}
    np.testing.assert_array_equal(frames[fixed >= 0], fixed[fixed >= 0])
    np.testing.assert_allclose(logits, numpy(layer([features, frames])), 1e-4, 1e-5)
    free = fixed < 0
    np.testing.assert_array_equal(frames[free], (logits > numpy(noise))[free])
    likely = numpy(layer.sample(features, temperature=0.0))
    np.testing.assert_array_equal(likely, numpy(layer([features, likely])) > 0)
    with pytest.raises(ValueError, match="`temperature` must be"):
        layer.sample(features, temperature=-1.0)


class Called(keras.layers.Layer):
    """NADE with two arguments, as `gradients` calls layers."""

    def __init__(self, layer):
        super().__init__(dtype="float64")
        self.layer, self.built = layer, True

    def call(self, features, frames, training=False):
        return self.layer([features, frames])


@pytest.mark.parametrize("settings", [{}, {"hidden_units": 0}, {"linear": False}])
def test_gradients_equal_finite_differences(settings):
    """Over several groups of keys, of which the memory is bounded."""
    layer, random = layer_of(settings, "float64", keys=19), np.random.default_rng(7)
    features = random.normal(size=(2, 3, 4))
    frames = random.integers(0, 2, (2, 3, 19)).astype("float64")
    _, by_weight, by_features = gradients(Called(layer), [features, frames])
    factors = projection(frames.size).reshape(frames.shape)

    def value(features):
        both = (ops.convert_to_tensor(x, "float64") for x in (features, frames))
        return float((numpy(layer([*both])) * factors).sum())

    def slope(direction, shift):
        """Of what `shift` changes, by central differences."""
        up, down = (shift(sign * STEP * direction) for sign in (1, -1))
        return (up - down) / (2 * STEP)

    direction = random.normal(size=features.shape)
    found = slope(direction, lambda change: value(features + change))
    np.testing.assert_allclose((by_features * direction).sum(), found, max(1e-6, STEP))
    weights = layer.get_weights()
    for at, (weight, gradient) in enumerate(zip(weights, by_weight, strict=True)):

        def shift(change, at=at):
            some = [w + change if i == at else w for i, w in enumerate(weights)]
            layer.set_weights(some)
            return value(features)

        direction = random.normal(size=weight.shape)
        found = slope(direction, shift)
        layer.set_weights(weights)
        np.testing.assert_allclose((gradient * direction).sum(), found, max(1e-6, STEP))


def model_of(**settings):
    frames, following = keras.Input((None, K)), keras.Input((None, K))
    x = keras.layers.Masking()(frames)
    x = GRU(4, return_sequences=True)(x)
    return keras.Model([frames, following], NADE(3, **settings)([x, following]))


@pytest.mark.parametrize("settings", [{}, {"order": [3, 0, 5, 1, 4, 2]}], ids=str)
def test_saved_and_loaded(settings, tmp_path):
    model, random = model_of(**settings), np.random.default_rng(8)
    batch = [random.integers(0, 2, (2, 5, K)).astype("float32") for _ in range(2)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(model(batch)), numpy(loaded(batch)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy):
    layer, random = NADE(5, dtype=policy), np.random.default_rng(9)
    features = random.normal(size=(3, 7, 4)).astype("float32")
    frames = random.integers(0, 2, (3, 7, K)).astype("float32")
    logits = layer([features, frames])
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    exact = NADE(5)
    exact.build([(None, None, 4), (None, None, K)])
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        numpy(logits), numpy(exact([features, frames])), atol=0.05
    )
    drawn = numpy(layer.sample(features, seed=1))
    assert set(np.unique(drawn)) <= {0, 1}


def test_masked_steps_do_not_count():
    """The loss over a batch with a masked end is that of the sequence without it."""
    model, random = model_of(), np.random.default_rng(10)
    frames = random.integers(0, 2, (2, 6, K)).astype("float32")
    frames[:, 0] = 1  # no step but the masked ones is silent
    frames[:, :, 0] = 1
    targets = random.integers(0, 2, (2, 6, K)).astype("float32")
    padded = frames.copy()
    padded[0, 4:] = 0
    model.compile(loss=losses.BernoulliNLL())
    found = model.evaluate([padded, targets], targets, verbose=0)
    nll = numpy(losses.bernoulli_nll(targets, model([frames, targets])))
    nll = nll if nll.ndim == 2 else nll.sum(axis=-1)
    count = [nll[0, :4], nll[1]]
    np.testing.assert_allclose(found, np.concatenate(count).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_units": -1}, "`hidden_units` must be"),
        ({"hidden_units": 0, "linear": False}, "the keys are independent"),
        ({"order": "random"}, "`order` must be"),
        ({"order": [0, 0, 1]}, "`order` must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NADE(**arguments)


def test_bad_inputs():
    with pytest.raises(ValueError, match="called on a list of two tensors"):
        NADE(2)(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="a permutation of 6 numbers"):
        NADE(2, order=[1, 0])([np.ones((2, 4)), np.ones((2, K))])
