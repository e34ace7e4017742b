"""The loop on JAX: `lax.scan` inside `jax.custom_vjp`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.layers.loop import Arguments, Kept, Loop, of_inputs
from keras_gated.layers.step_gradients import gradient_of


class FastLoop:
    """Runs a loop, which is compiled once per shape, wherever it is called."""

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        gradient = gradient_of(equations, vjp, _known)
        loop = Loop(gradient, truncate, jax.lax.scan)

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


eagerly = jax.ensure_compile_time_eval
compiled = jax.jit


def vjp(
    function: Callable, arguments: list[Tensor], d: list[Tensor]
) -> tuple[list[Tensor], Any]:
    """`step_gradients.VJP`."""
    _, pullback, more = jax.vjp(function, *arguments, has_aux=True)
    return list(pullback(d)), more


def _known(h: Tensor, u: Tensor, pullback: Callable) -> Tensor:
    @jax.custom_vjp
    def product(h: Tensor, u: Tensor) -> Tensor:
        return u

    product.defvjp(lambda h, u: (u, None), lambda _, d: (pullback(d), d))
    return product(h, u)
