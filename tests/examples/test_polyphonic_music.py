"""The demo: short on small music in every test run, whole where asked for."""

import argparse
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import mido
import numpy as np
import pytest
from kills.ends import end_of
from kills.tasks import small_music
from scipy.io import savemat

from keras_gated import RollEncoding
from keras_gated.datasets import midi, piano_roll
from keras_gated.datasets.sets import published

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "polyphonic_music.py"
CELLS = ["tanh", "lstm", "gru", "simplified_gru"]


@pytest.fixture
def music(tmp_path):
    """A folder of small MIDI files that a cell can learn something from."""
    small_music(tmp_path / "music")
    return tmp_path / "music"


def results(log_dir):
    (folder,) = log_dir.iterdir()
    return folder, json.loads((folder / "results.json").read_text())


def scalars(folder):
    """All TensorBoard scalars of a run, by tag: steps and values."""
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    log = event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    log.Reload()
    values = {
        tag: [
            (event.step, tf.make_ndarray(event.tensor_proto))
            for event in log.Tensors(tag)
        ]
        for tag in log.Tags()["tensors"]
    }
    return log, {
        tag: [(step, value.item()) for step, value in curve]
        for tag, curve in values.items()
        if curve[0][1].size == 1
    }


@pytest.mark.slow
def test_short_run_writes_everything(call, music, tmp_path, caplog):
    (music / "broken.mid").write_bytes(b"MThd")
    code, out, errors = call(
        *("--midi-dir", music, "--log-dir", tmp_path / "runs", "--epochs", 2),
        *("--cells", "gru", "--units", 7, "--seed", 5, "--batch-size", 4),
    )
    assert code == 0, errors
    assert "AutoGraph" not in caplog.text  # its warnings are for who wrote the code
    assert "skipped" in out
    assert "broken.mid" in out
    assert "training: 6 pieces" in out
    folder, record = results(tmp_path / "runs")
    assert [row["cell"] for row in record["rows"]] == ["gru", "joint"]
    assert "--seed 5" in record["command"]
    for row in record["rows"]:
        assert (row["units"], row["epochs"]) == (7, 2)
        curve = record["curves"][row["cell"]]
        assert len(curve["nll"]) == len(curve["seconds"]) == 2
        assert curve["nll"][-1] < curve["nll"][0]
        assert row["valid_nll"] == min(curve["val_nll"])
        assert f"{row['test_nll']:.3f}" in out

        written = folder / row["cell"]
        model = keras.saving.load_model(written / "best.keras")
        assert RollEncoding.of(model).steps_per_quarter == 2
        if row["cell"] == "joint":
            assert midi.read(written / "continuation.mid").any()
            continue
        assert model.layers[1].cell.weight_noise == 0.075
        assert model.optimizer.global_clipnorm == 1.0
        assert midi.read(written / "continuation.mid").shape[1] == 88
        for picture in (written / "continuation.png", folder / "learning_curves.png"):
            assert picture.read_bytes()[1:4] == b"PNG"
        _, train = scalars(written / "train")
        _, valid = scalars(written / "validation")
        np.testing.assert_allclose(
            [v for _, v in train["epoch_nll"]], curve["nll"], rtol=1e-5
        )
        np.testing.assert_allclose(
            [v for _, v in valid["epoch_nll"]], curve["val_nll"], rtol=1e-5
        )
        log, values = scalars(written)
        assert values["result/test_nll"][0][1] == pytest.approx(row["test_nll"])
        assert "piano_roll" in log.Tags()["tensors"]
        assert "_hparams_/session_start_info" in log.Tags()["tensors"]


@pytest.fixture
def repeated(tmp_path):
    """Four files of a key that is struck in each step; three say that they are in D."""
    for n in range(4):
        notes = [(t, t + 1, 60 + n) for t in range(24)]
        roll = piano_roll.with_onsets(*piano_roll.from_notes(notes, 1, onsets=True))
        path = tmp_path / "music" / f"{n}.mid"
        midi.write(roll, path, 4)
        file = mido.MidiFile(path)
        if n:
            file.tracks[0].insert(0, mido.MetaMessage("key_signature", key="D"))
        file.save(path)
    return tmp_path / "music"


