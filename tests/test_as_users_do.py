"""What people do with such layers, as they reported of this and of other packages.

Every case is a function named by what a user does. Keras's loop over the same cell, and
Keras's own optimizer and loss, say what is right.
"""

import functools
import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
from differentiate import gradients
from keras import ops
from oracles import array, some

import keras_gated
from keras_gated import GRU, LSTM, RNN, GaussianMixture, TanhRNN, generation, losses
from keras_gated.cells.tanh import TanhEquations
from keras_gated.metrics import EventNLL, FrameAccuracy, FrameF1, FrameNLL

BACKEND = keras.config.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
# On JAX everything is compiled, for seconds.
few = slice(0, None, 3 if BACKEND == "jax" else 1)


def sequences(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


X = sequences(2, 5, 3)


def pair(kind=GRU, units=4, **arguments):
    """A layer with the fast loop and one with Keras's, of the same weights."""
    layers = [kind(units, use_fast_loop=fast, **arguments) for fast in (True, False)]
    for layer in layers:
        layer.build(X.shape)
    layers[1].set_weights(layers[0].get_weights())
    return layers


def same(compute, *things, atol=1e-5):
    """What is computed of each thing is the same."""
    first, *others = [
        [array(ops.convert_to_tensor(t)) for t in keras.tree.flatten(compute(thing))]
        for thing in things
    ]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


# Masks.


def frames_model(masking, notes, *head):
    """A model of frames in which a mask comes from its first layers."""
    return keras.Sequential(
        [
            *masking,
            GRU(4, return_sequences=True),
            *(head or [keras.layers.Dense(notes)]),
        ]
    )


@pytest.mark.parametrize(
    ("source", "target"),
    some(itertools.product(["Masking", "Embedding"], ["events", "frames"])),
)
def test_evaluates_and_fits_metrics_under_keras_masks(source, target):
    """Each counts what a weight of every step would count, on every backend."""
    weights = np.array([[1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], "float32")
    random = np.random.default_rng(0)
    if source == "Masking":
        x = (random.integers(1, 3, (3, 6, 4)) * weights[..., None]).astype("float32")
        masking = [keras.Input((None, 4)), keras.layers.Masking()]
    else:
        x = random.integers(1, 9, (3, 6)) * weights
        masking = [keras.Input((None,)), keras.layers.Embedding(9, 3, mask_zero=True)]
    if target == "frames":
        y = random.integers(0, 2, (3, 6, 5)).astype("float32")
        model, loss = frames_model(masking, 5), losses.BernoulliNLL()
        makes = [FrameNLL, lambda: FrameNLL("sequence"), FrameAccuracy, FrameF1]
    else:
        y = random.normal(size=(3, 6, 2)).astype("float32")
        model = frames_model(masking, None, GaussianMixture(2, 2))
        loss = losses.GaussianMixtureNLL(2, 2)
        makes = [lambda: EventNLL(2, 2), lambda: EventNLL(2, 2, "sequence")]
    metrics = [make() for make in makes]
    others = [
        type(m).from_config({**m.get_config(), "name": f"w{m.name}"}) for m in metrics
    ]
    still = keras.optimizers.SGD(0.0)
    model.compile(still, loss, metrics=metrics, weighted_metrics=others)
    predictions, expected = array(model(x)), {}
    for make in makes:
        metric = make()
        metric.update_state(y, predictions, sample_weight=weights)
        expected[metric.name] = expected[f"w{metric.name}"] = float(metric.result())
    expected["loss"] = expected[makes[0]().name]
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert scores == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, y, batch_size=3, validation_data=(x, y), verbose=0).history
    for prefix in ["val_", ""] if BACKEND != "jax" else ["val_"]:
        # On JAX Keras loses masks between the loss and the metrics of a training step.
        scores = {name: history[prefix + name][0] for name in expected}
        assert scores == pytest.approx(expected, rel=1e-5)


MASKS = {
    "of every sequence": (4, 6),
    "one for all sequences": (1, 6),
    "with a last axis": (4, 6, 1),
    "one for all, with a last axis": (1, 6, 1),
    "of every unit": (4, 6, 2),
}


@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_passes_a_mask_of_any_shape_that_keras_takes(shape):
    mask = np.random.default_rng(1).random(shape) < 0.6
    both = pair(LSTM, 2, return_sequences=True, return_state=True)
    x = sequences(4, 6, 3)
    same(lambda layer: gradients(layer, [x], True, mask=mask), *both)
    same(lambda layer: layer(x, mask=mask.astype("int32")), *both)


@pytest.mark.parametrize(
    "shape", [(6, 4), (24,), (4, 5), (4, 1), (2, 6), (4, 6, 1, 1), (), (4,), (4, 7)]
)
def test_passes_a_mask_of_a_wrong_shape(shape):
    with pytest.raises(
        ValueError, match=r"`mask` must be boolean, of shape .*\(4, 6\)"
    ):
        GRU(2)(sequences(4, 6, 3), mask=np.ones(shape, bool))


@pytest.mark.parametrize("dtype", ["complex64", "str", "object", "datetime64[s]"])
def test_passes_a_mask_of_a_wrong_dtype(dtype):
    mask = np.ones((4, 6), int).astype(dtype)
    with pytest.raises(ValueError, match=r"`mask` must be boolean.*\(4, 6\).*dtype"):
        GRU(2)(sequences(4, 6, 3), mask=mask)
    with pytest.raises(ValueError, match=r"`mask` must be boolean"):
        GRU(2)(sequences(4, 6, 3), None, mask)


@on_tensorflow
def test_passes_a_mask_whose_wrong_shape_only_the_graph_sees():
    import tensorflow as tf

    layer = GRU(2)
    unknown = [tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None), tf.bool)]
    run = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=unknown)
    x, mask = sequences(4, 6, 3), np.ones((4, 6), bool)
    np.testing.assert_allclose(run(x, mask), layer(x, mask=mask), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(x, mask.T)


def test_starts_from_one_state_for_all_sequences():
    both = pair(return_sequences=True)
    start = sequences(1, 4)
    same(
        lambda layer: layer(X, initial_state=np.repeat(start, 2, 0)),
        *both,
    )
    same(lambda state: both[0](X, initial_state=state), start, np.repeat(start, 2, 0))
    with pytest.raises(ValueError, match="`initial_state` must have the batch"):
        both[0](X, initial_state=sequences(3, 4))


# What is changed after construction.

CHANGES = {
    "activation": keras.activations.relu,
    "recurrent_activation": keras.activations.hard_sigmoid,
    "a gradient that is automatic": ("activation", keras.activations.gelu),
    "use_bias": False,
    "dropout": 0.4,
    "recurrent_dropout": 0.4,
    "weight_noise": 0.3,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_a_cell_that_has_run(change, tmp_path):
    """The layer computes what its configuration says, and so does a file of it."""
    automatic = change == "a gradient that is automatic"
    name, value = CHANGES[change] if automatic else (change, CHANGES[change])
    layers = [GRU(4, use_fast_loop=fast, seed=1) for fast in ("auto", False)]
    for layer in layers:
        layer(X)
    weights = [sequences(*w.shape, seed=3) for w in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    before = array(layers[0](X, training=True))
    for layer in layers:
        setattr(layer.cell, name, value)
    assert layers[0].loop.startswith("fast: ")
    assert ("is automatic" in layers[0].loop) == automatic

    def run(layer):
        keras.utils.set_random_seed(3)
        layer.cell.seed_generator.state.assign(np.array([1, 2]))
        return layer(X, training=True)

    same(run, *layers)
    assert np.abs(array(layers[0](X, training=True)) - before).max() > 1e-3
    if name != "use_bias":  # whose weights a loaded layer would not have
        model = keras.Sequential([keras.Input((None, 3)), layers[0]])
        model.save(tmp_path / "model.keras")
        same(lambda m: m(X), model, keras.saving.load_model(tmp_path / "model.keras"))


def test_changes_a_layer_that_has_run():
    layer, twin = pair(return_sequences=True, units=3)
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 1]], bool)
    layer(X, mask=mask)
    for name in ("go_backwards", "zero_output_for_mask", "return_state"):
        setattr(layer, name, True)
        setattr(twin, name, True)
        same(lambda layer: layer(X, mask=mask), layer, twin)
    layer.unroll = True
    with pytest.raises(ValueError, match="does not apply: unroll=True"):
        layer(X)  # use_fast_loop=True


