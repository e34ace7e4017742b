"""Times the same training by one, two and four processes on this machine.

    python benchmarks/scaling.py
    KERAS_BACKEND=torch python benchmarks/scaling.py --output scaling_torch.json

All train with the same whole batch under `fit`, each process with its share of it. An
update is the median over the epochs after the first, in turns of all numbers of
processes, and the median over these. Beside it stands the time that the sum of as many
numbers as the model has parameters takes alone. `--threads 1` gives each process one
thread for an operation of TensorFlow.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SIZES = {"music": (46, 88, 16, 100), "speech": (227, 20, 16, 500)}
"""Units, inputs, sequences of a batch, and steps of GRUs."""
COUNTS = 1, 2, 4
UPDATES, EPOCHS, SUMS = 10, 4, 20


def run(size: str, output: Path) -> None:
    """Trains in one of the processes, of which the first writes what it took."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_gated
    from keras_gated import distribution, replicas

    workers = distribution.initialize()
    units, inputs, batch, steps = SIZES[size]
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((None, inputs)),
        keras_gated.GRU(units, return_sequences=True, weight_noise=0.075),
        keras.layers.Dense(88),
    ]
    model = keras.Sequential(layers)
    model.compile(
        keras_gated.optimizers.RMSprop(0.001, global_clipnorm=1.0),
        keras_gated.losses.BernoulliNLL(),
        weighted_metrics=[keras_gated.metrics.FrameNLL()],
    )
    random = np.random.default_rng(1)
    x = random.random((batch, steps, inputs)).astype("float32")
    y = (random.random((batch, steps, 88)) < 0.05).astype("float32")
    one = tf.data.Dataset.from_tensors((x, y, np.ones((batch, steps), "float32")))
    workers.prepare(model)
    times: list[float] = []  # of the beginnings and ends of epochs

    def note(*_: object) -> None:
        times.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(on_epoch_begin=note, on_epoch_end=note)
    model.fit(
        workers.share(one.repeat()).prefetch(2),
        steps_per_epoch=UPDATES,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[clock],
    )
    sums = [0.0]
    if replicas.count() > 1:
        vector = keras.ops.zeros((model.count_params(),))
        for _ in range(SUMS):
            began = time.perf_counter()
            keras.ops.convert_to_numpy(replicas.total(vector))
            sums.append(time.perf_counter() - began)
    if workers.is_first:
        seconds = [
            end - begin for begin, end in zip(times[::2], times[1::2], strict=True)
        ]
        figures = {
            "update_ms": 1000 * statistics.median(seconds[1:]) / UPDATES,
            "sum_ms": 1000 * statistics.median(sums),
            "parameters": model.count_params(),
        }
        output.write_text(json.dumps(figures))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", type=int, help="of TensorFlow's operations")
    parser.add_argument("--output", type=Path, default=HERE / "scaling.json")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run[0], Path(args.run[1]))
        return 0
    import keras

    from keras_gated import distribution

    if args.threads:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(args.threads)
        os.environ["TF_NUM_INTEROP_THREADS"] = str(args.threads)
    found: dict[str, dict[int, list[dict]]] = {
        size: {count: [] for count in COUNTS} for size in args.sizes
    }
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        for _ in range(args.rounds):
            for size in args.sizes:
                for count in COUNTS:
                    command = [sys.executable, __file__, "--run", size, str(result)]
                    if distribution.launch(count, command):
                        return 1
                    found[size][count].append(json.loads(result.read_text()))
    figures = {}
    for size, by_count in found.items():
        figures[size] = {
            count: {
                name: round(statistics.median(x[name] for x in rounds), 2)
                for name in rounds[0]
            }
            for count, rounds in by_count.items()
        }
        alone = figures[size][1]["update_ms"]
        for count, row in figures[size].items():
            row["times_the_throughput_of_one"] = round(alone / row["update_ms"], 2)
            print(f"{size}, {count} processes: {row}")
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "backend": keras.config.backend(),
        "keras": keras.__version__,
        "cores": os.cpu_count(),
        "figures": figures,
    }
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
