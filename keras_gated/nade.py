"""A joint distribution over the keys of a binary frame, as the output of a model."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.datasets import checks

Tensor = Any

ORDERS = ("descending", "ascending")
KEYS_AT_A_TIME = 8
"""Hidden units of so many keys are in memory together, while a model is trained."""


@keras.saving.register_keras_serializable(package="keras_gated")
class NADE(keras.layers.Layer):
    """Gives the logits of each key of a frame, given the keys before it in an order.

    This is the output layer of a recurrent model of whole frames. Independent keys,
    the logits of `keras.layers.Dense`, say how likely each key is, but not which sound
    together; this layer factorizes the joint probability of a frame y,
    `p(y) = Π_j p(y_j | keys before j)`, so that the sum of the binary cross-entropies
    of its logits, `losses.BernoulliNLL`, is the exact negative log-likelihood. With
    the features h, and sums over the keys k before j:

        a_j = b + B h + Σ_k W_k y_k
        logit_j = c_j + C_j h + Σ_k A_jk y_k + V_j σ(a_j)

    `hidden_units=0` leaves out the last term: the linear autoregressive model, a fully
    visible sigmoid belief network (Frey, Graphical Models for Machine Learning and
    Digital Communication, 1998). `linear=False` leaves out A: the neural autoregressive
    distribution estimator (Larochelle and Murray 2011), which Boulanger-Lewandowski et
    al. (2012) put on a recurrent network (RNN-NADE).

    In training all keys are computed at once from the true frame; in `sample` one
    after the other. Logits are in float32 at least, also under mixed precision.

    Args:
        hidden_units: H, the number of hidden units of each key, or 0. Default: 64.
        linear: Whether keys depend on those before them linearly, too. Default:
            `True`.
        order: `"descending"`, from the last key, the highest of a piano roll, to the
            first; `"ascending"`; or a permutation of the numbers of the keys.
            Default: `"descending"`.
        kernel_initializer: Initializer of B and C. Default: `"glorot_uniform"`.
        key_initializer: Initializer of W and V. Default: normal, with a standard
            deviation of 0.05.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: A list of the features `(..., F)`, and the frames of zeros and ones
            whose logits are wanted, `(..., K)`: in training the targets.

    Returns:
        The logits, `(..., K)`; that of a key does not depend on the keys at or after
        it in the order.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU, NADE, losses
    >>> inputs, targets = keras.Input((None, 88)), keras.Input((None, 88))
    >>> features = GRU(16, return_sequences=True)(inputs)
    >>> model = keras.Model([inputs, targets], NADE(8)([features, targets]))
    >>> model.compile("adam", losses.BernoulliNLL())
    >>> roll = np.zeros((1, 9, 88))
    >>> model.predict([roll[:, :-1], roll[:, 1:]], verbose=0).shape
    (1, 8, 88)
    """

    def __init__(
        self,
        hidden_units: int = 64,
        linear: bool = True,
        order: str | Sequence[int] = "descending",
        kernel_initializer: Any = "glorot_uniform",
        key_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.hidden_units = checks.whole("hidden_units", hidden_units, 0)
        self.linear = bool(linear)
        if not (self.hidden_units or self.linear):
            raise ValueError(
                "Without hidden units and without the linear part the keys are "
                "independent, as those of keras.layers.Dense. Received: "
                "hidden_units=0, linear=False"
            )
        self.order = _check_order(order)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if key_initializer is None:
            key_initializer = keras.initializers.RandomNormal(stddev=0.05)
        self.key_initializer = keras.initializers.get(key_initializer)

    def build(self, input_shape: Any) -> None:
        features, frames = _check_inputs(input_shape)
        size, keys, hidden = features[-1], frames[-1], self.hidden_units
        self._places = _permutation(self.order, keys)
        kernel, key = self.kernel_initializer, self.key_initializer
        self.bias = self.add_weight((keys,), "zeros", name="bias")
        self.kernel = self.add_weight((size, keys), kernel, name="kernel")
        if self.linear:  # [k, j]: of key k on key j; half of them are not used
            self.key_kernel = self.add_weight((keys, keys), "zeros", name="key_kernel")
        if hidden:
            self.hidden_bias = self.add_weight((hidden,), "zeros", name="hidden_bias")
            self.hidden_kernel = self.add_weight(
                (size, hidden), kernel, name="hidden_kernel"
            )
            self.key_input = self.add_weight((keys, hidden), key, name="key_input")
            self.key_output = self.add_weight((keys, hidden), key, name="key_output")

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, frames = inputs
        logits, hidden = self._project(features)
        frames = ops.cast(frames, logits.dtype)
        if self.linear:
            logits = logits + ops.matmul(frames, self._key_kernel(logits.dtype))
        if self.hidden_units:
            parts = (frames, self.key_input, self.key_output)
            axes = (-1, 0, 0)
            parts = (
                ops.cast(ops.take(part, self._places, axis), logits.dtype)
                for part, axis in zip(parts, axes, strict=True)
            )
            nonlinear = _compiled_for_tensorflow()(hidden, *parts)
            back = np.argsort(self._places)
            logits = logits + ops.take(nonlinear, back, axis=-1)
        return logits

    def _project(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What depends on the features alone.

        Returns:
            The parts of the logits, `(..., K)`, and of the hidden units, `(..., H)`.
        """

        def project(kernel: Tensor, bias: Tensor) -> Tensor:
            projected = ops.matmul(features, kernel) + bias
            double = keras.backend.standardize_dtype(projected.dtype) == "float64"
            return projected if double else ops.cast(projected, "float32")

        logits = project(self.kernel, self.bias)
        if not self.hidden_units:
            return logits, None
        return logits, project(self.hidden_kernel, self.hidden_bias)

    def _key_kernel(self, dtype: str) -> Tensor:
        rank = np.argsort(self._places)
        before = rank[:, None] < rank
        return ops.cast(self.key_kernel, dtype) * ops.cast(before, dtype)

    def sample(
        self,
        features: Tensor,
        seed: Any = None,
        temperature: float = 1.0,
        fixed: Tensor | None = None,
    ) -> Tensor:
        """Draws a frame for each of the features, key by key.

        Args:
            features: `(..., F)`.
            seed: An integer or a `keras.random.SeedGenerator`. Default: `None`.
            temperature: Divides the logits: below 1 likely keys become likelier, and 0
                plays exactly the keys that are more likely than not, given those
                before them. Default: 1.
            fixed: `(..., K)`: 1 for keys that are on, 0 for those that are off, and -1
                for those that are drawn. Default: `None`, all are drawn.

        Returns:
            The frames of zeros and ones, `float32 (..., K)`.

        Raises:
            ValueError: The temperature is negative.
        """
        temperature = checks.number("temperature", temperature, low=0)
        features = ops.convert_to_tensor(features)
        noise = self.noise(ops.shape(features)[:-1], seed)
        return self.from_noise(features, noise, temperature, fixed)[0]

    def noise(self, shape: tuple, seed: Any = None) -> Tensor:
        """The noise from which `from_noise` makes samples.

        Args:
            shape: The shape of the frames without their last axis.
            seed: As in `sample`.

        Returns:
            Logistic noise, `(*shape, K)`.
        """
        shape, tiny = (*shape, len(self._places)), np.finfo("float32").tiny
        uniform = keras.random.uniform(shape, minval=tiny, dtype="float32", seed=seed)
        return ops.log(uniform) - ops.log1p(-uniform)

    def from_noise(
        self,
        features: Tensor,
        noise: Tensor,
        temperature: float = 1.0,
        fixed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A frame for each of the features, from noise, and its logits.

        Args:
            features: `(..., F)`.
            noise: Logistic noise `(..., K)`: a key is on if its logit exceeds it, times
                the temperature.
            temperature: As in `sample`.
            fixed: As in `sample`.

        Returns:
            The frames `(..., K)`, and what the layer gives for them, `(..., K)`.
        """
        base, hidden = self._project(features)
        dtype, keys = base.dtype, len(self._places)
        noise = temperature * ops.cast(noise, dtype)
        fixed = -ops.ones_like(base) if fixed is None else ops.cast(fixed, dtype)
        key_kernel = self._key_kernel(dtype) if self.linear else None
        if self.hidden_units:
            key_input, key_output = (
                ops.cast(kernel, dtype) for kernel in (self.key_input, self.key_output)
            )
        places = ops.convert_to_tensor(self._places, "int32")

        def draw(number: Tensor, state: tuple) -> tuple:
            frames, logits, *sums = state
            place = places[number]
            logit = ops.take(logits, place, axis=-1)
            if self.hidden_units:
                units = ops.sigmoid(sums[0]) * ops.take(key_output, place, axis=0)
                logit = logit + ops.sum(units, axis=-1)
            mark = ops.take(fixed, place, axis=-1)
            drawn = ops.cast(logit > ops.take(noise, place, axis=-1), dtype)
            key = ops.expand_dims(ops.where(mark < 0, drawn, mark), -1)
            here = ops.one_hot(place, keys, dtype=dtype)
            frames = frames + key * here
            rise = (ops.expand_dims(logit, -1) - logits) * here
            logits = logits + rise
            if self.linear:
                logits = logits + key * ops.take(key_kernel, place, axis=0)
            if self.hidden_units:
                sums = [sums[0] + key * ops.take(key_input, place, axis=0)]
            return (frames, logits, *sums)

        state = (ops.zeros_like(base), base)
        state += (hidden,) if self.hidden_units else ()
        frames, logits, *_ = ops.fori_loop(0, keys, draw, state)
        return frames, logits

    def compute_output_shape(self, input_shape: Any) -> tuple:
        features, frames = _check_inputs(input_shape)
        return (*features[:-1], frames[-1])

    def compute_mask(self, inputs: list[Tensor], mask: Any = None) -> Any:
        masks = mask if isinstance(mask, list | tuple) else [mask]
        return next((some for some in masks if some is not None), None)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "linear": self.linear,
            "order": self.order,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "key_initializer": keras.initializers.serialize(self.key_initializer),
        }


def _of_hidden_units(
    hidden: Tensor, frames: Tensor, key_input: Tensor, key_output: Tensor
) -> Tensor:
    """The sums over hidden units in the logits of keys, which are in their order.

    Args:
        hidden: What the hidden units are before the first key, `(..., H)`.
        frames: `(..., K)`.
        key_input: W, `(K, H)`.
        key_output: V, `(K, H)`.

    Returns:
        `(..., K)`.
    """

    def some_keys(hidden: Tensor, frames: Tensor, W: Tensor, V: Tensor) -> tuple:
        # Before the first key, and after each.
        added = [ops.expand_dims(hidden, -2), ops.expand_dims(frames, -1) * W]
        sums = ops.cumsum(ops.concatenate(added, axis=-2), axis=-2)
        units = ops.sigmoid(sums[..., :-1, :])
        return ops.sum(units * V, axis=-1), sums[..., -1, :]

    if hasattr(keras, "remat"):  # from Keras 3.9 on; without it, memory grows with K
        some_keys = keras.remat(some_keys)
    logits = []
    for begin in range(0, key_input.shape[0], KEYS_AT_A_TIME):
        end = begin + KEYS_AT_A_TIME
        part, hidden = some_keys(
            hidden, frames[..., begin:end], key_input[begin:end], key_output[begin:end]
        )
        logits.append(part)
    return ops.concatenate(logits, axis=-1)


@functools.cache
def _compiled_for_tensorflow() -> Callable:
    """`_of_hidden_units`, by XLA on TensorFlow, which is three times as fast.

    Keras does not compile models by default there; on JAX it does.
    """
    if keras.config.backend() != "tensorflow":
        return _of_hidden_units
    import tensorflow as tf

    return tf.function(_of_hidden_units, jit_compile=True, autograph=False)


def _check_order(order: Any) -> str | list[int]:
    if isinstance(order, str) and order in ORDERS:
        return order
    numbers = [] if isinstance(order, str) else np.asarray(order).ravel().tolist()
    if not numbers or sorted(numbers) != list(range(len(numbers))):
        accepted = "'descending', 'ascending' or a permutation of the keys' numbers"
        raise checks.error("order", order, accepted)
    return [int(number) for number in numbers]


def _permutation(order: str | list[int], keys: int) -> np.ndarray:
    """The numbers of the keys in their order."""
    if isinstance(order, str):
        numbers = np.arange(keys)
        return numbers[::-1].copy() if order == "descending" else numbers
    if len(order) != keys:
        raise checks.error("order", order, f"a permutation of {keys} numbers")
    return np.array(order)


def _check_inputs(shapes: Any) -> tuple:
    """The shapes of features and frames."""
    if (
        not isinstance(shapes, list | tuple)
        or len(shapes) != 2
        or not all(isinstance(shape, list | tuple) for shape in shapes)
        or shapes[0][-1] is None
        or shapes[1][-1] is None
        or len(shapes[0]) != len(shapes[1])
    ):
        raise ValueError(
            "NADE is called on a list of two tensors, features (..., F) and frames "
            f"(..., K). Received shapes: {shapes}"
        )
    return shapes
