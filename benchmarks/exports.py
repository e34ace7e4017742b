"""Counts the nodes of ONNX files, and times them in onnxruntime.

    python benchmarks/exports.py

Of the same layers: the file of `to_onnx` with the operators of ONNX, its file with a
loop, which has the nodes that `model.export(path, format="onnx")` of Keras writes, and
those of both exporters of `torch.onnx.export`; the newer one needs the package
onnxscript, and is left out where it takes no sequences of any length. Nodes inside
loops count; constants do not, which ours keeps as initializers. Times are those of a
processor, medians over rounds in which the files take turns, in onnxruntime on one
thread, of sequences of 100 steps; the ratios are what they are good for.
"""

import argparse
import contextlib
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import keras
import numpy as np
import onnx
import onnxruntime
import torch
from torch.onnx.errors import OnnxExporterError

import keras_gated
from keras_gated import GRU, LSTM, TanhRNN, to_onnx

INPUTS, UNITS, STEPS, BATCHES = 88, 128, 100, (1, 16)
EVERY = {"return_sequences": True}
PAIRS = {
    "tanh": (
        lambda: [TanhRNN(UNITS, **EVERY)],
        lambda: torch.nn.RNN(INPUTS, UNITS, batch_first=True),
    ),
    "LSTM": (
        lambda: [LSTM(UNITS, **EVERY)],
        lambda: torch.nn.LSTM(INPUTS, UNITS, batch_first=True),
    ),
    "GRU, reset after": (
        lambda: [GRU(UNITS, reset_after=True, **EVERY)],
        lambda: torch.nn.GRU(INPUTS, UNITS, batch_first=True),
    ),
    "two LSTMs": (
        lambda: [LSTM(UNITS, **EVERY), LSTM(UNITS, **EVERY)],
        lambda: torch.nn.LSTM(INPUTS, UNITS, 2, batch_first=True),
    ),
    "LSTM in both directions": (
        lambda: [keras.layers.Bidirectional(LSTM(UNITS, **EVERY))],
        lambda: torch.nn.LSTM(INPUTS, UNITS, batch_first=True, bidirectional=True),
    ),
}
"""What makes a layer here and in PyTorch."""
FREE = {0: "batch", 1: "time"}
OURS = "native", "loop"
THEIRS = {
    "PyTorch": {
        "dynamo": True,
        "dynamic_shapes": (dict.fromkeys(FREE, torch.export.Dim.DYNAMIC),),
        "verbose": False,
    },
    "PyTorch, TorchScript": {
        "dynamo": False,
        "dynamic_axes": {"x": FREE, "y": FREE},
    },
}
"""The arguments of its exporters, of which the second is to go."""


def write(name: str, folder: Path) -> dict[str, Path]:
    """The files of a layer, by who wrote them."""
    ours, theirs = PAIRS[name]
    model = keras.Sequential([keras.Input((None, INPUTS)), *ours()])
    paths = {who: folder / f"{n}.onnx" for n, who in enumerate((*OURS, *THEIRS))}
    to_onnx(model, paths["native"])
    to_onnx(model, paths["loop"], native=False)
    for who, options in THEIRS.items():
        with warnings.catch_warnings(), contextlib.suppress(OnnxExporterError):
            warnings.simplefilter("ignore")  # that TorchScript is to go
            torch.onnx.export(
                theirs().train(False),
                (torch.zeros(2, 5, INPUTS),),
                str(paths[who]),
                input_names=["x"],
                output_names=["y"],
                **options,
            )
    return {who: path for who, path in paths.items() if path.exists()}


def nodes(path: Path) -> int:
    """Those inside loops included, constants not."""

    def count(graph: onnx.GraphProto) -> int:
        inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
        own = sum(node.op_type != "Constant" for node in graph.node)
        return own + sum(map(count, inner))

    return count(onnx.load(path).graph)


def caller(path: Path, x: np.ndarray) -> Callable[[], float]:
    """What runs a file once, and returns the seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # shapes that PyTorch states, and does not keep
    session = onnxruntime.InferenceSession(path, options)

    def call() -> float:
        began = time.thread_time()
        session.run(["y"], {"x": x})
        return time.thread_time() - began

    call()
    return call


def measure(name: str, rounds: int, folder: Path) -> dict[str, dict]:
    """Nodes and milliseconds of a layer, and their ratios."""
    paths = write(name, folder)
    counts = {who: nodes(path) for who, path in paths.items()}
    ratios = {
        f"native / {who}": round(counts["native"] / counts[who], 2)
        for who in THEIRS
        if who in counts
    }
    figures = {"nodes": counts | ratios}
    for batch in BATCHES:
        x = np.random.default_rng(0).normal(size=(batch, STEPS, INPUTS))
        calls = {who: caller(p, x.astype("float32")) for who, p in paths.items()}
        seconds = {who: [] for who in calls}
        for _ in range(rounds):
            for who, call in calls.items():
                seconds[who].append(call())
        medians = {who: statistics.median(some) for who, some in seconds.items()}
        row = {who: round(1e3 * value, 3) for who, value in medians.items()}
        for who in list(row)[1:]:
            row[f"{who} / native"] = round(medians[who] / medians["native"], 2)
        figures[f"ms, {batch} sequences"] = row
    print(name, figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=101)
    args = parser.parse_args()
    layers = {}
    for name in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            layers[name] = measure(name, args.rounds, Path(folder))
    packages = (
        "keras",
        "tensorflow",
        "tf2onnx",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "torch",
    )
    result = {
        "command": f"python benchmarks/exports.py --rounds {args.rounds}",
        "inputs, units, steps": [INPUTS, UNITS, STEPS],
        "layers": layers,
        "versions": {
            "keras_gated": keras_gated.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    text = json.dumps(result, indent=1)
    Path(__file__).with_name("exports.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
