"""Table 1 of the paper, and the nearest number of units for any budget."""

import keras
import numpy as np
import pytest
from oracles import ROWS

import keras_gated
from keras_gated import GRUCell, LSTMCell, SimplifiedGRUCell, TanhCell, match_units


@pytest.mark.parametrize(
    ("cell_class", "music", "speech"),
    [(LSTMCell, 36, 195), (GRUCell, 46, 227), (TanhCell, 100, 400)],
)
def test_table_1_of_the_paper(cell_class, music, speech):
    assert match_units(cell_class, 20_000, input_dim=100) == music
    assert match_units(cell_class, 168_800, input_dim=20) == speech


def test_the_simplified_gru_that_the_paper_has_not():
    assert match_units(SimplifiedGRUCell, 20_000, input_dim=100) == 62
    assert match_units(SimplifiedGRUCell, 168_800, input_dim=20) == 280


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_nearest_of_all(row):
    """Against a search through the counts in closed form."""
    for budget in (1, 50, 777, 20_000, 168_800, 10**7):
        for input_dim in (1, 20, 100):
            counts = row.parameters(np.arange(1, 4000), input_dim)
            expected = 1 + np.argmin(abs(counts - budget))
            units = match_units(row.cell_class, budget, input_dim, **row.arguments)
            assert units == expected, (budget, input_dim)


def test_keras_cells_and_arguments():
    gru = match_units(keras.layers.GRUCell, 20_000, 100, reset_after=False)
    assert gru == match_units(keras_gated.GRUCell, 20_000, 100)
    without = match_units(keras_gated.GRUCell, 20_000, 100, use_bias=False)
    assert without == 1 + np.argmin(
        [abs(3 * u * (u + 100) - 20_000) for u in range(1, 90)]
    )


@pytest.mark.parametrize("value", [0, -5, 2.5, None, "many", True])
@pytest.mark.parametrize("name", ["budget", "input_dim"])
def test_bad_arguments(name, value):
    arguments = {"budget": 100, "input_dim": 10, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        match_units(GRUCell, **arguments)


def test_a_cell_of_another_kind_is_refused():
    class Cubic(keras.layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.units = units

        def build(self, shape):
            self.cube = self.add_weight(shape=(self.units,) * 3)

    with pytest.raises(ValueError, match="polynomial of second degree"):
        match_units(Cubic, 100, 10)
