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
import math
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Of matrices as small as these, threads do nothing but wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import comparison
import keras
import numpy as np
from comparison import positive
from keras import ops

import keras_gated
from keras_gated import losses, metrics
from keras_gated.datasets import bach_chorales, piano_roll

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The last is no cell of the paper: tanh's, with what the notes advise against.
CELLS = {
    **comparison.CELLS,
    "sigmoid": functools.partial(keras_gated.TanhCell, activation="sigmoid"),
}
TITLES = {
    **{name: cell.title for name, cell in comparison.CELLS.items()},
    "sigmoid": "sigmoid RNN",
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
    "updates to the loss": "{updates_text}",
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
    add = parser.add_argument
    add(
        "--no-sigmoid",
        action="store_true",
        help="leave out what is measured beside --cells: the tanh cell with sigmoid in "
        "the place of tanh",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help="measure the models DIR/*/best.keras of a run of polyphonic_music.py; "
        "nothing is trained",
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
    args = parser.parse_args()
    if not args.no_sigmoid:
        args.cells = [*args.cells, "sigmoid"]
    return args


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
        at = (of["at"], of["largest"])
        style = {"color": color, "arrowprops": {"arrowstyle": "-", "color": color}}
        rises.annotate(f"at most {at[1]:g}", at, (2.4, 0.9 * at[1] + 0.08), **style)
        style = {"color": color, "marker": ".", "markersize": 3}
        largest, typical = of["largest"], of["typical"]
        label = f"{name}: each the largest, {largest:g}"
        products.plot(n, largest**n, ":", label=label, **style)
        label = f"{name}: of normal x, {typical:.2g} in the mean"
        products.plot(n, typical**n, label=label, **style)
    values.set(title="value", xlabel="x", ylabel="y")
    rises.set(title="slope", xlabel="x", ylabel="dy/dx")
    products.set(title="product of slopes", xlabel="number of slopes", ylabel="product")
    products.set_yscale("log")
    products.set_ylim(bottom=1e-29)  # room for the legend
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
        length of the path as a multiple of its ends' distance (`None` for the number
        if half the starts do not come down in `MOST_STEPS`); of all updates the
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


def measure_descents(seed: int, verbose: bool = True) -> list[dict[str, Any]]:
    """All kinds of inputs, updates and numbers of inputs, a row each.

    Args:
        seed: See `measure_descent`.
        verbose: Whether to show how far it has come.

    Returns:
        The rows. The centred inputs have two: one at the learning rate that is best
        for them, one at that which is best for the others.
    """
    bar = keras.utils.Progbar(len(UPDATES) * len(DIMENSIONS), verbose=int(verbose))
    rows = []
    for update in UPDATES:
        for dimension in DIMENSIONS:
            first = measure_descent("positive", update, dimension, seed)
            same = measure_descent("centred", update, dimension, seed, first["rate"])
            best = measure_descent("centred", update, dimension, seed)
            rows += [first, same, best]
            bar.add(1)
    return rows


def drawn_descents(
    rows: list[dict[str, Any]], seed: int
) -> dict[tuple[str, str], tuple[float, np.ndarray, np.ndarray]]:
    """From one start with two inputs, each at the learning rate best for it.

    Args:
        rows: Of `measure_descents`.
        seed: As there.

    Returns:
        By update and inputs the learning rate, the path, `[times, 2]`, and the loss,
        `[times]`.
    """
    drawn = {}
    for row in rows:  # of two for the centred inputs, the last is the best
        if row["dimension"] == 2:
            kind, update, rate = row["inputs"], row["update"], row["rate"]
            x, path = unit_inputs(kind, 2, seed), []
            descend(x, np.array([DRAWN_START]), [rate], update, seed, path)
            path = np.stack(path)[:, 0, 0]
            drawn[update, kind] = (rate, path, unit_loss(path, x))
    return drawn


def plot_descents(drawn: dict, seed: int) -> "Figure":
    """A row for every way to update: the paths over the losses, and the losses.

    Args:
        drawn: Of `drawn_descents`.
        seed: As there.
    """
    from matplotlib.figure import Figure

    figure = Figure((13, 8), layout="constrained")
    panels = figure.subplots(len(UPDATES), 3, squeeze=False)
    low, high = (-2.1, -2.1), (2.1, 1.3)
    grid = np.stack(
        np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True))),
        axis=-1,
    )
    colors = {"positive": COLORS["sigmoid"], "centred": COLORS["tanh"]}
    for (*maps, curve), (update, sees) in zip(panels, UPDATES.items(), strict=True):
        for axes, (kind, title) in zip(maps, INPUTS.items(), strict=True):
            rate, path, loss = drawn[update, kind]
            heights = unit_loss(grid, unit_inputs(kind, 2, seed))
            levels = np.geomspace(1e-4, 10, 16)
            style = {"colors": "0.75", "linewidths": 0.7}
            axes.contour(grid[..., 0], grid[..., 1], heights, levels, **style)
            axes.plot(*path.T, ".-", color=colors[kind], linewidth=1, markersize=4)
            axes.plot(*path[0], "ko", markersize=5)
            axes.plot(*optimum(2), "k*", markersize=8)
            axes.set(
                title=f"inputs {title}, an update sees {sees}\n"
                f"rate {rate:.3g}, {len(path) - 1} updates",
                xlabel="$w_1$",
                ylabel="$w_2$",
                xlim=(low[0], high[0]),
                ylim=(low[1], high[1]),
                aspect="equal",
            )
            curve.plot(loss, ".-", color=colors[kind], label=f"inputs {title}")
        curve.axhline(TARGET, color="black", linewidth=0.6)
        curve.set(title=f"an update sees {sees}", xlabel="updates", ylabel="loss")
        curve.set_yscale("log")
        curve.grid(linewidth=0.3)
        curve.legend()
    return figure


