"""Whether music that models go on with keeps its shape.

    python benchmarks/drift.py --model runs/.../joint/best.keras \
        --control runs/.../gru/best.keras --dataset jsb --output drift.json \
        --picture drift.png

Continues the beginnings of test pieces for 400 steps, and compares each hundred with
the test set: notes at a time, rests, crowded steps (more than twice the usual number of
notes), dissonance (of the pairs of pitch classes that sound together, the share that
are seconds, tritones or sevenths), and the distances in total variation of the numbers
of notes at a time, of pitch classes and of the lengths of notes, beside those of two
halves of the test set. A control is a model whose keys are independent. The picture
shows a continuation of the first model and of the first control.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import comparison
import keras
import numpy as np
from comparison import measures, stacked
from polyphonic_music import PUBLISHED

import keras_gated
from keras_gated import generation

CONTINUATIONS, STEPS, WINDOW, PRIMER = 40, 400, 100, 16
HISTOGRAMS = ("numbers", "pitch_classes", "note_lengths")
COLUMNS = {
    "": "{what}",
    "notes at a time": "{notes_at_a_time:.2f}",
    "rests": "{rests:.1%}",
    "crowded": "{crowded:.1%}",
    "dissonance": "{dissonance:.1%}",
    "steps a note": "{note_length:.2f}",
    "numbers": "{distance_of_numbers:.3f}",
    "pitch classes": "{distance_of_pitch_classes:.3f}",
    "lengths": "{distance_of_note_lengths:.3f}",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, nargs="+", required=True, metavar="FILE")
    add("--control", type=Path, nargs="+", default=[], metavar="FILE")
    add("--dataset", choices=PUBLISHED, required=True)
    add("--data-dir", type=Path, metavar="DIR", help="of the published sets' files")
    add("--temperature", type=float, default=1.0, metavar="X")
    add("--seed", type=int, default=1, metavar="N")
    add("--output", type=Path, metavar="FILE", help="the figures, as JSON")
    add("--picture", type=Path, metavar="FILE", help="a PNG file")
    return parser.parse_args()


def primers(test: list[np.ndarray]) -> np.ndarray:
    """The beginnings that are continued, `[CONTINUATIONS, PRIMER, 88]`."""
    long = [roll for roll in test if len(roll) >= PRIMER]
    return np.stack([long[i % len(long)][:PRIMER] for i in range(CONTINUATIONS)])


def compared(shape: measures.Shape, real: measures.Shape) -> dict:
    """A shape and its distances from that of real music, for JSON."""
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in shape._asdict().items()
    }
    distances = {
        f"distance_of_{name}": measures.distance(
            getattr(shape, name), getattr(real, name)
        )
        for name in HISTOGRAMS
    }
    return {**values, **distances}


def title_of(model: keras.Model) -> str:
    joint = isinstance(model.layers[-1], keras_gated.NADE)
    return "whole frames" if joint else "independent keys"


def draw(music: dict[str, np.ndarray], path: Path) -> None:
    """A picture of continuations, one above the other.

    Args:
        music: The roll of each, by its title; all begin with the same primer.
        path: Of the picture.
    """
    shades = {title: roll.astype(float) for title, roll in music.items()}
    for roll in shades.values():
        roll[:PRIMER] /= 2
    colors = ["white", "tab:gray", "tab:blue"]
    label = "step (gray: the beginning of a test piece)"
    figure, panels = stacked.draw(shades, colors, (13, 3.2), label)
    for axes in panels:
        axes.axvline(PRIMER - 0.5, color="tab:red")
    figure.savefig(path, dpi=110)


def main() -> int:
    args = parse_arguments()
    module, steps_per_quarter = PUBLISHED[args.dataset]
    test = list(module.load_data(args.data_dir)[2])
    usual = measures.usual_number(test)
    real = measures.shape_of(test, usual)
    halves = {
        f"distance_of_{name}": measures.distance_of_halves(test, name)
        for name in HISTOGRAMS
    }
    found = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": comparison.versions(),
        "seed": args.seed,
        "temperature": args.temperature,
        "dataset": args.dataset,
        "steps_per_quarter": steps_per_quarter,
        "continuations": CONTINUATIONS,
        "test set": compared(real, real),
        "two halves of the test set": halves,
        "models": [],
    }
    rows = [{"what": "test set", **real._asdict()}]
    rows += [{"what": "two halves of it", **halves}]
    primer, music = primers(test), {}
    for path in (*args.model, *args.control):
        model = keras.saving.load_model(path, compile=False)
        began = time.perf_counter()
        rolls = generation.generate(
            model, primer, STEPS, args.temperature, seed=args.seed
        )
        seconds = time.perf_counter() - began
        title, windows = title_of(model), {}
        rows.append({"what": f"{title} ({path})"})
        for begin in range(0, STEPS, WINDOW):
            name = f"{begin} to {begin + WINDOW}"
            shape = measures.shape_of(rolls, usual, begin, begin + WINDOW)
            windows[name] = compared(shape, real)
            rows.append({"what": f"  steps {name}", **windows[name]})
        if path in (args.model[0], *args.control[:1]):
            music[title] = np.concatenate([primer[0], rolls[0]])
        found["models"].append(
            {
                "model": title,
                "file": str(path),
                "control": path in args.control,
                "steps_a_second": round(CONTINUATIONS * STEPS / seconds),
                "steps": windows,
            }
        )
    print(comparison.format_table(rows, COLUMNS))
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    if args.picture:
        draw(music, args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
