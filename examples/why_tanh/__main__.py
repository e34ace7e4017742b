"""Why tanh and not sigmoid, and why gates: three experiments.

The first compares the slopes of the sigmoid and of tanh, and products of many slopes.
The second compares gradient descent of a unit whose inputs are all positive, as the
outputs of a sigmoid are, with that of a unit whose inputs are centered. The third
measures how much the state of a recurrent cell depends on its state some steps before:
the norm of the Jacobian of the one with respect to the other, for every cell at equal
size, before and after training on Bach's chorales. With --models DIR the trained cells
are those of a run of polyphonic_music.py. The log folder gets a figure of each, all
numbers in `results.json`, and everything for TensorBoard.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

# With matrices this small, threads only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import quiet  # noqa: F401
import comparison
import keras
from comparison import positive

from keras_gated.datasets import bach_chorales, piano_roll
from keras_gated.datasets.files import atomic_path
from why_tanh import descent, memory, models, slopes
from why_tanh.cells import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS_PER_QUARTER = 2
MAX_SHAPES = 4  # of batches, as in polyphonic_music.py
COLUMNS = {
    "cell": "{title}",
    "weights": "{weights}",
    "units": "{units}",
    "parameters": "{parameters:,}",
    "test NLL": "{test_nll:.3f}",
    **{f"norm, {lag} back": f"{{norm_{lag}:.2g}}" for lag in memory.SOME_LAGS},
    f"below {memory.SMALL:g}": "{gone_text}",
    "half-life": "{half_life_text}",
}
DESCENT_COLUMNS = {
    "inputs": "{inputs}",
    "their number": "{dimension}",
    "an update sees": "{sees}",
    "eigenvalues, largest/smallest": "{condition:.1f}",
    "learning rate": "{rate:.3g}",
    "updates to the loss": "{updates_text}",
    "path, times the distance": "{path:.2f}",
    "gradient of one sign": "{one_sign:.0%}",
}


def parse_arguments() -> argparse.Namespace:
    parser = comparison.parser(
        __doc__,
        budget=20_000,
        epochs=30,
        patience=15,
        batch_size=8,
        learning_rate=0.005,
        log_dir=Path("runs/why_tanh"),
    )
    add = parser.add_argument
    add(
        "--no-sigmoid",
        action="store_true",
        help="do not add a tanh cell with sigmoid in place of tanh to --cells",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help="measure the models DIR/*/best.keras of a run of polyphonic_music.py; "
        "nothing is trained",
    )
    add(
        "--lags",
        type=positive(int),
        default=64,
        metavar="N",
        help="the number of steps to look back (default: %(default)s)",
    )
    add(
        "--pieces",
        type=positive(int),
        default=16,
        metavar="N",
        help="the number of test pieces over which to average (default: %(default)s)",
    )
    args = parser.parse_args()
    if not args.no_sigmoid:
        args.cells = [*args.cells, "sigmoid"]
    return args


class Study:
    """Runs the experiments, and writes the results so far.

    Args:
        args: The arguments.
        data: The chorales for training, validation and test.
        run: With the folder for the results, and those that a stopped run had.
    """

    def __init__(
        self, args: argparse.Namespace, data: bach_chorales.Splits, run: comparison.Run
    ) -> None:
        self.args, self._run, self.run = args, run, run.folder
        self.inputs = models.beginnings(data[2], args.lags, args.pieces, args.seed)
        rows = run.record.get("rows", [])
        finished = {row["cell"] for row in rows if row["weights"] == "trained"}
        self.rows = [row for row in rows if row["cell"] in finished]
        self.curves = run.record.get("curves", {})
        self.norms = run.record.get("jacobian_norms", {})
        self.about = {
            name: run.record[name]
            for name in ("slopes", "descents", "jacobian_norms")
            if name in run.record
        }

    def slopes(self) -> None:
        measured = self.about.get("slopes") or slopes.measure()
        self.about["slopes"] = measured
        self._show("slopes", slopes.plot(measured))
        for name, of in measured.items():
            print(
                f"The slope of {name}: at most {of['largest']:.4f}, and over normal "
                f"pre-activations {of['typical']:.3f} in the geometric mean"
            )

    def descents(self) -> None:
        print("\nGradient descent with positive and with centered inputs:")
        seed = self.args.seed
        rows = self.about.get("descents") or descent.measure(seed)
        self.about["descents"] = rows
        self._show("descents", descent.plot(rows, seed))
        for (update, kind), (_, _, loss) in descent.paths(rows, seed).items():
            self._scalars(kind, f"descent_loss/{update}", loss, 0)
        readable = [
            {
                **row,
                "inputs": descent.INPUTS[row["inputs"]],
                "sees": descent.UPDATES[row["update"]],
                "updates_text": "{:g}".format(row["updates"])
                if row["updates"] is not None
                else f"over {descent.MOST_STEPS:,}",
            }
            for row in rows
        ]
        print(comparison.format_table(readable, DESCENT_COLUMNS))

    def cell(self, name: str, model: keras.Model | None, parts: list) -> None:
        """Measures a cell before and after training, or that of a trained model."""
        given = model is not None
        model = model if given else models.build(name, self.args)
        _, cell = models.find_cell(model, self.run)
        keras.utils.set_random_seed(self.args.seed)
        self._measure(name, "untrained", models.in_float64(cell, fresh=given))
        self.write()
        if given:
            nll = model.evaluate(parts[2], verbose=0, return_dict=True)["nll"]
            result = {"test_nll": nll}
        else:
            result, curves = comparison.train(model, self.args, parts, self.run / name)
        row = self._measure(name, "trained", models.in_float64(cell))
        of_training = ("epochs", "seconds", "test_nll")
        row.update({key: result[key] for key in of_training if key in result})
        self._show("jacobians", memory.plot(self.norms, self.args.pieces))
        if not given:
            self.curves[name] = curves
        self.write()
        comparison.discard_backup(self.run / name)

    def _measure(self, name: str, weights: str, cell: keras.layers.Layer) -> dict:
        """Measures the memory of a cell; returns its row of the table."""
        norms = memory.measure(cell, self.inputs, self.args.lags)
        self.norms.setdefault(name, {})[weights] = norms
        self.about["jacobian_norms"] = self.norms
        self._scalars(name, f"jacobian_norm/{weights}", norms["mean"], 1)
        row = {
            "cell": name,
            "weights": weights,
            "units": cell.units,
            "parameters": cell.count_params(),
            **memory.summarize(norms["mean"]),
        }
        self.rows.append(row)
        return row

    def is_finished(self, name: str) -> bool:
        """Whether the stopped run had measured a cell, after training, too."""
        return name in {row["cell"] for row in self.rows}

    def write(self, ended: bool = False) -> None:
        """Writes the results so far."""
        if self.curves:
            path = self.run / "learning_curves.png"
            comparison.plot_learning_curves(self.curves, path)
        self._run.write(self.rows, self.curves, self.about, ended)

    def _show(self, name: str, figure: "Figure") -> None:
        """Writes a figure to a file and for TensorBoard."""
        import tensorflow as tf

        path = self.run / f"{name}.png"
        with atomic_path(path) as whole:
            figure.savefig(whole, dpi=110)
        with comparison.whole_events(self.run, f"{name}-{len(self.norms)}"):
            image = tf.io.decode_png(path.read_bytes(), channels=3)
            tf.summary.image(name, image[None], step=len(self.norms))

    def _scalars(
        self, name: str, tag: str, values: Iterable[float], first: int
    ) -> None:
        """Writes a curve for TensorBoard, as a run of this name."""
        import tensorflow as tf

        with comparison.whole_events(self.run / name, tag.replace("/", "-")):
            for step, value in enumerate(values, first):
                tf.summary.scalar(tag, value, step=step)

    def table(self) -> str:
        rows = [
            {
                **row,
                "title": TITLES[row["cell"]],
                "gone_text": row["gone"] or f"not in {self.args.lags}",
                "half_life_text": f"{row['half_life']:.2g}"
                if row["half_life"]
                else "does not fall",
            }
            for row in self.rows
        ]
        return comparison.format_table(rows, COLUMNS)


def main() -> int:
    args = parse_arguments()
    script = Path(sys.argv[0]).name
    try:
        if keras.config.backend() != "tensorflow":
            raise ValueError(
                f"This script runs on TensorFlow (KERAS_BACKEND=tensorflow), not on "
                f"{keras.config.backend()!r}."
            )
        if args.lags < 4:
            raise ValueError(f"--lags must be 4 or more. Received: {args.lags}")
        given = models.load(args.models, args.cells) if args.models else {}
        data = bach_chorales.load_data(STEPS_PER_QUARTER)
        study = Study(args, data, comparison.Run(args))
    except (ValueError, ImportError, OSError) as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    code = 0
    try:
        study.slopes()
        study.descents()
        study.write()
        parts = [
            piano_roll.next_step_dataset(
                rolls, args.batch_size, shuffle, args.seed, MAX_SHAPES
            )
            for rolls, shuffle in zip(data, (True, False, False), strict=True)
        ]
        for name in given or args.cells:
            if study.is_finished(name):
                continue
            try:
                study.cell(name, given.get(name), parts)
            except ValueError as error:
                print(f"{script}: error: {error}", file=sys.stderr)
                code = 1
        study.write(ended=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The finished results are kept; the same command goes on.")
        code = 130
    if study.rows:
        print(
            f"\n{study.table()}\n"
            "(the norm of the Jacobian of a state with respect to an earlier one, the "
            f"geometric mean over {args.pieces} test pieces; NLL in nats per step)"
        )
    print(
        f"\nAll results are in {study.run}. Curves: tensorboard --logdir {args.log_dir}"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
