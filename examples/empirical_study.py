"""Repeats the study of Chung et al. (2014): which cell is better, at equal size?

For every set and cell: ten learning rates, drawn as in the paper, are tried; the
best by validation is trained again, longer, with three seeds, on some sets after
the best few have been tried for as long; on JSB Chorales also without some part of the
recipe. KerasTuner keeps track of it on disk: stop at any
time, and the same command goes on with what is missing. Each trial leaves a record
with all that is needed to repeat it; `examples/study_report.py` makes tables and
figures of them. With --rate, one trial alone is run, as a record's command says.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import comparison
import numpy as np
import polyphonic_music
import speech
from comparison import positive, seed

import keras_gated
from keras_gated import callbacks
from keras_gated.datasets import (
    fsdd,
    jsb_chorales,
    muse_data,
    nottingham,
    piano_midi,
)
from keras_gated.datasets.files import atomic_path, require

RATES, SEEDS = 10, (1, 2, 3)
LOG_RATE = -12.0, -6.0
"""Between these are the logarithms of the learning rates (the paper, section 4.2)."""
MUSIC_BUDGET, MUSIC_INPUTS = 20_000, 100
SPEECH_BUDGET, SPEECH_INPUTS = 168_800, 20
AUTHORS_RMSPROP = {"rho": 0.95, "momentum": 0.9, "epsilon": 1e-4}
"""Of the authors' code; the square root of epsilon is its floor of 0.01."""
PLAIN_RMSPROP = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7}
"""Keras's defaults."""
COMMITTED = Path(__file__).parents[1] / "docs" / "study" / "records.jsonl"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a set is trained on: as in the paper, but for the sizes of batches.

    What was tried before it was settled is told in docs/study/notes.md. The search is
    shorter than training at the best rate; of its best, `finalists` are tried again
    for as long, where a short search would mislead.
    """

    search_epochs: int
    epochs: int
    batch_size: int
    sequence_length: int | None = None
    truncate_gradient: int | None = None
    evaluation_batch_size: int | None = None
    finalists: int = 1
    optimizer: dict[str, float] = dataclasses.field(default_factory=PLAIN_RMSPROP.copy)

    def shortened(self, times: int) -> "Recipe":
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
MODULES = {
    "jsb_chorales": jsb_chorales,
    "piano_midi": piano_midi,
    "nottingham": nottingham,
    "muse_data": muse_data,
}
ABLATIONS = {
    "no weight noise": (list(comparison.CELLS), {"weight_noise": 0.0}),
    "no norm rescaling": (list(comparison.CELLS), {"gradient_norm": None}),
    "no peepholes": (["lstm"], {"cell_options": {"peephole": False}}),
    "reset after": (["gru"], {"cell_options": {"reset_after": True}}),
    "no decay": (list(comparison.CELLS), {"decay": "none"}),
    "momentum": (list(comparison.CELLS), {"optimizer_options": AUTHORS_RMSPROP}),
}
ABLATED = "jsb_chorales"


@functools.cache
def units_of(name: str, cell: str) -> int:
    """The units of Table 1, and as many for the simplified GRU as fit the budget."""
    spoken = name.startswith("speech")
    return keras_gated.match_units(
        comparison.CELLS[cell],
        SPEECH_BUDGET if spoken else MUSIC_BUDGET,
        SPEECH_INPUTS if spoken else MUSIC_INPUTS,
    )


@functools.cache
def load(name: str, data_dir: Path | None, fsdd_dir: Path | None) -> Any:
    if name.startswith("speech"):
        return fsdd.load_data(fsdd_dir, sampling_rate=8000, verbose=0)
    return MODULES[name].load_data(data_dir)


def settings_of(trial: dict) -> dict:
    """What a trial is trained with, under the names of the examples' arguments."""
    recipe = RECIPES[trial["set"]]
    settings = {
        **{key: trial[key] for key in ("learning_rate", "seed", "epochs")},
        "units": units_of(trial["set"], trial["cell"]),
        "patience": trial["epochs"],
        "batch_size": recipe.batch_size,
        "evaluation_batch_size": recipe.evaluation_batch_size or recipe.batch_size,
        "truncate_gradient": recipe.truncate_gradient,
        "sequence_length": recipe.sequence_length,
        "weight_noise": 0.075,
        "gradient_norm": 1.0,
        "decay": "cosine",
        "optimizer_options": recipe.optimizer,
        "dataset": trial["set"],
        "midi_dir": None,
    }
    if trial["phase"] in ABLATIONS:
        settings |= ABLATIONS[trial["phase"]][1]
    return settings


