"""What the scripts share that train all cells at equal size and compare them."""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_gated
from keras_gated import CELLS, callbacks, optimizers

AT_ONCE = 16
"""The largest number of updates between which no Python runs."""


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the arguments of every comparison, and these defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = positive(int)
    add = parser.add_argument
    add(
        "--cells",
        nargs="+",
        choices=list(CELLS),
        default=list(CELLS),
        metavar="CELL",
        help=f"which cells to train, of {', '.join(CELLS)} (default: all)",
    )
    add(
        "--budget",
        type=whole,
        metavar="N",
        help="parameters of each recurrent layer (default: %(default)s)",
    )
    add(
        "--units",
        type=whole,
        metavar="N",
        help="the same number of units for every cell, instead of --budget",
    )
    add(
        "--epochs",
        type=whole,
        metavar="N",
        help="at most so many passes over the training set (default: %(default)s)",
    )
    add(
        "--patience",
        type=whole,
        metavar="N",
        help="stop after so many epochs without a better validation NLL "
        "(default: %(default)s)",
    )
    add(
        "--batch-size",
        type=whole,
        metavar="N",
        help="sequences an update (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=positive(float),
        metavar="X",
        help="of RMSProp (default: %(default)s)",
    )
    add(
        "--decay",
        choices=["none", "cosine"],
        default="none",
        help="how the learning rate falls, to 0 after --epochs (default: %(default)s)",
    )
    add(
        "--weight-noise",
        type=float,
        default=0.075,
        metavar="X",
        help="standard deviation of the noise on the weights (default: %(default)s)",
    )
    add(
        "--gradient-norm",
        type=positive(float),
        default=1.0,
        metavar="X",
        help="what the norm of the gradient is scaled down to (default: %(default)s)",
    )
    add(
        "--truncate-gradient",
        type=whole,
        metavar="N",
        help="do not let gradients pass from every Nth step to the one before; for "
        "long sequences, in which those of tanh explode (default: let them pass)",
    )
    add(
        "--seed",
        type=seed,
        default=1,
        metavar="N",
        help="of weights, noise, order, split and samples (default: %(default)s)",
    )
    add(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="where results go, each run in a folder of its own named by the time "
        "(default: %(default)s)",
    )
    parser.set_defaults(**defaults)
    return parser


def positive(kind: type) -> type:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = f"positive {'whole ' if kind is int else ''}number"
    return number


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 2^32 - 1")
    return value


def build(
    name: str,
    args: argparse.Namespace,
    input_dim: int,
    head: Callable[[], keras.layers.Layer],
    loss: keras.losses.Loss,
    metrics: Sequence[keras.metrics.Metric],
    cells: dict[str, Callable[..., keras.layers.Layer]] = CELLS,
) -> keras.Model:
    """The model of one cell, compiled by the paper's recipe."""
    keras.utils.set_random_seed(args.seed)
    units = args.units or keras_gated.match_units(cells[name], args.budget, input_dim)
    cell = cells[name](
        units, weight_noise=args.weight_noise, **getattr(args, "cell_options", {})
    )
    recurrent = keras_gated.RNN(
        cell, return_sequences=True, truncate_gradient=args.truncate_gradient
    )
    model = keras.Sequential(
        [keras.Input((None, input_dim)), recurrent, head()], name=name
    )
    model.compile(
        optimizer=optimizers.RMSprop(
            args.learning_rate,
            global_clipnorm=args.gradient_norm,
            **getattr(args, "optimizer_options", {}),
        ),
        loss=loss,
        weighted_metrics=metrics,
    )
    print(f"\n{name}: {units} units, {recurrent.count_params():,} parameters")
    return model


