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
REST = (
    "the layer and Dense",
    "metric",
    "rescaled gradients",
    "weight noise",
    "10 steps at once",
)
"""What a step of the study has, one added after another; see `rest_contender`."""
BY_HAND = {"tanh": 1, "lstm": 4, "gru": 3, "simplified_gru": 2}
"""The cells that `scan_contender` writes out, and their gates."""


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = case["batch"], case["steps"], case["inputs"]
    return tuple(random.normal(size=shape).astype("float32") for _ in range(2))


def keras_layer(case: Case, kind: str, **options: object) -> object:
    """The layer of a contender; `kind` says whose it is."""
    import keras

    import keras_gated

    cell, units = case["cell"], case["units"]
    options = {"return_sequences": True, **options}
    if kind.startswith("ours"):
        if kind == "ours, equations of torch.nn":
            options |= {"lstm": {"peephole": False}, "gru": {"reset_after": True}}.get(
                cell, {}
            )
        if kind == "ours, states again":
            options["recompute_states"] = True
        return keras_gated.LAYERS[cell](units, use_fast_loop=True, **options)
    if kind == "torch.nn in Keras":
        return torch_layer(case)
    if ", " in kind:
        over, of_cell = kind.split(", ")
        rnn = keras.layers.RNN if over == "keras.layers.RNN" else keras_gated.RNN
        if over == "RNN step by step":  # gradients pass through stretches, of all steps
            options["truncate_gradient"] = case["steps"]
        return rnn(cell_of_users(case, of_cell), **options)
    name = OF_KERAS[cell]
    if kind == "keras.layers":
        return getattr(keras.layers, name)(units, **options)
    of_cell = {"reset_after": False} if name == "GRU" else {}
    of_a_step = getattr(keras.layers, f"{name}Cell")(units, **of_cell)
    return keras.layers.RNN(of_a_step, **options)