def test_what_is_chosen_for_a_folder_and_why(repeated, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from comparison import music

    found = music.read_folder(repeated, "auto", seed=1)
    said = capsys.readouterr().out
    assert "steps_per_quarter=4 keeps" in said
    assert "95.8% of 96 notes repeat one that they touch: the joint model tells" in said
    assert "4 of 4 files state their meter: the joint model is told it" in said
    assert "3 of 4 files state their key: the joint model is told it" in said
    assert (found.steps_per_quarter, found.onsets) == (4, True)
    assert found.kinds == ("meter", "key")
    for cells, joint, told in zip(
        found.rolls, found.of_joint, found.features, strict=True
    ):
        for narrow, wide, features in zip(cells, joint, told, strict=True):
            np.testing.assert_array_equal(narrow, wide[:, :88])
            assert wide[1:, 88:].any(axis=1).all()
            assert features.shape == (24, 19)
    ((features,), steps) = found.features[2], 24 + 8
    whole = found.continued(16, steps)
    assert len(whole) == steps
    np.testing.assert_array_equal(whole[:24], features)
    plain = music.read_folder(repeated, 2, seed=1, joint=False)
    assert (plain.onsets, plain.kinds, plain.steps_per_quarter) == (False, (), 2)
    assert "joint" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_model_of_whole_frames_has_what_was_chosen(call, repeated, tmp_path):
    code, _, errors = call(
        *("--midi-dir", repeated, "--log-dir", tmp_path / "runs"),
        *("--cells", "tanh", "--units", 3, "--epochs", 1),
    )
    assert code == 0, errors
    folder, record = results(tmp_path / "runs")
    assert (record["onsets"], record["features"]) == (True, ["meter", "key"])
    for name, onsets in (("tanh", False), ("joint", True)):
        model = keras.saving.load_model(folder / name / "best.keras")
        encoding = RollEncoding.of(model)
        assert encoding.steps_per_quarter == 4
        assert encoding.onsets == onsets
        assert encoding.features == (("meter", "key") if onsets else ())
        assert model.inputs[0].shape[-1] == (176 if onsets else 88)
    played = folder / "joint" / "continuation.mid"
    primer = midi.read_all(played, midi.Options(4, onsets=True)).roll
    assert primer[1:24, 88:].any(axis=1).all()


@pytest.mark.slow
def test_what_a_model_says_changes_none_of_its_numbers(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import comparison
    from comparison import music

    settings, roll = comparison.Settings(units=3), np.eye(40, 88, dtype=np.uint8)
    found = []
    for encoding in (None, RollEncoding(2)):
        model = comparison.build(
            "gru", settings, *music.likelihood(), encoding=encoding
        )
        data = piano_roll.next_step_dataset([roll] * 4, 2, shuffle=True, seed=1)
        losses = model.fit(data, epochs=2, verbose=0).history["nll"]
        found.append([losses, *model.get_weights()])
    for plain, told in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, told)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("polyphonic_music", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture
def call(script, monkeypatch, capsys):
    """Runs the script in this process; its exit code, output and errors."""

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        try:
            code = script.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run_here


def test_help(call):
    code, text, _ = call("--help")
    assert code == 0
    for option in (
        "--cells",
        "--units",
        "--epochs",
        "--seed",
        "--midi-dir",
        "--log-dir",
    ):
        assert option in text
    assert "(default: " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--midi-dir", "{empty}"], "holds no MIDI file"),
        (["--midi-dir", "{empty}/none"], "is not a folder"),
        (["--epochs", "0"], "positive whole number"),
        (["--units", "2.5"], "positive whole number"),
        (["--cells", "transformer"], "invalid choice: 'transformer'"),
        (["--learning-rate", "-1"], "positive number"),
        (["--seed", "-1"], "--seed: -1 is not a number from 0"),
    ],
)
def test_bad_arguments_end_with_2_and_a_line(call, tmp_path, arguments, message):
    runs = tmp_path / "runs"
    code, _, errors = call(
        *(a.format(empty=tmp_path) for a in arguments), "--log-dir", runs
    )
    assert code == 2
    assert message in errors.splitlines()[-1]
    assert "polyphonic_music.py: error:" in errors.splitlines()[-1]
    assert not runs.exists()


