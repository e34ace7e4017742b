"""Recurrences that are linear in their state, on PyTorch.

The coefficients of all steps are computed at once, and what is left of a step is
`h = a ⊙ h + b`. Of few numbers even that is a matter of calls. So a sequence of T steps
goes in blocks of √T, all at the same time: first from zeros, which says what each block
makes of any state, for it is linear, too; then from block to block; then through each
block from its own first state. TensorFlow and JAX, which make no calls within a loop,
would gain nothing (measured).
"""

from collections.abc import Sequence
from typing import Any

import torch

from keras_gated.cells.equations import LinearEquations, States, Tensor
from keras_gated.layers.loop import Arguments, projected, swapped

SMALL = 2048
"""Numbers in a state up to which blocks gain on a CPU, measured: at 2,000 steps of 64,
256, 1,024 and 4,096 they take 0.2, 0.5, 0.9 and 1.3 times as long."""
FEW = 16
"""Steps that are not worth blocks."""


def run(equations: LinearEquations, arguments: Arguments) -> tuple[Tensor, States]:
    """The outputs of all steps, and the last states."""
    x, (first,) = projected(swapped(arguments.inputs), arguments), arguments.states
    a, b, _ = equations.coefficients(list(x.chunk(len(equations.gates), dim=-1)))
    if arguments.zone is not None:
        (z,) = map(swapped, arguments.zone)
        a, b = z + (1 - z) * a, (1 - z) * b
    if arguments.mask is not None:
        m = swapped(arguments.mask)
        a, b = torch.where(m, a, 1.0), torch.where(m, b, 0.0)
    h = _Recurrence.apply(a, b, first)
    return swapped(h), [h[-1]]


def recurrence(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """`h[t] = a[t] * h[t - 1] + b[t]` at all steps, `(time, batch, units)`.

    Args:
        a: `(time, batch, units)`.
        b: `(time, batch, units)`.
        first: The state before the first step, `(batch, units)`.
    """
    steps = len(a)
    if steps < FEW or (first.numel() > SMALL and not first.is_cuda):
        h = _in_order(a.unbind(), b.unbind(), first)
        return torch.stack(h) if h else b
    size = round(steps**0.5)
    n = steps // size
    whole = n * size
    a_, b_ = (x[:whole].unflatten(0, (n, size)).unbind(1) for x in (a, b))
    factor, end = a_[0], b_[0]
    for a_t, b_t in zip(a_[1:], b_[1:], strict=True):
        factor, end = a_t * factor, torch.addcmul(b_t, a_t, end)
    between = _in_order(factor.unbind()[:-1], end.unbind()[:-1], first)
    h = _in_order(a_, b_, torch.stack([first, *between]))
    h = torch.stack(h, dim=1).flatten(0, 1)
    rest = _in_order(a[whole:].unbind(), b[whole:].unbind(), h[-1])
    return torch.cat([h, torch.stack(rest)]) if rest else h


def _in_order(a: Sequence[Tensor], b: Sequence[Tensor], h: Tensor) -> list[Tensor]:
    states = []
    for a_t, b_t in zip(a, b, strict=True):
        h = torch.addcmul(b_t, a_t, h)
        states.append(h)
    return states


class _Recurrence(torch.autograd.Function):
    """`recurrence`. Its gradient is one, from the last step to the first."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        return recurrence(a, b, first)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        a, _, first = inputs
        ctx.save_for_backward(a, first, output)
        ctx.save_for_forward(a, first, output)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, ...]:
        a, first, h = ctx.saved_tensors
        d_h = recurrence(a[1:].flip(0), d[:-1].flip(0), d[-1]).flip(0)
        d_h = torch.cat([d_h, d[-1:]])
        return d_h * _previous(first, h), d_h, d_h[0] * a[0]

    @staticmethod
    def jvp(ctx: Any, t_a: Tensor, t_b: Tensor, t_first: Tensor) -> Tensor:
        a, first, h = ctx.saved_tensors
        return recurrence(a, t_a * _previous(first, h) + t_b, t_first)


def _previous(first: Tensor, h: Tensor) -> Tensor:
    return torch.cat([first[None], h[:-1]])
