"""The plan of the variants."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from comparison import Settings

from study.recipes import RECIPES, Recipe
from study.trials import Key, Plan, Trial
from study.variants import VARIANTS

SETS = "jsb_chorales", "piano_midi"
"""The sets on which variants are trained: those that take least time."""


@dataclasses.dataclass(frozen=True)
class VariantPlan(Plan):
    """What is trained of the variants: on each set one after the other, all of it.

    Recipe, parameters, rates and seeds are those of the paper's cells.

    Attributes:
        recipes: Those of the sets. Default: those of `SETS` in `RECIPES`.
        cells: Names in `VARIANTS`. Default: all.
        ablations: None.
    """

    recipes: Mapping[str, Recipe] = dataclasses.field(
        default_factory=lambda: {name: RECIPES[name] for name in SETS}
    )
    cells: tuple[str, ...] = dataclasses.field(default_factory=lambda: tuple(VARIANTS))
    ablations: tuple[str, ...] = ()
    name: ClassVar[str] = "variants"

    def settings(self, trial: Trial) -> Settings:
        layer = VARIANTS[trial.cell].layer
        return dataclasses.replace(super().settings(trial), layer_options=layer)

    def learning_rates(self, name: str, cell: str) -> list[float]:
        return super().learning_rates(name, VARIANTS[cell].of)

    def trials(self, records: Mapping[Key, dict]) -> list[Trial]:
        return [
            trial
            for name in self.recipes
            for cell in self.cells
            for trial in Plan.trials(self.part([name], [cell]), records)
        ]

    def more_of_record(self, trial: Trial) -> dict[str, Any]:
        variant = VARIANTS[trial.cell]
        return {"arguments": {**variant.arguments, **variant.layer}}

    def is_current(self, record: Mapping[str, Any]) -> bool:
        if not super().is_current(record):
            return False
        more = self.more_of_record(Trial.of(record))
        return all(record.get(key) == value for key, value in more.items())
