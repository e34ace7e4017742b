"""NADE: an exact joint distribution over the keys of a frame."""

import itertools

import keras
import numpy as np
import pytest
from differentiate import gradients, projection
from keras import ops
from oracles import array

from keras_gated import GRU, NADE, DelayLine, losses

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
    {"tied_units": 3, "window": 2, "dropout": 0.0},
    {"tied_units": 20, "order": "ascending", "hidden_units": 0, "dropout": 0.0},
    {"tied_units": 3, "onsets": True, "order": "ascending", "dropout": 0.0},
    {"onsets": True, "linear": False},
]
ROWS = 2  # of what is known before the frame, for tied units and onsets
each_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def layer_of(settings, dtype="float32", features=4, keys=K, seed=0):
    """A layer whose weights are all far from zero."""
    layer = NADE(**{"hidden_units": 5, **settings}, dtype=dtype)
    shapes = [(None, features), (None, keys)]
    if layer.tied_units or layer.onsets:
        shapes.append((None, ROWS * keys // (1 + layer.onsets)))
    layer.build(shapes)
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(size=w.shape) for w in layer.weights])
    return layer


def all_frames(keys=K):
    return np.array(list(itertools.product([0, 1], repeat=keys)), "float64")


def known_of(layer, shape, keys=K, seed=11):
    """What is known before frames, if the layer takes it; all have sounded before."""
    if not (layer.tied_units or layer.onsets):
        return []
    random, size = np.random.default_rng(seed), keys // (1 + layer.onsets)
    known = random.integers(0, 2, (*shape, ROWS * size)).astype("float32")
    known[..., :size] = 1
    return [known]


def log_probabilities(layer, features, frames, known=()):
    parts = [np.tile(x, (len(frames), 1)) for x in (features, *known)]
    parts.insert(1, frames)
    logits = array(layer(parts))
    return -(np.logaddexp(0, logits) - frames * logits).sum(axis=-1), logits


@each_setting
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("float64", 1e-12)])
def test_probabilities_of_all_frames_sum_to_one(settings, dtype, atol):
    layer = layer_of(settings, dtype)
    features = np.random.default_rng(1).normal(size=4).astype(dtype)
    frames, known = all_frames().astype(dtype), known_of(layer, ())
    found, logits = log_probabilities(layer, features, frames, known)
    assert logits.dtype == dtype
    np.testing.assert_allclose(np.exp(found.astype("float64")).sum(), 1, atol=atol)


@each_setting
def test_logits_depend_on_the_keys_before_them_alone(settings):
    layer, random = layer_of(settings), np.random.default_rng(2)
    order = layer._places
    features, frames = random.normal(size=(1, 4)), random.integers(0, 2, (1, K))
    known = known_of(layer, (1,))
    before = array(layer([features, frames, *known]))
    for place, key in enumerate(order):
        other = frames.copy()
        other[0, key] = 1 - other[0, key]
        changed = array(layer([features, other, *known])) != before
        impossible = before == -1e4
        assert not (changed & ~impossible)[0, order[: place + 1]].any()
        assert changed[0, order[place + 1 :]].all() or layer.onsets


def test_equations():
    """The docstring's sums, key by key, in NumPy; from silence to all keys at once."""
    keys, random = 19, np.random.default_rng(3)
    order = random.permutation(keys).tolist()
    layer = layer_of({"order": order}, "float64", keys=keys)
    c, C, A, b, B, W, V = (array(w) for w in layer.weights)
    shares = np.array([0, 0.1, 0.3, 0.5, 0.9, 1])[:, None]
    frames = (random.random((6, keys)) < shares).astype("float64")
    features = random.normal(size=(6, 4))
    expected = np.empty_like(frames)
    for row, (h, y) in enumerate(zip(features, frames, strict=True)):
        before = []
        for j in order:
            a = b + h @ B + sum((W[k] * y[k] for k in before), np.zeros(5))
            linear = sum(A[k, j] * y[k] for k in before)
            hidden = V[j] @ (1 / (1 + np.exp(-a)))
            expected[row, j] = c[j] + h @ C[:, j] + linear + hidden
            before.append(j)
    both = [ops.convert_to_tensor(x, "float64") for x in (features, frames)]
    np.testing.assert_allclose(array(layer(both)), expected, EXACT, EXACT)
    for row in range(6):  # whatever other frames need
        alone = array(layer([x[row] for x in both]))
        np.testing.assert_allclose(alone, expected[row], EXACT, EXACT)


@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_equations_of_tied_units(order):
    """With onsets: two columns for each of three keys, and three rows known before."""
    settings = {"tied_units": 4, "window": 2, "order": order, "onsets": True}
    layer = layer_of({**settings, "hidden_units": 0, "linear": False}, "float64")
    random, (c, C, PQ, U, u, v, own) = (
        np.random.default_rng(3),
        map(array, layer.weights),
    )
    h, y = random.normal(size=4), random.integers(0, 2, (2, 3)).astype("float64")
    x = random.integers(0, 2, (ROWS, 3)).astype("float64")
    y[0], x[0] = 1, 1  # nothing is impossible
    expected = c + h @ C
    for mark, j in itertools.product(range(2), range(3)):
        units = (u[j] + h @ U)[4 * mark : 4 * mark + 4]
        for key, d in ((j + d, d) for d in range(-2, 3) if 0 <= j + d < 3):
            P = PQ[d + 2, :, 4 * mark : 4 * mark + 4]
            units = units + x[:, key] @ P[:ROWS]
            if d != 0 and (d > 0) == (order == "descending"):
                units = units + y[:, key] @ P[ROWS:]
            elif d == 0 and mark == 1:
                units = units + y[0, key] * P[ROWS]
        output = (v + own[j])[4 * mark : 4 * mark + 4]
        expected[3 * mark + j] += np.maximum(units, 0) @ output
    parts = (
        ops.convert_to_tensor(part.reshape(1, -1), "float64") for part in (h, y, x)
    )
    np.testing.assert_allclose(array(layer([*parts]))[0], expected, EXACT)


