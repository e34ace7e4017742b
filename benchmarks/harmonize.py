"""How well a model harmonizes: Bach's sopranos with lower voices that it finds.

    python benchmarks/harmonize.py --model runs/.../joint/best.keras --dataset jsb \
        --output harmony.json --picture harmony.png --output-dir harmonies

The highest key of each step of 20 test pieces is fixed, the keys above it are off, and
those below are free. What the model finds is measured beside what the composer wrote
and beside a control: what was found for another piece, under this soprano. Measured
are the log-likelihood by step, exact, by the model (of all steps but the first, as
losses count them); dissonance (of the pairs of pitch classes that sound together, the
share that are seconds, tritones or sevenths); notes at a time; and the range of the
lower voices, without the outermost percent at either side.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import comparison
import keras
import numpy as np
from comparison import measures, stacked
from polyphonic_music import PUBLISHED

from keras_gated import generation, losses
from keras_gated.datasets import midi, piano_roll

PIECES, WRITTEN = 20, 3
RANGE = (1, 99)
"""The percentiles of pitch between which the lower voices are said to lie."""
COLUMNS = {
    "": "{what}",
    "nats a step": "{log_likelihood:.2f}",
    "dissonance": "{dissonance:.1%}",
    "notes at a time": "{notes_at_a_time:.2f}",
    "lowest": "{lowest}",
    "highest lower": "{highest_lower}",
    "soprano kept": "{soprano_kept:.1%}",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE")
    add("--dataset", choices=PUBLISHED, default="jsb")
    add("--data-dir", type=Path, metavar="DIR", help="of the published sets' files")
    add("--particles", type=int, default=32, metavar="N")
    add("--temperature", type=float, default=1.0, metavar="X")
    add("--seed", type=int, default=1, metavar="N")
    add("--output", type=Path, metavar="FILE", help="the figures, as JSON")
    add("--picture", type=Path, metavar="FILE", help="a PNG file of the first piece")
    add("--output-dir", type=Path, metavar="DIR", help="for MIDI files of three pieces")
    return parser.parse_args()


def from_top(roll: np.ndarray) -> np.ndarray:
    """How many keys are on at or above each key."""
    return np.cumsum(roll[:, ::-1], axis=1, dtype=int)[:, ::-1]


def soprano_of(roll: np.ndarray) -> np.ndarray:
    """The highest key of each step alone, of the shape of the roll."""
    return ((roll > 0) & (from_top(roll) == 1)).astype(np.uint8)


def given(soprano: np.ndarray) -> np.ndarray:
    """What a harmony must keep to, as `generation.generate` takes it.

    The soprano is on, keys above it are off, and those below are free. Where it rests,
    all rest.
    """
    return np.where(soprano > 0, 1, np.where(from_top(soprano) > 0, -1, 0))


def padded(rolls: Sequence[np.ndarray], value: int = 0) -> np.ndarray:
    """Rolls of different lengths in one array, `[pieces, steps, 88]`."""
    steps = max(map(len, rolls))
    return np.stack(
        [
            np.pad(roll, ((0, steps - len(roll)), (0, 0)), constant_values=value)
            for roll in rolls
        ]
    )


def harmonies(
    model: keras.Model, sopranos: Sequence[np.ndarray], args: argparse.Namespace
) -> list[np.ndarray]:
    """What the model finds, from silence on."""
    fixed = padded([given(soprano) for soprano in sopranos], -1)
    start = np.zeros((len(fixed), 1, piano_roll.KEYS), np.uint8)
    found = generation.generate(
        model,
        start,
        fixed.shape[1],
        args.temperature,
        seed=args.seed,
        fixed=fixed,
        particles=args.particles,
    )
    return [roll[: len(soprano)] for roll, soprano in zip(found, sopranos, strict=True)]


def controls(
    found: Sequence[np.ndarray], sopranos: Sequence[np.ndarray], seed: int
) -> list[np.ndarray]:
    """Below each soprano what was found for another, as far as both go.

    Notes at or above the soprano are left out.
    """
    order = np.random.default_rng(seed).permutation(len(found))
    made = {}
    for mine, other in zip(order, np.roll(order, 1), strict=True):
        steps = min(len(found[mine]), len(found[other]))
        soprano = sopranos[mine][:steps]
        lower = (found[other] * (1 - sopranos[other]))[:steps]
        made[mine] = soprano + lower * (given(soprano) == -1).astype(np.uint8)
    return [made[number] for number in range(len(found))]


def log_likelihoods(
    model: keras.Model, rolls: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Of each step of each piece but the first, in nats."""
    whole = padded(rolls).astype("float32")
    frames, following = whole[:, :-1], whole[:, 1:]
    joint = len(model.inputs) > 1
    logits = model.predict([frames, following] if joint else frames, verbose=0)
    nll = keras.ops.convert_to_numpy(losses.bernoulli_nll(following, logits))
    return [-row[: len(roll) - 1] for row, roll in zip(nll, rolls, strict=True)]


