"""The checks of arguments, which everything else relies on."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from keras_gated.datasets import checks


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_come_back_as_pythons_own(value):
    assert type(checks.whole("n", value)) is int
    assert type(checks.number("n", value)) is int


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)]
)
def test_numbers_come_back_as_pythons_own(value):
    found = checks.number("x", value, above=0)
    assert type(found) is float
    assert found == 0.5


@pytest.mark.parametrize(
    "value", [0, -1, 2.0, True, np.True_, "3", None, [3], np.array([3]), math.nan]
)
def test_what_is_no_positive_integer_is_named(value):
    with pytest.raises(
        ValueError, match=r"`n` must be a positive integer. Received: n="
    ):
        checks.whole("n", value)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, np.True_, "0.5", None, 1j, [0.5]]
)
def test_what_is_no_finite_number_is_named(value):
    with pytest.raises(ValueError, match=r"`x` must be a finite number. Received: x="):
        checks.number("x", value)


@pytest.mark.parametrize(
    ("value", "bounds", "accepted"),
    [
        (-1, {"low": 0}, "of at least 0"),
        (0, {"above": 0}, "above 0"),
        (1, {"low": 0, "below": 1}, "of at least 0 and below 1"),
        (0, {"above": 0, "below": 1}, "above 0 and below 1"),
        (1.5, {"low": 0, "high": 1}, "of at least 0 and of at most 1"),
        (0, {"above": 0, "optional": True}, "above 0 or None"),
    ],
)
def test_bounds_are_in_the_message(value, bounds, accepted):
    with pytest.raises(ValueError, match=f"must be a finite number {accepted}. Rec"):
        checks.number("x", value, **bounds)


def test_integers_have_bounds_too():
    assert checks.whole("n", 0, 0) == 0
    assert checks.whole("n", None, optional=True) is None
    for arguments, accepted in (
        ((-1, 0), "an integer of at least 0"),
        ((9, 0, 8), "an integer from 0 to 8"),
    ):
        with pytest.raises(ValueError, match=accepted):
            checks.whole("n", *arguments)


@pytest.mark.parametrize("value", [1, None, np.array(["a", "b"]), "A", ["a"]])
def test_choices_are_compared_by_type_and_value(value):
    with pytest.raises(ValueError, match=r"`x` must be 'a', True or 2. Received: x="):
        checks.one_of("x", value, ("a", True, 2))
    assert checks.one_of("x", True, ("a", True, 2)) is True


def test_folders_exist(tmp_path):
    assert checks.folder("path", str(tmp_path)) == tmp_path
    with pytest.raises(
        ValueError, match=r"`path` must be a folder that.*path='.*none'"
    ):
        checks.folder("path", tmp_path / "none")


def test_long_values_are_cut_short():
    with pytest.raises(ValueError, match=r"Received: n=\[0, 1.*\.\.\.$") as caught:
        checks.whole("n", list(range(1000)))
    assert len(str(caught.value)) < 300


def test_nothing_heavy_is_imported():
    """The file is used by modules that must load without Keras."""
    code = (
        f"import runpy, sys; runpy.run_path({checks.__file__!r}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True
    )
    assert not {"keras", "numpy", "tensorflow"} & set(done.stdout.split())
