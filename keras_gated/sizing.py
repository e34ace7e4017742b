"""How many units a cell may have for a given number of parameters."""

import math
from typing import Any

import keras

from keras_gated.datasets import checks


def match_units(
    cell_class: type[keras.layers.Layer],
    budget: int,
    input_dim: int,
    **cell_arguments: Any,
) -> int:
    """The number of units whose cell has the parameter count nearest `budget`.

    The parameters are those of the recurrent layer alone, including biases and
    peepholes. This is how Chung et al. (2014, https://arxiv.org/abs/1412.3555,
    table 1) make cells comparable.

    Args:
        cell_class: A cell class of this package, or any Keras cell class that
            takes `units` and whose weights are vectors of the units and
            matrices between the inputs and the units.
        budget: The number of parameters to aim at, a positive integer.
        input_dim: The number of features of the input, a positive integer.
        **cell_arguments: Further arguments for `cell_class`, such as
            `peephole=False`.

    Returns:
        The number of units, at least 1; the smaller of two that are equally
        near.

    Raises:
        ValueError: `budget` or `input_dim` is not a positive integer, or
            the parameter count of `cell_class` does not grow with its units as
            described.

    Example:

    >>> from keras_gated import GRUCell, LSTMCell, TanhCell, match_units
    >>> [match_units(c, 20_000, 100) for c in (LSTMCell, GRUCell, TanhCell)]
    [36, 46, 100]
    """
    budget = checks.whole("budget", budget)
    input_dim = checks.whole("input_dim", input_dim)

    def count(units: int) -> int:
        cell = cell_class(units, **cell_arguments)
        cell.build((None, input_dim))
        return cell.count_params()

    # Matrices and vectors of the units: the count is a·units² + b·units + c,
    # which three small cells determine, however large the budget.
    n1, n2, n3 = count(1), count(2), count(3)
    a = (n3 - 2 * n2 + n1) / 2
    b = n2 - n1 - 3 * a
    c = n1 - a - b
    if a < 0 or b <= 0 or a * 49 + b * 7 + c != count(7):
        raise ValueError(
            "Argument `cell_class` must be a cell whose parameter count is a "
            "polynomial of second degree in its units. Received: "
            f"cell_class={cell_class!r}, with {n1}, {n2}, {n3} and {count(7)} "
            "parameters for 1, 2, 3 and 7 units"
        )
    p, q = b / (2 * a) if a else 0.0, (c - budget) / (a or b)
    exact = (math.sqrt(max(p * p - q, 0.0)) - p) if a else -q
    units = max(1, math.floor(exact))
    return min((units, units + 1), key=lambda u: abs(a * u * u + b * u + c - budget))
