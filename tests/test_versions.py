"""Versions that are too old are refused in a line, by the bounds of setup.cfg."""

import configparser
import os
import pathlib
import subprocess
import sys

import pytest

from keras_gated import versions

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "old", "says"),
    [
        ("Python", "3.10.13", "virtual environment with a newer Python"),
        ("keras", "3.13.1", "pip install --upgrade 'keras>=3.13.2'"),
        ("keras", "2.15.0", "pip install --upgrade 'keras>=3.13.2'"),
        ("tensorflow", "2.15.1", "pip install --upgrade 'tensorflow>=2.16'"),
    ],
)
def test_what_is_too_old_is_an_error_of_one_line(name, old, says):
    with pytest.raises(ImportError, match=f"{name} .* {old} is installed") as error:
        versions.check({name: old})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "found",
    [
        {"Python": "3.11.0", "keras": "3.13.2", "tensorflow": "2.16.0"},
        {"keras": "3.13.10", "tensorflow": "2.22.0rc0"},
        {"keras": "4.0.0.dev2026112703", "tensorflow": "2.22.0-dev20261127"},
        {},
    ],
)
def test_what_is_new_enough_is_not(found):
    versions.check(found)


def test_bounds_are_those_of_the_metadata():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"].replace(",<4", "").split("\n")
    asked = dict(line.partition(";")[0].split(" >=") for line in asked if " >=" in line)
    assert asked["keras"] == versions.KERAS
    assert asked["tensorflow"] == versions.TENSORFLOW
    assert setup["options"]["python_requires"] == f">={versions.PYTHON}"


def test_the_import_says_it():
    """In a process whose Keras says that it is old."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import keras; keras.__version__ = '3.8.0'\nimport keras_gated",
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: keras_gated needs keras 3.13.2 or newer")
