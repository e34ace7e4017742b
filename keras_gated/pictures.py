"""Figures of what a model does: piano rolls, sound, gates.

Each is a `matplotlib.figure.Figure`, to be saved by `figure.savefig(path)` or shown
in a notebook. matplotlib is imported when a figure is drawn.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_gated.datasets import checks, piano_roll
from keras_gated.datasets.files import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def piano_rolls(rolls: dict[str, np.ndarray]) -> "Figure":
    """Draws piano rolls below one another.

    Args:
        rolls: By title, `[T, 88]`, values from 0 (white) to 1 (black).

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `rolls` is empty, or a roll has another shape.

    Example:

    >>> import numpy as np
    >>> from keras_gated import pictures
    >>> figure = pictures.piano_rolls({"up": np.eye(88), "down": np.eye(88)[::-1]})
    >>> [axes.get_title() for axes in figure.axes]
    ['up', 'down']
    """
    _check_some("rolls", rolls)
    figure = _figure(7, 2.5 * len(rolls))
    panels = figure.subplots(len(rolls), sharex=True, squeeze=False)[:, 0]
    for axes, (title, roll) in zip(panels, rolls.items(), strict=True):
        piano_roll.plot(roll, axes, title)
    return figure


def sounds(
    sounds: dict[str, np.ndarray], sampling_rate: float, mark: float | None = None
) -> "Figure":
    """Draws waveforms and, to the right of each, its spectrogram.

    Args:
        sounds: By title, `[samples]`.
        sampling_rate: Samples per second.
        mark: A time to mark in all of them, in seconds. Default: `None`, none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `sounds` is empty, a sound has another shape, or `sampling_rate` is
            not positive.

    Example:

    >>> import numpy as np
    >>> from keras_gated import pictures
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> figure = pictures.sounds({"a tone": tone}, sampling_rate=8000)
    >>> len(figure.axes)
    2
    """
    _check_some("sounds", sounds)
    for title, samples in sounds.items():
        if np.ndim(samples) != 1 or not len(samples):
            raise ValueError(
                "Argument `sounds` must hold arrays [samples]. Received: shape "
                f"{np.shape(samples)} for {title!r}"
            )
    checks.number("sampling_rate", sampling_rate, above=0)
    figure = _figure(9, 2.5 * len(sounds))
    panels = figure.subplots(len(sounds), 2, sharex=True, squeeze=False)
    longest = max(map(len, sounds.values()))
    seconds = np.arange(longest) / sampling_rate
    for (wave, spectrum), (title, row) in zip(panels, sounds.items(), strict=True):
        wave.plot(seconds[: len(row)], row, linewidth=0.4)
        # Inaudible noise, because the logarithm of silence is infinite.
        noise = 1e-6 * np.random.default_rng(0).normal(size=len(row))
        spectrum.specgram(row + noise, NFFT=256, Fs=sampling_rate, noverlap=192)
        for axes in (wave, spectrum):
            if mark is not None:
                axes.axvline(mark, color="tab:red")
            axes.set_title(title)
        spectrum.set_ylabel("Hz")
    for axes in panels[-1]:
        axes.set_xlabel("seconds")
    return figure


_TITLES = {
    "update": "update gate (1: the candidate takes the place of the state)",
    "reset": "reset gate (0: the candidate does not see the state)",
    "input": "input gate (1: the candidate enters the memory)",
    "forget": "forget gate (1: the memory is kept)",
    "output": "output gate (1: the memory is shown)",
}


def gates(
    sequence: np.ndarray, gates: dict[str, np.ndarray], title: str = ""
) -> "Figure":
    """Draws a sequence and, below it, a heat map of every gate.

    Time runs to the right, and each row is a unit. All gates have their rows in the
    same order, by the mean of the update or forget gate, or else of the first one.

    Args:
        sequence: `[T, features]`. A piano roll, 88 zeros and ones, is drawn as such;
            overlapping frames of sound are drawn as a waveform, anything else as a
            heat map.
        gates: By name, `[steps, units]`, as `keras_gated.inspection.gates` returns
            them for one sequence; steps of NaN stay white.
        title: The title. Default: none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `gates` is empty, or an array has another shape.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU, inspection, pictures
    >>> model = keras.Sequential([keras.Input((None, 88)), GRU(4)])
    >>> roll = np.eye(16, 88)
    >>> figure = pictures.gates(roll, inspection.gates(model, roll), "untrained")
    >>> figure.axes[1].get_ylabel()
    '4 units'
    """
    _check_some("gates", gates)
    sequence = np.asarray(sequence)
    gates = {name: np.asarray(values) for name, values in gates.items()}
    shapes = {values.shape for values in gates.values()}
    if sequence.ndim != 2 or 0 in sequence.shape:
        raise ValueError(
            "Argument `sequence` must be [T, features], with at least one step. "
            "Received: "
            f"shape {sequence.shape}"
        )
    if len(shapes) > 1 or len(shape := shapes.pop()) != 2 or 0 in shape:
        raise ValueError(
            "Argument `gates` must hold arrays [steps, units] of one shape. Received: "
            f"{ {name: values.shape for name, values in gates.items()} }"
        )
    rows = 1 + len(gates)
    figure = _figure(10, 0.8 + 1.7 * rows)
    upper, *panels = figure.subplots(rows, sharex=True)
    _plot_sequence(sequence, upper)
    upper.set_title(title)
    by_which = (name for name in ("update", "forget") if name in gates)
    leading = next(by_which, next(iter(gates)))
    order = np.argsort(np.nan_to_num(gates[leading]).mean(axis=0), kind="stable")
    for axes, (name, values) in zip(panels, gates.items(), strict=True):
        finite = values[np.isfinite(values)]
        if name in _TITLES or ((finite >= 0) & (finite <= 1)).all():
            style = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
        else:  # around zero; an activation other than tanh may go beyond 1
            limit = max(1.0, np.abs(finite).max(initial=0))
            style = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
        image = _heat_map(axes, values[:, order], len(sequence), **style)
        figure.colorbar(image, ax=axes, aspect=10, pad=0.01)
        axes.set_title(_TITLES.get(name, name), loc="left", fontsize="medium")
        axes.set(yticks=[], ylabel=f"{values.shape[1]} units")
    by = f"{leading} gate" if leading in _TITLES else leading
    panels[-1].set_xlabel(f"step   (units by their mean {by}, the lowest below)")
    for axes in (upper, *panels):
        axes.label_outer()
    return figure


def _plot_sequence(sequence: np.ndarray, axes: "Axes") -> None:
    T, features = sequence.shape
    hop = _hop(sequence)
    if features == piano_roll.KEYS and np.isin(sequence, (0, 1)).all():
        piano_roll.plot(sequence, axes)
    elif hop:  # the new samples of each frame, at the frame's step
        wave = sequence[:, -hop:].ravel()
        places = (np.arange(len(wave)) + 0.5) / hop - 0.5
        axes.plot(places, wave, linewidth=0.6, color="black")
        axes.set(ylabel="waveform", xlim=(-0.5, T - 0.5))
    else:
        image = _heat_map(axes, sequence, T, cmap="Greys")
        axes.figure.colorbar(image, ax=axes, aspect=10, pad=0.01)
        axes.set_ylabel("feature")


def _hop(sequence: np.ndarray) -> int | None:
    """How many samples each frame begins after the one before, if they overlap."""
    features = sequence.shape[1]
    for hop in range(1, features):
        before, after = sequence[:-1, hop:], sequence[1:, :-hop]
        # Columns that are constant are equal without an overlap.
        if np.array_equal(before, after) and len(np.unique(before)) > 1:
            return hop
    return 1 if features == 1 else None


def _heat_map(axes: "Axes", values: np.ndarray, T: int, **style: Any) -> Any:
    """Draws `[steps, rows]` across the T steps of a sequence."""
    # Where there are more steps or rows than pixels, "nearest" would drop some.
    sharp = values.shape[0] < 800 and values.shape[1] < 140
    return axes.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest" if sharp else "auto",
        extent=(-0.5, T - 0.5, -0.5, values.shape[1] - 0.5),
        **style,
    )


def _check_some(name: str, value: Any) -> None:
    if not isinstance(value, dict) or not value:
        raise checks.error(name, value, "a dictionary of one array or more")


def _figure(width: float, height: float) -> "Figure":
    figure = require("matplotlib.figure", extra="examples")
    return figure.Figure((width, height), layout="constrained")
