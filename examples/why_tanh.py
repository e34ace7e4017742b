"""Why tanh and not sigmoid, and why gates: something to look at, and to measure.

Three pictures, each of measurements. The slopes of the sigmoid and of tanh, and what is
left of a product of many. Gradient descent of a unit whose inputs are all positive, as
a sigmoid's outputs are, beside that of one whose inputs are centred. And how much the
state of a recurrent cell depends on its state some steps before: the norm of the
Jacobian of the one by the other, of every cell at equal size, before and after training
on Bach's chorales. With --models DIR the trained cells are those of a run of
polyphonic_music.py. In the log folder: the pictures, `results.json`, and all of it for
TensorBoard.
"""

import argparse
import functools
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comparison
import keras
import numpy as np
from comparison import positive
from keras import ops

import keras_gated
from keras_gated import losses, metrics, optimizers
from keras_gated.datasets import bach_chorales, piano_roll

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The last is no cell of the paper: tanh's, with what the notes advise against.
CELLS = {
    **comparison.CELLS,
    "sigmoid": functools.partial(keras_gated.TanhCell, activation="sigmoid"),
}
TITLES = {
    "tanh": "tanh",
    "lstm": "LSTM",
    "gru": "GRU",
    "simplified_gru": "simplified GRU",
    "sigmoid": "sigmoid",
}
COLORS = {name: f"C{k}" for k, name in enumerate(CELLS)}
STEPS_PER_QUARTER = 2
MAX_SHAPES = 4  # of batches, as in polyphonic_music.py
BEGINNING = 16
"""Steps of a piece before the first state that counts: two bars."""
SMALL = 1e-3
"""Where a norm counts as gone."""
SOME_LAGS = (1, 8, 32, 64)
COLUMNS = {
    "cell": "{title}",
    "weights": "{weights}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "test NLL": "{test_nll:.3f}",
    **{f"norm, {lag} back": f"{{norm_{lag}:.2g}}" for lag in SOME_LAGS},
    f"below {SMALL:g}": "{gone_text}",
    "half-life": "{half_life_text}",
}

# Of the descent: each unit learns what another of the same inputs does, so that its
# smallest loss is 0 and all that differs is the way there.
EXAMPLES = 500
STARTS = 50
TARGET = 1e-4
MOST_STEPS = 5000
RATES = np.geomspace(0.02, 50, 35)
INPUTS = {"positive": "all positive", "centred": "centred"}
UPDATES = {"batch": "all examples", "single": "one example"}
DIMENSIONS = (2, 10, 50)
DRAWN_START = (-1.2, 0.2)
DESCENT_COLUMNS = {
    "inputs": "{inputs}",
    "their number": "{dimension}",
    "an update sees": "{sees}",
    "eigenvalues, largest/smallest": "{condition:.1f}",
    "learning rate": "{rate:.3g}",
    "updates to the loss": "{updates:g}",
    "path, times the distance": "{path:.2f}",
    "gradient of one sign": "{one_sign:.0%}",
}


def parse_arguments() -> argparse.Namespace:
    parser = comparison.parser(
        __doc__,
        budget=20_000,
        epochs=30,
        patience=15,
        batch_size=8,
        learning_rate=0.005,
        log_dir=Path("runs/why_tanh"),
    )
    parser.conflict_handler = "resolve"  # there is one cell more than elsewhere
    add = parser.add_argument
    add(
        "--cells",
        nargs="+",
        choices=list(CELLS),
        default=list(CELLS),
        metavar="CELL",
        help=f"which cells to measure, of {', '.join(CELLS)}, the last the tanh cell "
        "with sigmoid in the place of tanh (default: all)",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help="measure the models DIR/*/best.keras of a run of polyphonic_music.py, "
        "instead of training",
    )
    add(
        "--lags",
        type=positive(int),
        default=64,
        metavar="N",
        help="how many steps to look back (default: %(default)s)",
    )
    add(
        "--pieces",
        type=positive(int),
        default=16,
        metavar="N",
        help="of how many test pieces the norm is the mean (default: %(default)s)",
    )
    return parser.parse_args()


# The slopes.


