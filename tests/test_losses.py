"""The Bernoulli NLL against SciPy, and what its reduction counts."""

import keras
import numpy as np
import pytest
from oracles import array
from scipy import stats

from keras_gated.losses import BernoulliNLL


def batch(seed=0, shape=(3, 5, 88)):
    random = np.random.default_rng(seed)
    targets = (random.random(shape) < 0.1).astype("float32")
    logits = random.normal(-2, 3, shape).astype("float32")
    weights = (random.random(shape[:2]) < 0.6).astype("float32")
    return targets, logits, weights


def scipy_nll(targets, logits):
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    return -stats.bernoulli.logpmf(targets, p).sum(-1)


def test_one_value_a_step():
    targets, logits, _ = batch()
    values = array(BernoulliNLL(reduction=None)(targets, logits))
    assert values.shape == (3, 5)
    np.testing.assert_allclose(values, scipy_nll(targets, logits), rtol=1e-5)


def test_default_reduction_is_the_mean_over_steps_that_count():
    targets, logits, weights = batch()
    expected = (scipy_nll(targets, logits) * weights).sum() / weights.sum()
    loss = BernoulliNLL()(targets, logits, sample_weight=weights)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    nothing = BernoulliNLL()(targets, logits, sample_weight=np.zeros_like(weights))
    assert float(nothing) == 0


def test_extreme_logits_stay_finite_and_half_precision_computes_in_full():
    targets = np.array([[[0, 1, 0, 1.0]]])
    logits = np.array([[[-1e4, 1e4, 1e4, -1e4]]])
    assert float(BernoulliNLL()(targets, logits)) == pytest.approx(2e4)
    targets, logits, _ = batch()
    half = keras.ops.cast(logits, "float16")
    loss = BernoulliNLL()(targets, half)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = scipy_nll(targets, array(keras.ops.cast(half, "float32"))).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_serialises():
    loss = BernoulliNLL(reduction="sum", name="a_name")
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert isinstance(revived, BernoulliNLL)
    assert (revived.reduction, revived.name) == ("sum", "a_name")
