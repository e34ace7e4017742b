"""What the frames of a model stand for, kept in the model."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import keras

from keras_gated.datasets import checks
from keras_gated.datasets.music.grid import rate
from keras_gated.datasets.music.step_features import check_kinds


@keras.saving.register_keras_serializable(package="keras_gated")
class RollEncoding(keras.layers.Layer):
    """Says how music was made into the frames that a model takes; changes nothing.

    Put after the input of a model, it is saved with it, so that whoever loads the model
    reads music in the way in which it was trained.

    Args:
        steps_per_quarter: Steps in a quarter note: a positive number, a fraction, or
            its text. Default: 2.
        transpose: How the music was transposed: semitones, or `"C"`, to C major or
            C minor, as in `datasets.midi.Options`. Default: 0.
        onsets: Whether frames have 88 more columns, ones where a key that sounds
            already is struck again. Default: `False`.
        features: What the model is told of each step besides, as in
            `datasets.midi.Options`: some of `"meter"` and `"key"`. Default: `()`.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Frames, of any shape.

    Returns:
        The frames.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras
    >>> from keras_gated import GRU, RollEncoding
    >>> model = keras.Sequential([
    ...     keras.Input((None, 88)),
    ...     RollEncoding(steps_per_quarter="4/3"),
    ...     GRU(16, return_sequences=True),
    ...     keras.layers.Dense(88),
    ... ])
    >>> RollEncoding.of(model).steps_per_quarter
    Fraction(4, 3)
    """

    def __init__(
        self,
        steps_per_quarter: int | Fraction | str = 2,
        transpose: int | str = 0,
        onsets: bool = False,
        features: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.steps_per_quarter = rate(steps_per_quarter)
        if transpose != "C":
            transpose = checks.whole("transpose", transpose, -127)
        self.transpose = transpose
        self.onsets = checks.one_of("onsets", onsets, (False, True))
        self.features = check_kinds("features", features)

    @staticmethod
    def of(model: keras.Model) -> "RollEncoding | None":
        """The encoding of a model, or `None` if it does not say.

        Args:
            model: The model.
        """
        layers = (layer for layer in model.layers if isinstance(layer, RollEncoding))
        return next(layers, None)

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "steps_per_quarter": str(self.steps_per_quarter),
            "transpose": self.transpose,
            "onsets": self.onsets,
            "features": [*self.features],
        }
