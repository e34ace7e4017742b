"""The tanh cell, the traditional recurrent unit."""

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
)
from keras_gated.cells.recurrence import Normalization, Recurrence, Tensor


class TanhEquations(Equations):
    """`h = tanh(W x + U h + b)`."""

    gates = "h"

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        tanh = self.activation
        (h,), (x_h,) = states, x
        (u_h,) = recurrent.product("h", h)

        h = tanh(recurrent.normalized("a", x_h + u_h))
        return [h], {"h_cand": h}

    def partials(self, states: States, gates: Gates) -> Partials:
        d_tanh = derivative(self.activation)
        return {"h/a_h": d_tanh(gates["h_cand"])}

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        (d_h,) = d_new

        d_a_h = d_h * partials["h/a_h"]
        d_h = recurrent.product_vjp("h", [d_a_h])
        return [d_a_h], [d_h]


@keras.saving.register_keras_serializable(package="keras_gated")
class TanhCell(RecurrentCell):
    """The traditional recurrent cell, with no gates.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)`
    (Chung et al., 2014, https://arxiv.org/abs/1412.3555, equation 2):

        h = tanh(W x + U h + b)

    It computes what `keras.layers.SimpleRNNCell` computes, and adds
    `weight_noise` and `gate_activations` (whose only entry, `"candidate"`, is
    the new state).

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation instead of tanh, a name or a callable; `None` for the
            identity. Default: `"tanh"`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        layer_norm: Whether `W x + U h` is normalized, `b` added after it (Ba et al.,
            2016, https://arxiv.org/abs/1607.06450, equation 4). Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `W`, `(input_dim, units)`.
        recurrent_kernel: `U`, `(units, units)`.
        bias: `b`, `(units,)`, or `None`.
        recurrent_gain: `(units,)`, with `layer_norm=True`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import TanhCell
    >>> layer = keras.layers.RNN(TanhCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    title = "tanh"
    equations_class = TanhEquations

    def _build_norms(self) -> None:
        self.recurrent_gain = self._gain("recurrent_gain", self.units)

    def _kernel_norm(self, training: bool) -> None:
        return None

    def _projection(self, training: bool) -> tuple[Tensor, Tensor | None]:
        W, b = super()._projection(training)
        return W, None if self.layer_norm else b

    def _norms(
        self, training: bool, biases: dict[str, Tensor]
    ) -> dict[str, Normalization]:
        b, _ = self._biases(training)
        return {"a": self._norm(self._current("recurrent_gain"), b)}
