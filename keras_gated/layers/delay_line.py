"""A tapped delay line: steps of the past beside the present one."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gated.datasets import checks

Tensor = Any


class DelayLineCell(keras.layers.Layer):
    """One step of `DelayLine`: its state holds the last steps, one after the other."""

    def __init__(self, delays: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delays = tuple(delays)
        self.state_size = [None]  # known once the size of a step is

    @property
    def steps(self) -> int:
        """The number of steps in the state."""
        return max(1, *self.delays)

    @property
    def output_size(self) -> int:
        return self.size * len(self.delays)

    def build(self, input_shape: tuple) -> None:
        self.size = input_shape[-1]
        self.state_size = [self.steps * self.size]

    def get_initial_state(self, batch_size: Any = None) -> list[Tensor]:
        return [ops.zeros((batch_size, *self.state_size), self.compute_dtype)]

    def call(self, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        line = ops.concatenate([states[0], inputs], axis=-1)
        ends = [(self.steps - delay) * self.size for delay in self.delays]
        taps = [line[:, end : end + self.size] for end in ends]
        return ops.concatenate(taps, axis=-1), [line[:, self.size :]]


@keras.saving.register_keras_serializable(package="keras_gated")
class DelayLine(keras.layers.RNN):
    """Puts steps of the past beside the present one: a tapped delay line.

    What is before the beginning of a sequence is zero. The layer has no weights. It
    is a recurrent layer, so models with it are run step by step, as
    `generation.generate` does, and may be stateful; whole sequences take no loop.

    Args:
        delays: The numbers of steps from each that is given to the present one, from
            0 on. Default: 0, 1, 2 and 4.
        **kwargs: Further arguments of `keras.layers.RNN`. Default of
            `return_sequences`: `True`.

    Call arguments:
        sequences: `(batch, time, size)`.
        initial_state: The steps before the sequence, the last one last:
            `(batch, largest delay * size)`. Default: zeros.
        mask: `(batch, time)`: steps that are left out. Default: `None`.

    Returns:
        For each step those at the delays, in their order, `(batch, time, delays *
        size)`.

    Raises:
        ValueError: A delay is not a whole number from 0 on, or there are none.

    Example:

    >>> import numpy as np
    >>> from keras_gated import DelayLine
    >>> steps = np.array([[[1.0], [2.0], [3.0]]])
    >>> np.asarray(DelayLine([0, 2])(steps)).tolist()
    [[[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]]]
    """

    def __init__(self, delays: Sequence[int] = (0, 1, 2, 4), **kwargs: Any) -> None:
        kwargs.setdefault("return_sequences", True)
        if not (given := list(delays)):
            raise checks.error("delays", delays, "at least one number of steps")
        self.delays = [checks.whole("delays", delay, 0) for delay in given]
        super().__init__(
            DelayLineCell(self.delays, dtype=kwargs.get("dtype")), **kwargs
        )

    def build(self, sequences_shape: tuple, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        self.state_size = self.cell.state_size

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        steps, size = self.cell.steps, self.cell.size
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        count = ops.shape(sequences)[1]
        if mask is not None:  # the steps that count, first
            mask = ops.cast(mask, "int32")
            order = ops.argsort(1 - mask, axis=1)  # which is stable
            sequences = ops.take_along_axis(sequences, order[..., None], axis=1)
        before = ops.reshape(initial_state[0], (-1, steps, size))
        line = ops.concatenate([before, ops.cast(sequences, before.dtype)], axis=1)
        if mask is None:
            begins = [steps - delay for delay in self.delays]
            taps = [line[:, begin : begin + count] for begin in begins]
            last = line[:, -steps:]
        else:  # how many count up to each step
            number = ops.cumsum(mask, axis=1)[..., None]
            at = [ops.maximum(number - 1 + steps - delay, 0) for delay in self.delays]
            taps = [ops.take_along_axis(line, places, axis=1) for places in at]
            shown = number > 0 if not self.zero_output_for_mask else mask[..., None] > 0
            taps = [ops.where(shown, tap, 0) for tap in taps]
            at = number[:, -1:] + ops.arange(steps, dtype="int32")[:, None]
            last = ops.take_along_axis(line, at, axis=1)
        outputs = ops.concatenate(taps, axis=-1)
        return outputs[:, -1], outputs, [ops.reshape(last, (-1, steps * size))]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"]
        return {**config, "delays": self.delays}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DelayLine":
        return cls(**config)
