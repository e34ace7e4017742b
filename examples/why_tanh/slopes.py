"""The slopes of the sigmoid and of tanh, and products of many slopes."""

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from why_tanh.cells import COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Slopes = dict[str, dict[str, float]]
"""For each function the place of its largest slope (`"at"`), that slope (`"largest"`),
and the geometric mean of the slope over pre-activations from a standard normal
distribution (`"typical"`)."""


def curves(x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The sigmoid and tanh, and their slopes by automatic differentiation.

    Args:
        x: The arguments of the functions, in float64.

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


def measure() -> Slopes:
    """Measures the slopes of both functions."""
    x = np.linspace(-8, 8, 16_001)
    density = np.exp(-(x**2) / 2)
    return {
        name: {
            "at": float(x[slope.argmax()]),
            "largest": float(slope.max()),
            "typical": float(np.exp(np.average(np.log(slope), weights=density))),
        }
        for name, (_, slope) in curves(x).items()
    }


def plot(slopes: Slopes) -> "Figure":
    """Draws both functions, their slopes, and products of up to 30 slopes.

    Args:
        slopes: From `measure`.
    """
    from matplotlib.figure import Figure

    x = np.linspace(-6, 6, 601)
    figure = Figure((13, 4), layout="constrained")
    values, rises, products = figure.subplots(1, 3)
    n = np.arange(31)
    for name, (value, slope) in curves(x).items():
        of, color = slopes[name], COLORS[name]
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
