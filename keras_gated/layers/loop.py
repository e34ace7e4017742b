"""The loop over time, with a gradient of its own.

Automatic differentiation of a loop multiplies with the inputs at every step, and adds
up the gradient of each weight step by step. This loop contains only the recurrence. On
the way forward it keeps the states and, while training, the recurrent products. On the
way backward it carries the gradient from step to step with the small products only.
The gradient of each weight is one large product after the loop.

Shapes are time-major: `time` steps of `batch` sequences. A row is a step of a
sequence; there are `time * batch` rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_gated.cells.equations import Equations, Recurrence, States, Tensor


class Arguments(NamedTuple):
    """The arguments of a loop, or their gradients."""

    x: Tensor
    """The projected inputs `W x + b`, `(time, batch, n * units)`."""
    states: States
    """The initial states, each `(batch, units)`."""
    recurrent: Recurrence
    """The weights of the recurrence, and the recurrent dropout mask."""
    mask: Tensor | None = None
    """Which steps count, boolean, `(time, batch, 1)`, or `(time, batch, units)` for a
    mask of each unit."""


class Kept(NamedTuple):
    """What `Loop.forward` keeps for `Loop.backward`."""

    history: list[Tensor]
    """The states after every step, each `(time, batch, units)`."""
    products: Sequence[Tensor] = ()
    """The joint products of every step in the order of `Equations.products`, each
    `(time, batch, n * units)`."""


Scan = Callable[..., tuple[list[Tensor], Any]]
"""`scan(step, carry, inputs, reverse=False)`, as `jax.lax.scan`.

It computes `carry, outputs[t] = step(carry, inputs[t])` for all `t`, in order or with
`reverse` from the last to the first, and returns the last carry and the structure of
outputs."""

FastLoop = Callable[[Arguments, bool], tuple[Tensor, States]]
"""Runs a loop, differentiably; each backend has its own class of this name.

