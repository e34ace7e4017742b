"""Does the same for a long time, and watches what memory and time it takes.

    make soak                                  # each task for 30 minutes
    make soak ARGS="--tasks streaming --minutes 5"

Each task runs in a process of its own. After the first minute, in which models are
compiled, memory should stay as it is, and nothing become slower: the slope of memory is
that of a straight line through all that was seen, and the last third of the rounds is
compared to the first, by the processor time that a round takes, which other work on the
machine hardly changes. The figures go to benchmarks/soak.json and soak.png.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FIRST = 60.0
"""Seconds that are not looked at."""
Tick = Callable[[], None]
"""What a task calls after each round; an exception then ends it."""
MIB = 2**20


def training(tick: Tick) -> None:
    """Epoch after epoch, with all callbacks of the demo."""
    import keras

    import keras_gated
    from keras_gated import callbacks
    from keras_gated.datasets import piano_roll

    rolls, others = np.split(np.array(_rolls(80), dtype=object), [64])
    training = piano_roll.next_step_dataset(rolls, 8, True, seed=1, max_shapes=4)
    valid = piano_roll.next_step_dataset(others, 8, max_shapes=2)
    model = _music()
    model.compile(
        keras_gated.optimizers.RMSprop(0.001, global_clipnorm=1.0),
        keras_gated.losses.BernoulliNLL(),
        weighted_metrics=[keras_gated.metrics.FrameNLL(name="nll")],
    )
    with tempfile.TemporaryDirectory() as folder:
        watchers = [
            callbacks.TerminateOnNaN(training),
            callbacks.BestModel(f"{folder}/best.keras"),
            callbacks.PianoRollImage(folder, rolls[0], every=50),
            callbacks.TensorBoard(folder, write_graph=False),
        ]
        backup = callbacks.BackupAndRestore(f"{folder}/backup.npz", training, watchers)
        each = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: tick())
        model.fit(
            training.repeat(),
            steps_per_epoch=len(training),
            validation_data=valid,
            epochs=10**9,
            verbose=0,
            shuffle=False,  # the data set does, and Keras would say so
            callbacks=[backup, *watchers, each],
        )


def generation(tick: Tick) -> None:
    """Continuations of primers of several lengths, with other seeds."""
    from keras_gated import generation

    model, rolls, seed = _music(), _rolls(8), 0
    while True:
        for roll in rolls:
            generation.generate(model, roll, 64, seed=seed)
            seed += 1
        tick()


def streaming(tick: Tick) -> None:
    """Sound without end, a block after the other."""
    import keras

    import keras_gated
    from keras_gated import generation

    model = keras.Sequential(
        [
            keras.Input((None, 20)),
            keras_gated.GRU(64, return_sequences=True),
            keras_gated.GaussianMixture(20, 10),
        ]
    )
    primer = np.sin(np.arange(2000) / 9).astype("float32")
    for _ in generation.stream_audio(model, primer, seed=1):
        tick()


def reading(tick: Tick) -> None:
    """Folders of MIDI files and of recordings, with a cache and without."""
    from keras_gated.datasets import audio, midi, midi_directory

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, roll in enumerate(_rolls(16)):
            midi.write(roll, folder / "midi" / f"{number}.mid")
            tone = np.sin(np.arange(16_000) / (9 + number))
            (folder / "sound").mkdir(exist_ok=True)
            audio.write(tone, folder / "sound" / f"{number}.wav", 16_000)
        while True:
            for cache in (folder / "kept", Path(tempfile.mkdtemp(dir=folder))):
                how = {"cache_dir": cache, "verbose": False}
                midi_directory.read_directory(folder / "midi", **how)
                recordings = audio.read_directory(folder / "sound", 8000, **how)
                assert len(recordings[0]) == 8000
            shutil.rmtree(cache)
            tick()


TASKS: dict[str, Callable[[Tick], None]] = {
    task.__name__: task for task in (training, generation, streaming, reading)
}


def _rolls(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        (random.random((length, 88)) < 0.05).astype("uint8")
        for length in random.integers(40, 120, count)
    ]


def _music() -> "keras.Model":  # noqa: F821
    import keras

    import keras_gated

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((None, 88)),
            keras_gated.GRU(46, return_sequences=True, weight_noise=0.075),
            keras.layers.Dense(88),
        ]
    )


def memory() -> float:
    """The memory of this process, in MiB; Linux says what it is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def run(task: str, minutes: float) -> None:
    """Runs a task, and prints what is seen, a line of JSON for each round."""
    began, last = time.monotonic(), time.process_time()

    def tick() -> None:
        nonlocal last
        now, used = time.monotonic(), time.process_time()
        print(json.dumps([now - began, memory(), used - last]), flush=True)
        if now - began > 60 * minutes:
            sys.exit()
        last = time.process_time()

    TASKS[task](tick)


def watched(task: str, minutes: float) -> np.ndarray:
    """Runs a task in a process of its own; returns what is seen."""
    command = [sys.executable, __file__, "--run", task, "--minutes", str(minutes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return np.array([json.loads(line) for line in done.stdout.splitlines()])


def summarize(seen: np.ndarray) -> dict[str, float]:
    """The figures of a task.

    Args:
        seen: For each round the time since the beginning, the memory in MiB and the
            seconds of processor time that it took.
    """
    later = seen[seen[:, 0] > FIRST]
    if len(later) < 3:
        raise ValueError("Fewer than three rounds came after the first minute.")
    slope, _ = np.polyfit(later[:, 0] / 60, later[:, 1], 1)
    third = max(1, len(later) // 3)
    first, last = (np.median(part[:, 2]) for part in (later[:third], later[-third:]))
    return {
        "minutes": round(float(seen[-1, 0] / 60), 1),
        "rounds": len(seen),
        "memory_mib": round(float(later[-1, 1]), 1),
        "slope_mib_a_minute": round(float(slope), 3),
        "processor_seconds_a_round": round(float(first), 4),
        "last_third_over_first": round(float(last / first), 3),
    }


def plot(seen: dict[str, np.ndarray], path: Path) -> None:
    """Draws memory and time of all tasks."""
    from matplotlib.figure import Figure

    figure = Figure((11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, rows in seen.items():
        minutes = rows[:, 0] / 60
        left.plot(minutes, rows[:, 1], label=name)
        right.plot(minutes, rows[:, 2] / np.median(rows[:, 2]), ".", markersize=2)
    left.set(xlabel="minutes", ylabel="memory in MiB", ylim=(0, None))
    right.set(
        xlabel="minutes",
        ylabel="processor time of a round over the median",
        ylim=(0, 3),
    )
    left.legend()
    for panel in (left, right):
        panel.axvline(FIRST / 60, color="0.7", linewidth=0.8)
        panel.grid(linewidth=0.3)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--minutes", type=float, default=30.0, help="of each task")
    parser.add_argument("--at-once", type=int, default=1, help="tasks at a time")
    parser.add_argument("--output", type=Path, default=HERE / "soak.json")
    parser.add_argument("--run", choices=TASKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run, args.minutes)
        return 0
    with ThreadPoolExecutor(args.at_once) as pool:
        rows = pool.map(lambda task: watched(task, args.minutes), args.tasks)
        seen = dict(zip(args.tasks, rows, strict=True))
    figures = {task: summarize(rows) for task, rows in seen.items()}
    print(json.dumps(figures, indent=1))
    import keras

    record = {
        "command": shlex.join(["python", *sys.argv]),
        "keras": keras.__version__,
        "backend": keras.config.backend(),
        "tasks": figures,
    }
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    plot(seen, args.output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
