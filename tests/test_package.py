"""The package as a whole: what it exports, and what a run claims to have tested."""

import ast
import inspect
import operator
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import pytest

import keras_gated


def public_objects():
    modules = [keras_gated] + [
        getattr(keras_gated, name)
        for name in keras_gated.__all__
        if inspect.ismodule(getattr(keras_gated, name))
    ]
    modules += [getattr(keras_gated.datasets, n) for n in keras_gated.datasets.__all__]
    for module in modules:
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith("keras_gated")
            if own and not name.startswith("_") and callable(value):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


PUBLIC = {
    "": """CELLS DelayLine Equations FURTHER_CELLS GRU GRUCell GatedCell GatedEquations
        GaussianMixture IndRNN IndRNNCell LAYERS LSTM LSTMCell LinearEquations MinGRU
        MinGRUCell MinLSTM MinLSTMCell NADE ProjectedLSTM ProjectedLSTMCell RNN
        Recurrence RecurrentCell RollEncoding SLSTM SLSTMCell SimplifiedGRU
        SimplifiedGRUCell TanhCell TanhRNN callbacks cells datasets distribution
        exporting from_addons from_keras from_torch generation inspection
        layer_by_units layers losses match_units metrics optimizers pictures to_keras
        to_onnx""",
    "callbacks": """BackupAndRestore BackupError BestModel EpochProgress GateMonitor
        PianoRollImage SoundSummary TensorBoard TerminateOnNaN""",
    "datasets": """audio audio_dataset_from_directory audio_records bach_chorales fsdd
        jsb_chorales midi midi_dataset_from_directory midi_directory midi_records
        muse_data nottingham piano_midi piano_roll resumable synthesized""",
    "datasets.audio": """AudioError Recordings Standardization
        audio_dataset_from_directory decode_in_graph frames_dataset read read_directory
        read_files write""",
    "datasets.midi": """Beats MIDIError Options Part Piece Reading Score Seam Voice
        continue_piece estimate_key feature_columns find_seam fit_reader fixed_roll
        packed_reader read
        read_all read_packed read_piece read_score replace_voices step_features
        synthesize write write_musicxml write_wav""",
    "datasets.piano_roll": """KEYS LOWEST_PITCH PACKED PackedRolls check_roll
        count_rounded from_notes halves next_step_dataset pack plot to_notes transpose
        with_onsets""",
    "distribution": "Workers initialize launch",
    "exporting": "SingleStep to_litert to_onnx to_saved_model",
    "generation": "generate generate_audio stream_audio",
    "inspection": "gates jacobian_norms recurrent_layers",
    "losses": "BernoulliNLL GaussianMixtureNLL StepLoss bernoulli_nll weigh_steps",
    "metrics": "EventNLL FrameAccuracy FrameF1 FrameMetric FrameNLL NLL NoteCounts",
    "optimizers": "RMSprop rescale",
    "pictures": "gates piano_rolls sounds",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_interface(name):
    """What is added or taken away is so on purpose."""
    module = operator.attrgetter(name)(keras_gated) if name else keras_gated
    public = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
    ]
    assert sorted(public) == sorted(PUBLIC[name].split())


def test_the_reference_has_every_public_name():
    site = runpy.run_path(str(ROOT / "docs" / "make_site.py"))
    shown = set()
    for _, entries in site["REFERENCE"].values():
        for entry in entries:
            path = site["source_of"](entry)
            shown |= {
                entry.rpartition(".")[2],
                *(site["public_names"](path) if path else ()),
            }
    further = keras_gated.FURTHER_CELLS.values()
    made = {kind.__name__.removesuffix("Cell") for kind in further}  # in one paragraph
    names = {name for module in PUBLIC.values() for name in module.split()}
    assert names - shown == {"datasets", *made}


@pytest.mark.parametrize("value", list(public_objects()))
def test_public_names_are_documented(value):
    text = inspect.getdoc(value) or ""
    assert len(text) > 20
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    takes = [
        p for p in inspect.signature(value).parameters if p not in ("args", "kwargs")
    ]
    described = text.partition("Args:")[2]
    if takes and "Args:" not in text:
        assert inspect.isclass(value), "a function's arguments are not described"
        return
    missing = [p for p in takes if f"{p}:" not in described]
    assert not missing, f"not described: {missing}"


@pytest.mark.parametrize(
    "cell_class",
    [
        *keras_gated.CELLS.values(),
        *keras_gated.FURTHER_CELLS.values(),
        *keras_gated.LAYERS.values(),
        keras_gated.RNN,
        keras_gated.GaussianMixture,
    ],
    ids=lambda c: c.__name__,
)
def test_cells_are_registered_under_the_name_of_the_package(cell_class):
    name = keras.saving.get_registered_name(cell_class)
    assert name == f"keras_gated>{cell_class.__name__}"


