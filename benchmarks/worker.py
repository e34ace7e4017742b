"""A process that times the contenders of one backend, one order a line.

`bench.py` starts one for each backend and makes them take turns, so that all are
measured in one run, a little of each at a time, with the others asleep.
"""

import json
import os
import sys
import time
from collections.abc import Callable

BACKEND = sys.argv[1]
os.environ["KERAS_BACKEND"] = BACKEND
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402  (it reads those, too)

Case = dict
"""`cell`, `units`, `batch`, `steps`, `inputs`."""

# Of the simplified GRU the nearest in Keras is the full GRU.
OF_KERAS = {"tanh": "SimpleRNN", "lstm": "LSTM", "gru": "GRU", "simplified_gru": "GRU"}
OF_TORCH = {"tanh": "RNN", "lstm": "LSTM", "gru": "GRU"}
BY_HAND = {"tanh": 1, "lstm": 4, "gru": 3, "simplified_gru": 2}
"""The cells that `scan_contender` writes out, and their gates."""


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = case["batch"], case["steps"], case["inputs"]
    return tuple(random.normal(size=shape).astype("float32") for _ in range(2))


def keras_contender(
    case: Case, kind: str, jit_compile: bool | str
) -> dict[str, Callable]:
    """A layer and a `Dense` under `model.fit`; `kind` says whose layer."""
    import keras

    import keras_gated

    def layer() -> keras.layers.Layer:
        cell, units = case["cell"], case["units"]
        if kind == "ours":
            layer_class = keras_gated.LAYERS[cell]
            return layer_class(units, use_fast_loop=True, return_sequences=True)
        name = OF_KERAS[cell]
        if kind == "keras.layers":
            return getattr(keras.layers, name)(units, return_sequences=True)
        options = {"reset_after": False} if name == "GRU" else {}
        of_a_step = getattr(keras.layers, f"{name}Cell")(units, **options)
        return keras.layers.RNN(of_a_step, return_sequences=True)

    x, y = data(case)
    model = keras.Sequential([keras.Input(x.shape[1:])])
    if kind != "no layer":
        model.add(layer())
    model.add(keras.layers.Dense(case["inputs"]))
    optimizer = keras.optimizers.RMSprop(1e-3)
    model.compile(optimizer, "mse", jit_compile=jit_compile)

    class Clock(keras.callbacks.Callback):
        ends: list[float]

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.ends.append(time.perf_counter())

    if BACKEND == "tensorflow":
        import tensorflow as tf

        batches = tf.data.Dataset.from_tensors((x, y)).cache()
    clock = Clock()

    def train(steps: int) -> list[float]:
        clock.ends = []
        if BACKEND == "tensorflow":
            # One step more: the first waits for the data set to begin.
            model.fit(batches.repeat(steps + 1), verbose=0, callbacks=[clock])
        else:
            many = [np.concatenate([part] * (steps + 1)) for part in (x, y)]
            model.fit(
                *many,
                batch_size=len(x),
                shuffle=False,
                verbose=0,
                callbacks=[clock],
            )
        return list(np.diff(clock.ends))

    def infer(steps: int) -> list[float]:
        def once() -> float:
            start = time.perf_counter()
            model.predict_on_batch(x)
            return time.perf_counter() - start

        return [once() for _ in range(steps)]

    return {"train": train, "infer": infer}


def torch_contender(case: Case) -> dict[str, Callable]:
    """PyTorch's own layer, with the same `Dense`, loss and optimizer."""
    import torch

    x, y = map(torch.tensor, data(case))
    layer = getattr(torch.nn, OF_TORCH[case["cell"]])(
        case["inputs"], case["units"], batch_first=True
    )
    dense = torch.nn.Linear(case["units"], case["inputs"])
    parameters = [*layer.parameters(), *dense.parameters()]
    optimizer = torch.optim.RMSprop(parameters, 1e-3)

    def train_once() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(dense(layer(x)[0]), y)
        loss.backward()
        optimizer.step()
        loss.item()
        return time.perf_counter() - start

    def infer_once() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            dense(layer(x)[0]).numpy()
        return time.perf_counter() - start

    return {
        "train": lambda steps: [train_once() for _ in range(steps)],
        "infer": lambda steps: [infer_once() for _ in range(steps)],
    }


