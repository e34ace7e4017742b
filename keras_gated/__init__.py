"""Gated recurrent cells and fast layers for Keras 3, and what their study needs."""

from pathlib import Path

import keras  # noqa: F401  (loads its backend, whose version is looked at)

if not (Path(__file__).parent / "datasets").exists():
    # A Python that was started in a checkout found this before what is installed.
    __path__.append(str(Path(__file__).parents[1]))

from keras_gated import versions

versions.check(versions.installed())  # before anything fails without saying why

from keras_gated import (
    callbacks,
    cells,
    datasets,
    distribution,
    exporting,
    generation,
    inspection,
    layers,
    losses,
    metrics,
    optimizers,
    pictures,
)
from keras_gated.cells import *  # noqa: F403
from keras_gated.encoding import RollEncoding
from keras_gated.exporting import to_onnx
from keras_gated.layers import *  # noqa: F403
from keras_gated.mixture import GaussianMixture
from keras_gated.nade import NADE
from keras_gated.sizing import match_units

__version__ = "1.0.0.dev0"

__all__ = [
    "NADE",
    "GaussianMixture",
    "RollEncoding",
    "callbacks",
    "cells",
    "datasets",
    "distribution",
    "exporting",
    "generation",
    "inspection",
    "layers",
    "losses",
    "match_units",
    "metrics",
    "optimizers",
    "pictures",
    "to_onnx",
]
__all__ += cells.__all__
__all__ += layers.__all__
