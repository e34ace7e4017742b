"""The mixture of Gaussians against SciPy, and where it could break."""

import keras
import numpy as np
import pytest
from differentiate import gradients, projection
from oracles import array, some
from scipy import special, stats

from keras_gated import GaussianMixture, losses, metrics
from keras_gated.mixture import gaussian_mixture_nll

BACKEND = keras.config.backend()
# On JAX and PyTorch Keras's own operations compute in float32 at most.
PRECISE = {"tensorflow": ("float64", 1e-10)}.get(BACKEND, ("float32", 1e-5))
K, E = 4, 3


def random_mixtures(shape, seed=0, log10_scale=(-1, 1), spread=1.0):
    """Parameters as the layer gives them, and apart."""
    random = np.random.default_rng(seed)
    log_weights = special.log_softmax(3 * random.normal(size=(*shape, K)), axis=-1)
    means = spread * random.normal(size=(*shape, K, E))
    log_scales = np.log(10) * random.uniform(*log10_scale, (*shape, K, E))
    flat = [part.reshape(*shape, -1) for part in (log_weights, means, log_scales)]
    return np.concatenate(flat, -1), (log_weights, means, np.exp(log_scales))


def by_scipy(events, log_weights, means, scales):
    each = stats.norm.logpdf(events[..., None, :], means, scales).sum(-1)
    return -special.logsumexp(log_weights + each, axis=-1)


def test_equals_scipy():
    dtype, tolerance = PRECISE
    parameters, apart = random_mixtures((50, 7))
    events = np.random.default_rng(1).normal(size=(50, 7, E))
    loss = losses.GaussianMixtureNLL(K, E, reduction=None, dtype=dtype)
    values = array(loss(events.astype(dtype), parameters.astype(dtype)))
    expected = by_scipy(events, *apart)
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


def test_ten_thousand_extreme_mixtures():
    """Scales from 1e-6 to 1e6, events and means as far apart."""
    parameters, apart = random_mixtures((10_000,), 2, (-6, 6), spread=1e3)
    events = 1e3 * np.random.default_rng(3).standard_t(2, size=(10_000, E))
    expected = by_scipy(events, *apart)
    values = array(
        gaussian_mixture_nll(
            keras.ops.cast(events, "float32"),
            keras.ops.cast(parameters, "float32"),
            K,
            E,
        )
    )
    assert np.isfinite(values).all()
    # A float32 has seven digits of an event a million deviations away.
    close = np.isclose(values, expected, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.97
    if BACKEND == "tensorflow":
        values = array(gaussian_mixture_nll(events, parameters, K, E))
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)


def test_gradients_of_extreme_mixtures_are_finite():
    parameters, _ = random_mixtures((2_000,), 4, (-6, 6))
    events = np.random.default_rng(5).normal(size=(2_000, E)).astype("float32")

    class Total(keras.layers.Layer):
        def call(self, parameters, training=None):
            return gaussian_mixture_nll(events, parameters, K, E)

    total = Total()
    total.build(parameters.shape)
    value, _, gradient = gradients(total, [parameters.astype("float32")])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_gradient_agrees_with_finite_differences():
    """Of the layer's weights and its input, along random directions."""
    dtype, _ = PRECISE
    if dtype != "float64":
        pytest.skip("in float64, on TensorFlow; the formula is tested everywhere")
    random = np.random.default_rng(6)
    layer = GaussianMixture(K, E, min_scale=0.05, dtype=dtype)
    x = random.normal(size=(2, 5, 7)).astype(dtype)
    layer.build(x.shape)
    events = random.normal(size=(2, 5, E)).astype(dtype)

    class Total(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype=dtype)
            self.head = layer

        def call(self, x, training=None):
            return gaussian_mixture_nll(events, self.head(x), K, E)

    model = Total()
    model.build(x.shape)
    _, by_weight, by_input = gradients(model, [x])
    weights = [array(w) for w in layer.weights]
    assert len(by_weight) == len(weights) == 2
    step = 1e-5
    directions = [random.normal(size=w.shape) for w in weights]
    x_direction = random.normal(size=x.shape)

    def along(t):
        for weight, start, way in zip(layer.weights, weights, directions, strict=True):
            weight.assign((start + t * way).astype(dtype))
        return gradients(model, [(x + t * x_direction).astype(dtype)])[0]

    numeric = (along(step) - along(-step)) / (2 * step)
    exact = (by_input * x_direction).sum()
    for gradient, way in zip(by_weight, directions, strict=True):
        exact += (gradient * way).sum()
    assert numeric == pytest.approx(exact, rel=1e-6)


