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
    x: np.ndarray,
    start: np.ndarray,
    rates: Iterable[float],
    update: str,
    seed: int,
    path: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Descends from every start with every rate, until the loss is below `TARGET`.

    Args:
        x: The inputs, `[examples, inputs]`.
        start: The weights at first, `[starts, inputs]`.
        rates: The learning rates.
        update: `"batch"`, the gradient is that of all examples; `"single"`, that of
            one, another at every update.
        seed: Of the order of the examples.
        path: If given, the weights of all times are added to it, each `[rates,
            starts, inputs]`, and it ends when all have come down, else as soon as
            half of those of some rate have.

    Returns:
        The number of updates, `[rates, starts]`, infinite for those who did not
        come down by then or in `MOST_STEPS`.
    """
    order = np.random.default_rng(seed).integers(0, len(x), MOST_STEPS)
    rates = np.asarray(list(rates))
    w = np.repeat(start[None], len(rates), axis=0)
    updates = np.full(w.shape[:-1], np.inf)
    target = optimum(x.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):  # rates that are too large
        for step in range(MOST_STEPS + 1):
            if path is not None:
                path.append(w)
            updates[(unit_loss(w, x) < TARGET) & np.isinf(updates)] = step
            share = np.isfinite(updates).mean(axis=1)
            if step == MOST_STEPS or share.max() >= (0.5 if path is None else 1):
                break
            if update == "batch":
                gradient = unit_gradient(w, x)
            else:
                one = x[order[step]]
                gradient = ((w - target) @ one)[..., None] * one
            w = w - rates[:, None, None] * gradient
    return updates


def measure_descent(
    kind: str, update: str, dimension: int, seed: int, rate: float | None = None
) -> dict[str, Any]:
    """How a unit comes down, at the learning rate that is best for it.

    Args:
        kind: Of the inputs, see `unit_inputs`.
        update: See `descend`.
        dimension: The number of inputs.
        seed: Of the inputs, the starts and the order of the examples.
        rate: Another learning rate. Default: that of `RATES` which comes down first.

    Returns:
        The rate; over the starts the medians of the number of updates and of the
        length of the path as a multiple of its ends' distance; of all updates the
        share whose gradient has one sign in all components; the ratio of the largest
        to the smallest eigenvalue of the loss's second derivatives.
    """
    x = unit_inputs(kind, dimension, seed)
    normal = np.random.default_rng(seed + 1).normal(size=(STARTS, dimension))
    start = optimum(dimension) + 1.5 * normal
    if rate is None:
        searched = descend(x, start, RATES, update, seed)
        rate = RATES[np.isfinite(searched).mean(axis=1).argmax()]
    path = []
    (updates,) = descend(x, start, [rate], update, seed, path)
    path = np.stack(path)[:, 0]
    moves = np.diff(path, axis=0)
    under_way = np.arange(len(moves))[:, None] < updates
    lengths = (np.linalg.norm(moves, axis=-1) * under_way).sum(axis=0)
    last = np.minimum(updates, len(moves)).astype(int)
    ends = path[last, np.arange(STARTS)]
    distances = np.linalg.norm(ends - path[0], axis=-1)
    moved = distances > 0
    one_sign = (moves > 0).all(axis=-1) | (moves < 0).all(axis=-1)
    eigenvalues = np.linalg.eigvalsh(x.T @ x / len(x))
    return {
        "inputs": kind,
        "update": update,
        "dimension": dimension,
        "rate": float(rate),
        "updates": float(np.median(updates)),
        "path": float(np.median(lengths[moved] / distances[moved])),
        "one_sign": float(one_sign[under_way].mean()),
        "condition": float(eigenvalues[-1] / eigenvalues[0]),
    }