class LeakyEquations(TanhEquations):
    """A user's equations: a step and a gradient with an argument of their own."""

    leak: float

    def step(self, x, states, recurrent):
        (h,), gates = super().step(x, states, recurrent)
        return [self.leak * h], gates

    def step_vjp(self, d_new, partials, recurrent):
        (d_h,) = d_new
        return super().step_vjp([self.leak * d_h], partials, recurrent)


class Leaky(keras_gated.TanhCell):
    equations_class = LeakyEquations

    def __init__(self, units, leak=0.5, **kwargs):
        super().__init__(units, **kwargs)
        self.leak = leak

    def get_config(self):
        return {**super().get_config(), "leak": self.leak}


def test_changes_an_argument_of_their_own_cell():
    both = [RNN(Leaky(4), use_fast_loop=fast) for fast in (True, False)]
    for layer in both:
        layer.build(X.shape)
    both[1].set_weights(both[0].get_weights())
    for leak in (0.5, 0.9):
        for layer in both:
            layer.cell.leak = leak
        same(lambda layer: gradients(layer, [X], True), *both)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", 3),
        ("activation", "tangent"),
        ("recurrent_activation", [1]),
        ("dropout", 1.5),
        ("recurrent_dropout", "a"),
        ("weight_noise", -1.0),
    ],
)
def test_changes_an_argument_to_what_is_none(name, value):
    cell = keras_gated.GRUCell(3)
    before = getattr(cell, name)
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        setattr(cell, name, value)
    assert getattr(cell, name) == before
    cell.activation = None
    assert cell.activation is keras.activations.linear


