"""A joint distribution over the keys of a binary frame, as the output of a model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.datasets import checks
from keras_gated.nade.hidden_units import of_hidden_units
from keras_gated.nade.windows import KeyWindows

Tensor = Any

ORDERS = ("descending", "ascending")
IMPOSSIBLE = -1e4
"""The logit of what cannot be."""


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

    With `tied_units` there is a further term, in which all keys share their weights, as
    music is much the same in every register: hidden units that see the keys around each
    one, d keys away, in the frame, if they are before it in the order, and in what is
    known before it, x (a convolutional NADE, Uria et al. 2016; on music, Johnson 2017:
    Generating polyphonic music using tied parallel networks):

        logit_j += (v + v_j) · relu(u_j + U h + Σ_d (P_d y_{j+d} + Q_d x_{j+d}))

    With `onsets` a frame says of each key whether it sounds, and in a second half,
    whether it is struck again, which is possible only if it sounds and has sounded in
    the frame before; the logits of what is impossible are -10,000.

    In training all keys are computed at once from the true frame; in `sample` one
    after the other. Logits are in float32 at least, also under mixed precision.

    Args:
        hidden_units: H, the number of hidden units of each key, or 0. Default: 64.
        linear: Whether keys depend on those before them linearly, too. Default:
            `True`.
        order: `"descending"`, from the last key, the highest of a piano roll, to the
            first; `"ascending"`; or a permutation of the numbers of the keys.
            Default: `"descending"`.
        tied_units: The number of units of each key whose weights all keys share.
            Default: 0.
        window: How many keys these see on either side. Default: 24, two octaves.
        dropout: The share of them that is left out in training. Default: 0.2.
        onsets: Whether frames have a second half, of keys that are struck again.
            Default: `False`.
        kernel_initializer: Initializer of B and C. Default: `"glorot_uniform"`.
        key_initializer: Initializer of W and V. Default: normal, with a standard
            deviation of 0.05.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: A list of the features `(..., F)`; the frames of zeros and ones whose
            logits are wanted, `(..., K)`, in training the targets; and, for tied
            units and onsets, what is known of each key before the frame, `(..., R *
            keys)`, such as a `DelayLine` gives. With `onsets`, the first of its R
            rows must be whether keys sounded in the frame before.
        training: Whether to leave out units.

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
        tied_units: int = 0,
        window: int = 24,
        dropout: float = 0.2,
        onsets: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        key_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.hidden_units = checks.whole("hidden_units", hidden_units, 0)
        self.linear = bool(linear)
        self.tied_units = checks.whole("tied_units", tied_units, 0)
        if not (self.hidden_units or self.linear or self.tied_units):
            raise ValueError(
                "Without hidden units, tied units and the linear part the keys are "
                "independent, as those of keras.layers.Dense. Received: "
                "hidden_units=0, linear=False, tied_units=0"
            )
        self.order = _check_order(order)
        if self.tied_units and not isinstance(self.order, str):
            accepted = "'descending' or 'ascending', if there are tied units"
            raise checks.error("order", order, accepted)
        self.window = checks.whole("window", window)
        self.dropout = checks.number("dropout", dropout, low=0, below=1)
        self.onsets = bool(onsets)
        self._marks = 2 if onsets else 1
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if key_initializer is None:
            key_initializer = keras.initializers.RandomNormal(stddev=0.05)
        self.key_initializer = keras.initializers.get(key_initializer)
        if self.tied_units:
            descending = self.order == "descending"
            self.windows = KeyWindows(
                self.tied_units,
                self.window,
                descending,
                self._marks,
                self.dropout,
                dtype=self.variable_dtype,  # logits are in float32 at least
            )

    def build(self, input_shape: Any) -> None:
        features, frames, *known = self._check_inputs(input_shape)
        size, columns, hidden = features[-1], frames[-1], self.hidden_units
        keys = columns // self._marks
        places = _permutation(self.order, keys)
        # All marks of a key come together.
        marks = keys * np.arange(self._marks)
        self._places = (places[:, None] + marks).ravel()
        kernel, key = self.kernel_initializer, self.key_initializer
        self.bias = self.add_weight((columns,), "zeros", name="bias")
        self.kernel = self.add_weight((size, columns), kernel, name="kernel")
        if self.linear:  # [k, j]: of key k on key j; half of them are not used
            self.key_kernel = self.add_weight(
                (columns, columns), "zeros", name="key_kernel"
            )
        if hidden:
            self.hidden_bias = self.add_weight((hidden,), "zeros", name="hidden_bias")
            self.hidden_kernel = self.add_weight(
                (size, hidden), kernel, name="hidden_kernel"
            )
            self.key_input = self.add_weight((columns, hidden), key, name="key_input")
            self.key_output = self.add_weight((columns, hidden), key, name="key_output")
        if self.tied_units:
            rows = known[0][-1] // keys if known else 0
            self.windows.build(size, keys, rows)

    def call(self, inputs: list[Tensor], training: bool = False) -> Tensor:
        features, frames, *known = inputs
        logits, hidden = self._project(features)
        dtype = logits.dtype
        frames, *known = (ops.cast(x, dtype) for x in (frames, *known))
        known = known[0] if known else None
        if self.linear:
            logits = logits + ops.matmul(frames, self._key_kernel(dtype))
        if self.hidden_units:
            parts = (frames, self.key_input, self.key_output)
            axes = (-1, 0, 0)
            parts = (
                ops.cast(ops.take(part, self._places, axis), dtype)
                for part, axis in zip(parts, axes, strict=True)
            )
            nonlinear = of_hidden_units(hidden, *parts, training=training)
            back = np.argsort(self._places)
            logits = logits + ops.take(nonlinear, back, axis=-1)
        if self.tied_units:
            features = ops.cast(features, dtype)
            logits = logits + self.windows(features, frames, known, training=training)
        if self.onsets:
            keys = frames.shape[-1] // 2
            sounding, again = logits[..., :keys], logits[..., keys:]
            possible = frames[..., :keys] * known[..., :keys] > 0
            again = ops.where(possible, again, IMPOSSIBLE)
            logits = ops.concatenate([sounding, again], axis=-1)
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
        known: Tensor | None = None,
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
            known: What is known of each key before the frame, `(..., R * keys)`, if
                the layer is called with it. Default: `None`.

        Returns:
            The frames of zeros and ones, `float32 (..., K)`.

        Raises:
            ValueError: The temperature is negative.
        """
        temperature = checks.number("temperature", temperature, low=0)
        features = ops.convert_to_tensor(features)
        noise = self.noise(ops.shape(features)[:-1], seed)
        return self.from_noise(features, noise, temperature, fixed, known)[0]

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
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A frame for each of the features, from noise, and its logits.

        Args:
            features: `(..., F)`.
            noise: Logistic noise `(..., K)`: a key is on if its logit exceeds it, times
                the temperature.
            temperature: As in `sample`.
            fixed: As in `sample`.
            known: As in `sample`.

        Returns:
            The frames `(..., K)`, and what the layer gives for them, `(..., K)`.
        """
        base, hidden = self._project(features)
        dtype, columns = base.dtype, len(self._places)
        keys = columns // self._marks
        noise = temperature * ops.cast(noise, dtype)
        fixed = -ops.ones_like(base) if fixed is None else ops.cast(fixed, dtype)
        known = None if known is None else ops.cast(known, dtype)
        key_kernel = self._key_kernel(dtype) if self.linear else None
        if self.hidden_units:
            key_input, key_output = (
                ops.cast(kernel, dtype) for kernel in (self.key_input, self.key_output)
            )
        if self.tied_units:
            tied = self.windows.begin(ops.cast(features, dtype), known)
        places = ops.convert_to_tensor(self._places, "int32")

        def draw(number: Tensor, state: tuple) -> tuple:
            frames, logits, *sums = state
            place = places[number]
            logit = ops.take(logits, place, axis=-1)
            if self.hidden_units:
                units = ops.sigmoid(sums[0]) * ops.take(key_output, place, axis=0)
                logit = logit + ops.sum(units, axis=-1)
            if self.tied_units:
                logit = logit + self.windows.logit(tied, frames, place)
            if self.onsets:
                key = place % keys
                both = ops.take(frames, key, axis=-1) * ops.take(known, key, axis=-1)
                possible = (place < keys) | (both > 0)
                logit = ops.where(possible, logit, IMPOSSIBLE)
            mark = ops.take(fixed, place, axis=-1)
            drawn = ops.cast(logit > ops.take(noise, place, axis=-1), dtype)
            key = ops.expand_dims(ops.where(mark < 0, drawn, mark), -1)
            here = ops.one_hot(place, columns, dtype=dtype)
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
        frames, logits, *_ = ops.fori_loop(0, columns, draw, state)
        return frames, logits

    def compute_output_shape(self, input_shape: Any) -> tuple:
        features, frames, *_ = self._check_inputs(input_shape)
        return (*features[:-1], frames[-1])

    def _check_inputs(self, shapes: Any) -> tuple:
        """The shapes of features, frames, and what is known before, if anything is."""
        if (
            not isinstance(shapes, list | tuple)
            or len(shapes) not in (2, 3)
            or not all(isinstance(shape, list | tuple) for shape in shapes)
            or any(shape[-1] is None for shape in shapes)
            or len({len(shape) for shape in shapes}) != 1
        ):
            raise ValueError(
                "NADE is called on a list of two tensors, features (..., F) and frames "
                "(..., K), or three, with what is known of each key before the frame "
                f"(..., R * keys). Received shapes: {shapes}"
            )
        keys, odd = divmod(shapes[1][-1], self._marks)
        if odd or any(known[-1] % keys for known in shapes[2:]):
            raise ValueError(
                "Frames must have a column for each key, or two with onsets=True, and "
                "what is known before a multiple of the number of keys. Received "
                f"shapes: {shapes}, onsets={self.onsets}"
            )
        if len(shapes) == 3 and not (self.onsets or self.tied_units):
            raise ValueError(
                "Without tied units NADE has no use for what is known before the "
                f"frame. Received shapes: {shapes}, tied_units=0"
            )
        if self.onsets and len(shapes) < 3:
            raise ValueError(
                "With onsets=True NADE must be called on features, frames, and what is "
                "known before the frame: first of all, whether keys sounded before. "
                f"Received shapes: {shapes}"
            )
        return tuple(shapes)

    def compute_mask(self, inputs: list[Tensor], mask: Any = None) -> Any:
        masks = mask if isinstance(mask, list | tuple) else [mask]
        return next((some for some in masks if some is not None), None)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "linear": self.linear,
            "order": self.order,
            "tied_units": self.tied_units,
            "window": self.window,
            "dropout": self.dropout,
            "onsets": self.onsets,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "key_initializer": keras.initializers.serialize(self.key_initializer),
        }


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


def head_of(model: keras.Model) -> NADE | None:
    """The `NADE` that a model ends in, if it does."""
    last = model.layers[-1] if model.layers else None
    return last if isinstance(last, NADE) else None
