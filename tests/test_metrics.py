"""The metrics against SciPy and mir_eval; exact whatever the batches."""

import keras
import mir_eval
import numpy as np
import pytest
from oracles import array
from scipy import stats

from keras_gated.metrics import FrameAccuracy, FrameF1, FrameNLL

METRICS = {
    "step": lambda: FrameNLL(),
    "sequence": lambda: FrameNLL("sequence"),
    "accuracy": lambda: FrameAccuracy(),
    "f1": lambda: FrameF1(),
}
each_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def ragged_set(seed=0, sequences=13):
    """Sequences of 1 to 20 steps, some of them silent throughout."""
    random = np.random.default_rng(seed)
    data = []
    for n in range(sequences):
        shape = (int(random.integers(1, 21)), 88)
        density = 0.0 if n % 5 == 0 else 0.05
        targets = (random.random(shape) < density).astype("float32")
        logits = (random.normal(-4, 2, shape) + 5 * targets).astype("float32")
        data.append((targets, logits))
    return data


def expected(data):
    """Every figure in float64, from SciPy and mir_eval, sequence by sequence."""
    nll, times, reference, estimate = [], [], [], []
    for targets, logits in data:
        p = 1 / (1 + np.exp(-logits.astype("float64")))
        nll.append(-stats.bernoulli.logpmf(targets, p).sum(-1))
        for target, logit in zip(targets, logits, strict=True):
            times.append(len(times) * 1.0)
            reference.append(mir_eval.util.midi_to_hz(21 + np.flatnonzero(target)))
            estimate.append(mir_eval.util.midi_to_hz(21 + np.flatnonzero(logit > 0)))
    times = np.array(times)
    scores = mir_eval.multipitch.evaluate(times, reference, times, estimate)
    p, r = scores["Precision"], scores["Recall"]
    return {
        "step": np.concatenate(nll).mean(),
        "sequence": np.mean([n.mean() for n in nll]),
        "accuracy": scores["Accuracy"],
        "f1": 2 * p * r / (p + r),
    }


def padded(data, length, rows):
    """One batch, padded with what would spoil any figure that counted it."""
    targets = np.ones((rows, length, 88), "float32")
    logits = np.full((rows, length, 88), -50.0, "float32")
    weights = np.zeros((rows, length), "float32")
    for row, (y, z) in enumerate(data):
        targets[row, : len(y)], logits[row, : len(y)] = y, z
        weights[row, : len(y)] = 1
    return targets, logits, weights


def batches(data, batch_size, seed=None):
    order = np.arange(len(data))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    for i in range(0, len(data), batch_size):
        members = [data[k] for k in order[i : i + batch_size]]
        longest = max(len(y) for y, _ in members)
        yield padded(members, longest + 3, batch_size)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("batch_size", "seed"), [(1, None), (4, 3), (5, 4), (16, None)]
)
def test_equals_outsiders_whatever_the_batches(name, batch_size, seed):
    data = ragged_set()
    metric = METRICS[name]()
    for targets, logits, weights in batches(data, batch_size, seed):
        metric.update_state(targets, logits, sample_weight=weights)
    assert float(metric.result()) == pytest.approx(expected(data)[name], rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0


@each_metric
def test_padding_that_is_no_number_does_not_count(make):
    targets, logits, weights = padded(ragged_set(), 25, 16)
    logits[weights == 0] = np.nan
    metric, clean = make(), make()
    metric.update_state(targets, logits, sample_weight=weights)
    clean.update_state(targets, np.nan_to_num(logits), sample_weight=weights)
    assert float(metric.result()) == float(clean.result()) > 0


@each_metric
def test_weights_of_whole_sequences(make):
    targets, logits, _ = padded(ragged_set(), 25, 16)
    by_row = np.array([1.0, 0.0] * 8, "float32")
    metrics = [make() for _ in range(3)]
    metrics[0].update_state(targets, logits, sample_weight=by_row)
    metrics[1].update_state(
        targets, logits, sample_weight=np.repeat(by_row[:, None], 25, axis=1)
    )
    metrics[2].update_state(targets[::2], logits[::2])
    results = [float(m.result()) for m in metrics]
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0] == pytest.approx(results[2], rel=1e-6)


def test_through_fit_and_evaluate():
    """As a user has it: `weighted_metrics`, ragged batches, an unfinished one."""
    data = ragged_set()
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss="mse", weighted_metrics=[make() for make in METRICS.values()])
    for batch_size in (1, 5):
        triples = [
            (z, y, w)  # the logits pass through the model as its inputs
            for y, z, w in batches(data, batch_size)
        ]
        scores = model.evaluate((t for t in triples), steps=len(triples), verbose=0)
        values = list(expected(data).values())
        np.testing.assert_allclose(scores[1:], values, rtol=1e-6)


def test_threshold():
    targets, logits, _ = padded(ragged_set(), 25, 16)
    strict, loose = FrameAccuracy(threshold=0.9), FrameAccuracy(threshold=0.9)
    strict.update_state(targets, logits)
    loose.update_state(targets, logits - np.log(9))
    assert float(strict.result()) > float(loose.result())
    shifted = FrameAccuracy(threshold=0.5)
    shifted.update_state(targets, logits - np.log(9))
    assert float(strict.result()) == pytest.approx(float(shifted.result()))


@each_metric
def test_serialises(make):
    metric = make()
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(revived) is type(metric)
    assert revived.get_config() == metric.get_config()


def test_in_half_precision_the_totals_are_in_full():
    targets, logits, weights = padded(ragged_set(), 25, 16)
    metric = FrameNLL()
    half = keras.ops.cast(logits, "float16")
    metric.update_state(targets, half, sample_weight=weights)
    full = FrameNLL()
    full.update_state(targets, array(half).astype("float32"), sample_weight=weights)
    assert float(metric.result()) == float(full.result())


def test_bad_arguments():
    with pytest.raises(ValueError, match="`average` must be 'step' or 'sequence'"):
        FrameNLL("mean")
    for threshold in (0, 1, -0.5, float("nan")):
        with pytest.raises(ValueError, match="`threshold` must be a finite"):
            FrameF1(threshold=threshold)
    targets, logits, _ = padded(ragged_set(), 25, 16)
    with pytest.raises(ValueError, match="one shape"):
        FrameNLL().update_state(targets[..., :87], logits)
    with pytest.raises(ValueError, match="one shape"):
        FrameNLL().update_state(targets[0], logits)
    with pytest.raises(ValueError, match="one weight per step, not per note"):
        FrameNLL().update_state(targets, logits, sample_weight=np.ones(logits.shape))
    with pytest.raises(ValueError, match="'sequence'"):
        FrameNLL("sequence").update_state(targets[0], logits[0])
