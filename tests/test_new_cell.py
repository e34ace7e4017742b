"""A new cell is a file and an export: every list of cells then has it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CELL = '''
"""A unit with a gate that no other cell has."""

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import GatedCell
from keras_gated.cells.equations import GatedEquations


class NewEquations(GatedEquations):
    """`u = sigmoid(s x_u + U_u h)`, `h = (1 - u) h + u tanh(x_h + U_h h)`."""

    slope: float

    gates = "uh"
    products = ("u", "h")

    def step(self, x, states, recurrent):
        (h,), (x_u, x_h) = states, x
        u = self.recurrent_activation(self.slope * x_u + recurrent.product("u", h)[0])
        (u_h,) = recurrent.product("h", h)
        h_cand = self.activation(x_h + u_h)
        return [(1 - u) * h + u * h_cand], {"u": u, "h_cand": h_cand}


class NewCell(GatedCell):
    """`NewEquations`."""

    title = "new unit"
    equations_class = NewEquations

    def __init__(self, units, *args, slope=1.0, **kwargs):
        super().__init__(units, *args, **kwargs)
        self.slope = slope

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}
'''

CODE = """
import inspect
import sys

import keras
import numpy as np

import keras_gated

assert list(keras_gated.CELLS)[-1] == "new"
cell_class = keras_gated.CELLS["new"]
assert cell_class is keras_gated.NewCell

layer_class = keras_gated.LAYERS["new"]
assert layer_class is keras_gated.New
parameters = inspect.signature(layer_class).parameters
assert {"slope", "recurrent_activation", "return_sequences"} <= parameters.keys()
layer = layer_class(4, "tanh", "sigmoid", True, slope=0.5, return_sequences=True)
assert (layer.slope, layer.use_bias) == (0.5, True)
x = np.ones((2, 5, 3), "float32")
model = keras.Sequential([keras.Input((5, 3)), layer])
model.compile("sgd", "mse")
model.fit(x, np.ones((2, 5, 4)), verbose=0)
model.save("model.keras")
loaded = keras.saving.load_model("model.keras")
np.testing.assert_array_equal(loaded(x), model(x))
assert loaded.layers[0].slope == 0.5
assert keras_gated.inspection.gates(model, x).keys() == {"u", "candidate"}
try:
    layer_class(4, no_such_argument=1)
except (TypeError, ValueError) as error:
    assert "no_such_argument" in str(error)

LISTS
print("every list has it")
"""

LISTS = """
sys.path += ["examples", "benchmarks"]
import bench
import comparison
from study import trials
from why_tanh import cells

assert all("new" in units for units in bench.UNITS.values())
assert comparison.parser("").parse_args(["--cells", "new"]).cells == ["new"]
assert comparison.title_of("new") == cells.TITLES["new"] == "new unit"
assert "new" in cells.CELLS
assert "new" in trials.Plan().cells
"""


@pytest.mark.slow
def test_every_list_has_a_new_cell(tmp_path):
    for name in ("keras_gated", "examples", "benchmarks", "docs/study"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "datasets", tmp_path / "keras_gated/datasets")
    cells = tmp_path / "keras_gated/cells"
    (cells / "new.py").write_text(CELL)
    export = (cells / "__init__.py").read_text()
    export = export.replace(
        "from keras_gated.cells.tanh",
        "from keras_gated.cells.new import NewCell\nfrom keras_gated.cells.tanh",
    )
    export = export.replace('    "Recurrence",', '    "NewCell",\n    "Recurrence",')
    export = export.replace("\n}\n", '\n    "new": NewCell,\n}\n')
    (cells / "__init__.py").write_text(export)
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("LISTS", LISTS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "every list has it" in done.stdout, done.stderr
