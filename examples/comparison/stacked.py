"""Rolls of the same steps, one above the other."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from keras_gated.datasets import piano_roll


def draw(
    rolls: Mapping[str, np.ndarray],
    colors: Sequence[str],
    size: tuple[float, float],
    label: str,
) -> tuple[Figure, list[Axes]]:
    """Draws rolls, with the same steps and pitches.

    Args:
        rolls: By their titles, `[T, 88]`, from 0 (nothing) to 1.
        colors: From that of nothing on.
        size: The width of the figure and the height of each roll, in inches.
        label: Of the steps.

    Returns:
        The figure, and the axes of each roll.
    """
    width, height = size
    figure = Figure((width, height * len(rolls)), layout="constrained")
    panels = figure.subplots(len(rolls), 1, sharex=True, sharey=True, squeeze=False)
    keys = np.flatnonzero(np.any([*rolls.values()], axis=(0, 1)))
    low, high = keys[[0, -1]] + piano_roll.LOWEST_PITCH
    for axes, (title, roll) in zip(panels[:, 0], rolls.items(), strict=True):
        piano_roll.plot(roll, axes, cmap=ListedColormap(colors))
        axes.set_title(title, loc="left")
        axes.set(ylim=(low - 2, high + 2), xlabel=None)
    panels[-1, 0].set_xlabel(label)
    return figure, [*panels[:, 0]]
