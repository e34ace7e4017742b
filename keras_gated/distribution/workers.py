"""What a program does to train with others of its kind."""

import functools
import hashlib
import importlib.util
import json
import math
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

# Not public, but every dropout of Keras's layers passes here.
from keras.src.backend import random as random_of_keras

from keras_gated import replicas
from keras_gated.callbacks.identity import differences, identify
from keras_gated.datasets import checks
from keras_gated.datasets.files import require
from keras_gated.distribution import cluster, engines
from keras_gated.distribution.launcher import LIFELINE

if TYPE_CHECKING:
    import tensorflow as tf

Tensor = Any
"""A tensor of the Keras backend in use."""


class Workers:
    """This process and those that train with it; `initialize` makes them.

    Each sees its own rows of every batch, and all make the same update: that of one
    process with the whole batch, to rounding. Gradients are averaged before they are
    rescaled, the losses of `keras_gated` are means over the weights of the whole batch,
    weight noise is the same everywhere, and dropout masks are drawn for the whole
    batch.

    Train with `callbacks.BackupAndRestore`, which has all begin with the same batch:
    Keras looks at data before it trains, and what it has then begun is another pass.

    Attributes:
        count: The number of processes; 1 without any others.
        index: The number of this one, from 0.
        is_first: Whether it is the first, which writes the files.
        replicas: The number of copies of a model in this process, each of which has
            its own rows of a batch: with `tf.distribute.MirroredStrategy`, and on JAX
            with several devices.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU, distribution
    >>> from keras_gated.datasets import piano_roll
    >>> from keras_gated.callbacks import BackupAndRestore
    >>> workers = distribution.initialize()
    >>> data = piano_roll.next_step_dataset([np.eye(8, 88)] * 9, 4, True, seed=1)
    >>> gru = GRU(88, return_sequences=True)
    >>> model = keras.Sequential([keras.Input((None, 88)), gru])
    >>> model.compile("adam", "mse")
    >>> workers.prepare(model, data)
    >>> backup = BackupAndRestore("run/backup.npz", data)
    >>> _ = model.fit(workers.share(data), epochs=2, verbose=0, callbacks=[backup])
    """

    def __init__(self, count: int = 1, index: int = 0, strategy: Any = None) -> None:
        self.count, self.index = count, index
        self.is_first = index == 0
        self._strategy, self._scratch = strategy, []
        self.replicas = 1 if strategy is None else strategy.num_replicas_in_sync
        if count > 1 and replicas.processes.sees_all:
            self.replicas = len(keras.distribution.list_devices()) // count

    def scope(self) -> AbstractContextManager:
        """In which a model must be built and compiled, if there is a strategy."""
        return nullcontext() if self._strategy is None else self._strategy.scope()

    def share(self, data: "tf.data.Dataset") -> "tf.data.Dataset":
        """This process's rows of every batch.

        A batch whose rows the number of workers does not divide is filled with rows of
        weight 0. They change nothing but the loss that Keras displays, in which batches
        count by their rows.

        Args:
            data: Batches, the same in all processes: `(inputs, targets, weights)`, or
                without weights.

        Returns:
            A data set of as many batches, with the attributes of
            `keras_gated.datasets.resumable` if `data` has them.

        Raises:
            ValueError: `data` is no `tf.data.Dataset`.
            tf.errors.InvalidArgumentError: (in iteration) A batch without weights
                cannot be divided.
        """
        tf = require("tensorflow")
        if not isinstance(data, tf.data.Dataset):
            raise checks.error("data", data, "a tf.data.Dataset of batches")
        copies = self.count * self.replicas
        if copies == 1:
            return data
        size = getattr(data, "identity", {}).get("batch_size", 0)
        if size % copies:
            warnings.warn(
                f"Batches of {size} are not divisible by {copies} workers; they are "
                "filled with sequences of weight 0, which take time.",
                stacklevel=2,
            )
        weighted = len(data.element_spec) > 2

        def own(*batch: Any) -> Any:
            rows = tf.shape(tf.nest.flatten(batch)[0])[0]
            each = -(-rows // copies) * self.replicas
            lacking = each * self.count - rows
            if not weighted:
                message = (
                    f"A batch cannot be divided among {copies} workers, and has no "
                    "weights, so that it cannot be filled"
                )
                tf.debugging.assert_equal(lacking, 0, message)

            def part(x: tf.Tensor) -> tf.Tensor:
                filled = tf.pad(x, [[0, lacking]] + [[0, 0]] * (x.shape.rank - 1))
                return filled[self.index * each : (self.index + 1) * each]

            return tf.nest.map_structure(part, batch)

        shared = data.map(own, num_parallel_calls=2)
        for name in ("start_at", "identity"):
            if hasattr(data, name):
                setattr(shared, name, getattr(data, name))
        return shared

    def prepare(self, model: keras.Model, data: Any = None) -> None:
        """Has a model trained with those of the other processes.

        It gets the variables of the first process, and from now on `fit` and `evaluate`
        of it are for all processes: each must call them, and the metrics they return
        are those of all rows.

        Args:
            model: Built and compiled; if it is compiled anew, prepare it again. Any
                optimizer, losses and metrics of Keras will do. The metrics are exact if
                they are sums, as those of `keras_gated` and most of Keras's are. Losses
                other than those of `keras_gated` are means of the processes' means.
            data: What it is trained on, before it is shared; if it has an `identity`,
                as those of `keras_gated.datasets`, it is compared. Default: `None`.

        Raises:
            RuntimeError: A process has other code, versions, data or another model than
                the first; the message, the same in all, says which and what.
            ValueError: The model is not built, or not compiled, or the data is shuffled
                without a seed.
        """
        if not model.built or model.optimizer is None:
            raise ValueError("The model must be built and compiled before.")
        if self.count == 1:
            return
        about = getattr(data, "identity", {})
        if about.get("shuffle") and about.get("seed") is None:
            raise ValueError(
                "Each process would shuffle the data in an order of its own; give it a "
                "seed."
            )
        model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables]
        self.compare(identify(model, variables, data, ()))
        for variable in variables:
            value = ops.convert_to_numpy(variable.value)
            octets = np.frombuffer(np.ascontiguousarray(value).tobytes(), "uint8")
            octets = replicas.processes.broadcast(octets, 0)
            value = np.frombuffer(octets.tobytes(), value.dtype).reshape(value.shape)
            variable.assign(value)
        if not replicas.processes.sees_all:
            model.optimizer.apply = _of_mean_gradients(model)
            model.get_metrics_result = _of_all(model, model.get_metrics_result)
        if keras.config.backend() == "tensorflow":
            # What sums over processes cannot be compiled by XLA, nor be in a loop.
            model.jit_compile, model.steps_per_execution = False, 1

    def tell(self, text: str) -> str:
        """Tells all processes what the first knows.

        Args:
            text: Of the first; that of the others is not looked at.

        Returns:
            The text of the first.
        """
        return self._broadcast(text, 0)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        replicas.wait()

    def folder(self, path: str | os.PathLike) -> Path:
        """Where callbacks that write files may do so.

        Args:
            path: Of the folder.

        Returns:
            The folder itself in the first process, and in each other one a temporary
            folder, which is removed at the end, so that all can have the same
            callbacks.
        """
        if self.is_first:
            return Path(path)
        self._scratch.append(tempfile.TemporaryDirectory())
        return Path(self._scratch[-1].name)

    def _broadcast(self, text: str, root: int) -> str:
        if self.count == 1:
            return text
        octets = np.frombuffer(text.encode(), "uint8")
        size = np.frombuffer(np.int64(len(octets)).tobytes(), "uint8")
        (size,) = np.frombuffer(replicas.processes.broadcast(size, root), "int64")
        if self.index != root:
            octets = np.zeros(size, "uint8")
        if not size:
            return ""
        return replicas.processes.broadcast(octets, root).tobytes().decode()

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Raises an error in all processes if one differs from the first.

        Args:
            facts: What must be the same, as JSON can hold it. The code of this package
                and of the program is compared, too.

        Raises:
            RuntimeError: Something differs; the message, the same in all, says what.
        """
        facts = {**facts, "code": _digests_of_code()}
        first = json.loads(self._broadcast(json.dumps(facts), 0))
        both = first["code"].keys() & facts["code"].keys()
        # What only one has loaded so far is no difference.
        for of_one in (first, facts):
            of_one["code"] = {name: of_one["code"][name] for name in sorted(both)}
        mine = "; ".join(list(differences(first, facts))[:3])
        found = [self._broadcast(mine, worker) for worker in range(self.count)]
        others = [f"worker {n}: {what}" for n, what in enumerate(found) if what]
        if others:
            raise RuntimeError(
                "The processes do not train the same. In worker 0 and, beside it, in "
                f"{'. In '.join(others)}."
            )


def initialize(strategy: "tf.distribute.Strategy | None" = None) -> Workers:
    """Joins the processes that train together, if there are any.

    Call it before anything is computed. Who the others are is said by the environment,
    which `python -m keras_gated.distribution` sets on one machine and a cluster on
    many: `KERAS_DISTRIBUTION_JOB_ADDRESSES` (`host:port` of each process, by commas),
    `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID`, as for
    `keras.distribution.initialize`; TensorFlow's `TF_CONFIG`; or the variables of
    PyTorch's `torchrun`. Each process should have a GPU of its own, or none.

    On TensorFlow the processes are connected by
    `tf.distribute.MultiWorkerMirroredStrategy`, on PyTorch by `torch.distributed`, and
    on JAX by `keras.distribution.DataParallel`.

    Args:
        strategy: A `tf.distribute.MirroredStrategy`, for several GPUs in one process:
            the models are then built within `Workers.scope`. Default: `None`.

    Returns:
        The workers; this process alone, if the environment names none.

    Raises:
        ValueError: A variable of the environment is missing or impossible, or
            `strategy` is another one, or is given to one of several processes.
        RuntimeError: A process has other code, or another Python.
    """
    found = cluster.from_environment()
    alone = found is None or found.count == 1
    if strategy is not None:
        tf = require("tensorflow")
        if not isinstance(strategy, tf.distribute.MirroredStrategy) or not alone:
            raise checks.error(
                "strategy", strategy, "a tf.distribute.MirroredStrategy, of one process"
            )
        _draw_dropout_for_all()
    if alone:
        return Workers(strategy=strategy)
    if replicas.processes is None:
        _die_with_the_launcher()
        replicas.processes = engines.connect(found)
        if not replicas.processes.sees_all:
            _draw_dropout_for_all()
        Workers(found.count, found.index).compare({"Python": sys.version})
    return Workers(found.count, found.index)


def _die_with_the_launcher() -> None:
    """A launcher that is killed cannot end what it has launched."""
    lifeline = os.environ.get(LIFELINE)
    if lifeline is None:
        return

    def watch() -> None:
        os.read(int(lifeline), 1)  # until the other end is closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _digests_of_code() -> dict[str, str]:
    """Of this package, and of what the program has loaded from its own folder."""
    files = {}
    for package in ("keras_gated", "keras_gated.datasets"):
        folder = Path(importlib.util.find_spec(package).origin).parent
        for path in sorted(folder.rglob("*.py")):
            files[f"{package}/{path.relative_to(folder).as_posix()}"] = path
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is not None:
        own = Path(main).resolve().parent
        for name, module in list(sys.modules.items()):
            path = Path(getattr(module, "__file__", None) or "/").resolve()
            mine = path.is_relative_to(own) and "site-packages" not in path.parts
            if mine and path.suffix == ".py" and path.is_file():
                files[name] = path
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for name, path in files.items()
    }


def _of_mean_gradients(model: keras.Model) -> Callable:
    """`Optimizer.apply` with the gradients of all processes, as one vector."""
    apply = model.optimizer.apply

    @functools.wraps(apply)
    def applied(grads: Sequence[Tensor], trainable_variables: Any = None) -> Any:
        variables = trainable_variables
        if variables is None:
            variables = model.trainable_variables
        there = [ops.reshape(g, (-1,)) for g in grads if g is not None]
        shapes = [
            v.shape for v, g in zip(variables, grads, strict=True) if g is not None
        ]
        *ends, size = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
        vector = ops.reshape(ops.concatenate(there), (size,))
        mean = replicas.total(vector) / replicas.count()
        parts = zip(ops.split(mean, ends), shapes, strict=True)
        means = (ops.reshape(part, shape) for part, shape in parts)
        return apply([g if g is None else next(means) for g in grads], variables)

    return applied


def _of_all(model: keras.Model, result: Callable) -> Callable:
    """`Model.get_metrics_result` over the rows of all processes."""

    @functools.wraps(result)
    def of_all() -> dict:
        # Within a step on TensorFlow it is asked for, too, and not looked at.
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            if tf.inside_function():
                return result()
        with _totals(model.metrics):
            return result()

    return of_all


@contextmanager
def _totals(metrics: Sequence[keras.metrics.Metric]) -> Iterator[None]:
    """Metrics that hold, for a moment, the sums over all processes."""
    variables = list({id(v): v for m in metrics for v in m.variables}.values())
    if not variables:
        yield
        return
    own = [ops.copy(v.value) for v in variables]
    vector = ops.concatenate([ops.reshape(ops.cast(v, "float64"), -1) for v in own])
    totals = ops.convert_to_numpy(replicas.total(vector))
    ends = np.cumsum([math.prod(v.shape) for v in variables])
    parts = np.split(totals, ends[:-1])
    for variable, part in zip(variables, parts, strict=True):
        variable.assign(part.reshape(variable.shape))
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)


def _draw_dropout_for_all() -> None:
    """Has every dropout of Keras draw masks for the rows of all copies, once."""
    dropout = random_of_keras.dropout
    if hasattr(dropout, "__wrapped__"):
        return

    @functools.wraps(dropout)
    def of_own_rows(
        inputs: Tensor, rate: float, noise_shape: Any = None, seed: Any = None
    ) -> Tensor:
        count = replicas.count()
        if count == 1:
            return dropout(inputs, rate, noise_shape, seed)
        rows, *others = ops.shape(inputs)
        if noise_shape is not None:
            of_rows, *of_others = noise_shape
            if of_rows is not None and not (isinstance(of_rows, int) and of_rows == 1):
                noise_shape = (count * rows, *of_others)
        ones = ops.ones((count * rows, *others), dtype=inputs.dtype)
        of_all = dropout(ones, rate, noise_shape, seed)
        first = replicas.index() * rows
        return inputs * of_all[first : first + rows]

    random_of_keras.dropout = of_own_rows
