"""Recipes, trials, and the plan of the study."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import comparison
import numpy as np
from comparison import Settings

from keras_gated import CELLS
from study import tasks
from study.tasks import TASKS, Sources, Task

LOG_RATES = -12.0, -6.0
"""The logarithms of the learning rates lie between these (the paper, section 4.2)."""
PLAIN_RMSPROP = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7}
"""Keras's defaults."""
AUTHORS_RMSPROP = {"rho": 0.95, "momentum": 0.9, "epsilon": 1e-4}
"""Those of the authors' code, whose lower bound of 0.01 is the root of epsilon."""

Key = tuple[str, str, str, int]
"""Set, cell, phase and number, by which trials differ from one another."""


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
PHASES = ("search", "finalists", "seeds", *ABLATIONS)
"""The phases of the study, in their order."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        set: The name of its set.
        cell: The name of its cell.
        phase: One of `PHASES`, or `"alone"`.
        number: Of the rate in the search, of the finalist, or the seed.
        learning_rate: At the beginning.
        seed: Of weights, noise and order.
        epochs: Of training.
    """

    set: str
    cell: str
    phase: str
    number: int
    learning_rate: float
    seed: int
    epochs: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Trial":
        """The trial of a record."""
        return cls(**{field.name: record[field.name] for field in _FIELDS})

    @property
    def key(self) -> Key:
        return self.set, self.cell, self.phase, self.number

    @property
    def name(self) -> str:
        """The name of its folder, also in TensorBoard."""
        return "-".join(map(str, self.key))

    @property
    def command(self) -> str:
        """The command that runs this trial alone."""
        return shlex.join(
            [
                *("python", "examples/empirical_study.py"),
                *("--sets", self.set, "--cells", self.cell),
                *("--rate", repr(self.learning_rate), "--seed", str(self.seed)),
                *("--epochs", str(self.epochs)),
                *(["--without", self.phase] if self.phase in ABLATIONS else []),
            ]
        )