def prepare(cell: str, settings: argparse.Namespace, data: Any) -> tuple[Any, list]:
    """A model, and the batches to train, validate and test it with."""
    if settings.dataset.startswith("speech"):
        return speech.build(cell, settings, data), speech.datasets(settings, data)
    model = polyphonic_music.build(cell, settings)
    return model, polyphonic_music.datasets(settings, data)


def run_trial(trial: dict, args: argparse.Namespace, folder: Path) -> dict:
    """Trains one model; returns its record.

    Args:
        trial: Its `set`, `cell`, `phase` (`"search"`, `"finalists"`, `"seeds"` or the
            name of an ablation), `number`, `learning_rate`, `seed` and `epochs`.
        args: The arguments of this script.
        folder: For the best model, and TensorBoard.
    """
    name, settings = trial["set"], argparse.Namespace(**settings_of(trial))
    data = load(name, args.data_dir, args.fsdd_dir)
    model, parts = prepare(trial["cell"], settings, data)
    if name.startswith("speech"):
        trained_on = parts[0]
        probe = next(iter(parts[2]))[0][0, :200].numpy()
    else:
        whole = {"sequence_length": None, "batch_size": settings.evaluation_batch_size}
        whole = argparse.Namespace(**{**vars(settings), **whole})
        trained_on = polyphonic_music.datasets(whole, data)[0]
        probe = data[2][0][:200].astype("float32")
    watchers = []
    if trial["phase"] in ("finalists", "seeds"):
        every = max(1, trial["epochs"] // 4)
        watchers.append(callbacks.GateMonitor(folder, probe, every=every))
    failure = None
    began = time.time()
    try:
        row, curves = comparison.train(model, settings, parts, folder, watchers)
        scores = model.evaluate(trained_on, verbose=0, return_dict=True)
        figures = {
            "train_nll": scores["nll"],
            "valid_nll": row["valid_nll"],
            "test_nll_step": row["test_nll"],
            "test_nll_sequence": row["test_nll_sequence"],
            "seconds": row["seconds"],
            "curves": {
                key: [round(x, 5) for x in curves[key]]
                for key in ("nll", "val_nll", "seconds")
            },
        }
    except ValueError as error:  # no epoch had a finite validation NLL
        failure = str(error)
        figures = {"valid_nll": math.inf, "seconds": time.time() - began}
    finally:
        keras_clear()
    return {
        **trial,
        "units": settings.units,
        "parameters": model.layers[0].count_params(),
        "updates": trial["epochs"] * len(parts[0]),
        "batch_size": settings.batch_size,
        "sequence_length": settings.sequence_length,
        "optimizer": settings.optimizer_options,
        **figures,
        "failure": failure,
        "command": command_of(trial),
        "versions": comparison.versions(),
    }


def keras_clear() -> None:
    import keras

    keras.backend.clear_session()


def command_of(trial: dict) -> str:
    """What runs this trial alone."""
    return shlex.join(
        [
            *("python", "examples/empirical_study.py"),
            *("--sets", trial["set"], "--cells", trial["cell"]),
            *("--rate", repr(trial["learning_rate"]), "--seed", str(trial["seed"])),
            *("--epochs", str(trial["epochs"])),
            *(["--without", trial["phase"]] if trial["phase"] in ABLATIONS else []),
        ]
    )


def key_of(trial: dict) -> tuple:
    """What tells a trial from all others."""
    return tuple(trial[name] for name in ("set", "cell", "phase", "number"))


def rates(name: str, cell: str) -> list[float]:
    """The learning rates that are tried, the same whenever and wherever they are.

    Log-uniform as the paper's, but one from each tenth of the range (a stratified
    sample), so that luck leaves no part of it out.
    """
    entropy = [list(RECIPES).index(name), list(comparison.CELLS).index(cell)]
    random = np.random.default_rng(entropy)
    lowest, highest = LOG_RATE
    tenths = random.permutation(RATES) + random.uniform(size=RATES)
    logarithms = lowest + (highest - lowest) * tenths / RATES
    return [float(f"{x:.4g}") for x in np.exp(logarithms)]


def plan(sets: list[str], cells: list[str], records: dict[tuple, dict]) -> list[dict]:
    """All trials that can be told of so far, in their order.

    Args:
        sets: Their names.
        cells: Their names.
        records: Of the trials that have ended; they tell the best rates.
    """
    trials = []

    def add(name: str, cell: str, phase: str, number: int, **values: Any) -> None:
        trials.append(
            {"set": name, "cell": cell, "phase": phase, "number": number, **values}
        )

    def whole(name: str, cell: str, phase: str, number: int, **values: Any) -> None:
        add(name, cell, phase, number, **values, epochs=RECIPES[name].epochs)

    def at_best_rate(name: str, cell: str, phase: str, number: int) -> None:
        rate = best_rate(name, cell, records)
        if rate is not None:
            whole(name, cell, phase, number, learning_rate=rate, seed=number)

    for name in sets:
        for number in range(RATES):
            for cell in cells:
                values = {"learning_rate": rates(name, cell)[number], "seed": 0}
                epochs = RECIPES[name].search_epochs
                add(name, cell, "search", number, **values, epochs=epochs)
        for number in range(RECIPES[name].finalists):
            for cell in cells:
                found = finalists(name, cell, records)
                if found and len(found) > 1:
                    values = {"learning_rate": found[number], "seed": SEEDS[0]}
                    whole(name, cell, "finalists", number, **values)
        for number in SEEDS:
            for cell in cells:
                at_best_rate(name, cell, "seeds", number)
    if ABLATED in sets:
        for phase, (some, _) in ABLATIONS.items():
            for number in SEEDS:
                for cell in some:
                    if cell in cells:
                        at_best_rate(ABLATED, cell, phase, number)
    return trials


def finalists(name: str, cell: str, records: dict[tuple, dict]) -> list[float] | None:
    """The best of the rates tried, the best first, once all have been."""
    tried = [records.get((name, cell, "search", number)) for number in range(RATES)]
    if None in tried:
        return None
    ranked = sorted(tried, key=lambda record: record["valid_nll"])
    return [record["learning_rate"] for record in ranked[: RECIPES[name].finalists]]


def best_rate(name: str, cell: str, records: dict[tuple, dict]) -> float | None:
    """That of the finalist that is best by validation, once it is known."""
    rates = finalists(name, cell, records)
    if rates is None:
        return None
    if len(rates) == 1:
        return rates[0]
    tried = [records.get((name, cell, "finalists", n)) for n in range(len(rates))]
    if None in tried:
        return None
    return min(tried, key=lambda record: record["valid_nll"])["learning_rate"]


def is_current(record: dict) -> bool:
    """Whether a record is of a trial as it would be run now."""
    recipe = RECIPES[record["set"]]
    now = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "sequence_length": recipe.sequence_length,
        "optimizer": settings_of(record)["optimizer_options"],
    }
    if record["phase"] == "search":
        rate = rates(record["set"], record["cell"])[record["number"]]
        now |= {"epochs": recipe.search_epochs, "learning_rate": rate}
    return all(record.get(key) == value for key, value in now.items())


