"""Sampling with a joint output, with fixed notes, and with particles."""

import itertools

import keras
import numpy as np
import pytest
from oracles import array

from keras_gated import GRU, NADE, DelayLine
from keras_gated.generation import generate


def model_of(notes=4, joint=True, scale=1.0, **arguments):
    frames = keras.Input((None, notes))
    x = GRU(5, return_sequences=True)(frames)
    if joint:
        following = keras.Input((None, notes))
        inputs = [x, following]
        if "tied_units" in arguments:
            # With onsets, the first half of a frame says which keys sound.
            keys = notes // 2 if arguments.get("onsets") else notes
            inputs.append(DelayLine([0, 2])(frames[..., :keys]))
        outputs = NADE(**{"hidden_units": 3, **arguments})(inputs)
        model = keras.Model([frames, following], outputs)
    else:
        model = keras.Model(frames, keras.layers.Dense(notes)(x))
    random = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(scale * random.normal(size=weight.shape))
    return model


def log_likelihoods(model, primer, continuation):
    """By the model, of whole sequences; `[batch, steps]`."""
    whole = np.concatenate([primer, continuation], axis=1).astype("float32")
    frames, targets = whole[:, :-1], whole[:, 1:]
    logits = array(model([frames, targets] if len(model.inputs) > 1 else frames))
    each = targets * logits - np.logaddexp(0, logits)
    return each.sum(axis=-1)[:, primer.shape[1] - 1 :]


def start(batch=3, time=5, notes=4):
    return np.random.default_rng(2).integers(0, 2, (batch, time, notes))


each_model = pytest.mark.parametrize(
    "model",
    [
        {"joint": False},
        {"order": [2, 0, 3, 1]},
        {"tied_units": 3, "window": 1, "onsets": True},
    ],
    ids=str,
)


@each_model
def test_the_log_likelihood_is_that_of_the_model(model):
    model, primer = model_of(**model), start()
    found, likelihood = generate(model, primer, 20, seed=1, return_log_likelihood=True)
    expected = log_likelihoods(model, primer, found).sum(axis=1)
    np.testing.assert_allclose(likelihood, expected, 1e-4)
    alone, one = generate(model, primer[0], 20, seed=1, return_log_likelihood=True)
    assert (alone.shape, one.shape) == ((20, 4), ())


@pytest.mark.parametrize(
    ("model", "particles"),
    [({"joint": False}, 8), ({"order": [2, 0, 3, 1]}, 1), ({}, 8)],
    ids=str,
)
def test_what_is_fixed_is_kept(model, particles):
    model, primer = model_of(**model), start()
    fixed = np.random.default_rng(3).integers(-1, 2, (3, 20, 4))
    more = {"fixed": fixed, "particles": particles, "return_log_likelihood": True}
    found, likelihood = generate(model, primer, 20, seed=4, **more)
    np.testing.assert_array_equal(found[fixed >= 0], fixed[fixed >= 0])
    assert 0.05 < found[fixed < 0].mean() < 0.95
    expected = log_likelihoods(model, primer, found).sum(axis=1)
    np.testing.assert_allclose(likelihood, expected, 1e-4)
    same, _ = generate(model, primer, 20, seed=4, **more)
    np.testing.assert_array_equal(found, same)
    everything = generate(model, primer[:1], 20, fixed=found[0])
    np.testing.assert_array_equal(everything[0], found[0])


def test_temperature_zero_is_the_likelier_of_each_note():
    model, primer = model_of(), start()
    found = generate(model, primer, 12, temperature=0)
    whole = np.concatenate([primer, found], axis=1).astype("float32")
    logits = array(model([whole[:, :-1], whole[:, 1:]]))[:, primer.shape[1] - 1 :]
    np.testing.assert_array_equal(found, logits > 0)


def test_with_many_particles_samples_have_the_conditional_probabilities():
    """Two notes for three steps, of which the last is given: all 16 beginnings."""
    model, primer = model_of(notes=2, scale=4.0), start(1, 4, 2)
    fixed = np.array([[-1, -1], [-1, -1], [1, 0]])
    free = np.array(list(itertools.product([0, 1], repeat=4))).reshape(-1, 2, 2)
    whole = np.concatenate([free, np.tile(fixed[2], (16, 1, 1))], axis=1)
    primers = np.repeat(primer, 16, axis=0)
    expected = np.exp(log_likelihoods(model, primers, whole).sum(axis=1))
    expected /= expected.sum()
    count = 3000
    primers = np.repeat(primer, count, axis=0)
    frequencies = []
    for particles in (1, 32):
        found = generate(model, primers, 3, seed=5, fixed=fixed, particles=particles)
        numbers = found[:, :2].reshape(count, 4) @ [8, 4, 2, 1]
        frequencies.append(np.bincount(numbers, minlength=16) / count)
    far, near = (np.abs(some - expected).sum() for some in frequencies)
    assert near < 0.08 < 0.2 < far


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fixed": np.zeros((5, 4))}, "`fixed` must have the shape .* Received: "),
        ({"fixed": np.zeros((6, 5))}, "`fixed` must have the shape"),
        ({"fixed": np.zeros((2, 6, 4))}, "`fixed` must have the shape"),
        ({"fixed": np.full((6, 4), 2)}, "`fixed` must hold 1, 0 and -1"),
        ({"fixed": np.full((6, 4), 0.5)}, "`fixed` must hold 1, 0 and -1"),
        ({"fixed": np.full((6, 4), np.nan)}, "`fixed` must hold 1, 0 and -1"),
        ({"fixed": [["on"] * 4] * 6}, "`fixed` must hold 1, 0 and -1"),
        ({"particles": 0}, "`particles` must be"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        generate(model_of(), start(), 6, **arguments)
    assert "\n" not in str(error.value)


def test_heads_that_get_more_than_the_next_frames_are_refused():
    primer = start()
    frames, following = keras.Input((None, 4)), keras.Input((None, 4))
    features = GRU(5, return_sequences=True)(
        keras.layers.Concatenate()([frames, following])
    )
    wrong = keras.Model([frames, following], NADE(2)([features, following]))
    with pytest.raises(ValueError, match="to NADE alone, as they are"):
        generate(wrong, primer, 6)
