"""A run from the first cell to the last: its table, its record and its pictures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from comparison.runs import Run
from comparison.training import discard_backup
from keras_gated import CELLS, callbacks, distribution
from keras_gated.datasets.files import atomic_path


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
    with atomic_path(path) as whole:
        figure.savefig(whole, dpi=120)


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


def run_all(
    args: argparse.Namespace,
    load: Callable[[], Any],
    describe: Callable[[Any], dict],
    train_cell: Callable[[str, Any, Path], tuple[dict, dict]],
    columns: dict[str, str],
    first_rows: Callable[[Any], list[dict]] = lambda data: [],
    more: Sequence[str] = (),
) -> int:
    """Trains one cell after another, from where the same command was stopped.

    Args:
        args: The arguments, of `parser`.
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
    if args.workers > 1 and distribution.cluster.from_environment() is None:
        return distribution.launch(args.workers)
    try:
        workers = distribution.initialize()
        args.workers = workers.count
        run = Run(args, workers)
        data = load()
        about = describe(data)
        run.check_data(about)
        rows = run.record.get("rows") or (first_rows(data) if workers.is_first else [])
        curves = run.record.get("curves", {})
        run.write(rows, curves, about)
    except (ValueError, ImportError, OSError) as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted before the first training.")
        return 130
    code, folder = 0, run.folder
    try:
        for name in (*args.cells, *more):
            if name not in curves:
                # Keras numbers layers, and the model's file has their names: they must
                # not depend on how many models this process has trained.
                shared = keras.distribution.distribution()
                keras.utils.clear_session()
                keras.distribution.set_distribution(shared)
                try:
                    row, curves[name] = train_cell(name, data, folder)
                except (ValueError, FloatingPointError) as error:
                    print(f"{script}: error: {error}", file=sys.stderr)
                    code = 1
                    continue
                rows.append(row)
                if workers.is_first:
                    plot_learning_curves(curves, folder / "learning_curves.png")
                run.write(rows, curves, about)
            if workers.is_first:
                discard_backup(folder / name)
        run.write(rows, curves, about, ended=True)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. The finished results and the best models so far are kept, "
            "and the same command goes on."
        )
        code = 130
    except (OSError, callbacks.BackupError) as error:
        what = str(error).rstrip(".")
        print(
            f"{script}: error: {what}. What is finished in {str(folder)!r} is kept; "
            "the same command goes on once that is mended.",
            file=sys.stderr,
        )
        code = 1
    if rows:
        print(
            f"\n{format_table(rows, columns)}\n"
            "(NLL in nats per step, of the epoch with the best validation NLL)"
        )
    print(f"\nAll results are in {folder}. Curves: tensorboard --logdir {args.log_dir}")
    return code
