"""The records of the trials that have ended, on disk."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_gated.datasets.files import atomic_path
from study.recipes import PHASES
from study.tasks import TASKS
from study.trials import Key, Trial
from study.variants import TRAINABLE

COMMITTED = Path(__file__).parents[2] / "docs" / "study" / "records"
"""The folder of the records that come with the project, a file for each set."""


class Records:
    """The records of a study, and those that come with the project.

    Args:
        folder: Of the study's records, a JSON file each.
        committed: Files of further records, a line each. If both have a trial, the
            record in the folder is used. Default: none.
    """

    def __init__(self, folder: Path, committed: Iterable[Path] = ()) -> None:
        self.folder = folder
        self._committed = {}
        for path in committed:
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                record = _parse(line, f"{str(path)!r}, line {number},")
                self._committed[Trial.of(record).key] = record

    def path(self, trial: Trial) -> Path:
        """The file of a trial's record."""
        return self.folder / f"{trial.name.replace(' ', '_')}.json"

    def read(self) -> dict[Key, dict]:
        """All records that are whole, by the keys of their trials.

        Raises:
            ValueError: A file is no record.
        """
        records = dict(self._committed)
        # Names that begin with a dot are files that are being written, or were when
        # their process was killed.
        for path in sorted(self.folder.glob("[!.]*.json")):
            record = _parse(path.read_bytes(), repr(str(path)))
            records[Trial.of(record).key] = record
        return records

    def write(self, record: dict) -> None:
        """Adds a record; others see it whole or not at all."""
        with atomic_path(self.path(Trial.of(record))) as file:
            Path(file).write_text(json.dumps(record) + "\n")


def _parse(text: bytes, where: str) -> dict:
    try:
        record = json.loads(text)
        trial = Trial.of(record)
        numbers = trial.number, trial.seed, trial.epochs
        if not all(isinstance(x, str) for x in (trial.set, trial.cell, trial.phase)):
            raise TypeError("set, cell and phase must be names")
        if not all(type(x) is int for x in numbers):
            raise TypeError("number, seed and epochs must be whole numbers")
        if not isinstance(trial.learning_rate, float):
            raise TypeError("learning_rate must be a number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} is no record of a trial: {error!r}") from error
    return record


def in_order(records: Iterable[dict]) -> list[dict]:
    """Sorts records by set, phase, cell and number.

    Raises:
        ValueError: A record has a set, a phase or a cell that there is not.
    """
    records = list(records)
    for record in records:
        for name, known in (("set", TASKS), ("phase", PHASES), ("cell", TRAINABLE)):
            if record[name] not in known:
                raise ValueError(
                    f"A record has the {name} {record[name]!r}, which is none of "
                    f"{', '.join(known)}. Its command: {record.get('command')}"
                )

    def place(record: dict) -> tuple:
        return (
            list(TASKS).index(record["set"]),
            PHASES.index(record["phase"]),
            list(TRAINABLE).index(record["cell"]),
            record["number"],
        )

    return sorted(records, key=place)


def committed_in(folder: Path) -> list[Path]:
    """The files of records in a folder, such as `COMMITTED`."""
    return sorted(folder.glob("[!.]*.jsonl"))


def write_committed(records: Iterable[dict], folder: Path) -> None:
    """Writes a file of records for each set, a line each."""
    records = list(records)
    folder.mkdir(parents=True, exist_ok=True)
    for name in {record["set"] for record in records}:
        compact = (
            json.dumps(record, separators=(",", ":"))
            for record in select(records, set=name)
        )
        with atomic_path(folder / f"{name}.jsonl") as file:
            Path(file).write_text("".join(f"{line}\n" for line in compact))


def select(records: Iterable[dict], **values: Any) -> list[dict]:
    """The records that have these values."""
    return [r for r in records if all(r[key] == x for key, x in values.items())]
