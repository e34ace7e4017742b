"""Checks of arguments, with errors in the manner of Keras.

Every error is a `ValueError` that names the argument, what is accepted, and what was
received. NumPy's numbers are accepted and returned as Python's own, which can be
written as JSON. `True` is not accepted as a number, and neither are NaN and infinity.
"""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def error(name: str, value: Any, accepted: str) -> ValueError:
    """The error to raise for an argument that is not accepted.

    Args:
        name: The name of the argument.
        value: What was received.
        accepted: What is accepted, such as `"a list of paths"`.

    Returns:
        A `ValueError`.

    Example:

    >>> from keras_gated.datasets import checks
    >>> raise checks.error("notes", 3, "a list")
    Traceback (most recent call last):
    ValueError: Argument `notes` must be a list. Received: notes=3
    """
    shown = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if len(shown) > 200:
        shown = f"{shown[:200]}..."
    return ValueError(f"Argument `{name}` must be {accepted}. Received: {name}={shown}")


def whole(
    name: str,
    value: Any,
    low: int = 1,
    high: int | None = None,
    *,
    optional: bool = False,
) -> int | None:
    """Checks an integer.

    Args:
        name: The name of the argument.
        value: What was received.
        low: The smallest integer that is accepted. Default: 1.
        high: The largest. Default: `None`, no limit.
        optional: Whether `None` is accepted, too. Default: `False`.

    Returns:
        The value, an `int`; or `None`.

    Raises:
        ValueError: The value is not an integer, or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import checks
    >>> checks.whole("units", np.int64(16))
    16
    >>> checks.whole("units", True)
    Traceback (most recent call last):
    ValueError: Argument `units` must be a positive integer. Received: units=True
    """
    if value is None and optional:
        return None
    if (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and low <= value
        and (high is None or value <= high)
    ):
        return int(value)
    if high is not None:
        accepted = f"an integer from {low:,} to {high:,}"
    elif low == 1:
        accepted = "a positive integer"
    else:
        accepted = f"an integer of at least {low:,}"
    raise error(name, value, accepted + " or None" * optional)


def number(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> float | None:
    """Checks a finite number.

    Args:
        name: The name of the argument.
        value: What was received.
        low: The smallest number that is accepted. Default: `None`, no limit.
        high: The largest. Default: `None`, no limit.
        above: The number must be greater than this. Default: `None`, no limit.
        below: The number must be less than this. Default: `None`, no limit.
        optional: Whether `None` is accepted, too. Default: `False`.

    Returns:
        The value, an `int` if it is an integer and else a `float`; or `None`.

    Raises:
        ValueError: The value is not a number, not finite, or out of range.

    Example:

    >>> from keras_gated.datasets import checks
    >>> checks.number("dropout", 0.5, low=0, below=1)
    0.5
    >>> checks.number("rate", 0.0, above=0)
    Traceback (most recent call last):
    ValueError: Argument `rate` must be a finite number above 0. Received: rate=0.0
    """
    if value is None and optional:
        return None
    if (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and (isinstance(value, Integral) or math.isfinite(value))
        and (low is None or low <= value)
        and (high is None or value <= high)
        and (above is None or above < value)
        and (below is None or value < below)
    ):
        return int(value) if isinstance(value, Integral) else float(value)
    bounds = {"of at least": low, "above": above, "of at most": high, "below": below}
    bounds = [
        f"{words} {limit}" for words, limit in bounds.items() if limit is not None
    ]
    accepted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise error(name, value, accepted + " or None" * optional)


def one_of(name: str, value: Any, choices: Sequence) -> Any:
    """Checks that a value is one of a few.

    Args:
        name: The name of the argument.
        value: What was received.
        choices: What is accepted.

    Returns:
        The choice.

    Raises:
        ValueError: The value is none of them.

    Example:

    >>> from keras_gated.datasets import checks
    >>> checks.one_of("errors", "skip", ("skip", "raise"))
    'skip'
    >>> checks.one_of("errors", "no", ("skip", "raise"))
    Traceback (most recent call last):
    ValueError: Argument `errors` must be 'skip' or 'raise'. Received: errors='no'
    """
    for choice in choices:
        # The type is compared, too: 1 == True, and an array equals nothing.
        if isinstance(value, type(choice)) and value == choice:
            return choice
    *others, last = map(repr, choices)
    raise error(name, value, f"{', '.join(others)} or {last}" if others else last)


def folder(name: str, value: Any) -> Path:
    """Checks that a folder exists.

    Args:
        name: The name of the argument.
        value: What was received.

    Returns:
        The path.

    Raises:
        ValueError: There is no such folder.
    """
    if isinstance(value, str | os.PathLike) and Path(value).is_dir():
        return Path(value)
    raise error(name, value, "a folder that exists")
