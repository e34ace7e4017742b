"""Piano rolls: rounding, notes and back, batches."""

import itertools
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_gated.datasets import batching, piano_roll
from keras_gated.metrics import FrameNLL

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "polyphonic"

rolls_strategy = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.just(88)), elements=st.integers(0, 1)
)


def random_rolls(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [(random.random((n, 88)) < 0.05).astype(np.uint8) for n in lengths]


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 999), st.integers(0, 127)),
        max_size=8,
    ),
    st.fractions(Fraction(1, 3), 700, max_denominator=1000),
)
def test_rounding_of_notes(notes, ticks_per_step):
    """The rule, written a second time, cell by cell."""
    notes = [(start, start + length, pitch) for start, length, pitch in notes]
    roll = piano_roll.from_notes(notes, ticks_per_step)

    def q(x):  # nearest, halves upward
        return (Fraction(x) / ticks_per_step + Fraction(1, 2)).__floor__()

    kept = [(q(s), q(e), p) for s, e, p in notes if 21 <= p <= 108]
    assert len(roll) == max((e for _, e, _ in kept), default=0)
    expected = np.zeros_like(roll)
    for start, end, pitch in kept:
        for t in range(start, end):
            expected[t, pitch - 21] = 1
    np.testing.assert_array_equal(roll, expected)


def test_rounding_by_hand():
    # An eighth step of 240 ticks: 119 falls back, 120 goes on; too short vanishes.
    notes = [(119, 360, 21), (120, 359, 108), (480, 599, 60), (0, 480, 20)]
    roll = piano_roll.from_notes(notes, 240)
    assert roll.shape == (2, 88)
    assert roll[:, 0].tolist() == [1, 1]
    assert roll[:, 87].tolist() == [0, 0]
    assert roll.sum() == 2
    assert piano_roll.from_notes([], 240).shape == (0, 88)


@given(rolls_strategy)
def test_notes_and_back(roll):
    notes = piano_roll.to_notes(roll)
    back = piano_roll.from_notes(notes, 1)
    assert len(back) <= len(roll)
    np.testing.assert_array_equal(back, roll[: len(back)])
    assert not roll[len(back) :].any()
    for (_, end, pitch), (start, _, other) in itertools.permutations(notes.tolist(), 2):
        assert pitch != other or end != start, "a note is cut in two"


def test_bad_notes():
    with pytest.raises(ValueError, match="0 <= start <= end"):
        piano_roll.from_notes([(5, 4, 60)], 1)
    with pytest.raises(ValueError, match="0 <= start <= end"):
        piano_roll.from_notes([(-1, 4, 60)], 1)
    with pytest.raises(ValueError, match="Velocities"):
        piano_roll.from_notes([(0, 4, 60, 128)], 1)
    with pytest.raises(ValueError, match="`short_notes` must be"):
        piano_roll.from_notes([(0, 4, 60)], 1, "lose")
    for bad in (np.zeros((3, 2), int), np.zeros((3, 5), int), [(0, 4, 60.5)]):
        with pytest.raises(ValueError, match="must hold integers"):
            piano_roll.from_notes(bad, 1)
    with pytest.raises(ValueError, match="`ticks_per_step` must be positive"):
        piano_roll.from_notes([(0, 4, 60)], 0)
    with pytest.raises(ValueError, match="must fit 64 bits"):
        piano_roll.from_notes([(0, 10**12, 60)], Fraction(10**9 + 1, 10**9))