# Generation.


def counter(**arguments):
    """Counts the frames that are not silent: on to 30 of them, off to 35, then on."""
    count = TanhRNN(
        1,
        activation="relu",
        return_sequences=True,
        kernel_initializer="zeros",
        recurrent_initializer="ones",
        bias_initializer="ones",
        **arguments,
    )
    beyond = keras.layers.Dense(2, activation="relu")
    bias = keras.initializers.Constant(-2.5)
    head = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer=bias)
    layers = [keras.Input((None, 1)), keras.layers.Masking(), count, beyond, head]
    model = keras.Sequential(layers)
    beyond.set_weights([np.array([[1.0, -1.0]]), np.array([-33.0, 33.0])])
    return model


@pytest.mark.parametrize("zero_output_for_mask", [True, False][few])
@pytest.mark.parametrize("silent", [3, 0][few], ids=["from silence", ""][few])
def test_generates_with_a_model_that_masks_silence(zero_output_for_mask, silent):
    model = counter(zero_output_for_mask=zero_output_for_mask)
    primer = np.ones((24, 1), "float32")
    primer[:silent] = primer[9 : 9 + silent] = 0
    new = generation.generate(model, primer, 20, temperature=0)
    whole = np.concatenate([primer, new])
    logits = array(model(whole[None]))[0, 23:-1]
    np.testing.assert_array_equal(new, logits > 0)
    assert 0 < new.mean() < 1


def test_generates_again_after_training_and_after_changes():
    """What was compiled for the first call serves, but nothing old is heard."""
    options = {"layer_norm": True, "zoneout": 0.2, "learn_initial_state": True}
    layer = GRU(6, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((None, 5)), layer, keras.layers.Dense(5)])
    random = np.random.default_rng(0)
    primer = random.integers(0, 2, (7, 5))

    def fed_back():
        frames = np.zeros((1, 15, 5), "float32")
        frames[0, :7] = primer
        for t in range(7, 15):
            frames[0, t] = array(model(frames))[0, t - 1] > 0
        return frames[0, 7:]

    heard = []
    for change in ("new weights", "new weights", "activation", "none"):
        if change == "activation":
            model.layers[0].cell.activation = keras.activations.relu
        elif change == "new weights":
            model.set_weights([2 * random.normal(size=w.shape) for w in model.weights])
        heard.append(generation.generate(model, primer, 8, temperature=0))
        np.testing.assert_array_equal(heard[-1], fed_back())
    assert len({h.tobytes() for h in heard}) == 3


