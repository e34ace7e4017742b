"""The tables of the report, in Markdown, from the records and the paper's figures."""

import itertools

import numpy as np

from keras_gated import CELLS
from study import paper
from study.recipes import ABLATED, ABLATIONS
from study.records import select
from study.tasks import TASKS, units_of
from study.trials import Plan
from study.variants import TRAINABLE


def sizes(records: list[dict]) -> str:
    """Table 1: the sizes in the records, or else those that a study would have."""
    rows = []
    for kind, first in (("music", "jsb_chorales"), ("speech", "speech_500")):
        for name, cell in CELLS.items():
            task = TASKS[first]
            recorded = [
                record["units"]
                for record in select(records, cell=name)
                if TASKS[record["set"]].kind == kind
            ]
            units = recorded[0] if recorded else units_of(task, name)
            made = cell(units)
            made.build((None, task.inputs))
            figures = paper.TABLE_1[kind].get(name)
            rows.append(
                [
                    kind,
                    cell.title,
                    str(units),
                    f"{made.count_params():,}",
                    f"{figures[0]}, {figures[1] / 1e3:.1f}e3" if figures else "",
                ]
            )
    head = ["for", "cell", "units", "parameters, at 100 or 20 inputs", "the paper"]
    return table(head, rows)


def progress(records: list[dict]) -> str:
    """How much has been recorded, with how many epochs, and what failed."""
    rows = []
    for name, task in TASKS.items():
        found = {
            phase: select(records, set=name, phase=phase)
            for phase in ("search", "seeds")
        }
        counts = [
            " + ".join(str(len(select(some, cell=cell))) for some in found.values())
            for cell in CELLS
        ]
        epochs = [sorted({r["epochs"] for r in some}) for some in found.values()]
        rows.append(
            [
                task.title,
                *counts,
                ", ".join("/".join(map(str, some)) or "–" for some in epochs),
            ]
        )
    head = ["set", *_titles(), "epochs of each"]
    text = (
        f"Learning rates tried (of {Plan.rates}) + seeds at the best rate (of "
        f"{len(Plan.seeds)}):\n\n{table(head, rows)}"
    )
    failed = [r["command"] for r in records if r["failure"] is not None]
    if failed:
        text += (
            "\n\nTrials without a finite validation NLL, which the tables leave out:"
        )
        text += "\n\n" + "\n".join(f"- `{command}`" for command in failed)
    return text


