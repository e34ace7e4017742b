"""What a cell computes: the contract of its equations, without arguments and weights.

Shapes, here and in every cell file: `batch` sequences, `input_dim` features of a
step, `units` of the state. A row is a step of a sequence: `rows` are all steps of all
sequences of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, dataclass_transform

import keras
from keras import ops

from keras_gated.cells.activations import derivative
from keras_gated.cells.recurrence import Recurrence, Tensor

Inputs = list[Tensor]
"""The projected input `W x + b` by gate, each `(batch, units)`."""
States = list[Tensor]
"""The states of a cell, the output first, each `(batch, units)`."""
Gates = dict[str, Tensor]
"""The gates by their letters, and whatever else a gradient needs, each
`(batch, units)`."""
Result = tuple[States, Gates]
"""The next states and the gates of a step."""
Partials = dict[str, Tensor]
"""Partial derivatives, each `(batch, units)`. `"h/a_z"` is the derivative of `h` with
respect to `a_z`, where `a_z` is what goes into the activation of `z`. A letter below
the line that is a state is the previous one: `"h/h"`."""

VJP = tuple[Inputs, States]
"""The gradients of the projected input by gate and of the previous states, each
`(batch, units)`."""


@dataclass_transform(frozen_default=True)
@dataclasses.dataclass(frozen=True)
class Equations:
    """Abstract base of the equations of a cell: pure functions, compared by value.

    Each subclass becomes a frozen dataclass. Its fields are the arguments of the cell
    that its equations depend on; they have to be hashable. Cells of equal equations
    share one loop and what it has compiled.

    A concrete class names its `gates` and writes `step`, whose gradient is automatic in
    the loop of `keras_gated.RNN`. It may write the gradient beside it, in two pure
    functions: `partials` is called once for all steps; `step_vjp` at every step, with
    nothing in it that does not depend on the step after. The gradients of the weights
    are products over all rows, which the loop forms by itself.
    """

    gates: ClassVar[str]
    """The column blocks of the kernels, a letter of the paper for each."""

    products: ClassVar[tuple[str, ...]]
    """The gates of each product with the recurrent kernel, in the order of `gates`;
    empty, if there is none. Default: all of them in one."""

    activation: Callable
    layer_norm: bool = dataclasses.field(default=False, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        unnamed = "gates" in vars(cls) and "products" not in vars(cls)
        if unnamed and getattr(cls, "products", None) != ():
            cls.products = (cls.gates,)

    def lacks(self) -> str | None:
        """What the gradient of `step` lacks to be their own; `None` if it is complete.

        The gradient is automatic then.
        """
        kind = type(self)
        if self.layer_norm and kind.products:
            return f"{kind.__name__} has no step_vjp for layer normalization"
        if _origin(kind, "step") is not _origin(kind, "step_vjp"):
            return f"{kind.__name__} has no step_vjp for its step"
        if len(kind.products) > 1 and kind.multiplied is Equations.multiplied:
            return f"{kind.__name__} has several products, but no `multiplied`"
        for field in dataclasses.fields(self):
            activation = getattr(self, field.name)
            if field.name.endswith("activation") and derivative(activation) is None:
                named = getattr(activation, "__name__", activation)
                return f"no derivative is known for {field.name} {named}"
        return None

    @classmethod
    def by_product(cls, columns: Tensor) -> dict[str, Tensor]:
        """Splits the columns `(..., n * units)` into those of each product."""
        if len(cls.products) == 1:
            return {cls.products[0]: columns}
        units, parts, end = columns.shape[-1] // len(cls.gates), {}, 0
        for gates in cls.products:
            begin, end = end, end + units * len(gates)
            parts[gates] = columns[..., begin:end]
        return parts

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        """One time step.

        Args:
            x: The projected input `W x + b` by gate, each `(batch, units)`.
            states: The previous states.
            recurrent: Multiplies states with the recurrent kernel, each of the
                `products` once.

        Returns:
            The next states, and the gates.
        """
        raise NotImplementedError

    def checked_step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        """`step`, which a user may have written.

        Raises:
            TypeError: It does not return states and gates, or uses NumPy on tensors.
            ValueError: It returns another number of states, or another shape or dtype.
        """
        name = f"{type(self).__name__}.step"
        no_numpy = "must not use NumPy on tensors; keras.ops has its functions."
        try:
            result = self.step(x, states, recurrent)
        except Exception as error:
            if "numpy" not in f"{type(error).__name__} {error}".lower():
                raise
            raise TypeError(f"{name} {no_numpy} The error was: {error}") from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"{name} must return two things, the list of the next states and the "
                f"dictionary of gates. Received: {type(result).__name__}"
            )
        new_states, gates = list(result[0]), result[1]
        if len(new_states) != len(states):
            raise ValueError(
                f"{name} must return as many states as it is given, {len(states)}. "
                f"Received: {len(new_states)}"
            )
        for i, (new, old) in enumerate(zip(new_states, states, strict=True)):
            if not ops.is_tensor(new):
                raise TypeError(f"{name} {no_numpy} State {i} is {type(new).__name__}.")
            if tuple(new.shape) != tuple(old.shape) or new.dtype != old.dtype:
                raise ValueError(
                    f"{name} must return states of the shape and dtype that it is "
                    f"given, {_kind(old)}. Received for state {i}: {_kind(new)}"
                )
        return new_states, gates

    def partials(self, states: States, gates: Gates) -> Partials:
        """The partial derivatives of `step` that are products of elements.

        Args:
            states: The previous states, each `(..., units)`.
            gates: What `step` returned, each `(..., units)`.

        Returns:
            What `step_vjp` multiplies with, each `(..., units)`.
        """
        raise NotImplementedError

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        """The vector-Jacobian product of `step`.

        Args:
            d_new: The gradients of the next states.
            partials: Those of this step.
            recurrent: As in `step`.

        Returns:
            The gradients of the projected input by gate and of the previous states,
            each `(batch, units)`.
        """
        raise NotImplementedError

    def multiplied(self, states: States, gates: Gates) -> dict[str, Tensor]:
        """What each of the `products` multiplies, each `(..., units)`.

        It is the output, unless there are several products.

        Args:
            states: The previous states, each `(..., units)`.
            gates: What `step` returned, each `(..., units)`.
        """
        return {gates: states[0] for gates in self.products}

    def products_gradient(self, d_x: Tensor, gates: Gates) -> Tensor:
        """The gradient of the products, from that of the projected input.

        The two are added up, and the gradient is the same, unless a gate acts on the
        product alone.

        Args:
            d_x: `(..., n * units)`.
            gates: What `step` returned, each `(..., units)`.

        Returns:
            `(..., n * units)`.
        """
        return d_x

    def further_gradient(
        self, d_x: Tensor, states: States, gates: Gates
    ) -> tuple[Tensor, ...]:
        """The gradients of the further weights, `recurrent.V`, each `(units,)`.

        Args:
            d_x: `(time, batch, n * units)`.
            states: The previous states, each `(time, batch, units)`.
            gates: What `step` returned, each `(time, batch, units)`.
        """
        raise NotImplementedError


class GatedEquations(Equations):
    """Abstract base of the equations of cells with gates."""

    recurrent_activation: Callable


class LinearEquations(Equations):
    """Abstract base of equations `h = a ⊙ h + b`, `a` and `b` of the input alone.

    A concrete class writes `coefficients` instead of `step`. On PyTorch the loop of
    `keras_gated.RNN` has them of all steps at once.
    """

    products = ()

    def coefficients(self, x: Inputs) -> tuple[Tensor, Tensor, Gates]:
        """`a`, `b` and the gates.

        Args:
            x: The projected input by gate, each `(..., units)`.
        """
        raise NotImplementedError

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        (h,) = states
        a, b, gates = self.coefficients(x)
        return [a * h + b], gates


def _kind(tensor: Tensor) -> str:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return f"{tuple(tensor.shape)} and {dtype}"


def _origin(kind: type, method: str) -> type:
    """The class that defines a method."""
    return next(base for base in kind.__mro__ if method in vars(base))


def rows(tensor: Tensor) -> Tensor:
    """The steps of all sequences below each other, `(rows, …)`."""
    return ops.reshape(tensor, (-1, tensor.shape[-1]))


def sum_of_rows(tensor: Tensor) -> Tensor:
    """The sum over all axes but the last, as a product: XLA is slow at such sums."""
    flat = rows(tensor)
    return (ops.transpose(ops.ones_like(flat[:, :1])) @ flat)[0]