class Scaled(keras.layers.Layer):
    """A user's layer that cannot tell its configuration."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x):
        return x * ops.convert_to_tensor(self.scale)


def test_generates_with_a_layer_that_has_no_configuration():
    scaled = Scaled(np.float32([5.0]))
    with pytest.raises(NotImplementedError):
        scaled.get_config()
    layers = [keras.layers.Dense(5, use_bias=False), scaled]
    model = keras.Sequential([keras.Input((None, 5)), *layers])
    model.set_weights([np.eye(5)])
    primer = np.eye(5)
    for sign in (1, -1):
        scaled.scale = np.float32([5.0 * sign])
        new = generation.generate(model, primer, 1, temperature=0)
        np.testing.assert_array_equal(new[0], primer[-1] * sign > 0)


def test_lets_a_model_go_after_generating():
    model = keras.Sequential([keras.Input((None, 5)), keras.layers.Dense(5)])
    generation.generate(model, np.ones((2, 5)), 3)
    gone = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("batch", some([4, 1]))
def test_generates_with_a_stateful_model_of_another_batch(batch):
    layers = [GRU(3, return_sequences=True, stateful=True), keras.layers.Dense(5)]
    model = keras.Sequential([keras.Input(batch_shape=(batch, None, 5)), *layers])
    for primers in (1, 2, 5):
        new = generation.generate(model, np.ones((primers, 4, 5)), 3)
        assert new.shape == (primers, 3, 5)


def test_generates_with_models_that_are_written_in_other_ways():
    frames = keras.Input((None, 5))
    logits = keras.layers.Dense(5)(GRU(3, return_sequences=True)(frames))
    primer = np.ones((4, 5))
    expected = None
    for model in (
        keras.Model(frames, logits),
        keras.Model([frames], logits),
        keras.Model(frames, [logits]),
        keras.Model([frames], {"logits": logits}),
    ):
        new = generation.generate(model, primer, 9, seed=2)
        expected = new if expected is None else expected
        np.testing.assert_array_equal(new, expected)


def test_generates_with_models_that_cannot():
    """Each is refused for the reason that is true of it."""
    frames, primer = keras.Input((None, 4)), np.ones((3, 4))
    first = keras.layers.Dense(4)(frames[:, 0])
    layer = GRU(4, return_sequences=True)
    for outputs, reason in (
        (layer(frames, initial_state=first), "`initial_state` for the layer 'gru"),
        (layer(layer(frames)), "one recurrent layer in several places"),
        ([layer(frames), layer(frames)], "must have one output"),
    ):
        with pytest.raises(ValueError, match=reason):
            generation.generate(keras.Model(frames, outputs), primer, 5)
    with pytest.raises(ValueError, match=r"not built.*keras.Input\(\(None, size\)\)"):
        generation.generate(keras.Sequential([layer]), primer, 5)


# Optimizers and losses.

COMBINATIONS = [
    {"gradient_accumulation_steps": 3},
    {},
    {"loss_scale_factor": 16.0, "momentum": 0.9},
    {"gradient_accumulation_steps": 2, "loss_scale_factor": 4.0, "centered": True},
    {"weight_decay": 0.01, "use_ema": True, "ema_overwrite_frequency": 2},
    {"clipnorm": 0.5, "global_clipnorm": None},
    {"clipvalue": 0.5, "global_clipnorm": None, "gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("arguments", COMBINATIONS[few], ids=str)
@pytest.mark.parametrize("scale", [10.0, 0.01][few])
def test_clips_with_every_other_argument(arguments, scale):
    def weights(optimizer):
        random = np.random.default_rng(0)
        variables = [
            keras.Variable(np.ones(shape, "float32")) for shape in [(3, 4), (4,), ()]
        ]
        optimizer = optimizer(0.01, **{"global_clipnorm": 1.0, **arguments})
        scaled = scale * arguments.get("loss_scale_factor", 1)
        for _ in range(4):
            values = [scaled * random.normal(size=v.shape) for v in variables]
            optimizer.apply(
                [ops.convert_to_tensor(v, "float32") for v in values], variables
            )
        return variables

    same(weights, keras_gated.optimizers.RMSprop, keras.optimizers.RMSprop)


def test_clips_nothing_that_is_there():
    optimizer = keras_gated.optimizers.RMSprop(global_clipnorm=1.0)
    optimizer.apply([], [])
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        optimizer.apply([None], [keras.Variable(np.zeros(2))])
    optimizer = keras_gated.optimizers.RMSprop(global_clipnorm=1.0)
    optimizer.apply([np.zeros((0,), "float32")], [keras.Variable(np.zeros((0,)))])


@pytest.mark.parametrize("norm", [0, -1.0, np.nan, np.inf, "1", True])
def test_clips_to_what_is_no_norm(norm):
    with pytest.raises(ValueError, match="`global_clipnorm` must be a finite number"):
        keras_gated.optimizers.RMSprop(global_clipnorm=norm)
    optimizer = keras_gated.optimizers.RMSprop()
    with pytest.raises(ValueError, match="global_clipnorm="):
        optimizer.global_clipnorm = norm


@pytest.mark.parametrize("shape", [(3, 1), (3,), (3, 6), (3, 6, 1)])
def test_weighs_sequences_in_a_loss(shape):
    weights = np.array([1.0, 0.0, 2.0], "float32").reshape(3, *[1] * (len(shape) - 1))
    weights = np.broadcast_to(weights, shape)
    y, logits = np.ones((3, 6, 4), "float32"), sequences(3, 6, 4)
    steps = array(losses.BernoulliNLL(reduction=None)(y, logits))
    expected = (steps[0].mean() + 2 * steps[2].mean()) / 3
    loss = losses.BernoulliNLL()(y, logits, sample_weight=weights)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


# Arguments and attributes of Keras's layers.


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_names_the_input_shape_in_the_first_layer():
    model = keras.Sequential([GRU(4, input_shape=(None, 3)), keras.layers.Dense(1)])
    assert model.built
    assert model.count_params() == 3 * 4 * (3 + 4 + 1) + 5
    assert model.input_shape == (None, None, 3)


TWINS = {
    GRU: keras.layers.GRU,
    LSTM: keras.layers.LSTM,
    TanhRNN: keras.layers.SimpleRNN,
}


@pytest.mark.parametrize("kind", TWINS, ids=lambda kind: kind.__name__)
def test_reads_the_attributes_of_keras_layers(kind):
    ours, theirs = kind(4), TWINS[kind](4)
    unset = ("input", "output")  # before a call Keras's raise, too
    names = [n for n in dir(theirs) if not n.startswith("_") and n not in unset]
    assert [name for name in names if not hasattr(ours, name)] == []
    for name in ("kernel_initializer", "recurrent_initializer", "bias_initializer"):
        assert type(getattr(ours, name)) is type(getattr(theirs, name))


# Functional transforms, control flow, debugging, export.


def shares(layer):
    """The gradients of all weights and of the input, by the functions of TensorFlow."""
    import tensorflow as tf

    def run(function, jit_compile=False):
        @tf.function(jit_compile=jit_compile)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            weights = [w.value for w in layer.trainable_variables]
            return y, *tape.gradient(y, [x, *weights])

        return run(tf.constant(X))

    return run


def in_cond(f, tf):
    return lambda x: tf.cond(tf.reduce_sum(x) < 1e9, lambda: f(x), lambda: 0.0)


def in_loop_with_a_condition(f, tf):
    def body(i, total):
        return i + 1, total + in_cond(f, tf)(x_of(i))

    def x_of(i):
        return tf.cast(i + 1, "float32") * tf.constant(X)

    return lambda x: (
        tf.while_loop(lambda i, _: i < 2, body, (0, 0.0))[1] + 0 * tf.reduce_sum(x)
    )


def in_switch(f, tf):
    def choose(x):
        which = tf.cast(tf.reduce_sum(x) < 1e9, "int32")
        return tf.switch_case(which, [lambda: 0.0, lambda: f(x)])

    return choose


def in_map(f, tf):
    return lambda x: tf.reduce_sum(tf.map_fn(lambda row: f(row[None]), x))


CONTROL = {
    "tf.cond": in_cond,
    "keras.ops.cond": lambda f, tf: (
        lambda x: ops.cond(tf.reduce_sum(x) < 1e9, lambda: f(x), lambda: 0.0)
    ),
    "tf.cond in tf.cond": lambda f, tf: in_cond(in_cond(f, tf), tf),
    "tf.switch_case": in_switch,
    "tf.while_loop with a condition": in_loop_with_a_condition,
    "tf.map_fn": in_map,
    "tf.recompute_grad": lambda f, tf: tf.recompute_grad(f),
}
if hasattr(keras, "remat"):  # since Keras 3.9
    CONTROL["keras.remat"] = lambda f, tf: keras.remat(f)


@on_tensorflow
@pytest.mark.parametrize(
    ("control", "training"),
    some([*((x, True) for x in CONTROL), ("tf.cond", False), ("tf.map_fn", False)], 0),
)
def test_trains_through_control_flow(control, training):
    import tensorflow as tf

    def compute(layer):
        def value(x):
            return tf.reduce_sum(layer(x, training=training) ** 2)

        return shares(layer)(CONTROL[control](value, tf))

    same(compute, *pair(LSTM))


@on_tensorflow
def test_takes_one_state_out_of_many():
    """The gradient of `tf.gather` is sparse."""
    import tensorflow as tf

    def compute(layer):
        def value(x):
            outputs, state = layer(x, training=True)
            return tf.reduce_sum(tf.gather(outputs, [1])) + tf.reduce_sum(state**2)

        return shares(layer)(value)

    same(compute, *pair(return_state=True))


@on_tensorflow
def test_compiles_a_slice_of_a_size_unknown_before():
    """XLA runs the loop over the rows that there are, whatever is around it."""
    import tensorflow as tf

    def compute(layer):
        def body(i, total):
            rows = tf.constant(X)[: i + 1]
            return i + 1, total + tf.reduce_sum(layer(rows, training=True) ** 2)

        def value():
            return tf.while_loop(
                lambda i, _: i < 2, body, (0, 0.0), maximum_iterations=2
            )[1]

        return tf.function(value, jit_compile=True)()

    same(compute, *pair())


@on_tensorflow
def test_takes_per_example_gradients_by_vectorized_map():
    import tensorflow as tf

    layer, twin = pair()

    def of_one(layer, row):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(row[None], training=True) ** 2)
        return tape.gradient(y, [w.value for w in layer.trainable_variables])

    mapped = tf.vectorized_map(functools.partial(of_one, layer), tf.constant(X))
    rows = [of_one(twin, row) for row in tf.constant(X)]
    same(
        lambda got: got,
        mapped,
        [tf.stack(of_all) for of_all in zip(*rows, strict=True)],
    )

    def around(x):
        return tf.reduce_sum(tf.vectorized_map(lambda row: layer(row[None]), x) ** 2)

    # TensorFlow loses the loop's gradient there.
    with pytest.raises(Exception, match="within the function that is mapped"):
        shares(layer)(around)


@on_tensorflow
def test_debugs_with_check_numerics():
    import tensorflow as tf

    def fit(layer):
        model = keras.Sequential([keras.Input((5, 3)), layer, keras.layers.Dense(1)])
        model.layers[-1].set_weights([np.ones((4, 1)), np.zeros(1)])
        model.compile("sgd", "mse")
        model.fit(X, np.ones((2, 1)), verbose=0)
        return model.get_weights()

    tf.debugging.enable_check_numerics()
    try:
        same(fit, *pair())
    finally:
        tf.debugging.disable_check_numerics()


@on_tensorflow
def test_knows_shapes_after_a_layer_that_ran_over_unknown_ones():
    import tensorflow as tf

    layer = GRU(4, return_sequences=True)

    def run(x):
        return layer(x, training=True)

    tf.function(run, input_signature=[tf.TensorSpec((None, None, 3))])(X)
    known = tf.function(run, input_signature=[tf.TensorSpec((2, 5, 3))])
    assert known.get_concrete_function().outputs[0].shape == (2, 5, 4)


@on_tensorflow
@pytest.mark.filterwarnings("ignore")
def test_takes_the_gradient_of_a_saved_model(tmp_path):
    """TensorFlow warns that it will likely fail, when it loads one; it does not."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((None, 3)), GRU(4)])
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")

    def gradient(call):
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(call(x) ** 2)
        return tape.gradient(y, x)

    same(gradient, loaded.serve, model)


