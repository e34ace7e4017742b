"""How far back the state of a cell depends on the past.

The measure is the norm of the Jacobian of the last state with respect to an earlier
one: `keras_gated.inspection.jacobian_norms`.
"""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import keras_gated
from keras_gated import inspection
from why_tanh.cells import COLORS, TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 1e-3
"""Below this a norm counts as gone."""
SOME_LAGS = (1, 8, 32, 64)

Norms = dict[str, list[float]]
"""The geometric mean over the sequences (`"mean"`) and the range (`"lowest"`,
`"highest"`), each for the lags from 1."""


def measure(cell: keras.layers.Layer, inputs: np.ndarray, lags: int) -> Norms:
    """Measures a cell.

    Args:
        cell: A built cell; for long products, in float64.
        inputs: `[sequences, T, features]`; the sequences begin with a state of zeros.
        lags: The number of steps to look back, at most T.

    Raises:
        ValueError: `lags` is not from 1 to T.
    """
    layer = keras_gated.RNN(cell, dtype=cell.dtype_policy)
    layer.build((None, None, inputs.shape[-1]))
    norms = inspection.jacobian_norms(layer, inputs, lags)
    return {
        "mean": np.exp(np.log(norms).mean(axis=0)).tolist(),
        "lowest": norms.min(axis=0).tolist(),
        "highest": norms.max(axis=0).tolist(),
    }


def summarize(mean: list[float]) -> dict[str, Any]:
    """Summarizes the norms for the table.

    Args:
        mean: The norm for each lag from 1, at least four.

    Returns:
        `norm_k`, the norm at some lags k; `gone`, the first lag at which it is below
        `SMALL`, or `None`; `half_life`, the number of steps in which it halves, from a
        least-squares line through the logarithms of the second half of the lags, or
        `None` if it does not fall.
    """
    mean = np.asarray(mean)
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


def plot(norms: dict[str, dict[str, Norms]], pieces: int) -> "Figure":
    """Draws a panel for the untrained and one for the trained cells.

    Args:
        norms: From `measure`, by cell, then by weights.
        pieces: The number of pieces over which they were measured.
    """
    from matplotlib.figure import Figure

    figure = Figure((13, 5.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, weights in zip(panels, ("untrained", "trained"), strict=True):
        for name, of in norms.items():
            if weights not in of:
                continue
            # At lag 0 the Jacobian is the identity.
            mean, low, high = (
                [1.0, *of[weights][which]] for which in ("mean", "lowest", "highest")
            )
            lags, color = np.arange(len(mean)), COLORS[name]
            axes.plot(lags, mean, color=color, label=TITLES[name])
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
