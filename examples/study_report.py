"""Makes the report of the empirical study from its records: tables, figures, curves.

What `examples/empirical_study.py` has recorded is added to the records that came with
the project; from all of them come `summary.csv`, `report.md`, the figures in the
manner of the paper's figures 2 and 3, and, with --log-dir, a TensorBoard run with a
chart for every set and the hyperparameters of all trials. Nothing in it comes from
elsewhere, but for the paper's own figures.
"""

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import comparison
import empirical_study
import numpy as np
from empirical_study import ABLATED, ABLATIONS, RATES, RECIPES, SEEDS

from keras_gated.datasets.files import atomic_path

CELLS = list(comparison.CELLS)
TITLES = {
    **{name: cell.title for name, cell in comparison.CELLS.items()},
    "jsb_chorales": "JSB Chorales",
    "piano_midi": "Piano-midi.de",
    "nottingham": "Nottingham",
    "muse_data": "MuseData",
    "speech_500": "spoken digits, 500 samples",
    "speech_8000": "spoken digits, 8,000 samples",
}
PAPER = {
    "nottingham": {"tanh": (3.22, 3.13), "gru": (2.79, 3.23), "lstm": (3.08, 3.20)},
    "jsb_chorales": {"tanh": (8.82, 9.10), "gru": (6.94, 8.54), "lstm": (8.15, 8.67)},
    "muse_data": {"tanh": (5.64, 6.23), "gru": (5.06, 5.99), "lstm": (5.18, 6.23)},
    "piano_midi": {"tanh": (5.64, 9.03), "gru": (4.93, 8.82), "lstm": (6.49, 9.03)},
}
"""Table 2, training and test; its recordings of speech cannot be had."""
ORDERS = {
    "speech_500": ("lstm", "gru", "tanh"),
    "speech_8000": ("gru", "lstm", "tanh"),
    **{
        name: tuple(sorted(of, key=lambda cell: of[cell][1]))
        for name, of in PAPER.items()
    },
}
"""The cells of Table 2, the best by test first."""
TABLE_1 = {
    False: {"lstm": (36, 19.8e3), "gru": (46, 20.2e3), "tanh": (100, 20.1e3)},
    True: {"lstm": (195, 169.1e3), "gru": (227, 168.9e3), "tanh": (400, 168.4e3)},
}
COLUMNS = (
    *("set", "cell", "units", "parameters", "learning_rate", "seeds", "epochs"),
    *("updates", "seconds", "train_nll", "valid_nll"),
    *("test_nll_step_mean", "test_nll_step_std"),
    *("test_nll_sequence_mean", "test_nll_sequence_std"),
)


def collect(study: Path, folder: Path) -> list[dict]:
    """All records, in the order of the plan; written to the folder."""
    records = empirical_study.Records(study / "records", folder / "records.jsonl")
    phases = ["search", "finalists", "seeds", *ABLATIONS]

    def place(record: dict) -> tuple:
        return (
            list(RECIPES).index(record["set"]),
            phases.index(record["phase"]),
            CELLS.index(record["cell"]),
            record["number"],
        )

    found = sorted(records.read().values(), key=place)
    with atomic_path(folder / "records.jsonl") as file:
        Path(file).write_text("".join(json.dumps(r) + "\n" for r in found))
    return found


def of(records: Iterable[dict], **values: object) -> list[dict]:
    """Those records that have these values."""
    return [r for r in records if all(r[k] == v for k, v in values.items())]


def summarise(records: list[dict]) -> list[dict]:
    """A row for every set and cell that has a trial at its best rate."""
    rows = []
    for name, cell in itertools.product(RECIPES, CELLS):
        found = of(records, set=name, cell=cell, phase="seeds")
        if not found:
            continue
        row = {key: found[0][key] for key in COLUMNS[:5]}
        row |= {"seeds": len(found), "epochs": found[0]["epochs"]}
        row["updates"] = found[0]["updates"]
        for key in ("seconds", "train_nll", "valid_nll"):
            row[key] = float(np.mean([r[key] for r in found]))
        for kind in ("step", "sequence"):
            values = [r[f"test_nll_{kind}"] for r in found]
            row[f"test_nll_{kind}_mean"] = float(np.mean(values))
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            row[f"test_nll_{kind}_std"] = spread
        rows.append(row)
    return rows


def write_summary(rows: list[dict], path: Path) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            )


