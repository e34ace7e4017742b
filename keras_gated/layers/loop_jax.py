"""The loop on JAX: `lax.scan` inside `jax.custom_vjp`."""

from functools import partial
from typing import Any

import jax

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.layers.loop import Arguments, Kept, Loop, of_inputs


class FastLoop:
    """Runs a loop, which is compiled once per shape, wherever it is called."""

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        loop = Loop(equations, truncate, jax.lax.scan)

        @partial(jax.custom_vjp, nondiff_argnums=(1,))
        def run(arguments: Arguments, recompute: bool) -> tuple[Tensor, States]:
            outputs, states, _ = loop.forward(arguments, "nothing")
            return outputs, states

        def forward(arguments: Arguments, recompute: bool) -> tuple[Any, tuple]:
            if recompute:
                return run(arguments, recompute), (arguments, None, Kept())
            outputs, states, kept = loop.forward(arguments)
            return (outputs, states), (arguments, outputs, kept)

        def backward(recompute: bool, residuals: tuple, d: Any) -> tuple[Arguments]:
            d_outputs, d_states = d
            gradients = loop.backward(*residuals, d_outputs, d_states)
            d_inputs = of_inputs(gradients.inputs, residuals[0].W)
            return (gradients._replace(inputs=d_inputs),)

        run.defvjp(forward, backward)
        self._run = jax.jit(run, static_argnums=1)

    def __call__(
        self, arguments: Arguments, training: bool, recompute: bool
    ) -> tuple[Tensor, States]:
        try:
            return self._run(arguments, recompute)
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise NotImplementedError(
                "On JAX the fast loop has no derivative in forward mode (jax.jvp and "
                "jax.jacfwd). Construct the layer with use_fast_loop=False to "
                "have one, or take jax.jacrev."
            ) from error
