r"""Writes a model as files for other programs, and checks and times each of them.

    python examples/export_model.py --model runs/polyphonic_music/.../best.keras \
        --to exported --quantize

writes `model.onnx` (sequences), `step.onnx` and `step.tflite` (one step, whose states
are inputs and outputs) and `saved` (a SavedModel), runs each beside the model, and
prints and writes as `exports.json` what came of it. With `--quantize` there are files
in 8 bits, too, and what they cost: the largest difference of an output, and for models
of frames how much less likely the frames are.
"""

import argparse
import contextlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import quiet  # noqa: F401
import keras
import numpy as np
from model_file import export_parser, load_model, make_folder

import keras_gated
from keras_gated import GaussianMixture, exporting, losses
from keras_gated.datasets.files import require

STEPS, ROUNDS = 64, 20
"""Of the sequence that is run, and how often it is for a median."""
SAME = 1e-4
"""What is further from the model is an error: far above rounding."""

Arrays = dict[str, np.ndarray]
Call = Callable[..., Arrays]


def parse_arguments() -> argparse.Namespace:
    parser = export_parser(__doc__)
    add = parser.add_argument
    add("--quantize", action="store_true", help="also in 8 bits")
    add("--seed", type=int, default=0, metavar="N", help="of what the model is run on")
    return parser.parse_args()


class Form(NamedTuple):
    """A way to write a model."""

    title: str
    file: str
    write: Callable[[keras.Model, Path], Any]
    step: bool = False
    exact: bool = True


def forms(folder: Path, quantized: bool) -> list[Form]:
    """What there is to write.

    Args:
        folder: Where.
        quantized: Whether also in 8 bits.
    """

    def onnx(step: bool) -> Callable:
        return lambda model, path: keras_gated.to_onnx(model, path, step=step)

    def lite(quantize: bool) -> Callable:
        options = {"step": True, "quantize": quantize}
        return lambda model, path: exporting.to_litert(model, path, **options)

    def in_8_bits(source: str) -> Callable:
        def write(model: keras.Model, path: Path) -> None:
            if not (folder / source).exists():
                raise ValueError(f"it is made of {source}, which there is not")
            require("onnxruntime", "export")
            from onnxruntime import quantization

            with without_warnings():  # advice that it gives
                quantization.quantize_dynamic(folder / source, path)

        return write

    found = [
        Form("ONNX, sequences", "model.onnx", onnx(False)),
        Form("ONNX, one step", "step.onnx", onnx(True), step=True),
        Form("LiteRT, one step", "step.tflite", lite(False), step=True),
        Form("SavedModel, sequences", "saved", exporting.to_saved_model),
    ]
    if not quantized:
        return found
    return [
        *found,
        Form(
            "ONNX, sequences, 8 bits",
            "model-int8.onnx",
            in_8_bits("model.onnx"),
            exact=False,
        ),
        Form(
            "ONNX, one step, 8 bits",
            "step-int8.onnx",
            in_8_bits("step.onnx"),
            step=True,
            exact=False,
        ),
        Form(
            "LiteRT, one step, 8 bits",
            "step-int8.tflite",
            lite(True),
            step=True,
            exact=False,
        ),
    ]


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drops what libraries log, but for errors."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def opened(path: Path) -> Call:
    """A file that was written as a function: named inputs to named outputs.

    Args:
        path: An ONNX or LiteRT file, or the folder of a SavedModel.
    """
    if path.suffix == ".onnx":
        session = require("onnxruntime", "export").InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda **given: dict(zip(names, session.run(None, given), strict=True))
    import tensorflow as tf

    if path.suffix == ".tflite":
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:  # TensorFlow's own, which is to go
            Interpreter = tf.lite.Interpreter
        return Interpreter(str(path)).get_signature_runner()
    with without_warnings():  # about gradients
        loaded = tf.saved_model.load(path)

    def call(**given: np.ndarray) -> Arrays:
        given = {name: tf.constant(x) for name, x in given.items()}
        found = loaded.signatures["serving_default"](**given)
        return {name: x.numpy() for name, x in found.items()}

    return call


def operators(path: Path) -> int | None:
    """How many a file has, those inside loops included; `None` for a SavedModel.

    Args:
        path: As of `opened`.
    """
    if path.suffix == ".onnx":

        def count(graph: Any) -> int:
            inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
            return len(graph.node) + sum(map(count, inner))

        return count(require("onnx", "export").load(path).graph)
    if path.suffix == ".tflite":
        from tensorflow.lite.tools import flatbuffer_utils

        graphs = flatbuffer_utils.read_model(str(path)).subgraphs
        return sum(len(graph.operators or []) for graph in graphs)
    return None


def size(path: Path) -> int:
    """The bytes of a file, or of all in a folder.

    Args:
        path: Either.
    """
    files = [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]
    return sum(file.stat().st_size for file in files)


