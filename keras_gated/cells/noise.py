"""Normal noise, drawn fast."""

import keras
from keras import ops

from keras_gated.cells.equations import Tensor


def normal(
    shape: tuple[int, ...],
    stddev: float,
    dtype: str,
    seed: keras.random.SeedGenerator,
) -> Tensor:
    """`keras.random.normal`, in a twentieth of its time where XLA compiles for a CPU.

    There TensorFlow leaves the choice of the generator to the compiled code, unless
    it is named; it is the same in the end, and so are the numbers.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.random.normal(shape, stddev=stddev, dtype=dtype, seed=seed)
    import tensorflow as tf

    # As Keras makes it what XLA takes.
    state = ops.cast(seed.next() % (tf.int32.max - 1), "int32")
    return tf.random.stateless_normal(
        shape, state, stddev=stddev, dtype=dtype, alg="philox"
    )
