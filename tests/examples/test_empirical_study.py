"""The study in small: a set of a few chorales, few units, two rates."""

import contextlib
import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oracles import some

pytest.importorskip("keras_tuner")
from comparison import color_of
from kills import small_study
from kills.ends import end_of
from study import __main__ as command_line
from study import figures, recipes, records, report, trials, tuner
from study.joint import JointPlan
from study.recipes import AUTHORS_RMSPROP, RECIPES
from study.records import COMMITTED, Records, committed_in
from study.tasks import TASKS, Music, Sources, units_of
from study.trials import Plan, Trial
from study.variant_plan import VariantPlan
from study.variants import VARIANTS, Variant, variants_of

from keras_gated import CELLS, TanhCell, callbacks
from keras_gated.callbacks import identity

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "kills" / "small_study.py"


def command(folder, *more, script=SMALL):
    """Of the study in small, with an epoch in the search."""
    arguments = ["--sets", "jsb_chorales", "--cells", "gru", "--afresh"]
    return [
        *(sys.executable, script, *arguments, "--shorten", "30"),
        *("--study-dir", folder, *more),
    ]


def run(folder, *more):
    done = subprocess.run(
        command(folder, *more), capture_output=True, text=True, check=False
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
def test_study_that_is_killed_ends_as_one_that_is_not(tmp_path):
    """Killed at three random moments; what is left is repeated, bit by bit."""
    began = time.monotonic()
    out = run(tmp_path / "whole")
    seconds = time.monotonic() - began
    whole = records_of(tmp_path / "whole")
    assert list(whole) == [
        *(f"jsb_chorales-gru-finalists-{k}" for k in range(2)),
        *(f"jsb_chorales-gru-search-{k}" for k in range(2)),
        *(f"jsb_chorales-gru-seeds-{k}" for k in (1, 2)),
    ]
    assert re.search(r"6 of 6 trials", out)
    random = np.random.default_rng()
    for moment, workers in zip(random.uniform(0, seconds, 3), "121", strict=True):
        process = subprocess.Popen(
            command(tmp_path / "killed", "--workers", workers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moment)
        process.kill()
        process.communicate(timeout=60)  # until its workers have ended, too
        left = records_of(tmp_path / "killed")
        print(f"killed after {moment:.2f} of {seconds:.2f} s: {len(left)} records")
        assert left.items() <= whole.items()
    run(tmp_path / "killed")
    assert records_of(tmp_path / "killed") == whole
    assert end_of(tmp_path / "killed") == end_of(tmp_path / "whole")

    # The commands of records give their curves again, one after the other.
    for name in ("jsb_chorales-gru-seeds-2", "jsb_chorales-gru-seeds-1"):
        record = whole[name]
        arguments = record["command"].split()[2:]
        assert arguments[:4] == ["--sets", "jsb_chorales", "--cells", "gru"]
        run(tmp_path / "again", *arguments[4:])
        (path,) = (tmp_path / "again" / "alone").glob(f"*-{record['number']}.json")
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
def test_two_workers_end_as_one_process_does(tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "two", "--workers", "2")
    assert records_of(tmp_path / "two") == records_of(tmp_path / "one")


@pytest.mark.slow
def test_workers_do_not_wait_for_a_chief_that_failed(tmp_path):
    path = tmp_path / "without_chief.py"
    is_chief = 'os.environ.get("KERASTUNER_TUNER_ID") == "chief"'
    fails = f"import os, sys\nif {is_chief}:\n    sys.exit(3)\n"
    small = f"import runpy\nrunpy.run_path({str(SMALL)!r}, run_name='__main__')\n"
    path.write_text(fails + small)
    arguments = command(tmp_path / "study", "--workers", "2", script=path)
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=120)
    assert done.returncode == 3


FIGURES = (
    *("train_nll", "valid_nll", "test_nll_step", "test_nll_sequence"),
    *("test_nll_step_noisy", "test_nll_sequence_noisy"),
)


def records_for(plan):
    """Of a study that is done, with made-up figures, by their trials' keys."""
    made, random = {}, np.random.default_rng(0)
    while missing := [t for t in plan.trials(made) if t.key not in made]:
        for trial in missing:
            nll = float(9 + random.random())
            curve = [nll + 0.1 * k for k in range(10, 0, -1)]
            settings = plan.settings(trial)
            made[trial.key] = {
                **dataclasses.asdict(trial),
                "units": settings.units,
                "parameters": 1000,
                "updates": 10 * trial.epochs,
                "optimizer": dict(settings.optimizer_options),
                "batch_size": settings.batch_size,
                "sequence_length": settings.sequence_length,
                **{key: getattr(settings, key) for key in trials._OF_JOINT},
                **plan.more_of_record(trial),
                **dict.fromkeys(FIGURES, nll),
                "seconds": 1.0,
                "curves": {"nll": curve, "val_nll": curve, "seconds": [*range(10)]},
                "failure": None,
                "command": trial.command,
                "versions": {},
            }
    return made


def test_plan_is_the_papers():
    plan = Plan()
    made = records_for(plan)
    assert len(plan.trials(made)) == len(made) == plan.total
    assert all(map(plan.is_current, made.values()))
    record = made["jsb_chorales", "gru", "search", 3]
    for stale in {"epochs": 1}, {"optimizer": AUTHORS_RMSPROP}, {"set": "another"}:
        assert not plan.is_current({**record, **stale})
    search = [t for t in plan.trials(made) if t.phase == "search"]
    rates = np.log([t.learning_rate for t in search])
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
    final = [t for t in plan.trials(made) if t.phase == "seeds"]
    assert len(final) == 72
    for trial in final:

        def ranked(phase, of=(trial.set, trial.cell)):
            found = [r for key, r in made.items() if key[:3] == (*of, phase)]
            return sorted(found, key=lambda r: r["valid_nll"])

        best, recipe = ranked("search"), RECIPES[trial.set]
        if recipe.finalists > 1:
            best = best[: recipe.finalists]
            again = ranked("finalists")
            assert {r["learning_rate"] for r in again} == {
                r["learning_rate"] for r in best
            }
            assert {r["epochs"] for r in again} == {recipe.epochs}
            best = again
        assert trial.learning_rate == best[0]["learning_rate"]
    # Table 1.
    for name, units in ("jsb_chorales", [36, 46, 100]), ("speech_500", [195, 227, 400]):
        assert [units_of(TASKS[name], c) for c in ("lstm", "gru", "tanh")] == units


def test_shortened_plan_is_another_value():
    short = Plan().part(["nottingham", "jsb_chorales"], ["gru"]).shortened(4)
    assert [(r.search_epochs, r.epochs) for r in short.recipes.values()] == [
        (5, 50),
        (3, 25),
    ]
    trials = short.trials(records_for(short))
    assert {t.phase for t in trials} == {"search", "finalists", "seeds"}
    assert {t.epochs for t in trials} == {5, 50, 3, 25}
    # Part or whole, long or short: the same rates.
    assert {t.learning_rate for t in trials} <= {
        t.learning_rate for t in Plan().trials({})
    }
    assert (
        RECIPES["jsb_chorales"].epochs == Plan().recipes["jsb_chorales"].epochs == 100
    )


def test_plan_of_models_of_whole_frames():
    """All of all, but the output that takes longest is for one cell."""
    plan = JointPlan()
    trials = plan.trials({})
    made = records_for(plan)
    assert len(trials) == len(made) == plan.total == 4 * 2 * 3 * (4 * 3 + 1)
    assert all(map(plan.is_current, made.values()))
    record = made["muse_data", "lstm", "nade", 3]
    for stale in {"epochs": 1}, {"weight_noise": 0.5}, {"set": "another"}:
        assert not plan.is_current({**record, **stale})
    assert {t.cell for t in trials if t.phase.startswith("tied")} == {"gru"}
    assert {t.phase for t in trials[:4]} == {"tied 200"}
    # As many parameters as a GRU of 200 units, whatever the cell.
    for cell, kind in CELLS.items():
        trial = Trial("jsb_chorales", cell, "nade 200", 1, 0.002, 1, 60)
        made_cell = kind(plan.settings(trial).units)
        made_cell.build((None, 88))
        assert abs(made_cell.count_params() / 173_400 - 1) < 0.02


def test_committed_records_are_those_of_the_plan(monkeypatch):
    """Complete and current; the command of each says its trial."""
    plan, joint, variants = Plan(), JointPlan(), VariantPlan()
    committed = Records(Path("none"), committed_in(COMMITTED)).read()
    frames = {k: r for k, r in committed.items() if k[2] in recipes.JOINT_PHASES}
    varied = {k: r for k, r in committed.items() if k[1] in VARIANTS}
    made = {k: committed[k] for k in committed.keys() - frames.keys() - varied.keys()}
    assert {trial.key for trial in plan.trials(made)} == set(made)
    assert all(map(plan.is_current, made.values()))
    assert all(map(joint.is_current, frames.values()))
    assert {record["seed"] for record in frames.values()} <= {*joint.seeds}
    assert all(map(variants.is_current, varied.values()))
    assert {trial.key for trial in variants.trials(varied)} >= set(varied)
    for record in committed.values():
        trial = Trial.of(record)
        assert trial.command == record["command"]
        _, script, *arguments = shlex.split(record["command"])
        assert (ROOT / script).exists()
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        args = command_line.parse_arguments(variants if trial.key in varied else plan)
        said = args.sets, args.cells, args.rate, args.seed, args.epochs
        rest = trial.learning_rate, trial.seed, trial.epochs
        assert said == ([trial.set], [trial.cell], *rest)
        ablation = trial.phase if trial.phase in recipes.ABLATIONS else None
        assert args.without == ablation
        assert args.phase == (trial.phase if trial.key in frames else None)
        assert args.joint == (trial.key in frames)
        assert args.variants == (trial.key in varied)


def test_plan_of_the_variants(monkeypatch):
    """One after the other, set by set; as the paper's cells are trained."""
    plan, paper = VariantPlan(), Plan()
    made = records_for(plan)
    order = [trial.key for trial in plan.trials(made)]
    assert len(order) == len(made) == plan.total == 2 * len(VARIANTS) * 13
    assert order == [
        (name, variant, phase, number)
        for name in ("jsb_chorales", "piano_midi")
        for variant in VARIANTS
        for phase, numbers in (("search", range(10)), ("seeds", (1, 2, 3)))
        for number in numbers
    ]
    assert all(map(plan.is_current, made.values()))
    assert not any(map(paper.is_current, made.values()))
    record = made["piano_midi", "lstm_zoneout", "seeds", 3]
    for stale in {"epochs": 1}, {"arguments": {}}, {"set": "nottingham"}:
        assert not plan.is_current({**record, **stale})
    for name, variant in VARIANTS.items():
        rates = plan.learning_rates("piano_midi", name)
        assert rates == paper.learning_rates("piano_midi", variant.of)
        trained = Trial.of(made["piano_midi", name, "seeds", 1])
        cell = variant(plan.settings(trained).units)
        cell.build((None, 100))
        assert abs(cell.count_params() / 20_000 - 1) < 0.03
    trial = Trial.of(record)
    monkeypatch.setattr(sys, "argv", shlex.split(trial.command)[1:])
    alone = []
    monkeypatch.setattr(command_line, "run_alone", lambda *all: alone.append(all))
    monkeypatch.setattr(Music, "load", lambda *all: None)
    assert command_line.main() == 0
    ((args, part, _),) = alone
    assert type(part) is VariantPlan
    assert (args.sets, args.cells) == (["piano_midi"], ["lstm_zoneout"])
    assert (args.rate, args.seed, args.epochs) == (trial.learning_rate, 3, 40)


@pytest.mark.slow
def test_a_variant_is_trained_and_its_record_is_known(tmp_path, monkeypatch):
    """One of a cell that is made for this test, with arguments of cell and layer."""
    new = {"new": type("NewCell", (TanhCell,), {"title": "new cell"})}
    variant = dataclasses.replace(
        variants_of(new)["new"],
        arguments={"layer_norm": True, "zoneout": [0.5]},
        layer={"learn_initial_state": True},
    )
    monkeypatch.setitem(VARIANTS, "new", variant)
    random = np.random.default_rng(0)
    rolls = [(random.random((8, 88)) < 0.1).astype("uint8") for _ in range(6)]
    tasks = {"jsb_chorales": Music("few", lambda folder: (rolls,) * 3, 500, 88)}
    plan = VariantPlan(tasks=tasks).part(["jsb_chorales"], ["new"]).shortened(50)
    trial = plan.trials({})[0]
    record = trials.run(trial, plan, Sources(), tmp_path)
    assert plan.is_current(json.loads(json.dumps(record)))
    units = record["units"]
    # The kernels, a bias, a gain and an initial state.
    assert record["parameters"] == 88 * units + units**2 + 3 * units
    assert record["failure"] is None
    assert records.in_order([record]) == [record]


@pytest.mark.slow
def test_a_training_that_other_versions_began_is_begun_anew(
    tmp_path, monkeypatch, capsys
):
    """One with other data is not."""
    plan = small_study.plan.shortened(small_study.EPOCHS)
    trial = plan.trials({})[0]
    first = trials.run(trial, plan, Sources(), tmp_path)  # the backup is still there
    version = identity.importlib.metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(
            identity.importlib.metadata,
            "version",
            lambda name: "9.9" if name == "keras" else version(name),
        )
        again = trials.run(trial, plan, Sources(), tmp_path)
    assert "keras was" in capsys.readouterr().err
    assert again["valid_nll"] == first["valid_nll"]
    other = dataclasses.replace(plan, tasks={"jsb_chorales": small_study.few(9)})
    with pytest.raises(callbacks.BackupError, match=r"data\.content"):
        trials.run(trial, other, Sources(), tmp_path)


def test_cells_that_the_paper_does_not_have_are_variants():
    def projected(units, projection_units):
        return units, projection_units

    projected.title = "projected LSTM"
    found = variants_of({"other": TanhCell, "projected_lstm": projected})
    assert set(variants_of({})) == set(found) - {"other", "projected_lstm"}
    assert isinstance(found["other"], Variant)
    assert isinstance(found["other"](3), TanhCell)
    assert found["projected_lstm"](3) == (6, 3)


def test_report_of_the_variants(tmp_path):
    """Beside the four cells; some have been trained so far."""
    paper = records_for(Plan().part(["jsb_chorales", "piano_midi"], CELLS))
    made = records_for(VariantPlan().part(["jsb_chorales"], ["gru_layer_norm"]))
    written = Records(tmp_path / "records")
    for records_ in made, paper:  # also without the cells
        for record in records_.values():
            written.write(record)
        report.make(tmp_path / "records", tmp_path / "docs")
    text = (tmp_path / "docs" / "report.md").read_text()
    part = text.partition("## Which variants are worth having?")[2]
    lines = part.partition("\n\n## ")[0].splitlines()
    assert [line.split(" | ")[0] for line in lines[-5:]] == [
        *(f"| {cell.title}" for cell in CELLS.values()),
        "| GRU, layer norm",
    ]
    nll = [made["jsb_chorales", "gru_layer_norm", "seeds", n] for n in (1, 2, 3)]
    nll = [record["test_nll_step"] for record in nll]
    cell = f"{np.mean(nll):.3f} ± {np.std(nll, ddof=1):.3f}"
    assert lines[-1].endswith(f"| {cell} | {cell} | 1 |  |  |  |")
    with open(tmp_path / "docs" / "variants.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(CELLS) + 1
    assert rows[4]["cell"] == "gru_layer_norm"
    assert float(rows[4]["test_nll_step_std"]) == pytest.approx(
        np.std(nll, ddof=1), rel=1e-4
    )


@pytest.mark.parametrize("name", ["--minutes", "--budget"])
def test_names_of_the_limit_of_time(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["empirical_study.py", name, "60"])
    assert command_line.parse_arguments(Plan()).minutes == 60


@pytest.mark.slow
def test_a_new_cell_is_in_the_plan_the_report_and_the_figures(tmp_path, monkeypatch):
    class NewCell(TanhCell):
        title = "new cell"

    monkeypatch.setitem(CELLS, "new", NewCell)
    made = records_for(Plan()) | records_for(JointPlan())
    assert ("speech_8000", "new", "seeds", 3) in made
    assert ("jsb_chorales", "new", "no decay", 1) in made
    drawn = []
    draw = figures._draw
    monkeypatch.setattr(figures, "_draw", lambda *a: (drawn.append(a[2]), draw(*a)))
    written = Records(tmp_path / "records")
    for record in made.values():
        written.write(record)
    report.make(tmp_path / "records", tmp_path / "docs")
    assert drawn.count("new cell") == len(TASKS)
    assert color_of("new") == f"C{len(CELLS) - 1}"
    text = (tmp_path / "docs" / "report.md").read_text()
    assert "| set | tanh | LSTM | GRU | simplified GRU | new cell |" in text
    assert text.count("| new cell |") > 3 * len(TASKS)
    with open(tmp_path / "docs" / "joint.csv") as file:
        rows = list(csv.DictReader(file))
    sizes = {
        head: {row["units"] for row in rows if row["head"] == head}
        for head in ("independent", "linear", "nade", "tied")
    }
    assert len(sizes["tied"]) == 2 < len(sizes["nade"])  # of the GRU alone
    assert {row["cell"] for row in rows} == set(CELLS)
    row = next(r for r in rows if (r["cell"], r["seeds"]) == ("new", "3"))
    found = [
        record
        for record in made.values()
        if (record["set"], record["cell"]) == (row["set"], "new")
        and recipes.JOINT_PHASES.get(record["phase"], ("",))[0] == row["head"]
        and str(record["units"]) == row["units"]
    ]
    mean = np.mean([record["test_nll_step"] for record in found])
    assert float(row["test_nll_step_mean"]) == pytest.approx(mean, abs=1e-5)
    assert "RNN-NADE (2012) | exact | 2.31 | 5.56 |" in text
    assert "by sequence, noise left on" in text


def search(folder):
    plan = Plan().part(["piano_midi"], ["gru"])
    return plan, tuner.search(plan, Records(folder / "records"), folder, Sources())


@pytest.mark.parametrize("damage", some(["cut short", "empty", "missing"], 0))
def test_search_goes_on_though_a_kill_damaged_the_tuners_files(
    tmp_path, monkeypatch, damage
):
    """KerasTuner writes its files in place; a kill may come in between."""
    made_up, ran = records_for(Plan()), []

    def run(trial, plan, sources, folder):
        ran.append(trial.key)
        return made_up[trial.key]

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(tuner, "show_progress", lambda plan, records: None)
    monkeypatch.delenv("KERASTUNER_TUNER_ID", raising=False)
    plan, code = search(tmp_path)
    assert code == 0
    written = Records(tmp_path / "records")
    expected = written.read()
    assert len(ran) == len(expected) == plan.total == plan.rates + len(plan.seeds)
    state = tmp_path / "tuner" / "oracle.json"
    if damage == "missing":
        state.unlink()
    else:
        text = state.read_text()
        state.write_text(text[: len(text) // 2] if damage == "cut short" else "")
    lost = ("piano_midi", "gru", "seeds", 2)
    written.path(Trial.of(made_up[lost])).unlink()
    ran.clear()
    assert search(tmp_path)[1] == 0
    assert ran == [lost]
    assert written.read() == expected


def test_a_record_that_is_being_written_is_not_read(tmp_path):
    """By another worker, or by one that was killed at it."""
    whole, half = list(records_for(Plan()).values())[:2]
    written = Records(tmp_path)
    written.write(whole)

    class Reader(dict):
        def __iter__(self):  # while the record is made into text
            assert list(written.read().values()) == [whole]
            return super().__iter__()

        def items(self):
            assert list(written.read().values()) == [whole]
            return super().items()

    written.write(Reader(half))
    assert list(written.read().values()) == sorted(
        [whole, half], key=lambda record: str(written.path(Trial.of(record)))
    )
    (tmp_path / ".killed-x1.json").touch()
    assert len(written.read()) == 2


NO_TRIAL = [
    json.dumps({**next(iter(records_for(Plan()).values())), name: value})
    for name, value in [("set", []), ("cell", None), ("number", "1"), ("seed", 1.5)]
]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"set": "jsb_chorales"}', "\xff\xfe", "[" * 99_999, *NO_TRIAL]
)
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    text = text.encode("latin-1")
    (tmp_path / "other.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"other\.json' is no record of a trial"):
        Records(tmp_path).read()
    (tmp_path / "all.jsonl").write_bytes(text or b"{")
    with pytest.raises(ValueError, match=r"all\.jsonl', line 1, is no record"):
        Records(tmp_path / "none", [tmp_path / "all.jsonl"])


@pytest.mark.parametrize("name", ["set", "phase", "cell"])
def test_a_record_of_something_unknown_is_named(name):
    record = {**next(iter(records_for(Plan()).values())), name: "other"}
    with pytest.raises(ValueError, match=f"the {name} 'other', which is none of"):
        records.in_order([record])


def make_report(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["study_report.py", *map(str, arguments)])
    return report.main()


def test_report_from_records(tmp_path, monkeypatch):
    plan = Plan()
    made = records_for(plan)
    folder = tmp_path / "runs" / "records"
    written = Records(folder)
    for record in made.values():
        written.write(record)
    places = ["--study-dir", tmp_path / "runs", "--to", tmp_path / "docs"]
    log_dir = tmp_path / "tensorboard"
    assert make_report(monkeypatch, *places, "--log-dir", log_dir) == 0
    with open(tmp_path / "docs" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    head = (tmp_path / "docs" / "summary.csv").read_text().splitlines()[0]
    assert head == (
        "set,cell,units,parameters,learning_rate,seeds,epochs,updates,seconds,"
        "train_nll,valid_nll,test_nll_step_mean,test_nll_step_std,"
        "test_nll_sequence_mean,test_nll_sequence_std"
    )
    assert [(row["set"], row["cell"]) for row in rows] == [
        (name, cell) for name in RECIPES for cell in CELLS
    ]
    values = [made["muse_data", "gru", "seeds", n]["test_nll_step"] for n in plan.seeds]
    (row,) = (r for r in rows if (r["set"], r["cell"]) == ("muse_data", "gru"))
    assert float(row["test_nll_step_mean"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(row["test_nll_step_std"]) == pytest.approx(
        np.std(values, ddof=1), rel=1e-4
    )
    text = (tmp_path / "docs" / "report.md").read_text()
    difference = f"{np.mean(values) - 5.99:+.2f}"
    assert re.search(rf"MuseData \| GRU .*5\.06 / 5\.99 \| \{difference} ", text)
    line = re.search(r"\| MuseData \|([^|]*)\| GRU, tanh, LSTM \|([^|]*)\|", text)
    means = {
        cell: np.mean(
            [made["muse_data", cell, "seeds", n]["test_nll_step"] for n in plan.seeds]
        )
        for cell in CELLS
    }
    order = [CELLS[cell].title for cell in sorted(means, key=means.get)]
    assert line[1].strip() == ", ".join(order)
    assert line[2].strip() == "none"
    for name in ("figure_2.svg", "figure_3.svg"):
        assert (tmp_path / "docs" / name).read_text().startswith("<?xml")
    # Anyone can make the one from the other.
    for path in folder.iterdir():
        path.unlink()
    before = contents(tmp_path / "docs")
    assert make_report(monkeypatch, *places) == 0
    assert contents(tmp_path / "docs") == before
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for cell in CELLS:  # a run a cell
        log = EventAccumulator(str(log_dir / "curves" / CELLS[cell].title))
        log.Reload()
        assert set(log.Tags()["scalars"]) == set(RECIPES)
        curve = made["jsb_chorales", cell, "seeds", 1]["curves"]["val_nll"]
        points = [(e.step, e.wall_time, e.value) for e in log.Scalars("jsb_chorales")]
        assert points == [(k + 1, k, pytest.approx(curve[k])) for k in range(10)]
        assert "custom_scalars__config__" in log.Tags()["tensors"]


def contents(folder):
    """But for the pictures, which other versions of matplotlib draw otherwise."""
    return {
        path.relative_to(folder): path.read_text()
        for path in folder.rglob("*.*")
        if path.suffix != ".svg"
    }


def test_committed_report_is_that_of_the_committed_records(tmp_path):
    shutil.copytree(COMMITTED.parent, tmp_path / "docs")
    report.make(tmp_path / "none", tmp_path / "docs")
    assert contents(tmp_path / "docs") == contents(COMMITTED.parent)


def test_report_of_the_quick_study_shows_its_own_epochs(tmp_path):
    """And sizes; one trial has failed."""
    made = records_for(Plan().part(["jsb_chorales"], CELLS).shortened(4))
    lost = made["jsb_chorales", "gru", "seeds", 2]
    for name in [n for n in lost if n.endswith(("train_nll", "_step", "_sequence"))]:
        del lost[name]
    lost |= {"valid_nll": float("inf"), "failure": "no epoch had a finite NLL"}
    del lost["curves"]
    for record in made.values():
        Records(tmp_path / "records").write(record | {"units": 7})
    report.make(tmp_path / "records", tmp_path / "docs")
    text = (tmp_path / "docs" / "report.md").read_text()
    assert re.search(r"\| JSB Chorales \|( 10 \+ 3 \|){4} 3, 25 \|", text)
    assert re.search(r"\| MuseData \|( 0 \+ 0 \|){4} –, – \|", text)
    assert "12, 100" not in text
    assert "| music | tanh | 7 |" in text
    assert "| speech | tanh | 400 |" in text
    assert f"- `{lost['command']}`" in text
    with open(tmp_path / "docs" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["seeds"] for row in rows] == ["3", "3", "2", "3"]


def test_report_without_records_says_so(tmp_path, monkeypatch, capsys):
    docs = tmp_path / "docs"
    assert make_report(monkeypatch, "--study-dir", tmp_path, "--to", docs) == 2
    assert "empirical_study.py makes them" in capsys.readouterr().err
    assert not docs.exists()


def run_main(monkeypatch, folder, plan, *arguments):
    monkeypatch.setattr(sys, "argv", ["empirical_study.py", *map(str, arguments)])
    monkeypatch.chdir(folder)
    return command_line.main(plan)


def test_missing_data_is_said_before_anything_is_begun(tmp_path, monkeypatch, capsys):
    arguments = ("--data-dir", tmp_path, "--sets", "nottingham")
    assert run_main(monkeypatch, tmp_path, None, *arguments) == 2
    assert "Nottingham" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_change_of_the_recipe_for_another_cell(tmp_path, monkeypatch, capsys):
    tasks = {**TASKS, "jsb_chorales": Music("no music", lambda folder: None)}
    plan = Plan(tasks=tasks).part(["jsb_chorales"], CELLS)
    arguments = ("--cells", "gru", "--rate", "0.1", "--without", "no peepholes")
    assert run_main(monkeypatch, tmp_path, plan, *arguments) == 2
    assert "is for the cell 'lstm'. Received: --cells gru" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    ["examples/empirical_study.py", "examples/study_report.py", "benchmarks/study.py"],
)
def test_scripts_find_the_package_from_any_folder(script, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(script).name in done.stdout
