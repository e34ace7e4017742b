"""Long expressive memory, a cell of a user's own: its equations are `step`."""

from typing import Any

import keras

import keras_gated


class LEMEquations(keras_gated.GatedEquations):
    """The equations of `LEMCell`, in the same letters."""

    dt: float

    gates = "abzy"  # the column blocks of the kernels
    products = ("abz", "y")  # U_y waits for the new z

    def step(self, x: list, states: list, recurrent: Any) -> tuple[list, dict]:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (y, z), (x_a, x_b, x_z, x_y) = states, x
        u_a, u_b, u_z = recurrent.product("abz", y)
        a = self.dt * sigmoid(x_a + u_a)
        b = self.dt * sigmoid(x_b + u_b)
        z = (1 - a) * z + a * tanh(x_z + u_z)
        (u_y,) = recurrent.product("y", z)
        y = (1 - b) * y + b * tanh(x_y + u_y)
        return [y, z], {"a": a, "b": b}


@keras.saving.register_keras_serializable("lem")
class LEMCell(keras_gated.GatedCell):
    """Long expressive memory: two states, each with time steps that it learns.

    From `x` `(batch, input_dim)`, the previous output `y` and the previous memory `z`,
    both `(batch, units)` (Rusch et al., 2022, https://arxiv.org/abs/2110.04744,
    equation 3):

        a = dt σ(W_a x + U_a y + b_a)                     time step of z
        b = dt σ(W_b x + U_b y + b_b)                     time step of y
        z = (1 - a) ⊙ z + a ⊙ tanh(W_z x + U_z y + b_z)
        y = (1 - b) ⊙ y + b ⊙ tanh(W_y x + U_y z + b_y)   sees the new z

    Args:
        units: Positive integer, the size of each state and of the output.
        *args: `activation` and `recurrent_activation`, see `keras_gated.GatedCell`.
        dt: Positive number, the largest time step: a unit remembers for about
            `1 / dt` steps or more. Default: 1.
        **kwargs: See `keras_gated.cells.base.RecurrentCell`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> LEM(4, dt=0.5)(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    True
    """

    title = "LEM"
    equations_class = LEMEquations

    def __init__(self, units: int, *args: Any, dt: float = 1.0, **kwargs: Any) -> None:
        if not dt > 0:
            raise ValueError(f"Argument `dt` must be positive. Received: dt={dt!r}")
        super().__init__(units, *args, **kwargs)
        self.dt = dt
        self.state_size = [self.units, self.units]  # the output comes first

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dt": self.dt}


LEM = keras_gated.layer_by_units(LEMCell)
