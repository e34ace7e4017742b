"""Times the fast layers beside their peers, all in one run.

    python benchmarks/bench.py                    # all, 45 to 90 minutes
    python benchmarks/bench.py --quick            # some of it, five minutes
    python benchmarks/bench.py --parts table --sizes music --cells gru

Each backend has a process of its own (see worker.py); the contenders take
turns, and what is reported is the median over the rounds of the ratio within a
round, and in brackets how many cores were busy: CPU time over wall time. Nothing
else should run. Results go to results.json, a table to results.md, and a plot of the
growth with length to growth.png, in benchmarks/ or another folder.
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

from keras_gated import CELLS, FURTHER_CELLS, match_units
from keras_gated.cells.min_gru import LinearCell

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
STEPS = {"music": 10, "speech": 2, "large": 1}
"""Steps in a round."""
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
    "torch: ours, equations of torch.nn",
    "torch: torch.nn",
    "numpy: products",
    "tensorflow: no layer",
)
LENGTHS = (100, 400, 1000, 4000, 16000)
GROWTH = (
    OURS,
    "tensorflow: ours, states again",
    "tensorflow: keras.layers",
    "tensorflow: no layer",
    "tensorflow: ours + XLA",
    "tensorflow: keras.layers + XLA",
    "jax: ours",
    "jax: keras.layers",
)
STEP = (
    OURS,
    "tensorflow: keras.layers",
    "tensorflow: no layer",
    "tensorflow: generate",
    "jax: generate",
    "torch: generate",
)
KERNELS = (
    "torch: ours, equations of torch.nn",
    "torch: torch.nn in Keras",
    "torch: torch.nn",
)
CELLS_OF_USERS = (
    "a step alone",
    "layer norm",
    "Keras's cell",
    "two of Keras's cells",
    "a call alone",
)
REST = tuple(
    f"tensorflow: {name}"
    for name in (
        "the layer and Dense",
        "metric",
        "rescaled gradients",
        "weight noise",
        "10 steps at once",
    )
)
QUICK = {
    "sizes": ["music", "speech"],
    "cells": ["lstm", "gru"],
    "rounds": 3,
    "parts": ["table"],
    "contenders": [
        OURS,
        "tensorflow: keras.layers.RNN",
        "tensorflow: keras.layers",
        "jax: ours",
        "torch: ours, equations of torch.nn",
        "torch: torch.nn",
        "numpy: products",
    ],
}
LONG = 5.0
"""Seconds: a step of more is timed once, not several times."""
SLOW = 4
"""A contender that takes so many times as long as ours has a third of the rounds."""


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
) -> dict[str, dict[str, list[float]]]:
    """For each contender the seconds of a step and the busy cores of each round."""
    workers, found = {}, {}
    for name in contenders:
        backend, _, contender = name.partition(": ")
        worker = workers.get(backend) or workers.setdefault(backend, Worker(backend))
        if worker(do="prepare", case=case, name=contender, what=what) is not None:
            found[name] = {"rounds": [], "seconds": [], "cores": []}
    first = contenders[0]
    for of_round in range(rounds):
        for name, so_far in found.items():
            ours = found[first]["seconds"]
            slow = of_round and so_far["seconds"][0] > SLOW * ours[0]
            if slow and of_round % 3:
                continue
            backend, _, contender = name.partition(": ")
            answer = workers[backend](
                do="time", case=case, name=contender, what=what, steps=steps
            )
            so_far["seconds"].append(statistics.median(answer["seconds"]))
            so_far["cores"].append(answer["cores"])
            so_far["rounds"].append(of_round)
    for worker in workers.values():
        worker.close()
    return found


def measure(
    args: argparse.Namespace,
    results: dict,
    key: str,
    case: dict,
    contenders: tuple[str, ...],
    what: str,
    steps: int,
) -> None:
    """Compares the contenders, unless that has been done, and saves what was found."""
    if contenders and key not in results:
        found = compare(case, contenders, what, args.rounds, steps)
        results[key] = {"case": case, "found": found}
        print(key, summary(found), flush=True)
        save(args.output, results)


def table(args: argparse.Namespace, results: dict) -> None:
    contenders = available(tuple(args.contenders))
    for size in args.sizes:
        for cell in args.cells:
            case = {"cell": cell, "units": UNITS[size][cell], **SHAPES[size]}
            for what in args.what:
                key = f"{size} {cell} {what}"
                measure(args, results, key, case, contenders, what, STEPS[size])


def kernels(args: argparse.Namespace, results: dict) -> None:
    """PyTorch's own layers beside ours of the same equations, both under `fit`."""
    contenders = available(KERNELS)
    for size in args.sizes:
        for cell in args.cells:
            case = {"cell": cell, "units": UNITS[size][cell], **SHAPES[size]}
            if cell != "simplified_gru":
                key = f"kernels {size} {cell}"
                measure(args, results, key, case, contenders, "train", STEPS[size])


