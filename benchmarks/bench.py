"""Times the fast layers beside their peers, all in one run.

    python benchmarks/bench.py                    # all, about half an hour
    python benchmarks/bench.py --parts table --sizes music --cells gru

Each backend has a process of its own (see worker.py); the contenders take
turns, and what is reported is the median over the rounds of the ratio within a
round. Nothing else should run. Results go to benchmarks/results.json, a table to
benchmarks/results.md, and a plot of the growth with length to
benchmarks/growth.png.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import statistics
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401

from keras_gated import CELLS, match_units

HERE = pathlib.Path(__file__).parent

# At the budgets and input sizes of the paper, but for the large one.
UNITS = {
    "music": {n: match_units(cell, 20_000, 100) for n, cell in CELLS.items()},
    "speech": {n: match_units(cell, 168_800, 20) for n, cell in CELLS.items()},
    "large": dict.fromkeys(CELLS, 512),
}
SHAPES = {
    "music": {"batch": 16, "steps": 100, "inputs": 88},
    "speech": {"batch": 16, "steps": 500, "inputs": 20},
    "large": {"batch": 64, "steps": 200, "inputs": 128},
}
OURS = "tensorflow: ours"
CONTENDERS = (
    OURS,
    "tensorflow: keras.layers.RNN",
    "tensorflow: keras.layers",
    "tensorflow: ours + XLA",
    "tensorflow: keras.layers.RNN + XLA",
    "tensorflow: keras.layers + XLA",
    "jax: ours",
    "jax: keras.layers",
    "jax: lax.scan",
    "torch: ours",
    "torch: keras.layers.RNN",
    "torch: keras.layers",
    "torch: torch.nn",
    "numpy: products",
    "tensorflow: no layer",
)
LENGTHS = (100, 400, 1000, 4000, 16000)
GROWTH = (
    OURS,
    "tensorflow: keras.layers",
    "tensorflow: ours + XLA",
    "tensorflow: keras.layers + XLA",
    "jax: ours",
    "jax: keras.layers",
)
# A step of more than this is timed once, not several times.
LONG = 5.0


class Worker:
    """A worker process of one backend."""

    def __init__(self, backend: str) -> None:
        backend = "tensorflow" if backend == "numpy" else backend
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, **order: object) -> object:
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended over {order}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def available(contenders: tuple[str, ...]) -> tuple[str, ...]:
    def found(backend: str) -> bool:
        probe = [sys.executable, "-c", f"import {backend}"]
        return subprocess.run(probe, capture_output=True).returncode == 0

    backends = {name.partition(":")[0] for name in contenders}
    there = {backend for backend in backends if found(backend)}
    for backend in sorted(backends - there):
        print(f"{backend} is not installed: not measured.")
    return tuple(name for name in contenders if name.partition(":")[0] in there)


def compare(
    case: dict, contenders: tuple[str, ...], what: str, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds a step: for each contender the median of each round."""
    workers, seconds = {}, {}
    for name in contenders:
        backend, _, contender = name.partition(": ")
        group = "numpy" if backend == "numpy" else backend
        worker = workers.get(group) or workers.setdefault(group, Worker(backend))
        if worker(do="prepare", case=case, name=contender, what=what) is not None:
            seconds[name] = []
    for _ in range(rounds):
        for name, of_rounds in seconds.items():
            backend, _, contender = name.partition(": ")
            times = workers[backend](
                do="time", case=case, name=contender, what=what, steps=steps
            )
            of_rounds.append(statistics.median(times))
    for worker in workers.values():
        worker.close()
    return seconds


def table(args: argparse.Namespace, results: dict) -> None:
    contenders = available(CONTENDERS)
    for size in args.sizes:
        for cell in args.cells:
            case = {"cell": cell, "units": UNITS[size][cell], **SHAPES[size]}
            for what in args.what:
                key = f"{size} {cell} {what}"
                if key in results:
                    continue
                rounds = args.rounds or {"music": 11, "speech": 5, "large": 3}[size]
                steps = {"music": 10, "speech": 3, "large": 2}[size]
                seconds = compare(case, contenders, what, rounds, steps)
                results[key] = {"case": case, "seconds": seconds}
                print(key, summary(seconds), flush=True)
                save(results)


def growth(args: argparse.Namespace, results: dict) -> None:
    """Time and peak memory of a GRU of 46 units, batch 4, by length."""
    contenders = available(GROWTH)
    for steps in LENGTHS:
        case = {"cell": "gru", "units": 46, "batch": 4, "steps": steps, "inputs": 88}
        key = f"growth {steps}"
        if key in results:
            continue
        seconds, peaks = {}, {}
        for name in contenders:
            backend, _, contender = name.partition(": ")
            worker = Worker(backend)  # alone, so that its peak is its own
            order = {"case": case, "name": contender, "what": "train"}
            first = worker(do="prepare", **order)
            peaks[name] = first["bytes"]
            times = worker(do="time", **order, steps=1)
            if times[0] < LONG:
                times += worker(do="time", **order, steps=6)
            seconds[name] = [statistics.median(times)]
            worker.close()
        results[key] = {"case": case, "seconds": seconds, "peak_bytes": peaks}
        print(key, summary(seconds), flush=True)
        save(results)


