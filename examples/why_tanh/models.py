"""The models whose memory is measured, and the pieces on which it is measured."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import comparison
import keras
import numpy as np

import keras_gated
from keras_gated import losses, metrics
from keras_gated.datasets import piano_roll
from why_tanh.cells import CELLS, TITLES

BEGINNING = 16
"""Steps of a piece before the earliest state that is measured: two bars."""


def build(name: str, args: argparse.Namespace) -> keras.Model:
    """The model of a cell, by its name in `CELLS`."""
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
    """A model's first cell, with its name in `CELLS`.

    Args:
        model: The model.
        path: The file of the model, for errors.

    Raises:
        ValueError: It has no such cell, or is not a model of piano rolls.
    """
    for layer in model.layers:
        cell = getattr(layer, "cell", None)
        for name, kind in keras_gated.CELLS.items():
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


def load(folder: Path, names: Iterable[str]) -> dict[str, keras.Model]:
    """The models of a run of polyphonic_music.py, by their cells.

    Args:
        folder: The folder of the run, with a folder for every cell.
        names: The names of the cells to return.

    Returns:
        The models, compiled for evaluation.

    Raises:
        ValueError: There are none, or one does not load or is not a model of piano
            rolls, or two have the same cell.
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
        except Exception as error:  # a damaged archive can raise anything
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


def in_float64(cell: keras.layers.Layer, fresh: bool = False) -> keras.layers.Layer:
    """Copies a cell to one that computes in float64.

    Args:
        cell: A built cell of the package.
        fresh: Whether the copy has new weights, as before training. Default: `False`,
            it has the weights of the cell.

    Returns:
        The copy, built.
    """
    copy = type(cell).from_config({**cell.get_config(), "dtype": "float64"})
    copy.build((None, cell.kernel.shape[0]))
    if not fresh:
        copy.set_weights(cell.get_weights())
    return copy


def beginnings(
    rolls: list[np.ndarray], lags: int, pieces: int, seed: int
) -> np.ndarray:
    """The beginnings of some pieces, from whose ends to look back.

    Args:
        rolls: The pieces, each `[T, 88]`.
        lags: The number of steps to look back.
        pieces: The number of pieces to choose.
        seed: The seed of the choice.

    Returns:
        `float64 [pieces, BEGINNING + lags, 88]`.

    Raises:
        ValueError: There are too few that are long enough.
    """
    steps = BEGINNING + lags
    long = [roll[:steps] for roll in rolls if len(roll) >= steps]
    if len(long) < pieces:
        longest = max(map(len, rolls))
        raise ValueError(
            f"--lags {lags} with --pieces {pieces} needs as many test pieces "
            f"of {steps} steps. There are {len(long)}; the longest has {longest} steps."
        )
    chosen = np.random.default_rng(seed).choice(len(long), pieces, replace=False)
    return np.stack([long[k] for k in sorted(chosen)]).astype("float64")