@each_setting
def test_samples_have_the_probabilities(settings):
    from scipy.stats import chi2

    layer, count = layer_of(settings), 100_000
    features = np.random.default_rng(4).normal(size=4).astype("float32")
    known = known_of(layer, ())
    many = [np.tile(x, (count, 1)) for x in (features, *known)]
    drawn = array(layer.sample(many[0], seed=5, known=many[1] if known else None))
    frames = all_frames().astype("float32")
    found, _ = log_probabilities(layer, features, frames, known)
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
    known = known_of(layer, (7, 9))
    given = (fixed, *known)
    frames, logits = map(array, layer.from_noise(features, noise, 1.0, *given))
    assert set(np.unique(frames)) == {0, 1}
    np.testing.assert_array_equal(frames[fixed >= 0], fixed[fixed >= 0])
    expected = array(layer([features, frames, *known]))
    np.testing.assert_allclose(logits, expected, 1e-4, 1e-5)
    free = fixed < 0
    np.testing.assert_array_equal(frames[free], (logits > array(noise))[free])
    given = {"known": known[0]} if known else {}
    likely = array(layer.sample(features, temperature=0.0, **given))
    expected = array(layer([features, likely, *known])) > 0
    np.testing.assert_array_equal(likely, expected)
    with pytest.raises(ValueError, match="`temperature` must be"):
        layer.sample(features, temperature=-1.0)


class Called(keras.layers.Layer):
    """NADE with two arguments, as `gradients` calls layers."""

    def __init__(self, layer, known):
        super().__init__(dtype="float64")
        self.layer, self.known, self.built = layer, known, True

    def call(self, features, frames, training=False):
        return self.layer([features, frames, *self.known], training=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden_units": 0},
        {"linear": False},
        {"tied_units": 19, "window": 3, "dropout": 0.0},
    ],
    ids=str,
)
def test_gradients_equal_finite_differences(settings):
    """Over several groups of keys and units, of which the memory is bounded."""
    if settings.get("tied_units") and STEP > 1e-3:
        pytest.skip("relu has kinks, and float32 steps across them")
    layer, random = layer_of(settings, "float64", keys=19), np.random.default_rng(7)
    features = random.normal(size=(2, 3, 4))
    frames = random.integers(0, 2, (2, 3, 19)).astype("float64")
    known = [x.astype("float64") for x in known_of(layer, (2, 3), 19)]
    called = Called(layer, known)
    _, by_weight, by_features = gradients(called, [features, frames])
    factors = projection(frames.size).reshape(frames.shape)

    def value(features):
        parts = (features, frames, *known)
        parts = [ops.convert_to_tensor(x, "float64") for x in parts]
        return float((array(layer(parts)) * factors).sum())

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
    np.testing.assert_array_equal(array(model(batch)), array(loaded(batch)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="exports are TensorFlow's"
)
@pytest.mark.slow
def test_exported_models_give_the_same(tmp_path):
    import tensorflow as tf

    keys = 19  # more are on than what is computed at once
    frames, following = keras.Input((None, keys)), keras.Input((None, keys))
    x = GRU(4, return_sequences=True)(frames)
    known = DelayLine([0, 2])(frames)
    head = NADE(3, tied_units=3, window=2)
    model = keras.Model([frames, following], head([x, following, known]))
    random = np.random.default_rng(8)
    for weight in model.trainable_variables:
        weight.assign(random.normal(size=weight.shape))
    batch = [random.integers(0, 2, (2, 5, keys)).astype("float32") for _ in range(2)]
    expected = array(model(batch))
    np.testing.assert_allclose(array(model(batch, training=False)), expected, 1e-6)
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(batch), expected, 1e-5, 1e-6)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [given.name for given in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, batch, strict=True)))
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


@each_setting
def test_training_computes_the_same(settings):
    """Recomputed for the gradient, as inference is not; without dropout."""
    layer, random = layer_of(settings), np.random.default_rng(12)
    features = random.normal(size=(3, 7, 4)).astype("float32")
    frames = random.integers(0, 2, (3, 7, K)).astype("float32")
    inputs = [features, frames, *known_of(layer, (3, 7))]
    found = array(layer(inputs, training=True))
    np.testing.assert_allclose(found, array(layer(inputs)), 1e-5, 1e-5)


def test_compiled_models_train_as_those_that_are_not():
    """More keys are on than what is computed at once, and in some frames none."""
    random, keys, trained = np.random.default_rng(12), 19, []
    shares = np.linspace(0, 1, 7)[:, None]
    batch = [(random.random((4, 7, keys)) < shares).astype("float32") for _ in "12"]
    ways = [{"run_eagerly": True}, {}]
    if keras.config.backend() == "tensorflow":
        ways.append({"jit_compile": True})
    for way in ways:
        keras.utils.set_random_seed(1)
        inputs = [keras.Input((None, keys)) for _ in batch]
        model = keras.Model(inputs, NADE(3)(inputs))
        model.compile("sgd", losses.BernoulliNLL(), **way)
        model.fit(batch, batch[1], verbose=0)
        trained.append(model.get_weights())
    for others in trained[1:]:
        for expected, found in zip(trained[0], others, strict=True):
            np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


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
        array(logits), array(exact([features, frames])), atol=0.05
    )
    drawn = array(layer.sample(features, seed=1))
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
    nll = array(losses.bernoulli_nll(targets, model([frames, targets])))
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