def test_log_dir_that_is_a_file(call, music, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, errors = call("--midi-dir", music, "--log-dir", tmp_path / "taken")
    assert code == 2
    assert "taken' is not a folder" in errors


@pytest.mark.slow
def test_a_cell_that_fails_says_why(call, music, tmp_path):
    code, _, errors = call(
        *("--midi-dir", music, "--log-dir", tmp_path / "runs", "--epochs", "1"),
        *("--cells", "tanh", "--units", "3", "--learning-rate", "1e38", "--no-joint"),
    )
    assert code == 1
    assert "a smaller --learning-rate" in errors


def test_too_few_files(call, music, tmp_path):
    for path in sorted(music.iterdir())[2:]:
        path.unlink()
    code, _, errors = call("--midi-dir", music, "--log-dir", tmp_path / "runs")
    assert code == 2
    assert "holds 2 MIDI file(s)" in errors


@pytest.mark.slow
def test_published_set(call, tmp_path, monkeypatch):
    """A small file of the published layout; its steps are quarter notes."""
    parts = ("traindata", "validdata", "testdata")
    columns = {part: np.empty((1, 2), object) for part in parts}
    for part in parts:
        for k in range(2):
            columns[part][0, k] = np.eye(24, 88, k=40 + k, dtype=np.uint8)
    path = tmp_path / "JSB_Chorales.mat"
    savemat(path, columns)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(published.SHA256, path.name, digest)
    code, out, errors = call(
        *("--dataset", "jsb", "--data-dir", tmp_path, "--log-dir", tmp_path / "runs"),
        *("--cells", "tanh", "--units", 3, "--epochs", 1, "--no-joint"),
    )
    assert code == 0, errors
    assert "training: 2 pieces, 48 steps" in out
    folder, record = results(tmp_path / "runs")
    assert record["sequences"] == [2, 2, 2]
    written = mido.MidiFile(folder / "tanh" / "continuation.mid")
    assert written.ticks_per_beat == 120  # one step a quarter note
    code, _, errors = call("--dataset", "jsb", "--midi-dir", tmp_path)
    assert code == 2
    assert "not allowed with argument" in errors


@pytest.mark.parametrize(("dataset", "key"), [("jsb", "C"), ("bach", 0)])
def test_models_of_the_published_sets_say_that_they_are_in_c(
    script, monkeypatch, dataset, key
):
    trained = []
    monkeypatch.setattr(script.comparison, "train", lambda *args: trained.append(args))
    monkeypatch.setattr(script, "write_continuation", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--dataset", dataset])
    rolls = ([np.eye(24, 88, dtype=np.uint8)],) * 3
    data = script.music.Music(rolls, rolls, steps_per_quarter=1)
    script.train_joint(script.parse_arguments(), data, Path("unused"))
    ((model, *_),) = trained
    assert RollEncoding.of(model).transpose == key


def test_only_training_is_cut(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import polyphonic_music

    names = {"dataset": "bach", "midi_dir": None, "batch_size": 4, "seed": 1}
    args = argparse.Namespace(**names, sequence_length=6)
    parts = polyphonic_music.datasets(args, ([np.ones((13, 88))],) * 3)
    shapes = [{x.shape[1] for x, _, _ in part} for part in parts]
    assert shapes == [{6}, {12}, {12}]


@pytest.mark.slow
def test_ctrl_c_leaves_the_logs_and_the_best_model(music, tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, str(SCRIPT), "--midi-dir", str(music)),
            *("--log-dir", str(tmp_path / "runs"), "--cells", "tanh"),
            *("--units", "5", "--epochs", "100000", "--patience", "100000"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job hands on that Ctrl-C is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    best = None
    deadline = time.monotonic() + 120
    while not best and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.5)
        best = next(tmp_path.glob("runs/*/tanh/best.keras"), None)
    time.sleep(3)  # a few epochs more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in out
    assert "Traceback" not in err
    assert "AutoGraph" not in err
    assert keras.saving.load_model(best).layers[1].cell.units == 5
    _, valid = scalars(best.parent / "validation")
    assert valid["epoch_nll"]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_end(music, tmp_path):
    command = [
        *(sys.executable, str(SCRIPT), "--midi-dir", str(music), "--no-joint"),
        *("--log-dir", "runs", "--cells", "tanh", "gru"),
        *("--units", "5", "--epochs", "300", "--patience", "300"),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    subprocess.run(command, check=True, capture_output=True, cwd=whole)
    random = np.random.default_rng(1)
    for seen in ("tanh/backup.npz", "gru/backup.npz", "gru/validation"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=killed)
        while process.poll() is None and not list(killed.glob(f"runs/*/{seen}")):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 3))
        process.kill()
        process.wait()
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=killed
    )
    assert "Going on with the run in" in done.stdout
    assert results(killed / "runs")[1]["ended"]
    assert end_of(killed / "runs") == end_of(whole / "runs")


@pytest.mark.slow
def test_a_stopped_run_and_what_does_not_go_on_with_it(
    call, music, tmp_path, monkeypatch
):
    def run(*more):
        where = ("--midi-dir", music, "--log-dir", tmp_path / "runs", "--no-joint")
        return call(*where, "--cells", "tanh", "--units", 3, "--epochs", 1, *more)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    def folders():
        return sorted(path.name for path in (tmp_path / "runs").glob("2*"))

    # Anything may have this name.
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "results.json").write_text("[1]")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", stopped)
        code, out, _ = run()
        assert code == 130
        assert "the same command goes on" in out
    (first,) = folders()

    (more,) = [music / "more.mid"]
    midi.write(np.ones((40, 88), np.uint8), more)
    code, _, errors = run()
    assert code == 2
    assert "was begun with other sequences" in errors
    assert "--fresh begins a new one" in errors
    more.unlink()
    record = tmp_path / "runs" / first / "results.json"
    was = record.read_text()
    record.write_text(was.replace(keras.__version__, "0.0"))
    code, _, errors = run()
    assert code == 2
    assert "was begun with other versions" in errors
    record.write_text(was)

    assert run("--seed", 2)[0] == 0  # other arguments begin another run
    assert len(folders()) == 2
    unfinished = record.parent / "tanh" / ".best-0a1b2c3d.keras"
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.touch()
    code, out, _ = run()
    assert code == 0
    assert f"Going on with the run in {tmp_path / 'runs' / first}" in out
    assert not unfinished.exists()

    # Killed when the cell was in the record and its backup not yet removed.
    ended = json.loads(record.read_text())
    record.write_text(json.dumps({**ended, "ended": False}))
    backup = record.parent / "tanh" / "backup.npz"
    backup.touch()
    assert run()[0] == 0
    assert not backup.exists()
    assert json.loads(record.read_text()) == ended
    assert len(folders()) == 2
    assert len(folders()) == 2
    code, out, _ = run()  # what has ended is not gone on with
    assert "Going on" not in out
    assert len(folders()) == 3