@on_jax
def test_transforms_with_jax():
    import jax

    layer, twin = pair()

    def total(layer):
        return lambda x: (layer(x, training=True) ** 2).sum()

    for transform in (
        jax.jacrev,
        lambda f: jax.grad(jax.checkpoint(f)),
        lambda f: jax.jacrev(jax.jacrev(f)),
        lambda f: jax.vmap(jax.grad(lambda row: f(row[None]))),
        lambda f: jax.grad(
            lambda x: jax.lax.cond(x.sum() < 1e9, f, lambda x: 0 * f(x), x)
        ),
        lambda f: jax.grad(lambda x: jax.lax.map(lambda row: f(row[None]), x).sum()),
        lambda f: jax.grad(keras.remat(f)),
    ):
        same(lambda layer, t=transform: jax.jit(t(total(layer)))(X), layer, twin)
    for forward in (jax.jacfwd(layer), jax.jit(jax.jacfwd(layer))):
        with pytest.raises(NotImplementedError, match="use_fast_loop=False"):
            forward(X)
    assert jax.jacfwd(twin)(X).shape == (2, 4, 2, 5, 3)


@on_torch
@pytest.mark.filterwarnings("ignore")
def test_transforms_with_torch():
    import torch
    from torch import func
    from torch.autograd import forward_ad

    mask = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 0, 1]], dtype=torch.bool)
    x = torch.tensor(X)

    def dual(f):
        def tangent(x):
            with forward_ad.dual_level():
                y = f(forward_ad.make_dual(x, torch.ones_like(x)))
                return forward_ad.unpack_dual(y).tangent

        return tangent

    for transform in (
        func.grad,
        func.jacrev,
        func.jacfwd,
        func.hessian,
        lambda f: lambda x: func.jvp(f, (x,), (x,)),
        lambda f: func.jacrev(func.jacrev(f)),
        dual,
    ):
        for kind in (GRU, LSTM):
            same(
                lambda layer, t=transform: t(
                    lambda x: (layer(x, mask=mask) ** 2).sum()
                )(x),
                *pair(kind),
            )

    def of_one(layer):
        return lambda row: (layer(row[None]) ** 2).sum()

    same(lambda layer: func.vmap(func.grad(of_one(layer)))(x), *pair())

    def by_weight(layer, **arguments):
        names = {n: p for n, p in layer.named_parameters() if p.is_floating_point()}

        def f(weights):
            return func.functional_call(layer, weights, (x,), arguments).sum()

        return func.grad(f)(names)

    same(by_weight, *pair())
    # Keras's generators of random numbers are not for torch.func.
    noisy = [
        GRU(4, recurrent_dropout=0.5, weight_noise=0.1, seed=1, use_fast_loop=fast)
        for fast in (True, False)
    ]
    for layer in noisy:
        layer.build(X.shape)
    noisy[1].set_weights(noisy[0].get_weights())

    def noisy_tangent(layer):
        keras.utils.set_random_seed(2)
        return dual(lambda x: layer(x, training=True))(x)

    same(noisy_tangent, *noisy)


@on_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [False, True])
def test_exports_and_compiles_with_torch(training, tmp_path):
    import torch

    x = torch.tensor(X)
    for layer in (GRU(4), GRU(4, reset_after=True), LSTM(4)):
        layers = [layer, keras.layers.Reshape((1, 4)), GaussianMixture(2, 3)]
        model = keras.Sequential([keras.Input((5, 3)), *layers])
        expected = model(x)
        with torch.set_grad_enabled(training):
            exported = torch.export.export(model, (x,), strict=False).module()
            traced = torch.jit.trace(model, (x,))
        torch.jit.save(traced, tmp_path / "model.pt")
        loaded = torch.jit.load(tmp_path / "model.pt")
        same(lambda f: f(x), lambda x, y=expected: y, exported, traced, loaded)
    compiled = torch.compile(GRU(4), backend="eager")
    assert compiled(x).shape == (2, 4)
