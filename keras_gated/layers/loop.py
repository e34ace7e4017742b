"""The loop over time, with a gradient of its own.

Automatic differentiation of a loop multiplies with the inputs at every step, and adds
up the gradient of each weight step by step. This loop contains only the recurrence. On
the way forward it keeps the states and, while training, the gates. On the way backward
it carries the gradient from step to step with the small products only. The gradient of
each weight is one large product after the loop. `step_gradients` has the two ways to
the gradient of a step.

Shapes within the loop are time-major: `time` steps of `batch` sequences.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from keras_gated.cells.equations import Gates, Inputs, States, rows, sum_of_rows
from keras_gated.cells.recurrence import (
    Normalization,
    Recurrence,
    Tensor,
    project,
    zoned,
)
from keras_gated.layers.step_gradients import (
    AutomaticGradient,
    OwnGradient,
    over_rows,
)


class Stretch(NamedTuple):
    """Which steps of a sequence a loop has, if it does not have all of them."""

    first: Tensor
    """The number of the first one."""
    steps: Tensor
    """How many there are; others follow that do not count and are not computed."""


class Arguments(NamedTuple):
    """The arguments of a loop, or their gradients."""

    inputs: Tensor
    """`(batch, time, input_dim)`; their gradient: see `Loop.backward`."""
    W: Tensor | None
    """The kernel, `(input_dim, n * units)`; `None` if the inputs are not projected."""
    b: Tensor | None
    """Its bias, `(n * units,)`."""
    norm: Normalization | None
    """Layer normalization of `W x`, before the bias."""
    states: States
    """The initial states, each `(batch, units)`."""
    recurrent: Recurrence
    """The weights of the recurrence, and the recurrent dropout mask."""
    mask: Tensor | None = None
    """Which steps count, boolean, `(batch, time, 1)`, or `(batch, time, units)` for a
    mask of each unit."""
    zone: States | None = None
    """Zoneout: the share of each state that stays as it was, `(batch, time, 1)` or
    `(batch, time, units)`."""
    stretch: Stretch | None = None
    """Which steps these are; `None` if they are the whole sequence."""


class Kept(NamedTuple):
    """What `Loop.forward` keeps for `Loop.backward`, beside its outputs."""

    history: Sequence[Tensor] = ()
    """The other states after every step, each `(time, batch, units)`."""
    gates: Gates = {}  # noqa: RUF012
    """The gates of every step, each `(time, batch, units)`, or its joint products."""
    x: Sequence[Tensor] = ()
    """The projected inputs by gate, each `(time, batch, units)`."""


Keep = Literal["nothing", "states", "inputs", "gates"]
"""What to keep: states; states and projected inputs; or states and gates. Backward
computes again what is missing."""

Scan = Callable[..., tuple[list[Tensor], Any]]
"""`scan(step, carry, inputs, reverse=False)`, as `jax.lax.scan`.

It computes `carry, outputs[t] = step(carry, inputs[t])` for all `t`, in order or with
`reverse` from the last to the first, and returns the last carry and the structure of
outputs. Where there are stretches it takes `steps=`, and computes the first so many."""

FastLoop = Callable[[Arguments, bool, bool], tuple[Tensor, States]]
"""Runs a loop, differentiably; each backend has its own class of this name.

