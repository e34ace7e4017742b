"""Music: what is read of a folder, how the next frame is predicted, the batches."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from keras_gated import losses, metrics
from keras_gated.datasets import bach_chorales, midi, midi_directory, piano_roll

if TYPE_CHECKING:
    import tensorflow as tf

Rolls = bach_chorales.Splits
"""The rolls of training, validation and test."""

MAX_SHAPES = 12
"""The most shapes of batches. Each is compiled, which pays if lengths differ a lot."""


REPEATED = 0.02
"""From this share of repeated notes that touch on, the model of whole frames tells
them from held ones."""
STATED = 0.5
"""From more than this share of files that state their meter, or their key, on, it is
told them."""


class Music(NamedTuple):
    """What models are trained on."""

    rolls: Rolls
    """Those of the cells, `[T, 88]`."""
    of_joint: Rolls
    """Those of the model of whole frames: the same, or with onsets."""
    steps_per_quarter: int | Fraction
    """Steps in a quarter note."""
    onsets: bool = False
    """Whether `of_joint` has onsets."""
    kinds: tuple[str, ...] = ()
    """What the model of whole frames is told of each step besides."""
    features: Rolls | None = None
    """That, for each of the rolls."""
    test_file: Path | None = None
    """The file of the first test piece."""

    def continued(self, begun: int, steps: int) -> np.ndarray | None:
        """The features of the beginning of the first test piece, and of what follows.

        Args:
            begun: The steps of the beginning, whose last meter and key go on.
            steps: The number of all steps.
        """
        if not self.kinds:
            return None
        score = midi.read_score(self.test_file)
        end = int(begun * score.ticks_per_quarter / self.steps_per_quarter)
        return score.features(self.kinds, self.steps_per_quarter, steps, before=end)


def read_folder(
    directory: Path,
    steps_per_quarter: int | Fraction | str,
    seed: int,
    joint: bool = True,
) -> Music:
    """Reads a folder of MIDI files: 60 % for training, 20 % for validation and test.

    Args:
        directory: The folder.
        steps_per_quarter: As in `midi.Options`.
        seed: Of the parts.
        joint: Whether to choose, too, what the model of whole frames is told, and to
            print why. Default: `True`.

    Raises:
        ValueError: It does not hold three pieces of two steps or more.
    """
    more = {"onsets": True, "features": ["meter", "key"]} if joint else {}
    corpus = midi_directory.read_directory(
        directory, steps_per_quarter=steps_per_quarter, **more
    )
    grid = corpus.steps_per_quarter
    long = [i for i, length in enumerate(corpus.rolls.lengths) if length > 1]
    if len(long) < 3:
        raise ValueError(
            f"The folder {str(directory)!r} holds {len(long)} MIDI file(s) of two "
            "steps or more; training, validation and test need one each, so 3."
        )
    order = np.random.default_rng(seed).permutation(len(long))
    held_out = max(1, len(long) // 5)
    test, valid, train = np.split(order, [held_out, 2 * held_out])

    def parted(sequences: list) -> Rolls:
        return tuple([sequences[i] for i in part] for part in (train, valid, test))

    wide = [corpus.rolls[i] for i in long]
    rolls = parted([roll[:, : piano_roll.KEYS] for roll in wide])
    if not joint:
        return Music(rolls, rolls, grid)
    onsets, kinds = _choose(wide, corpus)
    told = None
    if kinds:
        where = midi.feature_columns(corpus.features.kinds)
        columns = np.concatenate([np.r_[where[kind]] for kind in kinds])
        told = parted([corpus.features[i][:, columns] for i in long])
    of_joint = parted(wide) if onsets else rolls
    return Music(
        rolls, of_joint, grid, onsets, kinds, told, corpus.paths[long[test[0]]]
    )


def _choose(
    rolls: list[np.ndarray], corpus: midi_directory.Corpus
) -> tuple[bool, tuple[str, ...]]:
    """Whether onsets are worth it, and what most files state; printed with reasons."""
    notes = sum(len(piano_roll.to_notes(roll)) for roll in rolls)
    repeated = sum(int(roll[:, piano_roll.KEYS :].sum()) for roll in rolls)
    onsets = repeated > REPEATED * notes
    files = len(corpus.paths)
    does = "tells them apart, also in its NLL" if onsets else "takes them for one"
    print(
        f"{repeated / notes:.1%} of {notes:,} notes repeat one that they touch: the "
        f"joint model {does}."
    )
    kinds = []
    for kind, count in corpus.stated.items():
        told = count > STATED * files
        kinds += [kind] * told
        print(
            f"{count:,} of {files:,} files state their {kind}: the joint model is "
            f"{'' if told else 'not '}told it."
        )
    return onsets, tuple(kinds)


def likelihood() -> tuple[
    int,
    Callable[[], keras.layers.Layer],
    keras.losses.Loss,
    list[keras.metrics.Metric],
]:
    """The arguments `input_dim`, `head`, `loss`, `metrics` of `comparison.build`.

    Every key of the next frame is a Bernoulli variable of its own.
    """
    return (
        piano_roll.KEYS,
        lambda: keras.layers.Dense(piano_roll.KEYS),
        losses.BernoulliNLL(),
        [
            metrics.FrameNLL(name="nll"),
            metrics.FrameNLL("sequence", name="nll_sequence"),
            metrics.FrameAccuracy(name="accuracy"),
        ],
    )


def batches(
    data: Rolls,
    batch_size: int,
    seed: int,
    sequence_length: int | None = None,
    evaluation_batch_size: int | None = None,
    max_shapes: int = MAX_SHAPES,
    teacher_forcing: bool = False,
    features: Rolls | None = None,
) -> "tuple[tf.data.Dataset, ...]":
    """The data sets of training, validation and test.

    Args:
        data: The rolls.
        batch_size: Sequences per update.
        seed: Of the order of training.
        sequence_length: Cuts the rolls of training into sequences of this many steps;
            validation and test always have whole pieces. Default: `None`, whole ones.
        evaluation_batch_size: Of validation and test: larger ones are faster, and the
            figures do not depend on it. Default: `batch_size`.
        max_shapes: Of batches. Default: 12.
        teacher_forcing: Whether the targets are inputs, too. Default: `False`.
        features: What is known of each step besides, for each of the rolls. Default:
            `None`, nothing.

    Returns:
        As `piano_roll.next_step_dataset` returns them; training is shuffled.
    """
    common = {"seed": seed, "max_shapes": max_shapes}
    common["teacher_forcing"] = teacher_forcing
    known = features or (None, None, None)
    training = piano_roll.next_step_dataset(
        data[0],
        batch_size,
        shuffle=True,
        sequence_length=sequence_length,
        features=known[0],
        **common,
    )
    batch_size = evaluation_batch_size or batch_size
    return (
        training,
        *(
            piano_roll.next_step_dataset(rolls, batch_size, features=told, **common)
            for rolls, told in zip(data[1:], known[1:], strict=True)
        ),
    )
