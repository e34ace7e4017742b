"""The loop on PyTorch: a loop of Python inside a `torch.autograd.Function`."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import keras
import torch
from keras import tree
from torch.utils.checkpoint import checkpoint

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import Equations, LinearEquations, States, Tensor
from keras_gated.layers import loop_kernels, loop_linear
from keras_gated.layers.loop import Arguments, Kept, Loop, of_inputs, split
from keras_gated.layers.step_gradients import OwnGradient


def scan(
    step: Callable[[list[Tensor], Any], tuple[list[Tensor], Any]],
    carry: list[Tensor],
    inputs: Any,
    reverse: bool = False,
) -> tuple[list[Tensor], Any]:
    """`Scan` by a loop of Python."""
    outputs = []
    for now in _by_step(inputs, reverse):
        carry, of_step = step(carry, now)
        outputs.append(of_step)
    return carry, _stacked(outputs[::-1] if reverse else outputs)


def _by_step(structure: Any, reverse: bool) -> Iterable[Any]:
    """The structure at each step; `keras.tree` would take longer than the step."""
    if torch.is_tensor(structure):
        steps = structure.unbind()
        return reversed(steps) if reverse else steps
    if not structure:
        return itertools.repeat(structure)
    if isinstance(structure, dict):
        of_keys = _by_step(list(structure.values()), reverse)
        return (dict(zip(structure, values, strict=True)) for values in of_keys)
    # Not strict: there is no end to what is repeated.
    return zip(*(_by_step(part, reverse) for part in structure), strict=False)


def _stacked(of_steps: list[Any]) -> Any:
    """The opposite of `_by_step`."""
    first = of_steps[0]
    if torch.is_tensor(first):
        return torch.stack(of_steps)
    if isinstance(first, dict):
        return {key: _stacked([part[key] for part in of_steps]) for key in first}
    return [_stacked(list(parts)) for parts in zip(*of_steps, strict=True)]


eagerly = partial(keras.device, "cpu")  # models are built on one without numbers
compiled = None  # nothing is


class FastLoop:
    """Runs a kernel of PyTorch where there is one, a linear recurrence, or a loop.

    Within the loop no graph is recorded, which saves time.
    """

    def __init__(self, equations: Equations, truncate: int | None = None) -> None:
        self._loop = Loop(OwnGradient(equations, ahead=True), truncate, scan)
        self._automatic = equations.lacks() is not None
        self._kernel = loop_kernels.find(equations) if truncate is None else None
        linear = type(equations).step is LinearEquations.step
        self._linear = equations if linear and truncate is None else None

    def about(self, cell: RecurrentCell) -> str:
        """What runs for a cell of these equations."""
        if self._linear is not None:
            return ", and all steps are computed as one linear recurrence"
        if self._kernel is None or getattr(cell, "peephole", False):
            return ", for which PyTorch has no kernel"
        return (
            f", and PyTorch's kernel {self._kernel.name} runs where there is no mask "
            "and no recurrent dropout"
        )

    def __call__(
        self, arguments: Arguments, training: bool, recompute: bool
    ) -> tuple[Tensor, States]:
        # A stateful layer overwrites its states, which are kept here.
        states = [state.clone() for state in arguments.states]
        arguments = arguments._replace(states=states)
        tensors, pack, pick = split(arguments)
        keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        kernel = self._kernel
        if kernel is not None and loop_kernels.applies(arguments):
            if not keep:
                return kernel(pack(tensors))
            run = partial(loop_kernels.Run.apply, kernel, self._loop, pack)
            *last, outputs = run(recompute, *tensors)
            return outputs, last
        if self._linear is not None and not (recompute or torch.jit.is_tracing()):
            return loop_linear.run(self._linear, pack(tensors))
        if self._automatic:
            return self._recorded(arguments, recompute)
        if torch.jit.is_tracing() or not (keep or self._loop.truncate):
            # Plain operations work under every transformation.
            outputs, states, _ = self._loop.forward(pack(tensors), "nothing")
            return outputs, states
        keep = keep and not recompute
        results = _Run.apply(_Call(self._loop, pack, pick, len(states), keep), *tensors)
        return results[len(states)], list(results[: len(states)])

    def _recorded(self, arguments: Arguments, recompute: bool) -> tuple[Tensor, States]:
        """A loop that PyTorch records, and differentiates by itself."""

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            outputs, states, _ = self._loop.forward(pack(tensors), "nothing")
            return outputs, *states

        parts, states = [], arguments.states
        size = self._loop.truncate or arguments.inputs.shape[1] or 1
        for first in range(0, max(1, arguments.inputs.shape[1]), size):
            steps = slice(first, first + size)
            if self._loop.truncate and first:
                states = [state.detach() for state in states]
            mask, zone = arguments.mask, arguments.zone
            part = arguments._replace(
                inputs=arguments.inputs[:, steps],
                states=states,
                mask=None if mask is None else mask[:, steps],
                zone=zone and [of_state[:, steps] for of_state in zone],
            )
            tensors, pack, _ = split(part)
            if recompute and torch.is_grad_enabled():
                results = checkpoint(run, *tensors, use_reentrant=False)
            else:
                results = run(*tensors)
            outputs, *states = results
            parts.append(outputs)
        return torch.cat(parts, dim=1), states


class _Call:
    """A call of the loop as functions of tensors alone."""

    def __init__(
        self, loop: Loop, pack: Callable, pick: Callable, states: int, keep: bool
    ) -> None:
        self.loop, self.pack, self.pick = loop, pack, pick
        self.states, self.keep = states, keep

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The last states, the outputs, and what else was kept."""
        keep = "gates" if self.keep else "nothing"
        outputs, states, kept = self.loop.forward(self.pack(tensors), keep)
        self.structure = tree.map_structure(lambda _: 0, kept)
        return *states, outputs, *(tree.flatten(kept) if self.keep else ())

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        d: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """The gradients of the tensors from those of the last states and outputs."""
        arguments = self.pack(tensors)
        if torch.is_grad_enabled() or not self.keep:
            known = None, Kept()  # a second gradient follows, or nothing was kept
        else:
            known = kept[0], tree.pack_sequence_as(self.structure, kept[1:])
        *d_states, d_outputs = (
            zero if gradient is None else gradient
            for gradient, zero in zip(d, self.zeros(tensors, kept), strict=True)
        )
        gradients = self.loop.backward(arguments, *known, d_outputs, d_states)
        d_inputs = of_inputs(gradients.inputs, arguments.W)
        return self.pick(gradients._replace(inputs=d_inputs))

    def zeros(self, tensors: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
        """Zeros of the shapes of the last states and the outputs."""
        return [torch.zeros_like(t) for t in (*self.pack(tensors).states, kept[0])]


class _Run(torch.autograd.Function):
    """In the form that `torch.func` requires: what is kept is part of the results."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return call.forward(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.call, *tensors = inputs
        kept = output[ctx.call.states :]
        ctx.mark_non_differentiable(*kept[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *kept)
        ctx.save_for_forward(*tensors, *kept)
        ctx.of_tensors = len(tensors)

    @staticmethod
    def backward(ctx: Any, *d: Tensor | None) -> tuple:
        saved, n = ctx.saved_tensors, ctx.of_tensors
        d = d[: ctx.call.states + 1]
        return None, *ctx.call.backward(saved[:n], saved[n:], d)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple:
        saved, n = ctx.saved_tensors, ctx.of_tensors
        tensors, kept = saved[:n], saved[n:]
        moved = [i for i, tangent in enumerate(tangents) if tangent is not None]

        def gradient(*d: Tensor) -> list[Tensor]:
            gradients = ctx.call.backward(tensors, kept, d)
            return [gradients[i] for i in moved]

        # The gradient is linear in `d`; the forward derivative is its transpose.
        zeros = ctx.call.zeros(tensors, kept)
        _, transposed = torch.func.vjp(gradient, *zeros)
        d_results = transposed([tangents[i] for i in moved])
        return *d_results, *[None] * (len(kept) - 1)