It takes the arguments, whether a gradient is expected to be needed, and whether
backward is to compute the states again instead of keeping them. It returns the
outputs of all steps, `(batch, time, units)`, and the states after the last. A masked
step changes neither output nor states."""


class Passes(NamedTuple):
    """Forward and backward over a loop, as the methods of `Loop`.

    What forward keeps is for backward alone.
    """

    forward: Callable[[Arguments, Keep], tuple[Tensor, States, Any]]
    backward: Callable[[Arguments, Tensor | None, Any, Tensor, States], Arguments]


class Loop:
    """The loop over the steps of a cell, and its gradient, as pure functions.

    Args:
        gradient: Where the gradient of a step comes from.
        truncate: Gradients do not pass from a step whose number is a multiple of
            this to the step before. `None`: they always pass.
        scan: The loop over time of a backend.
    """

    def __init__(
        self,
        gradient: OwnGradient | AutomaticGradient,
        truncate: int | None,
        scan: Scan,
    ) -> None:
        self.gradient = gradient
        self.truncate = truncate
        self.scan = scan

    def forward(
        self, arguments: Arguments, keep: Keep = "gates"
    ) -> tuple[Tensor, States, Kept]:
        """Computes all steps.

        Returns:
            The outputs of all steps, `(batch, time, units)`, the states after the last,
            and what was kept.
        """
        recurrent = arguments.recurrent

        def step(states: States, inputs: tuple) -> tuple[States, tuple]:
            x, zone, m = inputs
            new_states, gates = self.gradient.step(x, states, recurrent)
            if zone is not None:
                new_states = zoned(zone, states, new_states)
            states = _where(m, new_states, states)
            to_keep = states[:1] if keep == "nothing" else states
            return states, (to_keep, gates if keep == "gates" else {})

        x = self._projected(arguments)
        inputs = x, _swapped_all(arguments.zone), swapped(arguments.mask)
        states, kept = self._scan(arguments, step, arguments.states, inputs)
        (outputs, *others), gates = kept
        keep_x = keep == "inputs" or (keep == "gates" and self.gradient.needs_inputs)
        return swapped(outputs), states, Kept(others, gates, x if keep_x else ())

    def backward(
        self,
        arguments: Arguments,
        outputs: Tensor | None,
        kept: Kept,
        d_outputs: Tensor,
        d_states: list[Tensor],
    ) -> Arguments:
        """The gradients of the arguments; `None` where there is none.

        In the place of the gradient of the inputs is that of what they are multiplied
        to, `(time, batch, n * units)`. Whoever needs more calls `of_inputs`.

        Args:
            arguments: The arguments of the loop.
            outputs: Those of all steps; `None` if nothing was kept.
            kept: What else was kept.
            d_outputs: The gradient of the outputs.
            d_states: The gradients of the last states.
        """
        inputs, W, b, norm, states, recurrent, mask, zone, stretch = arguments
        if outputs is None:
            outputs, _, kept = self.forward(arguments)
        _, steps, _ = ops.shape(d_outputs)
        gradient = self.gradient
        history = [swapped(outputs), *kept.history]
        previous = [
            ops.concatenate([first[None], later[:-1]])
            for first, later in zip(states, history, strict=True)
        ]
        x = kept.x
        if not (x or (kept.gates and not gradient.needs_inputs)):
            x = self._projected(arguments)
        gates = kept.gates or self._gates(recurrent, previous, x)
        for_backward = recurrent.for_backward()

        def step(d_states: States, inputs: tuple) -> tuple[States, Any]:
            d_output, known, zone, m, linked = inputs
            d_states = [d_states[0] + d_output, *d_states[1:]]
            # The gradient of a masked step passes it by, to the state before.
            d_new, d_past = _parted(m, d_states)
            d_kept = []
            if zone is not None:
                d_kept = [z * d for z, d in zip(zone, d_new, strict=True)]
                d_new = [(1 - z) * d for z, d in zip(zone, d_new, strict=True)]
            d_previous, of_step = gradient.backward(d_new, known, for_backward)
            for passed in filter(None, (d_kept, d_past)):
                d_previous = [d + p for d, p in zip(d_previous, passed, strict=True)]
            d_previous, _ = _parted(linked, d_previous)
            return d_previous, of_step

        linked = None  # whether gradients pass from a step to the one before
        if self.truncate is not None:
            first = 0 if stretch is None else stretch.first
            numbers = ops.reshape(first + ops.arange(steps), (steps, 1, 1))
            linked = (numbers % self.truncate != 0) | (numbers == 0)
        known = gradient.of_steps(previous, gates, x)
        of_steps = swapped(d_outputs), known, _swapped_all(zone), swapped(mask), linked
        d_states, of_steps = self._scan(
            arguments, step, d_states, of_steps, reverse=True
        )

        found = gradient.weights(of_steps, previous, gates, x, recurrent)
        d_rows, d_x, d_norm = rows(found.x), found.x, None
        d_b = None if b is None else sum_of_rows(d_rows)
        if norm is not None:
            Wx = rows(swapped(inputs)) @ W
            d_rows, d_gain = norm.gradient(Wx, d_rows)
            d_x = ops.reshape(d_rows, ops.shape(d_x))
            no_gradient = ops.zeros_like(norm.epsilon)
            d_norm = Normalization(sum_of_rows(d_gain), None, no_gradient)
        d_U = {
            gates: ops.transpose(found.multiplied[gates]) @ found.u[gates]
            for gates in recurrent.U
        }
        d_b_U = None
        if recurrent.b_U is not None:
            d_b_U = {gates: sum_of_rows(found.u[gates]) for gates in recurrent.b_U}
        return Arguments(
            d_x,
            None if W is None else ops.transpose(rows(swapped(inputs))) @ d_rows,
            d_b,
            d_norm,
            d_states,
            Recurrence(d_U, d_b_U, found.V, found.norms),
        )

    def _scan(self, arguments: Arguments, *of_scan: Any, **options: Any) -> tuple:
        if arguments.stretch is not None:
            options["steps"] = arguments.stretch.steps
        return self.scan(*of_scan, **options)

    def _projected(self, arguments: Arguments) -> list[Tensor]:
        """`W x + b` by gate, each `(time, batch, units)`."""
        x = by_rows(lambda rows: projected(rows, arguments), swapped(arguments.inputs))
        # Split before the loop: XLA does not vectorize a loop that slices.
        return ops.split(x, len(self.gradient.equations.gates), axis=-1)

    def _gates(self, recurrent: Recurrence, previous: States, x: Inputs) -> Gates:
        """What `step` knows of all steps at once, from the states before each."""
        time, batch, _ = ops.shape(previous[0])
        arguments = [rows(of_gate) for of_gate in x], [rows(h) for h in previous]
        _, gates = self.gradient.step(*arguments, over_rows(recurrent, time))
        return {
            letter: ops.reshape(gate, (time, batch, gate.shape[-1]))
            for letter, gate in gates.items()
        }


def projected(inputs: Tensor, arguments: Arguments) -> Tensor:
    """`W x + b` of inputs `(…, input_dim)`, or the inputs as they are."""
    if arguments.W is None:
        return inputs
    return project(inputs, arguments.W, arguments.b, arguments.norm)


def of_inputs(d_x: Tensor, W: Tensor | None) -> Tensor:
    """The gradient of the inputs, `(batch, time, input_dim)`."""
    if W is None:
        return swapped(d_x)
    return swapped(by_rows(lambda rows: rows @ ops.transpose(W), d_x))


def swapped(tensor: Tensor | None) -> Tensor | None:
    """With `time` and `batch` in the place of each other."""
    return None if tensor is None else ops.transpose(tensor, (1, 0, 2))


def _swapped_all(tensors: States | None) -> States | None:
    return None if tensors is None else [swapped(tensor) for tensor in tensors]


def by_rows(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """A function of `(rows, …)` for all steps of all sequences."""
    first, second, _ = ops.shape(tensor)
    result = function(rows(tensor))
    return ops.reshape(result, (first, second, result.shape[-1]))


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
        # What has no gradient comes last: masks, by product or state, for one `None`.
        flat += [None] * len(leaves)
        return [flat[i] for i in where]

    return [leaves[i] for i in where], pack, pick
