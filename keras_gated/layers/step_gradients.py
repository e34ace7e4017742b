"""Where the loop has the gradient of a step from."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_gated.cells.equations import (
    Equations,
    Gates,
    Inputs,
    States,
    rows,
)
from keras_gated.cells.recurrence import (
    KnownRecurrence,
    Normalization,
    NotedRecurrence,
    Recurrence,
    Tensor,
    beside,
)

VJP = Callable[[Callable, list[Tensor], list[Tensor]], tuple[list[Tensor], Any]]
"""`vjp(function, arguments, d)`: the gradients of the arguments, by the automatic
differentiation of a backend, and what else the function returns.

`function(*arguments)` returns a list of tensors, whose gradients are `d`, and
anything."""


class Weights(NamedTuple):
    """The gradient of the projected inputs, and factors of those of weights."""

    x: Tensor
    """That of the projected inputs, `(time, batch, n * units)`."""
    u: dict[str, Tensor]
    """That of each product, `(rows, n * units)`."""
    multiplied: dict[str, Tensor]
    """What each product multiplies, `(rows, units)`."""
    V: tuple[Tensor, ...] | None
    """Those of the further weights of the step."""
    norms: dict[str, Normalization] | None = None
    """Those of the layer normalizations."""


class OwnGradient:
    """That which equations bring: `partials`, `step_vjp` and what goes with them.

    Args:
        equations: Those of the cell.
        ahead: Whether the partial derivatives of all steps are computed before the
            loop backward.
    """

    needs_inputs = False

    def __init__(self, equations: Equations, ahead: bool) -> None:
        self.equations, self.ahead = equations, ahead

    def step(
        self, x: Inputs, states: States, recurrent: Recurrence
    ) -> tuple[States, Gates]:
        """A step, and what it has to know on the way backward."""
        return self.equations.step(x, states, recurrent)

    def of_steps(self, previous: States, gates: Gates, x: Inputs) -> Any:
        """What `backward` knows of each step, for all steps."""
        known = previous, gates
        return self.equations.partials(*known) if self.ahead else known

    def backward(
        self, d_new: States, known: Any, recurrent: Recurrence
    ) -> tuple[States, Tensor]:
        """The gradients of the previous states, and what `weights` takes of a step."""
        partials = known if self.ahead else self.equations.partials(*known)
        d_x, d_previous = self.equations.step_vjp(d_new, partials, recurrent)
        return d_previous, beside(d_x)

    def weights(
        self,
        d_x: Tensor,
        previous: States,
        gates: Gates,
        x: Inputs,
        recurrent: Recurrence,
    ) -> Weights:
        """The gradients after the loop."""
        equations, known = self.equations, (previous, gates)
        multiplied = equations.multiplied(*known)
        d_V = None
        if recurrent.V is not None:
            d_V = equations.further_gradient(d_x, *known)
        return Weights(
            d_x,
            equations.by_product(rows(equations.products_gradient(d_x, gates))),
            {
                gates: rows(recurrent.dropped(gates, h))
                for gates, h in multiplied.items()
            },
            d_V,
        )


class AutomaticGradient:
    """That of a `step` by automatic differentiation.

    The products of a step are kept, and not computed again. In the loop is only the
    gradient of the states. What else has a gradient has it for all steps at once, from
    the gradients of the new states at each step.

    Args:
        equations: Those of the cell.
        vjp: The automatic differentiation of a backend.
        known: `known(h, u, pullback)` is `u`, a product with `h`; the gradient of `h`
            is `pullback` of that of `u`.
    """

    needs_inputs = True

    def __init__(self, equations: Equations, vjp: VJP, known: Callable) -> None:
        self.equations, self.vjp, self.known = equations, vjp, known

    def step(
        self, x: Inputs, states: States, recurrent: Recurrence
    ) -> tuple[States, dict[str, Tensor]]:
        """A step, and its products."""
        noted = NotedRecurrence(recurrent)
        states, _ = self.equations.checked_step(x, states, noted)
        return states, noted.noted

    def of_steps(
        self, previous: States, products: dict[str, Tensor], x: Inputs
    ) -> tuple:
        """What `backward` knows of each step, for all steps."""
        return previous, products, x

    def backward(
        self, d_new: States, known: tuple, recurrent: Recurrence
    ) -> tuple[States, States]:
        """The gradients of the previous states, and what `weights` takes of a step."""
        previous, products, x = known

        def step(*states: Tensor) -> tuple[States, None]:
            more = recurrent.V, recurrent.norms
            multiplies = KnownRecurrence(recurrent, products, *more, self.known)
            new_states, _ = self.equations.checked_step(x, list(states), multiplies)
            return new_states, None

        d_previous, _ = self.vjp(step, previous, d_new)
        return d_previous, d_new

    def weights(
        self,
        d_new: States,
        previous: States,
        products: dict[str, Tensor],
        x: Inputs,
        recurrent: Recurrence,
    ) -> Weights:
        """The gradients after the loop."""
        time, batch, _ = ops.shape(x[0])
        names, n = list(products), len(x)
        end = n + len(names)
        leaves = [rows(tensor) for tensor in [*x, *products.values()]]
        further = recurrent.V, recurrent.norms
        leaves += [leaf for leaf in keras.tree.flatten(further) if leaf is not None]
        recurrent = over_rows(recurrent, time).for_backward()
        previous = [rows(h) for h in previous]

        def of_names(flat: Sequence[Tensor]) -> tuple[dict[str, Tensor], Any, Any]:
            """The products by name, and the further weights."""
            left = iter(flat[end:])
            return (
                dict(zip(names, flat[n:end], strict=True)),
                *keras.tree.map_structure(
                    lambda leaf: None if leaf is None else next(left), further
                ),
            )

        def step(*flat: Tensor) -> tuple[States, dict]:
            multiplies = KnownRecurrence(recurrent, *of_names(flat), self.known)
            x = list(flat[:n])
            states, _ = self.equations.checked_step(x, previous, multiplies)
            return states, multiplies.multiplied

        found, multiplied = self.vjp(step, leaves, [rows(d) for d in d_new])
        d_x = beside(found[:n])
        d_x = ops.reshape(d_x, (time, batch, d_x.shape[-1]))
        d_u, *d_further = of_names(found)
        return Weights(d_x, d_u, multiplied, *d_further)


def over_rows(recurrent: Recurrence, time: int | Tensor) -> Recurrence:
    """For all steps at once, and without what is made for one step."""
    drop = recurrent.drop and {
        gates: ops.tile(mask, (time, 1)) for gates, mask in recurrent.drop.items()
    }
    return Recurrence(*recurrent)._replace(drop=drop)


def gradient_of(
    equations: Equations, vjp: VJP, known: Callable
) -> OwnGradient | AutomaticGradient:
    """The gradient that equations bring, or else the automatic one."""
    if equations.lacks() is None:
        return OwnGradient(equations, ahead=False)
    return AutomaticGradient(equations, vjp, known)
