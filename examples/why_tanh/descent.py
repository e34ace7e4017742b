"""Gradient descent with inputs that are all positive, and with centered ones.

The inputs of a linear unit are the outputs of sigmoids, which are positive, or the same
outputs minus their means. Its targets are the outputs of another linear unit for the
same inputs, so that the smallest loss is 0 and only the way there differs.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from why_tanh.cells import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 500
STARTS = 50
TARGET = 1e-4
"""The loss at which a descent ends."""
MOST_STEPS = 5000
RATES = np.geomspace(0.02, 50, 35)
INPUTS = {"positive": "all positive", "centred": "centered"}
UPDATES = {"batch": "all examples", "single": "one example"}
DIMENSIONS = (2, 10, 50)
DRAWN_START = (-1.2, 0.2)


def unit_inputs(kind: str, dimension: int, seed: int) -> np.ndarray:
    """The inputs of the unit: the outputs of sigmoids for normal pre-activations.

    Args:
        kind: `"positive"`, the outputs themselves; `"centred"`, minus their means.
        dimension: The number of inputs.
        seed: The seed of the pre-activations.

    Returns:
        `[EXAMPLES, dimension]`.
    """
    z = np.random.default_rng(seed).normal(size=(EXAMPLES, dimension))
    x = 1 / (1 + np.exp(-z))
    return x - x.mean(axis=0) if kind == "centred" else x


def optimum(dimension: int) -> np.ndarray:
    """The weights to be found, of alternating signs."""
    return np.where(np.arange(dimension) % 2, -1.0, 1.0)


def unit_loss(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Half the mean squared error of a linear unit over the examples.

    Args:
        w: The weights, `[..., inputs]`.
        x: The inputs, `[examples, inputs]`.

    Returns:
        `[...]`.
    """
    error = w - optimum(x.shape[1])
    return ((error @ (x.T @ x / len(x))) * error).sum(axis=-1) / 2


def unit_gradient(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The gradient of `unit_loss` with respect to the weights, of their shape."""
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
        start: The initial weights, `[starts, inputs]`.
        rates: The learning rates.
        update: `"batch"`, each update uses the gradient of all examples; `"single"`,
            that of one random example.
        seed: The seed of the order of the examples.
        path: A list to which the weights before each update are added, each `[rates,
            starts, inputs]`; the descent then ends when all have reached the target.
            Default: `None`, it ends as soon as, for some rate, half of the starts have.

    Returns:
        The number of updates, `[rates, starts]`, infinite for those that did not reach
        the target by then or in `MOST_STEPS`.
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


def measure_one(
    kind: str, update: str, dimension: int, seed: int, rate: float | None = None
) -> dict[str, Any]:
    """Measures the descent of one unit, at the learning rate that is best for it.

    Args:
        kind: The kind of inputs, see `unit_inputs`.
        update: See `descend`.
        dimension: The number of inputs.
        seed: The seed of the inputs, the starts and the order of the examples.
        rate: The learning rate. Default: `None`, the one of `RATES` with which half of
            the starts reach the target first.

    Returns:
        The arguments and the rate; the median over the starts of the number of
        updates, `None` if half of them do not reach the target in `MOST_STEPS`; the
        median of the length of the path, divided by the distance of its ends; the
        share of updates whose gradient has the same sign in all components; and the
        ratio of the largest to the smallest eigenvalue of the Hessian of the loss.
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
    median = float(np.median(updates))
    return {
        "inputs": kind,
        "update": update,
        "dimension": dimension,
        "rate": float(rate),
        "updates": median if math.isfinite(median) else None,
        "path": float(np.median(lengths[moved] / distances[moved])),
        "one_sign": float(one_sign[under_way].mean()),
        "condition": float(eigenvalues[-1] / eigenvalues[0]),
    }


def measure(seed: int, verbose: bool = True) -> list[dict[str, Any]]:
    """Measures all kinds of inputs, updates and numbers of inputs.

    Args:
        seed: See `measure_one`.
        verbose: Whether to show a progress bar. Default: `True`.

    Returns:
        A row for each, as `measure_one` returns it. Centered inputs have two rows: the
        first at the learning rate that is best for positive inputs, the second at the
        rate that is best for them.
    """
    bar = keras.utils.Progbar(len(UPDATES) * len(DIMENSIONS), verbose=int(verbose))
    rows = []
    for update in UPDATES:
        for dimension in DIMENSIONS:
            first = measure_one("positive", update, dimension, seed)
            same = measure_one("centred", update, dimension, seed, first["rate"])
            best = measure_one("centred", update, dimension, seed)
            rows += [first, same, best]
            bar.add(1)
    return rows


def paths(
    rows: list[dict[str, Any]], seed: int
) -> dict[tuple[str, str], tuple[float, np.ndarray, np.ndarray]]:
    """Descents from one start with two inputs, each at its best learning rate.

    Args:
        rows: From `measure`.
        seed: The seed given to `measure`.

    Returns:
        The learning rate, the path `[times, 2]` and the loss `[times]`, by update and
        kind of inputs.
    """
    found = {}
    for row in rows:  # of the two for centered inputs, the last is the best
        if row["dimension"] == 2:
            kind, update, rate = row["inputs"], row["update"], row["rate"]
            x, path = unit_inputs(kind, 2, seed), []
            descend(x, np.array([DRAWN_START]), [rate], update, seed, path)
            path = np.stack(path)[:, 0, 0]
            found[update, kind] = (rate, path, unit_loss(path, x))
    return found


def plot(rows: list[dict[str, Any]], seed: int) -> "Figure":
    """Draws paths over the loss and the losses in time, a row for each kind of update.

    Args:
        rows: From `measure`.
        seed: The seed given to `measure`.
    """
    from matplotlib.figure import Figure

    figure = Figure((13, 8), layout="constrained")
    panels = figure.subplots(len(UPDATES), 3, squeeze=False)
    colors = {"positive": COLORS["sigmoid"], "centred": COLORS["tanh"]}
    found = paths(rows, seed)
    for (*maps, curve), (update, sees) in zip(panels, UPDATES.items(), strict=True):
        for axes, (kind, title) in zip(maps, INPUTS.items(), strict=True):
            rate, path, loss = found[update, kind]
            _plot_path(axes, path, unit_inputs(kind, 2, seed), colors[kind])
            axes.set_title(
                f"inputs {title}, an update sees {sees}\n"
                f"rate {rate:.3g}, {len(path) - 1} updates"
            )
            curve.plot(loss, ".-", color=colors[kind], label=f"inputs {title}")
        curve.axhline(TARGET, color="black", linewidth=0.6)
        curve.set(title=f"an update sees {sees}", xlabel="updates", ylabel="loss")
        curve.set_yscale("log")
        curve.grid(linewidth=0.3)
        curve.legend()
    return figure


def _plot_path(axes: "Axes", path: np.ndarray, x: np.ndarray, color: str) -> None:
    """Draws a path, `[times, 2]`, over the loss with these inputs."""
    low, high = (-2.1, -2.1), (2.1, 1.3)
    sides = (np.linspace(a, b, 200) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*sides), axis=-1)
    style = {"colors": "0.75", "linewidths": 0.7}
    levels = np.geomspace(1e-4, 10, 16)
    axes.contour(grid[..., 0], grid[..., 1], unit_loss(grid, x), levels, **style)
    axes.plot(*path.T, ".-", color=color, linewidth=1, markersize=4)
    axes.plot(*path[0], "ko", markersize=5)
    axes.plot(*optimum(2), "k*", markersize=8)
    axes.set(
        xlabel="$w_1$",
        ylabel="$w_2$",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
        aspect="equal",
    )
