"""A model of whole frames of music: keys that sound together are drawn together."""

import keras

import keras_gated
from comparison.music import likelihood
from comparison.training import Settings
from keras_gated import losses
from keras_gated.datasets import midi, piano_roll

JOINT = "joint"
"""The name of the model."""
DROPOUT = 0.5
HIDDEN_UNITS = 64


def build_joint(settings: Settings, encoding: keras_gated.RollEncoding) -> keras.Model:
    """A GRU with NADE as its output, compiled.

    Args:
        settings: What to train with; `units` are the GRU's.
        encoding: How the music was read, which the model file says to who loads it:
            also whether frames have onsets, and what the model is told besides.

    Returns:
        A model of `[frames, next frames]`, and features if there are any, as
        `next_step_dataset` gives them with `teacher_forcing`.
    """
    keras.utils.set_random_seed(settings.seed)
    width = 2 * piano_roll.KEYS if encoding.onsets else piano_roll.KEYS
    frames, following = (
        keras.Input((None, width), name=name) for name in ("frames", "next_frames")
    )
    told = []
    if encoding.features:
        size = max(x.stop for x in midi.feature_columns(encoding.features).values())
        told = [keras.Input((None, size), name="features")]
    x = (
        keras.layers.Concatenate()([encoding(frames), *told])
        if told
        else encoding(frames)
    )
    x = keras_gated.GRU(
        settings.units, weight_noise=settings.weight_noise, return_sequences=True
    )(x)
    x = keras.layers.Dropout(DROPOUT, seed=settings.seed)(x)
    if told:
        x = keras.layers.Concatenate()([x, *told])
    logits = keras_gated.NADE(HIDDEN_UNITS)([x, following])
    model = keras.Model([frames, following, *told], logits, name=JOINT)
    *_, metrics = likelihood()
    model.compile(
        keras.optimizers.Adam(settings.learning_rate, global_clipnorm=1.0),
        losses.BernoulliNLL(),
        weighted_metrics=metrics,
    )
    print(f"\n{JOINT}: a GRU of {settings.units} units and NADE of {HIDDEN_UNITS}")
    return model
