"""The callbacks, in a real `fit` and read back from what they wrote."""

import keras
import numpy as np
import pytest
from oracles import array

from keras_gated import callbacks


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


def test_pictures_are_read_back_from_tensorboard(tmp_path):
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    roll = (X[0] > 0.9).astype("uint8")
    callback = callbacks.PianoRollImage(tmp_path, roll, every=2)
    small_model().fit(X, X, epochs=4, verbose=0, callbacks=[callback])
    log = event_accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"tensors": 0}
    )
    log.Reload()
    events = log.Tensors("piano_roll")
    assert [event.step for event in events] == [0, 2]
    width, height, png, *_ = tf.make_ndarray(events[0].tensor_proto)
    image = tf.io.decode_png(png, channels=3).numpy()
    assert image.shape == (int(height), int(width), 3)
    assert len(np.unique(image)) > 10
