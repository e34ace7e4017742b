"""What a program has left behind, so that two ends of it can be compared."""

import collections
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.util import tensor_util

STAMP = re.compile(r"\b\d{8}-\d{6}(-\d+)?\b")
"""The folder of a run is named by the clock."""
UNCOMPARED = re.compile(r"(^|/)(tuner/|\.lock$)")
"""KerasTuner numbers its trials by chance; a lock is nothing but there."""
VARYING = re.compile(
    r"\bseconds(_an_epoch)?\b|steps_per_second|learning_curves\.png|shared_object_id"
)
"""What depends on the clock: figures, and the picture that is drawn over time; and on
chance: by which numbers Keras tells objects apart."""

End = dict[tuple[str, str], list[str]]


def end_of(folder: Path) -> End:
    """What is in a folder, but for what the clock or chance decides.

    Args:
        folder: Of all results.

    Returns:
        The values by file and place in the file, in the order in which they were
        written. All that TensorBoard shows of a folder counts as one file.
    """
    end = collections.defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if UNCOMPARED.search(name):
            continue
        name = STAMP.sub("run", re.sub(r"events\.out\.tfevents\..*", "tfevents", name))
        for place, value in _content(path):
            varies = VARYING.search(f"{name} {place}")
            end[name, place].append("something" if varies else value)
    return dict(end)


def differences(first: End, second: End) -> list[str]:
    """What two ends do not have in common.

    Args:
        first: One end.
        second: The other.

    Returns:
        A line for each place.
    """
    found = []
    for key in sorted({*first, *second}):
        values, others = first.get(key, []), second.get(key, [])
        if len(values) != len(others):
            found.append(f"{' '.join(key)}: {len(values)} values, then {len(others)}")
        elif values != others:
            pairs = zip(values, others, strict=True)
            value, other = next(pair for pair in pairs if pair[0] != pair[1])
            found.append(f"{' '.join(key)}: {value[:40]}, then {other[:40]}")
    return found


def kinds(end: End) -> str:
    """How many files of which kinds an end has."""
    files = {file for file, _ in end}
    counts = collections.Counter(
        file.rpartition(".")[2].rpartition("/")[2] for file in files
    )
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _content(path: Path) -> Iterator[tuple[str, str]]:
    """The places of a file and what stands there."""
    if "tfevents" in path.name:
        yield from _events(path)
    elif path.suffix == ".json":
        yield from _leaves(json.loads(path.read_bytes()))
    elif path.suffix == ".keras":
        yield from _model(path)
    else:
        yield "", _digest(path.read_bytes())


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _leaves(part, f"{place}/{key}")
    else:
        yield place, repr(value)


def _events(path: Path) -> Iterator[tuple[str, str]]:
    """The steps and values of each tag.

    As they stand in the file: what TensorBoard's own readers return has no doubles.
    """
    for event in event_file_loader.LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            array = tensor_util.make_ndarray(value.tensor)
            text = repr(array.item()) if array.size == 1 else _digest(array)
            varies = VARYING.search(value.tag)
            yield value.tag, f"step {event.step}" + ("" if varies else f": {text}")


def _model(path: Path) -> Iterator[tuple[str, str]]:
    """The weights, those of the optimizer, too, and how the model was built."""
    with zipfile.ZipFile(path) as parts:
        yield from _leaves(json.loads(parts.read("config.json")))
        weights = io.BytesIO(parts.read("model.weights.h5"))
    found = []
    with h5py.File(weights) as file:
        file.visititems(
            lambda name, node: (
                found.append((name, _digest(node[()])))
                if isinstance(node, h5py.Dataset)
                else None
            )
        )
    yield from found


def _digest(data: bytes | np.ndarray) -> str:
    if isinstance(data, np.ndarray):
        # Texts are objects, which have no bytes of their own.
        data = repr(data.tolist()).encode() if data.dtype == object else data.tobytes()
    return hashlib.sha256(data).hexdigest()
