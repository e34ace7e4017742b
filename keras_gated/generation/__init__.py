"""Sampling from a trained next-step model: frames of music, or sound samples."""

from keras_gated.generation.frames import generate
from keras_gated.generation.sound import generate_audio, stream_audio

__all__ = ["generate", "generate_audio", "stream_audio"]
