"""Sampling: step by step is what the whole sequence gives, and follows the odds."""

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from oracles import ROWS, array
from scipy import stats

from keras_gated import GRU, GaussianMixture
from keras_gated.generation import generate, generate_audio, stream_audio

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


# The other cells are in the stacks below.
@pytest.mark.parametrize("row", ROWS[4:], ids=lambda row: row.id)
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
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="`steps` must be a positive integer"):
            generate(model, primer(), bad)
    for bad in (-1, 2**32, 0.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer from 0"):
            generate(model, primer(), 4, seed=bad)
    for bad in (None, "a model", keras.layers.Dense(NOTES)):
        with pytest.raises(ValueError, match="`model` must be a Keras model"):
            generate(bad, primer(), 4)
    with pytest.raises(ValueError, match="`primer` must hold zeros and ones"):
        generate(model, 64 * primer(), 4)
    for bad in (-1, float("nan"), float("inf"), "a"):
        with pytest.raises(ValueError, match="`temperature` must be"):
            generate(model, primer(), 4, temperature=bad)


def test_numbers_of_numpy_are_numbers():
    model = model_of(ROWS[0].make(3))
    expected = generate(model, primer(), 4, 0.5, 1)
    numbers = np.int64(4), np.float32(0.5), np.int8(1)
    np.testing.assert_array_equal(generate(model, primer(), *numbers), expected)


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
        with pytest.raises(
            ValueError, match="only its recurrent layers may combine steps"
        ):
            generate(model, primer(time=1), 4)


# Sound


def model_of_sound(frame, event, *layers, components=3, **arguments):
    mixture = GaussianMixture(components, event, **arguments)
    model = keras.Sequential([keras.Input((None, frame)), *layers, mixture])
    random = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(0.5 * random.normal(size=weight.shape))
    return model


def waves(*shape):
    return np.random.default_rng(4).normal(size=shape).astype("float32")


def went_on(model, primer, noise, temperature):
    """What a model goes on with, from its parameters over whole sequences.

    In NumPy, but for the model; with the zeros to the right as in `fed_back`.
    """
    mixture = model.layers[-1]
    length, (K, E) = model.input_shape[-1], (mixture.components, mixture.event_dim)
    past = primer.shape[1]
    sound = np.zeros((len(primer), past + len(noise[0]) * E), "float32")
    sound[:, :past] = (primer - mixture.event_mean) / mixture.event_std
    rows = np.arange(len(primer))
    for n, (gumbel, normal) in enumerate(zip(*noise, strict=True)):
        frames = sliding_window_view(sound, length, axis=1)
        frames = frames[:, (past - length) % E :: E]
        parameters = array(model(frames))[:, (past - length) // E + n]
        log_weights, means, log_scales = np.split(parameters, [K, K + K * E], -1)
        which = (log_weights + temperature * gumbel[:, 0]).argmax(-1)
        mean, log_scale = (
            part.reshape(-1, K, E)[rows, which] for part in (means, log_scales)
        )
        event = mean + np.sqrt(temperature) * np.exp(log_scale) * normal[:, 0]
        sound[:, past + n * E : past + (n + 1) * E] = event
    return mixture.event_std * sound[:, past:] + mixture.event_mean


@pytest.mark.parametrize(
    ("row", "frame", "event", "time", "batch", "temperature"),
    [(ROWS[1], 7, 3, 18, (), 1.0), (ROWS[3], 3, 5, 3, (2,), 0.5)],
    ids=["frames overlap", "frames shorter than events"],
)
def test_a_stream_is_the_whole_and_the_loop_over_whole_sequences(
    row, frame, event, time, batch, temperature, monkeypatch
):
    """The noise is the same for all three, whatever the blocks it is drawn in."""
    model = model_of_sound(
        frame,
        event,
        keras.layers.RNN(row.make(5), return_sequences=True),
        event_mean=0.3,
        event_std=2.5,
    )
    primer = 0.3 + 2.5 * waves(*batch, time)
    random = np.random.default_rng(5)
    size = (6, primer[..., 0].size, 1)
    noise = random.gumbel(size=(*size, 3)), random.normal(size=(*size, event))
    drawn, traced = 0, 0

    def given(self, shape, seed=None):
        nonlocal drawn
        drawn += shape[0]
        some = slice(drawn - shape[0], drawn)
        return tuple(keras.ops.convert_to_tensor(p[some], "float32") for p in noise)

    from_noise = GaussianMixture.from_noise

    def counted(self, *arguments):
        nonlocal traced
        traced += 1
        return from_noise(self, *arguments)

    monkeypatch.setattr(GaussianMixture, "noise", given)
    monkeypatch.setattr(GaussianMixture, "from_noise", counted)
    expected = went_on(model, np.atleast_2d(primer), noise, temperature)
    expected = expected.reshape(*batch, -1)
    stream = stream_audio(model, primer, temperature, block=2 * event - 1)
    blocks = [next(stream)]
    compiled = traced
    blocks += [next(stream), next(stream)]
    assert [block.shape for block in blocks] == 3 * [(*batch, 2 * event)]
    np.testing.assert_allclose(np.concatenate(blocks, -1), expected, atol=1e-4)
    if keras.config.backend() != "torch":  # where nothing is compiled
        assert traced == compiled
    if not batch:
        drawn = 0
        whole = generate_audio(model, primer, 6 * event - 1, temperature)
        assert whole.dtype == np.float32
        assert whole.shape == (6 * event - 1,)
        np.testing.assert_allclose(whole, expected[:-1], atol=1e-4)


def test_seed_and_unit_of_sound():
    """The same noise in another unit is the same sound in that unit."""
    models = [
        model_of_sound(6, 4, GRU(5, return_sequences=True), **unit)
        for unit in ({}, {"event_mean": -3.0, "event_std": 0.2})
    ]
    primer = waves(2, 30)
    first = generate_audio(models[0], primer, 40, seed=1)
    same = generate_audio(models[1], 0.2 * primer - 3, 40, seed=1)
    np.testing.assert_allclose(same, 0.2 * first - 3, atol=1e-4)
    assert np.ptp(first) > 1
    other = generate_audio(models[0], primer, 40, seed=2)
    assert (first != other).all()
    assert (first[0] != first[1]).all()


def test_the_primer_is_heard_to_its_beginning():
    model = model_of_sound(6, 4, GRU(5, return_sequences=True))
    primers = np.repeat(waves(1, 27), 4, axis=0)
    primers[1, 2] += 1  # in the first frame only
    primers[2, 0] += 1  # before it: the last frame ends where the primer does
    primers[3, -1] += 1
    rows = generate_audio(model, primers, 8, temperature=0)
    silence = np.zeros((2, 4, 1, 3)), np.zeros((2, 4, 1, 4))
    np.testing.assert_allclose(rows, went_on(model, primers, silence, 0), atol=1e-5)
    differs = np.abs(rows - rows[0]).max(axis=1) > 1e-5
    assert differs.tolist() == [False, True, False, True]


def test_samples_follow_the_mixture_in_half_precision():
    """A model that forgets gives independent events of a known distribution."""
    temperature = 0.25
    layer = GRU(2, return_sequences=True, dtype="mixed_bfloat16")
    model = model_of_sound(
        *(3, 1, layer), components=2, event_std=3.0, dtype="mixed_bfloat16"
    )
    weights, means, scales = np.array([0.3, 0.7]), [-2.0, 1.0], np.array([0.5, 1.5])
    bias = [*np.log(weights), *means, *np.log(np.expm1(scales - 1e-3))]
    model.layers[-1].set_weights([np.zeros((2, 6)), np.array(bias)])
    samples = generate_audio(model, waves(40, 9), 100, temperature, seed=6)
    assert samples.dtype == np.float32
    sharp = weights ** (1 / temperature)
    sharp /= sharp.sum()
    spread = 3 * scales * np.sqrt(temperature)

    def below(x):
        z = (x[:, None] - 3 * np.array(means)) / spread
        return stats.norm.cdf(z) @ sharp

    assert stats.kstest(samples.ravel(), below).pvalue > 0.001


def test_bad_arguments_for_sound():
    model = model_of_sound(6, 4, GRU(2, return_sequences=True))
    shapes = "must have the shape .* and hold 6 samples at least"
    for primer, message in (
        (waves(5), shapes),
        (waves(2, 5), shapes),
        (waves(0, 8), shapes),
        (waves(1, 2, 8), shapes),
        (np.float32(1), shapes),
        (waves(8, 1), shapes),  # as `audio.read` gives it
        (np.full(8, np.nan), "`primer` must hold finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_audio(model, primer, 4)
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match="`samples` must be a positive integer"):
            generate_audio(model, waves(8), bad)
        with pytest.raises(ValueError, match="`block` must be a positive integer"):
            next(stream_audio(model, waves(8), block=bad))
    for bad in (-1, float("nan"), float("inf"), "a"):
        with pytest.raises(ValueError, match="`temperature` must be"):
            generate_audio(model, waves(8), 4, temperature=bad)


def test_models_that_cannot_go_on_with_sound():
    inputs, more = keras.Input((None, 6)), keras.Input((None, 6))
    no_mixture = keras.Sequential([inputs, keras.layers.Dense(4)])
    not_built = keras.Sequential([GaussianMixture(3, 4)])
    two = keras.Model([inputs, more], GaussianMixture(3, 4)(inputs + more))
    with pytest.raises(ValueError, match="is not built"):
        generate_audio(not_built, waves(40), 4)
    for model in (no_mixture, two, None):
        with pytest.raises(ValueError, match="a GaussianMixture as its last layer"):
            generate_audio(model, waves(40), 4)
    backwards = keras.layers.RNN(
        ROWS[0].make(2), go_backwards=True, return_sequences=True
    )
    inner = keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(4)])
    looks_back = keras.layers.Conv1D(4, 3, padding="causal")
    for layer, message in (
        (backwards, "reads sequences backwards"),
        (inner, "A model within a model"),
        (looks_back, "only its recurrent layers may combine steps"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_audio(model_of_sound(6, 4, layer), waves(40), 4)


@pytest.mark.parametrize(
    ("layer", "time"),
    [
        (lambda: keras.layers.Conv1D(4, 3, padding="causal"), 6),
        (lambda: keras.layers.RNN(ROWS[0].make(2)), 40),
    ],
    ids=["context unseen in a primer of one frame", "one output for all steps"],
)
def test_models_that_look_from_one_step_at_another(layer, time):
    with pytest.raises(ValueError, match="only its recurrent layers may combine steps"):
        generate_audio(model_of_sound(6, 4, layer()), waves(time), 4)
