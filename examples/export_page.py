r"""Writes a page on which a music model goes on with a MIDI file, in the browser.

    python examples/export_page.py --model runs/polyphonic_music/.../joint/best.keras \
        --to page
    python -m http.server --directory page    # at http://localhost:8000

onnxruntime-web runs the model, one step after the other, on the machine of whoever
opens the page: the folder can lie on any server of files, and no file of a reader
leaves the reader's machine. npm (of Node.js) must be there to write it; it brings
onnxruntime-web and midi-file to examples/browser/node_modules once.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import quiet  # noqa: F401
import keras
from model_file import export_parser, load_model, make_folder

import keras_gated
from keras_gated import NADE, RollEncoding, exporting
from keras_gated.datasets import midi, piano_roll

SOURCES = Path(__file__).parent / "browser"
RUNTIME = "ort-wasm-simd-threaded.wasm"


def about(model: keras.Model) -> dict:
    """What the page must know of a model.

    Args:
        model: A model of the frames of piano rolls.

    Raises:
        ValueError: The page cannot run it; the message says why.
    """
    encoding = RollEncoding.of(model)
    if encoding is None:
        raise ValueError(
            "The model does not say how music was made into its frames; train it with "
            "a layer keras_gated.RollEncoding, as examples/polyphonic_music.py does."
        )
    if encoding.features:
        raise ValueError(
            f"The model is told the {' and the '.join(encoding.features)} of each "
            "step, which the page cannot; train one without."
        )
    step, head = exporting.SingleStep(model), model.layers[-1]
    width = piano_roll.KEYS * (2 if encoding.onsets else 1)
    whole = isinstance(head, NADE)
    names = [name for name in step.inputs if not name.startswith("state_")]
    shapes = {tuple(step.inputs[name].shape) for name in names}
    linear = getattr(head, "activation", None) is keras.activations.linear
    if shapes != {(None, width)} or len(names) != 1 + whole or not (whole or linear):
        raise ValueError(
            f"The page runs models of frames of {width} keys that end in NADE or in "
            f"Dense({width}). Received: inputs of the shapes {sorted(shapes)}, and the "
            f"last layer {head.name!r} of class {type(head).__name__}."
        )
    rate = encoding.steps_per_quarter
    states = step.initial_states(1).values()
    return {
        "steps_per_quarter": [rate.numerator, rate.denominator],
        "transpose": encoding.transpose,
        "profiles": [midi.MAJOR, midi.MINOR],
        "onsets": encoding.onsets,
        "width": width,
        "whole": whole,
        "order": order(head) if whole else list(range(width)),
        "states": [keras.ops.convert_to_numpy(state)[0].tolist() for state in states],
    }


def order(head: NADE) -> list[int]:
    """The columns of a frame in the order in which they are drawn.

    Args:
        head: The last layer of the model.
    """
    keys = list(range(piano_roll.KEYS))
    named = {"ascending": keys, "descending": keys[::-1]}
    drawn = named[head.order] if isinstance(head.order, str) else head.order
    marks = (0, piano_roll.KEYS) if head.onsets else (0,)
    return [key + mark for key in drawn for mark in marks]


def bundle(to: Path) -> None:
    """Puts the page, its code and the runtime into a folder.

    Args:
        to: The folder.

    Raises:
        ValueError: npm is not there, or does not bring what the page needs.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "npm was not found, which brings onnxruntime-web: install Node.js, which "
            "has it."
        )
    modules = SOURCES / "node_modules"
    if not (modules / ".package-lock.json").exists():
        print("npm installs onnxruntime-web, midi-file and esbuild, once.", flush=True)
    options = ["--no-fund", "--no-audit", "--no-package-lock", "--ignore-scripts"]
    _run([npm, "install", "--silent", *options], cwd=SOURCES)
    bundler = [modules / ".bin" / "esbuild", "app.js", "--bundle", "--format=esm"]
    _run([*bundler, "--minify", f"--outfile={to.resolve() / 'app.js'}"], cwd=SOURCES)
    shutil.copy(SOURCES / "index.html", to)
    shutil.copy(modules / "onnxruntime-web" / "dist" / RUNTIME, to)


def _run(command: list, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ValueError(f"{Path(command[0]).name} failed: {' '.join(lines)[:300]}")


def main() -> int:
    args = export_parser(__doc__).parse_args()
    try:
        model = load_model(args.model)
        known = about(model)
        make_folder(args.to)
        keras_gated.to_onnx(model, args.to / "step.onnx", step=True)
        (args.to / "about.json").write_text(json.dumps(known))
        bundle(args.to)
    except (ValueError, ImportError, OSError) as error:
        print(f"export_page.py: error: {error}", file=sys.stderr)
        return 2
    print(
        f"python -m http.server --directory {args.to}    # and open "
        "http://localhost:8000"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
