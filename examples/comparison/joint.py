"""A model of whole frames of music: keys that sound together are drawn together."""

import keras

import keras_gated
from comparison.music import likelihood
from comparison.training import Settings
from keras_gated import CELLS, NADE, losses
from keras_gated.datasets import piano_roll

JOINT = "joint"
"""The name of the model in the demo."""
HEADS = {
    "independent": None,
    "linear": {"hidden_units": 0},
    "nade": {"hidden_units": 64},
    "tied": {"hidden_units": 64, "tied_units": 48},
}
"""The outputs by name, with their arguments of `NADE`: every key for itself, the linear
autoregressive model, NADE, and NADE with units that are tied over keys."""
DELAYS = 0, 1, 2, 4
"""The steps before a frame that tied units see, from the last one back."""


def build_joint(
    settings: Settings,
    encoding: keras_gated.RollEncoding | None = None,
    cell: str = "gru",
) -> keras.Model:
    """A cell and an output, compiled with Adam.

    Args:
        settings: What to train with; `head` is the output's name in `HEADS`.
        encoding: How the music was read, which the model file says to who loads it.
            Default: `None`, it is not said.
        cell: The name of the cell in `CELLS`. Default: `"gru"`.

    Returns:
        A model of frames if the output is independent; else one of `[frames, next
        frames]`, as `next_step_dataset` gives them with `teacher_forcing`.
    """
    keras.utils.set_random_seed(settings.seed)
    frames, following = (
        keras.Input((None, piano_roll.KEYS), name=name)
        for name in ("frames", "next_frames")
    )
    x = frames if encoding is None else encoding(frames)
    made = CELLS[cell](settings.units, weight_noise=settings.weight_noise)
    x = keras_gated.RNN(made, return_sequences=True)(x)
    x = keras.layers.Dropout(settings.dropout, seed=settings.seed)(x)
    head, inputs = HEADS[settings.head], [frames, following]
    if head is None:
        inputs, logits = frames, keras.layers.Dense(piano_roll.KEYS)(x)
    else:
        known = [keras_gated.DelayLine(DELAYS)(frames)] if "tied_units" in head else []
        logits = NADE(**head, dropout=settings.tied_dropout)([x, following, *known])
    model = keras.Model(inputs, logits, name=JOINT)
    *_, metrics = likelihood()
    model.compile(
        keras.optimizers.Adam(
            settings.learning_rate, global_clipnorm=settings.gradient_norm
        ),
        losses.BernoulliNLL(),
        weighted_metrics=metrics,
    )
    print(f"\n{model.name}: {cell} of {settings.units} units, {settings.head} output")
    return model
