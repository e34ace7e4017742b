"""Whether a step that a user wrote is a function of its arguments."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import States
from keras_gated.cells.recurrence import NotedRecurrence


def check(cell: RecurrentCell) -> None:
    """Computes a step twice.

    Raises:
        ValueError: The step draws random numbers, assigns variables, or is otherwise
            no function of its arguments.
    """
    equations = type(cell.equations)
    if equations.__module__.startswith("keras_gated."):
        return
    rng = np.random.default_rng(0)

    def tensor(size: int) -> Any:
        return ops.convert_to_tensor(rng.normal(size=(2, size)), cell.compute_dtype)

    x = [tensor(cell.units) for _ in cell.gates]
    states = [tensor(size) for size in keras.tree.flatten(cell.state_size)]
    recurrent = cell._recurrence(training=False, drop=None)

    def step() -> States:
        noted = NotedRecurrence(recurrent)
        new_states, _ = cell.equations.checked_step(x, states, noted)
        missing = recurrent.U.keys() - noted.noted
        if missing:
            raise ValueError(
                f"{equations.__name__}.step must multiply with each of the products. "
                f"It does not with: {', '.join(sorted(missing))}"
            )
        return new_states

    with keras.StatelessScope() as scope:
        first, second = step(), step()
        assigned = scope.state_mapping
    if assigned:
        raise ValueError(
            f"{equations.__name__}.step must be a function of its arguments. It draws "
            "random numbers (the cell's dropout and weight noise do), or assigns a "
            "variable."
        )
    try:
        once, again = (
            [ops.convert_to_numpy(state) for state in states]
            for states in (first, second)
        )
    except Exception:  # tensors without values, in a function that is being traced
        return
    pairs = zip(once, again, strict=True)
    if not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
        raise ValueError(
            f"{equations.__name__}.step must be a function of its arguments. For the "
            "same ones it returned other states the second time."
        )