LENGTHS = [2, 3, 3, 7, 8, 9, 9, 20, 21, 35, 36, 36, 50]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("max_shapes", [1, 3, 100])
def test_every_step_is_there_once(shuffle, batch_size, max_shapes):
    rolls = random_rolls(LENGTHS)
    rolls[3][:] = 0  # a rest throughout is data
    dataset = piano_roll.next_step_dataset(
        rolls, batch_size, shuffle, seed=1, max_shapes=max_shapes
    )
    seen, shapes = [], set()
    batches = list(dataset.as_numpy_iterator())
    for inputs, targets, weights in batches:
        assert inputs.shape == targets.shape == (*weights.shape, 88)
        assert {x.dtype.name for x in (inputs, targets, weights)} == {"float32"}
        shapes.add(inputs.shape)
        for x, y, w in zip(inputs, targets, weights, strict=True):
            steps = int(w.sum())
            assert w.tolist() == [1] * steps + [0] * (len(w) - steps)
            assert not x[steps:].any()
            assert not y[steps:].any()
            if steps:
                np.testing.assert_array_equal(x[1:steps], y[: steps - 1])
                seen.append(np.concatenate([x[:1], y[:steps]]).astype(np.uint8))
    assert sorted(map(bytes, seen)) == sorted(map(bytes, rolls))
    assert len(batches) == len(dataset)
    assert len(shapes) <= max_shapes
    assert max(shape[0] for shape in shapes) <= batch_size
    if max_shapes == 1:
        assert len(batches) == -(-len(rolls) // batch_size)


def test_shuffling():
    rolls = random_rolls([20, 21] * 8)

    def order(dataset):
        return [inputs[:, 0].tobytes() for inputs, *_ in dataset.as_numpy_iterator()]

    fixed = piano_roll.next_step_dataset(rolls, 4)
    assert order(fixed) == order(fixed)
    first, same, other = (
        piano_roll.next_step_dataset(rolls, 4, True, seed, max_shapes=1)
        for seed in (1, 1, 2)
    )
    passes = [order(first), order(first)]
    assert passes[0] != passes[1], "each pass has its own order"
    assert [order(same), order(same)] == passes
    assert order(other) != passes[0]


def test_windows_predict_every_step_once():
    rolls = random_rolls([2, 5, 11, 12, 30])
    dataset = piano_roll.next_step_dataset(rolls, 4, sequence_length=5)
    predicted, weight = [], 0
    for inputs, targets, weights in dataset.as_numpy_iterator():
        assert inputs.shape[1] <= 5
        weight += weights.sum()
        for y, w in zip(targets, weights, strict=True):
            predicted += [row.astype(np.uint8).tobytes() for row in y[w == 1]]
    assert weight == sum(len(roll) - 1 for roll in rolls)
    expected = [row.tobytes() for roll in rolls for row in roll[1:]]
    assert sorted(predicted) == sorted(expected)


def test_random_transposition():
    """Every sequence by a number of its own, anew in each pass."""
    roll = np.zeros((3, 88), np.uint8)
    roll[:, 40] = 1
    dataset = piano_roll.next_step_dataset(
        [roll] * 40, 8, seed=3, random_transpose=True
    )
    passes = [
        np.concatenate([x[:, 0].argmax(1) for x, *_ in dataset.as_numpy_iterator()])
        for _ in range(2)
    ]
    assert set(np.concatenate(passes)) == set(range(35, 47))
    assert (passes[0] != passes[1]).any()


@given(st.integers(-100, 100))
def test_transposing_and_back(semitones):
    roll = random_rolls([4])[0]
    back = piano_roll.transpose(piano_roll.transpose(roll, semitones), -semitones)
    kept = np.zeros(88, bool)
    kept[max(0, -semitones) : max(0, 88 - semitones)] = True
    np.testing.assert_array_equal(back, roll * kept)


def test_packed_rolls():
    rolls = random_rolls([1, 7, 30])
    packed = piano_roll.PackedRolls(map(piano_roll.pack, rolls))
    assert packed.lengths == [1, 7, 30]
    for again, roll in zip(packed, rolls, strict=True):
        np.testing.assert_array_equal(again, roll)
    assert packed.take([2, 0]).lengths == [30, 1]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published sets in {PUBLISHED}")
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("JSB_Chorales", 0.06),
        ("Nottingham", 0.07),
        ("MuseData", 0.16),
        ("Piano_midi", 0.10),
    ],
)
@pytest.mark.parametrize("batch_size", [8, 16])
def test_padding_of_the_published_sets(name, share, batch_size):
    from scipy.io import loadmat

    rolls = loadmat(PUBLISHED / f"{name}.mat")["traindata"][0]
    lengths = [len(roll) - 1 for roll in rolls]
    groups = batching.groups_of_like_length(lengths, batch_size, 12)
    area = sum(-(-len(g.members) // g.batch) * g.batch * g.length for g in groups)
    assert len({(group.batch, group.length) for group in groups}) <= 12
    assert 1 - sum(lengths) / area < share


def test_padding_cannot_reach_a_step_that_counts():
    """A model's figure over the data set is that over its bare sequences."""
    from keras_gated import GRUCell

    rolls = random_rolls(LENGTHS)
    model = keras.Sequential(
        [
            keras.Input((None, 88)),
            keras.layers.RNN(GRUCell(5), return_sequences=True),
            keras.layers.Dense(88),
        ]
    )
    model.compile(loss="mse", weighted_metrics=[FrameNLL(), FrameNLL("sequence")])
    bare = [FrameNLL(), FrameNLL("sequence")]
    for roll in rolls:
        x = roll[None].astype("float32")
        for metric in bare:
            metric.update_state(x[:, 1:], model(x[:, :-1]))
    expected = [float(metric.result()) for metric in bare]
    for batch_size, shuffle in ((1, False), (4, True), (16, False)):
        dataset = piano_roll.next_step_dataset(rolls, batch_size, shuffle)
        scores = model.evaluate(dataset, verbose=0)
        np.testing.assert_allclose(scores[1:], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rolls", "message"),
    [
        ([], "at least one roll; it is empty"),
        ([np.zeros((5, 88)), np.zeros((5, 87))], r"rolls\[1\] of shape \[5, 87\]"),
        ([np.zeros(88)], r"rolls\[0\] of shape \[88\]"),
        ([np.full((5, 88), 64)], r"rolls\[0\] with the value .*64"),
        ([np.full((5, 88), np.nan)], r"rolls\[0\] with the value .*nan"),
        ([np.zeros((5, 88)), np.zeros((1, 88))], r"rolls\[1\] with 1"),
        ([np.zeros((0, 88))], r"rolls\[0\] with 0"),
    ],
)
def test_bad_rolls(rolls, message):
    with pytest.raises(ValueError, match=message):
        piano_roll.next_step_dataset(rolls)


@pytest.mark.parametrize("value", [0, -1, 2.5, None])
@pytest.mark.parametrize("name", ["batch_size", "max_shapes", "sequence_length"])
def test_bad_numbers(name, value):
    if name == "sequence_length" and value is None:
        return  # whole rolls
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        piano_roll.next_step_dataset(random_rolls([4]), **{name: value})


def test_picture(tmp_path):
    roll = random_rolls([40])[0]
    axes = piano_roll.plot(roll, title="a title")
    image = axes.get_images()[0]
    np.testing.assert_array_equal(image.get_array(), roll.T)
    assert image.get_extent() == [-0.5, 39.5, 20.5, 108.5]  # pitch j+21 at its number
    axes.figure.savefig(tmp_path / "roll.png")
    assert (tmp_path / "roll.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match=r"shape \[T, 88\]"):
        piano_roll.plot(roll[:, :80])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published sets in {PUBLISHED}")
@pytest.mark.parametrize(
    ("name", "by_step", "by_sequence"),
    # Published figures of the simplest baseline: every key at its training rate.
    [
        ("Nottingham", 10.26, 10.13),
        ("JSB_Chorales", 11.09, 11.04),
        ("MuseData", 11.51, 10.56),
        ("Piano_midi", 11.05, 11.39),
    ],
)
def test_pipeline_and_metric_give_the_known_figures_of_published_sets(
    name, by_step, by_sequence
):
    from scipy.io import loadmat

    sets = loadmat(PUBLISHED / f"{name}.mat")
    train, test = (list(sets[part][0]) for part in ("traindata", "testdata"))
    steps = np.concatenate([roll[1:] for roll in train])
    rate = (steps.sum(0) + 0.5) / (len(steps) + 1)
    logits = np.log(rate / (1 - rate)).astype("float32")
    metrics = FrameNLL(), FrameNLL("sequence")
    for _, targets, weights in piano_roll.next_step_dataset(test, 8):
        for metric in metrics:
            metric.update_state(
                targets, np.broadcast_to(logits, targets.shape), sample_weight=weights
            )
    results = [float(metric.result()) for metric in metrics]
    np.testing.assert_allclose(results, [by_step, by_sequence], atol=0.03)
