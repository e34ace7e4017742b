"""What must be the same when a training is resumed."""

import copy
import importlib.metadata
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_gated.callbacks.backup_file import same

UNKNOWN = "not known"
"""In the place of what may differ."""


def identify(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    data: Any,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, Any]:
    """Describes a training, as JSON gives it back.

    Args:
        model: The model, compiled.
        variables: All that training changes.
        data: What it is trained on; if it has an `identity`, that is part of it.
        callbacks: Those that go on.
    """
    names = "keras-gated", "keras", keras.config.backend()
    identity = {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "model": _named_by_place(_config(model)),
        "variables": [f"{v.dtype} {tuple(v.shape)}" for v in variables],
        "data": getattr(data, "identity", None),
        "callbacks": [type(callback).__name__ for callback in callbacks],
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


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """Says what differs in two structures, each by its place.

    Args:
        there: One.
        here: The other.
        where: Their place in what they are part of. Default: the whole.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            place = f"{where}.{key}" if where else str(key)
            yield from differences(there.get(key), here.get(key), place)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif not same(there, here) and UNKNOWN not in (there, here):
        yield f"{where} was {_short(there)} and is {_short(here)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
