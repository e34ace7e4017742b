"""Gradients on whichever backend is in use."""

import math

import keras
import numpy as np
from keras import ops
from oracles import array


def projection(shape):
    """What `gradients` multiplies outputs by, all in a row."""
    return np.random.default_rng(7).normal(size=shape)


def gradients(layer, inputs, training=False, **call_arguments):
    """Of a fixed random projection of all outputs: by weight, and by `inputs[0]`.

    Args:
        layer: A built layer.
        inputs: Arrays; the positional arguments of the call.
        training: As in the call.
        **call_arguments: Further arguments of the call.

    Returns:
        `(value, weight gradients, input gradient)`, as arrays.
    """
    inputs = [ops.convert_to_tensor(x) for x in inputs]
    names = [w.path for w in layer.trainable_variables]

    def project(outputs):
        outputs = keras.tree.flatten(outputs)
        random = np.split(
            projection(sum(math.prod(y.shape) for y in outputs)),
            np.cumsum([math.prod(y.shape) for y in outputs])[:-1],
        )
        return sum(
            ops.sum(
                ops.cast(y, "float64")
                * ops.convert_to_tensor(factors.reshape(y.shape), dtype="float64")
            )
            for y, factors in zip(outputs, random, strict=True)
        )

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        variables = [w.value for w in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs[0])
            value = project(layer(*inputs, training=training, **call_arguments))
        *by_weight, by_input = tape.gradient(value, [*variables, inputs[0]])
    elif keras.config.backend() == "jax":
        import jax

        def run(weights, x):
            outputs, _ = layer.stateless_call(
                weights,
                [w.value for w in layer.non_trainable_variables],
                x,
                *inputs[1:],
                training=training,
                **call_arguments,
            )
            return project(outputs)

        weights = [w.value for w in layer.trainable_variables]
        value, (by_weight, by_input) = jax.value_and_grad(run, (0, 1))(
            weights, inputs[0]
        )
    else:
        layer.zero_grad()
        x = inputs[0].detach().requires_grad_(True)
        value = project(layer(x, *inputs[1:], training=training, **call_arguments))
        value.backward()
        by_weight = [w.value.grad for w in layer.trainable_variables]
        by_input = x.grad
        value = value.detach()
    assert all(g is not None for g in by_weight), names
    return float(value), [array(g) for g in by_weight], array(by_input)


def jacobian(function, x):
    """Of a function of vectors, at an array."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return array(tape.jacobian(y, x))
    if keras.config.backend() == "jax":
        import jax

        return array(jax.jacrev(function)(jax.numpy.asarray(x)))
    import torch

    return array(torch.autograd.functional.jacobian(function, torch.tensor(x)))
