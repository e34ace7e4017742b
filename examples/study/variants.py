"""Variants of the cells, each trained as the paper's cells are."""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_gated import CELLS, FURTHER_CELLS

OF = {"projected_lstm": "lstm", "slstm": "lstm", "min_lstm": "lstm", "min_gru": "gru"}
"""The cell of the paper that is nearest to one of `FURTHER_CELLS`, else tanh."""


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """A variant of one of the paper's cells: makes the cell when it is called.

    Attributes:
        title: What tables call it.
        of: The cell of the paper that it is a variant of, a name in `CELLS`. Its
            learning rates are tried, so that chance does not tell the two apart.
        make: Makes the cell of so many units. Default: `None`, the class of `of`.
        arguments: More arguments of the cell. Default: none.
        layer: More arguments of the layer. Default: none.
    """

    title: str
    of: str
    make: Callable[..., keras.layers.Layer] | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layer: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, units: int, **more: Any) -> keras.layers.Layer:
        return (self.make or CELLS[self.of])(units, **self.arguments, **more)


def variants_of(
    further: Mapping[str, Callable[..., keras.layers.Layer]],
) -> dict[str, Variant]:
    """The variants by name, in the order to train them.

    Args:
        further: Cells of `keras_gated` that the paper does not have, by name.
    """
    others = {
        name: Variant(kind.title, OF.get(name, "tanh"), kind)
        for name, kind in further.items()
    }
    if projected := further.get("projected_lstm"):
        # `match_units` cannot count the parameters of half as many units, but of twice.
        others["projected_lstm"] = Variant(
            "LSTM, projected to half",
            OF["projected_lstm"],
            lambda units, **more: projected(2 * units, projection_units=units, **more),
        )
    norm, zoneout = {"layer_norm": True}, {"zoneout": 0.1}
    return {
        "gru_layer_norm": Variant("GRU, layer norm", "gru", arguments=norm),
        "lstm_layer_norm": Variant("LSTM, layer norm", "lstm", arguments=norm),
        **others,
        "lstm_zoneout": Variant("LSTM, zoneout 0.1", "lstm", arguments=zoneout),
        "gru_zoneout": Variant("GRU, zoneout 0.1", "gru", arguments=zoneout),
        "lstm_coupled": Variant("LSTM, coupled", "lstm", arguments={"coupled": True}),
        "tanh_layer_norm": Variant("tanh, layer norm", "tanh", arguments=norm),
        "simplified_gru_layer_norm": Variant(
            "simplified GRU, layer norm", "simplified_gru", arguments=norm
        ),
        "gru_initial_state": Variant(
            "GRU, learned initial state", "gru", layer={"learn_initial_state": True}
        ),
    }


VARIANTS = variants_of(FURTHER_CELLS)
"""The variants by name; no cell of the paper has such a name."""
TRAINABLE = ChainMap(VARIANTS, CELLS)
"""What makes a cell of so many units, by name: the paper's cells and then the variants.
"""
