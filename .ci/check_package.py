"""Run by `make package` where only the built package is installed, no extra."""

import importlib.util
import sys

import keras
import numpy as np

import keras_gated
from keras_gated.datasets import bach_chorales, piano_roll

assert "site-packages" in keras_gated.__file__, keras_gated.__file__
for package in ("music21", "pretty_midi", "matplotlib", "tensorboard", "pytest"):
    assert importlib.util.find_spec(package) is None, f"{package} is no dependency"
try:
    bach_chorales.load_data(cache_dir="/nonexistent")
    sys.exit("load_data works without music21")
except ImportError as error:
    if "keras-gated[examples]" not in str(error):
        raise

rolls = [np.eye(12, 88), np.eye(20, 88)]
model = keras.Sequential(
    [
        keras.Input((None, 88)),
        keras_gated.GRU(8, return_sequences=True, use_fast_loop=True),
        keras.layers.Dense(88),
    ]
)
model.compile(
    "rmsprop",
    keras_gated.losses.BernoulliNLL(),
    weighted_metrics=[keras_gated.metrics.FrameNLL()],
)
history = model.fit(piano_roll.next_step_dataset(rolls, 2), epochs=2, verbose=0).history
assert history["frame_nll"][1] < history["frame_nll"][0]
assert keras_gated.generation.generate(model, rolls[0], 4).shape == (4, 88)
print(f"keras_gated {keras_gated.__version__} works as installed, without extras.")
