"""A training that goes on where it was, whatever has stopped it."""

import copy
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated import replicas
from keras_gated.callbacks import backup_file, log_files, random_states
from keras_gated.callbacks.backup_file import BackupError
from keras_gated.callbacks.identity import differences, identify
from keras_gated.datasets import checks

log = logging.getLogger("keras_gated")

SHARE = 0.02
"""How much of the time backups take at most."""


class BackupAndRestore(keras.callbacks.Callback):
    """Backs up a training, which the same command then goes on with.

    Whatever ended it, a kill at any moment, too: the weights at the end are those of a
    training that was not stopped. The backup is written between epochs and holds the
    weights, the state of the optimizer and of the random generators of layers (dropout,
    weight noise), of Python and NumPy, the epoch and the place in the data, and what
    the other callbacks have changed of themselves: the best epoch so far of
    `EarlyStopping` and `BestModel`, the history that `fit` returns. What TensorBoard
    and `CSVLogger` have written after the backup is taken back, so that no value is
    there twice.

    Beside `keras.callbacks.BackupAndRestore`, the data and the other callbacks go on,
    too, the file is never half written, and a backup of something else is refused. It
    stays when the training has ended: the same command then gives the same result at
    once, and with more `epochs` goes on. Remove the file to train anew.

    It must stand before the other callbacks. Of the processes of
    `keras_gated.distribution`, which need the same callbacks, the first writes the
    backup and all read it.

    Args:
        path: Of the backup; missing folders are made.
        data: What is trained on, if its order changes from pass to pass: one of the
            data sets of `keras_gated.datasets`, with a seed, or what
            `keras_gated.datasets.resumable` makes. Default: `None`.
        callbacks: The other callbacks. Default: none.
        seconds: The least time from one backup to the next; it is longer if they would
            take more than 2 % of the time. A kill costs so much, and the rest of an
            epoch; of long epochs make several, with `data.repeat()` and
            `steps_per_epoch`. 0: after every epoch. Default: 10.

    Raises:
        BackupError: When training begins: the file is damaged, or another model, data
            set, callback or version has written it; the message says what differs.
        OSError: The first backup cannot be written. Where a later one cannot, training
            goes on, and the log says so.
        ValueError: `data` has no `start_at`, or `seconds` is negative.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU
    >>> from keras_gated.callbacks import BackupAndRestore
    >>> from keras_gated.datasets import piano_roll
    >>> data = piano_roll.next_step_dataset([np.eye(8, 88)] * 9, 4, True, seed=1)
    >>> gru = GRU(88, return_sequences=True)
    >>> model = keras.Sequential([keras.Input((None, 88)), gru])
    >>> model.compile("adam", "mse")
    >>> watchers = [keras.callbacks.EarlyStopping("loss", patience=2)]
    >>> backup = BackupAndRestore("training.npz", data, watchers)
    >>> _ = model.fit(data, epochs=3, verbose=0, callbacks=[backup, *watchers])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        data: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        seconds: float = 10.0,
    ) -> None:
        super().__init__()
        if data is not None and not hasattr(data, "start_at"):
            raise checks.error(
                "data",
                data,
                "a data set with `start_at`, as those of keras_gated.datasets before "
                "anything is made of them, and of keras_gated.datasets.resumable, are",
            )
        self.path = Path(path)
        self.data = data
        self.callbacks = list(callbacks)
        self.seconds = checks.number("seconds", seconds, low=0)
        self._writer = log_files.Writer()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._begun = False
        self._identity = identify(
            self.model, self._variables(), self.data, self.callbacks
        )
        self._found = backup_file.read(self.path)
        replicas.wait()  # before the first process writes the next one
        if self._found is None:
            return
        about, _ = self._found
        if differing := list(differences(about["identity"], self._identity)):
            raise BackupError(
                f"The backup {str(self.path)!r} is of another training: "
                f"{'; '.join(differing[:3])}. Remove it to train anew.",
                differing,
            )
        self._restore_variables()
        if replicas.is_first():
            log_files.take_back(about["logs"], self.path.parent)
        for callback in self.callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True
        ended = about["stopped"]
        # As Keras's callback of this name does; there is no other way.
        self.model._initial_epoch = self.params["epochs"] if ended else about["epoch"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch, self._before_first_batch = epoch, True
        if self._begun:
            return
        self._at_first = [_state(callback) for callback in self._all_callbacks()]
        if self._found is not None:
            self._restore()
        if self.data is not None:
            steps = self.params["steps"] or len(self.data)
            self.data.start_at(epoch * steps)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        # Not earlier: PyTorch draws a random number to begin with the data.
        if not self._before_first_batch:
            return
        self._before_first_batch = False
        if not self._begun:
            self._begun = True
            if self._found is not None and self._found[0]["within_epoch"]:
                self._restore()  # again: others have begun the epoch for a second time
            self._save(within_epoch=True)
        elif time.monotonic() >= self._due:
            self._save_if_possible(within_epoch=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._begun:
            self._save_if_possible(self.model.stop_training)
        elif self._found is not None:  # it had ended before
            self._restore()

    def _restore(self) -> None:
        """What a backup holds, when all callbacks have begun."""
        self.model._initial_epoch = None  # another `fit` is none of this
        about, arrays = self._found
        self._restore_variables()
        for callback, state in zip(
            self._all_callbacks(), about["callbacks"], strict=True
        ):
            for name, value in backup_file.unpacked(state, arrays).items():
                setattr(callback, name, value)
        random_states.put_back(backup_file.unpacked(about["random"], arrays))

    def _restore_variables(self) -> None:
        _, arrays = self._found
        for variable, value in zip(self._variables(), arrays, strict=False):
            variable.assign(value)

    def _save_if_possible(
        self, stopped: bool = False, within_epoch: bool = False
    ) -> None:
        try:
            self._save(stopped, within_epoch)
        except OSError as error:
            log.warning(
                "The training cannot be backed up in %s (%s); it goes on.",
                self.path,
                error.strerror or error,
            )

    def _save(self, stopped: bool = False, within_epoch: bool = False) -> None:
        if not replicas.is_first():
            self._due = math.inf
            return
        began = time.monotonic()
        try:
            about, arrays = self._state_of_training()
            about |= {"stopped": bool(stopped), "within_epoch": within_epoch}
            backup_file.write(self.path, about, arrays)
        finally:
            now = time.monotonic()
            pause = max(self.seconds, (now - began) / SHARE) if self.seconds else 0
            self._due = now + pause

    def _state_of_training(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        arrays = [ops.convert_to_numpy(v.value) for v in self._variables()]
        states = [*map(_changed, self._all_callbacks(), self._at_first)]
        about = {
            "identity": self._identity,
            "epoch": self._epoch,
            "callbacks": backup_file.packed(states, arrays),
            "random": backup_file.packed(random_states.get(), arrays),
            "logs": self._writer.note(self.callbacks, self.path.parent),
        }
        return about, arrays

    def _variables(self) -> list[keras.Variable]:
        """All that training changes; metrics begin anew in each epoch."""
        optimizers = [
            value
            for value in vars(self.model).values()
            if isinstance(value, keras.optimizers.Optimizer)
        ]
        parts = [self.model, *optimizers]
        return list({id(v): v for part in parts for v in part.variables}.values())

    def _all_callbacks(self) -> list[keras.callbacks.Callback]:
        others = [c for c in self.callbacks if c is not self]
        return [*others, self.model.history]


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A copy of the attributes of a callback that can be written as they are."""
    return {
        name: copy.deepcopy(value)
        for name, value in vars(callback).items()
        if backup_file.is_plain(value)
        and not name.endswith("_time")  # by this process's clock
    }


def _changed(
    callback: keras.callbacks.Callback, at_first: dict[str, Any]
) -> dict[str, Any]:
    """The attributes that are no longer what they were."""
    return {
        name: value
        for name, value in _state(callback).items()
        if not backup_file.same(value, at_first.get(name))
    }
