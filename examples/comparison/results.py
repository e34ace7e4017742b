"""A run from the first cell to the last: its table, its record and its pictures."""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_gated
from keras_gated import CELLS


def title_of(cell: str) -> str:
    """The name of a cell for people; that of no cell of `keras_gated` is its own."""
    return CELLS[cell].title if cell in CELLS else cell


def color_of(cell: str) -> str:
    """The color of a cell in all pictures, by its place in `keras_gated.CELLS`.

    All that are none of `keras_gated` have the color after the last.
    """
    return f"C{list(CELLS).index(cell) if cell in CELLS else len(CELLS)}"


def plot_learning_curves(curves: dict[str, dict], path: Path) -> None:
    """Draws the NLL of each cell by epochs and by seconds.

    Args:
        curves: For each cell its `nll`, `val_nll` and `seconds`, a value an epoch.
        path: Of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure((11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for name, curve in curves.items():
        epochs, style = range(1, len(curve["nll"]) + 1), {"color": color_of(name)}
        for axes, x in zip(panels, (epochs, curve["seconds"]), strict=True):
            axes.plot(x, curve["nll"], ":", **style)
            axes.plot(x, curve["val_nll"], label=title_of(name), **style)
    # The first epochs are far above all others and would flatten them.
    settled = [nll for curve in curves.values() for nll in curve["val_nll"][2:]]
    # The NLL of a density may be negative, where there is no logarithm.
    logarithmic = bool(settled) and min(settled) > 0
    for axes, label in zip(panels, ("epochs", "seconds"), strict=True):
        axes.set_xlabel(label)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.set_ylim(0.97 * min(settled), 1.1 * max(settled))
        elif settled:
            margin = 0.1 * (max(settled) - min(settled)) + 1e-3
            axes.set_ylim(min(settled) - margin, max(settled) + margin)
        axes.grid(which="both", linewidth=0.3)
    panels[0].set_ylabel("nats per step (validation; dotted: training, with noise)")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def format_table(rows: list[dict], columns: dict[str, str]) -> str:
    """Formats rows as text.

    Args:
        rows: The values of each row by name.
        columns: The format string of each column, of a row's values, by the
            column's name. A row that lacks the value leaves the column empty.

    Returns:
        The table; its first column is aligned left, all others right.
    """

    def text(form: str, row: dict) -> str:
        try:
            return form.format(**row)
        except KeyError:
            return ""

    cells = [[text(form, row) for form in columns.values()] for row in rows]
    table = [list(columns), *cells]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def versions() -> dict[str, str]:
    """The versions of what a result was made with."""
    import tensorflow as tf

    return {
        "keras_gated": keras_gated.__version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.config.backend(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def write_record(rows: list[dict], curves: dict, about: dict, run: Path) -> None:
    """Writes the results so far, and a picture of the curves.

    Args:
        rows: Of the table.
        curves: The learning curves of each cell; without any there is no picture.
        about: What else the record says.
        run: The folder, for `results.json` and `learning_curves.png`.
    """
    if curves:
        plot_learning_curves(curves, run / "learning_curves.png")
    record = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": versions(),
        **about,
        "rows": rows,
        "curves": curves,
    }
    with open(run / "results.json", "w") as file:
        json.dump(record, file, indent=1)


def run_all(
    args: argparse.Namespace,
    load: Callable[[], Any],
    describe: Callable[[Any], dict],
    train_cell: Callable[[str, Any, Path], tuple[dict, dict]],
    columns: dict[str, str],
    first_rows: Callable[[Any], list[dict]] = lambda data: [],
    more: Sequence[str] = (),
) -> int:
    """Trains one cell after another; errors and Ctrl-C lose nothing that is done.

    Args:
        args: The arguments.
        load: Returns the data.
        describe: Prints what the data is, and returns it for the record.
        train_cell: Trains the cell of this name on the data, with the results in
            this folder; returns its row of the table and its learning curves.
        columns: Of the table.
        first_rows: The rows above the cells'. Default: none.
        more: Names that `train_cell` takes after those of cells. Default: none.

    Returns:
        The exit code.
    """
    script = Path(sys.argv[0]).name
    run = args.log_dir / time.strftime("%Y%m%d-%H%M%S")
    try:
        if args.log_dir.exists() and not args.log_dir.is_dir():
            raise ValueError(f"--log-dir {str(args.log_dir)!r} is not a folder.")
        data = load()
        about = describe(data)
        rows = first_rows(data)
        run.mkdir(parents=True)
        write_record(rows, {}, about, run)
    except (ValueError, ImportError, OSError) as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted before the first training.")
        return 130
    curves, code = {}, 0
    try:
        for name in (*args.cells, *more):
            try:
                row, curves[name] = train_cell(name, data, run)
            except ValueError as error:
                print(f"{script}: error: {error}", file=sys.stderr)
                code = 1
            else:
                rows.append(row)
                write_record(rows, curves, about, run)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. The finished results and the best models so far are kept."
        )
        code = 130
    if rows:
        print(
            f"\n{format_table(rows, columns)}\n"
            "(NLL in nats per step, of the epoch with the best validation NLL)"
        )
    print(f"\nAll results are in {run}. Curves: tensorboard --logdir {args.log_dir}")
    return code
