"""The copies of a model that are trained together, as what they share asks for them.

On JAX a program sees the batches of all copies; here there is one then. On TensorFlow
and PyTorch each copy sees its own rows of a batch, and whatever belongs to the whole
batch is summed here: by the processes of `keras_gated.distribution`, or within
`tf.distribute.MirroredStrategy` by its replicas.
"""

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras_gated.distribution.engines import Engine

Tensor = Any
"""A tensor of the Keras backend in use."""

processes: "Engine | None" = None
"""What connects this process to others that train with it; `None` if it is alone."""


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return processes is None or processes.index == 0


def wait() -> None:
    """Returns when all processes have come here."""
    if processes is not None:
        processes.wait()


def count() -> int:
    """The number of copies that see each its own rows of a batch."""
    if processes is not None and not processes.sees_all:
        return processes.count
    return 1 if (own := in_strategy()) is None else own.num_replicas_in_sync


def index() -> int | Tensor:
    """The number of this copy, from 0: the place of its rows in the batch."""
    if processes is not None and not processes.sees_all:
        return processes.index
    return 0 if (own := in_strategy()) is None else own.replica_id_in_sync_group


def total(values: Tensor) -> Tensor:
    """The sum over all copies, which must come here in the same order.

    Args:
        values: Of any shape; no gradient passes.
    """
    if processes is not None and not processes.sees_all:
        return processes.total(values)
    own = in_strategy()
    return values if own is None else own.all_reduce("SUM", values)


def in_strategy() -> Any:
    """The context of a replica of `tf.distribute`, if there are several."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None
