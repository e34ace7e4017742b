"""Trainings that were stopped, and what becomes of them."""

import contextlib
import csv
import os
import shutil
import sys

import keras
import numpy as np
import pytest
from keras import ops
from oracles import array

import keras_gated
from keras_gated import callbacks
from keras_gated.callbacks import backup_file, identity, log_files

BACKEND = keras.config.backend()
STEPS, EPOCHS = 3, 5
needs_tensorflow = pytest.mark.skipif(
    sys.modules.get("tensorflow", "") is None, reason="of TensorFlow"
)


class Killed(BaseException):
    """What no callback sees, as a kill is not seen."""


class Passes(keras.utils.PyDataset):
    """Random batches that depend on the number of the pass."""

    def __init__(self, **identity):
        super().__init__()
        self.identity = {"kind": "random", **identity}
        self.number = self.first = 0

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        random = np.random.default_rng([self.number, index])
        x = random.normal(size=(4, 6, 5)).astype("float32")
        return x, x.cumsum(1)[..., :2]

    def start_at(self, batch):
        self.number, self.first = divmod(batch, STEPS)

    def __iter__(self):
        return (self[index] for index in range(self.first, STEPS))

    def by_epoch(self):
        """Keras does not call `on_epoch_end` once an epoch on all backends."""
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: setattr(self, "number", epoch)
        )


def rolls():
    random = np.random.default_rng(0)
    return [
        (random.random((length, 88)) < 0.1).astype("uint8")
        for length in random.integers(10, 20, 9)
    ]


def of_tensorflow():
    from keras_gated.datasets import piano_roll

    data = piano_roll.next_step_dataset(rolls(), 3, True, seed=1, max_shapes=2)
    assert len(data) == STEPS
    return data


