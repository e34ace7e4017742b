"""Makes the report of the empirical study from its records: tables, figures, curves.

The records that `examples/empirical_study.py` has written are added to those that come
with the project. They all go into `summary.csv`, `report.md`, figures in the manner of
the paper's figures 2 and 3, and, with --log-dir, TensorBoard runs: a chart for each
set, and the hyperparameters of all trials. Apart from the paper's own figures,
everything in the report comes from the records.
"""

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_gated import CELLS
from keras_gated.datasets.files import atomic_path
from study import figures, joint_tables, tables
from study.records import (
    COMMITTED,
    Records,
    committed_in,
    in_order,
    select,
    write_committed,
)
from study.tasks import TASKS
from study.variant_plan import SETS
from study.variants import TRAINABLE, VARIANTS

COLUMNS = (
    *("set", "cell", "units", "parameters", "learning_rate", "seeds", "epochs"),
    *("updates", "seconds", "train_nll", "valid_nll"),
    *("test_nll_step_mean", "test_nll_step_std"),
    *("test_nll_sequence_mean", "test_nll_sequence_std"),
)
"""The columns of `summary.csv`."""


def summarize(
    records: list[dict], sets: Iterable[str], cells: Iterable[str]
) -> list[dict]:
    """A row for every set and cell, or variant, that has a trial at its best rate."""
    rows = []
    for name, cell in itertools.product(sets, cells):
        found = select(records, set=name, cell=cell, phase="seeds", failure=None)
        if not found:
            continue
        first = found[0]
        row = {key: first[key] for key in COLUMNS[:5]}
        row |= {"seeds": len(found), "epochs": first["epochs"]}
        row["updates"] = first["updates"]
        for key in ("seconds", "train_nll", "valid_nll"):
            row[key] = float(np.mean([r[key] for r in found]))
        for kind in ("step", "sequence"):
            values = [r[f"test_nll_{kind}"] for r in found]
            row[f"test_nll_{kind}_mean"] = float(np.mean(values))
            std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            row[f"test_nll_{kind}_std"] = std
        rows.append(row)
    return rows


def write_summary(
    rows: list[dict], path: Path, columns: Sequence[str] = COLUMNS
) -> None:
    """Writes the rows as CSV, with six significant digits."""
    with atomic_path(path) as whole, open(whole, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            )


