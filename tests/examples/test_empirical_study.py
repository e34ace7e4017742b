"""The study in small: a set of a few chorales, few units, two rates."""

import argparse
import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras_tuner")
EXAMPLES = Path(__file__).parents[2] / "examples"
SETTING = """
import sys
sys.path.insert(0, EXAMPLES)
import empirical_study as study, numpy as np
from keras_gated.datasets import jsb_chorales

def load_data(data_dir=None):
    random = np.random.default_rng(0)
    rolls = [(random.random((8 + k % 3, 88)) < 0.1).astype("uint8") for k in range(12)]
    return rolls[:6], rolls[6:9], rolls[9:]

jsb_chorales.load_data = load_data
study.MUSIC_BUDGET, study.MUSIC_INPUTS = 500, 88
study.RATES, study.SEEDS, study.ABLATIONS = 2, (1, 2), {}
study.RECIPES["jsb_chorales"] = study.Recipe(1, 2, 4, finalists=2)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A script that runs the study in small."""
    path = tmp_path_factory.mktemp("driver") / "small_study.py"
    where = f"EXAMPLES = {str(EXAMPLES)!r}\n"
    path.write_text(where + SETTING + "sys.exit(study.main())\n")
    return path


def command(driver, folder, *more):
    arguments = ["--sets", "jsb_chorales", "--cells", "gru", "--afresh"]
    return [
        *(sys.executable, driver, *arguments),
        *("--study-dir", folder, *more),
    ]


