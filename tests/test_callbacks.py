"""The callbacks, in a real `fit` and read back from what they wrote."""

import sys

import keras
import numpy as np
import pytest
from oracles import array

import keras_gated
from keras_gated import callbacks, inspection, metrics


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
        ("val_binary_accuracy", "auto", 0.9),  # one of Keras's, where this is private
        ("val_loss", "auto", 0.1),
        ("lr", "max", 0.9),
        ("val_frame_accuracy", "min", 0.1),
    ],
)
def test_best_model_knows_which_way_a_metric_is_better(tmp_path, monitor, mode, best):
    model = small_model()
    of_keras = keras.metrics.BinaryAccuracy()
    ours = metrics.FrameNLL(), metrics.FrameAccuracy()
    model.compile("sgd", "mse", metrics=[*ours, of_keras])
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


def test_pictures_of_whole_frames_that_are_told_things(tmp_path):
    roll = np.concatenate([ROLL, np.zeros_like(ROLL)], axis=1)
    told = np.eye(len(roll), 3)
    inputs = [keras.Input((None, width)) for width in (176, 176, 3)]
    x = keras.layers.Concatenate()([inputs[0], inputs[2]])
    logits = keras_gated.NADE(2, onsets=True)([x, inputs[1], inputs[0]])
    model = keras.Model(inputs, logits)
    callback = callbacks.PianoRollImage(tmp_path, roll, features=told)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    (event,) = read_back(tmp_path).Tensors("piano_roll")
    assert len(np.unique(read_image(event))) > 10


def test_pictures_of_a_model_without_layers(tmp_path):
    class Sure(keras.Model):
        def call(self, inputs):
            return 8 * inputs - 4

    callback = callbacks.PianoRollImage(tmp_path, ROLL)
    callback.set_model(Sure())
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    assert len(read_back(tmp_path).Tensors("piano_roll")) == 1


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
        (keras_gated.TanhRNN(4), ROLL),
        (keras_gated.LSTM(4), FRAMES),
        (keras_gated.GRU(4), X[0, :, :5]),
    ],
    ids=["of a roll", "of sound", "of numbers"],
)
def test_gates_are_read_back_from_tensorboard(tmp_path, layer, probe):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((None, probe.shape[1])), layer])
    with_random_weights(model)
    monitor = callbacks.GateMonitor(tmp_path, probe)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_epoch_end(0)
    monitor.on_train_end()
    expected = inspection.gates(model, np.float32(probe))
    log = read_back(tmp_path)
    tags = {f"gates/{name}" for name in expected} | {"gates"}
    assert set(log.Tags()["tensors"]) == tags
    for name, values in expected.items():
        (event,) = log.Tensors(f"gates/{name}")
        left, right, count = tf.make_ndarray(event.tensor_proto).T
        assert count.sum() == len(probe) * 4
        extent = values.min(), values.max()
        np.testing.assert_allclose([left[0], right[-1]], extent, 1e-6)
        mean = np.average((left + right) / 2, weights=count)
        assert abs(mean - values.mean()) < np.ptp(extent) / len(left)
    height, width, _ = read_image(*log.Tensors("gates")).shape
    assert 800 < width < 1200
    assert 100 * (len(expected) + 1) < height < 300 * (len(expected) + 1)


def test_the_curves_have_all_epochs(tmp_path):
    import tensorflow as tf

    def train(board, folder):
        board = board(folder, write_graph=False, update_freq=3)
        options = {"epochs": 4, "batch_size": 2, "validation_data": (X, X)}
        fitted = small_model().fit(X, X, callbacks=[board], verbose=0, **options)
        return fitted.history

    def curve(part, tag, folder="ours"):
        events = read_back(tmp_path / folder / part).Tensors(tag)
        values = [tf.make_ndarray(event.tensor_proto) for event in events]
        return [event.step for event in events], values

    history = train(callbacks.TensorBoard, tmp_path / "ours")
    for part, tag, steps, name in (
        ("train", "epoch_loss", [0, 1, 2, 3], "loss"),
        ("validation", "epoch_loss", [0, 1, 2, 3], "val_loss"),
        ("validation", "evaluation_loss_vs_iterations", [2, 4, 6, 8], "val_loss"),
    ):
        found, values = curve(part, tag)
        assert found == steps
        np.testing.assert_allclose(values, history[name], 1e-6)
    # What is written of batches is Keras's matter, and its versions differ.
    train(keras.callbacks.TensorBoard, str(tmp_path / "keras"))
    batches = ("train", "batch_loss")
    assert curve(*batches)[0] == curve(*batches, "keras")[0]


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


@pytest.mark.parametrize(
    ("probe", "arguments", "message"),
    [
        (X, {}, r"probe.*\[T, features\].*\(4, 6, 88\)"),
        (X[0, :0], {}, r"at least one step.*\(0, 88\)"),
        (X[0, :, :20], {}, r"\(None, 6, 88\).*\(6, 20\)"),
        (X[0], {"layer": "gru_7"}, "layer='gru_7'.*'watched': 'GRU'"),
        (X[0], {"every": 0}, "`every`"),
        (X[0], {"every": True}, "every=True"),
    ],
)
def test_what_a_monitor_cannot_show(tmp_path, probe, arguments, message):
    gru = keras_gated.GRU(4, name="watched")
    model = keras.Sequential([keras.Input((6, 88)), gru])
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 0}, "`sampling_rate` must be a positive integer"),
        ({"primer_seconds": float("nan")}, "`primer_seconds` must be a finite number"),
    ],
)
def test_what_sound_takes(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.SoundSummary(tmp_path, SOUND, **{"sampling_rate": 300, **arguments})


@pytest.mark.parametrize("roll", [ROLL[:1], ROLL[:, :20], ROLL[None]])
def test_a_roll_of_two_steps_or_more(tmp_path, roll):
    with pytest.raises(
        ValueError, match=r"`roll` must be \[T, 88\], or \[T, 176\] .*at least two"
    ):
        callbacks.PianoRollImage(tmp_path, roll)


def test_features_of_all_steps(tmp_path):
    with pytest.raises(ValueError, match=r"`features` must be \[12, features\]"):
        callbacks.PianoRollImage(tmp_path, ROLL, features=np.zeros((11, 3)))


def test_without_tensorflow_it_says_so_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="needs the package 'tensorflow'"):
        callbacks.GateMonitor(tmp_path, ROLL)