def plot_curves(records: list[dict], sets: list[str], path: Path) -> bool:
    """By updates above, by wall-clock seconds below; a column a set."""
    from matplotlib.figure import Figure

    sets = [name for name in sets if of(records, set=name, phase="seeds")]
    if not sets:
        return False
    figure = Figure((4.6 * len(sets), 7.5), layout="constrained")
    panels = figure.subplots(2, len(sets), squeeze=False)
    for column, name in enumerate(sets):
        settled = []
        for color, cell in enumerate(CELLS):
            for number, record in enumerate(
                of(records, set=name, cell=cell, phase="seeds")
            ):
                curves = record["curves"]
                epochs = np.arange(1, len(curves["nll"]) + 1)
                updates = epochs * record["updates"] / record["epochs"]
                settled += curves["val_nll"][len(epochs) // 10 :]
                for axes, x in zip(
                    panels[:, column], (updates, curves["seconds"]), strict=True
                ):
                    style = {"color": f"C{color}", "linewidth": 0.9}
                    axes.plot(x, curves["nll"], ":", **style)
                    label = None if number else TITLES[cell]
                    axes.plot(x, curves["val_nll"], label=label, **style)
        low, high = min(settled), max(settled)
        for axes, label in zip(panels[:, column], ("updates", "seconds"), strict=True):
            axes.set_xlabel(label)
            axes.grid(which="both", linewidth=0.3)
            if low > 0:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
            margin = 0.06 * (high - low)
            axes.set_ylim(low - margin, high + margin)
        panels[0, column].set_title(TITLES[name])
    for axes in panels[:, 0]:
        axes.set_ylabel("nats a step")
    panels[0, 0].legend(title="solid: validation\ndotted: training")
    figure.savefig(path, dpi=110)
    return True


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(values: list[float]) -> str:
    """The mean, and how far the 95 % confidence interval goes to both sides."""
    from scipy import stats

    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{np.mean(values):.3f} ± {half:.3f}"


def report(
    records: list[dict], rows: list[dict], figures: list[str], timing: dict | None
) -> str:
    parts = [
        "# The empirical study, repeated",
        "Made by `python examples/study_report.py` from "
        "[records.jsonl](records.jsonl), a line a trial with the command that repeats "
        "it, versions, seed, rate and curves. NLL in nats a step; of each trial the "
        "epoch that was best by validation. ± is the 95 % confidence interval of the "
        "mean over seeds (Student's t). The same figures: [summary.csv](summary.csv). "
        "What was tried before, and what did not help: [notes.md](notes.md).",
        "## Table 1: sizes",
        _sizes(),
        "## How far it has come",
        _progress(records),
    ]
    if rows:
        parts += ["## Table 2: negative log-likelihood", _table_2(records, rows)]
        parts += ["## What agrees with the paper", _agreement(rows)]
        parts += ["## Time", _time(records)]
        if timing:
            parts += [_share_of_loop(timing)]
    if of(records, phase="search"):
        parts += ["## Learning rates", _rates(records)]
    if _ablation(records):
        parts += ["## What the parts of the recipe do", _ablation(records)]
    parts += [
        "## Learning curves",
        "In the manner of the paper's figures 2 and 3, but that of speech on a linear "
        "scale: the NLL of a density may be below zero, where there is no logarithm.",
        *(f"![curves]({name})" for name in figures),
    ]
    return "\n\n".join(parts) + "\n"


def _sizes() -> str:
    rows = []
    for name, spoken in (("jsb_chorales", False), ("speech_500", True)):
        for cell in CELLS:
            units = empirical_study.units_of(name, cell)
            size = 20 if spoken else empirical_study.MUSIC_INPUTS
            made = comparison.CELLS[cell](units)
            made.build((None, size))
            paper = TABLE_1[spoken].get(cell)
            said = f"{paper[0]}, {paper[1] / 1e3:.1f}e3" if paper else ""
            kind = "speech" if spoken else "music"
            rows.append(
                [kind, TITLES[cell], str(units), f"{made.count_params():,}", said]
            )
    head = ["for", "cell", "units", "parameters, at 100 or 20 inputs", "the paper"]
    return table(head, rows)


def _progress(records: list[dict]) -> str:
    rows = []
    for name, recipe in RECIPES.items():
        counts = [
            f"{len(of(records, set=name, cell=cell, phase='search'))} + "
            f"{len(of(records, set=name, cell=cell, phase='seeds'))}"
            for cell in CELLS
        ]
        rows.append([TITLES[name], *counts, f"{recipe.search_epochs}, {recipe.epochs}"])
    head = ["set", *(TITLES[cell] for cell in CELLS), "epochs of each"]
    return (
        f"Learning rates tried (of {RATES}) + seeds at the best rate (of {len(SEEDS)}):"
        "\n\n" + table(head, rows)
    )


def _table_2(records: list[dict], rows: list[dict]) -> str:
    lines = []
    for row in rows:
        found = of(records, set=row["set"], cell=row["cell"], phase="seeds")
        paper = PAPER.get(row["set"], {}).get(row["cell"])
        step = [r["test_nll_step"] for r in found]
        curve = np.mean([r["curves"]["val_nll"] for r in found], axis=0)
        tenth = max(1, len(curve) // 10)
        falling = curve[:-tenth].min() - curve.min()
        lines.append(
            [
                TITLES[row["set"]],
                TITLES[row["cell"]],
                f"{row['train_nll']:.3f}",
                interval(step),
                interval([r["test_nll_sequence"] for r in found]),
                f"{paper[0]:.2f} / {paper[1]:.2f}" if paper else "",
                f"{np.mean(step) - paper[1]:+.2f}" if paper else "",
                f"{row['updates']:,}",
                f"{falling:.3f}",
            ]
        )
    head = ["set", "cell", "train", "test, by step", "test, by sequence"]
    head += ["the paper, train / test", "test less the paper's", "updates"]
    head += ["fell in the last tenth"]
    return table(head, lines)


def _agreement(rows: list[dict]) -> str:
    lines = []
    for name, theirs in ORDERS.items():
        ours = {r["cell"]: r for r in rows if r["set"] == name}
        if not ours:
            continue
        order = sorted(ours, key=lambda cell: ours[cell]["test_nll_step_mean"])
        line = [
            TITLES[name],
            *(", ".join(TITLES[c] for c in o) for o in (order, theirs)),
        ]
        for kind in ("step", "sequence"):
            paper = PAPER.get(name, {})
            reached = [
                TITLES[cell]
                for cell in CELLS
                if cell in ours
                and cell in paper
                and ours[cell][f"test_nll_{kind}_mean"] <= paper[cell][1]
            ]
            line.append((", ".join(reached) or "none") if paper else "")
        lines.append(line)
    head = ["set", "the best first, here", "in the paper"]
    head += ["at or below the paper's, by step", "by sequence"]
    return table(head, lines)


def _time(records: list[dict]) -> str:
    lines = []
    for name in RECIPES:
        found = {c: of(records, set=name, cell=c, phase="seeds") for c in CELLS}
        if any(found.values()):
            lines.append([TITLES[name], *map(_seconds_an_epoch, found.values())])
    hours = sum(r["seconds"] for r in records) / 3600
    return (
        "Seconds an epoch (medians; validation included; other work may have run "
        "beside):\n\n"
        + table(["set", *(TITLES[cell] for cell in CELLS)], lines)
        + f"\n\nAll {len(records)} trials together: {hours:.1f} hours of training."
    )


def _share_of_loop(timing: dict) -> str:
    """From what `benchmarks/study.py` measured."""
    lines = []
    for name, cell in itertools.product(RECIPES, CELLS):
        if found := timing["figures"].get(f"{name}, {cell}"):
            lines.append(
                [
                    TITLES[name],
                    TITLES[cell],
                    f"{found['update_ms']:.2f}",
                    f"{found['loop_ms']:.2f}",
                    f"{100 * found['share_of_loop']:.0f} %",
                    f"{found['batches_ms']:.2f}",
                    f"{found['updates_an_epoch']:,}",
                    f"{found['seconds_an_epoch']:.1f}",
                ]
            )
    head = ["set", "cell", "update, ms", "recurrent layer alone, ms", "its share"]
    head += ["making the batch, ms", "updates an epoch", "epoch's updates, s"]
    return (
        "On two cores with nothing beside (`python benchmarks/study.py`, medians of "
        f"{timing['rounds']} rounds; [time.json](time.json)): an update under `fit` "
        "from a batch that lies ready, and in it the recurrent layer, with its weight "
        "noise and the products before and after its loop, forward and backward. From "
        "one process to the next the same update took up to twice as long.\n\n"
        + table(head, lines)
    )


def _seconds_an_epoch(records: list[dict]) -> str:
    if not records:
        return ""
    medians = [np.median(np.diff(r["curves"]["seconds"])) for r in records]
    return f"{np.median(medians):.2f}"


def _rates(records: list[dict]) -> str:
    lines = []
    for name, cell in itertools.product(RECIPES, CELLS):
        found = of(records, set=name, cell=cell, phase="search")
        if found:
            ranked = sorted(found, key=lambda r: r["valid_nll"])
            again = of(records, set=name, cell=cell, phase="finalists")
            lines.append(
                [
                    TITLES[name],
                    TITLES[cell],
                    ", ".join(map(_rate, ranked[:3])),
                    _rate(ranked[-1]),
                    ", ".join(map(_rate, again)),
                ]
            )
    head = ["set", "cell", "the best three (validation NLL)", "the worst"]
    return table([*head, "the best again, for all epochs"], lines)


def _rate(record: dict) -> str:
    return f"{record['learning_rate']:.2g} ({record['valid_nll']:.2f})"


def _ablation(records: list[dict]) -> str:
    lines = []
    for phase, (cells, _) in ABLATIONS.items():
        for cell in cells:
            found = of(records, set=ABLATED, cell=cell, phase=phase)
            whole = of(records, set=ABLATED, cell=cell, phase="seeds")
            if found and whole:
                values = [[r["test_nll_step"] for r in some] for some in (found, whole)]
                lines.append(
                    [
                        phase,
                        TITLES[cell],
                        interval(values[0]),
                        interval(values[1]),
                        f"{np.mean(values[0]) - np.mean(values[1]):+.3f}",
                    ]
                )
    if not lines:
        return ""
    head = [f"{TITLES[ABLATED]}: what is changed", "cell", "test", "whole recipe"]
    return table([*head, "difference"], lines)


def write_tensorboard(records: list[dict], folder: Path) -> None:
    """The curves under the clock they had, a chart a set; HParams over all trials."""
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.custom_scalar import layout_pb2, summary
    from tensorboard.plugins.hparams import api
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    # A run a cell, for TensorBoard has a color a run.
    for cell in CELLS:
        writer = EventFileWriter(str(folder / "curves" / TITLES[cell]))
        for record in of(records, cell=cell, phase="seeds", number=SEEDS[0]):
            curves = record["curves"]
            for step, (seconds, nll) in enumerate(
                zip(curves["seconds"], curves["val_nll"], strict=True), start=1
            ):
                event = Event(wall_time=seconds, step=step)
                event.summary.value.add(tag=record["set"], simple_value=nll)
                writer.add_event(event)
        charts = [
            layout_pb2.Chart(
                title=TITLES[name],
                multiline=layout_pb2.MultilineChartContent(tag=[f"^{name}$"]),
            )
            for name in RECIPES
            if of(records, set=name, phase="seeds")
        ]
        category = layout_pb2.Category(title="validation NLL", chart=charts)
        layout = summary.pb(layout_pb2.Layout(category=[category]))
        event = Event(step=0)
        event.summary.MergeFromString(layout.SerializeToString())
        writer.add_event(event)
        writer.close()
    names = ("set", "cell", "phase", "learning_rate", "seed", "units", "epochs")
    figures = ("valid_nll", "test_nll_step", "test_nll_sequence")
    trials = folder / "trials"
    with tf.summary.create_file_writer(str(trials)).as_default():
        api.hparams_config(
            hparams=[api.HParam(name) for name in names],
            metrics=[api.Metric(f"result/{figure}") for figure in figures],
        )
    for record in records:
        key = "-".join(map(str, empirical_study.key_of(record)))
        with tf.summary.create_file_writer(str(trials / key)).as_default():
            api.hparams({name: record[name] for name in names}, trial_id=key)
            for figure in figures:
                if figure in record:
                    tf.summary.scalar(f"result/{figure}", record[figure], step=0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--study-dir",
        type=Path,
        default=Path("runs/study"),
        metavar="DIR",
        help="of empirical_study.py (default: %(default)s)",
    )
    add(
        "--to",
        type=Path,
        default=empirical_study.COMMITTED.parent,
        metavar="DIR",
        help="where the report goes (default: docs/study)",
    )
    add("--log-dir", type=Path, metavar="DIR", help="where a TensorBoard run goes")
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    records = collect(args.study_dir, args.to)
    if not records:
        print(
            f"{Path(sys.argv[0]).name}: error: there are no records in "
            f"{str(args.study_dir)!r} nor in {str(args.to)!r}; "
            "examples/empirical_study.py makes them",
            file=sys.stderr,
        )
        return 2
    rows = summarise(records)
    write_summary(rows, args.to / "summary.csv")
    music = [name for name in RECIPES if not name.startswith("speech")]
    figures = [
        name
        for name, sets in (
            ("figure_2.png", music),
            ("figure_3.png", [name for name in RECIPES if name not in music]),
        )
        if plot_curves(records, sets, args.to / name)
    ]
    timed = args.to / "time.json"
    timing = json.loads(timed.read_text()) if timed.exists() else None
    (args.to / "report.md").write_text(report(records, rows, figures, timing))
    if args.log_dir is not None:
        write_tensorboard(records, args.log_dir)
    print(f"{len(records)} records; the report is {args.to / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