_FIELDS = dataclasses.fields(Trial)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the study trains, as far as the records of what has ended determine it.

    For each set and cell it searches a learning rate, on some sets tries the best few
    again for longer, and trains at the best rate with several seeds. On one set it also
    trains at that rate with each ablation.

    Attributes:
        recipes: Those of the sets, in the order to run them. Default: `RECIPES`.
        cells: Names in `keras_gated.CELLS`. Default: all.
        ablations: Names in `ABLATIONS`. Default: all.
        rates: The number of learning rates of a search. Default: 10.
        seeds: Of the trainings at the best rate. Default: 1, 2 and 3.
        tasks: The sets by name. Default: `TASKS`.
    """

    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=RECIPES.copy)
    cells: tuple[str, ...] = dataclasses.field(default_factory=lambda: tuple(CELLS))
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    rates: int = 10
    seeds: tuple[int, ...] = (1, 2, 3)
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=TASKS.copy)

    def part(self, sets: Iterable[str], cells: Iterable[str]) -> "Plan":
        """The plan of some sets and cells."""
        recipes = {name: self.recipes[name] for name in sets}
        return dataclasses.replace(self, recipes=recipes, cells=tuple(cells))

    def shortened(self, times: int) -> "Plan":
        """The plan with one part in `times` of the epochs, and without ablations."""
        recipes = {name: some.shortened(times) for name, some in self.recipes.items()}
        return dataclasses.replace(self, recipes=recipes, ablations=())

    def settings(self, trial: Trial) -> Settings:
        """What a trial is trained with."""
        recipe = self.recipes[trial.set]
        settings = Settings(
            units=tasks.units_of(self.tasks[trial.set], trial.cell),
            epochs=trial.epochs,
            patience=trial.epochs,
            batch_size=recipe.batch_size,
            evaluation_batch_size=recipe.evaluation_batch_size,
            sequence_length=recipe.sequence_length,
            learning_rate=trial.learning_rate,
            seed=trial.seed,
            decay="cosine",
            truncate_gradient=recipe.truncate_gradient,
            optimizer_options=recipe.optimizer,
        )
        if trial.phase in ABLATIONS:
            return dataclasses.replace(settings, **ABLATIONS[trial.phase].changes)
        return settings

    def learning_rates(self, name: str, cell: str) -> list[float]:
        """The rates that a search tries, the same in every process and at any time.

        They are log-uniform as the paper's, but one is drawn from each tenth of the
        range (a stratified sample), so that chance leaves no part of it out.
        """
        entropy = [list(self.tasks).index(name), list(CELLS).index(cell)]
        random = np.random.default_rng(entropy)
        lowest, highest = LOG_RATES
        strata = random.permutation(self.rates) + random.uniform(size=self.rates)
        logarithms = lowest + (highest - lowest) * strata / self.rates
        return [float(f"{x:.4g}") for x in np.exp(logarithms)]

    def finalists(
        self, name: str, cell: str, records: Mapping[Key, dict]
    ) -> list[float] | None:
        """The best rates of the search, the best first; `None` until it has ended."""
        tried = [records.get((name, cell, "search", n)) for n in range(self.rates)]
        if None in tried:
            return None
        ranked = sorted(tried, key=lambda record: record["valid_nll"])
        best = ranked[: self.recipes[name].finalists]
        return [record["learning_rate"] for record in best]

    def best_rate(
        self, name: str, cell: str, records: Mapping[Key, dict]
    ) -> float | None:
        """The rate of the best finalist by validation; `None` until it is known."""
        rates = self.finalists(name, cell, records)
        if rates is None:
            return None
        if len(rates) == 1:
            return rates[0]
        tried = [records.get((name, cell, "finalists", n)) for n in range(len(rates))]
        if None in tried:
            return None
        return min(tried, key=lambda record: record["valid_nll"])["learning_rate"]

    def trials(self, records: Mapping[Key, dict]) -> list[Trial]:
        """All trials that are determined so far, in the order to run them.

        Args:
            records: Of the trials that have ended, by their keys.
        """
        trials = []
        for name in self.recipes:
            trials += self._search(name)
            trials += self._final(name, records)
            trials += self._at_best_rate(name, "seeds", self.cells, records)
        for phase in self._phases_of_ablations():
            trials += self._at_best_rate(ABLATED, phase, self._ablated(phase), records)
        return trials

    def _search(self, name: str) -> Iterator[Trial]:
        epochs = self.recipes[name].search_epochs
        rates = {cell: self.learning_rates(name, cell) for cell in self.cells}
        for number in range(self.rates):
            for cell in self.cells:
                rate = rates[cell][number]
                yield Trial(name, cell, "search", number, rate, 0, epochs)

    def _final(self, name: str, records: Mapping[Key, dict]) -> Iterator[Trial]:
        seed, epochs = self.seeds[0], self.recipes[name].epochs
        rates = {cell: self.finalists(name, cell, records) for cell in self.cells}
        for number in range(self._count_of_finalists(name)):
            for cell in self.cells:
                if rates[cell] is not None:
                    rate = rates[cell][number]
                    yield Trial(name, cell, "finalists", number, rate, seed, epochs)

    def _at_best_rate(
        self,
        name: str,
        phase: str,
        cells: Iterable[str],
        records: Mapping[Key, dict],
    ) -> Iterator[Trial]:
        epochs = self.recipes[name].epochs
        rates = {cell: self.best_rate(name, cell, records) for cell in cells}
        for seed in self.seeds:
            for cell, rate in rates.items():
                if rate is not None:
                    yield Trial(name, cell, phase, seed, rate, seed, epochs)

    def _count_of_finalists(self, name: str) -> int:
        """How many are tried again: none where the search alone decides."""
        count = min(self.recipes[name].finalists, self.rates)
        return count if count > 1 else 0

    def _phases_of_ablations(self) -> tuple[str, ...]:
        return self.ablations if ABLATED in self.recipes else ()

    def _ablated(self, phase: str) -> list[str]:
        """The cells of an ablation."""
        only = ABLATIONS[phase].only
        return [cell for cell in self.cells if only in (None, cell)]

    @property
    def total(self) -> int:
        """The number of trials, once all are determined."""
        for_each_cell = sum(
            self.rates + self._count_of_finalists(name) + len(self.seeds)
            for name in self.recipes
        )
        ablated = sum(
            len(self._ablated(phase)) for phase in self._phases_of_ablations()
        )
        return for_each_cell * len(self.cells) + ablated * len(self.seeds)

    def is_current(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of a trial as this plan would run it now."""
        name, cell = record["set"], record["cell"]
        if name not in self.recipes or cell not in self.cells:
            return False
        trial, recipe = Trial.of(record), self.recipes[name]
        now = {
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "sequence_length": recipe.sequence_length,
            "optimizer": self.settings(trial).optimizer_options,
        }
        if trial.phase == "search":
            rates = dict(enumerate(self.learning_rates(name, cell)))
            now["epochs"] = recipe.search_epochs
            now["learning_rate"] = rates.get(trial.number)
        return all(record.get(key) == value for key, value in now.items())


def run(trial: Trial, plan: Plan, sources: Sources, folder: Path) -> dict:
    """Trains one model; returns its record.

    Args:
        trial: What to train.
        plan: The plan that it belongs to.
        sources: The folders of the data.
        folder: For the best model, and TensorBoard.
    """
    settings = plan.settings(trial)
    results = tasks.train(
        plan.tasks[trial.set],
        trial.cell,
        settings,
        sources,
        folder,
        watch_gates=trial.phase in ("finalists", "seeds"),
    )
    return {
        **dataclasses.asdict(trial),
        "batch_size": settings.batch_size,
        "sequence_length": settings.sequence_length,
        "optimizer": dict(settings.optimizer_options),
        **results,
        "command": trial.command,
        "versions": comparison.versions(),
    }
