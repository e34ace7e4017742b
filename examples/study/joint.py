"""The plan of models of whole frames: cells and outputs, at two sizes."""

import dataclasses
from collections.abc import Iterator, Mapping
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

CHOOSING = "gru"
"""The cell that chooses the size of models."""
LONG = ("tied",)
"""Outputs that take so long that this cell alone is trained with them."""


@dataclasses.dataclass(frozen=True)
class JointPlan(Plan):
    """What is trained of models of whole frames.

    One cell tries all outputs and sizes with the first seed. Then all cells are trained
    with all seeds at the paper's size, and at the size that was best by validation; but
    one cell alone with the output that takes longest.

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
        found = {}
        for trial in (*self._first(), *self._all(records)):
            found.setdefault(trial.key, trial)
        return list(found.values())

    def _first(self) -> Iterator[Trial]:
        """Of the cell that chooses; what is expected to be best comes first."""
        for size in reversed(SIZES):
            for head in reversed(self.heads):
                for name in self.recipes:
                    yield self._trial(name, self._choosing, head, size, self.seeds[0])

    def _all(self, records: Mapping[Key, dict]) -> Iterator[Trial]:
        for cell in sorted(self.cells, key=lambda cell: cell != self._choosing):
            for head in reversed(self._heads_of(cell)):
                for name in self.recipes:
                    best = self.best_size(name, head, records)
                    for size in () if best is None else (best, PAPER):
                        for seed in self.seeds:
                            yield self._trial(name, cell, head, size, seed)

    def _heads_of(self, cell: str) -> list[str]:
        return [h for h in self.heads if cell == self._choosing or h not in LONG]

    @property
    def _choosing(self) -> str:
        return CHOOSING if CHOOSING in self.cells else self.cells[0]

    def best_size(
        self, name: str, head: str, records: Mapping[Key, dict]
    ) -> int | str | None:
        """The size that is best by validation; `None` until all have been tried."""
        tried = {}
        for size in SIZES:
            trial = self._trial(name, self._choosing, head, size, self.seeds[0])
            tried[size] = records.get(trial.key)
        if None in tried.values():
            return None
        return min(tried, key=lambda size: tried[size]["valid_nll"])

    def _trial(
        self, name: str, cell: str, head: str, size: int | str, seed: int
    ) -> Trial:
        phase = next(p for p, what in JOINT_PHASES.items() if what == (head, size))
        epochs = self.recipes[name].epochs
        return Trial(name, cell, phase, seed, JOINT_RATE, seed, epochs)

    @property
    def total(self) -> int:
        """The largest number of trials: fewer if the paper's size is the best."""
        pairs = sum(len(self._heads_of(cell)) for cell in self.cells)
        further_sizes = len(self.heads) * (len(SIZES) - 2)
        return len(self.recipes) * (2 * len(self.seeds) * pairs + further_sizes)

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
