"""A program that several processes run, for test_distribution.py.

It prints, as JSON, what came of some trainings; `python training_together.py TASK ...`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

import keras_gated
from keras_gated import callbacks, distribution, losses, metrics, optimizers
from keras_gated.datasets import piano_roll

EPOCHS = 2


def rolls(seed=0):
    random = np.random.default_rng(seed)
    return [(random.random((n, 88)) < 0.05).astype("uint8") for n in (9, 8, 7, 6) * 5]


def data_sets(batch_size=6, **options):
    how = {"max_shapes": 2, **options}
    training = piano_roll.next_step_dataset(rolls(), batch_size, True, seed=1, **how)
    return training, piano_roll.next_step_dataset(rolls(1)[:7], batch_size, **how)


def gru():
    """With all that is drawn, and gradients that are rescaled."""
    cell = keras_gated.GRUCell(
        8, weight_noise=0.1, dropout=0.2, recurrent_dropout=0.2, zoneout=0.1, seed=3
    )
    frames = keras.Input((None, 88))
    x = keras_gated.RNN(cell, return_sequences=True)(frames)
    x = keras.layers.SpatialDropout1D(0.2, seed=4)(x)
    model = keras.Model(frames, keras.layers.Dense(88)(x))
    compile_(model, optimizers.RMSprop(0.01, global_clipnorm=0.5))
    return model


def joint():
    """Keras's optimizer, its dropout, and gradients that do not exist."""
    frames, following = keras.Input((None, 88)), keras.Input((None, 88))
    x = keras_gated.LSTM(8, return_sequences=True, weight_noise=0.1)(frames)
    x = keras.layers.Dropout(0.3, seed=5)(x)
    # Its dropout has no seed, and PyTorch draws then as a tensor lies in memory.
    head = keras_gated.NADE(hidden_units=4, tied_units=3, dropout=0.0)
    logits = head([x, following, frames])
    model = keras.Model([frames, following], logits)
    compile_(model, keras.optimizers.Adam(0.01, global_clipnorm=0.5))
    return model


def compile_(model, optimizer):
    some = [metrics.FrameNLL(name="nll"), metrics.FrameNLL("sequence"), "mae"]
    model.compile(optimizer, losses.BernoulliNLL(), weighted_metrics=some)


def train(workers, make, **options):
    """The history, what `evaluate` returns, and the weights."""
    keras.utils.set_random_seed(7)
    training, validation = data_sets(**options)
    with workers.scope():
        model = make()
    workers.prepare(model, training)
    fitted = model.fit(
        workers.share(training.repeat()),
        steps_per_epoch=len(training),
        validation_data=workers.share(validation),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        # As `BackupAndRestore` does: Keras may have looked at the data before.
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: training.start_at(0)
            )
        ],
    )
    scores = model.evaluate(workers.share(validation), verbose=0, return_dict=True)
    weights = [ops.convert_to_numpy(v.value).tolist() for v in model.weights]
    # In the loss that Keras displays batches count by their rows, filled or not.
    curves = {k: v for k, v in fitted.history.items() if not k.endswith("loss")}
    return {**curves, "end": scores["nll"], "weights": weights}


def same_as_one(workers):
    """One process more or less makes no difference."""
    return train(workers, gru)


def joint_as_one(workers):
    """Of this model, too."""
    return train(workers, joint, teacher_forcing=True)


def found_before(workers):
    """What is refused: in all processes, before the first step."""
    training, _ = data_sets()
    other, odd = (workers.index == 1), {}

    def refused(name, model, data):
        try:
            workers.prepare(model, data)
        except (RuntimeError, ValueError) as error:
            odd[name] = str(error)

    model = gru()
    how = {"max_shapes": 2, "seed": 1}
    data = piano_roll.next_step_dataset(rolls(int(other)), 4, True, **how)
    refused("data", model, data)
    unseeded = piano_roll.next_step_dataset(rolls(), 4, True)
    refused("seed", model, unseeded)
    if keras.config.backend() != "jax":  # which fails when it makes such weights
        wider = keras.Sequential([keras.Input((None, 88)), keras_gated.GRU(8 + other)])
        wider.compile("adam", "mse")
        refused("model", wider, training)
    code = Path(sys.argv[2], f"code_{workers.index}.py")
    code.write_text(f"something = {workers.index}")
    sys.modules["own_code"] = type(sys)("own_code")
    sys.modules["own_code"].__file__ = os.fspath(code)
    sys.modules["__main__"].__file__ = os.fspath(Path(sys.argv[2], "main.py"))
    Path(sys.argv[2], "main.py").touch()
    refused("code", model, training)
    try:
        for _ in workers.share(training.map(lambda x, y, w: (x[:5], y[:5]))):
            pass
    except Exception as error:
        odd["batch"] = str(error)
    return odd


def killed(workers):
    """The second process is killed in the second epoch, once."""
    mark = Path(sys.argv[2], "killed")

    class Kill(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            begun = self.model.optimizer.iterations.value
            if workers.index == 1 and int(begun) >= 6 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    training, _ = data_sets()
    stop = keras.callbacks.EarlyStopping("nll")
    own = workers.folder(Path(sys.argv[2], "logs"))
    logger = keras.callbacks.CSVLogger(own / "log.csv")
    own.mkdir(exist_ok=True)
    backup = callbacks.BackupAndRestore(
        Path(sys.argv[2], "backup.npz"), training, [stop, logger], seconds=0
    )
    keras.utils.set_random_seed(7)
    model = gru()
    workers.prepare(model, training)
    fitted = model.fit(
        workers.share(training.repeat()),
        steps_per_epoch=len(training),
        epochs=6,
        shuffle=False,
        verbose=0,
        callbacks=[backup, stop, logger, Kill()],
    )
    weights = [ops.convert_to_numpy(v.value).tolist() for v in model.weights]
    lines = (own / "log.csv").read_text().splitlines()
    return {"history": fitted.history, "weights": weights, "lines": len(lines)}


def mirrored(_):
    """One replica, and three, in this process."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    three = [tf.config.LogicalDeviceConfiguration()] * 3
    tf.config.set_logical_device_configuration(cpu, three)
    found = []
    for count in (1, 3):
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(count)])
        found.append(train(distribution.initialize(strategy), gru))
    return found


def data_parallel(workers):
    """PyTorch's `DistributedDataParallel` around a model, in a loop of one's own."""
    import torch

    keras.utils.set_random_seed(7)
    training, _ = data_sets()
    model = keras.Sequential(
        [
            keras.Input((None, 88)),
            keras_gated.GRU(8, return_sequences=True),
            keras.layers.Dense(88),
        ]
    )
    inner = model
    if workers.count > 1:
        inner = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = losses.BernoulliNLL()
    for batch in workers.share(training):
        x, y, w = (torch.from_numpy(part.numpy()) for part in batch)
        optimizer.zero_grad()
        loss(y, inner(x, training=True), w).backward()
        optimizer.step()
    return [ops.convert_to_numpy(v.value).tolist() for v in model.weights]


TASKS = {
    task.__name__: task
    for task in (
        same_as_one,
        joint_as_one,
        found_before,
        killed,
        mirrored,
        data_parallel,
    )
}


def main():
    """Prints what the task of the command line returns, and the seconds it took."""
    began, task = time.monotonic(), sys.argv[1]
    workers = distribution.initialize()
    result = TASKS[task](workers)
    Path(sys.argv[2], f"result_{workers.index}.json").write_text(json.dumps(result))
    print(f"{task}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
