"""Times an update of the study, and what share of it the recurrent loop is.

    python benchmarks/study.py --output docs/study/time.json

For every set and cell, with the sizes, the batches and the recipe of
`examples/empirical_study.py`: the update as `fit` runs it, from batches that lie
ready; the recurrent layer alone, with its weight noise, forward and backward, on the
same batch; and the making of the batches alone. Medians over rounds, which go through
all three in turn; nothing else should run. The published sets and the spoken digits
are found as the study finds them.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import comparison
import empirical_study as study
import keras
import tensorflow as tf

UPDATES = 48


def wall(call: Callable) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def layer_alone(model: keras.Model, x: tf.Tensor) -> Callable:
    """Runs the recurrent layer of a model forward and backward."""
    layer = model.layers[0]
    upstream = tf.random.normal(layer(x).shape)

    @tf.function  # as `fit` has it on a CPU; the loop is compiled by itself
    def run(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(x, training=True) * upstream)
        return tape.gradient(y, [v.value for v in layer.trainable_variables])

    return lambda: [run(x) for _ in range(UPDATES)][-1][0].numpy()


def measure(name: str, cell: str, rounds: int) -> dict[str, float]:
    """Milliseconds an update, and seconds an epoch."""
    recipe = study.RECIPES[name]
    trial = {"set": name, "cell": cell, "phase": "search", "learning_rate": 1e-4}
    trial |= {"seed": 1, "epochs": recipe.epochs}
    settings = argparse.Namespace(**study.settings_of(trial))
    model, parts = study.prepare(cell, settings, study.load(name, None, None))
    model.steps_per_execution = comparison.AT_ONCE
    training = parts[0]
    # Of the shape that comes most: each shape is compiled once.
    shapes = {}
    for batch in training:
        shapes.setdefault(tuple(batch[0].shape), []).append(batch)
    count = sum(map(len, shapes.values()))
    most = max(shapes.values(), key=len)[0]
    ready = tf.data.Dataset.from_tensors(most).repeat()
    calls = {
        "update": lambda: model.fit(ready, steps_per_epoch=UPDATES, verbose=0),
        "loop": layer_alone(model, most[0]),
        "batches": lambda: [None for _ in training],
    }
    per = {"update": UPDATES, "loop": UPDATES, "batches": count}
    seconds = {key: [] for key in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for key, call in calls.items():
            seconds[key].append(wall(call) / per[key])
    median = {key: statistics.median(some) for key, some in seconds.items()}
    keras.backend.clear_session()
    return {
        **{f"{key}_ms": round(1000 * some, 3) for key, some in median.items()},
        "updates_an_epoch": count,
        "seconds_an_epoch": round(median["update"] * count, 2),
        "share_of_loop": round(median["loop"] / median["update"], 3),
        "shape": list(most[0].shape),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--sets", nargs="+", default=list(study.RECIPES))
    parser.add_argument("--output", type=Path, metavar="FILE", help="as JSON")
    args = parser.parse_args()
    tf.config.experimental.enable_op_determinism()  # as in the study
    keras.utils.set_random_seed(0)
    figures = {}
    for name in args.sets:
        for cell in comparison.CELLS:
            figures[f"{name}, {cell}"] = measure(name, cell, args.rounds)
            print(f"{name}, {cell}", figures[f"{name}, {cell}"], flush=True)
    if args.output:
        result = {"command": shlex.join(["python", *sys.argv]), "rounds": args.rounds}
        result |= {"versions": comparison.versions(), "figures": figures}
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
