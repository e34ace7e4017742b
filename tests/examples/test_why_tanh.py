"""What why_tanh measures, beside other ways to the same; a small run, and errors."""

import json
import math
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from why_tanh import __main__ as script
from why_tanh import descent, memory, models, slopes
from why_tanh.cells import CELLS

import keras_gated
from keras_gated.datasets import bach_chorales

for package in ("matplotlib", "tensorboard"):
    pytest.importorskip(package, reason="the extra 'examples' is not installed")


@pytest.mark.parametrize("name", ["lstm", "sigmoid"])
def test_memory_is_the_mean_and_range_of_the_norms(name):
    random = np.random.default_rng(3)
    cell = CELLS[name](5, dtype="float64")
    cell.build((None, 3))
    cell.set_weights([random.normal(0, 0.8, w.shape) for w in cell.get_weights()])
    inputs = random.normal(size=(4, 7, 3))
    layer = keras_gated.RNN(cell, dtype="float64")
    layer.build((None, None, 3))
    norms = keras_gated.inspection.jacobian_norms(layer, inputs, 6)
    found = memory.measure(cell, inputs, 6)
    np.testing.assert_allclose(found["mean"], norms.prod(axis=0) ** (1 / 4))
    assert found["lowest"] == norms.min(axis=0).tolist()
    assert found["highest"] == norms.max(axis=0).tolist()
    with pytest.raises(ValueError, match=r"from 1 to 7, the number of steps.*lags=8"):
        memory.measure(cell, inputs, 8)


def test_summary_of_a_norm_that_halves_every_third_step():
    lags = np.arange(1, 65)
    found = memory.summarize(2.0 ** (-lags / 3))
    assert found["half_life"] == pytest.approx(3)
    assert found["gone"] == math.ceil(3 * math.log2(1e3))
    assert found["norm_32"] == pytest.approx(2 ** (-32 / 3))
    grows = memory.summarize(1.01**lags)
    assert grows["half_life"] is grows["gone"] is None


def test_slopes():
    x = np.linspace(-3, 3, 61)
    found = slopes.curves(x)
    sigmoid = 1 / (1 + np.exp(-x))
    for name, value, slope in (
        ("sigmoid", sigmoid, sigmoid * (1 - sigmoid)),
        ("tanh", np.tanh(x), 1 - np.tanh(x) ** 2),
    ):
        np.testing.assert_allclose(found[name], (value, slope), rtol=1e-12)
    measured = slopes.measure()
    assert [measured[n]["largest"] for n in ("sigmoid", "tanh")] == [0.25, 1.0]
    assert [measured[n]["at"] for n in ("sigmoid", "tanh")] == [0.0, 0.0]
    drawn = 1 - np.tanh(np.random.default_rng(0).normal(size=100_000)) ** 2
    typical = np.exp(np.log(drawn).mean())
    assert measured["tanh"]["typical"] == pytest.approx(typical, rel=0.02)


def test_gradient_of_the_unit_is_that_of_its_loss():
    import tensorflow as tf

    x = descent.unit_inputs("positive", 4, seed=2)
    assert 0 < x.min() < x.max() < 1
    assert abs(descent.unit_inputs("centred", 4, seed=2).mean(axis=0)).max() < 1e-15
    w = tf.constant([0.3, -2.0, 0.5, 1.0], "float64")
    with tf.GradientTape() as tape:
        tape.watch(w)
        wrong = tf.linalg.matvec(x, w) - x @ descent.optimum(4)
        loss = tf.reduce_mean(wrong**2) / 2
    assert descent.unit_loss(w.numpy(), x) == pytest.approx(loss.numpy())
    np.testing.assert_allclose(
        descent.unit_gradient(w.numpy(), x), tape.gradient(loss, w)
    )


