"""The loop over time, with a gradient of its own.

Automatic differentiation would repeat the product with the inputs at every
step and add up the gradient of each weight step by step. Here the loop holds
nothing but the recurrence. Forward it keeps the states and, while training,
the products; backward it carries the gradient from step to step with the small
products alone; the gradient of each weight is one large product, after the loop.

Shapes are time-major: `time` steps of `batch` sequences. A row is a step of a
sequence; there are `time * batch` rows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_gated.cells.base import Product, RecurrentCell, Tensor, Weights


class Arguments(NamedTuple):
    """What a loop takes, and the gradients of it."""

    x: Tensor
    """The projected inputs `W x + b`, `(time, batch, n * units)`."""
    states: list[Tensor]
    """The initial states, each `(batch, units)`."""
    weights: Weights
    """The weights of the recurrence; `W` and `b` play no part."""
    mask: Tensor | None = None
    """Which steps count, boolean, `(time, batch, 1)`; or of which units, with
    `units` in the place of 1."""
    drop: Tensor | None = None
    """The recurrent dropout mask, `(batch, units)`."""


class Kept(NamedTuple):
    """What the way forward keeps for the way back."""

    history: list[Tensor]
    """The states after every step, each `(time, batch, units)`."""
    products: Sequence[Tensor] = ()
    """The recurrent products of every step."""


class Loop:
    """The loop over a cell's steps; how a backend runs it is up to a subclass.

    Args:
        cell: One of the cells of the package.
        truncate: Gradients do not pass from a step whose number is a multiple of
            this to the one before. Default: `None`, they pass everywhere.
    """

    def __init__(self, cell: RecurrentCell, truncate: int | None = None) -> None:
        self.cell = cell
        self.truncate = truncate

    def __call__(
        self, arguments: Arguments, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs the loop, differentiably.

        Args:
            arguments: What the loop takes.
            training: Whether to expect that a gradient will be asked for.

        Returns:
            The outputs of all steps, `(time, batch, units)`, and the states
            after the last. A masked step leaves output and states as they were.
        """
        raise NotImplementedError

    def scan(
        self,
        step: Callable[[list[Tensor], Any], tuple[list[Tensor], Any]],
        carry: list[Tensor],
        inputs: Any,
        reverse: bool = False,
    ) -> tuple[list[Tensor], Any]:
        """Runs `carry, outputs[t] = step(carry, inputs[t])` for all `t`.

        Args:
            step: A pure function.
            carry: What goes into the first step.
            inputs: A structure of tensors `(time, ...)`.
            reverse: Whether to begin with the last `t`.

        Returns:
            What comes out of the last step, and the structure of outputs, each
            `(time, ...)`.
        """
        raise NotImplementedError

    def forward(
        self, arguments: Arguments, keep: bool = True
    ) -> tuple[list[Tensor], Kept]:
        """Walks from the first step to the last.

        Args:
            arguments: What the loop takes.
            keep: Whether to keep what `backward` needs, or the outputs alone.

        Returns:
            The states after the last step, and what is kept.
        """
        x, states, weights, mask, drop = arguments

        def step(states: list, inputs: tuple) -> tuple[list, Kept]:
            x, m = inputs
            product = _Recorded(drop)
            new_states, _ = self.cell.step(x, states, weights, product)
            states = _where(m, new_states, states)
            return states, Kept(states, product.record) if keep else Kept(states[:1])

        # Split before the loop: XLA does not vectorize code that slices inside it.
        return self.scan(step, states, (self._by_gate(x), mask))

    def _by_gate(self, x: Tensor) -> list[Tensor]:
        return ops.split(x, len(self.cell.gates), axis=-1)

    def backward(
        self,
        arguments: Arguments,
        kept: Kept,
        d_outputs: Tensor,
        d_states: list[Tensor],
    ) -> Arguments:
        """The gradients of what the loop takes; where there is none, `None`."""
        x, states, weights, mask, drop = arguments
        steps, batch, _ = ops.shape(x)
        cell = self.cell

        def rows(steps_: Tensor) -> Tensor:
            return ops.reshape(steps_, (steps * batch, steps_.shape[-1]))

        def unrows(rows_: Tensor) -> Tensor:
            return ops.reshape(rows_, (steps, batch, rows_.shape[-1]))

        previous = [
            rows(ops.concatenate([first[None], later[:-1]]))
            for first, later in zip(states, kept.history, strict=True)
        ]
        product = Product(None if drop is None else ops.tile(drop, (steps, 1)))
        replayed = _Replayed(map(rows, kept.products))
        _, gates = cell.step(self._by_gate(rows(x)), previous, weights, replayed)
        partials = cell.partials(previous, gates)
        partials = {letter: unrows(partial) for letter, partial in partials.items()}

        def step(d_states: list, inputs: tuple) -> tuple[list, Tensor]:
            d_output, partials, m, linked = inputs
            d_states = [d_states[0] + d_output, *d_states[1:]]
            # What is masked goes by the step, to the state before.
            d_new, d_past = _parted(m, d_states)
            d_x, d_previous = cell.step_gradient(
                d_new, partials, weights, Product(drop)
            )
            if m is not None:
                d_previous = [d + p for d, p in zip(d_previous, d_past, strict=True)]
            d_previous, _ = _parted(linked, d_previous)
            return d_previous, d_x

        linked = None  # each step to the one before it
        if self.truncate is not None:
            numbers = ops.reshape(ops.arange(steps), (steps, 1, 1))
            linked = numbers % self.truncate != 0
        inputs = (d_outputs, partials, mask, linked)
        d_states, d_x = self.scan(step, d_states, inputs, reverse=True)
        d_weights = cell.weights_gradient(rows(d_x), previous, gates, product)
        d_weights = Weights(**{"W": None, "b": None, "b_U": None, **d_weights})
        return Arguments(d_x, d_states, d_weights)


class _Recorded(Product):
    """Keeps its results."""

    def __init__(self, drop: Tensor | None) -> None:
        super().__init__(drop)
        self.record = []

    def __call__(self, h: Tensor, U: Tensor) -> Tensor:
        self.record.append(super().__call__(h, U))
        return self.record[-1]


class _Replayed(Product):
    """Gives results that were kept, in their order, instead of multiplying."""

    def __init__(self, record: Iterable[Tensor]) -> None:
        super().__init__()
        self.record = iter(record)

    def __call__(self, h: Tensor, U: Tensor) -> Tensor:
        return next(self.record)


def _where(mask: Tensor | None, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    if mask is None:
        return new
    return [ops.where(mask, n, o) for n, o in zip(new, old, strict=True)]


def _parted(
    mask: Tensor | None, gradients: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients where a mask is true, and where not, with zeros elsewhere."""
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
    """The tensors among a loop's arguments, for automatic differentiation.

    Returns:
        Those tensors; what makes arguments with others in their place; and what
        picks the gradients of them, `None` for the masks.
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
