"""The loop on JAX: `lax.scan` inside `jax.custom_vjp`."""

from typing import Any

import jax

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.layers.loop import Arguments, Kept, Loop, of_inputs, swapped


class FastLoop:
    """Runs a loop, which is compiled once per shape, wherever it is called."""

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        loop = Loop(equations, truncate, jax.lax.scan)

        @jax.custom_vjp
        def run(arguments: Arguments) -> tuple[Tensor, States]:
            states, kept = loop.forward(arguments, keep=False)
            return swapped(kept.history[0]), states

        def forward(arguments: Arguments) -> tuple[Any, tuple[Arguments, Kept]]:
            states, kept = loop.forward(arguments, keep=True)
            return (swapped(kept.history[0]), states), (arguments, kept)

        def backward(residuals: tuple[Arguments, Kept], d: Any) -> tuple[Arguments]:
            d_outputs, d_states = d
            gradients = loop.backward(*residuals, d_outputs, d_states)
            d_inputs = of_inputs(gradients.inputs, residuals[0].W)
            return (gradients._replace(inputs=d_inputs),)

        run.defvjp(forward, backward)
        self._run = jax.jit(run)

    def __call__(self, arguments: Arguments, training: bool) -> tuple[Tensor, States]:
        try:
            return self._run(arguments)
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise NotImplementedError(
                "On JAX the fast loop has no derivative in forward mode (jax.jvp and "
                "jax.jacfwd). Construct the layer with use_fast_loop=False to "
                "have one, or take jax.jacrev."
            ) from error
