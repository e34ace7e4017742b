"""The callbacks, in a real `fit` and read back from what they wrote."""

import keras
import numpy as np
import pytest
from oracles import array

import keras_gated
from keras_gated import callbacks, metrics


def small_model():
    model = keras.Sequential([keras.Input((None, 88)), keras.layers.Dense(88)])
    model.compile("sgd", "mse")
    return model


X = np.random.default_rng(0).random((4, 6, 88)).astype("float32")


class Figures(keras.callbacks.Callback):
    """Puts given figures in the place of the validation loss."""

    def __init__(self, figures):
        super().__init__()
        self.figures = figures

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.figures[epoch]
        self.model.layers[-1].bias.assign(np.full(88, epoch, "float32"))


def test_best_model_is_that_of_the_best_epoch(tmp_path):
    path = tmp_path / "best.keras"
    small_model().fit(
        X,
        X,
        epochs=5,
        verbose=0,
        callbacks=[Figures([3, 1, 2, float("nan"), 1]), callbacks.BestModel(path)],
    )
    best = keras.saving.load_model(path)
    np.testing.assert_array_equal(array(best.layers[-1].bias), 1)
    assert [p.name for p in tmp_path.iterdir()] == ["best.keras"]


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [
        ("val_frame_accuracy", "auto", 0.9),
        ("val_out_frame_accuracy", "auto", 0.9),
        ("val_frame_nll", "auto", 0.1),
        ("val_loss", "auto", 0.1),
        ("lr", "max", 0.9),
        ("val_frame_accuracy", "min", 0.1),
    ],
)
def test_best_model_knows_which_way_a_metric_is_better(tmp_path, monitor, mode, best):
    model = small_model()
    model.compile("sgd", "mse", metrics=[metrics.FrameNLL(), metrics.FrameAccuracy()])
    model.fit(X, X, verbose=0)
    callback = callbacks.BestModel(tmp_path / "b.keras", monitor, mode)
    callback.set_model(model)
    for figure in (0.5, 0.9, 0.1, float("nan"), 0.2):
        callback.on_epoch_end(0, {monitor: figure})
    assert callback.best == best


def test_best_model_says_what_it_takes(tmp_path):
    with pytest.raises(ValueError, match=r"`mode` must be .*mode='larger'"):
        callbacks.BestModel(tmp_path / "b.keras", mode="larger")
    callback = callbacks.BestModel(tmp_path / "b.keras", "lr")
    callback.set_model(small_model())
    with pytest.raises(ValueError, match="'lr' does not say which way"):
        callback.on_epoch_end(0, {"lr": 1.0})


def test_best_model_survives_an_interruption_while_saving(tmp_path, monkeypatch):
    path = tmp_path / "best.keras"
    model = small_model()
    callback = callbacks.BestModel(path)
    callback.set_model(model)
    callback.on_epoch_end(0, {"val_loss": 2.0})
    before = path.read_bytes()

    def interrupted(file):
        with open(file, "wb") as half:
            half.write(b"half a model")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        callback.on_epoch_end(1, {"val_loss": 1.0})
    assert path.read_bytes() == before


def test_a_figure_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"'val_nll'.*Available: \['loss'\]"):
        small_model().fit(
            X,
            X,
            verbose=0,
            callbacks=[callbacks.BestModel(tmp_path / "b.keras", "val_nll")],
        )


@pytest.mark.parametrize("stop_at", [None, 3])
def test_epoch_progress(capsys, stop_at):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == stop_at

    small_model().fit(
        X, X, epochs=5, verbose=0, callbacks=[callbacks.EpochProgress(["loss"]), Stop()]
    )
    out = capsys.readouterr().out
    assert f"{stop_at or 5}/5" in out
    assert "loss: " in out
    assert out.endswith("\n")


def read_back(folder):
    from tensorboard.backend.event_processing import event_accumulator

    log = event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    log.Reload()
    return log


def read_image(event):
    import tensorflow as tf

    width, height, png, *_ = tf.make_ndarray(event.tensor_proto)
    image = tf.io.decode_png(png, channels=3).numpy()
    assert image.shape == (int(height), int(width), 3)
    return image


