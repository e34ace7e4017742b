"""Recipes: how cells are trained on each set, and what is changed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from comparison import HEADS

PLAIN_RMSPROP = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7}
"""Keras's defaults."""
AUTHORS_RMSPROP = {"rho": 0.95, "momentum": 0.9, "epsilon": 1e-4}
"""Those of the authors' code, whose lower bound of 0.01 is the root of epsilon."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How cells are trained on a set: as in the paper, except the sizes of batches.

    docs/study/notes.md says what else was tried.

    Attributes:
        search_epochs: Of the search for a learning rate.
        epochs: Of training at the best rate.
        batch_size: Sequences per update.
        sequence_length: Steps of music or samples of sound to which the sequences of
            training are cut. Default: `None`, whole pieces.
        truncate_gradient: The number of steps from one stop of the gradient to the
            next. Default: `None`, it is not stopped.
        evaluation_batch_size: Of validation and test. Default: `None`, `batch_size`.
        finalists: How many of the best rates of the search are tried again for
            `epochs`, where the short search would mislead. Default: 1, the best rate
            of the search is taken.
        optimizer: Arguments of RMSProp. Default: those of Keras.
        weight_noise: Standard deviation. Default: 0.075.
        tied_dropout: The share of tied units that are left out in training, in models
            of whole frames. Default: 0.2.
    """

    search_epochs: int
    epochs: int
    batch_size: int
    sequence_length: int | None = None
    truncate_gradient: int | None = None
    evaluation_batch_size: int | None = None
    finalists: int = 1
    optimizer: Mapping[str, float] = dataclasses.field(
        default_factory=PLAIN_RMSPROP.copy
    )
    weight_noise: float = 0.075
    tied_dropout: float = 0.2

    def shortened(self, times: int) -> "Recipe":
        """The recipe with one part in `times` of the epochs."""
        return dataclasses.replace(
            self,
            search_epochs=max(1, self.search_epochs // times),
            epochs=max(2, self.epochs // times),
        )


RECIPES = {
    "jsb_chorales": Recipe(12, 100, 2),
    "piano_midi": Recipe(10, 40, 2, 100, optimizer=AUTHORS_RMSPROP),
    "nottingham": Recipe(20, 200, 2, 200, None, 16, 4, AUTHORS_RMSPROP),
    "muse_data": Recipe(8, 30, 2, 100, None, 16, 2, AUTHORS_RMSPROP),
    "speech_500": Recipe(1, 12, 16, 500),
    "speech_8000": Recipe(1, 6, 2, 8000, truncate_gradient=20),
}
"""The recipe of each set."""


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A change of the recipe.

    Attributes:
        changes: Fields of `Settings`.
        only: The cell that it is made for. Default: `None`, all cells.
    """

    changes: Mapping[str, Any]
    only: str | None = None


ABLATIONS = {
    "no weight noise": Ablation({"weight_noise": 0.0}),
    "no norm rescaling": Ablation({"gradient_norm": None}),
    "no peepholes": Ablation({"cell_options": {"peephole": False}}, only="lstm"),
    "reset after": Ablation({"cell_options": {"reset_after": True}}, only="gru"),
    "no decay": Ablation({"decay": "none"}),
    "momentum": Ablation({"optimizer_options": AUTHORS_RMSPROP}),
}
"""The changes by their names, which are those of their phases."""
ABLATED = "jsb_chorales"
"""The set whose recipe is changed."""
PAPER = "paper"
SIZES = PAPER, 200
"""Sizes of models of whole frames: the paper's, or as many parameters as a GRU of so
many units has."""
JOINT_DROPOUT = {PAPER: 0.2, 200: 0.5}
"""The share of the cell's outputs that is left out in training, by size."""
JOINT_RATE = 0.002
"""The learning rate of Adam, for these."""
JOINT_RECIPES = {
    "jsb_chorales": Recipe(
        0, 60, 4, None, None, 16, weight_noise=0.1, tied_dropout=0.4
    ),
    "piano_midi": Recipe(0, 20, 4, 100, None, 16),
    "nottingham": Recipe(0, 16, 4, 200, None, 16),
    "muse_data": Recipe(0, 14, 4, 100, None, 16),
}
"""The recipe of each set, for models of whole frames."""
JOINT_PHASES = {
    head if size == PAPER else f"{head} {size}": (head, size)
    for size in SIZES
    for head in HEADS
}
"""Output and size of each phase that trains models of whole frames."""
PHASES = ("search", "finalists", "seeds", *ABLATIONS, *JOINT_PHASES)
"""The phases of the study, in their order."""
