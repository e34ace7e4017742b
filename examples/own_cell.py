"""Trains a cell of one's own beside those of Chung et al. (2014), and looks into it.

The cell is long expressive memory (LEM; Rusch et al., 2022), which `lem.py` writes down
as one `step`. First the gradients of the fast loop are checked against those of Keras's
loop over the same cell, and the two are timed. Then LEM and the four cells are trained
on Bach's chorales for a short time, each with as many parameters. The results are a
table, and in the log folder a picture of how far back LEM remembers over a chorale, the
learning curves, the best models, and TensorBoard curves with the gates of LEM.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import quiet  # noqa: F401
import comparison
import keras
import numpy as np
from comparison import CELLS, music, positive
from lem import LEM, LEMCell

from keras_gated import callbacks, inspection, losses, match_units
from keras_gated.datasets import bach_chorales, piano_roll

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "LEM"
COLUMNS = {
    "cell": "{cell}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "epochs": "{epochs}",
    "seconds": "{seconds:.0f}",
    "test NLL": "{test_nll:.3f}",
    "accuracy": "{test_accuracy:.1%}",
}
BATCH, STEPS, UPDATES = 16, 100, 5
"""Sequences of an update that is timed, at most so many steps of each, and updates of a
round."""
TOLERANCE = 1e-3
"""More than float32 explains: of the difference of two gradients, relative to the
largest component."""
MAX_SHAPES = 4
"""Of batches. Each is compiled, and chorales have similar lengths."""
STATES = {
    "a": "the memory z: below are the units that remember longest",
    "b": "the output y",
}
"""The states by their time steps, gates of `LEMCell`."""
FURTHEST = 1000
"""Steps of memory that the picture does not tell from more."""


def parse_arguments() -> argparse.Namespace:
    parser = comparison.parser(
        __doc__,
        budget=20_000,
        epochs=25,
        patience=25,
        batch_size=8,
        learning_rate=0.005,
        log_dir=Path("runs/own_cell"),
    )
    parser.add_argument(
        "--dt",
        type=positive(float),
        default=1.0,
        metavar="X",
        help="the largest time step of LEM (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=positive(int),
        default=5,
        metavar="N",
        help="rounds of timing, over which medians are taken (default: %(default)s)",
    )
    return parser.parse_args()


def describe(data: music.Rolls, args: argparse.Namespace) -> dict:
    """Says what the data are, and how the two loops compare on them."""
    for part, rolls in zip(("training", "validation", "test"), data, strict=True):
        print(f"{part}: {len(rolls)} chorales, {sum(map(len, rolls)):,} steps")
    longest = sorted(data[0], key=len)[-BATCH:]
    steps = min(STEPS, len(longest[0]) - 1)
    some = np.stack([roll[: steps + 1] for roll in longest]).astype("float32")
    units = args.units or match_units(LEMCell, args.budget, piano_roll.KEYS)
    models = [twin(units, args, use_fast_loop) for use_fast_loop in (True, False)]
    loop = models[0].layers[0].loop
    print(f"\nThe loop of {OWN} is {loop}.", flush=True)
    gradients = [gradient(model, some) for model in models]
    difference = largest_difference(*gradients)
    print(f"Its gradients differ from those of Keras's by {difference:.1g} at most.")
    if not difference < TOLERANCE:
        raise ValueError(f"the gradients of the fast loop of {OWN} are wrong")

    ours, keras_s = (
        round(1000 * x, 3) for x in seconds_in_turn(models, some, args.rounds)
    )
    backend = keras.config.backend()
    print(
        f"An update with {len(some)} sequences of {steps} steps takes {units} units on "
        f"{backend} {ours:.1f} ms, and {keras_s:.1f} ms by Keras's loop: "
        f"{keras_s / ours:.1f} times as long (medians of {args.rounds} rounds)."
    )
    return {
        "sequences": [len(part) for part in data],
        "loop": loop,
        "difference_of_gradients": difference,
        "timing": {
            "shape": [len(some), steps, piano_roll.KEYS],
            "units": units,
            "rounds": args.rounds,
            "fast_loop_ms": ours,
            "keras_loop_ms": keras_s,
        },
    }


def twin(units: int, args: argparse.Namespace, use_fast_loop: bool) -> keras.Model:
    """A model with one loop or the other, and the same weights."""
    keras.utils.set_random_seed(args.seed)
    layer = LEM(units, dt=args.dt, return_sequences=True, use_fast_loop=use_fast_loop)
    keys = piano_roll.KEYS
    model = keras.Sequential(
        [keras.Input((None, keys)), layer, keras.layers.Dense(keys)]
    )
    model.compile(keras.optimizers.SGD(1.0), losses.BernoulliNLL())
    return model


def gradient(model: keras.Model, rolls: np.ndarray) -> list[np.ndarray]:
    """The gradient of each weight: what a step of gradient descent takes off it.

    So it is found in the same way on every backend.
    """
    before = model.get_weights()
    model.train_on_batch(rolls[:, :-1], rolls[:, 1:])
    after = model.get_weights()
    model.set_weights(before)
    return [b - a for b, a in zip(before, after, strict=True)]


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Of any weight's gradients, relative to the largest component of its own."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)


def seconds_in_turn(
    models: list[keras.Model], rolls: np.ndarray, rounds: int
) -> list[float]:
    """The median time of an update under `fit` of each model.

    The models take turns, so that whatever else the machine does hits all of them.
    """
    many = np.concatenate([rolls] * UPDATES)
    clocks = [UpdateClock() for _ in models]
    for turn in range(rounds + 1):
        for model, clock in zip(models, clocks, strict=True):
            model.optimizer.learning_rate = 1e-3  # the same data again and again
            parts = many[:, :-1], many[:, 1:]
            model.fit(*parts, len(rolls), verbose=0, callbacks=[clock])
            if turn == 0:  # which compiles
                clock.seconds.clear()
    return [statistics.median(clock.seconds) for clock in clocks]


class UpdateClock(keras.callbacks.Callback):
    """Notes the seconds from one update to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.perf_counter()
        if batch > 0:  # the first waits for the data to begin
            self.seconds.append(now - self._last)
        self._last = now


