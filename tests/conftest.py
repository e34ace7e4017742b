"""The backend under test, and shared fixtures.

One suite serves all backends: `KERAS_BACKEND` says which. A backend that is not
installed ends the run with an error, so that it can never count as passed.
"""

import importlib.util
import os

import pytest

BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("JAX_ENABLE_X64", "1")  # the float64 tests need it
# Compiling, not computing, is what takes time in tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_configure(config):
    if importlib.util.find_spec(BACKEND) is None:
        pytest.exit(f"NOT TESTED on {BACKEND}: it is not installed.", returncode=4)


def pytest_report_header():
    import keras

    return f"keras {keras.__version__} on {BACKEND}"


def pytest_collection_modifyitems(config, items):
    """Slow tests run only where `-m` asks for them."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make test-slow"))


@pytest.fixture(autouse=True)
def _fixed_seed():
    import keras

    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def _keras_home(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's own cache, or the runs of another."""
    shared = tmp_path_factory.getbasetemp().parent / "keras_home"
    monkeypatch.setenv("KERAS_HOME", str(shared))
