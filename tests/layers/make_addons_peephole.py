"""Makes addons_peephole.npz: what TensorFlow Addons' own cell computes.

Addons needs an environment of its own, with Python 3.11 or older:

    pip install 'tensorflow==2.15.*' 'tensorflow-addons==0.23.0'
    python tests/layers/make_addons_peephole.py
"""

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

random = np.random.default_rng(1)
x = random.normal(size=(2, 5, 3)).astype("float32")
layer = tf.keras.layers.RNN(
    tfa.rnn.PeepholeLSTMCell(4), return_sequences=True, return_state=True
)
layer(x)
weights = [0.7 * random.normal(size=w.shape).astype("float32") for w in layer.weights]
layer.set_weights(weights)
y, h, c = (np.array(output) for output in layer(x))
np.savez(
    pathlib.Path(__file__).with_name("addons_peephole.npz"),
    x=x,
    y=y,
    h=h,
    c=c,
    activation=layer.cell.recurrent_activation.__name__,
    versions=f"tensorflow {tf.__version__}, tensorflow_addons {tfa.__version__}",
    **{f"weight_{k}": weight for k, weight in enumerate(weights)},
)
