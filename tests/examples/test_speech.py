"""The cells on raw sound: a short run on small files, baselines, what goes wrong."""

import argparse
import importlib.util
import json
import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special, stats

from keras_gated.datasets import audio, fsdd

for package in ("soundfile", "soxr", "sklearn"):
    pytest.importorskip(package, reason="the extra 'examples' is not installed")

SCRIPT = Path(__file__).parents[2] / "examples" / "speech.py"
BASELINES = ["no past: Gaussian", "no past: mixture", "linear prediction"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.delenv(fsdd.DATA_DIR, raising=False)
    spec = importlib.util.spec_from_file_location("speech", SCRIPT)
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


@pytest.fixture
def sound(tmp_path):
    """Ten files by two speakers, of several rates and channels, and a broken one."""
    random = np.random.default_rng(0)
    for k in range(10):
        rate = (8000, 11_025, 16_000)[k % 3]
        time = np.arange(int((0.6 + 0.01 * k) * rate)) / rate
        tones = 0.3 * np.sin(2 * np.pi * (200 + 30 * k) * time)[:, None]
        noise = 0.02 * random.normal(size=(len(time), 1 + k % 2))
        path = tmp_path / "sound" / "ab"[k % 2] / f"{k}{('.wav', '.flac')[k % 4 == 3]}"
        audio.write(tones + noise, path, rate)
    (tmp_path / "sound" / "broken.wav").write_bytes(b"RIFF and no more")
    return tmp_path / "sound"


def results(log_dir):
    (folder,) = log_dir.iterdir()
    return folder, json.loads((folder / "results.json").read_text())


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


def nll_by_scipy(model, samples):
    """The mean over the steps of sequences of 500 samples, cut one after the other."""
    pieces = samples[: len(samples) // 500 * 500].reshape(-1, 500)
    windows = sliding_window_view(pieces, 30, axis=1)[:, ::10]
    parameters = model.predict(windows[..., :20], verbose=0)
    log_weights, means, log_scales = np.split(parameters, [20, 220], axis=-1)
    means, log_scales = (p.reshape(*p.shape[:2], 20, 10) for p in (means, log_scales))
    events = windows[..., None, 20:]
    each = stats.norm.logpdf(events, means, np.exp(log_scales)).sum(-1)
    return -special.logsumexp(log_weights + each, axis=-1).mean()


@pytest.mark.slow
def test_short_run_writes_everything(call, sound, tmp_path):
    code, out, errors = call(
        *("--audio-dir", sound, "--log-dir", tmp_path / "runs", "--epochs", 1),
        *("--sampling-rate", 4000, "--batch-size", 8, "--seed", 3),
        *("--cells", "gru", "--units", 5),
    )
    assert code == 0, errors
    assert "10 sound files read" in out
    assert "skipped: " in out
    assert "broken.wav" in out
    assert "training: 8 recordings" in out
    folder, record = results(tmp_path / "runs")
    assert "--seed 3" in record["command"]
    assert record["versions"]["keras"] == keras.__version__
    assert record["recordings"] == [8, 1, 1]
    rows = record["rows"]
    assert [row["cell"] for row in rows] == [*BASELINES, "gru"]

    lines = out.splitlines()
    (head,) = (n for n, line in enumerate(lines) if line.startswith("cell  "))
    assert lines[head].split("  ")[-1].strip() == "as recorded"
    for row, line in zip(rows, lines[head + 2 :], strict=False):
        assert line.startswith(row["cell"])
        assert f"{row['test_nll']:.3f}" in line
        assert line.endswith(f"{row['test_nll_as_recorded']:.3f}")
        to_recorded = row["test_nll_as_recorded"] - row["test_nll"]
        assert to_recorded == pytest.approx(10 * math.log(record["deviation"]))
    assert (folder / "learning_curves.png").read_bytes()[1:4] == b"PNG"

    for row in rows[3:]:
        assert (row["units"], row["epochs"]) == (5, 1)
        written = folder / row["cell"]
        model = keras.saving.load_model(written / "best.keras")
        assert model.layers[-1].event_mean == record["mean"]
        assert model.layers[-1].event_std == record["deviation"]
        # Of the test set's one recording.
        recorded, rate = audio.read(written / "recorded.wav")
        assert rate == 4000
        standard = (recorded[:, 0] - record["mean"]) / record["deviation"]
        expected = nll_by_scipy(model, standard)
        assert row["test_nll"] == pytest.approx(expected, abs=1e-3)
        assert row["test_nll_sequence"] == pytest.approx(expected, abs=1e-3)

        generated, rate = audio.read(written / "generated.wav")
        assert (len(generated), rate) == (2000 + 8000, 4000)
        np.testing.assert_array_equal(generated[:2000], recorded[:2000])
        assert len(np.unique(generated[2000:])) > 100
        log = tensorboard(written)
        heard = wav_of(log["sound/recorded"][0])
        np.testing.assert_allclose(heard, recorded, atol=1e-4)
        heard = wav_of(log["sound/generated"][0])
        assert heard.shape == recorded.shape
        np.testing.assert_allclose(heard[:2000], recorded[:2000], atol=1e-4)
        width, height, png, *_ = log["waveforms"][0]
        assert png[1:4] == b"PNG"
        assert int(width) > int(height) > 100


def wav_of(event):
    import tensorflow as tf

    samples, rate = tf.audio.decode_wav(event.ravel()[0])
    assert int(rate) == 4000
    return samples.numpy()


def test_baselines_of_a_process_with_known_entropy(script, tmp_path):
    """x(t) = 0.9 x(t-1) + e: what the past tells, the sample before tells alone."""
    spread = 0.05
    random = np.random.default_rng(1)
    data = []
    for part in ("train", "valid", "test"):
        x = np.zeros(30_000)
        for t, e in enumerate(random.normal(0, spread, len(x) - 1)):
            x[t + 1] = 0.9 * x[t] + e
        audio.write(x, tmp_path / f"{part}.wav", 8000, bits=24)
        data.append(audio.read_files([tmp_path / f"{part}.wav"], verbose=0))
    args = argparse.Namespace(sequence_length=500, batch_size=16, seed=1)
    rows = script.baselines(args, tuple(data))
    assert [row["cell"] for row in rows] == BASELINES
    gaussian, mixture, linear = (row["test_nll_as_recorded"] for row in rows)
    entropy = stats.norm(scale=spread).entropy()
    assert linear == pytest.approx(10 * entropy, abs=0.15)
    first = stats.norm(scale=spread / math.sqrt(1 - 0.9**2)).entropy()
    assert gaussian == pytest.approx(9 * entropy + first, abs=0.15)
    # Diagonal components cannot do better than the truth, but than independence.
    assert gaussian - 0.15 < mixture < 10 * first - 1
    for row in rows:
        assert row["train_nll"] == pytest.approx(row["test_nll"], abs=0.4)


def test_ctrl_c_keeps_what_is_done(script, call, tmp_path, monkeypatch):
    """On digits of our own, split by speaker."""
    for speaker in "abcd":
        for index in range(6):
            noise = np.random.default_rng(index).normal(0, 0.1, 2000)
            audio.write(noise, tmp_path / "digits" / f"7_{speaker}_{index}.wav", 8000)

    def train_cell(name, args, data, run):
        assert [{path.name[2] for path in part.paths} for part in data] == [
            {"a", "b"},
            {"c"},
            {"d"},
        ]
        if name == "lstm":
            raise KeyboardInterrupt
        return {"cell": name, "test_nll": -1.25}, {}

    monkeypatch.setattr(script, "train_cell", train_cell)
    monkeypatch.setattr("comparison.results.plot_learning_curves", lambda *_: None)
    code, out, _ = call(
        *("--dataset", "fsdd", "--data-dir", tmp_path / "digits"),
        *("--split", "speaker", "--log-dir", tmp_path / "runs"),
    )
    assert code == 130
    assert "Interrupted" in out
    assert "-1.250" in out
    _, record = results(tmp_path / "runs")
    assert [row["cell"] for row in record["rows"]] == [*BASELINES, "tanh"]
    assert record["recordings"] == [12, 6, 6]


def test_speakers_of_a_folder_are_not_shared(script, tmp_path):
    for speaker in "abcdef":
        for k in range(2):
            audio.write(np.full(100, 0.1), tmp_path / speaker / f"{k}.wav", 8000)
    args = argparse.Namespace(
        audio_dir=tmp_path,
        dataset="auto",
        decoder="auto",
        sampling_rate=8000,
        seed=1,
        split="speaker",
    )
    parts = script.load_sound(args)
    speakers = [{path.parent.name for path in part.paths} for part in parts]
    assert [len(some) for some in speakers] == [4, 1, 1]
    assert set.union(*speakers) == set("abcdef")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audio-dir", "{empty}/none"], "is not a folder"),
        (["--audio-dir", "{empty}"], "holds no sound file"),
        (["--dataset", "fsdd"], "Get it: git clone"),
        (["--dataset", "fsdd", "--data-dir", "{empty}"], "Get it: git clone"),
        (
            ["--audio-dir", "{sound}", "--sampling-rate", "8"],
            "an integer from 100 to",
        ),
        (
            ["--audio-dir", "{sound}", "--sequence-length", "29"],
            "of at least 30",
        ),
        (
            ["--audio-dir", "{sound}", "--sequence-length", "50000"],
            "No sequence of 50,000 samples",
        ),
        (
            ["--audio-dir", "{sound}", "--split", "speaker"],
            "each of two parts needs one",
        ),
        (["--audio-dir", "{sound}", "--dataset", "fsdd"], "not allowed with argument"),
        (["--sampling-rate", "2.5"], "positive whole number"),
    ],
)
def test_bad_arguments_end_with_2_and_a_line(call, sound, tmp_path, arguments, message):
    empty, runs = tmp_path / "empty", tmp_path / "runs"
    empty.mkdir()
    code, _, errors = call(
        *(a.format(empty=empty, sound=sound) for a in arguments), "--log-dir", runs
    )
    assert code == 2
    assert "speech.py: error:" in errors.splitlines()[-1]
    assert message in errors.splitlines()[-1]
    assert not runs.exists()


@pytest.mark.slow
def test_the_cells_learn_from_sine_tones(call, chorales_home, tmp_path):
    """After an epoch all four are better than a mixture that does not know the past.

    (The other baselines are no measure here: of a test piece with a tone that the
    training set has not, pure as it is, Gaussians make thousands of nats.)
    """
    code, out, errors = call(
        *("--dataset", "chorales", "--log-dir", tmp_path / "runs"),
        *("--units", 32, "--epochs", 1, "--learning-rate", 0.003),
    )
    assert code == 0, errors
    _, record = results(tmp_path / "runs")
    nll = {row["cell"]: row["test_nll"] for row in record["rows"]}
    assert list(nll) == [*BASELINES, "tanh", "lstm", "gru", "simplified_gru"]
    for cell in list(nll)[3:]:
        assert nll[cell] < nll["no past: mixture"] - 0.5, out
