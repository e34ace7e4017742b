"""Trains the cells of Chung et al. (2014) at equal size on polyphonic music.

Every cell gets the number of units that brings its recurrent layer nearest to
the same number of parameters, sees the same music in the same order, and
predicts every next step. The music is Bach's chorales, one of the sets of the
paper, or a folder of MIDI files. At the end: a table, and in the log folder, for
every cell, the best model, a continuation of a piece it has not seen (MIDI and
PNG), TensorBoard curves and pictures; and for all of them the learning curves.
"""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_gated
from keras_gated import callbacks, losses, metrics
from keras_gated.datasets import (
    bach_chorales,
    jsb_chorales,
    midi,
    midi_directory,
    muse_data,
    nottingham,
    piano_midi,
    piano_roll,
)

CELLS = {
    "tanh": keras_gated.TanhCell,
    "lstm": keras_gated.LSTMCell,
    "gru": keras_gated.GRUCell,
    "simplified_gru": keras_gated.SimplifiedGRUCell,
}
# The published sets, and their steps in a quarter note.
PUBLISHED = {
    "jsb": (jsb_chorales, 1),
    "nottingham": (nottingham, 2),
    "muse": (muse_data, 2),
    "piano": (piano_midi, 2),
}
WEIGHT_NOISE = 0.075
GRADIENT_NORM = 1.0
# Each shape of a batch is compiled, which pays where lengths differ a lot.
MAX_SHAPES, MAX_SHAPES_OF_CHORALES = 12, 4
PRIMER_BARS, CONTINUATION_BARS, QUARTERS_A_BAR = 4, 16, 4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        default=20_000,
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
        default=120,
        metavar="N",
        help="at most so many passes over the training set (default: %(default)s)",
    )
    add(
        "--patience",
        type=whole,
        default=15,
        metavar="N",
        help="stop after so many epochs without a better validation NLL "
        "(default: %(default)s)",
    )
    add(
        "--batch-size",
        type=whole,
        default=8,
        metavar="N",
        help="sequences an update (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=positive(float),
        default=0.005,
        metavar="X",
        help="of RMSProp (default: %(default)s)",
    )
    add(
        "--steps-per-quarter",
        type=whole,
        default=2,
        metavar="N",
        help="steps in a quarter note, of Bach's chorales and MIDI files (default: "
        "%(default)s)",
    )
    music = parser.add_mutually_exclusive_group()
    music.add_argument(
        "--dataset",
        choices=["bach", *PUBLISHED],
        default="bach",
        help="bach: the chorales in music21's package; or one of the paper's sets, "
        "downloaded once (default: %(default)s)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="a folder with the published sets' .mat files, instead of the download",
    )
    music.add_argument(
        "--midi-dir",
        type=Path,
        metavar="DIR",
        help="train on the MIDI files of this folder and its subfolders instead "
        "of Bach's chorales: 60 %% for training, 20 %% each for validation and "
        "test",
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
        default=Path("runs/polyphonic_music"),
        metavar="DIR",
        help="where results go, each run in a folder of its own named by the time "
        "(default: %(default)s)",
    )
    return parser.parse_args()


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


