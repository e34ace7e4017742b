"""Derivatives of activations as functions of their values.

The gradient of a step knows the values of the gates, not their pre-activations.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_DERIVATIVES = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
    "relu": lambda y: ops.cast(y > 0, y.dtype),
    "hard_sigmoid": lambda y: ops.cast((y > 0) & (y < 1), y.dtype) / 6,
    "linear": ops.ones_like,
}


def _natives() -> dict[Callable, str]:
    """The backend's own tanh and sigmoid, which compute in float64 if asked to."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return {jax.numpy.tanh: "tanh", jax.nn.tanh: "tanh", jax.nn.sigmoid: "sigmoid"}
    if backend == "torch":
        import torch

        return {torch.tanh: "tanh", torch.sigmoid: "sigmoid"}
    return {}


_NAMES = {getattr(keras.activations, name): name for name in _DERIVATIVES}
_NAMES |= {getattr(ops, name): name for name in _DERIVATIVES if hasattr(ops, name)}
_NAMES |= _natives()


def derivative(activation: Callable) -> Callable[[Any], Any] | None:
    """The derivative of an activation as a function of the activation's value.

    Args:
        activation: An activation of Keras, or tanh or sigmoid of the backend.

    Returns:
        `y -> 1 - y²` for tanh, for example; `None` if the derivative is not known.
    """
    return _DERIVATIVES.get(_NAMES.get(activation))