def cell_of_users(case: Case, kind: str) -> object:
    """A cell that brings no gradient of its step, Keras's cell, or two of these."""
    import keras

    import keras_gated

    name, units = case["cell"], case["units"]
    if kind == "the same cell":
        more = {"projection_units": units // 2} if name == "projected_lstm" else {}
        return keras_gated.FURTHER_CELLS[name](units, **more)
    if kind == "a step alone":
        whole = keras_gated.CELLS[name]

        class StepAlone(whole(1).equations_class):
            def step(self, *arguments: object) -> object:
                return super().step(*arguments)

        class Cell(whole):
            equations_class = StepAlone

        return Cell(units)
    if kind == "layer norm":
        return keras_gated.CELLS[name](units, layer_norm=True)
    of_keras = getattr(keras.layers, f"{OF_KERAS[name]}Cell")
    if kind == "a call alone":

        class Called(of_keras):
            def call(self, *arguments: object, **options: object) -> object:
                return super().call(*arguments, **options)

        return Called(units)
    cells = [of_keras(units) for _ in range(2 if kind == "two of Keras's cells" else 1)]
    return cells if len(cells) > 1 else cells[0]


def keras_contender(
    case: Case, kind: str, jit_compile: bool | str
) -> dict[str, Callable]:
    """A layer and a `Dense` under `model.fit` and `model.predict`."""
    import keras

    x, y = data(case)
    model = keras.Sequential([keras.Input(x.shape[1:])])
    if kind != "no layer":
        model.add(keras_layer(case, kind))
    model.add(keras.layers.Dense(case["inputs"]))
    model.compile(keras.optimizers.RMSprop(1e-3), "mse", jit_compile=jit_compile)
    return trained(model, x, y)


def rest_contender(case: Case, name: str) -> dict[str, Callable]:
    """Ours, with what the study's trainings have beside the layer, one after another.

    `name` says up to what.
    """
    import keras

    from keras_gated import losses, metrics, optimizers

    x, y = data(case)
    y = (y > 1).astype("float32")
    level = REST.index(name)
    model = keras.Sequential([keras.Input((None, x.shape[-1]))])
    noise = {"weight_noise": 0.075} if level >= REST.index("weight noise") else {}
    model.add(keras_layer(case, "ours", **noise))
    model.add(keras.layers.Dense(case["inputs"]))
    norm = 1.0 if level >= REST.index("rescaled gradients") else None
    model.compile(
        optimizers.RMSprop(1e-3, global_clipnorm=norm),
        losses.BernoulliNLL(),
        weighted_metrics=[metrics.FrameNLL()] if level >= REST.index("metric") else [],
        steps_per_execution=10 if level >= REST.index("10 steps at once") else 1,
    )
    return trained(model, x, y, at_once=model.steps_per_execution)


def step_contender(case: Case, kind: str) -> dict[str, Callable]:
    """One step of a stateful model, as a stream needs it, or of `generate`."""
    import keras

    import keras_gated

    shape = (1, None, case["inputs"])
    stateful = kind != "generate"
    model = keras.Sequential([keras.Input(batch_shape=shape)])
    if kind != "no layer":
        layer = keras_layer(case, kind if stateful else "ours", stateful=stateful)
        model.add(layer)
    model.add(keras.layers.Dense(case["inputs"]))
    x = data({**case, "batch": 1, "steps": 1})[0]

    def call(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            model.predict_on_batch(x)
            seconds.append(time.perf_counter() - start)
        return seconds

    def generate(_: int) -> list[float]:
        primer = np.zeros((1, case["inputs"]), "float32")
        keras_gated.generation.generate(model, primer, 1000, seed=1)
        start = time.perf_counter()
        keras_gated.generation.generate(model, primer, 1000, seed=1)
        return [(time.perf_counter() - start) / 1000]

    return {"one": call if stateful else generate}


def trained(
    model: object, x: np.ndarray, y: np.ndarray, at_once: int = 1
) -> dict[str, Callable]:
    """What times the steps of `fit` and of `predict`, a batch each."""
    import keras

    class Clock(keras.callbacks.Callback):
        ends: list[float]

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.ends.append(time.perf_counter())

        def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.ends.append(time.perf_counter())

    clock = Clock()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        batches = {
            len(parts): tf.data.Dataset.from_tensors(parts).cache()
            for parts in ((x,), (x, y))
        }

    def run(method: Callable, parts: tuple, steps: int, **options: object) -> list:
        clock.ends = []
        # One more: the first waits for the data to begin.
        times = at_once * (steps + 1)
        options |= {"verbose": 0, "callbacks": [clock]}
        if BACKEND == "tensorflow":
            method(batches[len(parts)].repeat(times), **options)
        else:
            many = [np.concatenate([part] * times) for part in parts]
            if method == model.fit:
                options["shuffle"] = False
            method(*many, batch_size=len(x), **options)
        return list(np.diff(clock.ends) / at_once)

    def fit(steps: int) -> list[float]:
        return run(model.fit, (x, y), steps)

    def predict(steps: int) -> list[float]:
        return run(model.predict, (x,), steps)

    return {"train": fit, "infer": predict}


def torch_layer(case: Case) -> object:
    """PyTorch's own layer, as a layer of Keras."""
    import keras
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            of_torch = getattr(torch.nn, OF_TORCH[case["cell"]])
            self.layer = of_torch(case["inputs"], case["units"], batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    return keras.layers.TorchModuleWrapper(Outputs())


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
        "ours, equations of torch.nn": OF_TORCH,
        "torch.nn in Keras": OF_TORCH,
        "lax.scan": BY_HAND,
    }
    if kind in peers and case["cell"] not in peers[kind]:
        return None
    if case.get("part") == "rest":
        return rest_contender(case, name)
    if case.get("part") == "step":
        return step_contender(case, name)
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
            start, used = time.perf_counter(), time.process_time()
            seconds = ready[key][order["what"]](order["steps"])
            wall = time.perf_counter() - start
            cores = (time.process_time() - used) / wall
            answer = {"seconds": seconds, "cores": cores}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