def load_music(args: argparse.Namespace) -> bach_chorales.Splits:
    if args.midi_dir is None:
        if args.dataset == "bach":
            return bach_chorales.load_data(args.steps_per_quarter)
        module, args.steps_per_quarter = PUBLISHED[args.dataset]
        return module.load_data(args.data_dir)
    folder = midi_directory.read_directory(
        args.midi_dir, steps_per_quarter=args.steps_per_quarter
    )
    print(folder)
    rolls = [roll for roll in folder.rolls if len(roll) > 1]
    if len(rolls) < 3:
        raise ValueError(
            f"The folder {str(args.midi_dir)!r} holds {len(rolls)} MIDI file(s) of two "
            "steps or more; training, validation and test need one each, so 3."
        )
    order = np.random.default_rng(args.seed).permutation(len(rolls))
    held_out = max(1, len(rolls) // 5)
    test, valid, train = np.split(order, [held_out, 2 * held_out])
    return tuple([rolls[i] for i in part] for part in (train, valid, test))


def train_cell(
    name: str, args: argparse.Namespace, data: bach_chorales.Splits, run: Path
) -> tuple[dict, dict]:
    """Trains one cell; returns its row of the table and its learning curves."""
    keras.utils.set_random_seed(args.seed)
    cell_class = CELLS[name]
    keys = piano_roll.KEYS
    units = args.units or keras_gated.match_units(cell_class, args.budget, keys)
    cell = cell_class(units, weight_noise=WEIGHT_NOISE)
    model = keras.Sequential(
        [
            keras.Input((None, keys)),
            keras_gated.RNN(cell, return_sequences=True),
            keras.layers.Dense(keys),
        ],
        name=name,
    )
    model.compile(
        optimizer=keras.optimizers.RMSprop(
            args.learning_rate, global_clipnorm=GRADIENT_NORM
        ),
        loss=losses.BernoulliNLL(),
        weighted_metrics=[
            metrics.FrameNLL(name="nll"),
            metrics.FrameNLL("sequence", name="nll_sequence"),
            metrics.FrameAccuracy(name="accuracy"),
        ],
    )
    chorales = args.dataset == "bach" and args.midi_dir is None
    max_shapes = MAX_SHAPES_OF_CHORALES if chorales else MAX_SHAPES
    train, valid, test = (
        piano_roll.next_step_dataset(
            rolls, args.batch_size, shuffle, args.seed, max_shapes
        )
        for rolls, shuffle in zip(data, (True, False, False), strict=True)
    )
    clock = EpochClock()
    print(f"\n{name}: {units} units, {cell.count_params():,} parameters")
    began = time.perf_counter()
    watchers = [
        clock,
        callbacks.EpochProgress(("nll", "val_nll")),
        callbacks.BestModel(run / name / "best.keras", "val_nll"),
        callbacks.PianoRollImage(run / name, data[2][0], every=10),
        keras.callbacks.TensorBoard(run / name, write_graph=False),
        keras.callbacks.EarlyStopping("val_nll", patience=args.patience),
    ]
    try:
        history = model.fit(
            train.repeat(),  # to begin a pass anew takes time
            steps_per_epoch=len(train),
            validation_data=valid,
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
    best = run / name / "best.keras"
    if not best.exists():
        raise ValueError(
            f"no epoch of {name} had a finite validation NLL; a smaller "
            f"--learning-rate than {args.learning_rate} may help"
        )
    model.load_weights(best)
    scores = model.evaluate(test, verbose=0, return_dict=True)
    row = {
        "cell": name,
        "units": units,
        "parameters": cell.count_params(),
        "epochs": len(history["nll"]),
        "seconds": round(seconds, 1),
        "valid_nll": min(history["val_nll"]),
        "test_nll": scores["nll"],
        "test_nll_sequence": scores["nll_sequence"],
        "test_accuracy": scores["accuracy"],
    }
    log_hyperparameters(run / name, args, row)
    write_continuation(model, data[2][0], args, run / name)
    curves = {"seconds": clock.seconds, **history}
    return row, {key: [float(x) for x in curve] for key, curve in curves.items()}


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
        "batch_size": args.batch_size,
        "weight_noise": WEIGHT_NOISE,
        "gradient_norm": GRADIENT_NORM,
        "seed": args.seed,
    }
    figures = ("valid_nll", "test_nll", "test_nll_sequence", "test_accuracy")
    with tf.summary.create_file_writer(str(folder.parent)).as_default():
        api.hparams_config(
            hparams=[api.HParam(name) for name in settings],
            metrics=[api.Metric(f"result/{figure}") for figure in figures],
        )
    with tf.summary.create_file_writer(str(folder)).as_default():
        api.hparams(settings, trial_id=row["cell"])
        for figure in figures:
            tf.summary.scalar(f"result/{figure}", row[figure], step=row["epochs"])


def write_continuation(
    model: keras.Model, roll: np.ndarray, args: argparse.Namespace, folder: Path
) -> None:
    """The beginning of a piece of the test set, gone on with by the model."""
    bar = QUARTERS_A_BAR * args.steps_per_quarter
    primer = roll[: PRIMER_BARS * bar]
    continuation = keras_gated.generation.generate(
        model, primer, CONTINUATION_BARS * bar, seed=args.seed
    )
    music = np.concatenate([primer, continuation])
    midi.write(music, folder / "continuation.mid", args.steps_per_quarter)
    axes = piano_roll.plot(
        music, title=f"{model.name}: a test piece, and from the line on the model"
    )
    axes.axvline(len(primer) - 0.5, color="tab:red")
    axes.figure.savefig(folder / "continuation.png", dpi=120)


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
    for axes, label in zip(panels, ("epochs", "seconds"), strict=True):
        axes.set(xlabel=label, yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        if settled:
            axes.set_ylim(0.97 * min(settled), 1.1 * max(settled))
        axes.grid(which="both", linewidth=0.3)
    panels[0].set_ylabel("nats a step (validation; dotted: training, with noise)")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def format_table(rows: list[dict]) -> str:
    columns = {
        "cell": "{cell}",
        "units": "{units}",
        "parameters": "{parameters:,}",
        "epochs": "{epochs}",
        "seconds": "{seconds:.0f}",
        "test NLL": "{test_nll:.3f}",
        "by sequence": "{test_nll_sequence:.3f}",
        "accuracy": "{test_accuracy:.1%}",
    }
    cells = [[form.format(**row) for form in columns.values()] for row in rows]
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


def write_record(
    rows: list[dict], curves: dict, data: bach_chorales.Splits, run: Path
) -> None:
    """Writes what is done so far: the results, and a picture of the curves."""
    import tensorflow as tf

    plot_learning_curves(curves, run / "learning_curves.png")
    record = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {
            "keras_gated": keras_gated.__version__,
            "keras": keras.__version__,
            "backend": keras.config.backend(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
        "sequences": [len(part) for part in data],
        "steps": [sum(map(len, part)) for part in data],
        "rows": rows,
        "curves": curves,
    }
    with open(run / "results.json", "w") as file:
        json.dump(record, file, indent=1)


def main() -> int:
    args = parse_arguments()
    run = args.log_dir / time.strftime("%Y%m%d-%H%M%S")
    try:
        if args.log_dir.exists() and not args.log_dir.is_dir():
            raise ValueError(f"--log-dir {str(args.log_dir)!r} is not a folder.")
        data = load_music(args)
        run.mkdir(parents=True)
    except (ValueError, ImportError, OSError) as error:
        print(f"polyphonic_music.py: error: {error}", file=sys.stderr)
        return 2
    for part, rolls in zip(("training", "validation", "test"), data, strict=True):
        print(f"{part}: {len(rolls)} pieces, {sum(map(len, rolls)):,} steps")
    rows, curves, code = [], {}, 0
    try:
        for name in args.cells:
            try:
                row, curves[name] = train_cell(name, args, data, run)
            except ValueError as error:
                print(f"polyphonic_music.py: error: {error}", file=sys.stderr)
                code = 1
            else:
                rows.append(row)
                write_record(rows, curves, data, run)
    except KeyboardInterrupt:
        print("\nInterrupted. What is done is kept, and the best models so far.")
        code = 130
    if rows:
        print(
            f"\n{format_table(rows)}\n"
            "(NLL in nats a step, of the best epoch by validation)"
        )
    print(f"\nEverything is in {run}. The curves: tensorboard --logdir {args.log_dir}")
    return code


if __name__ == "__main__":
    sys.exit(main())