# The memory.


def in_float64(cell: keras.layers.Layer, fresh: bool = False) -> keras.layers.Layer:
    """A copy of a cell that computes in float64.

    Args:
        cell: A built cell of the package.
        fresh: Whether the copy has weights of its own, as they are before training.

    Returns:
        The copy, built.
    """
    copy = type(cell).from_config({**cell.get_config(), "dtype": "float64"})
    copy.build((None, cell.kernel.shape[0]))
    if not fresh:
        copy.set_weights(cell.get_weights())
    return copy


def jacobian_norms(
    cell: keras.layers.Layer, inputs: np.ndarray, lags: int
) -> np.ndarray:
    """How the last state depends on those before it.

    The state `s` is all that a step hands on, of an LSTM `[h, c]`. The Jacobian of
    the last by one before is the product of those of the steps between, each by
    automatic differentiation of `cell.call`.

    Args:
        cell: A built cell, without noise and dropout outside training; for long
            products, in float64.
        inputs: `[sequences, T, features]`; the sequences begin with a state of zeros.
        lags: How many steps to go back, at most T.

    Returns:
        `[sequences, lags]`: at `k - 1` the spectral norm, that is the largest
        singular value, of the Jacobian of `s_T` by `s_{T-k}`.

    Raises:
        ValueError: `lags` is not from 1 to T.
    """
    import tensorflow as tf

    T = np.shape(inputs)[1]
    if not 1 <= lags <= T:
        raise ValueError(
            f"Argument `lags` must be from 1 to the {T} steps of the inputs. "
            f"Received: lags={lags}"
        )
    inputs = ops.convert_to_tensor(inputs, dtype=cell.compute_dtype)
    states, before = cell.get_initial_state(len(inputs)), []
    sizes = [state.shape[-1] for state in states]
    for t in range(T):
        before.append(ops.concatenate(states, axis=-1))
        _, states = cell.call(inputs[:, t], states)
    before = ops.stack(before[T - lags :], axis=1)

    @tf.function(autograph=False)
    def by_step(x: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(state)
            _, after = cell.call(x, tf.split(state, sizes, axis=-1))
            after = tf.concat(after, axis=-1)
        # A row of the batch is a step, and depends on no other.
        return tape.batch_jacobian(after, state)

    norms = np.empty((len(inputs), lags))
    for n, (x, state) in enumerate(zip(inputs[:, T - lags :], before, strict=True)):
        steps = by_step(x, state).numpy()
        # The product is kept at norm 1, or long ones would leave float64.
        product, logarithm = np.eye(sum(sizes)), 0.0
        for k in range(1, lags + 1):
            product = product @ steps[lags - k]
            norm = math.sqrt(np.linalg.eigvalsh(product @ product.T)[-1])
            logarithm += math.log(norm)
            product /= norm
            norms[n, k - 1] = math.exp(logarithm)
    return norms


def summarise(norms: np.ndarray) -> dict[str, Any]:
    """Figures for the table.

    Args:
        norms: Of `jacobian_norms`, for four lags or more.

    Returns:
        `norm_k`, the geometric mean over the sequences, for some lags k; `gone`, the
        first lag at which it is below `SMALL`, or `None`; `half_life`, the steps in
        which it halves, by the line of least squares through the logarithms of the
        second half of the lags, or `None` where it does not fall.
    """
    mean = geometric_mean(norms)
    lags = len(mean)
    gone = int((mean < SMALL).argmax()) + 1 if (mean < SMALL).any() else None
    second = np.arange(lags // 2, lags)
    slope = np.polyfit(second, np.log2(mean[second]), 1)[0]
    half_life = float(-1 / slope) if slope < 0 else None
    return {
        **{f"norm_{k}": float(mean[k - 1]) for k in SOME_LAGS if k <= lags},
        "gone": gone,
        "half_life": half_life,
    }


def geometric_mean(norms: np.ndarray) -> np.ndarray:
    return np.exp(np.log(norms).mean(axis=0))


def plot_norms(norms: dict[str, dict[str, np.ndarray]]) -> "Figure":
    """A panel for the untrained and one for the trained cells.

    Args:
        norms: By cell, then by weights, those of `jacobian_norms`.
    """
    from matplotlib.figure import Figure

    figure = Figure((13, 5.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    pieces = len(next(iter(norms.values()))["untrained"])
    for axes, weights in zip(panels, ("untrained", "trained"), strict=True):
        for name, of in norms.items():
            if weights not in of:
                continue
            # No step back, the Jacobian is the identity.
            values = np.pad(of[weights], ((0, 0), (1, 0)), constant_values=1.0)
            lags = np.arange(values.shape[1])
            color = COLORS[name]
            mean = geometric_mean(values)
            axes.plot(lags, mean, color=color, label=TITLES[name])
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(lags, low, high, color=color, alpha=0.15, linewidth=0)
        axes.axhline(SMALL, color="black", linewidth=0.6)
        axes.set(
            title=f"{weights} (geometric mean and range over {pieces} pieces)",
            xlabel="steps back, $T - t$",
        )
        axes.set_yscale("log")
        axes.grid(linewidth=0.3)
    panels[0].set_ylim(bottom=1e-12)
    panels[0].set_ylabel(r"largest singular value of  $\partial s_T\,/\,\partial s_t$")
    panels[1].legend()
    return figure


# The models.


def build(name: str, args: argparse.Namespace) -> keras.Model:
    return comparison.build(
        name,
        args,
        piano_roll.KEYS,
        lambda: keras.layers.Dense(piano_roll.KEYS),
        losses.BernoulliNLL(),
        [metrics.FrameNLL(name="nll")],
        CELLS,
    )


def find_cell(model: keras.Model, path: Path) -> tuple[str, keras.layers.Layer]:
    """A model's first cell, with its name in `CELLS`."""
    for layer in model.layers:
        cell = getattr(layer, "cell", None)
        for name, kind in comparison.CELLS.items():
            if isinstance(cell, kind):
                features = cell.kernel.shape[0]
                if features != piano_roll.KEYS:
                    raise ValueError(
                        f"The model {str(path)!r} has {features} inputs a step; a "
                        f"model of piano rolls has {piano_roll.KEYS}."
                    )
                plain = cell.activation is not keras.activations.sigmoid
                return name if plain or name != "tanh" else "sigmoid", cell
    raise ValueError(f"The model {str(path)!r} has no recurrent cell of keras_gated.")


def load_models(folder: Path, names: Iterable[str]) -> dict[str, keras.Model]:
    """The models of a run of polyphonic_music.py, by their cells.

    Args:
        folder: That of the run, with a folder for every cell.
        names: The cells that are wanted.

    Returns:
        The models, ready to be evaluated.

    Raises:
        ValueError: There are none, or one is not what it should be.
    """
    paths = sorted(folder.glob("*/best.keras"))
    if not paths:
        raise ValueError(
            f"--models {str(folder)!r} has no */best.keras; a folder of a run of "
            "polyphonic_music.py has (runs/polyphonic_music/...)."
        )
    found, origins = {}, {}
    for path in paths:
        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # whatever a damaged archive leads to
            raise ValueError(
                f"{str(path)!r} is no model that loads: {error}"
            ) from error
        name, _ = find_cell(model, path)
        if name in found:
            raise ValueError(
                f"{str(origins[name])!r} and {str(path)!r} have the same cell, "
                f"{TITLES[name]}; one of each can be shown."
            )
        model.compile(
            loss=losses.BernoulliNLL(),
            weighted_metrics=[metrics.FrameNLL(name="nll")],
        )
        found[name], origins[name] = model, path
    chosen = {name: found[name] for name in names if name in found}
    if not chosen:
        raise ValueError(
            f"--models {str(folder)!r} has none of the cells that --cells asks for. "
            f"Found: {', '.join(found)}"
        )
    return chosen


def beginnings(rolls: list[np.ndarray], args: argparse.Namespace) -> np.ndarray:
    """Of some test pieces the beginning, `[pieces, steps, 88]`."""
    steps = BEGINNING + args.lags
    long = [roll[:steps] for roll in rolls if len(roll) >= steps]
    if len(long) < args.pieces:
        longest = max(map(len, rolls))
        raise ValueError(
            f"--lags {args.lags} with --pieces {args.pieces} needs as many test pieces "
            f"of {steps} steps. There are {len(long)}; the longest has {longest} steps."
        )
    chosen = np.random.default_rng(args.seed).choice(
        len(long), args.pieces, replace=False
    )
    return np.stack([long[k] for k in sorted(chosen)]).astype("float64")


class Study:
    """What is done so far, and where it is written.

    Args:
        args: The arguments.
        data: The chorales for training, validation and test.
        run: The folder.
    """

    def __init__(
        self, args: argparse.Namespace, data: bach_chorales.Splits, run: Path
    ) -> None:
        self.args, self.run = args, run
        self.inputs = beginnings(data[2], args)
        self.rows, self.curves, self.norms = [], {}, {}
        self.about = {
            "seed": args.seed,
            "settings": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in sorted(vars(args).items())
            },
        }

    def write(self) -> None:
        comparison.write_record(self.rows, self.curves, self.about, self.run)

    def show(self, name: str, figure: "Figure") -> None:
        """Writes a picture, to a file and for TensorBoard."""
        import tensorflow as tf

        path = self.run / f"{name}.png"
        figure.savefig(path, dpi=110)
        with tf.summary.create_file_writer(str(self.run)).as_default():
            image = tf.io.decode_png(path.read_bytes(), channels=3)
            tf.summary.image(name, image[None], step=len(self.norms))

    def scalars(self, name: str, tag: str, values: Iterable[float], first: int) -> None:
        """Writes a curve for TensorBoard, in a run of its own."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self.run / name)).as_default():
            for step, value in enumerate(values, first):
                tf.summary.scalar(tag, value, step=step)

    def slopes(self) -> None:
        measured = measure_slopes()
        self.about["slopes"] = measured
        self.show("slopes", plot_slopes(measured))
        for name, of in measured.items():
            print(
                f"The slope of {name}: at most {of['largest']:.4f}, and over normal "
                f"pre-activations {of['typical']:.3f} in the geometric mean"
            )

    def descents(self) -> None:
        print("\nGradient descent with positive and with centred inputs:")
        seed = self.args.seed
        rows = measure_descents(seed)
        self.about["descents"] = rows
        drawn = drawn_descents(rows, seed)
        self.show("descents", plot_descents(drawn, seed))
        for (update, kind), (_, _, loss) in drawn.items():
            self.scalars(kind, f"descent_loss/{update}", loss, 0)
        readable = [
            {
                **row,
                "inputs": INPUTS[row["inputs"]],
                "sees": UPDATES[row["update"]],
                "updates_text": "{:g}".format(row["updates"])
                if row["updates"] is not None
                else f"over {MOST_STEPS:,}",
            }
            for row in rows
        ]
        print(comparison.format_table(readable, DESCENT_COLUMNS))

    def measure(self, name: str, weights: str, cell: keras.layers.Layer) -> dict:
        """Measures the memory of a cell; returns its row of the table."""
        norms = jacobian_norms(cell, self.inputs, self.args.lags)
        self.norms.setdefault(name, {})[weights] = norms
        mean = geometric_mean(norms)
        self.about.setdefault("jacobian_norms", {}).setdefault(name, {})[weights] = {
            "mean": mean.tolist(),
            "lowest": norms.min(axis=0).tolist(),
            "highest": norms.max(axis=0).tolist(),
        }
        self.scalars(name, f"jacobian_norm/{weights}", mean, 1)
        row = {
            "cell": name,
            "weights": weights,
            "units": cell.units,
            "parameters": cell.count_params(),
            **summarise(norms),
        }
        self.rows.append(row)
        return row

    def table(self) -> str:
        rows = [
            {
                **row,
                "title": TITLES[row["cell"]],
                "gone_text": row["gone"] or f"not in {self.args.lags}",
                "half_life_text": f"{row['half_life']:.2g}"
                if row["half_life"]
                else "does not fall",
            }
            for row in self.rows
        ]
        return comparison.format_table(rows, COLUMNS)

    def cell(self, name: str, model: keras.Model | None, parts: list) -> None:
        """Measures a cell untrained and trained; trains it, unless a model is given."""
        given = model is not None
        model = model if given else build(name, self.args)
        _, cell = find_cell(model, self.run)
        keras.utils.set_random_seed(self.args.seed)
        self.measure(name, "untrained", in_float64(cell, fresh=given))
        self.write()
        if given:
            nll = model.evaluate(parts[2], verbose=0, return_dict=True)["nll"]
            result = {"test_nll": nll}
        else:
            result, self.curves[name] = comparison.train(
                model, self.args, parts, self.run / name
            )
        self.measure(name, "trained", in_float64(cell)).update(
            {
                key: result[key]
                for key in ("epochs", "seconds", "test_nll")
                if key in result
            }
        )
        self.show("jacobians", plot_norms(self.norms))
        self.write()


def main() -> int:
    args = parse_arguments()
    script = Path(sys.argv[0]).name
    run = args.log_dir / time.strftime("%Y%m%d-%H%M%S")
    try:
        if keras.config.backend() != "tensorflow":
            raise ValueError(
                f"This script runs on TensorFlow (KERAS_BACKEND=tensorflow), not on "
                f"{keras.config.backend()!r}."
            )
        if args.log_dir.exists() and not args.log_dir.is_dir():
            raise ValueError(f"--log-dir {str(args.log_dir)!r} is not a folder.")
        if args.lags < 4:
            raise ValueError(f"--lags must be 4 or more. Received: {args.lags}")
        models = load_models(args.models, args.cells) if args.models else {}
        data = bach_chorales.load_data(STEPS_PER_QUARTER)
        study = Study(args, data, run)
        run.mkdir(parents=True)
    except (ValueError, ImportError, OSError) as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    code = 0
    try:
        study.slopes()
        study.descents()
        study.write()
        parts = [
            piano_roll.next_step_dataset(
                rolls, args.batch_size, shuffle, args.seed, MAX_SHAPES
            )
            for rolls, shuffle in zip(data, (True, False, False), strict=True)
        ]
        for name in models or args.cells:
            try:
                study.cell(name, models.get(name), parts)
            except ValueError as error:
                print(f"{script}: error: {error}", file=sys.stderr)
                code = 1
    except KeyboardInterrupt:
        print("\nInterrupted. What is done is kept.")
        code = 130
    if study.rows:
        print(
            f"\n{study.table()}\n"
            "(the norm of the Jacobian of a state by one before, the geometric mean "
            f"of {args.pieces} test pieces; NLL in nats a step)"
        )
    print(f"\nEverything is in {run}. The curves: tensorboard --logdir {args.log_dir}")
    return code


if __name__ == "__main__":
    sys.exit(main())