def own(args: argparse.Namespace, results: dict) -> None:
    """Our RNN beside Keras's over the same cells, which bring no gradient of a step."""
    for size in [s for s in args.sizes if s != "large"]:
        for cell in [c for c in args.cells if c in ("gru", "lstm")]:
            case = {"cell": cell, "units": UNITS[size][cell], **SHAPES[size]}
            for kind in CELLS_OF_USERS:
                for backend in ("tensorflow", "jax", "torch"):
                    rnns = tuple(
                        f"{backend}: {rnn}, {kind}"
                        for rnn in ("RNN", "keras.layers.RNN")
                    )
                    rnns += (f"{backend}: ours",) * (kind == "a step alone")
                    key = f"own {size} {cell}, {kind}, {backend}"
                    measure(
                        args, results, key, case, available(rnns), "train", STEPS[size]
                    )


def further(args: argparse.Namespace, results: dict) -> None:
    """The cells that the paper does not have: our RNN beside Keras's over the same.

    Those that are linear in their state at 2,000 steps, too.
    """
    shapes = {"music": SHAPES["music"], "long": {**SHAPES["music"], "steps": 2000}}
    for size, shape in shapes.items():
        for cell, kind in FURTHER_CELLS.items():
            linear = issubclass(kind, LinearCell)
            if size == "long" and not linear:
                continue
            case = {"cell": cell, "units": 46, **shape}
            for backend in ("tensorflow", "jax", "torch"):
                rnns = ["RNN", "keras.layers.RNN"]
                rnns += ["RNN step by step"] * (linear and backend == "torch")
                contenders = tuple(f"{backend}: {rnn}, the same cell" for rnn in rnns)
                key = f"further {cell}, {shape['steps']} steps, {backend}"
                updates = STEPS["music"] if size == "music" else 2
                found = available(contenders)
                measure(args, results, key, case, found, "train", updates)


def step(args: argparse.Namespace, results: dict) -> None:
    """One step of a stateful model, and of `generate`, at the music size, batch 1."""
    contenders = available(STEP)
    for cell in args.cells:
        case = {"cell": cell, "units": UNITS["music"][cell], "inputs": 88}
        case |= {"part": "step", "batch": 1, "steps": 1}
        measure(args, results, f"step {cell}", case, contenders, "one", 20)


def rest(args: argparse.Namespace, results: dict) -> None:
    """What the study's trainings have beside the layer, at the music size."""
    case = {"cell": "gru", "units": UNITS["music"]["gru"], **SHAPES["music"]}
    case["part"] = "rest"
    measure(args, results, "rest", case, available(REST), "train", STEPS["music"])


def growth(args: argparse.Namespace, results: dict) -> None:
    """Time and peak memory of a GRU of 46 units, batch 4, by length."""
    contenders = available(GROWTH)
    for steps in LENGTHS:
        case = {"cell": "gru", "units": 46, "batch": 4, "steps": steps, "inputs": 88}
        key = f"growth {steps}"
        if key in results:
            continue
        found, peaks = {}, {}
        for name in contenders:
            backend, _, contender = name.partition(": ")
            worker = Worker(backend)  # alone, so that its peak is its own
            order = {"name": contender, "what": "train"}
            # What is loaded and compiled once is no part of what a length takes.
            before = worker(do="prepare", case={**case, "steps": 2048}, **order)
            first = worker(do="prepare", case=case, **order)
            peaks[name] = {"once": before["bytes"], "length": first["bytes"]}
            answer = worker(do="time", case=case, **order, steps=1)
            if answer["seconds"][0] < LONG:
                answer = worker(do="time", case=case, **order, steps=9)
            found[name] = {
                "seconds": [statistics.median(answer["seconds"])],
                "cores": [answer["cores"]],
                "rounds": [0],
            }
            worker.close()
        results[key] = {"case": case, "found": found, "peak_bytes": peaks}
        print(key, summary(found), flush=True)
        save(args.output, results)


def ratio(found: dict[str, dict], name: str, to: str = OURS) -> float:
    """How many times as long as `to`: the median over the rounds that both have."""
    a, b = (
        dict(zip(found[n]["rounds"], found[n]["seconds"], strict=True))
        for n in (name, to)
    )
    return statistics.median(a[r] / b[r] for r in a.keys() & b.keys())