def train(
    name: str, data: music.Rolls, run: Path, args: argparse.Namespace
) -> tuple[dict, dict]:
    """Trains one cell; returns its row of the table and its learning curves."""
    settings, piece = comparison.Settings.of(args), data[2][0]
    if name == OWN:
        settings = dataclasses.replace(settings, cell_options={"dt": args.dt})
    cells = {**CELLS, OWN: LEMCell}
    model = comparison.build(name, settings, *music.likelihood(), cells)
    parts = music.batches(data, args.batch_size, args.seed, max_shapes=MAX_SHAPES)
    watchers = [callbacks.TerminateOnNaN(parts[0])]
    if name == OWN:
        watchers.append(callbacks.GateMonitor(run / name, piece, every=10))
    result = comparison.train(model, settings, parts, run / name, watchers)
    if name == OWN:
        gates = inspection.gates(model, piece)
        plot_memory(piece, gates).savefig(run / "memory.png", dpi=120)
    return result


def plot_memory(roll: np.ndarray, gates: dict[str, np.ndarray]) -> "Figure":
    """Draws a roll, and below it how far back each unit remembers while it is heard.

    A state that moves a share `a` of the way to its candidate at every step keeps what
    it held for about `1 / a` steps.

    Args:
        roll: `[T, 88]`, zeros and ones.
        gates: `a` and `b` of `LEMCell`, `[T, units]`.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure((11, 7.5), layout="constrained")
    above, *panels = figure.subplots(3, sharex=True, height_ratios=(1, 1.6, 0.8))
    piano_roll.plot(roll, above)
    pitches = np.flatnonzero(roll.any(axis=0)) + piano_roll.LOWEST_PITCH
    above.set_ylim(pitches[0] - 2, pitches[-1] + 2)
    above.set_title("a chorale that the model has not seen", loc="left")
    for axes, (name, title) in zip(panels, STATES.items(), strict=True):
        steps = 1 / np.maximum(gates[name], 1e-9)
        longest_below = np.argsort(-np.median(steps, axis=0))
        image = axes.imshow(
            steps[:, longest_below].T,
            norm=LogNorm(1, FURTHEST),
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            cmap="magma_r",
        )
        axes.set_title(title, loc="left")
        axes.set(ylabel=f"{steps.shape[1]} units", yticks=[])
    bar = figure.colorbar(image, ax=panels, extend="max", aspect=30, pad=0.01)
    bar.set_label("steps that a unit remembers")
    bar.formatter = "{x:g}"
    panels[-1].set_xlabel("step, half a quarter note")
    for axes in (above, *panels):
        axes.label_outer()
    return figure


def main() -> int:
    args = parse_arguments()
    return comparison.run_all(
        args,
        lambda: bach_chorales.load_data(2),
        lambda data: describe(data, args),
        lambda name, data, run: train(name, data, run, args),
        COLUMNS,
        more=[OWN],
    )


if __name__ == "__main__":
    sys.exit(main())