def measured(
    model: keras.Model, rolls: Sequence[np.ndarray], sopranos: Sequence[np.ndarray]
) -> dict:
    """The figures of some harmonies, for JSON."""
    likelihoods = log_likelihoods(model, rolls)
    pairs = list(zip(rolls, sopranos, strict=True))
    kept = [(soprano_of(r) == s[: len(r)]).all(axis=1) for r, s in pairs]
    lower = np.concatenate([roll - soprano_of(roll) for roll in rolls])
    pitches = np.nonzero(lower)[1] + piano_roll.LOWEST_PITCH
    low, high = np.percentile(pitches, RANGE).round().astype(int).tolist()
    return {
        "log_likelihood": float(np.concatenate(likelihoods).mean()),
        "dissonance": measures.dissonance(rolls),
        "notes_at_a_time": measures.usual_number(rolls),
        "lowest": low,
        "highest_lower": high,
        "soprano_kept": float(np.concatenate(kept).mean()),
        "log_likelihood_of_each": [float(row.mean()) for row in likelihoods],
    }


def draw(rolls: dict[str, np.ndarray], path: Path) -> None:
    """A picture of harmonies of the same soprano, one above the other."""
    steps = len(next(iter(rolls.values())))
    shades = {title: (roll + soprano_of(roll)) / 2 for title, roll in rolls.items()}
    colors = ["white", "tab:blue", "tab:red"]
    label = "step (red: the soprano, which is given)"
    figure, _ = stacked.draw(shades, colors, (max(7, steps / 8), 2.8), label)
    figure.savefig(path, dpi=110)


def main() -> int:
    args = parse_arguments()
    module, steps_per_quarter = PUBLISHED[args.dataset]
    written = list(module.load_data(args.data_dir)[2])[:PIECES]
    sopranos = [soprano_of(roll) for roll in written]
    model = keras.saving.load_model(args.model, compile=False)
    began = time.perf_counter()
    found = harmonies(model, sopranos, args)
    seconds = time.perf_counter() - began
    music = {
        "composer": written,
        "model": found,
        "control": controls(found, sopranos, args.seed),
    }
    figures = {name: measured(model, rolls, sopranos) for name, rolls in music.items()}
    of_each = [figures[name]["log_likelihood_of_each"] for name in ("model", "control")]
    better = int(sum(x > y for x, y in zip(*of_each, strict=True)))
    rows = [{"what": name, **row} for name, row in figures.items()]
    print(comparison.format_table(rows, COLUMNS))
    print(
        f"\nThe model's harmony is likelier than the control for {better} of "
        f"{len(found)} pieces. They took {seconds:.0f} s."
    )
    if args.output:
        record = {
            "command": shlex.join(["python", *sys.argv]),
            "versions": comparison.versions(),
            "seed": args.seed,
            "temperature": args.temperature,
            "particles": args.particles,
            "dataset": args.dataset,
            "pieces": len(found),
            "steps": sum(map(len, found)),
            "seconds": round(seconds, 1),
            "likelier_than_control": better,
            **figures,
        }
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    if args.picture:
        titles = {"composer": "as it was written", "model": "as the model harmonizes"}
        draw({title: music[name][0] for name, title in titles.items()}, args.picture)
    if args.output_dir:
        for number in range(min(WRITTEN, len(found))):
            for name in ("composer", "model"):
                path = args.output_dir / f"{number + 1}-{name}.mid"
                midi.write(music[name][number], path, steps_per_quarter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
