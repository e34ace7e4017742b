"""Sampling: step by step is what the whole sequence gives, and follows the odds."""

import keras
import numpy as np
import pytest
from oracles import ROWS, array

from keras_gated.generation import generate

NOTES = 6


def model_of(*cells, **dense):
    """A functional model of recurrent layers in a row, all weights random."""
    x = inputs = keras.Input((None, NOTES))
    for cell in cells:
        x = keras.layers.RNN(cell, return_sequences=True)(x)
        x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(NOTES, **dense)(x))
    random = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(1.5 * random.normal(size=weight.shape))
    return model


def fed_back(model, start, steps):
    """What a model plays without chance, from its logits over whole sequences.

    The sequences have their full length from the start: what stands to the right
    cannot reach a step, and one shape is compiled once.
    """
    past = start.shape[1]
    frames = np.zeros((len(start), past + steps, NOTES), "float32")
    frames[:, :past] = start
    for t in range(past, past + steps):
        frames[:, t] = array(model(frames))[:, t - 1] > 0
    return frames[:, past:]


def primer(batch=(), time=5):
    return np.random.default_rng(2).integers(0, 2, (*batch, time, NOTES))


# The loop compiles for seconds on JAX, whichever cell is in it.
SOME = ROWS[1::3] if keras.config.backend() == "jax" else ROWS


@pytest.mark.parametrize("row", SOME, ids=lambda row: row.id)
def test_without_chance_equals_feeding_back_the_whole_sequence(row):
    model = model_of(row.make(7))
    start = primer(batch=(2,))
    continuation = generate(model, start, 12, temperature=0)
    assert continuation.shape == (2, 12, NOTES)
    assert continuation.dtype == np.uint8
    np.testing.assert_array_equal(continuation, fed_back(model, start, 12))
    assert 0 < continuation.mean() < 1


def test_nested_stacks_and_layers_in_a_row():
    cells = [row.make(4) for row in ROWS[1:4]]
    model = model_of(cells, ROWS[0].make(5), keras.layers.GRUCell(5))
    start = primer()
    continuation = generate(model, start, 8, temperature=0)
    np.testing.assert_array_equal(continuation, fed_back(model, start[None], 8)[0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_probabilities(temperature):
    """A model that forgets gives independent samples of known odds."""
    bias = np.array([-4, -1, 0, 0.5, 2, 30])
    model = model_of(ROWS[0].make(3))
    dense = model.layers[-1]
    dense.set_weights([np.zeros((3, NOTES)), bias])
    samples = generate(model, primer(batch=(20,)), 500, temperature, seed=4)
    p = 1 / (1 + np.exp(-bias / temperature))
    deviation = np.sqrt(p * (1 - p) / 10_000)
    assert (abs(samples.mean((0, 1)) - p) < 4.5 * deviation + 1e-9).all()


def test_seed():
    model = model_of(ROWS[3].make(4))
    first = generate(model, primer(), 40, seed=1)
    np.testing.assert_array_equal(first, generate(model, primer(), 40, seed=1))
    assert (first != generate(model, primer(), 40, seed=2)).any()
    assert (generate(model, primer(), 40) != generate(model, primer(), 40)).any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy):
    cell = ROWS[1].make(7, dtype=policy)
    layer = keras.layers.RNN(cell, return_sequences=True, dtype=policy)
    dense = keras.layers.Dense(NOTES, dtype=policy)
    model = keras.Sequential([keras.Input((None, NOTES)), layer, dense])
    assert generate(model, primer(), 8, seed=1).shape == (8, NOTES)


def test_a_stateful_model_keeps_its_states():
    layer = keras.layers.RNN(ROWS[3].make(4), return_sequences=True, stateful=True)
    model = keras.Sequential(
        [keras.Input(batch_shape=(1, None, NOTES)), layer, keras.layers.Dense(NOTES)]
    )
    first = generate(model, primer(), 12, seed=1)
    model(np.ones((1, 3, NOTES)))
    before = array(layer.states[0]).copy()
    assert np.abs(before).max() > 0
    np.testing.assert_array_equal(generate(model, primer(), 12, seed=1), first)
    np.testing.assert_array_equal(array(layer.states[0]), before)


def test_the_model_is_left_as_it_was():
    model = model_of(ROWS[3].make(4, weight_noise=0.1))
    before = [array(w).copy() for w in model.weights]
    links = [len(layer._inbound_nodes) for layer in model.layers]
    generate(model, primer(), 4, seed=1)
    assert [len(layer._inbound_nodes) for layer in model.layers] == links
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(array(weight), value)


def test_bad_arguments():
    model = model_of(ROWS[0].make(3))
    for bad in (np.zeros(NOTES), np.zeros((4, NOTES + 1)), np.zeros((0, NOTES))):
        with pytest.raises(ValueError, match="`primer` must have the shape"):
            generate(model, bad, 4)
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match="`steps` must be a positive integer"):
            generate(model, primer(), bad)
    with pytest.raises(ValueError, match="`primer` must hold zeros and ones"):
        generate(model, 64 * primer(), 4)
    for bad in (-1, float("nan"), float("inf"), "a"):
        with pytest.raises(ValueError, match="`temperature` must be"):
            generate(model, primer(), 4, temperature=bad)


def test_models_that_cannot_go_step_by_step():
    backwards = keras.layers.RNN(
        ROWS[0].make(NOTES), go_backwards=True, return_sequences=True
    )
    both = keras.layers.Bidirectional(
        keras.layers.RNN(ROWS[0].make(NOTES), return_sequences=True), merge_mode="sum"
    )
    for layer in (backwards, both):
        model = keras.Sequential([keras.Input((None, NOTES)), layer])
        with pytest.raises(ValueError, match="reads sequences backwards"):
            generate(model, primer(), 4)
    inner = keras.Sequential([keras.Input((None, NOTES)), keras.layers.Dense(NOTES)])
    model = keras.Sequential([keras.Input((None, NOTES)), inner])
    with pytest.raises(ValueError, match="A model within a model"):
        generate(model, primer(), 4)
    for layer in (
        keras.layers.Conv1D(NOTES, 3, padding="causal"),
        keras.layers.RNN(ROWS[0].make(NOTES)),
    ):
        model = keras.Sequential([keras.Input((None, NOTES)), layer])
        with pytest.raises(ValueError, match="looks from one step at another"):
            generate(model, primer(time=1), 4)
