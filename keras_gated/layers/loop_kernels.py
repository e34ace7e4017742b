"""PyTorch's own recurrent kernels, for the equations that they have.

They are one call for all steps: oneDNN or ATen on a CPU, cuDNN on a GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import torch

from keras_gated.cells.equations import Equations, States, Tensor
from keras_gated.cells.gru import ResetAfterEquations
from keras_gated.cells.lstm import LSTMEquations
from keras_gated.cells.tanh import TanhEquations
from keras_gated.layers.cells_of_keras import KerasResetAfterEquations
from keras_gated.layers.loop import Arguments, Loop


class Kernel(NamedTuple):
    """A kernel of PyTorch."""

    name: str
    """Its name in `torch._VF`, where functions take weights as arguments."""
    order: Callable[[Tensor], Tensor]
    """Brings the columns of our kernels and biases into its order."""

    def __call__(self, arguments: Arguments) -> tuple[Tensor, States]:
        """The outputs of all steps, and the last states."""
        inputs, W, b, _, states, recurrent, *_ = arguments
        (U,) = recurrent.U.values()
        (b_U,) = (recurrent.b_U or {"": None}).values()
        biases = [W.new_zeros(W.shape[-1:]) if x is None else x for x in (b, b_U)]
        weights = [self.order(x).t() for x in (W, U)] + [self.order(x) for x in biases]
        first = [state[None].contiguous() for state in states]
        run = getattr(torch._VF, self.name)
        outputs, *last = run(
            inputs.contiguous(),
            first if len(first) > 1 else first[0],
            [weight.contiguous() for weight in weights],
            *(True, 1, 0.0, torch.is_grad_enabled(), False, True),
        )
        return outputs, [state[0] for state in last]


def _same(columns: Tensor) -> Tensor:
    return columns


def _gru(columns: Tensor) -> Tensor:
    z, r, h = columns.chunk(3, dim=-1)
    return torch.cat([r, -z, h], dim=-1)  # its z weighs the old state: 1 - z


def _gru_of_keras(columns: Tensor) -> Tensor:
    z, r, h = columns.chunk(3, dim=-1)
    return torch.cat([r, z, h], dim=-1)


_TANH, _RELU = keras.activations.tanh, keras.activations.relu
_SIGMOID = keras.activations.sigmoid
_KERNELS = {
    (LSTMEquations, _TANH, _SIGMOID): Kernel("lstm", _same),
    (ResetAfterEquations, _TANH, _SIGMOID): Kernel("gru", _gru),
    (KerasResetAfterEquations, _TANH, _SIGMOID): Kernel("gru", _gru_of_keras),
    (TanhEquations, _TANH, None): Kernel("rnn_tanh", _same),
    (TanhEquations, _RELU, None): Kernel("rnn_relu", _same),
}


def find(equations: Equations) -> Kernel | None:
    """The kernel that has these equations, if there are no peepholes."""
    if equations.layer_norm:
        return None
    recurrent = getattr(equations, "recurrent_activation", None)
    return _KERNELS.get((type(equations), equations.activation, recurrent))


def applies(arguments: Arguments) -> bool:
    """Whether a kernel takes these arguments, under the transformations in force."""
    inputs, recurrent = arguments.inputs, arguments.recurrent
    types = [torch.float32, torch.float64]
    types += [torch.float16, torch.bfloat16] if inputs.is_cuda else []
    return (
        arguments.mask is None
        and arguments.zone is None
        and recurrent.drop is None
        and recurrent.V is None
        and inputs.dtype in types
        and inputs.numel() > 0
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


NOT_TENSORS = 4
"""Arguments of `Run` before the tensors."""


class Run(torch.autograd.Function):
    """Runs a kernel; the second gradient, which some lack, is that of the loop."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        loop: Loop,
        pack: Callable,
        recompute: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.kernel, ctx.loop, ctx.pack, ctx.recompute = kernel, loop, pack, recompute
        ctx.save_for_backward(*tensors)
        if recompute:
            outputs, states = kernel(pack(tensors))
            return *states, outputs
        ctx.leaves, ctx.results = Run._with_graph(ctx, tensors)
        return tuple(result.detach() for result in ctx.results)

    @staticmethod
    def _with_graph(
        ctx: Any, tensors: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The kernel's results, and the leaves of a graph that leads to them."""
        needed = ctx.needs_input_grad[NOT_TENSORS:]
        with torch.enable_grad():
            leaves = [
                tensor.detach().requires_grad_(need)
                for tensor, need in zip(tensors, needed, strict=True)
            ]
            outputs, states = ctx.kernel(ctx.pack(leaves))
        return leaves, [*states, outputs]

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple:
        needed = ctx.needs_input_grad[NOT_TENSORS:]
        again = torch.is_grad_enabled()
        if again:
            leaves = ctx.saved_tensors
            outputs, states, _ = ctx.loop.forward(ctx.pack(leaves), "nothing")
            results = [*states, outputs]
        elif ctx.recompute:
            leaves, results = Run._with_graph(ctx, ctx.saved_tensors)
        else:
            leaves, results = ctx.leaves, ctx.results
        found = iter(
            torch.autograd.grad(
                results,
                [leaf for leaf, need in zip(leaves, needed, strict=True) if need],
                d,
                retain_graph=True,
                create_graph=again,
            )
        )
        gradients = [next(found) if need else None for need in needed]
        return *[None] * NOT_TENSORS, *gradients
