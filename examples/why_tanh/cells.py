"""The cells that are compared: those of the paper, and a cell with sigmoid for tanh."""

import functools

import keras_gated

CELLS = {
    **keras_gated.CELLS,
    "sigmoid": functools.partial(keras_gated.TanhCell, activation="sigmoid"),
}
TITLES = {
    **{name: cell.title for name, cell in keras_gated.CELLS.items()},
    "sigmoid": "sigmoid RNN",
}
COLORS = {name: f"C{k}" for k, name in enumerate(CELLS)}
"""The same in all figures, also for the functions tanh and sigmoid."""
