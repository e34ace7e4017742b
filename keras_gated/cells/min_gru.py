"""The minimal gated recurrent unit, whose gates do not see the state."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.base import GatedCell, RecurrentCell
from keras_gated.cells.equations import (
    GatedEquations,
    Gates,
    Inputs,
    LinearEquations,
)
from keras_gated.cells.recurrence import Tensor


class LinearCell(RecurrentCell):
    """Abstract base of cells without a recurrent kernel.

    Args:
        units: Positive integer, the size of the state and of the output.
        *args: The activations, see `RecurrentCell` and `GatedCell`.
        **kwargs: See `RecurrentCell`.

    Raises:
        ValueError: An argument is out of its range, or would act on a recurrent kernel.
    """

    def __init__(self, units: int, *args: Any, **kwargs: Any) -> None:
        for name in (
            "recurrent_regularizer",
            "recurrent_constraint",
            "recurrent_dropout",
        ):
            if kwargs.get(name):
                raise ValueError(
                    f"{type(self).__name__} has no recurrent kernel that `{name}` "
                    f"could act on. Received: {name}={kwargs[name]!r}"
                )
        super().__init__(units, *args, **kwargs)

    def _recurrent_shape(self) -> None:
        return None


class MinGRUEquations(LinearEquations, GatedEquations):
    """The equations of `MinGRUCell`, in the same letters."""

    gates = "zh"

    def coefficients(self, x: Inputs) -> tuple[Tensor, Tensor, Gates]:
        x_z, x_h = x

        z = self.recurrent_activation(x_z)
        h_cand = self.activation(x_h)
        return 1 - z, z * h_cand, {"z": z, "h_cand": h_cand}


@keras.saving.register_keras_serializable(package="keras_gated")
def positive(x: Tensor) -> Tensor:
    """The activation with which a minimal unit stays positive.

    Feng et al. (2024, https://arxiv.org/abs/2410.01201, appendix B) have it where they
    compute logarithms of states.

    Args:
        x: A tensor.

    Returns:
        `x + 0.5` where `x` is at least 0, `σ(x)` elsewhere.

    Example:

    >>> from keras_gated import MinGRUCell
    >>> from keras_gated.cells.min_gru import positive
    >>> cell = MinGRUCell(4, activation=positive)
    """
    return ops.where(x >= 0, x + 0.5, ops.sigmoid(x))


@keras.saving.register_keras_serializable(package="keras_gated")
class MinGRUCell(LinearCell, GatedCell):
    """The minimal gated recurrent unit, whose gate and candidate see the input alone.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)` (Feng et
    al., 2024, https://arxiv.org/abs/2410.01201, section 3.1; biases as in their code):

        z = σ(W_z x + b_z)                       update gate
        h_cand = W_h x + b_h                     candidate
        h = (1 - z) ⊙ h + z ⊙ h_cand

    Since `h` is linear in the state before, `keras_gated.RNN` need not go through the
    steps one after the other, and does not where that is faster (on PyTorch).

    There is no recurrent kernel. `recurrent_initializer` is ignored, and the other
    arguments `recurrent_…` except `recurrent_activation` are errors.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable, such as
            `keras_gated.cells.min_gru.positive`, the one of the paper's appendix.
            Default: `None`, the identity.
        recurrent_activation: The activation of the gate. Default: `"sigmoid"`.
        weight_noise: Standard deviation of the noise added to the kernel
            while training. Default: 0.
        layer_norm: Whether the projected input is normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
        **kwargs: The further arguments of `keras.layers.GRUCell` (but
            `reset_after`), see `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 2 * units)`, columns `W_z | W_h`.
        bias: `(2 * units,)`, `b_z | b_h`, or `None`.

    Raises:
        ValueError: An argument is out of its range, or would act on a recurrent kernel.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import MinGRUCell
    >>> layer = keras.layers.RNN(MinGRUCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    title = "minGRU"
    equations_class = MinGRUEquations

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = None,
        recurrent_activation: str | Callable | None = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, **kwargs)
