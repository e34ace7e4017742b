"""What multiplies the states of a cell."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any
"""A tensor of the Keras backend in use."""


class Normalization(NamedTuple):
    """What layer normalization does with some gates, or with a state."""

    gain: Tensor
    """`(n * units,)`."""
    bias: Tensor | None
    """`(n * units,)`."""
    epsilon: Tensor
    """Added to the variance; a tensor, so that the loop passes it on with the others.
    """

    def __call__(self, tensor: Tensor) -> Tensor:
        """Of a tensor `(..., n * units)` (Ba et al., 2016, equation 4)."""
        a, _ = self._standardized(tensor)
        scaled = ops.cast(a, tensor.dtype) * self.gain
        return scaled if self.bias is None else scaled + self.bias

    def gradient(self, tensor: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of a tensor, and those of the gain by each of its rows.

        Args:
            tensor: As in the call, `(rows, n * units)`.
            d: The gradient of the result, which has no bias, `(rows, n * units)`.
        """
        a, scale = self._standardized(tensor)
        d = ops.cast(d, a.dtype)
        d_a = d * ops.cast(self.gain, a.dtype)
        d_tensor = scale * (d_a - _mean(d_a) - a * _mean(a * d_a))
        return tuple(ops.cast(found, tensor.dtype) for found in (d_tensor, d * a))

    def _standardized(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """With mean 0 and variance 1, and by what it was multiplied."""
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        # As Keras's layer: half precision is too coarse for a variance.
        half = dtype in ("float16", "bfloat16")
        a = ops.cast(tensor, "float32" if half else dtype)
        a = a - _mean(a)
        scale = ops.rsqrt(_mean(ops.square(a)) + ops.cast(self.epsilon, a.dtype))
        return a * scale, scale


def _mean(a: Tensor) -> Tensor:
    """Over the last axis, as a product: XLA is slow at such sums."""
    size = a.shape[-1]
    return a @ ops.full((size, 1), 1 / size, dtype=a.dtype)


class Recurrence(NamedTuple):
    """What multiplies the states, in the letters of the paper.

    A cell may multiply with all columns of its recurrent kernel at once or with those
    of some gates after those of others; `Equations.products` says which.
    """

    U: dict[str, Tensor]
    """The recurrent kernel: by the letters of the gates of each product its columns,
    `(units, n * units)` for `n` gates. A product with anything else, such as a
    projection, is under a letter of its own."""
    b_U: dict[str, Tensor] | None = None
    """The biases of the products, `(n * units,)`, where they have their own."""
    V: tuple[Tensor, ...] | None = None
    """Further weights of the step, such as peepholes, each `(units,)`."""
    norms: dict[str, Normalization] | None = None
    """Layer normalization, by what it acts on: the letters of the gates of a product,
    or a name that the step gives to `normalized`."""
    drop: dict[str, Tensor] | None = None
    """Recurrent dropout while training: by the letters of a product the mask on the way
    into it, `(batch, units)`. It acts nowhere else."""

    def product(self, gates: str, h: Tensor) -> list[Tensor]:
        """`U h`, and its bias if it has one, of some gates.

        Args:
            gates: Their letters, one of the cell's `products`.
            h: `(batch, units)`.

        Returns:
            What each gate receives, each `(batch, units)`.
        """
        u = self.normalized(gates, self.joint_product(gates, h))
        return ops.split(u, len(gates), axis=-1) if len(gates) > 1 else [u]

    def normalized(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor after layer normalization, if there is one of this name."""
        norm = (self.norms or {}).get(name)
        return tensor if norm is None else norm(tensor)

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        """The product, the gates beside each other, `(batch, n * units)`."""
        u = self.dropped(gates, h) @ self.U[gates]
        return u if self.b_U is None else u + self.b_U[gates]

    def product_vjp(self, gates: str, d_u: list[Tensor]) -> Tensor:
        """The gradient of `h` from those of what each gate receives."""
        return self.dropped(gates, beside(d_u) @ ops.transpose(self.U[gates]))

    def for_backward(self) -> "Recurrence":
        """With whatever `product_vjp` needs made once for all steps."""
        return _Transposed(self)

    def dropped(self, gates: str, h: Tensor) -> Tensor:
        """A state as it goes into a product."""
        mask = (self.drop or {}).get(gates)
        return h if mask is None else h * mask


class _Transposed(Recurrence):
    """XLA multiplies faster with a kernel that is transposed before the loop."""

    def __new__(cls, recurrent: Recurrence) -> "_Transposed":
        made = super().__new__(cls, *recurrent)
        made.U_T = {gates: ops.transpose(U) for gates, U in recurrent.U.items()}
        return made

    def product_vjp(self, gates: str, d_u: list[Tensor]) -> Tensor:
        return self.dropped(gates, beside(d_u) @ self.U_T[gates])


class _OnlyByProduct(dict):
    """In the place of the kernel, where what a step does with it has to be known."""

    def __missing__(self, gates: str) -> Tensor:
        raise ValueError(
            "A step multiplies with its recurrent kernel by recurrent.product(gates, "
            f"h); that of recurrent.U[{gates!r}] would have no gradient."
        )


class NotedRecurrence(Recurrence):
    """Notes what the joint products are, by their gates."""

    def __new__(cls, recurrent: Recurrence) -> "NotedRecurrence":
        hidden = recurrent._replace(U=_OnlyByProduct(), b_U=None)
        made = super().__new__(cls, *hidden)
        made.recurrent, made.noted = recurrent, {}
        return made

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        if gates in self.noted:
            raise ValueError(
                f"A step multiplies with the kernel of a product once; {gates!r} was "
                "multiplied before. Each further one has columns of its own: name it "
                "in `gates` and `products`."
            )
        if gates not in self.recurrent.U:
            raise ValueError(
                f"A step multiplies with one of its cell's products, "
                f"{tuple(self.recurrent.U)}. Received: {gates!r}"
            )
        self.noted[gates] = self.recurrent.joint_product(gates, h)
        return self.noted[gates]


class KnownRecurrence(Recurrence):
    """Multiplies nothing: the joint products are known. Their gradients are as ever.

    Args:
        recurrent: What would multiply, and does on the way backward.
        products: The joint products, by their gates.
        V: The further weights of the step.
        norms: The layer normalizations.
        known: See `AutomaticGradient`.
    """

    def __new__(
        cls,
        recurrent: Recurrence,
        products: dict[str, Tensor],
        V: tuple[Tensor, ...] | None,
        norms: dict[str, Normalization] | None,
        known: Callable,
    ) -> "KnownRecurrence":
        hidden = recurrent._replace(U=_OnlyByProduct(), b_U=None, V=V, norms=norms)
        made = super().__new__(cls, *hidden)
        made.recurrent, made.products, made.known = recurrent, products, known
        made.multiplied = {}
        return made

    def joint_product(self, gates: str, h: Tensor) -> Tensor:
        self.multiplied[gates] = self.dropped(gates, h)

        def pullback(d_u: Tensor) -> Tensor:
            d = ops.split(d_u, len(gates), axis=-1) if len(gates) > 1 else [d_u]
            return self.recurrent.product_vjp(gates, d)

        return self.known(h, self.products[gates], pullback)


def project(
    inputs: Tensor, W: Tensor, b: Tensor | None, norm: Normalization | None
) -> Tensor:
    """`W x + b` of inputs `(..., input_dim)`, `(..., n * units)`."""
    x = inputs @ W  # not ops.matmul, which is of float32 at most on PyTorch
    x = x if norm is None else norm(x)
    return x if b is None else x + b


def zoned(zone: list[Tensor], old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    """The new states, but for the shares of the old ones that zoneout keeps."""
    of_states = zip(zone, old, new, strict=True)
    return [z * old + (1 - z) * new for z, old, new in of_states]


def beside(by_gate: list[Tensor]) -> Tensor:
    """Gates beside each other, `(..., n * units)`."""
    return by_gate[0] if len(by_gate) == 1 else ops.concatenate(by_gate, axis=-1)
