"""The learning curves as pictures, and all trials for TensorBoard."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from comparison import color_of

from keras_gated import CELLS
from study.records import select
from study.tasks import TASKS
from study.trials import Trial


def plot_curves(records: list[dict], kind: str, path: Path) -> bool:
    """Draws learning curves, in the manner of the paper's figures 2 and 3.

    A column is a set; the NLL is drawn by updates above and by wall-clock seconds
    below.

    Args:
        records: Of all trials.
        kind: `"music"` or `"speech"`.
        path: Of the picture, an SVG.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    seeds = select(records, phase="seeds", failure=None)
    trained = {r["set"] for r in seeds if r["cell"] in CELLS}
    sets = [name for name in TASKS if TASKS[name].kind == kind and name in trained]
    if not sets:
        return False
    figure = Figure((4.6 * len(sets), 7.5), layout="constrained")
    panels = figure.subplots(2, len(sets), squeeze=False)
    for column, name in zip(panels.T, sets, strict=True):
        column[0].set_title(TASKS[name].title)
        settled = []
        for cell in CELLS:
            found = select(records, set=name, cell=cell, phase="seeds", failure=None)
            for k, record in enumerate(found):
                _draw(column, record, CELLS[cell].title if k == 0 else None)
                validation = record["curves"]["val_nll"]
                # The first epochs are far above all others and would flatten them.
                settled += validation[len(validation) // 10 :]
        _scale(column, min(settled), max(settled))
    for axes in panels[:, 0]:
        axes.set_ylabel("nats per step")
    panels[0, 0].legend(title="solid: validation\ndotted: training")
    # The same picture gives the same file.
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
    return True


def _draw(column: np.ndarray, record: dict, label: str | None) -> None:
    curves = record["curves"]
    style = {"color": color_of(record["cell"]), "linewidth": 0.9}
    epochs = np.arange(1, len(curves["nll"]) + 1)
    updates = epochs * record["updates"] / record["epochs"]
    for axes, x in zip(column, (updates, curves["seconds"]), strict=True):
        axes.plot(x, curves["nll"], ":", **style)
        axes.plot(x, curves["val_nll"], label=label, **style)


def _scale(column: np.ndarray, low: float, high: float) -> None:
    from matplotlib.ticker import EngFormatter

    margin = 0.06 * (high - low)
    column[0].xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k
    for axes, label in zip(column, ("updates", "seconds"), strict=True):
        axes.set_xlabel(label)
        axes.grid(which="both", linewidth=0.3)
        if low > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_ylim(low - margin, high + margin)


def write_tensorboard(records: list[dict], folder: Path) -> None:
    """Writes runs for TensorBoard.

    `curves` has a run for each cell, since TensorBoard gives each run a color, with the
    validation NLL of the first seed at the seconds that it took; *Custom scalars* shows
    a chart for each set. `trials` has a run for each trial, for *HParams*.

    Args:
        records: Of all trials.
        folder: For the two.
    """
    seeds = select(records, phase="seeds", failure=None)
    sets = [name for name in TASKS if select(seeds, set=name)]
    for cell, kind in CELLS.items():
        first = {}
        for record in sorted(select(seeds, cell=cell), key=lambda r: r["number"]):
            first.setdefault(record["set"], record)
        _write_curves(first.values(), sets, folder / "curves" / kind.title)
    _write_trials(records, folder / "trials")


def _write_curves(records: Iterable[dict], sets: list[str], folder: Path) -> None:
    """A run of curves, one for each record, and the layout of the charts."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.custom_scalar import layout_pb2, summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for record in records:
        curves = record["curves"]
        points = zip(curves["seconds"], curves["val_nll"], strict=True)
        for step, (seconds, nll) in enumerate(points, start=1):
            event = Event(wall_time=seconds, step=step)
            event.summary.value.add(tag=record["set"], simple_value=nll)
            writer.add_event(event)
    charts = [
        layout_pb2.Chart(
            title=TASKS[name].title,
            multiline=layout_pb2.MultilineChartContent(tag=[f"^{name}$"]),
        )
        for name in sets
    ]
    category = layout_pb2.Category(title="validation NLL", chart=charts)
    layout = summary.pb(layout_pb2.Layout(category=[category]))
    event = Event(step=0)
    event.summary.MergeFromString(layout.SerializeToString())
    writer.add_event(event)
    writer.close()


def _write_trials(records: list[dict], folder: Path) -> None:
    """A run for each trial, with its hyperparameters and results."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    names = ("set", "cell", "phase", "learning_rate", "seed", "units", "epochs")
    figures = ("valid_nll", "test_nll_step", "test_nll_sequence")
    with tf.summary.create_file_writer(str(folder)).as_default():
        api.hparams_config(
            hparams=[api.HParam(name) for name in names],
            metrics=[api.Metric(f"result/{figure}") for figure in figures],
        )
    for record in records:
        trial = Trial.of(record).name
        with tf.summary.create_file_writer(str(folder / trial)).as_default():
            api.hparams({name: record[name] for name in names}, trial_id=trial)
            for figure in figures:
                if figure in record:
                    tf.summary.scalar(f"result/{figure}", record[figure], step=0)