def milliseconds(of_one: dict) -> float:
    return statistics.median(of_one["seconds"]) * 1e3


def busy(of_one: dict) -> str:
    return f"({statistics.median(of_one['cores']):.1f})"


def summary(found: dict[str, dict]) -> str:
    first = next(iter(found))
    others = ", ".join(
        f"{name} {ratio(found, name, first):.2f}" for name in found if name != first
    )
    return f"{milliseconds(found[first]):.2f} ms; in its multiples: {others}"


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


def save(folder: pathlib.Path, results: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(key)}: {json.dumps(of)}" for key, of in results.items())
    (folder / "results.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def as_table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def report(folder: pathlib.Path, results: dict) -> None:
    """results.md and growth.png, from what is in results.json."""
    info = results["about"]
    named = ", ".join(f"{k} {v}" for k, v in info["versions"].items() if v)
    lines = [
        "# What `make bench` measured",
        "",
        f"{info['processors']}; Python {info['python']}, {named}. GPU: {info['gpu']}.",
        "",
        "The first column is a whole step of ours in ms (TensorFlow, Keras's default",
        "`jit_compile`), the others are multiples of it: medians over rounds of the",
        "ratio within a round. Above 1, ours is faster. In brackets are the cores that",
        "were busy, CPU time over wall time. `products` are the matrix products of a",
        "step alone, through NumPy's BLAS; `no layer` is the model and `fit` or",
        "`predict` without a recurrent layer; `equations of torch.nn` are the LSTM",
        "without peepholes and the GRU with the reset gate after.",
        "",
    ]
    titles = {"train": "Training step, `fit`", "infer": "A batch of `predict`"}
    for what, title in titles.items():
        rows = {k: v["found"] for k, v in results.items() if k.endswith(" " + what)}
        if not rows:
            continue
        names = [n for n in CONTENDERS if any(n in found for found in rows.values())]
        names.remove(OURS)
        lines += [f"## {title}", ""]
        lines += as_table(
            ["", "ours, ms", *names],
            [
                [
                    key.removesuffix(" " + what),
                    f"{milliseconds(found[OURS]):.2f} {busy(found[OURS])}",
                    *(
                        f"{ratio(found, name):.2f} {busy(found[name])}"
                        if name in found
                        else ""
                        for name in names
                    ),
                ]
                for key, found in rows.items()
            ],
        )
    rows = {k: v["found"] for k, v in results.items() if k.startswith("kernels ")}
    if rows:
        lines += ["## PyTorch: ours beside torch.nn of the same equations, `fit`", ""]
        lines += [
            "`torch.nn in Keras` is PyTorch's layer in a `TorchModuleWrapper`, under",
            "`fit`; `torch.nn` a loop of training without Keras.",
            "",
        ]
        first, *names = KERNELS
        lines += as_table(
            ["", "ours, ms", *names],
            [
                [
                    key.removeprefix("kernels "),
                    f"{milliseconds(found[first]):.2f} {busy(found[first])}",
                    *(
                        f"{ratio(found, name, first):.2f} {busy(found[name])}"
                        for name in names
                    ),
                ]
                for key, found in rows.items()
            ],
        )
    rows = {k: v["found"] for k, v in results.items() if k.startswith("own ")}
    if rows:
        lines += ["## Cells that bring no gradient of their step, `fit`", ""]
        lines += [
            "`keras_gated.RNN` over a cell of which only `step` is known, over ours",
            "with `layer_norm`, over Keras's cell, over a stack of two of these, and",
            "over a subclass of Keras's cell with a `call` of its own (on JAX and",
            "PyTorch Keras's loop runs for it); `keras.layers.RNN` over the same; and",
            "our layer with the gradient that is written by hand.",
            "",
        ]
        lines += as_table(
            ["", "RNN, ms", "keras.layers.RNN", "by hand"],
            of_users(rows, "own "),
        )
    rows = {k: v["found"] for k, v in results.items() if k.startswith("further ")}
    if rows:
        lines += ["## Further cells, 46 units, `fit`", ""]
        lines += [
            "`keras_gated.RNN` over a cell, and `keras.layers.RNN` over the same; ours",
            "step by step, too, where all steps are one linear recurrence.",
            "",
        ]
        lines += as_table(
            ["", "RNN, ms", "keras.layers.RNN", "RNN step by step"],
            of_users(rows, "further "),
        )
    rows = {k: v["found"] for k, v in results.items() if k.startswith("step ")}
    if rows:
        names = [name for name in STEP if name in next(iter(rows.values()))]
        lines += ["## One step, µs (music size, batch 1)", ""]
        lines += [
            "A call of `predict_on_batch` of a stateful model; a step of `generate`.",
            "",
        ]
        lines += as_table(
            ["", *names],
            [
                [key[5:], *(f"{milliseconds(found[n]) * 1e3:.0f}" for n in names)]
                for key, found in rows.items()
            ],
        )
    if "rest" in results:
        found = results["rest"]["found"]
        lines += ["## What else a step has (GRU, music size, as in the study)", ""]
        lines += as_table(
            ["up to", "ms"],
            [
                [name.partition(": ")[2], f"{milliseconds(of_one):.2f} {busy(of_one)}"]
                for name, of_one in found.items()
            ],
        )
    grown = {k: v for k, v in results.items() if k.startswith("growth")}
    if grown:
        names = [n for n in GROWTH if n in next(iter(grown.values()))["found"]]
        lines += ["## Growth with length (GRU of 46 units, batch 4, training step)", ""]
        lines += [
            "Milliseconds, and the peak of memory above what was held after a training",
            "step of 2,048 time steps, MiB.",
            "",
        ]
        lines += as_table(
            ["steps", *names],
            [
                [
                    key.split()[1],
                    *(
                        f"{milliseconds(row['found'][n]):.0f} ms, "
                        f"{row['peak_bytes'][n]['length'] / 2**20:.0f} MiB"
                        for n in names
                    ),
                ]
                for key, row in grown.items()
            ]
            + [
                [
                    "once, before",
                    *(
                        f"{row['peak_bytes'][n]['once'] / 2**20:.0f} MiB"
                        for row in [next(iter(grown.values()))]
                        for n in names
                    ),
                ]
            ],
        )
        plot(folder, grown, names)
        lines += ["![growth](growth.png)", ""]
    (folder / "results.md").write_text("\n".join(lines))


def of_users(rows: dict, prefix: str) -> list[list[str]]:
    """A line for each of the comparisons with the first of its contenders."""
    return [
        [
            key.removeprefix(prefix),
            f"{milliseconds(found[first]):.2f} {busy(found[first])}",
            *(
                f"{ratio(found, name, first):.2f} {busy(found[name])}"
                for name in others
            ),
            *[""] * (2 - len(others)),
        ]
        for key, found in rows.items()
        for first, *others in [list(found)]
    ]


def plot(folder: pathlib.Path, grown: dict, names: list[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lengths = [row["case"]["steps"] for row in grown.values()]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for name in names:
        style = "-" if "ours" in name else "--"
        micro = [
            milliseconds(row["found"][name]) / row["case"]["steps"] * 1e3
            for row in grown.values()
        ]
        mebi = [row["peak_bytes"][name]["length"] / 2**20 for row in grown.values()]
        axes[0].loglog(lengths, micro, style, marker="o", label=name)
        axes[1].plot(lengths, mebi, style, marker="o")
    axes[0].set(xlabel="time steps", ylabel="µs a time step")
    axes[1].set(xlabel="time steps", ylabel="peak memory, MiB")
    figure.legend(loc="outside lower center", ncols=4)
    figure.suptitle("A training step of a GRU, 46 units, batch 4")
    figure.savefig(folder / "growth.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {
        "table": table,
        "kernels": kernels,
        "own": own,
        "further": further,
        "step": step,
        "rest": rest,
        "growth": growth,
    }
    parser.add_argument("--parts", nargs="+", default=list(parts), choices=parts)
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--what", nargs="+", default=["train", "infer"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    parser.add_argument("--quick", action="store_true", help="to runs/bench")
    parser.add_argument(
        "--resume", action="store_true", help="keep what results.json holds already"
    )
    args = parser.parse_args()
    if OURS not in args.contenders:
        parser.error(f"the contenders are compared with {OURS!r}, which is not there")
    if args.quick:
        vars(args).update(QUICK, output=pathlib.Path("runs/bench"))
    results = {"about": about()}
    kept = args.output / "results.json"
    if args.resume and kept.exists():
        try:
            results = json.loads(kept.read_bytes())
        except ValueError as error:
            parser.error(f"{str(kept)!r} is damaged: {error}")
    for part in args.parts:
        parts[part](args, results)
    save(args.output, results)
    report(args.output, results)
    print((args.output / "results.md").read_text())


if __name__ == "__main__":
    main()