def scan_contender(case: Case) -> dict[str, Callable]:
    """What one writes by hand in JAX: `lax.scan`, compiled whole."""
    import jax
    from jax import numpy as jnp

    units, inputs = case["units"], case["inputs"]
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

    def step(U: jax.Array, carry: tuple, x: jax.Array) -> tuple:
        h, c = carry
        if case["cell"] == "tanh":
            h = tanh(x + h @ U)
        elif case["cell"] == "lstm":
            i, f, g, o = jnp.split(x + h @ U, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
        elif case["cell"] == "gru":
            x_zr, x_h = jnp.split(x, [2 * units], axis=-1)
            z, r = jnp.split(sigmoid(x_zr + h @ U[:, : 2 * units]), 2, axis=-1)
            h = (1 - z) * h + z * tanh(x_h + (r * h) @ U[:, 2 * units :])
        elif case["cell"] == "simplified_gru":
            z, g = jnp.split(x + h @ U, 2, axis=-1)
            h = (1 - sigmoid(z)) * h + sigmoid(z) * tanh(g)
        return (h, c), h

    gates = BY_HAND[case["cell"]]
    random = np.random.default_rng(0)
    shapes = [(inputs, gates * units), (units, gates * units), (gates * units,)]
    shapes += [(units, inputs), (inputs,)]
    weights = [jnp.asarray(0.1 * random.normal(size=s), "float32") for s in shapes]
    squares = [jnp.zeros(s, "float32") for s in shapes]
    x, y = map(jnp.asarray, data(case))

    def model(weights: list, x: jax.Array) -> jax.Array:
        W, U, b, V, d = weights
        projected = jnp.swapaxes(x, 0, 1) @ W + b
        zeros = jnp.zeros((len(x), units))
        _, h = jax.lax.scan(lambda c, x: step(U, c, x), (zeros, zeros), projected)
        return jnp.swapaxes(h, 0, 1) @ V + d

    @jax.jit
    def update(weights: list, squares: list) -> tuple:
        def loss(weights: list) -> jax.Array:
            return jnp.mean((model(weights, x) - y) ** 2)

        value, gradients = jax.value_and_grad(loss)(weights)
        pairs = zip(squares, gradients, strict=True)
        squares = [0.9 * s + 0.1 * g * g for s, g in pairs]
        triples = zip(weights, gradients, squares, strict=True)
        weights = [w - 1e-3 * g / jnp.sqrt(s + 1e-7) for w, g, s in triples]
        return value, weights, squares

    predict = jax.jit(model)
    state = [weights, squares]

    def train_once() -> float:
        start = time.perf_counter()
        value, *state[:] = update(*state)
        float(value)
        return time.perf_counter() - start

    def infer_once() -> float:
        start = time.perf_counter()
        np.asarray(predict(state[0], x))
        return time.perf_counter() - start

    return {
        "train": lambda steps: [train_once() for _ in range(steps)],
        "infer": lambda steps: [infer_once() for _ in range(steps)],
    }


def products_contender(case: Case) -> dict[str, Callable]:
    """The limit: the matrix products of the same step alone, through NumPy's BLAS."""
    import keras_gated

    equations = keras_gated.CELLS[case["cell"]](1).equations
    batch, steps, inputs, units = (
        case[name] for name in ("batch", "steps", "inputs", "units")
    )
    rows, columns = batch * steps, len(equations.gates) * units
    # In a GRU with the reset gate before it, the candidate's product waits.
    splits = [len(gates) * units for gates in equations.products]

    def random(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=shape).astype("float32")

    X, W, A, H, V, Y = (
        random(rows, inputs),
        random(inputs, columns),
        random(rows, columns),
        random(rows, units),
        random(units, inputs),
        random(rows, inputs),
    )
    h = random(batch, units)
    small = [(random(units, n), random(batch, n)) for n in splits]
    back = [np.ascontiguousarray(U.T) for U, _ in small]
    buffer = {n: np.empty((batch, n), "float32") for n in {*splits, units}}

    def forward() -> None:
        X @ W
        for _ in range(steps):
            for (U, _), n in zip(small, splits, strict=True):
                np.matmul(h, U, out=buffer[n])
        H @ V

    def train_once() -> float:
        start = time.perf_counter()
        forward()
        Y @ V.T
        H.T @ Y
        for _ in range(steps):
            for U_t, (_, d) in zip(back, small, strict=True):
                np.matmul(d, U_t, out=buffer[units])
        H.T @ A
        X.T @ A
        return time.perf_counter() - start

    def infer_once() -> float:
        start = time.perf_counter()
        forward()
        return time.perf_counter() - start

    return {
        "train": lambda steps: [train_once() for _ in range(steps)],
        "infer": lambda steps: [infer_once() for _ in range(steps)],
    }


def contender(case: Case, name: str) -> dict[str, Callable] | None:
    """What trains and infers so many steps; `None` where a peer has no such cell."""
    kind, _, xla = name.partition(" + ")
    peers = {
        "keras.layers": OF_KERAS,
        "keras.layers.RNN": OF_KERAS,
        "torch.nn": OF_TORCH,
        "lax.scan": BY_HAND,
    }
    if kind in peers and case["cell"] not in peers[kind]:
        return None
    if name == "torch.nn":
        return torch_contender(case)
    if name == "lax.scan":
        return scan_contender(case)
    if name == "products":
        return products_contender(case)
    return keras_contender(case, kind, jit_compile=True if xla == "XLA" else "auto")


def memory(of: str) -> int:
    """In bytes: `VmRSS`, what is held now, or `VmHWM`, the most held so far."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(of + ":"))
    return int(line.split()[1]) * 1024


def main() -> None:
    # Libraries print where they like; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ready = {}
    for line in sys.stdin:
        order = json.loads(line)
        key = json.dumps([order.get("case"), order.get("name")])
        if order["do"] == "prepare":
            ready[key] = contender(order["case"], order["name"])
            if ready[key] is None:
                print(json.dumps(None), file=answers, flush=True)
                continue
            with open("/proc/self/clear_refs", "w") as forget:
                forget.write("5")  # the peak so far
            start, held = time.perf_counter(), memory("VmRSS")
            ready[key][order["what"]](1)
            seconds = time.perf_counter() - start
            answer = {"seconds": seconds, "bytes": memory("VmHWM") - held}
        elif order["do"] == "time":
            answer = ready[key][order["what"]](order["steps"])
        elif order["do"] == "forget":
            ready.clear()
            answer = None
        elif order["do"] == "peak":
            a = np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32")
            seconds = []
            for _ in range(8):
                start = time.perf_counter()
                a @ a
                seconds.append(time.perf_counter() - start)
            answer = 2 * 2048**3 / min(seconds)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
