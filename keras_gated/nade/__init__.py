"""NADE: a joint distribution over the keys of a frame."""

from keras_gated.nade.layer import NADE

__all__ = ["NADE"]
