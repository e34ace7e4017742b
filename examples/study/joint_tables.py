"""What the report says of models of whole frames, from their records."""

import itertools
import math

import numpy as np

from keras_gated import CELLS
from study import paper
from study.recipes import JOINT_PHASES, PAPER, SIZES
from study.records import select
from study.tables import interval, table
from study.tasks import TASKS

COLUMNS = (
    *("set", "cell", "head", "units", "parameters", "seeds", "seconds"),
    *("train_nll", "valid_nll", "test_nll_step_mean", "test_nll_step_std"),
    "test_nll_sequence_mean",
)
"""The columns of `joint.csv`."""
MEANING = {
    "independent": "every key for itself",
    "linear": "linear autoregressive",
    "nade": "NADE",
    "tied": "NADE with tied units",
}


def summarize(records: list[dict]) -> list[dict]:
    """A row for every set, cell, output and size that has been trained."""
    rows = []
    for name, phase, cell in itertools.product(TASKS, JOINT_PHASES, CELLS):
        found = select(records, set=name, cell=cell, phase=phase, failure=None)
        if not found:
            continue
        row = {"set": name, "cell": cell, "head": JOINT_PHASES[phase][0]}
        row |= {key: found[0][key] for key in ("units", "parameters")}
        row["seeds"] = len(found)
        for key in ("seconds", "train_nll", "valid_nll"):
            row[key] = float(np.mean([r[key] for r in found]))
        steps = [r["test_nll_step"] for r in found]
        row["test_nll_step_mean"] = float(np.mean(steps))
        spread = float(np.std(steps, ddof=1)) if len(steps) > 1 else math.nan
        row["test_nll_step_std"] = spread
        sequences = [r["test_nll_sequence"] for r in found]
        row["test_nll_sequence_mean"] = float(np.mean(sequences))
        rows.append(row)
    return rows


def outputs(records: list[dict]) -> str:
    """Cells and outputs: the test NLL of both sizes."""
    lines = []
    for name, head, size in itertools.product(TASKS, MEANING, SIZES):
        phase = next(p for p, what in JOINT_PHASES.items() if what == (head, size))
        sized = "the paper's" if size == PAPER else "larger"
        line = [TASKS[name].title, MEANING[head], sized]
        for cell in CELLS:
            found = select(records, set=name, cell=cell, phase=phase, failure=None)
            line.append(_figures(found) if found else "")
        if any(line[3:]):
            lines.append(line)
    head = ["set", "output", "size", *(cell.title for cell in CELLS.values())]
    return table(head, lines)


def _figures(records: list[dict]) -> str:
    nlls = [record["test_nll_step"] for record in records]
    return f"{interval(nlls)} ({records[0]['units']} units)"


def published(rows: list[dict]) -> str:
    """The best of each output, beside what others have reported."""
    lines = []
    for head, meaning in MEANING.items():
        line = [f"here: {meaning}", "exact"]
        for name in paper.PUBLISHED_SETS:
            found = select(rows, set=name, head=head)
            # Those of all seeds, if there are any; chosen by validation.
            full = [row for row in found if row["seeds"] >= 3] or found
            best = min(full, key=lambda row: row["valid_nll"], default=None)
            if best is None:
                line.append("")
                continue
            few = "" if best["seeds"] >= 3 else f", {best['seeds']} seed(s)"
            title = CELLS[best["cell"]].title
            nll = best["test_nll_step_mean"]
            line.append(f"{nll:.2f} ({title} {best['units']}{few})")
        lines.append(line)
    for name, kind, figures in paper.PUBLISHED:
        lines.append([name, kind, *(f"{figure:.2f}" for figure in figures)])
    titles = [TASKS[name].title for name in paper.PUBLISHED_SETS]
    return table(["model", "its figure is", *titles], lines)