def test_a_checkout_is_imported_where_another_copy_is_installed():
    """Python looks into the folder where it is started before it looks elsewhere."""
    code = (
        "import sys\n"
        "sys.meta_path = [x for x in sys.meta_path if 'editable' not in repr(x)]\n"
        f"sys.path[:] = ['', *(x for x in sys.path if x != {str(ROOT)!r})]\n"
        "import keras_gated\n"
        "from keras_gated.datasets import midi\n"
        "assert keras_gated.datasets is sys.modules['keras_gated.datasets']\n"
        "print(midi.__file__)\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == str(ROOT / "datasets/music/midi.py"), run.stderr


def test_every_data_set_is_an_attribute_and_nothing_is_imported_before():
    """In a process of its own, and without what an import may not need."""
    code = (
        "import sys, keras_gated\n"
        "for name in ('music21', 'pretty_midi', 'soundfile', 'symusic'):\n"
        "    assert name not in sys.modules, name\n"
        "assert 'keras_gated.datasets.music.midi' not in sys.modules\n"
        "for name in dir(keras_gated.datasets):\n"
        "    assert getattr(keras_gated.datasets, name), name\n"
        "print(*dir(keras_gated.datasets))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},  # which loads sooner
        check=True,
        capture_output=True,
        text=True,
    )
    folder = pathlib.Path(__file__).parents[1] / "datasets"
    files = {path.stem for path in folder.glob("*/*.py")}
    inner = {"audio_directory", "chunk_headers", "decoders", "frames", "grid"}
    inner |= {"headers", "mpeg_headers", "soundfile_decoder", "spans"}
    inner |= {"midi_continuation", "midi_engines", "midi_harmony", "midi_messages"}
    inner |= {"midi_notes", "midi_options"}
    inner |= {"midi_piece", "midi_repair", "midi_sound", "midi_voices"}
    inner |= {"midi_writing", "next_step", "notation", "notation_writing"}
    inner |= {"packed_rolls", "packed_sound", "pieces"}
    inner |= {"published", "pyav_decoder", "reader", "recordings", "score"}
    inner |= {"step_features"}
    inner |= {"tensorflow_io_decoder", "__init__"}
    functions = {"audio_dataset_from_directory", "midi_dataset_from_directory"}
    functions |= {"resumable"}
    assert set(done.stdout.split()) == files - inner | functions
    with pytest.raises(AttributeError, match="no attribute 'no_such_set'"):
        _ = keras_gated.datasets.no_such_set


def test_a_backend_that_is_not_there_is_not_passed():
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "tests/test_losses.py",
        ],
        env={**os.environ, "KERAS_BACKEND": "no_such_backend"},
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )
    assert run.returncode == 4
    assert "NOT TESTED on no_such_backend" in run.stdout + run.stderr


SAFE = {"allow_pickle": False, "safe_mode": True, "extract": False, "shell": False}
"""What arguments must say, if they are given."""
UNSAFE = {
    *("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"),
    *("enable_unsafe_deserialization", "extractall", "unpack_archive", "untar"),
    *("eval", "exec", "system", "popen"),
}
"""What is not imported, called or named."""


def unsafe(tree):
    for node in ast.walk(tree):
        names = {getattr(node, name, None) for name in ("id", "attr", "module", "arg")}
        names |= {getattr(one, "name", one) for one in getattr(node, "names", [])}
        yield from names & UNSAFE
        for keyword in getattr(node, "keywords", []):
            if keyword.arg in SAFE:
                value = getattr(keyword.value, "value", None)
                if value is not SAFE[keyword.arg]:
                    yield keyword.arg


ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = "keras_gated", "datasets", "examples", "benchmarks", "docs"


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_that_was_read_can_be_run(folder):
    """Nothing is unpickled or evaluated, no archive unpacked, no shell asked."""
    paths = [*(ROOT / folder).rglob("*.py")]
    assert paths
    found = {
        str(path): names
        for path in paths
        if (names := [*unsafe(ast.parse(path.read_text()))])
    }
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "keras.saving.load_model(path, safe_mode=False)",
        "subprocess.run(line, shell=True)",
        "get_file(name, url, extract=True)",
        "archive.extractall(folder)",
        "eval(text)",
    ],
)
def test_what_could_run_it_is_found(code):
    assert [*unsafe(ast.parse(code))]


ELSEWHERE = """
import importlib, os, pathlib, signal, sys
import keras, music21, numpy as np, soundfile, subprocess, tensorflow
for module, names in (
    (signal, "SIGKILL SIGSTOP SIGBUS SIGHUP pthread_sigmask SIG_BLOCK SIG_SETMASK"),
    (os, "sched_getaffinity killpg fork getuid geteuid statvfs"),
):
    for name in names.split():
        delattr(module, name)
sys.modules.update(fcntl=None, resource=None)
subprocess.Popen.kill = subprocess.Popen.terminate  # as it is on Windows
import keras_gated
from keras_gated import callbacks
from keras_gated.datasets import midi, midi_dataset_from_directory

root = pathlib.Path(keras_gated.__file__).parents[1]
for file in [*root.glob("keras_gated/**/*.py"), *root.glob("datasets/**/*.py")]:
    parts = file.relative_to(root).with_suffix("").parts
    name = ".".join(parts if parts[0] == "keras_gated" else ("keras_gated", *parts))
    if file.stem not in "__main__ loop_jax loop_torch loop_linear loop_kernels".split():
        importlib.import_module(name.removesuffix(".__init__"))
for k in range(9):
    midi.write(np.eye(88)[k:], f"music/{k}.mid")
how = {"batch_size": 2, "seed": 1, "verbose": False}
train = midi_dataset_from_directory("music", workers=2, **how)
layers = [keras_gated.GRU(4, return_sequences=True), keras.layers.Dense(88)]
model = keras.Sequential([keras.Input((None, 88)), *layers])
model.compile("adam", keras_gated.losses.BernoulliNLL())
backup = callbacks.BackupAndRestore("backup.npz", train)
model.fit(train, callbacks=[backup], verbose=0)
assert pathlib.Path("backup.npz").exists()
print("works", layers[0].loop)
"""


@pytest.mark.slow
def test_nothing_needs_what_other_systems_lack(tmp_path):
    """Signals, calls and modules that macOS or Windows do not have."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("works fast"), done.stderr
