"""Kills programs at random instants, and compares their ends to undisturbed ones.

    make kills ARGS="--tasks demo study --seed 2"

Every program first runs undisturbed. Then it runs so that it and all its processes are
killed (SIGKILL) again and again, each time within the seconds that it took undisturbed,
until it has come to its end; and so several times. Equal must be, to the last bit:
tables, learning curves and records but for clock times, weights, what TensorBoard
shows, with its steps, generated music and sound, shards and manifests. No file may be
there that is not there undisturbed. What differs is said, and its folder is kept.
"""

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import quiet  # noqa: F401

from kills.ends import End, differences, end_of, kinds
from kills.tasks import DATA, RESULTS, TASKS, Task

ROOT = Path(__file__).parents[2]
WITHIN = 0.15, 0.65
"""The parts of the undisturbed time between which kills fall. It is not always equally
long, and with later ones a program would often be over before the first."""
PATIENCE = 10
"""After so many times the undisturbed time a program hangs."""
SHOWN = 5


class TaskError(Exception):
    """A program has ended with an error, or not at all."""


def run(task: Task, folder: Path, moments: Iterable[float], limit: float | None) -> int:
    """Runs a program until it ends by itself.

    Args:
        task: The program.
        folder: In which it runs; missing folders are made.
        moments: The seconds after which it is killed, one for each start.
        limit: The seconds after which it hangs, once there are no more moments.

    Returns:
        The number of kills.

    Raises:
        TaskError: It has failed or hangs.
    """
    folder.mkdir(parents=True)
    command = [sys.executable, ROOT / task.script, *shlex.split(task.arguments)]
    # What it keeps for later runs may be cut short by a kill, too.
    environment = {**os.environ, "KERAS_HOME": str(folder.resolve() / "keras")}
    for kills, seconds in enumerate([*moments, limit]):
        with open(folder / "output.txt", "ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code is None and not has_ended(folder / RESULTS):
            continue
        if code:
            raise TaskError(f"exit status {code}, see {folder / 'output.txt'}")
        return kills + (code is None)
    raise TaskError(f"it does not end, see {folder / 'output.txt'}")


def has_ended(results: Path) -> bool:
    """Whether a run has ended that the same command would not go on with.

    Args:
        results: The folder of the results.
    """
    return any(
        json.loads(record.read_bytes())["ended"]
        for record in results.glob("*/results.json")
    )


def undisturbed(task: Task, folder: Path) -> tuple[End, float]:
    """Runs a program as a whole.

    Args:
        task: The program.
        folder: For its data, and for the folder in which it runs.

    Returns:
        Its end, and the seconds it took.
    """
    task.make_data(folder / DATA)
    began = time.monotonic()
    run(task, folder / "whole", [], None)
    seconds = time.monotonic() - began
    return end_of(folder / "whole" / RESULTS), seconds


def killed(
    task: Task, folder: Path, moments: list[float], limit: float, whole: End
) -> tuple[int, list[str]]:
    """Kills a program until it comes to its end, and compares.

    Args:
        task: The program.
        folder: In which it runs; it stays if something differs.
        moments: The seconds after which it is killed, one for each start.
        limit: The seconds after which it hangs, once there are no more moments.
        whole: The end that it must come to.

    Returns:
        The number of kills, and a line for each difference.
    """
    try:
        kills = run(task, folder, moments, limit)
    except TaskError as error:
        return len(moments), [str(error)]
    found = differences(whole, end_of(folder / RESULTS))
    if not found:
        shutil.rmtree(folder)
    return kills, found


def main() -> int:
    """Kills what the arguments name.

    Returns:
        1 if something differs, otherwise 0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--tasks",
        nargs="+",
        choices=[*TASKS],
        default=[*TASKS],
        metavar="TASK",
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    add("--runs", type=int, default=3, help="of each task (default: 3)")
    add("--kills", type=int, default=6, help="the most in a run (default: 6)")
    add("--seed", type=int, default=1, help="of the instants (default: 1)")
    add("--output", type=Path, default=Path("runs/kills"), help="for what differs")
    args = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    total = different = 0
    for name in args.tasks:
        task, folder = TASKS[name], args.output / name
        shutil.rmtree(folder, ignore_errors=True)
        whole, seconds = undisturbed(task, folder)
        about = f"{seconds:.0f} s undisturbed; compared: {kinds(whole)}"
        print(f"{name}: {about}", flush=True)
        instants = random.Random(f"{args.seed} {name}")
        for number in range(1, args.runs + 1):
            moments = [instants.uniform(*WITHIN) * seconds for _ in range(args.kills)]
            own, limit = folder / f"killed_{number}", PATIENCE * seconds
            kills, found = killed(task, own, moments, limit, whole)
            total += kills
            different += bool(found)
            fell = ", ".join(f"{moment:.1f}" for moment in moments[:kills])
            said = f"{len(found)} differences" if found else "equal"
            print(f"  run {number}: {kills} kills, after {fell} s: {said}", flush=True)
            for line in found[:SHOWN]:
                print(f"    {line}")
    print(f"{total} kills, {different} runs differ.")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
