"""Times an update of the study, and how much of it is the recurrent loop.

    python benchmarks/study.py --output docs/study/time.json

For every set and cell, with the sizes, batches and recipe of the study, three things
are timed: the update as `fit` runs it, on batches that are ready in memory; the
recurrent layer alone, with its weight noise, forward and backward, on the same batch;
and the making of the batches alone. Medians are taken over rounds, each of all three in
turn. No other program should run. The published sets and the spoken digits are found as
the study finds them.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import comparison
import keras
import tensorflow as tf
from comparison import positive

from study.tasks import Sources
from study.trials import Plan, Trial

UPDATES = 48
"""Updates of a round."""


def measure(plan: Plan, name: str, cell: str, rounds: int) -> dict:
    """Times the update of a cell on a set.

    Args:
        plan: Of the study.
        name: Of the set.
        cell: The name of the cell.
        rounds: Over which medians are taken.

    Returns:
        Milliseconds of an update, of the layer alone and of making a batch; the updates
        of an epoch, and the seconds they take; the share of the layer in an update; and
        the shape of the batch.
    """
    task = plan.tasks[name]
    trial = Trial(name, cell, "search", 0, 1e-4, 1, plan.recipes[name].epochs)
    settings, data = plan.settings(trial), task.load(Sources())
    model = task.build(cell, settings, data)
    training = task.batches(settings, data).training
    model.steps_per_execution = comparison.AT_ONCE
    batch, count = _most_common(training)
    ready = tf.data.Dataset.from_tensors(batch).repeat()
    calls = {
        "update": lambda: model.fit(ready, steps_per_epoch=UPDATES, verbose=0),
        "loop": _layer_alone(model, batch[0]),
        "batches": lambda: [None for _ in training],
    }
    per = {"update": UPDATES, "loop": UPDATES, "batches": count}
    seconds = {key: [] for key in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for key, call in calls.items():
            seconds[key].append(_wall(call) / per[key])
    median = {key: statistics.median(some) for key, some in seconds.items()}
    keras.backend.clear_session()
    return {
        **{f"{key}_ms": round(1000 * some, 3) for key, some in median.items()},
        "updates_an_epoch": count,
        "seconds_an_epoch": round(median["update"] * count, 2),
        "share_of_loop": round(median["loop"] / median["update"], 3),
        "shape": list(batch[0].shape),
    }


def _most_common(training: tf.data.Dataset) -> tuple[tuple, int]:
    """A batch of the most common shape, since each is compiled once; and the count."""
    shapes = {}
    for batch in training:
        shapes.setdefault(tuple(batch[0].shape), []).append(batch)
    return max(shapes.values(), key=len)[0], sum(map(len, shapes.values()))


def _layer_alone(model: keras.Model, x: tf.Tensor) -> Callable:
    """Runs the recurrent layer of a model forward and backward."""
    layer = model.layers[0]
    upstream = tf.random.normal(layer(x).shape)

    @tf.function  # as `fit` runs it on a CPU; the loop is compiled by itself
    def run(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(x, training=True) * upstream)
        return tape.gradient(y, [v.value for v in layer.trainable_variables])

    return lambda: [run(x) for _ in range(UPDATES)][-1][0].numpy()


def _wall(call: Callable) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Times all cells on the sets of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=positive(int),
        default=5,
        metavar="N",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=list(plan.recipes),
        default=list(plan.recipes),
        metavar="SET",
        help=f"of {', '.join(plan.recipes)} (default: all)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="as JSON")
    args = parser.parse_args()
    tf.config.experimental.enable_op_determinism()  # as in the study
    keras.utils.set_random_seed(0)
    figures = {}
    for name in args.sets:
        for cell in plan.cells:
            figures[f"{name}, {cell}"] = measure(plan, name, cell, args.rounds)
            print(f"{name}, {cell}", figures[f"{name}, {cell}"], flush=True)
    if args.output:
        result = {"command": shlex.join(["python", *sys.argv]), "rounds": args.rounds}
        result |= {"versions": comparison.versions(), "figures": figures}
        args.output.write_text(json.dumps(result, indent=1) + "\n")
