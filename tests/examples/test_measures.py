"""What music is like in numbers, and the benchmarks that compare models by them."""

import importlib.util
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from comparison import measures

from keras_gated import GRU, NADE
from keras_gated.datasets import jsb_chorales, midi, piano_roll

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def music(*notes):
    """Of `(first step, step after the last, pitch)`."""
    return piano_roll.from_notes(notes, 1)


def test_shape_of_a_few_notes():
    """A third for two steps, then a cluster, then a rest, then a long note."""
    roll = music(
        (0, 2, 60), (0, 2, 64), (2, 3, 60), (2, 3, 61), (2, 3, 66), (4, 24, 72)
    )
    shape = measures.shape_of([roll], usual=1)
    assert shape.notes_at_a_time == (2 + 2 + 3 + 0 + 20) / 24
    assert shape.rests == 1 / 24
    assert shape.crowded == 1 / 24
    # C-E twice; C-C#, C-F#, C#-F# (a fourth).
    assert shape.dissonance == 2 / 5
    # The held C is one note of three steps; 20 steps count as 16.
    assert shape.note_length == (3 + 2 + 1 + 1 + 20) / 5
    np.testing.assert_array_equal(np.nonzero(shape.note_lengths)[0] + 1, [1, 2, 3, 16])
    np.testing.assert_allclose(shape.pitch_classes[[0, 1, 4, 6]], [0.4, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(shape.numbers[:4] * 24, [1, 20, 2, 1])


def test_windows_have_the_notes_that_begin_in_them():
    roll = music((0, 3, 60), (2, 6, 64), (4, 5, 67))
    shape = measures.shape_of([roll, roll], 1, begin=2, end=4)
    assert shape.note_length == 4
    assert shape.pitch_classes[4] == 1
    assert shape.notes_at_a_time == 1.5


@pytest.mark.parametrize(
    ("pitches", "expected"),
    [
        ([60, 62], 1),  # a second
        ([60, 63], 0),
        ([60, 66], 1),  # a tritone
        ([60, 67], 0),
        ([60, 70], 1),  # a seventh
        ([60, 85], 1),  # a minor ninth
        ([60, 72], 0),  # an octave is no pair
        ([60, 64, 67, 70], 2 / 6),  # a dominant seventh chord
        ([], 0),
    ],
)
@pytest.mark.parametrize("semitones", [0, 5, 11])
def test_dissonance(pitches, expected, semitones):
    roll = np.zeros((1, 88), np.uint8)
    roll[0, np.array(pitches, int) + semitones - piano_roll.LOWEST_PITCH] = 1
    assert measures.dissonance([roll]) == expected


def test_distances():
    assert measures.distance(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0
    assert measures.distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    same, other = music((0, 2, 60)), music((0, 2, 61))
    assert measures.distance_of_halves([same] * 6, "pitch_classes") == 0
    assert 0 < measures.distance_of_halves([same, other] * 3, "pitch_classes") <= 1


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a benchmark on a few made chorales, with models that are not trained."""
    random = np.random.default_rng(1)
    pieces = [
        (random.random((length, 88)) < 0.05).astype(np.uint8)
        for length in (20, 30, 17, 25)
    ]
    pieces[1][3] = 0
    monkeypatch.setattr(jsb_chorales, "load_data", lambda _: ([], [], pieces))
    frames, following = keras.Input((None, 88)), keras.Input((None, 88))
    x = GRU(4, return_sequences=True)(frames)
    few = keras.initializers.Constant(-3.0)
    dense = keras.layers.Dense(88, bias_initializer=few)
    keras.Model(frames, dense(x), name="keys").save(tmp_path / "keys.keras")
    head = NADE(4)
    joint = keras.Model([frames, following], head([x, following]), name="whole")
    head.bias.assign(-3.0 * np.ones(88))
    joint.save(tmp_path / "whole.keras")
    monkeypatch.chdir(tmp_path)

    def run_here(name, *arguments, **settings):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        for key, value in settings.items():
            monkeypatch.setattr(script, key, value)
        command = [f"{name}.py", "--model", "whole.keras", "--dataset", "jsb"]
        command += ["--output", "out.json", "--picture", "out.png", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        assert script.main() == 0
        assert Path("out.png").read_bytes()[1:4] == b"PNG"
        record = json.loads(Path("out.json").read_text())
        assert record["command"].startswith(f"python {name}.py --model whole.keras")
        assert record["versions"]["keras"] == keras.__version__
        return script, pieces, record, capsys.readouterr().out

    return run_here


def test_drift(run):
    settings = {"CONTINUATIONS": 6, "STEPS": 20, "WINDOW": 10}
    _, pieces, record, said = run("drift", "--control", "keys.keras", **settings)
    whole, keys = record["models"]
    assert (whole["model"], keys["model"]) == (
        "whole frames",
        "independent keys",
    )
    assert (whole["control"], keys["control"]) == (False, True)
    assert list(whole["steps"]) == ["0 to 10", "10 to 20"]
    mean = np.concatenate(pieces).sum(axis=1).mean()
    assert record["test set"]["notes_at_a_time"] == pytest.approx(mean)
    assert record["test set"]["distance_of_numbers"] == 0
    assert "steps 10 to 20" in said


@pytest.mark.slow
def test_harmonies(run):
    script, pieces, record, said = run(
        "harmonize", "--particles", "4", "--output-dir", "written"
    )
    of = {name: record[name] for name in ("composer", "model", "control")}
    assert [row["soprano_kept"] for row in of.values()] == [1, 1, 1]
    assert "for " + str(record["likelier_than_control"]) + " of 4 pieces" in said
    for number in range(3):
        written, found = (
            midi.read(f"written/{number + 1}-{name}.mid", 1)
            for name in ("composer", "model")
        )
        np.testing.assert_array_equal(written, pieces[number][: len(written)])
        soprano = script.soprano_of(pieces[number])[: len(found)]
        np.testing.assert_array_equal(script.soprano_of(found), soprano)
    # By the steps of each piece: as the loss of the model has it.
    model = keras.saving.load_model("whole.keras", compile=False)
    total = steps = 0
    for piece in pieces:
        whole = piece[None].astype("float32")
        logits = model([whole[:, :-1], whole[:, 1:]]).numpy()
        y = whole[:, 1:]
        total += (y * logits - np.logaddexp(0, logits)).sum()
        steps += len(piece) - 1
    assert of["composer"]["log_likelihood"] == pytest.approx(total / steps, rel=1e-4)


@pytest.mark.slow
def test_controls_are_the_harmony_of_another_piece(run):
    script, *_ = run("harmonize", "--particles", "1")
    sopranos = [script.soprano_of(music((0, n, 60 + n))) for n in (4, 6)]
    found = [
        sopranos[0] + music((0, 4, 50), (0, 4, 62)),
        sopranos[1] + music((0, 6, 40), (0, 6, 65)),
    ]
    one, other = script.controls(found, sopranos, seed=1)
    np.testing.assert_array_equal(one, music((0, 4, 64), (0, 4, 40)))
    expected = music((0, 4, 66), (0, 4, 50), (0, 4, 62))
    np.testing.assert_array_equal(other, expected)