def ratio(seconds: dict[str, list[float]], name: str) -> float:
    """How many times as long as ours: the median over the rounds."""
    pairs = zip(seconds[name], seconds[OURS], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def summary(seconds: dict[str, list[float]]) -> str:
    ours = statistics.median(seconds[OURS]) * 1e3
    others = ", ".join(
        f"{name} {ratio(seconds, name):.2f}" for name in seconds if name != OURS
    )
    return f"{ours:.2f} ms; in its multiples: {others}"


def about() -> dict:
    """The machine and the versions, as any report of figures needs them."""
    packages = ("tensorflow", "keras", "jax", "torch", "numpy", "keras-gated")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    with open("/proc/cpuinfo") as cpuinfo:
        lines = cpuinfo.read().splitlines()
    models = [line.partition(": ")[2] for line in lines if "model name" in line]
    return {
        "command": " ".join(["python", *sys.argv]),
        "processors": f"{len(models)} x {models[0] if models else '?'}",
        "python": platform.python_version(),
        "versions": versions,
        "gpu": "not measured",
    }


def save(results: dict) -> None:
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def report(results: dict) -> None:
    """results.md and growth.png, from what is in results.json."""
    lines = ["# What `make bench` measured", ""]
    info = results["about"]
    named = ", ".join(f"{k} {v}" for k, v in info["versions"].items() if v)
    lines += [f"{info['processors']}; Python {info['python']}, {named}.", ""]
    lines += [
        "The first column is a whole step of ours in ms (TensorFlow, Keras's default",
        "`jit_compile`), the others are multiples of it: medians over rounds of the",
        "ratio within a round. Above 1, ours is faster. `products` are the matrix",
        "products of a step alone, through NumPy's BLAS; `no layer` is the model and",
        "`fit` without a recurrent layer.",
        "",
    ]
    for what, title in (("train", "Training step"), ("infer", "Inference")):
        rows = {k: v for k, v in results.items() if k.endswith(" " + what)}
        if not rows:
            continue
        names = [n for n in CONTENDERS if any(n in v["seconds"] for v in rows.values())]
        names.remove(OURS)
        lines += [f"## {title}", "", "| | ours, ms | " + " | ".join(names) + " |"]
        lines += ["|---|---|" + "---|" * len(names)]
        for key, row in rows.items():
            seconds = row["seconds"]
            ours = statistics.median(seconds[OURS]) * 1e3
            cells = [
                f"{ratio(seconds, name):.2f}" if name in seconds else ""
                for name in names
            ]
            label = key.removesuffix(" " + what)
            lines += [f"| {label} | {ours:.2f} | " + " | ".join(cells) + " |"]
        lines += [""]
    grown = {k: v for k, v in results.items() if k.startswith("growth")}
    if grown:
        lines += ["## Growth with length (GRU of 46 units, batch 4, training step)", ""]
        names = [n for n in GROWTH if n in next(iter(grown.values()))["seconds"]]
        lines += [
            "Seconds, and the peak of memory above what was held before, MiB.",
            "",
        ]
        lines += [
            "| steps | " + " | ".join(names) + " |",
            "|---|" + "---|" * len(names),
        ]
        for key, row in grown.items():
            cells = [
                f"{row['seconds'][n][0]:.3f} s, {row['peak_bytes'][n] / 2**20:.0f} MiB"
                for n in names
            ]
            lines += [f"| {key.split()[1]} | " + " | ".join(cells) + " |"]
        plot(grown, names)
        lines += ["", "![growth](growth.png)", ""]
    (HERE / "results.md").write_text("\n".join(lines))


def plot(grown: dict, names: list[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lengths = [row["case"]["steps"] for row in grown.values()]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name in names:
        style = "-" if "ours" in name else "--"
        micro = [
            row["seconds"][name][0] / row["case"]["steps"] * 1e6
            for row in grown.values()
        ]
        mebi = [row["peak_bytes"][name] / 2**20 for row in grown.values()]
        axes[0].loglog(lengths, micro, style, marker="o", label=name)
        axes[1].loglog(lengths, mebi, style, marker="o")
    axes[0].set(xlabel="time steps", ylabel="µs a time step")
    axes[1].set(xlabel="time steps", ylabel="peak memory, MiB")
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle("A training step of a GRU, 46 units, batch 4")
    figure.savefig(HERE / "growth.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["table", "growth"])
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--what", nargs="+", default=["train", "infer"])
    parser.add_argument("--rounds", type=int, help="default: 11, 5 and 3 by size")
    parser.add_argument(
        "--resume", action="store_true", help="keep what results.json holds already"
    )
    args = parser.parse_args()
    results = {"about": about()}
    if args.resume and (HERE / "results.json").exists():
        results = json.loads((HERE / "results.json").read_text())
    for part in args.parts:
        {"table": table, "growth": growth}[part](args, results)
    save(results)
    report(results)
    print((HERE / "results.md").read_text())


if __name__ == "__main__":
    main()
