"""Whether music that models go on with keeps its shape.

    python benchmarks/drift.py --model runs/.../best.keras --dataset jsb --data-dir DIR

Continues the beginnings of test pieces for 400 steps, and compares each hundred with
the test set: notes at a time, rests, crowded steps (more than twice the usual number of
notes), pitch classes (their distance in total variation) and the length of notes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import keras
import numpy as np

from keras_gated import generation
from keras_gated.datasets import (
    jsb_chorales,
    muse_data,
    nottingham,
    piano_midi,
    piano_roll,
)

SETS = {
    "jsb": jsb_chorales,
    "nottingham": nottingham,
    "muse": muse_data,
    "piano": piano_midi,
}
CONTINUATIONS, STEPS, LAST, PRIMER = 40, 400, 100, 16


def shape_of(
    rolls: Sequence[np.ndarray], usual: float
) -> dict[str, float | np.ndarray]:
    """The statistics of some music.

    Args:
        rolls: The music.
        usual: The usual number of notes at a time.
    """
    notes = [piano_roll.to_notes(roll) for roll in rolls]
    lengths = np.concatenate([some[:, 1] - some[:, 0] for some in notes])
    classes = np.concatenate([some[:, 2] for some in notes]) % 12
    each = np.concatenate([np.asarray(roll).sum(axis=1, dtype=int) for roll in rolls])
    return {
        "notes at a time": each.mean(),
        "rests": (each == 0).mean(),
        "crowded": (each > 2 * usual).mean(),
        "steps a note": lengths.mean(),
        "classes": np.bincount(classes, minlength=12) / len(classes),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, nargs="+", required=True, metavar="FILE")
    add("--dataset", choices=SETS, required=True)
    add("--data-dir", type=Path, metavar="DIR")
    add("--temperature", type=float, default=1.0)
    args = parser.parse_args()
    *_, test = SETS[args.dataset].load_data(args.data_dir)
    test = list(test)
    usual = np.concatenate([roll.sum(axis=1, dtype=int) for roll in test]).mean()
    real = shape_of(test, usual)
    columns = [name for name in real if name != "classes"]
    print(f"{'':32}", *(f"{name:>16}" for name in (*columns, "pitch classes")))

    def show(name: str, found: dict) -> None:
        distance = np.abs(found["classes"] - real["classes"]).sum() / 2
        numbers = (f"{found[column]:16.3f}" for column in columns)
        print(f"{name:32}", *numbers, f"{distance:16.3f}", flush=True)

    show("test set", real)
    long = [roll for roll in test if len(roll) >= PRIMER]
    primer = np.stack([long[i % len(long)][:PRIMER] for i in range(CONTINUATIONS)])
    for path in args.model:
        model = keras.saving.load_model(path, compile=False)
        began = time.perf_counter()
        music = generation.generate(model, primer, STEPS, args.temperature, seed=1)
        seconds = time.perf_counter() - began
        for begin in range(0, STEPS, LAST):
            some = music[:, begin : begin + LAST]
            show(f"{model.name}, {begin} to {begin + LAST}", shape_of(some, usual))
        print(f"({CONTINUATIONS * STEPS / seconds:,.0f} steps a second)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
