"""The versions of what a result was made with."""

import platform

import keras
import numpy as np

import keras_gated


def versions() -> dict[str, str]:
    """Those that the numbers may depend on, by name."""
    import tensorflow as tf

    return {
        "keras_gated": keras_gated.__version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.config.backend(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