class Stop(keras.callbacks.Callback):
    """Ends the process, as it were, in the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place, self.now = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch) == self.place:
            raise Killed


class Noted(keras.callbacks.Callback):
    """What users write: attributes that count."""

    def __init__(self):
        super().__init__()
        self.losses, self.best, self.by_epoch = (), np.full(2, np.inf), {}

    def on_epoch_end(self, epoch, logs=None):
        self.losses += (logs["loss"],)
        self.best = np.minimum(self.best, [logs["loss"], logs["val_loss"]])
        self.by_epoch[f"epoch {epoch}"] = {"loss": np.float32(logs["loss"])}


def model_of(width, units, cell, rate=0.02):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None, width)),
            keras_gated.RNN(cell(units), return_sequences=True),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(88 if width == 88 else 2),
        ]
    )
    jit = False if BACKEND == "tensorflow" else "auto"
    model.compile(
        keras.optimizers.Adam(rate), "mse", weighted_metrics=["mae"], jit_compile=jit
    )
    return model


def noisy(units):
    return keras_gated.TanhCell(
        units, weight_noise=0.05, dropout=0.1, recurrent_dropout=0.1
    )


def train(
    folder,
    make_data=Passes,
    stop=None,
    epochs=EPOCHS,
    units=4,
    cell=noisy,
    rate=0.02,
    seconds=0,
    repeat=True,
    tensorboard=False,
):
    """Trains a model from nothing or from a backup; returns all that it ends with."""
    keras.backend.clear_session()
    data = make_data()
    width = 5 if isinstance(data, Passes) else 88
    model = model_of(width, units, cell, rate)
    out = model.output_shape[-1]
    watchers = [
        keras.callbacks.EarlyStopping("val_loss", patience=4, min_delta=0.01),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.01),
        keras.callbacks.LearningRateScheduler(lambda n, x: x * 0.9),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        callbacks.BestModel(folder / "best.keras"),
        noted := Noted(),
        *([data.by_epoch()] if hasattr(data, "by_epoch") else []),
    ]
    if tensorboard:
        watchers += [
            keras.callbacks.TensorBoard(folder, write_graph=False, update_freq=2),
            callbacks.GateMonitor(folder, np.ones((4, 88)), every=1),
        ]
    if stop is not None:
        watchers.append(Stop(*stop))
        backed = watchers[:-1]
    else:
        backed = watchers
    backup = callbacks.BackupAndRestore(folder / "b.npz", data, backed, seconds)
    # With `repeat` passes follow each other, without each epoch begins one.
    fed = data.repeat() if repeat and not isinstance(data, Passes) else data
    history = model.fit(
        fed,
        steps_per_epoch=STEPS if repeat else None,
        validation_data=(np.ones((1, 5, width)), np.zeros((1, 5, out))),
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[backup, *watchers],
    ).history
    return {
        "variables": [array(v) for v in model.variables + model.optimizer.variables],
        "history": history,
        "noted": [noted.losses, noted.best.tolist(), noted.by_epoch],
        "csv": list(csv.reader(open(folder / "log.csv"))),
        "best": [
            array(v) for v in keras.saving.load_model(folder / "best.keras").weights
        ],
    }


def same(first, second):
    assert len(first["variables"]) == len(second["variables"])
    for name in ("variables", "best"):
        for a, b in zip(first[name], second[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert first["history"] == second["history"]
    assert first["csv"] == second["csv"]
    losses, best, by_epoch = first["noted"]
    assert list(losses) == list(second["noted"][0])
    assert best == second["noted"][1]
    assert by_epoch == second["noted"][2]


KINDS = {
    "PyDataset": {"make_data": Passes},
    "pass by pass": {"make_data": of_tensorflow, "repeat": False},
}


@pytest.mark.parametrize(
    "kind",
    [
        "PyDataset",
        pytest.param("pass by pass", marks=[needs_tensorflow, pytest.mark.slow]),
    ],
)
def test_a_stopped_training_ends_as_one_that_was_not(kind, tmp_path):
    how = KINDS[kind]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    expected = train(whole, **how)
    assert len(expected["history"]["loss"]) >= 4
    for stop in ((0, 1), (2, 2)):
        with pytest.raises(Killed):
            train(stopped, stop=stop, **how)
    found = train(stopped, **how)
    same(expected, found)
    same(expected, train(stopped, **how))  # which had ended


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch draws a number when data begin")
@pytest.mark.slow
def test_it_goes_on_with_more_epochs(tmp_path):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    whole.mkdir()
    longer.mkdir()
    expected = train(whole, epochs=4)
    train(longer, epochs=2)
    same(expected, train(longer, epochs=4))


def test_the_time_between_backups(tmp_path):
    train(tmp_path, seconds=1000, epochs=2)
    about, _ = backup_file.read(tmp_path / "b.npz")
    assert about["epoch"] == 2  # the end is always written

    (tmp_path / "b.npz").unlink()
    with pytest.raises(Killed):
        train(tmp_path, seconds=1000, stop=(1, 0))
    about, _ = backup_file.read(tmp_path / "b.npz")
    assert about["epoch"] == 0


@needs_tensorflow
@pytest.mark.slow
def test_tensorboard_has_each_value_once(tmp_path):
    """And a stopped training on a data set that repeats itself has the same end."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    how = {"make_data": of_tensorflow, "tensorboard": True, "epochs": 3}
    expected = train(whole, **how)
    other = stopped / "events.out.tfevents.1.somebody.1.0.v2"
    other.write_bytes(b"")
    for stop in ((0, 1), (2, 1)):
        with pytest.raises(Killed):
            train(stopped, stop=stop, **how)
    same(expected, train(stopped, **how))
    assert other.exists()
    assert values(whole) == values(stopped)
    assert ("train", "batch_loss") in values(whole)


def values(folder):
    """Everything in TensorBoard's files, by run and tag, unless it is a picture."""
    import tensorflow as tf

    found = {}
    for file in sorted(folder.rglob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                tensor = value.tensor.SerializeToString()
                shown = len(tensor) if value.tag == "gates" else tensor
                run = os.path.relpath(file.parent, folder)
                found.setdefault((run, value.tag), []).append((event.step, shown))
    return found


@pytest.fixture(scope="module")
def of_one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_one_epoch")
    train(folder, epochs=1)
    return folder


@pytest.fixture
def begun(of_one_epoch, tmp_path):
    """A folder with the backup of a training."""
    return shutil.copytree(of_one_epoch, tmp_path / "begun")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"units": 5}, r"units was 4 and is 5"),
        ({"rate": 0.05}, r"learning_rate was 0.0[12]\d* and is 0.05"),
        ({"cell": keras_gated.GRUCell}, "TanhCell.* and is .*GRUCell"),
    ],
)
def test_a_backup_of_another_training_is_refused(begun, changed, message):
    before = (begun / "b.npz").read_bytes()
    with pytest.raises(callbacks.BackupError, match=message) as raised:
        train(begun, **changed)
    assert "Remove it to train anew" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (begun / "b.npz").read_bytes() == before


