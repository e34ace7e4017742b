"""Whether a step that a user wrote is a function of its arguments."""

import importlib
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import States
from keras_gated.cells.recurrence import NotedRecurrence, Recurrence, Tensor
from keras_gated.layers.called_cell import CalledCell, call, floating


class _Watch(keras.StatelessScope):
    """Notes which variables are read, beside those whose values are given."""

    def __init__(self, values: Any = ()) -> None:
        super().__init__(values, collect_losses=True)
        self.given = set(self.state_mapping)
        self.read: list[str] = []

    def get_current_value(self, variable: keras.Variable) -> Any:
        if id(variable) not in self.given:
            self.read.append(variable.name)
        return super().get_current_value(variable)

    @property
    def assigned(self) -> bool:
        return self.state_mapping.keys() != self.given


def obstacle(cell: RecurrentCell) -> str | None:
    """Why the fast loop cannot run a step; `None` if it can. It is computed twice.

    Raises:
        ValueError: The step draws random numbers, assigns variables, or is otherwise
            no function of its arguments.
    """
    equations = type(cell.equations)
    if equations.__module__.startswith("keras_gated."):
        return None
    draw = np.random.default_rng(0).normal

    def tensor(size: int) -> Tensor:
        return ops.convert_to_tensor(draw(size=(2, size)), cell.compute_dtype)

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
    if scope.assigned:
        raise ValueError(
            f"{impure} It draws random numbers (the cell's dropout and weight noise "
            f"do), or assigns a variable. {instead}"
        )
    if scope.read:
        return (
            f"{name} reads the variable {scope.read[0]}, whose gradient it would lose"
        )
    try:
        same = _same(first, second)
    except Exception:  # tensors without values, in a function that is being traced
        return None
    if not same:
        raise ValueError(
            f"{impure} For the same ones it returned other states the second time. "
            f"{instead}"
        )
    return None


def obstacle_of_call(called: CalledCell, features: int) -> str | None:
    """Why the fast loop cannot run a cell by its `call`; `None` if it can.

    What a call prints or writes elsewhere cannot be found out.

    Args:
        called: The cell, which has been built.
        features: The size of its inputs.
    """
    backend = importlib.import_module(
        f"keras_gated.layers.loop_{keras.config.backend()}"
    )
    with backend.eagerly():
        try:
            found = _found_in_calls(called, features, backend)
        except Exception as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            found = f"cannot be compiled as a whole ({reason})"
    return found and f"a call of {type(called.cell).__name__} {found}"


def _found_in_calls(called: CalledCell, features: int, backend: Any) -> str | None:
    cell, rows = called.cell, 3
    sizes = keras.tree.flatten(cell.state_size)
    draw = np.random.default_rng(0).normal

    def tensor(*shape: int, dtype: str = cell.compute_dtype) -> Tensor:
        return ops.convert_to_tensor(draw(size=shape), dtype)

    def values() -> list[tuple[keras.Variable, Tensor]]:
        # Drawn, since variables may get their own later.
        return [(v, tensor(*v.shape, dtype=v.dtype)) for v in floating(cell)]

    def tried(x: Tensor, states: States, training: bool = False) -> tuple[_Watch, list]:
        with _Watch(V) as scope:
            output, new_states = call(cell, x, states, training)
        return scope, [output, *new_states]

    x, states = tensor(rows, features), [tensor(rows, size) for size in sizes]
    V = values()
    tried(x, states)  # builds what is built when it is called
    V, before = values(), _attributes(cell)
    tries = [tried(x, states, training) for training in (False, False, True)]
    scopes, results = zip(*tries, strict=True)
    if any(scope.assigned for scope in scopes):
        return "draws random numbers or assigns variables"
    if not _same(results[0], results[1]):
        return "returns other numbers the second time"
    if not _same(results[0], results[2]):
        return "returns other numbers while training"
    if any(scope.read for scope in scopes):
        return "reads variables that are not its own"
    if any(scope.losses for scope in scopes):
        return "adds losses"
    if _attributes(cell) != before:
        return "changes its attributes"
    kinds = [(tuple(t.shape), t.dtype) for t in results[0]]
    if kinds != [((rows, size), x.dtype) for size in (called.units, *sizes)]:
        return "returns other shapes or dtypes than it takes"
    for row in range(rows):
        _, alone = tried(*_row([x, states], row))
        if not _same(_row(results[0], row), alone, 1e-4):
            return "does not treat each sequence for itself"
    if backend.compiled:
        _compile(called, x, states, tuple(value for _, value in V), backend)
    return None


def _compile(
    called: CalledCell, x: Tensor, states: States, V: tuple[Tensor, ...], backend: Any
) -> None:
    equations = called.equations

    def gradient(x: Tensor, states: States, V: tuple[Tensor, ...]) -> list[Tensor]:
        first = [called.no_output(states), *states]

        def step(*states: Tensor) -> tuple[States, None]:
            weights = Recurrence({}, V=V)
            new_states, _ = equations.checked_step([x], list(states), weights)
            return new_states, None

        return backend.vjp(step, first, first)[0]

    backend.compiled(gradient)(x, states, V)


def _row(structure: Any, row: int) -> Any:
    return keras.tree.map_structure(lambda t: t[row : row + 1], structure)


def _same(first: list[Tensor], second: list[Tensor], tolerance: float = 0.0) -> bool:
    pairs = zip(first, second, strict=True)
    return all(
        np.allclose(*map(_array, pair), rtol=tolerance, atol=tolerance, equal_nan=True)
        for pair in pairs
    )


def _array(tensor: Tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _attributes(cell: keras.layers.Layer) -> dict[str, Any]:
    """What a call of the cell may have changed in Python."""

    def seen(value: Any) -> Any:
        if isinstance(value, (bool, int, float, str, bytes, type(None))):
            return value
        if isinstance(value, dict):
            return {key: seen(of_key) for key, of_key in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [seen(part) for part in value]
        return id(value)

    # Keras sets some to None when they are first asked for.
    return {n: seen(value) for n, value in vars(cell).items() if value is not None}
