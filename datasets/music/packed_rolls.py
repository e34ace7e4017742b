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
WIDTHS = KEYS, 2 * KEYS
"""The columns of a roll: of the keys; and of the keys, and which are struck again."""


def check_shape(shape: Sequence[int], name: str = "") -> None:
    """Checks the shape of a piano roll.

    Args:
        shape: `(T, 88)`, or `(T, 176)` with onsets.
        name: The name of the roll in the error. Default: none.

    Raises:
        ValueError: It is another.
    """
    if len(shape) != 2 or shape[1] not in WIDTHS:
        of = f"{name} of shape " if name else ""
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}], or [T, {2 * KEYS}] with onsets. "
            f"Received: {of}{list(shape)}"
        )


def check_roll(roll: Any, name: str) -> np.ndarray:
    """Checks a piano roll.

    Args:
        roll: An array `[T, 88]`, or `[T, 176]` with onsets, of zeros and ones.
        name: The name of the roll in the error.

    Returns:
        The roll, `uint8`.

    Raises:
        ValueError: It is something else; the message says what.
    """
    array = np.asarray(roll)
    check_shape(array.shape, name)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        strange = array[~np.isin(array, (0, 1))].flat[0]
        raise ValueError(
            "A piano roll holds only zeros and ones (binarize velocities first). "
            f"Received: {name} with the value {strange!r}"
        )
    return array.astype(np.uint8)


def with_onsets(roll: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Makes a roll with onsets of a roll and the places where notes begin.

    Args:
        roll: `[T, 88]`, not zero where keys sound.
        begins: `[T, 88]`, not zero where notes begin, as `midi.read` and
            `piano_roll.from_notes` return them with `onsets=True`.

    Returns:
        `[T, 176]`, of the dtype of `roll`: beside the roll ones where a key that sounds
        already is struck again. A note after silence has no mark: the roll shows it.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> notes = [(0, 1, 60), (1, 3, 60)]
    >>> both = piano_roll.from_notes(notes, 1, onsets=True)
    >>> roll = piano_roll.with_onsets(*both)
    >>> roll[:, [60 - 21, 88 + 60 - 21]].T.tolist()
    [[1, 1, 1], [0, 1, 0]]
    """
    roll = np.asarray(roll)
    sounding = roll > 0
    before = np.pad(sounding, ((1, 0), (0, 0)))[:-1]
    again = (np.asarray(begins) > 0) & sounding & before
    return np.concatenate([roll, again.astype(roll.dtype)], axis=1)


def halves(roll: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Parts a roll with onsets into the keys and their marks.

    Args:
        roll: `[T, 88]`, or `[T, 176]` with onsets.

    Returns:
        Where keys sound, `[T, 88]`; and where they are struck again, `[T, 88]`, or
        `None` where the roll has no onsets.
    """
    return roll[:, :KEYS], roll[:, KEYS:] if roll.shape[1] > KEYS else None


PACKED = KEYS // 8
"""Bytes of a packed step without onsets."""


def octets(onsets: bool) -> int:
    """The bytes of a packed step.

    Args:
        onsets: Whether the roll has onsets.
    """
    return 2 * PACKED if onsets else PACKED


def pack(roll: np.ndarray) -> bytes:
    """Packs a roll into eleven bytes per step, one bit per key; with onsets into 22.

    Args:
        roll: `[T, 88]`, or `[T, 176]` with onsets, zeros and ones.

    Returns:
        The bytes; `PackedRolls` unpacks them.
    """
    return np.packbits(np.asarray(roll, bool), axis=1).tobytes()


class PackedRolls(Sequence):
    """Rolls in an eighth of their memory, each unpacked when it is accessed.

    Args:
        packed: The packed rolls, as `pack` returns them.
        onsets: Whether they have onsets, all of them. Default: `False`.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> rolls = piano_roll.PackedRolls([piano_roll.pack(np.eye(88))])
    >>> len(rolls), rolls.lengths, rolls[0].shape
    (1, [88], (88, 88))
    """

    def __init__(self, packed: Iterable[bytes], onsets: bool = False) -> None:
        self.packed = list(packed)
        self.onsets = bool(onsets)
        self._octets = octets(onsets)

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each roll."""
        return [len(data) // self._octets for data in self.packed]

    def take(self, members: Iterable[int]) -> "PackedRolls":
        """Selects some of the rolls.

        Args:
            members: The numbers of the rolls.
        """
        return PackedRolls((self.packed[i] for i in members), self.onsets)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> np.ndarray:
        data = np.frombuffer(self.packed[index], np.uint8).reshape(-1, self._octets)
        return np.unpackbits(data, axis=1)


def unpack_bits(packed: "tf.Tensor") -> "tf.Tensor":
    """Unpacks steps in TensorFlow.

    Args:
        packed: `uint8 (..., 11)`, packed as by `pack`, or 22 with onsets.

    Returns:
        `uint8 (..., 88)`, or 176 with onsets.
    """
    # Not by `require`, about which AutoGraph would warn.
    import tensorflow as tf

    places = tf.constant([*range(7, -1, -1)], tf.uint8)
    bits = tf.bitwise.right_shift(packed[..., None], places) & 1
    return tf.reshape(
        bits, tf.concat([tf.shape(packed)[:-1], [8 * packed.shape[-1]]], axis=0)
    )