def run(driver, folder, *more):
    done = subprocess.run(
        command(driver, folder, *more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def records_of(folder):
    """What does not depend on the clock."""
    records = {}
    for path in sorted(Path(folder, "records").glob("*.json")):
        record = json.loads(path.read_text())
        del record["seconds"], record["curves"]["seconds"]
        records[path.stem] = record
    return records


@pytest.mark.slow
def test_study_that_is_killed_ends_as_one_that_is_not(driver, tmp_path):
    """Killed at two random moments; what is left is repeated, bit by bit."""
    began = time.monotonic()
    out = run(driver, tmp_path / "whole")
    seconds = time.monotonic() - began
    whole = records_of(tmp_path / "whole")
    assert list(whole) == [
        *(f"jsb_chorales-gru-finalists-{k}" for k in range(2)),
        *(f"jsb_chorales-gru-search-{k}" for k in range(2)),
        *(f"jsb_chorales-gru-seeds-{k}" for k in (1, 2)),
    ]
    assert re.search(r"6 of 6 trials", out)
    random = np.random.default_rng()
    for moment in random.uniform(0, seconds, 2):
        process = subprocess.Popen(
            command(driver, tmp_path / "killed"), stdout=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()
        process.wait()
        left = records_of(tmp_path / "killed")
        print(f"killed after {moment:.2f} of {seconds:.2f} s: {len(left)} records")
        assert left.items() <= whole.items()
    run(driver, tmp_path / "killed")
    assert records_of(tmp_path / "killed") == whole

    # The command of a record gives its curve again.
    record = whole["jsb_chorales-gru-seeds-2"]
    arguments = record["command"].split()[2:]
    assert arguments[:4] == ["--sets", "jsb_chorales", "--cells", "gru"]
    run(driver, tmp_path / "again", *arguments[4:])
    (path,) = (tmp_path / "again" / "alone").glob("*.json")
    again = json.loads(path.read_text())
    for key in ("nll", "val_nll"):
        assert again["curves"][key] == record["curves"][key]
    assert again["test_nll_step"] == record["test_nll_step"]
    again = [whole[f"jsb_chorales-gru-finalists-{k}"] for k in range(2)]
    best = min(again, key=lambda r: r["valid_nll"])
    assert record["learning_rate"] == best["learning_rate"]
    first = whole["jsb_chorales-gru-seeds-1"]
    assert first["curves"] == best["curves"]


@pytest.mark.slow
def test_two_workers_end_as_one_process_does(driver, tmp_path):
    run(driver, tmp_path / "one")
    run(driver, tmp_path / "two", "--workers", "2")
    assert records_of(tmp_path / "two") == records_of(tmp_path / "one")


@pytest.mark.slow
def test_workers_do_not_wait_for_a_chief_that_failed(driver, tmp_path):
    path = tmp_path / "without_chief.py"
    is_chief = 'os.environ.get("KERASTUNER_TUNER_ID") == "chief"'
    fails = f"import os, sys\nif {is_chief}:\n    sys.exit(3)\n"
    path.write_text(fails + driver.read_text())
    arguments = command(path, tmp_path / "study", "--workers", "2")
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=120)
    assert done.returncode == 3


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import empirical_study

    return empirical_study


def records_for(study, **figures):
    """Of a study that is done, with made-up figures."""
    records, random = {}, np.random.default_rng(0)
    while trials := [
        trial
        for trial in study.plan(
            list(study.RECIPES), list(study.comparison.CELLS), records
        )
        if study.key_of(trial) not in records
    ]:
        for trial in trials:
            nll = float(9 + random.random())
            curve = [nll + 0.1 * k for k in range(10, 0, -1)]
            records[study.key_of(trial)] = {
                **trial,
                "units": study.units_of(trial["set"], trial["cell"]),
                "parameters": 1000,
                "updates": 10 * trial["epochs"],
                "optimizer": study.settings_of(trial)["optimizer_options"],
                **{
                    key: getattr(study.RECIPES[trial["set"]], key)
                    for key in ("batch_size", "sequence_length")
                },
                "train_nll": nll,
                "valid_nll": nll,
                "test_nll_step": nll,
                "test_nll_sequence": nll,
                "seconds": 1.0,
                "curves": {"nll": curve, "val_nll": curve, "seconds": [*range(10)]},
                "failure": None,
                "command": study.command_of(trial),
                "versions": {},
            }
    return records


def test_plan_is_the_papers(study):
    sets, cells = list(study.RECIPES), list(study.comparison.CELLS)
    records = records_for(study)
    trials = study.plan(sets, cells, records)
    assert len(trials) == len(records) == study.trials_in_all(sets, cells)
    assert all(map(study.is_current, records.values()))
    record = records["jsb_chorales", "gru", "search", 3]
    for stale in {"epochs": 1}, {"optimizer": study.AUTHORS_RMSPROP}:
        assert not study.is_current({**record, **stale})
    search = [t for t in trials if t["phase"] == "search"]
    rates = np.log([t["learning_rate"] for t in search])
    assert len(rates) == 240
    assert rates.min() > -12.001
    assert rates.max() < -5.999
    # Uniform in the logarithm, and for each set and cell one of each tenth.
    for cell in range(4):
        tenths = (np.sort(rates[cell:40:4]) + 12) / 0.6 - np.arange(10)
        assert tenths.min() > -1e-3
        assert tenths.max() < 1 + 1e-3
    within = (rates + 12) / 0.6 % 1
    assert abs(within.mean() - 0.5) < 4 / np.sqrt(12 * 240)
    final = [t for t in trials if t["phase"] == "seeds"]
    assert len(final) == 72
    for trial in final:

        def ranked(phase, of=(trial["set"], trial["cell"])):
            found = [r for key, r in records.items() if key[:3] == (*of, phase)]
            return sorted(found, key=lambda r: r["valid_nll"])

        best, recipe = ranked("search"), study.RECIPES[trial["set"]]
        if recipe.finalists > 1:
            best = best[: recipe.finalists]
            again = ranked("finalists")
            assert {r["learning_rate"] for r in again} == {
                r["learning_rate"] for r in best
            }
            assert {r["epochs"] for r in again} == {recipe.epochs}
            best = again
        assert trial["learning_rate"] == best[0]["learning_rate"]
    # Table 1.
    units = [study.units_of("jsb_chorales", c) for c in ("lstm", "gru", "tanh")]
    assert units == [36, 46, 100]
    units = [study.units_of("speech_500", c) for c in ("lstm", "gru", "tanh")]
    assert units == [195, 227, 400]


@pytest.mark.parametrize("damage", ["cut short", "empty", "missing"])
def test_search_goes_on_though_a_kill_damaged_the_tuners_files(
    study, tmp_path, monkeypatch, damage
):
    """KerasTuner writes its files in place; a kill may come in between."""
    made_up, ran = records_for(study), []

    def run_trial(trial, args, folder):
        ran.append(study.key_of(trial))
        return made_up[study.key_of(trial)]

    monkeypatch.setattr(study, "run_trial", run_trial)
    monkeypatch.setattr(study, "show", lambda args, records: None)
    monkeypatch.delenv("KERASTUNER_TUNER_ID", raising=False)
    args = argparse.Namespace(
        sets=["piano_midi"], cells=["gru"], workers=1, budget=None, study_dir=tmp_path
    )
    records = study.Records(tmp_path / "records", None)
    assert study.search(args, records) == 0
    expected = records.read()
    assert len(ran) == len(expected) == study.RATES + len(study.SEEDS)
    state = tmp_path / "tuner" / "oracle.json"
    if damage == "missing":
        state.unlink()
    else:
        text = state.read_text()
        state.write_text(text[: len(text) // 2] if damage == "cut short" else "")
    lost = ("piano_midi", "gru", "seeds", 2)
    records.path(made_up[lost]).unlink()
    ran.clear()
    assert study.search(args, records) == 0
    assert ran == [lost]
    assert records.read() == expected


def test_a_record_that_is_being_written_is_not_read(study, tmp_path):
    """By another worker, or by one that was killed at it."""
    whole, half = list(records_for(study).values())[:2]
    records = study.Records(tmp_path, None)
    records.write(whole)

    class Reader(dict):
        def __iter__(self):  # while the record is made into text
            assert list(records.read().values()) == [whole]
            return super().__iter__()

        def items(self):
            assert list(records.read().values()) == [whole]
            return super().items()

    records.write(Reader(half))
    assert list(records.read().values()) == sorted(
        [whole, half], key=lambda record: str(records.path(record))
    )
    (tmp_path / ".killed-x1.json").touch()
    assert len(records.read()) == 2


def test_report_from_records(study, tmp_path, monkeypatch):
    import study_report

    records = records_for(study)
    folder = tmp_path / "runs" / "records"
    folder.mkdir(parents=True)
    written = study.Records(folder, None)
    for record in records.values():
        written.write(record)
    arguments = ["--study-dir", tmp_path / "runs", "--to", tmp_path / "docs"]
    arguments += ["--log-dir", tmp_path / "tensorboard"]
    monkeypatch.setattr(sys, "argv", ["study_report.py", *map(str, arguments)])
    assert study_report.main() == 0
    with open(tmp_path / "docs" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    head = (tmp_path / "docs" / "summary.csv").read_text().splitlines()[0]
    assert head == (
        "set,cell,units,parameters,learning_rate,seeds,epochs,updates,seconds,"
        "train_nll,valid_nll,test_nll_step_mean,test_nll_step_std,"
        "test_nll_sequence_mean,test_nll_sequence_std"
    )
    assert [(row["set"], row["cell"]) for row in rows] == [
        (name, cell) for name in study.RECIPES for cell in study.comparison.CELLS
    ]
    values = [
        records["muse_data", "gru", "seeds", n]["test_nll_step"] for n in study.SEEDS
    ]
    (row,) = (r for r in rows if (r["set"], r["cell"]) == ("muse_data", "gru"))
    assert float(row["test_nll_step_mean"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(row["test_nll_step_std"]) == pytest.approx(
        np.std(values, ddof=1), rel=1e-4
    )
    report = (tmp_path / "docs" / "report.md").read_text()
    difference = f"{np.mean(values) - 5.99:+.2f}"
    assert re.search(rf"MuseData \| GRU .*5\.06 / 5\.99 \| \{difference} ", report)
    line = re.search(r"\| MuseData \|([^|]*)\| GRU, tanh, LSTM \|([^|]*)\|", report)
    means = {
        cell: np.mean(
            [
                records["muse_data", cell, "seeds", n]["test_nll_step"]
                for n in study.SEEDS
            ]
        )
        for cell in study.comparison.CELLS
    }
    order = [study_report.TITLES[cell] for cell in sorted(means, key=means.get)]
    assert line[1].strip() == ", ".join(order)
    assert line[2].strip() == "none"
    for name in ("figure_2.png", "figure_3.png"):
        assert (tmp_path / "docs" / name).read_bytes()[1:4] == b"PNG"
    # Anyone can make the one from the other.
    for path in folder.iterdir():
        path.unlink()
    before = {p.name: p.read_bytes() for p in (tmp_path / "docs").iterdir()}
    monkeypatch.setattr(sys, "argv", sys.argv[:5])
    assert study_report.main() == 0
    for name in ("records.jsonl", "summary.csv", "report.md"):
        assert (tmp_path / "docs" / name).read_bytes() == before[name]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for cell in study.comparison.CELLS:  # a run a cell
        folder = tmp_path / "tensorboard" / "curves" / study_report.TITLES[cell]
        log = EventAccumulator(str(folder))
        log.Reload()
        assert set(log.Tags()["scalars"]) == set(study.RECIPES)
        curve = records["jsb_chorales", cell, "seeds", 1]["curves"]["val_nll"]
        points = [(e.step, e.wall_time, e.value) for e in log.Scalars("jsb_chorales")]
        assert points == [(k + 1, k, pytest.approx(curve[k])) for k in range(10)]
        assert "custom_scalars__config__" in log.Tags()["tensors"]


def test_report_without_records_says_so(study, tmp_path, monkeypatch, capsys):
    import study_report

    arguments = ["--study-dir", str(tmp_path), "--to", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", ["study_report.py", *arguments])
    assert study_report.main() == 2
    assert "empirical_study.py makes them" in capsys.readouterr().err


def test_missing_data_is_said_before_anything_is_begun(
    study, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        sys,
        "argv",
        ["empirical_study.py", "--data-dir", str(tmp_path), "--sets", "nottingham"],
    )
    monkeypatch.chdir(tmp_path)
    study.load.cache_clear()
    assert study.main() == 2
    assert "Nottingham" in capsys.readouterr().err
    assert not os.listdir(tmp_path)