def train(
    model: keras.Model,
    args: argparse.Namespace,
    data: Sequence,
    folder: Path,
    watchers: Sequence[keras.callbacks.Callback] = (),
    update_freq: int | str = "epoch",
) -> tuple[dict, dict]:
    """Trains a model, and goes back to its best epoch.

    Args:
        model: As `build` makes it; among its metrics is one named `nll`.
        args: The arguments.
        data: The data sets of training, validation and test.
        folder: For the best model and TensorBoard.
        watchers: More callbacks.
        update_freq: Of `keras.callbacks.TensorBoard`.

    Returns:
        The row of the table, and the learning curves.
    """
    training, validation, test = data
    clock = EpochClock()
    best = folder / "best.keras"
    watchers = [
        clock,
        callbacks.EpochProgress(("nll", "val_nll")),
        callbacks.BestModel(best, "val_nll"),
        *watchers,
        keras.callbacks.TensorBoard(folder, write_graph=False, update_freq=update_freq),
        keras.callbacks.EarlyStopping("val_nll", patience=args.patience),
    ]
    if update_freq == "epoch":  # nothing looks at a single update
        model.steps_per_execution = max(
            k for k in range(1, AT_ONCE + 1) if len(training) % k == 0
        )
    if args.decay == "cosine":
        watchers.append(keras.callbacks.LearningRateScheduler(cosine(args)))
    began = time.perf_counter()
    try:
        history = model.fit(
            training.repeat(),  # to begin a pass anew takes time
            steps_per_epoch=len(training),
            validation_data=validation,
            epochs=args.epochs,
            shuffle=False,  # the data set shuffles
            verbose=0,
            callbacks=watchers,
        ).history
    except KeyboardInterrupt:
        for watcher in watchers:  # what they have not yet written, they write now
            watcher.on_train_end()
        raise
    seconds = time.perf_counter() - began
    if not best.exists():
        raise ValueError(
            f"no epoch of {model.name} had a finite validation NLL; a smaller "
            f"--learning-rate than {args.learning_rate} may help"
        )
    model.load_weights(best)
    scores = model.evaluate(test, verbose=0, return_dict=True)
    recurrent = model.layers[0]
    row = {
        "cell": model.name,
        "units": recurrent.cell.units,
        "parameters": recurrent.count_params(),
        "epochs": len(history["nll"]),
        "seconds": round(seconds, 1),
        "valid_nll": min(history["val_nll"]),
        **{f"test_{name}": score for name, score in scores.items() if name != "loss"},
    }
    log_hyperparameters(folder, args, row)
    curves = {"seconds": clock.seconds, **history}
    return row, {key: [float(x) for x in curve] for key, curve in curves.items()}


def cosine(args: argparse.Namespace) -> Callable[[int], float]:
    """The learning rate of an epoch: half a cosine from the first to 0."""
    return lambda epoch: (
        args.learning_rate * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
    )


class EpochClock(keras.callbacks.Callback):
    """Notes the seconds from the start of training to the end of each epoch."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.began, self.seconds = time.perf_counter(), []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def log_hyperparameters(folder: Path, args: argparse.Namespace, row: dict) -> None:
    """For TensorBoard's HParams tab: a row a cell, beside it what came of it."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    settings = {
        "cell": row["cell"],
        "units": row["units"],
        "parameters": row["parameters"],
        "learning_rate": args.learning_rate,
        "decay": args.decay,
        "truncate_gradient": args.truncate_gradient or 0,
        "batch_size": args.batch_size,
        "weight_noise": args.weight_noise,
        "gradient_norm": args.gradient_norm or 0,
        "seed": args.seed,
    }
    figures = [name for name in row if name.startswith(("valid_", "test_"))]
    if not any(folder.parent.glob("events.*")):
        with tf.summary.create_file_writer(str(folder.parent)).as_default():
            api.hparams_config(
                hparams=[api.HParam(name) for name in settings],
                metrics=[api.Metric(f"result/{figure}") for figure in figures],
            )
    with tf.summary.create_file_writer(str(folder)).as_default():
        api.hparams(settings, trial_id=row["cell"])
        for figure in figures:
            tf.summary.scalar(f"result/{figure}", row[figure], step=row["epochs"])


def plot_learning_curves(curves: dict[str, dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for color, (name, curve) in enumerate(curves.items()):
        epochs = range(1, len(curve["nll"]) + 1)
        for axes, x in zip(panels, (epochs, curve["seconds"]), strict=True):
            style = {"color": f"C{color}"}
            axes.plot(x, curve["nll"], ":", **style)
            axes.plot(x, curve["val_nll"], label=name, **style)
    # The first epochs are far above all others and would flatten them.
    settled = [nll for curve in curves.values() for nll in curve["val_nll"][2:]]
    # That of densities may be below zero, where there is no logarithm.
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
    panels[0].set_ylabel("nats a step (validation; dotted: training, with noise)")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def format_table(rows: list[dict], columns: dict[str, str]) -> str:
    """Rows under the columns' names; each column tells how to write a row's figure."""

    def text(form: str, row: dict) -> str:
        try:
            return form.format(**row)
        except KeyError:  # a row that has no such figure
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
    """Of what made a result."""
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
    """Writes what is done so far: the results, and a picture of the curves."""
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
) -> int:
    """Trains cell after cell; what is done is kept whatever comes.

    Args:
        args: The arguments.
        load: Gives the data.
        describe: Prints what the data is, and tells it for the record.
        train_cell: Trains the cell of this name on the data, with the results in
            this folder; gives its row of the table and its learning curves.
        columns: Of the table.
        first_rows: The rows above the cells'. Default: none.

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
        for name in args.cells:
            try:
                row, curves[name] = train_cell(name, data, run)
            except ValueError as error:
                print(f"{script}: error: {error}", file=sys.stderr)
                code = 1
            else:
                rows.append(row)
                write_record(rows, curves, about, run)
    except KeyboardInterrupt:
        print("\nInterrupted. What is done is kept, and the best models so far.")
        code = 130
    if rows:
        print(
            f"\n{format_table(rows, columns)}\n"
            "(NLL in nats a step, of the best epoch by validation)"
        )
    print(f"\nEverything is in {run}. The curves: tensorboard --logdir {args.log_dir}")
    return code