def trials_in_all(sets: list[str], cells: list[str]) -> int:
    count = len(sets) * len(cells) * (RATES + len(SEEDS))
    again = [RECIPES[name].finalists for name in sets]
    count += len(cells) * sum(number for number in again if number > 1)
    if ABLATED in sets:
        some = [cell for of, _ in ABLATIONS.values() for cell in of if cell in cells]
        count += len(SEEDS) * len(some)
    return count


class Records:
    """The trials that have ended: those that came with the project, and ours."""

    def __init__(self, folder: Path, committed: Path | None) -> None:
        self.folder = folder
        self.committed = {}
        if committed is not None and committed.exists():
            for line in committed.read_text().splitlines():
                record = json.loads(line)
                self.committed[key_of(record)] = record

    def path(self, trial: dict) -> Path:
        name = "-".join(str(part) for part in key_of(trial)).replace(" ", "_")
        return self.folder / f"{name}.json"

    def read(self) -> dict[tuple, dict]:
        records = dict(self.committed)
        # Those that begin with a dot are being written, or were when a kill came.
        for path in sorted(self.folder.glob("[!.]*.json")):
            record = json.loads(path.read_text())
            records[key_of(record)] = record
        return records

    def write(self, record: dict) -> None:
        with atomic_path(self.path(record)) as file:
            Path(file).write_text(json.dumps(record) + "\n")


