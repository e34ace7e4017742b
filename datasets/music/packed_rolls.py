"""What a piano roll is, and how it is packed: a bit for each key."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

LOWEST_PITCH = 21
"""The MIDI pitch of a piano's lowest key, A0."""
KEYS = 88
"""The number of a piano's keys."""


def check_roll(roll: Any, name: str) -> np.ndarray:
    """Checks a piano roll.

    Args:
        roll: An array `[T, 88]` of zeros and ones.
        name: The name of the roll in the error.

    Returns:
        `uint8 [T, 88]`.

    Raises:
        ValueError: It is something else; the message says what.
    """
    array = np.asarray(roll)
    if array.ndim != 2 or array.shape[1] != KEYS:
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}]. Received: {name} of shape "
            f"{list(array.shape)}"
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        strange = array[~np.isin(array, (0, 1))].flat[0]
        raise ValueError(
            "A piano roll holds only zeros and ones (binarize velocities first). "
            f"Received: {name} with the value {strange!r}"
        )
    return array.astype(np.uint8)


PACKED = KEYS // 8
"""Bytes of a packed step."""


def pack(roll: np.ndarray) -> bytes:
    """Packs a roll into eleven bytes per step, one bit per key.

    Args:
        roll: `[T, 88]`, zeros and ones.

    Returns:
        The bytes; `PackedRolls` unpacks them.
    """
    return np.packbits(np.asarray(roll, bool), axis=1).tobytes()


class PackedRolls(Sequence):
    """Rolls in an eighth of their memory, each unpacked when it is accessed.

    Args:
        packed: The packed rolls, as `pack` returns them.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> rolls = piano_roll.PackedRolls([piano_roll.pack(np.eye(88))])
    >>> len(rolls), rolls.lengths, rolls[0].shape
    (1, [88], (88, 88))
    """

    def __init__(self, packed: Iterable[bytes]) -> None:
        self.packed = list(packed)

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each roll."""
        return [len(data) // PACKED for data in self.packed]

    def take(self, members: Iterable[int]) -> "PackedRolls":
        """Selects some of the rolls.

        Args:
            members: The numbers of the rolls.
        """
        return PackedRolls(self.packed[i] for i in members)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> np.ndarray:
        data = np.frombuffer(self.packed[index], np.uint8).reshape(-1, PACKED)
        return np.unpackbits(data, axis=1)


def unpack_bits(octets: "tf.Tensor") -> "tf.Tensor":
    """Unpacks steps in TensorFlow.

    Args:
        octets: `uint8 (..., 11)`, packed as by `pack`.

    Returns:
        `uint8 (..., 88)`.
    """
    # Not by `require`, about which AutoGraph would warn.
    import tensorflow as tf

    places = tf.constant([*range(7, -1, -1)], tf.uint8)
    bits = tf.bitwise.right_shift(octets[..., None], places) & 1
    return tf.reshape(bits, tf.concat([tf.shape(octets)[:-1], [KEYS]], axis=0))
