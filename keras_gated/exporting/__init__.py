"""Models as files for other programs: ONNX, LiteRT and SavedModel.

docs/exports.md shows how, and says what the inputs and outputs are called.
"""

from keras_gated.exporting.litert_file import to_litert
from keras_gated.exporting.onnx_file import to_onnx
from keras_gated.exporting.saved_model import to_saved_model
from keras_gated.exporting.single_step import SingleStep

__all__ = ["SingleStep", "to_litert", "to_onnx", "to_saved_model"]