def tuner(args: argparse.Namespace, records: Records) -> Any:
    """KerasTuner over all trials of the study, as one search.

    It keeps on disk which have begun and ended, gives those that were interrupted
    out again, and shares them among processes; what there is to try is `plan`'s.
    """
    kt = require("keras_tuner", extra="study")
    running, idle, stopped = "RUNNING", "IDLE", "STOPPED"
    began = time.monotonic()

    class Oracle(kt.Oracle):
        def populate_space(self, trial_id: str) -> dict:
            over = args.budget is not None and (
                time.monotonic() - began > 60 * args.budget
            )
            if over:
                return {"status": stopped}
            ended = {key: r for key, r in records.read().items() if is_current(r)}
            given_out = {
                key_of(trial.hyperparameters.values)
                for trial in self.ongoing_trials.values()
            }
            for trial in plan(args.sets, args.cells, ended):
                done = ended.get(key_of(trial), {})
                if (
                    done.get("learning_rate") != trial["learning_rate"]
                    and key_of(trial) not in given_out
                ):
                    return {"status": running, "values": trial}
            return {"status": idle if given_out else stopped}

    class Tuner(kt.engine.base_tuner.BaseTuner):
        def pre_create_trial(self) -> None:
            time.sleep(0.1)  # pause between polls of an idle worker

        def run_trial(self, trial: Any) -> float:
            values = trial.hyperparameters.values
            folder = args.study_dir / "-".join(map(str, key_of(values)))
            print(f"\n{' '.join(map(str, key_of(values)))}: {command_of(values)}")
            # A finalist's first seed has been trained already.
            same = [
                {**record, **values}
                for record in records.read().values()
                if record["command"] == command_of(values) and is_current(record)
            ]
            record = same[0] if same else run_trial(values, args, folder)
            records.write(record)
            if args.workers == 1:
                show(args, records)
            return min(record["valid_nll"], 1e9)

    oracle = Oracle(objective=kt.Objective("valid_nll", "min"), max_trials=None)
    oracle.verbose = 0
    return Tuner(oracle, directory=str(args.study_dir), project_name="tuner")


def show(args: argparse.Namespace, records: Records) -> None:
    """Prints how far every set and cell has come."""
    from rich.console import Console
    from rich.table import Table

    ended = records.read()
    wanted = [r for r in ended.values() if r["set"] in args.sets]
    done = sum(r["cell"] in args.cells for r in wanted)
    table = Table(title=f"{done} of {trials_in_all(args.sets, args.cells)} trials")
    for column in ("set", "cell", "rates", "best rate", "valid", "seeds", "test"):
        table.add_column(
            column, justify="left" if column in ("set", "cell") else "right"
        )
    for name in args.sets:
        for cell in args.cells:
            mine = [r for r in wanted if (r["set"], r["cell"]) == (name, cell)]
            search = [r for r in mine if r["phase"] == "search"]
            final = [r["test_nll_step"] for r in mine if r["phase"] == "seeds"]
            best = min(search, key=lambda r: r["valid_nll"], default=None)
            table.add_row(
                name,
                cell,
                f"{len(search)}/{RATES}",
                f"{best['learning_rate']:.2g}" if best else "",
                f"{best['valid_nll']:.3f}" if best else "",
                f"{len(final)}/{len(SEEDS)}",
                f"{np.mean(final):.3f} ± {np.std(final):.3f}" if final else "",
            )
    Console().print(table)


def discard_if_damaged(folder: Path) -> None:
    """Removes what KerasTuner keeps if a kill cut it short: the records tell all."""
    try:
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())
        damaged = not (folder / "oracle.json").exists()
    except ValueError:
        damaged = True
    if damaged:
        shutil.rmtree(folder, ignore_errors=True)


