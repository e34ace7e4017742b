"""The backend under test, and shared fixtures.

One suite serves all backends: `KERAS_BACKEND` says which. A backend that is not
installed ends the run with an error, so that it can never count as passed.
"""

import fcntl
import importlib.util
import os
import sys

import pytest

for package in os.environ.get("WITHOUT", "").split():
    sys.modules[package] = None  # as if it were not installed
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("JAX_ENABLE_X64", "1")  # the float64 tests need it
# Compiling, not computing, is what takes time in tests. (`make test-slow` has the
# layers optimized by XLA, too.)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
WHOLE_CHORALES = "datasets.sets.bach_chorales.load_data"
"""The docstring that reads all chorales, for half a minute."""


def pytest_configure(config):
    if importlib.util.find_spec(BACKEND) is None:
        pytest.exit(f"NOT TESTED on {BACKEND}: it is not installed.", returncode=4)
    import quiet  # noqa: F401


def pytest_report_header():
    import keras

    return f"keras {keras.__version__} on {BACKEND}"


def pytest_collection_modifyitems(config, items):
    """Slow tests run only where `-m` asks for them."""
    for item in items:
        if item.name == WHOLE_CHORALES:
            item.add_marker(pytest.mark.slow)
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make test-slow"))


@pytest.fixture(autouse=True)
def _fixed_seed():
    import keras

    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def keras_home(tmp_path_factory):
    """A folder for all processes of this run, in the place of the user's own."""
    home = tmp_path_factory.getbasetemp()
    return (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "keras_home"


@pytest.fixture(scope="session")
def chorales_home(keras_home):
    """The same folder with the chorales in it, read by the first who asks."""
    pytest.importorskip("music21", reason="the extra 'examples' is not installed")
    from keras_gated.datasets import bach_chorales
    from keras_gated.datasets.files import cache_directory

    keras_home.mkdir(parents=True, exist_ok=True)
    with open(keras_home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERAS_HOME", str(keras_home))
            bach_chorales.load_notes(verbose=0)
            return cache_directory()


@pytest.fixture(autouse=True)
def _no_function_that_autograph_cannot_transform(caplog):
    """TensorFlow asks the user to report it, though all goes well without."""
    yield
    messages = [record.getMessage() for record in caplog.get_records("call")]
    assert not [text for text in messages if "AutoGraph could not transform" in text]


@pytest.fixture(autouse=True)
def _folder_of_doctests(request, monkeypatch):
    """What examples write goes nowhere else."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))


@pytest.fixture(autouse=True)
def _keras_home(keras_home, monkeypatch, request):
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    if request.node.name == WHOLE_CHORALES:
        request.getfixturevalue("chorales_home")