def test_other_data_versions_and_callbacks_are_refused(begun, monkeypatch):
    with pytest.raises(callbacks.BackupError, match=r"data.kind was 'random' and is"):
        train(begun, make_data=lambda: Passes(kind="other", size=3))
    monkeypatch.setattr(identity.importlib.metadata, "version", lambda name: "9.9")
    with pytest.raises(callbacks.BackupError, match=r"keras was '[\d.]+' and is '9.9'"):
        train(begun)
    monkeypatch.undo()
    model = model_of(5, 4, noisy)
    with pytest.raises(callbacks.BackupError, match="callbacks was"):
        model.fit(
            Passes(),
            verbose=0,
            callbacks=[callbacks.BackupAndRestore(begun / "b.npz", Passes())],
        )


@needs_tensorflow
def test_other_music_is_refused(tmp_path):
    from keras_gated.datasets import piano_roll

    for seed, size, message in ((2, 3, "seed was 1 and is 2"), (1, 4, "batch_size")):
        data = piano_roll.next_step_dataset(rolls(), 3, True, seed=1)
        other = piano_roll.next_step_dataset(rolls(), size, True, seed=seed)
        for given in (data, other):
            model = model_of(88, 3, noisy)
            backup = callbacks.BackupAndRestore(tmp_path / "b.npz", given)
            refused = pytest.raises(callbacks.BackupError, match=message)
            with refused if given is other else contextlib.nullcontext():
                model.fit(given, verbose=0, callbacks=[backup])


def test_names_that_count_do_not_matter(begun):
    """Layers are numbered through the process, whatever was made before."""
    keras.layers.LSTM(3), keras.layers.Dropout(0.1), keras.Sequential()
    model = model_of(5, 4, noisy)
    about, _ = backup_file.read(begun / "b.npz")
    found = identity.identify(model, [], None, [])
    assert found["model"] == about["identity"]["model"]


@pytest.mark.parametrize("size", [0, 0.99])
def test_a_damaged_file_is_refused(begun, size):
    content = (begun / "b.npz").read_bytes()
    keep = size if isinstance(size, int) else int(size * len(content))
    (begun / "b.npz").write_bytes(content[:keep])
    with pytest.raises(callbacks.BackupError, match="cannot be read"):
        train(begun)