def search(args: argparse.Namespace, records: Records) -> int:
    one_of_several = "KERASTUNER_TUNER_ID" in os.environ
    if not one_of_several:
        discard_if_damaged(args.study_dir / "tuner")
    if args.workers == 1 or one_of_several:
        tuner(args, records).search()
        return 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    roles = ["chief", *(f"worker{k}" for k in range(args.workers))]
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    # Processes with more threads than there are cores take each other's time.
    threads = str(max(1, (os.cpu_count() or 1) // args.workers))
    where |= {f"TF_NUM_{kind}OP_THREADS": threads for kind in ("INTER", "INTRA")}
    processes = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**os.environ, **where, "KERASTUNER_TUNER_ID": role},
            stdout=subprocess.DEVNULL,
        )
        for role in roles
    ]
    chief, *workers = processes
    try:
        seen = -1
        while any(worker.poll() is None for worker in workers):
            if chief.poll():  # without it the workers would wait for ever
                return chief.returncode
            if len(records.read()) != seen:
                seen = len(records.read())
                show(args, records)
            time.sleep(1)
    finally:
        for process in processes:  # the chief waits for workers that have gone, too
            process.terminate()
            process.wait()
    return next((w.returncode for w in workers if w.returncode), 0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    whole = positive(int)
    add(
        "--sets",
        nargs="+",
        choices=list(RECIPES),
        default=list(RECIPES),
        metavar="SET",
        help=f"of {', '.join(RECIPES)} (default: all)",
    )
    add(
        "--cells",
        nargs="+",
        choices=list(comparison.CELLS),
        default=list(comparison.CELLS),
        metavar="CELL",
        help=f"of {', '.join(comparison.CELLS)} (default: all)",
    )
    add(
        "--budget",
        type=positive(float),
        metavar="MINUTES",
        help="begin no trial after so long (default: go on to the end)",
    )
    add(
        "--workers",
        type=whole,
        default=1,
        metavar="N",
        help="processes that share the trials (default: %(default)s)",
    )
    add(
        "--study-dir",
        type=Path,
        default=Path("runs/study"),
        metavar="DIR",
        help="where the study is kept; a folder of another name begins another "
        "(default: %(default)s)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the published sets (default: they are downloaded)",
    )
    add(
        "--fsdd-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the Free Spoken Digit Dataset's recordings",
    )
    add(
        "--afresh",
        action="store_true",
        help="run the trials whose records came with the project, too",
    )
    add(
        "--shorten",
        type=whole,
        default=1,
        metavar="N",
        help="train every trial for an Nth of its epochs, and leave ablations out",
    )
    one = parser.add_argument_group("one trial alone")
    one.add_argument("--rate", type=positive(float), metavar="X", help="learning rate")
    one.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="(default: %(default)s)"
    )
    one.add_argument(
        "--epochs", type=whole, metavar="N", help="(default: those of the search)"
    )
    one.add_argument("--without", choices=list(ABLATIONS), help="a part of the recipe")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    if args.shorten > 1:
        ABLATIONS.clear()
        for name, recipe in RECIPES.items():
            RECIPES[name] = recipe.shortened(args.shorten)
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    records = Records(args.study_dir / "records", None if args.afresh else COMMITTED)
    try:
        for name in args.sets:  # what is missing is said before anything is begun
            load(name, args.data_dir, args.fsdd_dir)
        if args.rate is None:
            return search(args, records)
        trial = {
            "set": args.sets[0],
            "cell": args.cells[0],
            "phase": args.without or "alone",
            "number": args.seed,
            "learning_rate": args.rate,
            "seed": args.seed,
            "epochs": args.epochs or RECIPES[args.sets[0]].search_epochs,
        }
        record = run_trial(trial, args, args.study_dir / "alone")
        records_alone = Records(args.study_dir / "alone", None)
        records_alone.write(record)
        print(json.dumps({k: v for k, v in record.items() if k != "curves"}, indent=1))
        print(f"Its record, with the curves: {records_alone.path(record)}")
    except (ValueError, ImportError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what is missing.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
