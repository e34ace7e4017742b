"""The loop on PyTorch: a loop of Python inside a `torch.autograd.Function`."""

from collections.abc import Callable
from typing import Any

import torch
from keras import tree

from keras_gated.cells.base import Tensor
from keras_gated.layers.loop import Arguments, Loop, split


class TorchLoop(Loop):
    """No graph is recorded within the loop, which is what saves time."""

    def __call__(
        self, arguments: Arguments, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        # A stateful layer writes its new states over those that are kept here.
        states = [state.clone() for state in arguments.states]
        tensors, pack, pick = split(arguments._replace(states=states))
        outputs, *states = _Run.apply(self, pack, pick, *tensors)
        return outputs, states

    def scan(
        self,
        step: Callable[[list[Tensor], Any], tuple[list[Tensor], Any]],
        carry: list[Tensor],
        inputs: Any,
        reverse: bool = False,
    ) -> tuple[list[Tensor], Any]:
        flat = tree.flatten(inputs)
        steps = range(len(flat[0]))
        unbound = [[None] * len(steps) if t is None else t.unbind() for t in flat]
        outputs = []
        for t in reversed(steps) if reverse else steps:
            now = tree.pack_sequence_as(inputs, [of_all[t] for of_all in unbound])
            carry, structure = step(carry, now)
            outputs.append(tree.flatten(structure))
        ordered = reversed(outputs) if reverse else outputs
        stacked = [torch.stack(of_all) for of_all in zip(*ordered, strict=True)]
        return carry, tree.pack_sequence_as(structure, stacked)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: Loop, pack: Any, pick: Any, *tensors: Tensor) -> Any:
        needed = any(ctx.needs_input_grad)
        states, kept = loop.forward(pack(tensors), keep=needed)
        if needed:
            leaves = tree.flatten(kept)
            ctx.save_for_backward(*tensors, *leaves)
            ctx.of_tensors = len(tensors)
            ctx.loop, ctx.pack, ctx.pick, ctx.kept = loop, pack, pick, None
            ctx.unflatten = lambda leaves: tree.pack_sequence_as(kept, leaves)
        return kept.history[0], *states

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor, *d_states: Tensor) -> Any:
        saved = ctx.saved_tensors
        arguments = ctx.pack(saved[: ctx.of_tensors])
        kept = ctx.unflatten(saved[ctx.of_tensors :])
        if torch.is_grad_enabled():  # a gradient of this gradient is to come
            _, kept = ctx.loop.forward(arguments)
        gradients = ctx.loop.backward(arguments, kept, d_outputs, list(d_states))
        return None, None, None, *ctx.pick(gradients)