def slopes(x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The sigmoid and tanh, and their slopes by automatic differentiation.

    Args:
        x: Where, in float64.

    Returns:
        By name the values and the slopes, of the shape of `x`.
    """
    import tensorflow as tf

    result = {}
    for name in ("sigmoid", "tanh"):
        point = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = getattr(ops, name)(point)
        result[name] = (value.numpy(), tape.gradient(value, point).numpy())
    return result


def measure_slopes() -> dict[str, dict[str, float]]:
    """The largest slope, and the geometric mean over normal pre-activations."""
    x = np.linspace(-8, 8, 16_001)
    density = np.exp(-(x**2) / 2)
    return {
        name: {
            "at": float(x[slope.argmax()]),
            "largest": float(slope.max()),
            "typical": float(np.exp(np.average(np.log(slope), weights=density))),
        }
        for name, (_, slope) in slopes(x).items()
    }


def plot_slopes(measured: dict[str, dict[str, float]]) -> "Figure":
    from matplotlib.figure import Figure

    x = np.linspace(-6, 6, 601)
    figure = Figure((13, 4), layout="constrained")
    values, rises, products = figure.subplots(1, 3)
    n = np.arange(31)
    for name, (value, slope) in slopes(x).items():
        of, color = measured[name], COLORS[name]
        values.plot(x, value, color=color, label=name)
        rises.plot(x, slope, color=color, label=name)
        rises.annotate(
            f"at most {of['largest']:g}",
            (of["at"], of["largest"]),
            (12, -4),
            textcoords="offset points",
            color=color,
        )
        style = {"color": color, "marker": ".", "markersize": 3}
        largest, typical = of["largest"], of["typical"]
        label = f"{name}, each the largest, {largest:g}"
        products.plot(n, largest**n, ":", label=label, **style)
        label = f"{name}, each the typical, {typical:.2g}"
        products.plot(n, typical**n, label=label, **style)
    values.set(title="value", xlabel="x", ylabel="y")
    rises.set(title="slope", xlabel="x", ylabel="dy/dx")
    products.set(
        title="product of slopes", xlabel="number of slopes", ylabel="product"
    )
    products.set_yscale("log")
    products.legend(fontsize="small")
    values.legend()
    for axes in (values, rises, products):
        axes.grid(linewidth=0.3)
    values.axhline(0, color="black", linewidth=0.6)
    return figure


# The descent.


def unit_inputs(kind: str, dimension: int, seed: int) -> np.ndarray:
    """The inputs of a unit: what sigmoids give for normal pre-activations.

    Args:
        kind: `"positive"`, as they are; `"centred"`, less their means.
        dimension: How many inputs there are.
        seed: Of the pre-activations.

    Returns:
        `[EXAMPLES, dimension]`.
    """
    z = np.random.default_rng(seed).normal(size=(EXAMPLES, dimension))
    x = 1 / (1 + np.exp(-z))
    return x - x.mean(axis=0) if kind == "centred" else x


def optimum(dimension: int) -> np.ndarray:
    """The weights to be found: of both signs, by turns."""
    return np.where(np.arange(dimension) % 2, -1.0, 1.0)


def unit_loss(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Half the mean square of what a linear unit is wrong by, over the examples.

    Args:
        w: The weights, `[..., inputs]`.
        x: The inputs, `[examples, inputs]`.

    Returns:
        `[...]`.
    """
    error = w - optimum(x.shape[1])
    return ((error @ (x.T @ x / len(x))) * error).sum(axis=-1) / 2


def unit_gradient(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The gradient of `unit_loss` by the weights, of their shape."""
    return (w - optimum(x.shape[1])) @ (x.T @ x / len(x))


def descend(
    x: np.ndarray, start: np.ndarray, rates: np.ndarray, update: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Descends from every start with every rate, until the loss is below `TARGET`.

    Args:
        x: The inputs, `[examples, inputs]`.
        start: The weights at first, `[starts, inputs]`.
        rates: The learning rates.
        update: `"batch"`, the gradient is that of all examples; `"single"`, that of
            one, drawn anew for every update.
        seed: Of the order of the examples.

    Returns:
        The number of updates, `[rates, starts]`, infinite where `MOST_STEPS` are too
        few; and the weights at all times, `[times, rates, starts, inputs]`. They end
        when half the starts have come down with some rate.
    """
    order = np.random.default_rng(seed).integers(0, len(x), MOST_STEPS)
    w = np.repeat(start[None], len(rates), axis=0)
    path, updates = [w], np.full(w.shape[:-1], np.inf)
    # What is the same at every update is computed once.
    product, target = x.T @ x / len(x), optimum(x.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):  # rates that are too large
        for step in range(MOST_STEPS):
            one = x[order[step]]
            error = w - target
            gradient = error @ product
            done = (gradient * error).sum(axis=-1) / 2 < TARGET
            updates = np.where(done & np.isinf(updates), step, updates)
            if np.isfinite(np.median(updates, axis=1)).any():
                break
            if update == "single":
                gradient = (error @ one)[..., None] * one
            w = w - np.asarray(rates)[:, None, None] * gradient
            path.append(w)
    return updates, np.stack(path)
