"""Trials, and the plan of the study."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import comparison
import numpy as np
from comparison import Settings

from keras_gated import CELLS
from study import tasks
from study.recipes import ABLATED, ABLATIONS, JOINT_PHASES, RECIPES, Recipe
from study.tasks import TASKS, Sources, Task
from study.variants import VARIANTS

LOG_RATES = -12.0, -6.0
"""The logarithms of the learning rates lie between these (the paper, section 4.2)."""

Key = tuple[str, str, str, int]
"""Set, cell, phase and number, by which trials differ from one another."""


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
        plan = ["--variants"] if self.cell in VARIANTS else []
        if self.phase in JOINT_PHASES:
            plan = ["--joint", "--phase", self.phase]
        return shlex.join(
            [
                *("python", "examples/empirical_study.py", *plan),
                *("--sets", self.set, "--cells", self.cell),
                *("--rate", repr(self.learning_rate), "--seed", str(self.seed)),
                *("--epochs", str(self.epochs)),
                *(["--without", self.phase] if self.phase in ABLATIONS else []),
            ]
        )


_FIELDS = dataclasses.fields(Trial)
_OF_JOINT = "weight_noise", "dropout", "tied_dropout"
"""Settings in the records of models of whole frames."""


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
    name: ClassVar[str] = "tuner"
    """Of the folder in which KerasTuner keeps track."""
    columns: ClassVar[tuple[str, ...]] = (
        *("set", "cell", "rates", "best rate", "valid", "seeds", "test"),
    )
    """Of `progress`."""

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
        settings = self._settings(
            trial,
            self.tasks[trial.set],
            truncate_gradient=recipe.truncate_gradient,
            optimizer_options=recipe.optimizer,
        )
        if trial.phase in ABLATIONS:
            return dataclasses.replace(settings, **ABLATIONS[trial.phase].changes)
        return settings

    def _settings(self, trial: Trial, task: Task, **more: Any) -> Settings:
        """What all trials of a set have in common, at the size of a task, and more."""
        recipe = self.recipes[trial.set]
        return Settings(
            units=tasks.units_of(task, trial.cell),
            epochs=trial.epochs,
            patience=trial.epochs,
            batch_size=recipe.batch_size,
            evaluation_batch_size=recipe.evaluation_batch_size,
            sequence_length=recipe.sequence_length,
            learning_rate=trial.learning_rate,
            seed=trial.seed,
            decay="cosine",
            **more,
        )

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

    def progress(self, records: list[dict]) -> list[list[str]]:
        """How far the study has come, a line for every set and cell."""
        rows = []
        for name, cell in itertools.product(self.recipes, self.cells):
            of_cell = [r for r in records if (r["set"], r["cell"]) == (name, cell)]
            searched = [r for r in of_cell if r["phase"] == "search"]
            final = [r for r in of_cell if r["phase"] == "seeds" and not r["failure"]]
            best = min(searched, key=lambda r: r["valid_nll"], default=None)
            nll = [record["test_nll_step"] for record in final]
            rows.append(
                [
                    name,
                    cell,
                    f"{len(searched)}/{self.rates}",
                    f"{best['learning_rate']:.2g}" if best else "",
                    f"{best['valid_nll']:.3f}" if best else "",
                    f"{len(final)}/{len(self.seeds)}",
                    f"{np.mean(nll):.3f} ± {np.std(nll):.3f}" if nll else "",
                ]
            )
        return rows

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

    def more_of_record(self, trial: Trial) -> dict[str, Any]:
        """What the records of this plan say besides."""
        return {}

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
        **({key: getattr(settings, key) for key in _OF_JOINT} if settings.head else {}),
        **plan.more_of_record(trial),
        **results,
        "command": trial.command,
        "versions": comparison.versions(),
    }