def sequences(model: keras.Model, seed: int) -> list[np.ndarray]:
    """What a model is run on, for each input.

    Frames of few keys, or numbers if it ends in a mixture. A second input of as many
    values as the first is the next frames.

    Args:
        model: The model.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    first = keras.tree.flatten(model.inputs)[0]
    mixture = isinstance(model.layers[-1], GaussianMixture)
    found = []
    for number, given in enumerate(keras.tree.flatten(model.inputs)):
        steps = given.shape[1] or STEPS
        shape = (given.shape[0] or 1, steps, *given.shape[2:])
        x = random.normal(size=shape) if mixture else random.random(shape) < 0.05
        if number and given.shape == first.shape:
            x = np.roll(found[0], -1, axis=1)
        found.append(np.asarray(x, given.dtype))
    return found


def likelihood(model: keras.Model) -> Callable[[np.ndarray], float] | None:
    """What gives the nats a step of the next frames, for models of such.

    Args:
        model: The model.

    Returns:
        A function of outputs, or `None`.
    """
    head, inputs = model.layers[-1], keras.tree.flatten(model.inputs)
    width = inputs[0].shape[-1]
    if isinstance(head, GaussianMixture) and head.event_dim == width:
        return losses.GaussianMixtureNLL(head.components, head.event_dim)
    linear = getattr(head, "activation", None) is keras.activations.linear
    same = len(model.outputs) == 1 and model.outputs[0].shape == inputs[0].shape
    if isinstance(head, keras_gated.NADE) or (linear and same):
        return losses.BernoulliNLL()
    return None


def run(
    call: Call, xs: Arrays, one: exporting.SingleStep | None
) -> tuple[np.ndarray, float]:
    """The first output of a file for sequences, and the seconds that it takes.

    Args:
        call: From `opened`.
        xs: The sequences, by name.
        one: The step of the model, if the file is one.
    """
    if one is None:
        began = time.perf_counter()
        return next(iter(call(**xs).values())), time.perf_counter() - began
    batch, steps = next(iter(xs.values())).shape[:2]
    states = {
        name: keras.ops.convert_to_numpy(state)
        for name, state in one.initial_states(batch).items()
    }
    timed = {name for name, x in xs.items() if x.ndim > len(one.inputs[name].shape)}
    frames, began = [], time.perf_counter()
    for step in range(steps):
        now = {name: x[:, step] if name in timed else x for name, x in xs.items()}
        found = call(**now, **states)
        states = {name: found[f"new_{name}"] for name in states}
        frames.append(found[one.outputs[0]])
    return np.stack(frames, 1), time.perf_counter() - began


def measure(
    form: Form,
    path: Path,
    model: keras.Model,
    many: list[np.ndarray],
    expected: np.ndarray,
) -> dict[str, Any]:
    """Runs a file beside the model.

    Args:
        form: How it was written.
        path: The file.
        model: The model.
        many: From `sequences`.
        expected: The first output of the model for them.

    Raises:
        ValueError: Its numbers are others than those of the model.
    """
    names = ["x"] if len(many) == 1 else [f"x_{k}" for k in range(len(many))]
    xs = dict(zip(names, many, strict=True))
    one, call = exporting.SingleStep(model) if form.step else None, opened(path)
    found, _ = run(call, xs, one)
    if found.ndim > expected.ndim:  # the last step of a model that gives one
        found = found[:, -1]
    difference = float(np.abs(found - expected).max())
    if form.exact and not difference < SAME:
        raise ValueError(
            f"The outputs of {str(path)!r} differ from the model's by {difference:.1e}"
        )
    seconds = statistics.median(run(call, xs, one)[1] for _ in range(ROUNDS))
    steps = many[0].shape[1]
    row = {
        "bytes": size(path),
        "largest difference": difference,
        "ms a sequence": None if form.step else 1e3 * seconds,
        "µs a step": 1e6 * seconds / steps if form.step else None,
        "operators": operators(path),
    }
    nats = likelihood(model)
    if nats is not None and not form.exact:
        frames = many[-1] if len(many) > 1 else np.roll(many[0], -1, axis=1)
        before, after = (float(nats(frames, y)) for y in (expected, found))
        row["nats a step of the model, and of the file"] = [before, after]
    return row


def export(model: keras.Model, args: argparse.Namespace) -> dict[str, dict]:
    """Writes, checks and times all forms.

    Args:
        model: The model.
        args: The command.

    Returns:
        What came of each, by its title; `"not written"` is why not.
    """
    make_folder(args.to)
    many = sequences(model, args.seed)
    # Once, because a stateful model goes on from its states.
    expected = keras.tree.flatten(
        model(many if len(many) > 1 else many[0], training=False)
    )
    expected = keras.ops.convert_to_numpy(expected[0])
    table = {}
    for form in forms(args.to, args.quantize):
        path = args.to / form.file
        row: dict[str, Any] = {"file": form.file}
        table[form.title] = row
        try:
            form.write(model, path)
        except ValueError as error:
            row["not written"] = str(error)
        else:
            row |= measure(form, path, model, many, expected)
        print(line(form.title, row), flush=True)
    return table


def line(title: str, row: dict[str, Any]) -> str:
    """A row of the table.

    Args:
        title: Of the form.
        row: From `export`.
    """
    if "not written" in row:
        return f"{title:26} not written: {row['not written']}"
    step, sequence = row["µs a step"], row["ms a sequence"]
    time_of = f"{step:8.1f} µs a step" if sequence is None else f"{sequence:8.2f} ms"
    parts = [
        f"{title:26} {row['file']:16} {row['bytes']:>10,} bytes",
        f"{row['largest difference']:.0e}",
        f"{time_of:>19}",
        "" if row["operators"] is None else f"{row['operators']} operators",
    ]
    nats = row.get("nats a step of the model, and of the file")
    if nats:
        parts.append(f"{nats[0]:.4f} -> {nats[1]:.4f} nats a step")
    return "  ".join(parts).rstrip()


def main() -> int:
    args = parse_arguments()
    try:
        model = load_model(args.model)
        print(f"{args.model}: sequences of {STEPS} steps, largest difference, times")
        table = export(model, args)
        path = args.to / "exports.json"
        path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        refused = [row["not written"] for row in table.values() if "not written" in row]
        if len(refused) == len(table):
            raise ValueError(f"{str(args.model)!r} cannot be exported: {refused[0]}")
    except (ValueError, ImportError, OSError) as error:
        print(f"export_model.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
