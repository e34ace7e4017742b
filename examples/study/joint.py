"""The plan of models of whole frames: cells and outputs, at two sizes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from comparison import HEADS, Settings

from keras_gated import CELLS
from study.recipes import (
    JOINT_DROPOUT,
    JOINT_PHASES,
    JOINT_RATE,
    JOINT_RECIPES,
    PAPER,
    SIZES,
    Recipe,
)
from study.records import select
from study.trials import Key, Plan, Trial

FIRST = "gru"
"""The cell that is trained first."""
LONG = ("tied",)
"""Outputs that take so long that this cell alone is trained with them."""


@dataclasses.dataclass(frozen=True)
class JointPlan(Plan):
    """What is trained of models of whole frames: all cells, outputs, sizes and seeds.

    But one cell alone has the output that takes longest. What is expected to be best
    comes first, and then the paper's size.

    Attributes:
        recipes: Those of the sets. Default: `JOINT_RECIPES`.
        heads: Names in `HEADS`. Default: all.
    """

    recipes: Mapping[str, Recipe] = dataclasses.field(
        default_factory=JOINT_RECIPES.copy
    )
    heads: tuple[str, ...] = tuple(HEADS)
    name: ClassVar[str] = "joint"
    columns: ClassVar[tuple[str, ...]] = (
        *("set", "output", "size", "cell", "units", "seeds", "valid", "test"),
    )

    def settings(self, trial: Trial) -> Settings:
        recipe, (head, size) = self.recipes[trial.set], JOINT_PHASES[trial.phase]
        task = self.tasks[trial.set]
        if size != PAPER:
            gru = CELLS["gru"](size)
            gru.build((None, task.inputs))
            task = dataclasses.replace(task, budget=gru.count_params())
        return self._settings(
            trial,
            task,
            head=head,
            dropout=JOINT_DROPOUT[size],
            tied_dropout=recipe.tied_dropout,
            weight_noise=recipe.weight_noise,
        )

    def trials(self, records: Mapping[Key, dict]) -> list[Trial]:
        first = tuple(cell for cell in self.cells if cell == FIRST)
        others = tuple(cell for cell in self.cells if cell != FIRST)
        large, small = reversed(SIZES)
        return [
            self._trial(name, cell, head, size, seed)
            for cells, size in (
                *((first, large), (first, small)),
                *((others, small), (others, large)),
            )
            for seed in self.seeds
            for head in reversed(self.heads)
            for name in self.recipes
            for cell in cells
            if cell == FIRST or head not in LONG
        ]

    def _trial(
        self, name: str, cell: str, head: str, size: int | str, seed: int
    ) -> Trial:
        phase = next(p for p, what in JOINT_PHASES.items() if what == (head, size))
        epochs = self.recipes[name].epochs
        return Trial(name, cell, phase, seed, JOINT_RATE, seed, epochs)

    @property
    def total(self) -> int:
        return len(self.trials({}))

    def is_current(self, record: Mapping[str, Any]) -> bool:
        if record["set"] not in self.recipes or record["phase"] not in JOINT_PHASES:
            return False
        recipe = self.recipes[record["set"]]
        now = {
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "sequence_length": recipe.sequence_length,
            "weight_noise": recipe.weight_noise,
            "dropout": JOINT_DROPOUT[JOINT_PHASES[record["phase"]][1]],
            "tied_dropout": recipe.tied_dropout,
        }
        return all(record.get(key) == value for key, value in now.items())

    def progress(self, records: list[dict]) -> list[list[str]]:
        rows = []
        for name in self.recipes:
            for phase, (head, size) in JOINT_PHASES.items():
                for cell in self.cells:
                    found = select(
                        records, set=name, cell=cell, phase=phase, failure=None
                    )
                    if found:
                        rows.append(
                            [
                                *(name, head, str(size), cell),
                                str(found[0]["units"]),
                                str(len(found)),
                                _mean(found, "valid_nll"),
                                _mean(found, "test_nll_step"),
                            ]
                        )
        return rows


def _mean(records: list[dict], key: str) -> str:
    return f"{sum(record[key] for record in records) / len(records):.3f}"
