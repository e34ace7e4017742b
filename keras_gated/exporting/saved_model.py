"""TensorFlow's SavedModel, with the names that the other files have."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_gated.exporting.forms import Form, form, quiet, traced


def to_saved_model(
    model: keras.Model, path: str | os.PathLike, *, step: bool = False
) -> None:
    """Writes a model as a SavedModel, for TensorFlow and TensorFlow Serving.

    Its signature `serving_default` has the inputs and outputs that
    `keras_gated.exporting.SingleStep` describes: `x` and `y`, of sequences `(batch,
    time, features)`, or with `step=True` of one step, with states. The lengths of
    batches and sequences are free. (`model.export` of Keras writes the sequence model
    as well; it calls inputs and outputs otherwise.)

    Args:
        model: A built model, on the backend TensorFlow.
        path: A folder; one that is there already is replaced, if it is a SavedModel.
        step: Whether to write one step of the model, with its states as inputs and
            outputs. Default: `False`.

    Raises:
        ValueError: The model cannot be exported; the message names the layer and says
            what to do instead. Or the path is something else than a SavedModel.

    Example:

    >>> import keras
    >>> from keras_gated import GRU, exporting
    >>> model = keras.Sequential([keras.Input((None, 3)), GRU(4)])
    >>> exporting.to_saved_model(model, "saved")
    """
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").exists():
        raise ValueError(
            "Argument `path` must be that of a new folder or of a SavedModel, which is "
            f"replaced. Received: path={os.fspath(path)!r}"
        )
    what = form(model, step, "SavedModel")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as place:
        whole, old = Path(place) / "new", Path(place) / "old"
        write(what, whole)
        if path.exists():
            path.replace(old)
        whole.replace(path)
        shutil.rmtree(old, ignore_errors=True)


def write(what: Form, folder: Path, batch_size: int | None = None) -> Any:
    """Writes a form into a folder.

    Args:
        what: The form.
        folder: The folder.
        batch_size: As in `traced`.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in what.variables]
    module.serve = traced(what, batch_size)
    # Without gradients, of which files have no need.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with quiet("tensorflow", "absl"):
        tf.saved_model.save(module, folder, module.serve, options)
