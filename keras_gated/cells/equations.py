"""What a cell computes: the contract of its equations, without arguments and weights.

Shapes, here and in every cell file: `batch` sequences, `input_dim` features of a
step, `units` of the state. A row is a step of a sequence: `rows` are all steps of all
sequences of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, dataclass_transform

from keras import ops

Tensor = Any
"""A tensor of the Keras backend in use."""
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

VJP = tuple[Tensor, States]
"""The gradients of the projected input, `(batch, n * units)`, and of the previous
states."""


class Recurrence(NamedTuple):
    """What multiplies the states, in the letters of the paper.

    A cell may multiply with all columns of its recurrent kernel at once or with those
    of some gates after those of others; `Equations.products` says which.
    """

    U: dict[str, Tensor]
    """The recurrent kernel: by the letters of the gates of each product its columns,
    `(units, n * units)` for `n` gates."""
    b_U: dict[str, Tensor] | None = None
    """The biases of the products, `(n * units,)`, where they have their own."""
    V: tuple[Tensor, ...] | None = None
    """Peepholes, each `(units,)`; only an LSTM has them."""
    drop: Tensor | None = None
    """The recurrent dropout mask, `(batch, units)`, while training. It acts on the
    way into a product, nowhere else."""

    def product(self, gates: str, h: Tensor) -> list[Tensor]:
        """`U h`, and its bias if it has one, of some gates.

        Args:
            gates: Their letters, one of the cell's `products`.
            h: `(batch, units)`.

        Returns:
            What each gate receives, each `(batch, units)`.
        """
        u = self.joint_product(gates, h)
        return ops.split(u, len(gates), axis=-1) if len(gates) > 1 else [u]

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        """As `product`, the gates beside each other, `(batch, n * units)`."""
        u = self.dropped(h) @ self.U[gates]
        return u if self.b_U is None else u + self.b_U[gates]

    def product_vjp(self, gates: str, d_u: Tensor) -> Tensor:
        """The gradient of `h` from that of a joint product."""
        return self.dropped(d_u @ ops.transpose(self.U[gates]))

    def dropped(self, h: Tensor) -> Tensor:
        """A state as it goes into a product."""
        return h if self.drop is None else h * self.drop


@dataclass_transform(frozen_default=True)
@dataclasses.dataclass(frozen=True)
class Equations:
    """Abstract base of the equations of a cell: pure functions, compared by value.

    Each subclass becomes a frozen dataclass. Its fields are the arguments of the cell
    that its equations depend on; they have to be hashable. Cells of equal equations
    share one loop and what it has compiled.

    A concrete class names its `gates` and writes `step`. For the fast loop of
    `keras_gated.RNN` it writes the gradient of `step` beside it, in two pure functions:
    `partials` is called once for all steps; `step_vjp` at every step, with nothing in
    it that does not depend on the step after. The gradients of the weights are
    products over all rows, which the loop forms by itself.
    """

    gates: ClassVar[str]
    """The column blocks of the kernels, a letter of the paper for each."""

    products: ClassVar[tuple[str, ...]]
    """The gates of each product with the states, in the order of `gates`.
    Default: all of them in one."""

    activation: Callable

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        if "gates" in vars(cls) and "products" not in vars(cls):
            cls.products = (cls.gates,)

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
            The gradients of the projected input, `(batch, n * units)`, and of the
            previous states.
        """
        raise NotImplementedError

    def multiplied(self, states: States, gates: Gates) -> dict[str, Tensor]:
        """What each of the `products` multiplies, each `(..., units)`.

        It is the output, unless there are several products.

        Args:
            states: The previous states, each `(..., units)`.
            gates: What `step` returned, each `(..., units)`.
        """
        (gates_of_product,) = self.products
        return {gates_of_product: states[0]}

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

    def peepholes_gradient(
        self, d_x: Tensor, states: States, gates: Gates
    ) -> tuple[Tensor, ...]:
        """The gradients of the peepholes, each `(units,)`.

        Args:
            d_x: `(time, batch, n * units)`.
            states: The previous states, each `(time, batch, units)`.
            gates: What `step` returned, each `(time, batch, units)`.
        """
        raise NotImplementedError


class GatedEquations(Equations):
    """Abstract base of the equations of cells with gates."""

    recurrent_activation: Callable


def rows(tensor: Tensor) -> Tensor:
    """The steps of all sequences below each other, `(rows, …)`."""
    return ops.reshape(tensor, (-1, tensor.shape[-1]))


def sum_of_rows(tensor: Tensor) -> Tensor:
    """The sum over all axes but the last, as a product: XLA is slow at such sums."""
    flat = rows(tensor)
    return (ops.transpose(ops.ones_like(flat[:, :1])) @ flat)[0]