@pytest.mark.slow
def test_names_do_not_depend_on_what_was_trained_before(
    script, call, music, tmp_path, monkeypatch
):
    """Keras numbers them, and a run that goes on has trained nothing before."""
    names = []

    def train(model, *_):
        names.append([layer.name for layer in model.layers] + [model.optimizer.name])
        raise ValueError("enough")

    monkeypatch.setattr(script.comparison, "train", train)
    where = ("--midi-dir", music, "--log-dir", tmp_path / "runs", "--units", 3)
    call(*where, "--cells", "tanh", "gru")
    call(*where, "--cells", "gru")
    tanh, gru, joint, *alone = names
    assert alone == [gru, joint]
    assert tanh == gru


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(tmp_path):
    """Four cells on the chorales; ten epochs show that all of them learn."""
    where = ("--log-dir", tmp_path / "runs", "--epochs", "10")
    optimized = {**os.environ, "XLA_FLAGS": ""}  # unlike the tests
    done = subprocess.run(
        [sys.executable, SCRIPT, *where],
        capture_output=True,
        text=True,
        check=True,
        env=optimized,
    )
    folder, record = results(tmp_path / "runs")
    assert [row["cell"] for row in record["rows"]] == [*CELLS, "joint"]
    assert record["sequences"] == [210, 69, 69]
    for row in record["rows"]:
        assert row["cell"] == "joint" or 19_700 < row["parameters"] < 20_300
        # Every key at its training rate gives 11.70, and after 10 epochs the cells
        # were between 8.2 and 9.9 by validation (docs/demo/results.json).
        assert row["test_nll"] < 10.3, done.stdout
        assert (folder / row["cell"] / "continuation.mid").exists()
