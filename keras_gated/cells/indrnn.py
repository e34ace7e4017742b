"""The independently recurrent unit."""

from collections.abc import Callable
from typing import Any

import keras

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import (
    VJP,
    Equations,
    Gates,
    Inputs,
    Partials,
    Result,
    States,
    sum_of_rows,
)
from keras_gated.cells.recurrence import Recurrence, Tensor


class IndRNNEquations(Equations):
    """The equation of `IndRNNCell`, in the same letters."""

    gates = "h"
    products = ()

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        (h,), (x_h,), (u,) = states, x, recurrent.V
        h_in = recurrent.dropped("h", h)

        h = self.activation(x_h + u * h_in)
        return [h], {"h_cand": h, "h_in": h_in}

    def partials(self, states: States, gates: Gates) -> Partials:
        return {"h/a_h": derivative(self.activation)(gates["h_cand"])}

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        (d_h,), (u,) = d_new, recurrent.V

        d_a_h = d_h * partials["h/a_h"]
        return [d_a_h], [recurrent.dropped("h", d_a_h * u)]

    def further_gradient(
        self, d_x: Tensor, states: States, gates: Gates
    ) -> tuple[Tensor, ...]:
        return (sum_of_rows(d_x * gates["h_in"]),)


@keras.saving.register_keras_serializable(package="keras_gated")
class IndRNNCell(RecurrentCell):
    """The independently recurrent unit: each unit sees its own past alone.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)` (Li et
    al., 2018, https://arxiv.org/abs/1803.04831, equation 2):

        h = relu(W x + u ⊙ h + b)

    What units know of each other comes from the layer above. Gradients pass through a
    step by the factor `u`, or not at all, so that they neither vanish nor explode over
    `T` steps where `|u|` is near 1 and at most `2 ** (1 / T)` (section 4.1 of the
    paper). A constraint keeps it there:
    `recurrent_constraint=keras.constraints.MaxNorm(2 ** (1 / T))`.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation, a name or a callable; `None` for the identity.
            Default: `"relu"`.
        recurrent_initializer: Initializer of `u`. Default: `None`, uniform in [-1, 1].
        weight_noise: Standard deviation of the noise added to `W` and `u` while
            training. Default: 0.
        layer_norm: Whether `W x` is normalized. `u ⊙ h` is not, since that would have
            units see each other. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `W`, `(input_dim, units)`.
        recurrent_kernel: `u`, `(1, units)`.
        bias: `b`, `(units,)`, or `None`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import IndRNNCell
    >>> bound = keras.constraints.MaxNorm(2 ** (1 / 5))
    >>> cell = IndRNNCell(4, recurrent_constraint=bound)
    >>> layer = keras.layers.RNN(cell, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    title = "IndRNN"
    equations_class = IndRNNEquations

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "relu",
        *,
        recurrent_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        if recurrent_initializer is None:
            recurrent_initializer = keras.initializers.RandomUniform(-1.0, 1.0)
        kwargs["recurrent_initializer"] = recurrent_initializer
        super().__init__(units, activation, **kwargs)

    def _recurrent_shape(self) -> tuple[int, ...]:
        return 1, self.units

    def _further_weights(self, training: bool) -> tuple[Tensor, ...]:
        return (self._current("recurrent_kernel", training)[0],)

    def _recurrence(self, training: bool, drop: Tensor | None) -> Recurrence:
        recurrent = super()._recurrence(training, None)
        return recurrent if drop is None else recurrent._replace(drop={"h": drop})
