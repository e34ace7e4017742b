"""Makes addons.npz: what cells of TensorFlow Addons compute.

Addons needs an environment of its own, with Python 3.11 or older:

    pip install 'tensorflow==2.15.*' 'tensorflow-addons==0.23.0'
    python tests/layers/make_addons.py
"""

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

CELLS = {
    "peephole": tfa.rnn.PeepholeLSTMCell(4),
    "layer_norm_lstm": tfa.rnn.LayerNormLSTMCell(4),
    "layer_norm_lstm_without_bias": tfa.rnn.LayerNormLSTMCell(4, use_bias=False),
    "layer_norm_simple": tfa.rnn.LayerNormSimpleRNNCell(4),
    "layer_norm_simple_without_bias": tfa.rnn.LayerNormSimpleRNNCell(4, use_bias=False),
}

random = np.random.default_rng(1)
x = random.normal(size=(2, 5, 3)).astype("float32")
made = {"x": x, "versions": f"tensorflow {tf.__version__}, {tfa.__version__}"}
for name, cell in CELLS.items():
    layer = tf.keras.layers.RNN(cell, return_sequences=True, return_state=True)
    layer(x)
    weights = [
        (0.7 * random.normal(size=w.shape) + ("gamma" in w.name)).astype("float32")
        for w in layer.weights
    ]
    layer.set_weights(weights)
    for k, output in enumerate(layer(x)):
        made[f"{name}/output_{k}"] = np.array(output)
    for k, weight in enumerate(layer.get_weights()):
        made[f"{name}/weight_{k}"] = weight
    print(name, [w.name for w in layer.weights])
np.savez_compressed(pathlib.Path(__file__).with_name("addons.npz"), **made)