def test_a_folder_that_takes_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    model = model_of(5, 4, noisy)
    backup = callbacks.BackupAndRestore(tmp_path / "file" / "b.npz", seconds=0)
    with pytest.raises(FileExistsError):
        model.fit(Passes(), verbose=0, callbacks=[backup])

    class Vanish(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch in (0, 2):
                (tmp_path / "a").rename(tmp_path / "z")
                (tmp_path / "a").write_text("")
            if epoch == 1:
                (tmp_path / "a").unlink()
                (tmp_path / "z").rename(tmp_path / "a")
            if epoch == 2:
                (tmp_path / "a").unlink()

    backup = callbacks.BackupAndRestore(tmp_path / "a" / "b.npz", seconds=0)
    model.fit(Passes(), epochs=4, verbose=0, callbacks=[backup, Vanish()])
    assert caplog.text.count("cannot be backed up") == 1
    about, _ = backup_file.read(tmp_path / "a" / "b.npz")
    assert about["epoch"] == 4


def test_another_fit_of_the_model_begins_at_its_beginning(tmp_path):
    train(tmp_path, epochs=2)
    model = model_of(5, 4, noisy)
    backup = callbacks.BackupAndRestore(tmp_path / "c.npz")
    for epochs in (1, 2):
        model.fit(Passes(), epochs=epochs, verbose=0, callbacks=[backup])
    history = model.fit(Passes(), epochs=2, verbose=0)
    assert history.epoch == [0, 1]


def test_all_kinds_of_numbers_are_kept(tmp_path):
    arrays = [
        np.array(1.5, "float16"),
        np.arange(6, dtype="int64").reshape(2, 3),
        ops.convert_to_numpy(ops.ones((2, 2), "bfloat16")),
        np.zeros((0, 3), "uint32"),
        np.array([True, False]),
    ]
    backup_file.write(tmp_path / "b.npz", {"epoch": 1, "x": float("inf")}, list(arrays))
    about, found = backup_file.read(tmp_path / "b.npz")
    assert about["epoch"] == 1
    assert about["x"] == float("inf")
    for a, b in zip(arrays, found, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_data_that_cannot_be_told_where_to_start(tmp_path):
    with pytest.raises(ValueError, match="Argument `data` must be a data set with"):
        callbacks.BackupAndRestore(tmp_path / "b.npz", [1, 2])


def test_files_of_other_processes_stay(tmp_path):
    writer = log_files.Writer()
    name = log_files.EVENTS
    mine = f"{name}{writer._since + 1}{writer._who}0.v2"
    files = {
        "old": f"{name}{writer._since - 9}{writer._who}0.v2",
        "other": f"{name}{writer._since + 1}.elsewhere.1.0.v2",
        "strange": f"{name}x{writer._who}",
    }
    for file in files.values():
        (tmp_path / file).write_text("12345")
    watcher = keras.callbacks.Callback()
    watcher.log_dir = str(tmp_path)
    noted = writer.note([watcher], tmp_path)
    (tmp_path / mine).write_text("after the backup")
    (tmp_path / files["other"]).write_text("1234567")
    log_files.take_back(noted, tmp_path)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == dict.fromkeys(files.values(), "12345")


class Poisoned(Passes):
    """One sequence that is no number, in one batch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place = epoch, batch

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        if (self.number, index) == self.place:
            x[2, 1] = np.nan
        return x, y


def fit(model, data, given=None, **more):
    with pytest.raises(FloatingPointError) as raised:
        model.fit(
            data,
            epochs=3,
            verbose=0,
            shuffle=False,
            callbacks=[callbacks.TerminateOnNaN(given), data.by_epoch()],
            **more,
        )
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_loss_that_is_no_number_says_where_it_came_from():
    optimizer = keras_gated.optimizers.RMSprop(0.01, global_clipnorm=1.0)
    model = model_of(5, 4, noisy)
    model.compile(optimizer, "mse")
    said = fit(model, Poisoned(1, 1), Poisoned(1, 1))
    assert said.startswith("The loss is nan after update 5 (batch 2 of epoch 2): ")
    assert "in update 5, the inputs of sequence 2 of the batch are not" in said

    # An optimizer that lets it through.
    model = model_of(5, 4, noisy)
    said = fit(model, Poisoned(0, 2), Poisoned(0, 2))
    assert "after update 3 (batch 3 of epoch 1)" in said
    assert "the weights of layer 'tanh_cell" in said

    if BACKEND == "tensorflow":  # several updates at once
        model = model_of(5, 4, noisy)
        model.compile(optimizer.from_config(optimizer.get_config()), "mse")
        model.steps_per_execution = 3
        said = fit(model, Poisoned(1, 1), Poisoned(1, 1))
        assert "(one of the batches 1 to 3 of epoch 2)" in said
        assert "in update 5, the inputs of sequence 2" in said


@pytest.mark.parametrize("nested", [False, True])
def test_the_first_layer_whose_outputs_are_no_numbers_is_named(nested):
    class Root(keras.layers.Layer):
        def call(self, x):
            return ops.sqrt(x)

    x = np.ones((4, 3), "float32")
    x[1] = -1
    inputs = keras.Input((3,))
    inner = [keras.layers.Identity(), Root(name="root"), keras.layers.Dense(1)]
    hidden = inputs
    for layer in inner:
        hidden = layer(hidden)
    model = keras.Model(inputs, hidden)
    if nested:
        outside = keras.Input((3,))
        model = keras.Model(outside, model(outside))
    optimizer = keras_gated.optimizers.RMSprop(0.01, global_clipnorm=1.0)
    model.compile(optimizer, "mse")

    class Data(Passes):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, np.ones((4, 1), "float32")

        def __iter__(self):
            return iter([self[0]])

    said = fit(model, Data(), Data())
    assert "the outputs of layer 'root' (Root) are not finite for sequence 1" in said
    assert "in update 1, " in said
    assert "all weights are finite; look at the data" in fit(model, Data())
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
