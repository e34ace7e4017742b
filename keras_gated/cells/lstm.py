"""The long short-term memory, with or without peepholes."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import GatedCell
from keras_gated.cells.equations import (
    VJP,
    GatedEquations,
    Gates,
    Inputs,
    Partials,
    Result,
    States,
    sum_of_rows,
)
from keras_gated.cells.recurrence import Normalization, Recurrence, Tensor


class LSTMEquations(GatedEquations):
    """The equations of `LSTMCell`, in the same letters."""

    gates = "ifco"

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h, c), (x_i, x_f, x_c, x_o) = states, x
        u_i, u_f, u_c, u_o = recurrent.product("ifco", h)
        V_i, V_f, V_o = recurrent.V or (0, 0, 0)

        i = sigmoid(x_i + u_i + V_i * c)
        f = sigmoid(x_f + u_f + V_f * c)
        c_cand = tanh(x_c + u_c)
        c = recurrent.normalized("c", f * c + i * c_cand)
        o = sigmoid(x_o + u_o + V_o * c)
        tanh_c = tanh(c)
        h = o * tanh_c
        return [h, c], {"i": i, "f": f, "c_cand": c_cand, "o": o, "tanh_c": tanh_c}

    def partials(self, states: States, gates: Gates) -> Partials:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        _, c = states
        letters = ("i", "f", "c_cand", "o", "tanh_c")
        i, f, c_cand, o, tanh_c = (gates[letter] for letter in letters)
        return {
            "c/a_i": c_cand * d_sigmoid(i),
            "c/a_f": c * d_sigmoid(f),
            "c/a_c": i * d_tanh(c_cand),
            "h/a_o": tanh_c * d_sigmoid(o),
            "c/c": f,
            "h/new_c": o * d_tanh(tanh_c),
        }

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        d_h, d_c = d_new
        V_i, V_f, V_o = recurrent.V or (0, 0, 0)

        d_a_o = d_h * partials["h/a_o"]
        d_c = d_c + d_h * (partials["h/new_c"] + partials["h/a_o"] * V_o)
        d_a_i = d_c * partials["c/a_i"]
        d_a_f = d_c * partials["c/a_f"]
        d_a_c = d_c * partials["c/a_c"]
        d_a = [d_a_i, d_a_f, d_a_c, d_a_o]
        d_c = d_c * (
            partials["c/c"] + partials["c/a_i"] * V_i + partials["c/a_f"] * V_f
        )
        d_h = recurrent.product_vjp("ifco", d_a)
        return d_a, [d_h, d_c]

    def further_gradient(
        self, d_x: Tensor, states: States, gates: Gates
    ) -> tuple[Tensor, ...]:
        d_a_i, d_a_f, _, d_a_o = ops.split(d_x, 4, axis=-1)
        _, c = states
        new_c = gates["f"] * c + gates["i"] * gates["c_cand"]
        pairs = (d_a_i, c), (d_a_f, c), (d_a_o, new_c)
        return tuple(sum_of_rows(d_a * c) for d_a, c in pairs)


class CoupledEquations(LSTMEquations):
    """The equations of `LSTMCell(coupled=True)`."""

    gates = "ico"

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h, c), (x_i, x_c, x_o) = states, x
        u_i, u_c, u_o = recurrent.product("ico", h)
        V_i, V_o = recurrent.V or (0, 0)

        i = sigmoid(x_i + u_i + V_i * c)
        c_cand = tanh(x_c + u_c)
        c = recurrent.normalized("c", (1 - i) * c + i * c_cand)
        o = sigmoid(x_o + u_o + V_o * c)
        h = o * tanh(c)
        return [h, c], {"i": i, "c_cand": c_cand, "o": o}


@keras.saving.register_keras_serializable(package="keras_gated")
class LSTMCell(GatedCell):
    """The long short-term memory with peepholes, as in Graves (2013).

    From `x` `(batch, input_dim)`, the previous output `h` and the previous
    memory `c`, both `(batch, units)` (https://arxiv.org/abs/1308.0850,
    equations 7 to 11; Chung et al., 2014, equations 3 and 4):

        i = σ(W_i x + U_i h + V_i ⊙ c + b_i)     input gate
        f = σ(W_f x + U_f h + V_f ⊙ c + b_f)     forget gate
        c_cand = tanh(W_c x + U_c h + b_c)       candidate
        c = f ⊙ c + i ⊙ c_cand
        o = σ(W_o x + U_o h + V_o ⊙ c + b_o)     output gate, sees the new c
        h = o ⊙ tanh(c)

    With `layer_norm=True` the new `c` is normalized, too, with a gain and a bias, as
    in `LayerNormLSTMCell` of TensorFlow Addons.

    With `peephole=False` the terms in `V` are gone and the cell computes what
    `keras.layers.LSTMCell` computes. With `coupled=True` the forget gate is
    `f = 1 - i` and has no weights (the variant CIFG of Greff et al., 2017,
    https://arxiv.org/abs/1503.04069).

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate and of the memory, a name
            or a callable; `None` for the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gates. Default: `"sigmoid"`.
        peephole: Whether the gates see the memory. Default: `True`.
        coupled: Whether the cell forgets as much as it takes in. Default: `False`.
        unit_forget_bias: Whether the forget gate's bias starts at 1; with coupled
            gates, the input gate's at -1. Default: `True`.
        peephole_initializer: Initializer of the peepholes. Default:
            `"glorot_uniform"`.
        peephole_regularizer: Regularizer of the peepholes. Default: `None`.
        peephole_constraint: Constraint of the peepholes. Default: `None`.
        weight_noise: Standard deviation of the noise added to the kernels and
            the peepholes while training. Default: 0.
        layer_norm: Whether gates and memory are normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout of both states, or a list of one for `h` and one
            for `c`. Default: 0.
        **kwargs: The further arguments of `keras.layers.LSTMCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 4 * units)`, columns `W_i | W_f | W_c | W_o`.
        recurrent_kernel: `(units, 4 * units)`, columns `U_i | U_f | U_c | U_o`.
        bias: `(4 * units,)`, `b_i | b_f | b_c | b_o`, or `None`.
        peephole_kernel: `(3, units)`, rows `V_i`, `V_f`, `V_o`; `None` with
            `peephole=False`. Coupled gates have nothing of `f` in any of these.
        kernel_gain, recurrent_gain: `(4 * units,)`, with `layer_norm=True`.
        state_gain, state_bias: `(units,)`, of the memory with `layer_norm=True`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import LSTMCell
    >>> layer = keras.layers.RNN(LSTMCell(4), return_state=True)
    >>> output, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> output.shape == h.shape == c.shape == (2, 4)
    True
    """

    title = "LSTM"

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        *,
        peephole: bool = True,
        coupled: bool = False,
        unit_forget_bias: bool = True,
        peephole_initializer: Any = "glorot_uniform",
        peephole_regularizer: Any = None,
        peephole_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, **kwargs)
        self.peephole = bool(peephole)
        self.coupled = bool(coupled)
        self.unit_forget_bias = bool(unit_forget_bias)
        self.peephole_initializer = keras.initializers.get(peephole_initializer)
        self.peephole_regularizer = keras.regularizers.get(peephole_regularizer)
        self.peephole_constraint = keras.constraints.get(peephole_constraint)
        self.state_size = [self.units, self.units]

    @property
    def equations_class(self) -> type[LSTMEquations]:
        return CoupledEquations if self.coupled else LSTMEquations

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.peephole_kernel = None
        if self.peephole:
            self.peephole_kernel = self.add_weight(
                name="peephole_kernel",
                shape=(len(self.gates) - 1, self.units),
                initializer=self.peephole_initializer,
                regularizer=self.peephole_regularizer,
                constraint=self.peephole_constraint,
            )

    def _further_weights(self, training: bool) -> tuple[Tensor, ...] | None:
        if not self.peephole:
            return None
        V = self._current("peephole_kernel", training)
        return tuple(ops.unstack(V, len(self.gates) - 1))

    def _build_norms(self) -> None:
        super()._build_norms()
        self.state_gain = self._gain("state_gain", self.units)
        self.state_bias = self.add_weight(
            name="state_bias", shape=(self.units,), initializer="zeros"
        )

    def _norms(
        self, training: bool, biases: dict[str, Tensor]
    ) -> dict[str, Normalization]:
        of_state = self._current("state_gain"), self._current("state_bias")
        return {**super()._norms(training, biases), "c": self._norm(*of_state)}

    def _noisy_weights(self) -> tuple[str, ...]:
        names = super()._noisy_weights()
        return (*names, "peephole_kernel") if self.peephole else names

    def _initial_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        bias = super()._initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        parts = dict(zip(self.gates, ops.split(bias, len(self.gates)), strict=True))
        gate, value = ("i", -1.0) if self.coupled else ("f", 1.0)
        parts[gate] = ops.full_like(parts[gate], value)
        return ops.concatenate(list(parts.values()))

    def get_config(self) -> dict[str, Any]:
        serialize = {
            "peephole_initializer": keras.initializers.serialize,
            "peephole_regularizer": keras.regularizers.serialize,
            "peephole_constraint": keras.constraints.serialize,
        }
        return {
            **super().get_config(),
            "peephole": self.peephole,
            "coupled": self.coupled,
            "unit_forget_bias": self.unit_forget_bias,
            **{name: to(getattr(self, name)) for name, to in serialize.items()},
        }
