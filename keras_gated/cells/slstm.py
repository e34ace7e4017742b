"""The long short-term memory with an exponential input gate."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gated.cells.base import GatedCell
from keras_gated.cells.equations import GatedEquations, Inputs, Result, States
from keras_gated.cells.recurrence import Recurrence

FORGET_ACTIVATIONS = {"sigmoid": ops.log_sigmoid, "exponential": lambda a: a}
"""The logarithms of the activations that the forget gate may have."""


class SLSTMEquations(GatedEquations):
    """The equations of `SLSTMCell`, in the same letters."""

    forget_activation: str

    gates = "ifco"

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        log_of = FORGET_ACTIVATIONS[self.forget_activation]
        (h, c, n, m), (x_i, x_f, x_c, x_o) = states, x
        u_i, u_f, u_c, u_o = recurrent.product("ifco", h)

        log_i = x_i + u_i
        # An empty memory weighs as much as what comes in: so n is never below 1.
        log_f = ops.where(n == 0, log_i, log_of(x_f + u_f) + m)
        m = ops.where(log_f > log_i, log_f, log_i)
        i, f = ops.exp(log_i - m), ops.exp(log_f - m)
        c_cand = tanh(x_c + u_c)
        o = sigmoid(x_o + u_o)
        c = f * c + i * c_cand
        n = f * n + i
        h = o * c / n
        return [h, c, n, m], {"i": i, "f": f, "c_cand": c_cand, "o": o}


@keras.saving.register_keras_serializable(package="keras_gated")
class SLSTMCell(GatedCell):
    """The long short-term memory with an exponential input gate (sLSTM of xLSTM).

    From `x` `(batch, input_dim)` and the previous output `h`, memory `c`, normalizer
    `n` and stabilizer `m`, each `(batch, units)` (Beck et al., 2024,
    https://arxiv.org/abs/2405.04517, equations 8 to 17; the candidate is `z` there):

        log i = W_i x + U_i h + b_i              input gate
        log f = log σ(W_f x + U_f h + b_f)       forget gate
        c_cand = tanh(W_c x + U_c h + b_c)       candidate
        o = σ(W_o x + U_o h + b_o)               output gate
        m_new = max(log f + m, log i)
        i = exp(log i - m_new)                   both stabilized: at most 1
        f = exp(log f + m - m_new)
        c = f ⊙ c + i ⊙ c_cand
        n = f ⊙ n + i
        h = o ⊙ c / n

    The output is the mean of the candidates so far, weighted by the gates, so that a
    later one can outweigh all before it. `m` changes no output: `c` and `n` stand for
    `exp(m) ⊙ c` and `exp(m) ⊙ n`, which could be too large for a number. Zeros are the
    empty memory; other initial states need `n > 0`, so that they cannot be learned
    (`learn_initial_state`).

    There is one head: `U` is dense. The paper's blocks around the cell (several heads,
    convolution, normalization, projections) are not part of it.

    Args:
        units: Positive integer, the size of the states and of the output.
        activation: The activation of the candidate, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the output gate. Default: `"sigmoid"`.
        forget_activation: That of the forget gate, `"sigmoid"` or `"exponential"`, as
            the paper leaves open. Default: `"sigmoid"`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        layer_norm: Whether what goes into the gates is normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout of the output, a number. It does not act on `c`,
            `n` and `m`, which make sense only together. Default: 0.
        **kwargs: The further arguments of `keras.layers.LSTMCell` (but
            `unit_forget_bias`), see `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 4 * units)`, columns `W_i | W_f | W_c | W_o`.
        recurrent_kernel: `(units, 4 * units)`, columns `U_i | U_f | U_c | U_o`.
        bias: `(4 * units,)`, `b_i | b_f | b_c | b_o`, or `None`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import SLSTMCell
    >>> layer = keras.layers.RNN(SLSTMCell(4), return_state=True)
    >>> output, h, c, n, m = layer(np.ones((2, 5, 3), "float32"))
    >>> output.shape == n.shape == (2, 4)
    True
    """

    title = "sLSTM"
    equations_class = SLSTMEquations

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        *,
        forget_activation: str = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, **kwargs)
        if forget_activation not in FORGET_ACTIVATIONS:
            raise ValueError(
                "Argument `forget_activation` must be 'sigmoid' or 'exponential'. "
                f"Received: forget_activation={forget_activation!r}"
            )
        self.forget_activation = forget_activation
        self.state_size = [self.units] * 4

    def _zones(self) -> list[float] | None:
        if isinstance(self.zoneout, Sequence):
            raise ValueError(
                "Argument `zoneout` must be a number, that of the output. "
                f"Received: zoneout={self.zoneout!r}"
            )
        return [self.zoneout, 0.0, 0.0, 0.0] if self.zoneout else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "forget_activation": self.forget_activation}
