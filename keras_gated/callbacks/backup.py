"""A training that goes on where it was, whatever has stopped it."""

import copy
import importlib.metadata
import json
import logging
import os
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.callbacks import log_files, random_states
from keras_gated.datasets import checks
from keras_gated.datasets.files import atomic_path

log = logging.getLogger("keras_gated")

PLAIN = (bool, int, float, str, type(None), np.generic, np.ndarray)
"""What a backup holds of callbacks; and lists and dictionaries of these."""
LIBRARIES = {"keras.ops": ops, "numpy": np}
"""And functions of these, by which Keras's callbacks compare once they have begun."""
UNKNOWN = "not known"
"""In the place of what may differ."""
ARRAY, FUNCTION = "the array", "the function"
"""The keys of the number of an array, and of a library and a name in it."""


DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


class BackupError(RuntimeError):
    """A backup is damaged, or is that of another training; the message says which."""


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

    It must stand before the other callbacks.

    Args:
        path: Of the backup; missing folders are made.
        data: What is trained on, if its order changes from pass to pass: one of the
            data sets of `keras_gated.datasets`, with a seed, or what
            `keras_gated.datasets.resumable` makes. Default: `None`.
        callbacks: The other callbacks. Default: none.
        seconds: The least time from one backup to the next. A kill costs so much, and
            the rest of an epoch; of long epochs make several, with `data.repeat()` and
            `steps_per_epoch`. Default: 10.

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
        self._identity, self._begun = self._identify(), False
        self._found = _read(self.path)
        if self._found is None:
            return
        about, _ = self._found
        if differing := list(_differences(about["identity"], self._identity)):
            raise BackupError(
                f"The backup {str(self.path)!r} is of another training: "
                f"{'; '.join(differing[:3])}. Remove it to train anew."
            )
        self._restore_variables()
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
        elif time.monotonic() - self._saved >= self.seconds:
            try:
                self._save(within_epoch=True)
            except OSError as error:
                log.warning(
                    "The training cannot be backed up in %s (%s); it goes on.",
                    self.path,
                    error.strerror or error,
                )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._begun:
            self._save(self.model.stop_training)
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
            for name, value in _unpacked(state, arrays).items():
                setattr(callback, name, value)
        random_states.put_back(_unpacked(about["random"], arrays))

    def _restore_variables(self) -> None:
        _, arrays = self._found
        for variable, value in zip(self._variables(), arrays, strict=False):
            variable.assign(value)

    def _save(self, stopped: bool = False, within_epoch: bool = False) -> None:
        self._saved = time.monotonic()
        arrays = [ops.convert_to_numpy(v.value) for v in self._variables()]
        states = [
            {k: v for k, v in _state(callback).items() if not _same(v, first.get(k))}
            for callback, first in zip(
                self._all_callbacks(), self._at_first, strict=True
            )
        ]
        about = {
            "identity": self._identity,
            "epoch": self._epoch,
            "within_epoch": within_epoch,
            "stopped": bool(stopped),
            "callbacks": _packed(states, arrays),
            "random": _packed(random_states.get(), arrays),
            "logs": self._writer.note(self.callbacks, self.path.parent),
        }
        _write(self.path, about, arrays)

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

    def _identify(self) -> dict[str, Any]:
        """What must be the same when a training is resumed, as JSON gives it back."""
        backend = keras.config.backend()
        identity = {
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("keras-gated", "keras", backend)
            },
            "model": _named_by_place(_config(self.model)),
            "variables": [f"{v.dtype} {tuple(v.shape)}" for v in self._variables()],
            "data": getattr(self.data, "identity", None),
            "callbacks": [type(callback).__name__ for callback in self.callbacks],
        }
        return json.loads(json.dumps(identity, default=repr))


def _config(model: keras.Model) -> dict[str, Any]:
    """The configuration of a model, and of its training; empty if it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that functions cannot be loaded
        try:
            training = copy.deepcopy(model.get_compile_config())
            config = {"layers": model.get_config(), "training": training}
        except (NotImplementedError, TypeError, ValueError):
            return {}
    # A model that was trained in this process has that of its last epoch.
    if training and int(ops.convert_to_numpy(model.optimizer.iterations.value)):
        training["optimizer"]["config"]["learning_rate"] = UNKNOWN
    return config


def _named_by_place(config: Any) -> Any:
    """A configuration without the names of layers, which count what was made before.

    Args:
        config: As `get_config` returns it.
    """
    places: dict[str, str] = {}

    def find(part: Any) -> None:
        if isinstance(part, dict):
            of_layer = part.get("config") if "class_name" in part else part
            if isinstance(of_layer, dict) and isinstance(of_layer.get("name"), str):
                places.setdefault(of_layer["name"], f"#{len(places)}")
            for value in part.values():
                find(value)
        elif isinstance(part, (list, tuple)):
            for value in part:
                find(value)

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: replaced(value) for key, value in part.items()}
        if isinstance(part, (list, tuple)):
            return [replaced(value) for value in part]
        return places.get(part, part) if isinstance(part, str) else part

    find(config)
    return replaced(config)


def _differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """Says what differs in two structures, each by its place."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            place = f"{where}.{key}" if where else str(key)
            yield from _differences(there.get(key), here.get(key), place)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from _differences(*pair, f"{where}[{number}]")
    elif not _same(there, here) and UNKNOWN not in (there, here):
        yield f"{where} was {_short(there)} and is {_short(here)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A copy of the attributes of a callback that can be written as they are."""
    return {
        name: copy.deepcopy(value)
        for name, value in vars(callback).items()
        if _is_plain(value) and not name.endswith("_time")  # by this process's clock
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return isinstance(value, PLAIN) or _name_of_function(value) is not None


def _name_of_function(value: Any) -> tuple[str, str] | None:
    """Of one of `LIBRARIES`; `None` of anything else."""
    name = getattr(value, "__name__", "")
    for title, library in LIBRARIES.items():
        if getattr(library, name, None) is value and callable(value):
            return title, name
    return None


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _same(first[key], second[key]) for key in first
        )
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return first == second or (first != first and second != second)


def _packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value as JSON holds it; its arrays are appended to the others."""
    if isinstance(value, dict):
        return {key: _packed(part, arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(part, arrays) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        arrays.append(np.asarray(value))
        return {ARRAY: len(arrays) - 1}
    name = _name_of_function(value)
    return value if name is None else {FUNCTION: name}


def _unpacked(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        if value.keys() == {FUNCTION}:
            library, name = value[FUNCTION]
            return getattr(LIBRARIES[library], name)
        return {key: _unpacked(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_unpacked(part, arrays) for part in value]
    return value


def _write(path: Path, about: dict[str, Any], arrays: list[np.ndarray]) -> None:
    about["dtypes"] = [str(array.dtype) for array in arrays]
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    octets = {
        f"{number}": np.frombuffer(array.tobytes(), np.uint8).reshape(
            *array.shape, array.itemsize
        )
        for number, array in enumerate(arrays)
    }
    with atomic_path(path) as whole, open(whole, "wb") as file:
        np.savez(file, about=text, **octets)


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """What a backup says, and its arrays; `None` if there is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            arrays = [
                file[str(number)].view(np.dtype(dtype))[..., 0]
                for number, dtype in enumerate(about["dtypes"])
            ]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DAMAGED as error:
        raise BackupError(
            f"The backup {str(path)!r} cannot be read ({error}). Remove it to train "
            "anew."
        ) from error
    return about, arrays
