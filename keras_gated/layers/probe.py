"""Whether a step that a user wrote is a function of its arguments."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import States
from keras_gated.cells.recurrence import NotedRecurrence


class _Watch(keras.StatelessScope):
    """Notes which variables are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.read.append(variable.name)
        return super().get_current_value(variable)


def obstacle(cell: RecurrentCell) -> str | None:
    """Why the fast loop cannot run a step; `None` if it can. It is computed twice.

    Raises:
        ValueError: The step draws random numbers, assigns variables, or is otherwise
            no function of its arguments.
    """
    equations = type(cell.equations)
    if equations.__module__.startswith("keras_gated."):
        return None
    rng = np.random.default_rng(0)

    def tensor(size: int) -> Any:
        return ops.convert_to_tensor(rng.normal(size=(2, size)), cell.compute_dtype)

    x = [tensor(cell.units) for _ in cell.gates]
    states = [tensor(size) for size in keras.tree.flatten(cell.state_size)]
    # Of the values, where the backend would read variables later.
    recurrent = keras.tree.map_structure(
        lambda weight: None if weight is None else ops.copy(weight),
        cell._recurrence(training=False, drop=None),
    )

    name = f"{equations.__name__}.step"

    def step() -> States:
        noted = NotedRecurrence(recurrent)
        try:
            new_states, _ = cell.equations.checked_step(x, states, noted)
        except ValueError as error:
            if name in str(error):
                raise
            raise ValueError(f"{name}: {error}") from error
        missing = recurrent.U.keys() - noted.noted
        if missing:
            raise ValueError(
                f"{name} must multiply with each of the products. It does not with: "
                f"{', '.join(sorted(missing))}"
            )
        return new_states

    with _Watch() as scope:
        first, second = step(), step()
    impure = f"{name} must be a function of its arguments on the fast loop."
    instead = "With use_fast_loop=False Keras's loop runs it."
    if scope.state_mapping:
        raise ValueError(
            f"{impure} It draws random numbers (the cell's dropout and weight noise "
            f"do), or assigns a variable. {instead}"
        )
    if scope.read:
        return (
            f"{name} reads the variable {scope.read[0]}, whose gradient it would lose"
        )
    try:
        once, again = (
            [ops.convert_to_numpy(state) for state in states]
            for states in (first, second)
        )
    except Exception:  # tensors without values, in a function that is being traced
        return None
    pairs = zip(once, again, strict=True)
    if not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
        raise ValueError(
            f"{impure} For the same ones it returned other states the second time. "
            f"{instead}"
        )
    return None