@pytest.mark.parametrize("update", descent.UPDATES)
def test_descent_with_positive_inputs_takes_longer(update):
    positive, same, best = (
        descent.measure_one(kind, update, 2, 1, rate)
        for kind, rate in (("positive", None), ("centred", 1.0), ("centred", None))
    )
    assert positive["updates"] > 2 * best["updates"]
    assert positive["path"] > best["path"] > same["path"] >= 1
    assert positive["condition"] > 5 * best["condition"]
    assert (positive["one_sign"] == 1) == (update == "single")  # what the notes say
    assert best["one_sign"] < 0.9

    x, path = descent.unit_inputs("positive", 2, 1), []
    start = np.array([[-1.0, 2.0]])
    rate = positive["rate"]
    updates = descent.descend(x, start, [rate], update, 1, path)
    assert updates == len(path) - 1
    losses = descent.unit_loss(np.stack(path), x).ravel()
    assert losses[-1] < descent.TARGET <= losses[:-1].min()


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the script on few small chorales; its exit code, output and errors."""
    random = np.random.default_rng(0)
    rolls = [(random.random((24, 88)) < 0.05).astype("uint8") for _ in range(9)]
    small = (rolls[:4], rolls[4:6], rolls[6:])
    monkeypatch.setattr(bach_chorales, "load_data", lambda steps: small)
    monkeypatch.setattr(descent, "DIMENSIONS", (2,))
    monkeypatch.setattr(descent, "STARTS", 5)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["why_tanh.py", *map(str, arguments)])
        try:
            code = script.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run_here


SMALL = ("--units", 4, "--lags", 8, "--pieces", 2, "--batch-size", 4)


def tensorboard(folder):
    """What TensorBoard has of a run, by tag."""
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    log = event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    log.Reload()
    return {
        tag: [tf.make_ndarray(event.tensor_proto) for event in log.Tensors(tag)]
        for tag in log.Tags()["tensors"]
    }


def only_cells(monkeypatch):
    """Leaves out what does not depend on cells."""
    for name in ("slopes", "descents"):
        monkeypatch.setattr(script.Study, name, lambda self: None)


@pytest.mark.slow
def test_a_short_run_and_another_on_its_models(call, tmp_path, monkeypatch):
    code, out, errors = call(
        *("--cells", "tanh", "--no-sigmoid", "--epochs", 1, "--seed", 5),
        *("--log-dir", tmp_path / "runs", *SMALL),
    )
    assert code == 0, errors
    (run,) = (tmp_path / "runs").iterdir()
    record = json.loads((run / "results.json").read_text())
    assert "--seed 5" in record["command"]
    assert (record["arguments"]["seed"], record["arguments"]["lags"]) == (5, 8)
    assert record["ended"]
    assert record["versions"]["backend"] == "tensorflow"
    assert record["slopes"]["sigmoid"]["largest"] == 0.25
    assert len(record["descents"]) == 6
    assert len(record["curves"]["tanh"]["nll"]) == 1
    untrained, trained = record["rows"]
    norms = record["jacobian_norms"]["tanh"]
    assert untrained["weights"] == "untrained"
    assert norms["untrained"]["mean"] != norms["trained"]["mean"]
    for row in (untrained, trained):
        mean = norms[row["weights"]]["mean"]
        assert (row["units"], len(mean)) == (4, 8)
        assert row["norm_8"] == mean[7]
        assert f"{row['norm_8']:.2g}" in out
    assert f"{trained['test_nll']:.3f}" in out
    for name in ("slopes", "descents", "jacobians", "learning_curves"):
        assert (run / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert {"slopes", "descents", "jacobians"} <= set(tensorboard(run))
    curves = tensorboard(run / "tanh")
    for weights in ("untrained", "trained"):
        curve = np.ravel(curves[f"jacobian_norm/{weights}"])
        np.testing.assert_allclose(curve, norms[weights]["mean"], rtol=1e-6)
    assert len(tensorboard(run / "centred")["descent_loss/batch"]) > 1

    only_cells(monkeypatch)
    again = ("--seed", 5, "--log-dir", tmp_path / "again")  # the same pieces
    code, _, errors = call("--models", run, *again, *SMALL)
    assert code == 0, errors
    (again,) = (tmp_path / "again").iterdir()
    record = json.loads((again / "results.json").read_text())
    _, row = record["rows"]
    assert row["test_nll"] == pytest.approx(trained["test_nll"], rel=1e-5)
    assert row["norm_8"] == pytest.approx(trained["norm_8"], rel=1e-9)


def test_ctrl_c_keeps_what_is_done(call, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    only_cells(monkeypatch)
    monkeypatch.setattr(script.comparison, "train", interrupted)
    code, out, _ = call("--cells", "gru", "--log-dir", tmp_path / "runs", *SMALL)
    assert code == 130
    assert "Interrupted" in out
    (run,) = (tmp_path / "runs").iterdir()
    record = json.loads((run / "results.json").read_text())
    assert [row["weights"] for row in record["rows"]] == ["untrained"]


@pytest.fixture
def folders(tmp_path):
    """Folders of models that are not what they should be."""
    (tmp_path / "damaged" / "gru").mkdir(parents=True)
    (tmp_path / "damaged" / "gru" / "best.keras").write_bytes(b"no archive")
    for folder, layer, features in (
        ("speech/gru", keras_gated.GRU(2), 20),
        ("dense/gru", keras.layers.Dense(2), 88),
        ("twice/a", keras_gated.GRU(2), 88),
        ("twice/b", keras_gated.GRU(3), 88),
    ):
        (tmp_path / folder).mkdir(parents=True)
        model = keras.Sequential([keras.Input((None, features)), layer])
        model.save(tmp_path / folder / "best.keras")
    return tmp_path


def test_errors_end_with_2_and_a_line(call, folders):
    for arguments, message in (
        (["--models", folders / "none"], "has no */best.keras"),
        (["--models", folders / "damaged"], "is no model that loads"),
        (["--models", folders / "speech"], "has 20 inputs a step"),
        (["--models", folders / "dense"], "has no recurrent cell"),
        (["--models", folders / "twice"], "have the same cell, GRU"),
        (["--lags", 3], "--lags must be 4 or more. Received: 3"),
        (["--lags", 9, "--pieces", 2], "25 steps. There are 0; the longest has 24"),
        (["--pieces", 4, "--lags", 8], "There are 3;"),
        (["--epochs", 0], "positive whole number"),
        (["--cells", "sigmoid"], "invalid choice: 'sigmoid'"),
        (["--log-dir", folders / "damaged" / "gru" / "best.keras"], "is not a folder"),
    ):
        runs = [] if "--log-dir" in arguments else ["--log-dir", folders / "runs"]
        code, _, errors = call(*arguments, *runs)
        assert code == 2
        assert message in errors.splitlines()[-1]
        assert "why_tanh.py: error:" in errors.splitlines()[-1]
        assert not (folders / "runs").exists()


def test_models_of_other_cells_than_asked_for(call, folders):
    args = (
        "--models",
        folders / "one",
        "--cells",
        "tanh",
        "--log-dir",
        folders / "runs",
    )
    (folders / "one").mkdir()
    (folders / "twice" / "a").rename(folders / "one" / "a")
    code, _, errors = call(*args)
    assert code == 2
    assert "has none of the cells that --cells asks for. Found: gru" in errors


def test_the_sigmoid_cell_is_known_by_its_activation():
    args = SimpleNamespace(
        seed=1,
        units=3,
        weight_noise=0.0,
        truncate_gradient=None,
        learning_rate=0.01,
        gradient_norm=1.0,
    )
    for name in ("tanh", "sigmoid", "simplified_gru"):
        model = models.build(name, args)
        found, cell = models.find_cell(model, "model")
        assert found == name
        weights = cell.get_weights()
        np.testing.assert_array_equal(
            models.in_float64(cell).get_weights()[0], weights[0]
        )
        fresh = models.in_float64(cell, fresh=True).get_weights()[0]
        assert (fresh != weights[0]).any()
