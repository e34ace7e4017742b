"""KerasTuner over all trials of the plan, as one search.

It keeps on disk which trials have begun and ended, gives those that were interrupted
out again, and shares them among processes. `Plan.trials` says what there is to run.
"""

import dataclasses
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import comparison

from keras_gated.datasets.files import discard_unfinished, require
from study import trials
from study.recipes import JOINT_PHASES
from study.records import Records
from study.tasks import Sources
from study.trials import Plan, Trial

kt = require("keras_tuner", extra="study")

LIFELINE = "KERAS_GATED_STUDY_LIFELINE"
"""Set where the standard input ends with the process that has started this one."""
LARGEST_NLL = 1e9
"""Reported to KerasTuner for a training that failed: it does not accept infinity."""


class Oracle(kt.Oracle):
    """Gives out the trials of a plan that have no record yet.

    Args:
        plan: The plan.
        records: Of the trials that have ended.
        minutes: After this time no trial is begun. Default: `None`, no limit.
    """

    def __init__(
        self, plan: Plan, records: Records, minutes: float | None = None
    ) -> None:
        super().__init__(objective=kt.Objective("valid_nll", "min"), max_trials=None)
        self.verbose = 0
        self.plan, self.records = plan, records
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def populate_space(self, trial_id: str) -> dict:
        if time.monotonic() > self.deadline:
            return {"status": "STOPPED"}
        records = self.records.read()
        ended = {key: r for key, r in records.items() if self.plan.is_current(r)}
        running = {
            Trial.of(given.hyperparameters.values).key
            for given in self.ongoing_trials.values()
        }
        for trial in self.plan.trials(ended):
            done = ended.get(trial.key, {})
            if (
                done.get("learning_rate") != trial.learning_rate
                and trial.key not in running
            ):
                return {"status": "RUNNING", "values": dataclasses.asdict(trial)}
        # What is running may determine further trials.
        return {"status": "IDLE" if running else "STOPPED"}


class Tuner(kt.engine.base_tuner.BaseTuner):
    """Runs the trials that the oracle gives out, and writes their records.

    Args:
        oracle: Of the same plan.
        study_dir: For the trials' models and logs, and what KerasTuner keeps.
        sources: The folders of the data.
        verbose: Whether the progress of the study is shown after every trial.
    """

    def __init__(
        self, oracle: Oracle, study_dir: Path, sources: Sources, verbose: bool
    ) -> None:
        self.plan, self.records = oracle.plan, oracle.records
        self.study_dir, self.sources, self.verbose = study_dir, sources, verbose
        super().__init__(oracle, directory=str(study_dir), project_name=self.plan.name)

    def pre_create_trial(self) -> None:
        time.sleep(0.1)  # pause between polls of an idle worker

    def run_trial(self, given: Any) -> float:
        trial = Trial.of(given.hyperparameters.values)
        print(f"\n{' '.join(map(str, trial.key))}: {trial.command}")
        record, folder = self._same(trial), self.study_dir / trial.name
        if record is None:
            discard_unfinished(folder)
            record = trials.run(trial, self.plan, self.sources, folder)
        self.records.write(record)
        comparison.discard_backup(folder)
        if self.verbose:
            show_progress(self.plan, self.records)
        return min(record["valid_nll"], LARGEST_NLL)

    def _same(self, trial: Trial) -> dict | None:
        """The record of the same training: a finalist's is that of the first seed."""
        for record in self.records.read().values():
            same = {**record, **dataclasses.asdict(trial)}
            if record["command"] == trial.command and self.plan.is_current(same):
                return same
        return None


def search(
    plan: Plan,
    records: Records,
    study_dir: Path,
    sources: Sources,
    workers: int = 1,
    minutes: float | None = None,
) -> int:
    """Runs all trials of a plan that have no record yet.

    Args:
        plan: The plan.
        records: Of the trials that have ended; new ones are added.
        study_dir: The folder of the study.
        sources: The folders of the data.
        workers: Processes that share the trials. Each runs this program's command
            again, and is told its role by the environment.
        minutes: After this time no trial is begun. Default: `None`, no limit.

    Returns:
        The exit code.
    """
    is_one_of_several = "KERASTUNER_TUNER_ID" in os.environ
    if LIFELINE in os.environ:
        threading.Thread(target=_end_with_the_input, daemon=True).start()
    if not is_one_of_several:
        _discard_if_damaged(study_dir / plan.name)
        if workers > 1:
            return _run_workers(plan, records, workers)
    oracle = Oracle(plan, records, minutes)
    Tuner(oracle, study_dir, sources, verbose=workers == 1).search()
    return 0


def _discard_if_damaged(folder: Path) -> None:
    """Removes KerasTuner's files if a kill cut one short: the records suffice."""
    try:
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())
        damaged = not (folder / "oracle.json").exists()
    except ValueError:
        damaged = True
    if damaged:
        shutil.rmtree(folder, ignore_errors=True)


def _run_workers(plan: Plan, records: Records, workers: int) -> int:
    """Runs a chief, which gives out the trials, and workers; returns the exit code."""
    environment = _environment(workers)
    chief, *others = processes = [
        subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**environment, "KERASTUNER_TUNER_ID": role, LIFELINE: "stdin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for role in ("chief", *(f"worker{k}" for k in range(workers)))
    ]
    try:
        shown = -1
        while any(worker.poll() is None for worker in others):
            if chief.poll():  # without it the workers would wait for ever
                return chief.returncode
            if (count := len(records.read())) != shown:
                shown = count
                show_progress(plan, records)
            time.sleep(1)
    finally:
        for process in processes:  # the chief waits even for workers that have gone
            process.terminate()
            process.wait()
    return next((worker.returncode for worker in others if worker.returncode), 0)


def _end_with_the_input() -> None:
    """A process that is killed cannot end its workers; but their input ends with it."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _environment(workers: int) -> dict[str, str]:
    """The variables of all processes: where the chief listens, and their threads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Processes with more threads than there are cores take time from each other.
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        "TF_NUM_INTEROP_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
    }


def show_progress(plan: Plan, records: Records) -> None:
    """Prints how far the study has come."""
    from rich.console import Console
    from rich.table import Table

    found = [
        record
        for record in records.read().values()
        if record["set"] in plan.recipes
        and record["cell"] in plan.cells
        and (record["phase"] in JOINT_PHASES) == (plan.name == "joint")
    ]
    table = Table(title=f"{len(found)} of {plan.total} trials")
    for column in plan.columns:
        text = column in ("set", "cell", "output", "size")
        table.add_column(column, justify="left" if text else "right")
    for row in plan.progress(found):
        table.add_row(*row)
    Console().print(table)