def test_gradient_is_that_of_the_formula():
    """With responsibilities r: -r, -r (y - m) / s^2 and r (1 - (y - m)^2 / s^2)."""
    parameters, (log_weights, means, scales) = random_mixtures((40,), 12)
    events = np.random.default_rng(13).normal(size=(40, E))
    nll = by_scipy(events, log_weights, means, scales)
    each = stats.norm.logpdf(events[:, None], means, scales).sum(-1)
    share = np.exp(log_weights + each + nll[:, None])
    z = (events[:, None] - means) / scales
    expected = [-share, -share[..., None] * z / scales, share[..., None] * (1 - z**2)]
    expected = np.concatenate([part.reshape(40, -1) for part in expected], axis=-1)
    expected *= projection((40,))[:, None]

    class Total(keras.layers.Layer):
        def call(self, parameters, training=None):
            return gaussian_mixture_nll(events.astype("float32"), parameters, K, E)

    total = Total()
    total.build(parameters.shape)
    _, _, gradient = gradients(total, [parameters.astype("float32")])
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_unpack_and_floor():
    layer = GaussianMixture(K, E, min_scale=0.25)
    x = 100 * np.random.default_rng(7).normal(size=(2, 5, 7)).astype("float32")
    log_weights, means, scales = map(array, layer.unpack(layer(x)))
    assert log_weights.shape == (2, 5, K)
    assert means.shape == scales.shape == (2, 5, K, E)
    np.testing.assert_allclose(np.exp(log_weights).sum(-1), 1, rtol=1e-5)
    assert scales.min() == pytest.approx(0.25, rel=1e-5)
    assert layer.compute_output_shape((2, 5, 7)) == (2, 5, K * (1 + 2 * E))
    with pytest.raises(ValueError, match="are 28 numbers"):
        layer.unpack(np.zeros((2, 27)))


def test_mean_and_samples_have_the_moments_of_the_mixture():
    parameters, (log_weights, means, scales) = random_mixtures((1,), 8)
    layer = GaussianMixture(K, E)
    weights = np.exp(log_weights[0])
    mean = weights @ means[0]
    second = np.einsum("k,kd,ke->de", weights, means[0], means[0])
    second += np.diag(weights @ scales[0] ** 2)
    covariance = second - np.outer(mean, mean)
    np.testing.assert_allclose(array(layer.mean(parameters))[0], mean, rtol=1e-5)
    many = np.repeat(parameters, 100_000, axis=0).astype("float32")
    draws = array(layer.sample(many, seed=keras.random.SeedGenerator(3)))
    error = np.sqrt(np.diag(covariance) / len(draws))
    assert (np.abs(draws.mean(0) - mean) < 5 * error).all()
    np.testing.assert_allclose(
        np.cov(draws.T), covariance, atol=0.03 * np.diag(covariance).max()
    )


def test_temperature_and_mode():
    # A narrow, light component and a broad, heavy one: dense here, likely there.
    log_weights, means = np.log([0.3, 0.7]), [[5.0], [-5.0]]
    log_scales = np.log([[0.01], [2.0]])
    parameters = np.concatenate([np.ravel(p) for p in (log_weights, means, log_scales)])
    many = np.repeat(parameters[None], 20_000, axis=0).astype("float32")
    layer = GaussianMixture(2, 1)
    assert array(layer.mode(many[:1]))[0, 0] == pytest.approx(5, abs=0.01)
    seed = keras.random.SeedGenerator(4)
    cold = array(layer.sample(many, temperature=0, seed=seed))
    np.testing.assert_allclose(cold, -5)
    warm = array(layer.sample(many, temperature=0.5, seed=seed))
    heavy = warm[:, 0] < 0
    assert heavy.mean() == pytest.approx(0.49 / 0.58, abs=0.02)
    assert warm[heavy].std() == pytest.approx(2 * np.sqrt(0.5), rel=0.05)


