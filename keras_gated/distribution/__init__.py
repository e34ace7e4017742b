"""Training by several processes, on one machine or many, as by one."""

from keras_gated.distribution.launcher import launch
from keras_gated.distribution.workers import Workers, initialize

__all__ = ["Workers", "initialize", "launch"]
