"""A batch that the cores share, on TensorFlow: each has a call of the loop.

Calls of a graph that do not depend on each other run at the same time. Each shard has
its rows of the batch; the gradients of the weights are added up. In a loop that is
compiled for all rows at once, only large products use more than one core.
"""

import itertools
import math
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import tree

from keras_gated.cells.equations import States
from keras_gated.cells.recurrence import Recurrence, Tensor
from keras_gated.layers.loop import Arguments, Keep, Kept, Passes, of_inputs

LARGEST = 800_000
"""Multiplications of a product that XLA leaves to one thread, measured."""
ROWS = 8
"""Of a shard, where the size of the batch is not known before it comes."""


def number(batch: int | None) -> int:
    """The number of shards: of cores that TensorFlow may use, but no more than rows.

    One in eager mode, where one operation runs after the other, and with a GPU.

    Args:
        batch: The number of sequences, if it is known.
    """
    if tf.executing_eagerly() or tf.config.list_physical_devices("GPU"):
        return 1
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    threads = (
        tf.config.threading.get_inter_op_parallelism_threads()
        or int(os.environ.get("TF_NUM_INTEROP_THREADS") or 0)
        or cores
    )
    return max(1, min(size for size in (cores, threads, batch) if size is not None))


def shared(passes: Passes, n: int) -> Passes:
    """Passes over a batch by those over each of `n` shards."""

    def forward(arguments: Arguments, keep: Keep) -> tuple[Tensor, States, Any]:
        parts = [passes.forward(part, keep) for part in _shares(arguments, n)]
        outputs, states, kept = zip(*parts, strict=True)
        batch = tf.shape(arguments.inputs)[0]
        of_states = zip(*states, strict=True)
        return _joined(outputs, batch), [_joined(s, batch) for s in of_states], kept

    def backward(
        arguments: Arguments,
        outputs: Tensor | None,
        kept: Any,
        d_outputs: Tensor,
        d_states: States,
    ) -> Arguments:
        kept = [Kept()] * n if outputs is None else kept
        more = _rows([outputs, d_outputs, d_states], n)
        parts = [
            passes.backward(part, outputs, kept, *d)
            for part, kept, (outputs, *d) in zip(
                _shares(arguments, n), kept, more, strict=True
            )
        ]
        batch = tf.shape(d_outputs)[0]
        # The gradient of the inputs is often not needed. Then a graph leaves it out,
        # which it can do only outside of what is compiled.
        d_inputs = [of_inputs(part.inputs, arguments.W) for part in parts]
        d_W, d_b, d_recurrent, d_norm = tree.map_structure(
            lambda *of_parts: None if of_parts[0] is None else tf.add_n(of_parts),
            *((part.W, part.b, part.recurrent, part.norm) for part in parts),
        )
        of_states = zip(*(part.states for part in parts), strict=True)
        d_states = [_joined(s, batch) for s in of_states]
        d_inputs = _joined(d_inputs, batch)
        return Arguments(d_inputs, d_W, d_b, d_norm, d_states, d_recurrent)

    return Passes(forward, backward)


def _shares(arguments: Arguments, n: int) -> list[Arguments]:
    """The arguments of each of `n` shards."""
    recurrent = arguments.recurrent
    return [
        arguments._replace(
            inputs=inputs,
            states=states,
            recurrent=recurrent._replace(drop=drop),
            mask=mask,
            zone=zone,
        )
        for inputs, states, drop, mask, zone in _rows(
            [
                *(arguments.inputs, arguments.states, recurrent.drop),
                *(arguments.mask, arguments.zone),
            ],
            n,
        )
    ]


def _rows(structure: Any, n: int) -> list[Any]:
    """The rows of all tensors in `n` parts of one size, which share what is compiled.

    Rows of zeros fill the last part.
    """
    if n == 1:
        return [structure]

    def parts(tensor: Tensor | None) -> list[Tensor | None]:
        if tensor is None:
            return [None] * n
        batch = tensor.shape[0]
        missing = -(tf.shape(tensor)[0] if batch is None else batch) % n
        if batch is None or missing:
            more = [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)]
            tensor = tf.pad(tensor, more)
        return tf.split(tensor, n)

    of_parts = zip(*map(parts, tree.flatten(structure)), strict=True)
    return [tree.pack_sequence_as(structure, part) for part in of_parts]


def _joined(parts: Sequence[Tensor], batch: Tensor) -> Tensor:
    """The rows of all parts, without those that fill the last one."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)[:batch]


def of_a_shard(passes: Passes) -> Passes:
    """Passes with products that each stay with one thread.

    Otherwise the shards would wait for each other's threads at every step.
    """
    return Passes(
        lambda arguments, keep: passes.forward(_in_parts(arguments), keep),
        lambda arguments, *more: passes.backward(_in_parts(arguments), *more),
    )


def _in_parts(arguments: Arguments) -> Arguments:
    recurrent = arguments.recurrent
    batch = arguments.states[0].shape[0] or ROWS
    sizes = [batch * math.prod(U.shape) for U in recurrent.U.values()]
    if max(sizes, default=0) <= LARGEST:
        return arguments
    return arguments._replace(recurrent=_InParts(recurrent, batch))


class _InParts(Recurrence):
    """Multiplies gate by gate, with some columns of the kernel at a time."""

    def __new__(cls, recurrent: Recurrence, batch: int) -> "_InParts":
        made = super().__new__(cls, *recurrent)
        # Here, because in the loop each step would copy them.
        made.forth, made.back = {}, {}
        for gates, U in recurrent.U.items():
            of_gates = tf.split(U, len(gates), axis=1)
            pieces = math.ceil(batch * math.prod(of_gates[0].shape) / LARGEST)
            made.forth[gates] = [p for U in of_gates for p in _columns(U, pieces)]
            made.back[gates] = [_columns(tf.transpose(U), pieces) for U in of_gates]
        return made

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        h = self.dropped(gates, h)
        u = tf.concat([h @ part for part in self.forth[gates]], axis=1)
        return u if self.b_U is None else u + self.b_U[gates]

    def product_vjp(self, gates: str, d_u: list[Tensor]) -> Tensor:
        d_h = [
            tf.concat([d @ part for part in parts], axis=1)
            for d, parts in zip(d_u, self.back[gates], strict=True)
        ]
        return self.dropped(gates, tf.add_n(d_h))

    def for_backward(self) -> "_InParts":
        return self


def _columns(matrix: Tensor, pieces: int) -> list[Tensor]:
    """The columns in pieces of nearly the same width."""
    columns = matrix.shape[1]
    ends = [round(columns * i / pieces) for i in range(pieces + 1)]
    return [matrix[:, i:j] for i, j in itertools.pairwise(ends)]
