"""The long short-term memory with a recurrent projection."""

from typing import Any

import keras

from keras_gated.cells.equations import Inputs, Result, States
from keras_gated.cells.lstm import CoupledEquations, LSTMCell, LSTMEquations
from keras_gated.cells.recurrence import Recurrence, Tensor
from keras_gated.datasets import checks


class _Projected:
    """What was the output is projected to it."""

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        (m, c), gates = super().step(x, states, recurrent)

        (h,) = recurrent.product("h", m)
        return [h, c], gates


class ProjectedLSTMEquations(_Projected, LSTMEquations):
    """The equations of `ProjectedLSTMCell`, in the same letters."""


class ProjectedCoupledEquations(_Projected, CoupledEquations):
    """The equations of `ProjectedLSTMCell(coupled=True)`."""


@keras.saving.register_keras_serializable(package="keras_gated")
class ProjectedLSTMCell(LSTMCell):
    """The long short-term memory with a recurrent projection (LSTMP).

    From `x` `(batch, input_dim)`, the previous output `h` `(batch, projection_units)`
    and the previous memory `c` `(batch, units)` (Sak et al., 2014,
    https://arxiv.org/abs/1402.1128, equations 7 to 12, without the second projection
    `p`):

        i, f, o, c                               as in `LSTMCell`
        m = o ⊙ tanh(c)
        h = W_r m                                recurrent projection, the output

    The memory may be large where the output is small, and with it the recurrent
    kernel and the kernel of the layer above. `torch.nn.LSTM(proj_size=…)` computes the
    same without peepholes.

    Args:
        units: Positive integer, the size of the memory.
        projection_units: Positive integer, the size of the output.
        projection_initializer: Initializer of the projection. Default:
            `"glorot_uniform"`.
        projection_regularizer: Regularizer of the projection. Default: `None`.
        projection_constraint: Constraint of the projection. Default: `None`.
        **kwargs: The further arguments of `LSTMCell`, by name: `activation`,
            `recurrent_activation`, `peephole` (the peepholes see `c`), `coupled` and
            so on. Weight noise acts on the projection, too; recurrent dropout on the
            output on its way into the gates; layer normalization on gates and memory.

    Attributes:
        kernel: `(input_dim, 4 * units)`, columns `W_i | W_f | W_c | W_o`.
        recurrent_kernel: `(projection_units, 4 * units)`, columns `U_i | U_f | U_c |
            U_o`.
        bias: `(4 * units,)`, or `None`.
        peephole_kernel: `(3, units)`, or `None`.
        projection_kernel: `W_r`, `(units, projection_units)`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import ProjectedLSTMCell
    >>> layer = keras.layers.RNN(ProjectedLSTMCell(8, 4), return_state=True)
    >>> output, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> output.shape == h.shape == (2, 4) and c.shape == (2, 8)
    True
    """

    title = "projected LSTM"

    def __init__(
        self,
        units: int,
        projection_units: int,
        *,
        projection_initializer: Any = "glorot_uniform",
        projection_regularizer: Any = None,
        projection_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, **kwargs)
        self.projection_units = checks.whole("projection_units", projection_units)
        self.projection_initializer = keras.initializers.get(projection_initializer)
        self.projection_regularizer = keras.regularizers.get(projection_regularizer)
        self.projection_constraint = keras.constraints.get(projection_constraint)
        self.state_size = [self.projection_units, self.units]
        self.output_size = self.projection_units

    @property
    def equations_class(self) -> type[LSTMEquations]:
        return ProjectedCoupledEquations if self.coupled else ProjectedLSTMEquations

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.projection_kernel = self.add_weight(
            name="projection_kernel",
            shape=(self.units, self.projection_units),
            initializer=self.projection_initializer,
            regularizer=self.projection_regularizer,
            constraint=self.projection_constraint,
        )

    def _products(self, training: bool) -> dict[str, Tensor]:
        W_r = self._current("projection_kernel", training)
        return {**super()._products(training), "h": W_r}

    def _noisy_weights(self) -> tuple[str, ...]:
        return (*super()._noisy_weights(), "projection_kernel")

    def get_config(self) -> dict[str, Any]:
        serialize = {
            "projection_initializer": keras.initializers.serialize,
            "projection_regularizer": keras.regularizers.serialize,
            "projection_constraint": keras.constraints.serialize,
        }
        return {
            **super().get_config(),
            "projection_units": self.projection_units,
            **{name: to(getattr(self, name)) for name, to in serialize.items()},
        }
