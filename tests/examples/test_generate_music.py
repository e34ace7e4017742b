"""A saved model goes on with a MIDI file."""

import importlib.util
import sys
import wave
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_gated
from keras_gated.datasets import midi

SCRIPT = Path(__file__).parents[2] / "examples" / "generate_music.py"


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the script in this process; its exit code, output and errors."""
    spec = importlib.util.spec_from_file_location("generate_music", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        return script.main(), *capsys.readouterr()

    return run_here


@pytest.fixture
def model(tmp_path):
    layers = [
        keras.Input((None, 88)),
        keras_gated.RNN(keras_gated.GRUCell(4), return_sequences=True),
        keras.layers.Dense(88, bias_initializer=keras.initializers.Constant(-3.0)),
    ]
    keras.Sequential(layers, name="gru").save(tmp_path / "best.keras")
    return tmp_path / "best.keras"


@pytest.fixture
def tune(tmp_path):
    roll = np.zeros((24, 88), np.uint8)
    roll[np.arange(24), 40 + np.arange(24) % 5] = 1
    midi.write(roll, tmp_path / "tune.mid")
    return tmp_path / "tune.mid"


def test_writes_music_sound_and_picture(call, model, tune, tmp_path):
    def go_on(name, *arguments):
        code, out, errors = call(
            *("--model", model, "--midi", tune, "--output", tmp_path / name),
            *("--bars", 2, "--seed", 3, "--tempo", 120, *arguments),
        )
        assert code == 0, errors
        return out, midi.read(tmp_path / f"{name}.mid")

    out, music = go_on("all")
    assert "24 steps of tune.mid and 16 of the model" in out
    np.testing.assert_array_equal(music[:24], midi.read(tune))
    assert 24 < len(music) <= 40
    assert music[24:].any()
    with wave.open(str(tmp_path / "all.wav")) as sound:  # a step is a quarter second
        assert sound.getnframes() / sound.getframerate() >= 24 / 4
    assert (tmp_path / "all.png").read_bytes()[1:4] == b"PNG"
    _, same = go_on("again")
    np.testing.assert_array_equal(music, same)
    _, short = go_on("short", "--primer-bars", 1)
    np.testing.assert_array_equal(short[:8], music[:8])
    assert len(short) <= 24


def test_errors_end_with_2_and_a_line(call, model, tune, tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "text.mid").write_text("no music")
    for arguments, message in (
        (("--model", tmp_path / "none.keras", "--midi", tune), "There is no model"),
        (("--model", tmp_path / "text.keras", "--midi", tune), "no model that loads"),
        (("--model", model, "--midi", tmp_path / "none.mid"), "There is no file"),
        (("--model", model, "--midi", tmp_path / "text.mid"), "is not a MIDI file"),
        (("--model", model, "--midi", tune, "--bars", 0), "must be 1 or more"),
    ):
        code, _, errors = call(*arguments, "--output", tmp_path / "out")
        assert code == 2
        assert message in errors.splitlines()[-1]
        assert not list(tmp_path.glob("out*"))