It takes the arguments, and whether a gradient is expected to be needed. It returns the
outputs of all steps, `(time, batch, units)`, and the states after the last. A masked
step changes neither output nor states."""


class Loop:
    """The loop over the steps of a cell, and its gradient, as pure functions.

    Args:
        equations: Those of the cell.
        truncate: Gradients do not pass from a step whose number is a multiple of
            this to the step before. `None`: they always pass.
        scan: The loop over time of a backend.
    """

    def __init__(self, equations: Equations, truncate: int | None, scan: Scan) -> None:
        self.equations = equations
        self.truncate = truncate
        self.scan = scan

    def forward(self, arguments: Arguments, keep: bool = True) -> tuple[States, Kept]:
        """Computes all steps.

        Args:
            arguments: The arguments of the loop.
            keep: Whether to keep what `backward` needs, or only the outputs.

        Returns:
            The states after the last step, and what was kept.
        """
        x, states, recurrent, mask = arguments
        equations = self.equations

        def step(states: States, inputs: tuple) -> tuple[States, Kept]:
            x, m = inputs
            recorded = _Recorded(recurrent)
            new_states, _ = equations.step(x, states, recorded)
            states = _where(m, new_states, states)
            if not keep:
                return states, Kept(states[:1])
            return states, Kept(states, [recorded.u[g] for g in equations.products])

        # Split before the loop: XLA does not vectorize a loop that slices.
        return self.scan(step, states, (self._by_gate(x), mask))

    def _by_gate(self, x: Tensor) -> list[Tensor]:
        return ops.split(x, len(self.equations.gates), axis=-1)

    def backward(
        self,
        arguments: Arguments,
        kept: Kept,
        d_outputs: Tensor,
        d_states: list[Tensor],
    ) -> Arguments:
        """The gradients of the arguments; `None` where there is none."""
        x, states, recurrent, mask = arguments
        steps, batch, _ = ops.shape(x)
        equations = self.equations

        def rows(steps_: Tensor) -> Tensor:
            return ops.reshape(steps_, (steps * batch, steps_.shape[-1]))

        def unrows(rows_: Tensor) -> Tensor:
            return ops.reshape(rows_, (steps, batch, rows_.shape[-1]))

        previous = [
            rows(ops.concatenate([first[None], later[:-1]]))
            for first, later in zip(states, kept.history, strict=True)
        ]
        drop = None if recurrent.drop is None else ops.tile(recurrent.drop, (steps, 1))
        u = dict(zip(equations.products, map(rows, kept.products), strict=True))
        replayed = _Replayed(recurrent._replace(drop=drop), u)
        _, gates = equations.step(self._by_gate(rows(x)), previous, replayed)
        partials = equations.partials(previous, gates)
        partials = {name: unrows(partial) for name, partial in partials.items()}

        def step(d_states: States, inputs: tuple) -> tuple[States, Tensor]:
            d_output, partials, m, linked = inputs
            d_states = [d_states[0] + d_output, *d_states[1:]]
            # The gradient of a masked step passes it by, to the state before.
            d_new, d_past = _parted(m, d_states)
            d_x, d_previous = equations.step_vjp(d_new, partials, recurrent)
            if m is not None:
                d_previous = [d + p for d, p in zip(d_previous, d_past, strict=True)]
            d_previous, _ = _parted(linked, d_previous)
            return d_previous, d_x

        linked = None  # whether gradients pass from a step to the one before
        if self.truncate is not None:
            numbers = ops.reshape(ops.arange(steps), (steps, 1, 1))
            linked = numbers % self.truncate != 0
        inputs = (d_outputs, partials, mask, linked)
        d_states, d_x = self.scan(step, d_states, inputs, reverse=True)
        d_rows = rows(d_x)
        d_u = equations.products_gradient(d_rows, gates)
        d_recurrent = replayed.gradient(equations.by_product(d_u))
        if recurrent.V is not None:
            d_V = equations.peepholes_gradient(d_rows, previous, gates)
            d_recurrent = d_recurrent._replace(V=d_V)
        return Arguments(d_x, d_states, d_recurrent)


class _Recorded(Recurrence):
    """Records its joint products in `u`."""

    def __new__(cls, recurrent: Recurrence) -> "_Recorded":
        recorded = super().__new__(cls, *recurrent)
        recorded.u = {}
        return recorded

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        self.u[gates] = super().joint_product(gates, h)
        return self.u[gates]


class _Replayed(Recurrence):
    """Returns the recorded joint products of all rows instead of multiplying."""

    def __new__(cls, recurrent: Recurrence, u: dict[str, Tensor]) -> "_Replayed":
        replayed = super().__new__(cls, *recurrent)
        replayed.u, replayed.h = u, {}
        return replayed

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        self.h[gates] = h
        return self.u[gates]

    def gradient(self, d_u: dict[str, Tensor]) -> Recurrence:
        """The gradients of `U` and `b_U` from those of the joint products."""
        d_U = {
            gates: ops.transpose(self.dropped(self.h[gates])) @ d
            for gates, d in d_u.items()
        }
        d_b_U = None
        if self.b_U is not None:
            d_b_U = {gates: ops.sum(d, axis=0) for gates, d in d_u.items()}
        return Recurrence(d_U, d_b_U)


def _where(mask: Tensor | None, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    if mask is None:
        return new
    return [ops.where(mask, n, o) for n, o in zip(new, old, strict=True)]


def _parted(
    mask: Tensor | None, gradients: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients where a mask is true, and those where it is false."""
    if mask is None:
        return gradients, []
    zeros = [ops.zeros_like(gradient) for gradient in gradients]
    return _where(mask, gradients, zeros), _where(mask, zeros, gradients)


def split(
    arguments: Arguments,
) -> tuple[
    list[Tensor],
    Callable[[Sequence[Tensor]], Arguments],
    Callable[[Arguments], list[Tensor]],
]:
    """Splits the tensors off a loop's arguments, for automatic differentiation.

    Returns:
        The tensors; a function that makes arguments with other tensors in their place;
        and a function that picks the gradients of the tensors, `None` for masks.
    """
    leaves = keras.tree.flatten(arguments)
    where = [i for i, leaf in enumerate(leaves) if ops.is_tensor(leaf)]

    def pack(tensors: Sequence[Tensor]) -> Arguments:
        packed = list(leaves)
        for i, tensor in zip(where, tensors, strict=True):
            packed[i] = tensor
        return keras.tree.pack_sequence_as(arguments, packed)

    def pick(gradients: Arguments) -> list[Tensor]:
        flat = keras.tree.flatten(gradients)
        return [flat[i] for i in where]

    return [leaves[i] for i in where], pack, pick
