"""The sequence layer over a cell, with the fast loop where it applies."""

import functools
import importlib
import logging
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import Equations
from keras_gated.cells.recurrence import Tensor
from keras_gated.datasets import checks
from keras_gated.layers import probe
from keras_gated.layers.called_cell import CalledCell
from keras_gated.layers.cells_of_keras import CellOfKeras, seen_by_loop
from keras_gated.layers.loop import Arguments, FastLoop

logger = logging.getLogger("keras_gated")

LAYER_ARGUMENTS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "activity_regularizer",
)
"""The arguments of `keras.layers.RNN` that are the layer's and not the cell's."""


@keras.saving.register_keras_serializable(package="keras_gated")
class RNN(keras.layers.RNN):
    """`keras.layers.RNN` with a faster loop.

    Arguments, calls and numbers are those of Keras's layer. The loop is another: it
    projects the inputs of all steps in one product, contains only the recurrence, and
    has a gradient of its own, which forms the gradient of each weight in one product.

    It runs over the cells of this package, over any that has a `step`
    (`keras_gated.RecurrentCell`), over `SimpleRNNCell`, `LSTMCell` and `GRUCell` of
    Keras, over stacks of these, and on TensorFlow over any other cell whose `call` is a
    function of its arguments and its variables. Keras's own loop runs over the
    others, and where `use_fast_loop` says so. The attribute `loop` says which loop
    runs, and why.

    Args:
        cell: One of the cells of the package, or any cell or list of cells that
            `keras.layers.RNN` accepts.
        return_sequences: Whether to return the outputs of all steps,
            `(batch, time, units)`, or that of the last. Default: `False`.
        return_state: Whether to return the last states as well. Default: `False`.
        go_backwards: Whether to begin with the last step; the outputs are returned
            in the order in which they were computed. Default: `False`.
        stateful: Whether a batch begins with the last states of the batch before it.
            Default: `False`.
        unroll: Whether to unroll Keras's loop; the fast loop does not unroll.
            Default: `False`.
        zero_output_for_mask: Whether the output of a masked step is zero instead
            of the output of the step before. Default: `False`.
        learn_initial_state: Whether the states before the first step are weights, which
            start at zero, one for each unit. They come before those of the cell in
            `weights`. An `initial_state` in a call takes their place. Default: `False`,
            zeros.
        truncate_gradient: The number of steps for truncated backpropagation through
            time: states pass through the whole sequence, gradients only through
            stretches of so many steps. It is for long sequences, in which gradients
            explode, and needs the fast loop. Default: `None`, gradients pass through
            the whole sequence.
        recompute_states: Whether the way backward computes the states again instead
            of finding them kept, which saves memory and takes a third of the time
            more. It needs the fast loop. Default: `False`.
        use_fast_loop: `"auto"` runs the fast loop where it applies, `True` raises an
            error where it does not apply, `False` always runs Keras's loop.
            Default: `"auto"`.
        **kwargs: Further arguments of `keras.layers.RNN`: `activity_regularizer`,
            `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: `(batch, time, input_dim)`.
        initial_state: The states before the first step, a list of
            `(batch, units)`. Default: zeros, or the last ones if stateful, or those
            that were learned.
        mask: Boolean `(batch, time)`, of any pattern; steps where it is `False` are
            skipped. Default: `None`.
        training: Whether dropout and weight noise apply. Default: `False`.

    Raises:
        ValueError: `use_fast_loop` has another value, or `learn_initial_state` and
            `stateful` are both set, or `use_fast_loop` is `True` or
            `truncate_gradient` or `recompute_states` is set where the fast loop does
            not apply; the message gives the reason.

    On TensorFlow the fast loop is compiled with XLA, which takes about a second and
    2 MB for every new shape of a batch in training; sequences of more than about 1,000
    steps, and predictions, share few lengths. A graph of inference that might be
    exported is not compiled. Within a graph, as in `fit`, the cores share the batch, as
    many as TensorFlow may use
    (`tf.config.threading.set_inter_op_parallelism_threads`); their number changes
    results by rounding errors. There is no second derivative there.

    Example:

    >>> import numpy as np
    >>> from keras_gated import RNN, GRUCell
    >>> layer = RNN(GRUCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    >>> layer.loop
    'fast: GRUCell brings the gradient of its step'
    >>> "gradient of the step of GRUCell is automatic" in RNN(
    ...     GRUCell(4, activation="gelu")
    ... ).loop
    True
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        learn_initial_state: bool = False,
        truncate_gradient: int | None = None,
        recompute_states: bool = False,
        use_fast_loop: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        if use_fast_loop != "auto" and not isinstance(use_fast_loop, bool):
            raise ValueError(
                "Argument `use_fast_loop` must be 'auto', True or False. "
                f"Received: use_fast_loop={use_fast_loop!r}"
            )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        if learn_initial_state and stateful:
            raise ValueError(
                "Argument `learn_initial_state` cannot be combined with stateful=True, "
                "where a batch begins with the last states of the batch before it."
            )
        # Keras's pre-releases of 3.16 take it back, and the layers above lose the mask.
        self.supports_masking = True
        self.learn_initial_state = bool(learn_initial_state)
        checks.whole("truncate_gradient", truncate_gradient, optional=True)
        self.truncate_gradient = truncate_gradient
        self.recompute_states = bool(recompute_states)
        self.use_fast_loop = use_fast_loop
        self._of_steps: str | None = None
        """What `probe` found when the layer was built."""
        self._fast_loops()

    @property
    def loop(self) -> str:
        """Which loop runs, `"fast: …"` or `"keras: …"`, and why."""
        obstacle = self._obstacle()
        if obstacle:
            return f"keras: {obstacle}"
        about = [
            _about(cell, loop)
            for cell, loop in zip(self._cells(), self._fast_loops(), strict=True)
        ]
        return f"fast: {'; '.join(dict.fromkeys(about))}"

    def _cells(self) -> list[Any]:
        """The cells, the first that sees the inputs first, as the loop sees them."""
        # Not of a subclass, which may call its cells in another way.
        stacked = type(self.cell) is keras.layers.StackedRNNCells
        return [
            seen_by_loop(cell) for cell in (self.cell.cells if stacked else [self.cell])
        ]

    def _obstacle(self) -> str | None:
        """Why the fast loop does not apply; `None` if it does."""
        backend = keras.config.backend()
        if backend not in ("tensorflow", "jax", "torch"):
            return f"the backend {backend} has no fast loop"
        if self.use_fast_loop is False:
            return "use_fast_loop=False was asked for"
        if self.unroll:
            return "unroll=True was asked for"
        for cell in self._cells():
            if isinstance(cell, CellOfKeras) and cell.obstacle:
                return cell.obstacle
            if not isinstance(cell, (CellOfKeras, CalledCell, RecurrentCell)):
                name = type(cell).__name__
                return f"{name} is a stack of a kind of its own, or no layer of Keras"
            # JAX compiles Keras's loop as well, and PyTorch compiles neither.
            asked = self.truncate_gradient or self.recompute_states
            asked = asked or self.use_fast_loop is True
            if isinstance(cell, CalledCell) and backend != "tensorflow" and not asked:
                return (
                    f"it is as fast on {backend} for {type(cell.cell).__name__}, which "
                    "has a call alone"
                )
        return self._of_steps

    def _fast_loops(self) -> list[FastLoop] | None:
        """The loop of each cell as it is now; `None` where Keras's loop runs.

        Raises:
            ValueError: The fast loop is required and does not apply.
        """
        obstacle = self._obstacle()
        for argument in ("truncate_gradient", "recompute_states"):
            if obstacle and getattr(self, argument):
                raise ValueError(
                    f"Argument `{argument}` needs the fast loop, which does not "
                    f"apply: {obstacle}"
                )
        if obstacle and self.use_fast_loop is True:
            raise ValueError(
                f"The fast loop does not apply: {obstacle}. With use_fast_loop='auto' "
                "Keras's loop takes its place."
            )
        if obstacle:
            return None
        return [
            _shared_loop(cell.equations, cell.units, self.truncate_gradient)
            for cell in self._cells()
        ]

    def build(self, sequences_shape: tuple, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        if self.learn_initial_state:
            sizes = enumerate(keras.tree.flatten(self.state_size))
            self.initial_states = [
                self.add_weight(
                    name=f"initial_state_{k}", shape=(size,), initializer="zeros"
                )
                for k, size in sizes
            ]
        if self._obstacle() is None:
            features = sequences_shape[2:]
            for cell in self._cells():
                if isinstance(cell, RecurrentCell):
                    self._of_steps = probe.obstacle(cell)
                elif isinstance(cell, CalledCell):
                    self._of_steps = probe.obstacle_of_call(cell, *features)
                    self._maybe_reset_dropout_masks(cell.cell)
                if self._of_steps:
                    break
                features = (cell.units,)
            self._fast_loops()
        logger.info("%s: %s", self.name, self.loop)

    def get_initial_state(self, batch_size: int | Tensor) -> list[Tensor]:
        """The states before the first step, each `(batch_size, units)`.

        Args:
            batch_size: The number of sequences.
        """
        zeros = super().get_initial_state(batch_size)
        if not (self.learn_initial_state and self.built):
            return zeros
        learned = iter(self.initial_states)
        return keras.tree.map_structure(
            lambda zero: zero + ops.cast(next(learned), zero.dtype), zeros
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mask = args[2] if len(args) > 2 else kwargs.get("mask")
        if isinstance(mask, np.ndarray) and mask.dtype.kind in "OSUcmM":
            # Keras would fail to make a tensor of it, with an error that names nothing.
            sequences = args[0] if args else kwargs["sequences"]
            raise _bad_mask(sequences, f"a mask of dtype {mask.dtype}")
        return super().__call__(*args, **kwargs)

    def call(
        self,
        sequences: Tensor,
        initial_state: list[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Any:
        try:
            return super().call(sequences, initial_state, mask, training)
        except BaseException:
            # The next batch would use the dropout masks and noise of this one.
            self._maybe_reset_dropout_masks(self.cell)
            raise

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loop, which `keras.layers.RNN.call` calls.

        Returns:
            The last output, all outputs, and the last states.
        """
        loops, cells = self._fast_loops(), self._cells()
        dtype = keras.backend.standardize_dtype(sequences.dtype)
        # A call may do something else with whole numbers than with others.
        if "float" not in dtype and isinstance(cells[0], CalledCell):
            loops = None
        if loops is None:
            sequences = self._with_zone(sequences, training)
            return super().inner_loop(sequences, initial_state, mask, training)
        initial_state = list(initial_state)
        # Keras has the states of a stack by cell, as `state_size` is nested.
        stacked = len(cells) > 1 or keras.tree.is_nested(initial_state[0])
        by_cell = initial_state if stacked else [initial_state]
        sequences = ops.convert_to_tensor(sequences, dtype=cells[0].compute_dtype)
        mask = None if mask is None else self._whole_mask(mask, sequences)
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        outputs, new_states = sequences, []
        # What a cell does at a step depends on no later step of those above it: the
        # loop of each runs over all steps before the next one's.
        for cell, loop, states in zip(cells, loops, by_cell, strict=True):
            flat = keras.tree.flatten(states)
            outputs, shown, last = self._run(cell, loop, outputs, flat, mask, training)
            new_states.append(keras.tree.pack_sequence_as(states, last))
        new_states = new_states if stacked else new_states[0]
        if mask is None:  # a graph leaves out all outputs if only the last is used
            return shown, outputs, new_states
        outputs = self._outputs_under_mask(outputs, mask)
        return outputs[:, -1], outputs, new_states

    def _with_zone(self, sequences: Tensor, training: bool) -> Tensor:
        """The sequences for Keras's loop, which cannot draw at every step."""
        stacked = getattr(self.cell, "cells", [])
        zoned = [
            cell
            for cell in [self.cell, *stacked]
            if isinstance(cell, RecurrentCell) and cell._zones()
        ]
        if not (zoned and training):
            return sequences
        if stacked:
            raise ValueError(
                "Zoneout in a stack of cells needs the fast loop, which does not "
                f"apply: {self._obstacle()}"
            )
        dtype = self.cell.compute_dtype
        sequences = ops.convert_to_tensor(sequences, dtype=dtype)
        zone = self.cell._zone(sequences, training)
        if self.go_backwards:
            zone = [ops.flip(of_state, axis=1) for of_state in zone]
        return ops.concatenate([sequences, *zone], axis=-1)

    def _run(
        self,
        cell: Any,
        loop: FastLoop,
        sequences: Tensor,
        states: list[Tensor],
        mask: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The outputs of a cell at all steps, its last output, and its last states."""
        shape = sequences.shape
        cell._check_step((shape[0], *shape[2:]), [s.shape for s in states])
        sequences = ops.convert_to_tensor(sequences, dtype=cell.compute_dtype)
        states = [ops.cast(state, cell.compute_dtype) for state in states]
        states = [self._for_all(state, sequences) for state in states]
        called = isinstance(cell, CalledCell)
        if called:  # its output is a state of the loop, but not of the cell
            states = [cell.no_output(states), *states]
        drop = None
        if training:
            drop_in = cell.get_dropout_mask(sequences[:, 0])
            if drop_in is not None:
                sequences = sequences * ops.expand_dims(drop_in, 1)
            drop = cell.get_recurrent_dropout_mask(states[0])
        arguments = Arguments(
            sequences,
            *cell._projection(training),
            cell._kernel_norm(training),
            states,
            cell._recurrence(training, drop),
            mask,
            cell._zone(sequences, training),
        )
        outputs, last = loop(arguments, training, self.recompute_states)
        return outputs, last[0], last[called:]

    def _for_all(self, state: Tensor, sequences: Tensor) -> Tensor:
        """An initial state; one of batch size 1 applies to all sequences."""
        batch, given = sequences.shape[0], state.shape[0]
        if given == 1 and batch != 1:
            return ops.broadcast_to(state, (ops.shape(sequences)[0], state.shape[1]))
        if batch and given and batch != given:
            raise ValueError(
                "Argument `initial_state` must have the batch of the sequences, "
                f"{batch}, or 1. Received: a state of shape {tuple(state.shape)}"
            )
        return state

    def _whole_mask(self, mask: Any, sequences: Tensor) -> Tensor:
        """The mask as `Arguments` has it, from any that Keras's loop accepts.

        Raises:
            ValueError: Keras's loop would not accept the mask.
        """
        if isinstance(mask, (list, tuple)) and mask and hasattr(mask[0], "shape"):
            mask = mask[0]  # that of the inputs; masks of states follow
        batch, time, _ = sequences.shape
        sizes = set(keras.tree.flatten(self._cells()[-1].state_size))
        try:
            mask = ops.convert_to_tensor(mask)
            dtype = keras.backend.standardize_dtype(mask.dtype)
        except (TypeError, ValueError) as error:
            raise _bad_mask(sequences, repr(mask)) from error
        if not dtype.startswith(("bool", "int", "uint", "float", "bfloat")):
            raise _bad_mask(sequences, f"a mask of dtype {dtype}")
        mask, shape = ops.cast(mask, "bool"), tuple(mask.shape)
        by_unit = keras.config.backend() != "jax"
        # A mask of each unit is one of all states, if they have as many.
        accepted = {1, None, *(sizes if len(sizes) == 1 else ())}
        accepted = accepted if by_unit else shape[2:]
        if (
            len(shape) not in (2, 3)
            or (batch and shape[0] not in (1, None, batch))
            or (time and shape[1] not in (None, time))
            or not all(size in accepted for size in shape[2:])
        ):
            raise _bad_mask(sequences, f"a mask of shape {shape}")
        if len(shape) == 2:
            mask = ops.expand_dims(mask, -1)
        elif not by_unit:
            mask = ops.any(mask, axis=-1, keepdims=True)
        # Raises an error for shapes that are known only now.
        return ops.broadcast_to(mask, (*ops.shape(sequences)[:2], mask.shape[-1]))

    def _outputs_under_mask(self, outputs: Tensor, mask: Tensor) -> Tensor:
        """The outputs as Keras has them: a masked step repeats the output before it."""
        if self.zero_output_for_mask:
            shown = mask
        elif keras.config.backend() == "jax":
            return outputs  # before the first step that counts, the initial state
        else:  # before the first step that counts, zeros
            shown = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
        return ops.where(shown, outputs, ops.zeros_like(outputs))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learn_initial_state": self.learn_initial_state,
            "truncate_gradient": self.truncate_gradient,
            "recompute_states": self.recompute_states,
            "use_fast_loop": self.use_fast_loop,
        }


def _about(cell: Any, loop: FastLoop) -> str:
    """What `RNN.loop` says of a cell as the loop sees it."""
    name = type(getattr(cell, "cell", cell)).__name__
    if isinstance(cell, CalledCell):
        return f"the gradient of a call of {name} is automatic"
    lacks = cell.equations.lacks()
    about = getattr(loop, "about", lambda cell: "")(cell)
    if lacks:
        return f"the gradient of the step of {name} is automatic, since {lacks}{about}"
    return f"{name} brings the gradient of its step{about}"


@functools.lru_cache(maxsize=64)
def _shared_loop(equations: Equations, units: int, truncate: int | None) -> FastLoop:
    """One loop, and what it has compiled, for all cells of equal equations.

    Cells of different units do not share it, because TensorFlow warns of functions that
    it traces for many shapes.
    """
    backend = f"keras_gated.layers.loop_{keras.config.backend()}"
    return importlib.import_module(backend).FastLoop(equations, truncate)


def _bad_mask(sequences: Tensor, given: str) -> ValueError:
    return ValueError(
        "Argument `mask` must be boolean, of shape (batch, time) = "
        f"{tuple(sequences.shape[:2])}, or that with a last axis of 1, or with 1 in "
        f"the place of the batch where all sequences share it. Received: {given}"
    )