def table_2(records: list[dict], rows: list[dict]) -> str:
    """Table 2: the NLL, beside the paper's."""
    lines = []
    for row in rows:
        found = _trained(records, row["set"], row["cell"])
        theirs = paper.TABLE_2.get(row["set"], {}).get(row["cell"])
        step = [r["test_nll_step"] for r in found]
        curve = np.mean([r["curves"]["val_nll"] for r in found], axis=0)
        tenth = max(1, len(curve) // 10)
        falling = curve[:-tenth].min() - curve.min()
        lines.append(
            [
                TASKS[row["set"]].title,
                CELLS[row["cell"]].title,
                f"{row['train_nll']:.3f}",
                interval(step),
                interval([r["test_nll_sequence"] for r in found]),
                f"{theirs[0]:.2f} / {theirs[1]:.2f}" if theirs else "",
                f"{np.mean(step) - theirs[1]:+.2f}" if theirs else "",
                f"{row['updates']:,}",
                f"{falling:.3f}",
            ]
        )
    head = ["set", "cell", "train", "test, by step", "test, by sequence"]
    head += ["the paper, train / test", "test less the paper's", "updates"]
    head += ["fell in the last tenth"]
    return table(head, lines)


def agreement(rows: list[dict]) -> str:
    """The order of the cells, beside the paper's."""
    lines = []
    for name, theirs in paper.ORDERS.items():
        ours = {row["cell"]: row for row in rows if row["set"] == name}
        if not ours:
            continue
        order = sorted(ours, key=lambda cell: ours[cell]["test_nll_step_mean"])
        line = [TASKS[name].title]
        line += [", ".join(CELLS[cell].title for cell in o) for o in (order, theirs)]
        for kind in ("step", "sequence"):
            figures = paper.TABLE_2.get(name, {})
            reached = [
                CELLS[cell].title
                for cell in CELLS
                if cell in ours
                and cell in figures
                and ours[cell][f"test_nll_{kind}_mean"] <= figures[cell][1]
            ]
            line.append((", ".join(reached) or "none") if figures else "")
        lines.append(line)
    head = ["set", "the best first, here", "in the paper"]
    head += ["at or below the paper's, by step", "by sequence"]
    return table(head, lines)


HYPOTHESES = {
    "test_nll_step": "by step",
    "test_nll_sequence": "by sequence",
    "test_nll_step_noisy": "by step, noise left on",
    "test_nll_sequence_noisy": "by sequence, noise left on",
}
"""What the paper's figures may be averages of: keys of records."""


def hypotheses(records: list[dict]) -> str:
    """The paper's test figures, less what each hypothesis about them predicts."""
    known = [(name, cell) for name, row in paper.TABLE_2.items() for cell in row]
    differences = {key: {} for key in HYPOTHESES}
    lines = []
    for name, cell in known:
        found = [r for r in _trained(records, name, cell) if "test_nll_step_noisy" in r]
        if not found:
            continue
        theirs = paper.TABLE_2[name][cell][1]
        line = [TASKS[name].title, CELLS[cell].title, f"{theirs:.2f}"]
        for key in HYPOTHESES:
            ours = np.mean([record[key] for record in found])
            differences[key][name, cell] = theirs - ours
            line.append(f"{ours:.2f} ({theirs - ours:+.2f})")
        lines.append(line)
    if not lines:
        return ""
    for name in dict.fromkeys(name for name, _ in differences["test_nll_step"]):
        line = [f"{TASKS[name].title}: mean difference", "", ""]
        for found in differences.values():
            some = [x for (of, _), x in found.items() if of == name]
            line.append(f"{np.mean(some):+.2f}")
        lines.append(line)
    line = ["all: root mean square", "", ""]
    for found in differences.values():
        line.append(f"{np.sqrt(np.mean(np.square([*found.values()]))):.2f}")
    lines.append(line)
    return table(["set", "cell", "the paper", *HYPOTHESES.values()], lines)


def time(records: list[dict]) -> str:
    """The time of an epoch."""
    lines = []
    for name, task in TASKS.items():
        found = [_trained(records, name, cell) for cell in CELLS]
        if any(found):
            lines.append([task.title, *map(_seconds_per_epoch, found)])
    hours = sum(record["seconds"] for record in records) / 3600
    return (
        "Seconds per epoch (medians, validation included; other programs may have run "
        f"at the same time):\n\n{table(['set', *_titles()], lines)}\n\n"
        f"All {len(records)} trials together: {hours:.1f} hours of training."
    )


def _seconds_per_epoch(records: list[dict]) -> str:
    if not records:
        return ""
    medians = [np.median(np.diff(r["curves"]["seconds"])) for r in records]
    return f"{np.median(medians):.2f}"


def share_of_loop(timing: dict) -> str:
    """The measurements of `benchmarks/study.py`."""
    lines = []
    for name, cell in itertools.product(TASKS, CELLS):
        if found := timing["figures"].get(f"{name}, {cell}"):
            lines.append(
                [
                    TASKS[name].title,
                    CELLS[cell].title,
                    f"{found['update_ms']:.2f}",
                    f"{found['loop_ms']:.2f}",
                    f"{100 * found['share_of_loop']:.0f} %",
                    f"{found['batches_ms']:.2f}",
                    f"{found['updates_an_epoch']:,}",
                    f"{found['seconds_an_epoch']:.1f}",
                ]
            )
    head = ["set", "cell", "update, ms", "recurrent layer alone, ms", "its share"]
    head += ["making the batch, ms", "updates per epoch", "updates of an epoch, s"]
    return (
        "On two cores with no other program running (`python benchmarks/study.py`, "
        f"medians of {timing['rounds']} rounds; [time.json](time.json)): an update in "
        "`fit`, on a batch that is ready in memory, and the recurrent layer in it, "
        "with its weight noise and the products before and after its loop, forward and "
        "backward. The same update took up to twice as long in one process as in "
        "another.\n\n" + table(head, lines)
    )


def rates(records: list[dict]) -> str:
    """The learning rates that were tried, by validation."""
    lines = []
    for name, cell in itertools.product(TASKS, CELLS):
        found = select(records, set=name, cell=cell, phase="search")
        if found:
            ranked = sorted(found, key=lambda record: record["valid_nll"])
            again = select(records, set=name, cell=cell, phase="finalists")
            lines.append(
                [
                    TASKS[name].title,
                    CELLS[cell].title,
                    ", ".join(map(_rate, ranked[:3])),
                    _rate(ranked[-1]),
                    ", ".join(map(_rate, again)),
                ]
            )
    head = ["set", "cell", "the best three (validation NLL)", "the worst"]
    return table([*head, "the best again, for all epochs"], lines)


def _rate(record: dict) -> str:
    return f"{record['learning_rate']:.2g} ({record['valid_nll']:.2f})"


def ablations(records: list[dict]) -> str:
    """The changes of the recipe; empty if none is recorded."""
    lines = []
    for phase, cell in itertools.product(ABLATIONS, CELLS):
        changed, whole = (
            [r["test_nll_step"] for r in _trained(records, ABLATED, cell, some)]
            for some in (phase, "seeds")
        )
        if changed and whole:
            difference = f"{np.mean(changed) - np.mean(whole):+.3f}"
            intervals = interval(changed), interval(whole)
            lines.append([phase, CELLS[cell].title, *intervals, difference])
    if not lines:
        return ""
    head = [f"{TASKS[ABLATED].title}: what is changed", "cell", "test", "whole recipe"]
    return table([*head, "difference"], lines)


def variants(rows: list[dict]) -> str:
    """The cells and their variants beside each other, from rows for each set."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        by_set = {row["set"]: row for row in select(rows, cell=cell)}
        first = next(iter(by_set.values()))
        line = [TRAINABLE[cell].title, str(first["units"]), f"{first['parameters']:,}"]
        for name in sets:
            line += _of_set(by_set[name]) if name in by_set else ["", "", ""]
        lines.append(line)
    head = ["cell", "units", "parameters"]
    for name in sets:
        title = TASKS[name].title
        head += [f"{title}: by step", "by sequence", "seconds"]
    return table(head, lines)


def _of_set(row: dict) -> list[str]:
    """Test NLL by step and by sequence, and seconds."""
    kinds = "test_nll_step", "test_nll_sequence"
    nll = [f"{row[f'{kind}_mean']:.3f}" for kind in kinds]
    if row["seeds"] > 1:
        nll = [
            f"{mean} ± {row[f'{kind}_std']:.3f}"
            for mean, kind in zip(nll, kinds, strict=True)
        ]
    if row["seeds"] < len(Plan.seeds):
        nll[0] += f" ({row['seeds']} seed(s))"
    return [*nll, f"{row['seconds']:.0f}"]


def _trained(
    records: list[dict], name: str, cell: str, phase: str = "seeds"
) -> list[dict]:
    """The trials of a set and cell in a phase that did not fail."""
    return select(records, set=name, cell=cell, phase=phase, failure=None)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(values: list[float]) -> str:
    """The mean, and the half-width of its 95 % confidence interval."""
    from scipy import stats

    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{np.mean(values):.3f} ± {half:.3f}"


def _titles() -> list[str]:
    return [cell.title for cell in CELLS.values()]