def test_an_integer_seed_repeats_a_draw_and_makes_independent_noises():
    layer = GaussianMixture(3, 2)
    gumbel, normal = map(array, layer.noise((20_000,), seed=5))
    np.testing.assert_array_equal(gumbel, array(layer.noise((20_000,), seed=5)[0]))
    correlation = np.corrcoef(gumbel.T, normal.T)[:3, 3:]
    assert np.abs(correlation).max() < 4 / np.sqrt(20_000)


def test_metric_is_the_mean_over_steps_or_sequences():
    parameters, apart = random_mixtures((3, 6), 9)
    events = np.random.default_rng(10).normal(size=(3, 6, E))
    weights = np.array([[1] * 6, [1] * 2 + [0] * 4, [1] * 5 + [0]], "float32")
    nats = by_scipy(events, *apart)
    by_step = (nats * weights).sum() / weights.sum()
    by_sequence = ((nats * weights).sum(1) / weights.sum(1)).mean()
    for average, expected in (("step", by_step), ("sequence", by_sequence)):
        metric = metrics.EventNLL(K, E, average, std=0.1)
        for rows in (slice(0, 1), slice(1, 3)):
            metric.update_state(events[rows], parameters[rows], weights[rows])
        # Events ten times as small are ten times as dense in each dimension.
        assert float(metric.result()) == pytest.approx(
            expected + E * np.log(0.1), rel=1e-5
        )
        again = metrics.EventNLL.from_config(metric.get_config())
        assert (again.average, again.std) == (average, 0.1)
    with pytest.raises(ValueError, match="takes events of shape"):
        metric.update_state(events[..., :2], parameters)


@pytest.mark.parametrize("policy", some(["float32", "mixed_float16", "mixed_bfloat16"]))
def test_trains_and_loads(policy, tmp_path):
    if BACKEND == "jax" and policy != "float32":
        pytest.skip("slow; tested on the other backends")
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            keras.layers.Dense(8, "tanh", dtype=policy),
            GaussianMixture(K, E, dtype=policy, event_mean=0.5, event_std=2),
        ]
    )
    assert model.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    model.compile(
        keras.optimizers.Adam(0.01),
        losses.GaussianMixtureNLL(K, E),
        weighted_metrics=[metrics.EventNLL(K, E, name="nll")],
    )
    random = np.random.default_rng(11)
    x = random.normal(size=(64, 5, 4)).astype("float32")
    y = x[..., :E] + 0.1 * random.normal(size=(64, 5, E)).astype("float32")
    curve = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["nll"]
    assert curve[-1] < curve[0] - 1
    predicted = model.predict(x, verbose=0)
    assert predicted.dtype == "float32"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), predicted, atol=1e-6)
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(0, 3), "`components` must be a positive integer"),
        (lambda: GaussianMixture(3, 2.5), "`event_dim` must be a positive integer"),
        (
            lambda: GaussianMixture(3, 2, min_scale=0),
            "`min_scale` must be a finite",
        ),
        (
            lambda: GaussianMixture(3, 2, event_std=0),
            "`event_std` must be a finite number above 0",
        ),
        (
            lambda: GaussianMixture(3, 2).sample(np.zeros((1, 15)), temperature=-1),
            "`temperature` must be a finite",
        ),
        (lambda: losses.GaussianMixtureNLL(0, 3), "`components` must be"),
        (lambda: metrics.EventNLL(2, 3, std=0), "`std` must be"),
        (lambda: metrics.EventNLL(2, 3, "batch"), "`average` must be"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