def write_report(
    records: list[dict],
    rows: list[dict],
    variants: list[dict],
    pictures: list[str],
    timing: dict | None,
    path: Path,
) -> None:
    """Writes the report.

    Args:
        records: Of all trials.
        rows: Of `summarize`, for all sets and cells.
        variants: The same for the sets, cells and variants of `--variants`.
        pictures: The names of the figures.
        timing: What `benchmarks/study.py` has measured, if it has.
        path: Of the report, in Markdown.
    """
    parts = [
        "# The empirical study, repeated",
        "Made by `python examples/study_report.py` from the records of each set, such "
        "as [jsb_chorales.jsonl](records/jsb_chorales.jsonl), which have a line for "
        "each trial: results, learning curves, versions, and the command that repeats "
        "it. NLL is in nats "
        "per step, at the epoch of each trial that was best by validation; ± is the "
        "95 % confidence interval of the mean over seeds (Student's t). The same "
        "figures are in [summary.csv](summary.csv); [notes.md](notes.md) tells what "
        "was tried before and what did not help.",
        "## Table 1: sizes",
        tables.sizes(records),
        "## Progress",
        tables.progress(records),
    ]
    if rows:
        parts += ["## Table 2: negative log-likelihood", tables.table_2(records, rows)]
        parts += ["## Agreement with the paper", tables.agreement(rows)]
        if found := tables.hypotheses(records):
            parts += [
                "## What the paper's figures average",
                "The paper does not say. Test NLL by each way of averaging, and in "
                "parentheses the paper's less that. With noise left on, weights are as "
                "noisy in the test as in training, which is what the authors' code "
                "prints. [notes.md](notes.md) says what else was tried.",
                found,
            ]
        parts += ["## Time", tables.time(records)]
        if timing:
            parts += [tables.share_of_loop(timing)]
    if select(records, phase="search"):
        parts += ["## Learning rates", tables.rates(records)]
    if ablations := tables.ablations(records):
        parts += ["## What the parts of the recipe do", ablations]
    if variants:
        parts += [
            "## Which variants are worth having?",
            "Variants of the cells, trained by `python examples/empirical_study.py "
            "--variants`: by the recipe of the paper's cells, with as many parameters, "
            "after a search among the same learning rates. Test NLL is the mean of the "
            "seeds ± their standard deviation. Seconds are those of a training at the "
            "best rate, compilation included; other programs may have run at the same "
            "time. Parameters are those of the recurrent layer. More is in "
            "[variants.csv](variants.csv).",
            tables.variants(variants),
        ]
    if joint := joint_tables.summarize(records):
        parts += [
            "## Models of whole frames",
            "The table that the paper does not have: every cell with four outputs, "
            "that draw keys independently, or one after the other (linear "
            "autoregressive; NADE; NADE with units tied over keys), by `python "
            "examples/empirical_study.py --joint`. Figures are exact: whole pieces, "
            "each step predicted once. The larger size is a GRU of 200 units, and for "
            "other cells as many parameters. Test NLL by step, ± as above; one seed "
            "where there is none. All columns are in [joint.csv](joint.csv), whose "
            "`parameters` are those of the recurrent layer.",
            joint_tables.outputs(records),
            "Beside what others have reported (test NLL by step; ours are the cell and "
            "size that are best by validation):",
            joint_tables.published(joint),
        ]
    if pictures:
        parts += [
            "## Learning curves",
            "In the manner of the paper's figures 2 and 3. Those of speech have a "
            "linear scale, since the NLL of a density may be negative.",
            *(f"![curves]({name})" for name in pictures),
        ]
    with atomic_path(path) as file:
        Path(file).write_text("\n\n".join(parts) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study-dir",
        type=Path,
        default=Path("runs/study"),
        metavar="DIR",
        help="the folder of the study (default: %(default)s)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=COMMITTED.parent,
        metavar="DIR",
        help="the folder of the report; the records in it are read and written, too "
        "(default: docs/study)",
    )
    parser.add_argument(
        "--log-dir", type=Path, metavar="DIR", help="a folder for TensorBoard"
    )
    return parser.parse_args()


def main() -> int:
    """Makes the report; returns the exit code."""
    args = _parse_arguments()
    try:
        records = make(args.study_dir / "records", args.to)
        if args.log_dir is not None:
            figures.write_tensorboard(records, args.log_dir)
    except (ValueError, ImportError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(records)} records; the report is {args.to / 'report.md'}")
    return 0


def make(folder: Path, to: Path) -> list[dict]:
    """Makes records, summary, figures and report.

    Args:
        folder: Of the study's records.
        to: The folder of the report. The files in its `records` are added to the
            records, and written again with all of them; a `time.json` is reported, too.

    Returns:
        All records, in order.

    Raises:
        ValueError: There are no records, or a file is none.
    """
    committed = to / COMMITTED.name
    records = in_order(Records(folder, committed_in(committed)).read().values())
    if not records:
        raise ValueError(
            f"there are no records in {str(folder.parent)!r} nor in {str(to)!r}; "
            "examples/empirical_study.py makes them"
        )
    write_committed(records, committed)
    rows = summarize(records, TASKS, CELLS)
    write_summary(rows, to / "summary.csv")
    variants = summarize(records, SETS, TRAINABLE)
    if any(row["cell"] in VARIANTS for row in variants):
        write_summary(variants, to / "variants.csv")
    else:
        variants = []
    if joint := joint_tables.summarize(records):
        write_summary(joint, to / "joint.csv", joint_tables.COLUMNS)
    pictures = [
        name
        for name, kind in (("figure_2.svg", "music"), ("figure_3.svg", "speech"))
        if figures.plot_curves(records, kind, to / name)
    ]
    timed = to / "time.json"
    try:
        timing = json.loads(timed.read_bytes()) if timed.exists() else None
    except ValueError as error:
        raise ValueError(f"{str(timed)!r} is damaged: {error}") from error
    write_report(records, rows, variants, pictures, timing, to / "report.md")
    return records


if __name__ == "__main__":
    sys.exit(main())
