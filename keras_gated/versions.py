"""The oldest versions that the library runs on; an import on older ones says so."""

import re
import sys

PYTHON = "3.11"
KERAS = "3.13.2"
TENSORFLOW = "2.16"
"""These are the bounds of setup.cfg, which tests/test_versions.py compares. They stand
here, too, because the metadata of a checkout is missing or of another day."""


def numbers(version: str) -> tuple[int, ...]:
    """`2.22.0rc0` is (2, 22, 0): a pre-release counts as its release."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check(found: dict[str, str]) -> None:
    """Compares installed versions, by name, to the bounds.

    Raises:
        ImportError: One is too old; the line says what to do.
    """
    bounds = {"Python": PYTHON, "keras": KERAS, "tensorflow": TENSORFLOW}
    for name, version in found.items():
        if numbers(version) < numbers(bounds[name]):
            how = f"pip install --upgrade '{name}>={bounds[name]}'"
            if name == "Python":
                how = "make a virtual environment with a newer Python"
            raise ImportError(
                f"keras_gated needs {name} {bounds[name]} or newer, and {version} is "
                f"installed: {how}"
            )


def installed() -> dict[str, str]:
    """What is imported, as far as it says its version.

    TensorFlow counts where Keras has loaded it, which it does as its backend.
    """
    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("keras", "tensorflow"):
        if version := getattr(sys.modules.get(name), "__version__", None):
            found[name] = version
    return found