def test_pictures_are_read_back_from_tensorboard(tmp_path):
    roll = (X[0] > 0.9).astype("uint8")
    callback = callbacks.PianoRollImage(tmp_path, roll, every=2)
    small_model().fit(X, X, epochs=4, verbose=0, callbacks=[callback])
    events = read_back(tmp_path).Tensors("piano_roll")
    assert [event.step for event in events] == [0, 2]
    assert len(np.unique(read_image(events[0]))) > 10


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_the_equations(cell, inputs):
    """The gates at every step of one sequence, in float64."""
    W, U, b, *V = (array(w).astype("float64") for w in cell.weights)
    name, h = type(cell).__name__, np.zeros(cell.units)
    b, b_U = b if b.ndim == 2 else (b, np.zeros_like(b))
    c, steps = h, []
    for x in inputs:
        blocks = len(b) // cell.units
        a = np.split(x @ W + b, blocks)
        u = np.split(h @ U + b_U, blocks)
        if name == "TanhCell":
            h = np.tanh(a[0] + u[0])
            gates = {"state": h}
        elif name == "LSTMCell":
            V_i, V_f, V_o = V[0]
            i = sigmoid(a[0] + u[0] + V_i * c)
            f = sigmoid(a[1] + u[1] + V_f * c)
            candidate = np.tanh(a[2] + u[2])
            c = f * c + i * candidate
            o = sigmoid(a[3] + u[3] + V_o * c)
            h = o * np.tanh(c)
            gates = {"input": i, "forget": f, "candidate": candidate, "output": o}
        else:
            z = sigmoid(a[0] + u[0])
            gates = {"update": z}
            if name == "SimplifiedGRUCell":
                candidate = np.tanh(a[1] + u[1])
            else:
                gates["reset"] = r = sigmoid(a[1] + u[1])
                U_h = U[:, 2 * cell.units :]
                after = r * u[2] if cell.reset_after else (r * h) @ U_h
                candidate = np.tanh(a[2] + after)
            gates["candidate"] = candidate
            h = (1 - z) * h + z * candidate
        steps.append(gates)
    return {name: np.stack([gates[name] for gates in steps]) for name in steps[0]}


def with_random_weights(model):
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


ROLL = (np.random.default_rng(3).random((12, 88)) > 0.9).astype("uint8")
SOUND = np.sin(np.arange(400) / 3).astype("float32")
FRAMES = np.lib.stride_tricks.sliding_window_view(SOUND, 20)[::10]
# With seeds, for without them PyTorch draws dropout from its global generator.
NOISY = {"weight_noise": 0.3, "dropout": 0.3, "recurrent_dropout": 0.3, "seed": 6}


@pytest.mark.parametrize(
    ("layer", "probe"),
    [
        (keras_gated.TanhRNN(4, **NOISY), ROLL),
        (keras_gated.RNN(keras_gated.LSTMCell(4, **NOISY)), FRAMES),
        (keras_gated.GRU(4, **NOISY, return_sequences=True), ROLL),
        (keras_gated.GRU(4, **NOISY, reset_after=True), X[0, :, :5]),
        (keras.layers.RNN(keras_gated.SimplifiedGRUCell(4, **NOISY)), FRAMES),
    ],
    ids=["tanh", "lstm", "gru", "gru_reset_after", "simplified_gru"],
)
def test_gates_are_those_of_the_equations(tmp_path, layer, probe):
    import tensorflow as tf

    inputs = keras.Input((None, probe.shape[1]))
    before = keras.layers.Dense(3)
    outputs = keras.layers.Dense(2)(layer(before(inputs)))
    model = with_random_weights(keras.Model(inputs, outputs))
    monitor = callbacks.GateMonitor(tmp_path, probe)
    monitor.set_model(model)
    kept = [array(v).copy() for v in model.variables]  # the seeds are among them
    monitor.on_train_begin()
    monitor.on_epoch_end(0)
    monitor.on_train_end()
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(array(variable), value)

    kernel, bias = (array(w).astype("float64") for w in before.weights)
    expected = by_the_equations(layer.cell, probe @ kernel + bias)
    gates = monitor.gates(model)
    assert gates.keys() == expected.keys()
    log = read_back(tmp_path)
    tags = {f"gates/{name}" for name in gates} | {"gates"}
    assert set(log.Tags()["tensors"]) == tags
    for name, values in gates.items():
        np.testing.assert_allclose(values, expected[name], 1e-4, 1e-5)
        (event,) = log.Tensors(f"gates/{name}")
        left, right, count = tf.make_ndarray(event.tensor_proto).T
        assert count.sum() == len(probe) * 4
        extent = expected[name].min(), expected[name].max()
        np.testing.assert_allclose([left[0], right[-1]], extent, 1e-4, 1e-5)
        mean = np.average((left + right) / 2, weights=count)
        assert abs(mean - expected[name].mean()) < np.ptp(extent) / len(left)
    height, width, _ = read_image(*log.Tensors("gates")).shape
    assert 800 < width < 1200
    assert 100 * (len(gates) + 1) < height < 300 * (len(gates) + 1)


def test_masked_and_backward_steps_keep_their_place(tmp_path):
    """And the layer is found in a model within the model."""
    layer = keras.layers.RNN(keras_gated.GRUCell(4), go_backwards=True)
    inner = keras.Sequential([keras.layers.Masking(), layer])
    model = keras.Sequential([keras.Input((None, 3)), inner])
    probe = np.random.default_rng(4).normal(size=(7, 3))
    probe[2] = 0
    gates = callbacks.GateMonitor(tmp_path, probe).gates(with_random_weights(model))
    expected = by_the_equations(layer.cell, probe[[6, 5, 4, 3, 1, 0]])
    for name, values in gates.items():
        assert np.isnan(values[2]).all()
        read = values[[6, 5, 4, 3, 1, 0]]
        np.testing.assert_allclose(read, expected[name], 1e-4, 1e-5)


