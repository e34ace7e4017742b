"""Sampling from models that are told something of each step besides."""

import itertools

import keras
import numpy as np
import pytest
from oracles import array, some

from keras_gated import GRU, NADE, RollEncoding
from keras_gated.generation import generate

NOTES, SIZE, PRIMER, STEPS = 4, 3, 5, 12


def model_of(joint, told=True, onsets=False):
    frames = keras.Input((None, NOTES))
    about = keras.Input((None, SIZE))
    x = keras.layers.Concatenate()([frames, about]) if told else frames
    x = GRU(5, return_sequences=True)(x)
    x = keras.layers.Concatenate()([x, about]) if told else x
    inputs = [frames]
    if joint:
        following = keras.Input((None, NOTES))
        inputs.append(following)
        known = [frames] if onsets else []
        outputs = NADE(3, onsets=onsets)([x, following, *known])
    else:
        outputs = keras.layers.Dense(NOTES)(x)
    model = keras.Model([*inputs, about] if told else inputs, outputs)
    random = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(random.normal(size=weight.shape))
    return model


def given(batch=3):
    random = np.random.default_rng(2)
    primer = random.integers(0, 2, (batch, PRIMER, NOTES))
    return primer, random.normal(size=(batch, PRIMER + STEPS, SIZE))


def log_likelihoods(model, primer, continuation, features):
    """Of whole sequences, as `next_step_dataset` gives them."""
    whole = np.concatenate([primer, continuation], axis=1).astype("float32")
    frames, targets = whole[:, :-1], whole[:, 1:]
    parts = [frames, targets] if len(model.inputs) == 3 else [frames]
    logits = array(model([*parts, features[:, 1:].astype("float32")]))
    each = targets * logits - np.logaddexp(0, logits)
    return each.sum(axis=-1)[:, PRIMER - 1 :].sum(axis=1)


@pytest.mark.parametrize(
    ("joint", "particles"), some(itertools.product([False, True], [1, 4]), 0)
)
def test_steps_are_told_what_is_known_of_them(joint, particles):
    """The likelihood is that of teacher forcing, which tells the same."""
    model, (primer, features) = model_of(joint), given()
    more = {"seed": 1, "particles": particles, "return_log_likelihood": True}
    found, likelihood = generate(model, primer, STEPS, features=features, **more)
    expected = log_likelihoods(model, primer, found, features)
    np.testing.assert_allclose(likelihood, expected, 1e-4)
    others = np.flip(features, axis=2)
    changed, _ = generate(model, primer, STEPS, features=others, **more)
    assert (changed != found).any()
    # One for all sequences, or one for each.
    same, _ = generate(model, primer, STEPS, features=features[0], **more)
    copies = np.repeat(features[:1], 3, axis=0)
    each, _ = generate(model, primer, STEPS, features=copies, **more)
    np.testing.assert_array_equal(same, each)
    one, _ = generate(model, primer[0], STEPS, features=features[0], **more)
    assert one.shape == (STEPS, NOTES)


def test_keys_are_struck_again_where_that_is_possible():
    """Two keys with onsets, told of each step, some of them fixed."""
    keras.backend.clear_session()
    model, (primer, features) = model_of(True, onsets=True), given()
    keras.backend.clear_session()  # new layers have names like those of the model
    primer[..., 2:] = 0
    fixed = np.random.default_rng(3).integers(-1, 2, (3, STEPS, NOTES))
    before = np.concatenate([primer[:, -1:, :2], fixed[:, :-1, :2]], axis=1)
    fixed[..., 2:][(fixed[..., :2] < 1) | (before < 1)] = -1
    found, likelihood = generate(
        *(model, primer, STEPS),
        **{"seed": 1, "fixed": fixed, "features": features},
        return_log_likelihood=True,
    )
    np.testing.assert_array_equal(found[fixed >= 0], fixed[fixed >= 0])
    keys = np.concatenate([primer[:, -1:], found], axis=1)[..., :2]
    possible = keys[:, 1:] & keys[:, :-1] > 0
    assert not found[..., 2:][~possible].any()
    assert 0 < found[..., 2:][possible].mean() < 1
    expected = log_likelihoods(model, primer, found, features)
    np.testing.assert_allclose(likelihood, expected, 1e-4)


@pytest.mark.parametrize("joint", [False, True])
def test_errors_say_what_is_missing(joint):
    model, (primer, features) = model_of(joint), given()
    for wrong, message in (
        (None, r"give `features` of the shape \(17, 3\)"),
        (features[:, 1:], r"must have the shape \(17, 3\)"),
        (features[:2], r"or \(3, 17, 3\). Received: features.shape=\(2, 17, 3\)"),
        (features[..., :2], "Received"),
        (np.nan * features, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(model, primer, STEPS, features=wrong)
    with pytest.raises(ValueError, match="no input of features; leave out"):
        generate(model_of(joint, told=False), primer, STEPS, features=features)


def test_a_model_file_says_what_its_frames_are(tmp_path):
    encoding = RollEncoding(4, onsets=True, features=["key", "meter"])
    model = keras.Sequential([keras.Input((None, 176)), encoding])
    model.save(tmp_path / "model.keras")
    found = RollEncoding.of(keras.saving.load_model(tmp_path / "model.keras"))
    assert found.onsets is True
    assert found.features == ("key", "meter")
    before = {"steps_per_quarter": "2", "transpose": 0}  # of older files
    assert RollEncoding.from_config(before).features == ()
    for wrong in ({"onsets": 2}, {"features": ["tempo"]}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            RollEncoding(**wrong)
