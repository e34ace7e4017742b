"""A saved model as files, each beside the model."""

import importlib
import json
import sys

import keras
import numpy as np
import pytest

import keras_gated
from keras_gated import GRU, LSTM, exporting

if keras.config.backend() != "tensorflow":
    pytest.skip("exports are TensorFlow's", allow_module_level=True)
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")
export_model = importlib.import_module("export_model")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the script in this process; its exit code, output, errors and table."""

    def run_here(layers, *more):
        path, folder = tmp_path / "model.keras", tmp_path / "files"
        if layers:
            keras.Sequential([keras.Input((None, 6)), *layers]).save(path)
        arguments = ["--model", path, "--to", folder, *more]
        monkeypatch.setattr(sys, "argv", ["export_model.py", *map(str, arguments)])
        code = export_model.main()
        written = folder / "exports.json"
        table = json.loads(written.read_text()) if written.is_file() else None
        return code, *capsys.readouterr(), table

    return run_here


def test_every_form_is_measured(call, tmp_path):
    layers = [GRU(40, return_sequences=True), keras.layers.Dense(6)]
    code, said, errors, table = call(layers, "--quantize")
    assert code == 0, errors
    assert {row["file"] for row in table.values()} | {"exports.json"} == {
        path.name for path in (tmp_path / "files").iterdir()
    }
    for title, row in table.items():
        assert title in said
        assert row["bytes"] > 1000
        assert (row["ms a sequence"] is None) == ("one step" in title)
        if "8 bits" in title:
            assert 1e-5 < row["largest difference"] < 0.1
            before, after = row["nats a step of the model, and of the file"]
            assert 0 < abs(before - after) < 0.1
        else:
            assert row["largest difference"] < 1e-5
    assert table["ONNX, sequences"]["operators"] < 20  # a loop: 80
    small, large = (
        table[f"LiteRT, one step{more}"]["bytes"] for more in (", 8 bits", "")
    )
    assert small < 0.6 * large


def test_a_form_that_there_is_not_is_named_and_the_others_are_written(call):
    both = keras.layers.Bidirectional(LSTM(2), name="both")
    code, said, _, table = call([both])
    assert code == 0
    assert "not written: A model that reads sequences backwards" in said
    assert {title for title, row in table.items() if "not written" in row} == {
        "ONNX, one step",
        "LiteRT, one step",
    }


def test_a_file_with_other_numbers_is_an_error(call, monkeypatch):
    def other(model, path, **options):
        right(keras.models.clone_model(model), path, **options)  # of other weights

    right = exporting.to_saved_model
    monkeypatch.setattr(exporting, "to_saved_model", other)
    code, _, errors, _ = call([GRU(2)])
    assert code == 2
    assert "saved' differ from the model's by" in errors


def test_what_is_no_model(call, tmp_path):
    code, _, errors, _ = call(None)
    assert code == 2
    assert "There is no model" in errors
    (tmp_path / "model.keras").write_bytes(b"PK")
    code, _, errors, _ = call(None)
    assert code == 2
    assert "is no model that loads" in errors
    (tmp_path / "files").write_bytes(b"")
    code, _, errors, _ = call([GRU(2)])
    assert code == 2
    assert "files' is a file; --to takes a folder" in errors


def test_the_likelihood_of_next_frames_is_that_of_the_loss():
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(3)])
    nats = export_model.likelihood(model)
    zeros = np.zeros((1, 4, 3), "float32")
    assert float(nats(zeros, zeros)) == pytest.approx(3 * np.log(2))
    layers = [keras.layers.Dense(3, "sigmoid"), keras_gated.GaussianMixture(2, 5)]
    for layer in layers:  # no logits; values that are not the next frames
        assert (
            export_model.likelihood(keras.Sequential([keras.Input((None, 3)), layer]))
            is None
        )