def test_training_goes_as_if_nobody_looked(tmp_path):
    def train(*watchers):
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                keras.Input((6, 88), batch_size=2),
                keras.layers.Dropout(0.3, seed=7),
                keras_gated.GRU(3, stateful=True, return_sequences=True, **NOISY),
                keras.layers.Dense(88),
            ]
        )
        model.compile("sgd", "mse")
        options = {"batch_size": 2, "epochs": 2, "shuffle": False, "verbose": 0}
        model.fit(X, X, **options, callbacks=watchers)
        model(X[:2])  # on JAX, `fit` leaves the states of a layer as they were
        for watcher in watchers:
            watcher.gates(model)
        states = keras.tree.flatten(model.layers[1].states)
        assert array(states[0]).any()
        return [array(v) for v in (*model.variables, *states)]

    monitor = callbacks.GateMonitor(tmp_path, X[0])
    for watched, alone in zip(train(monitor), train(), strict=True):
        np.testing.assert_array_equal(watched, alone)
    assert len(read_back(tmp_path).Tensors("gates")) == 1


def small_models():
    gru = keras_gated.GRU(4, name="watched")
    return {
        "gru": keras.Sequential([keras.Input((6, 88)), gru]),
        "keras": keras.Sequential([keras.Input((6, 88)), keras.layers.GRU(4)]),
        "images": keras.Sequential([keras.Input((6, 88, 1)), keras.layers.Flatten()]),
    }


@pytest.mark.parametrize(
    ("model", "probe", "arguments", "message"),
    [
        ("gru", X, {}, r"probe.*\[T, features\].*\(4, 6, 88\)"),
        ("gru", X[0, :0], {}, r"a step at least.*\(0, 88\)"),
        ("gru", X[0, :, :20], {}, r"\(None, 6, 88\).*\(6, 20\)"),
        ("gru", X[0, :4], {}, r"\(None, 6, 88\).*\(4, 88\)"),
        ("gru", X[0], {"layer": "gru_7"}, "layer='gru_7'.*'watched': 'GRU'"),
        ("keras", X[0], {}, "no recurrent layer over a cell of keras_gated"),
        ("images", X[0], {}, "no recurrent layer over a cell of keras_gated"),
        ("gru", X[0], {"every": 0}, "`every`"),
    ],
)
def test_what_a_monitor_cannot_show(tmp_path, model, probe, arguments, message):
    model = small_models()[model]
    with pytest.raises(ValueError, match=message):
        callbacks.GateMonitor(tmp_path, probe, **arguments).gates(model)


def test_layers_with_gates_come_first(tmp_path):
    layers = [keras_gated.TanhRNN(2), keras_gated.GRU(3), keras_gated.LSTM(4)]
    for layer in layers:
        layer.return_sequences = True
    model = keras.Sequential([keras.Input((None, 88)), *layers])

    def shown(layer=None):
        return {*callbacks.GateMonitor(tmp_path, ROLL, layer).gates(model)}

    assert shown() == {"update", "reset", "candidate"}
    assert shown(layers[0]) == {"state"}
    assert shown(layers[2].name) == {"input", "forget", "candidate", "output"}


def test_a_model_of_sound_is_heard(tmp_path):
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((None, 20)),
            keras_gated.GRU(4, return_sequences=True),
            keras_gated.GaussianMixture(2, 10),
        ]
    )
    model.compile("sgd", keras_gated.losses.GaussianMixtureNLL(2, 10))
    recording = 0.5 * SOUND
    rate, primer = 1000, 150
    callback = callbacks.SoundSummary(
        tmp_path, recording, rate, primer_seconds=primer / rate
    )
    frames, events = FRAMES[None, :-1], FRAMES[None, 1:, 10:]
    model.fit(frames, events, epochs=2, verbose=0, callbacks=[callback])

    log = read_back(tmp_path)
    tags = {"recorded": "sound/recorded", "generated": "sound/generated"}
    assert set(log.Tags()["tensors"]) == {*tags.values(), "waveforms"}
    sounds = {}
    for name, tag in tags.items():
        (event,) = log.Tensors(tag)
        ((wav, _),) = tf.make_ndarray(event.tensor_proto)
        samples, sample_rate = tf.audio.decode_wav(wav)
        assert sample_rate == rate
        sounds[name] = samples.numpy()[:, 0]
    of_16_bits = {"rtol": 0, "atol": 2**-14}
    np.testing.assert_allclose(sounds["recorded"], recording, **of_16_bits)
    generated = sounds["generated"]
    assert generated.shape == recording.shape
    np.testing.assert_allclose(generated[:primer], recording[:primer], **of_16_bits)
    assert np.abs(generated[primer:] - recording[primer:]).max() > 0.01
    assert len(np.unique(read_image(log.Tensors("waveforms")[0]))) > 10


@pytest.mark.parametrize("samples", [150, 149, (2, 400)])
def test_a_recording_longer_than_what_is_read(tmp_path, samples):
    with pytest.raises(ValueError, match=r"more than the model reads: 150"):
        callbacks.SoundSummary(tmp_path, np.zeros(samples), 300)
