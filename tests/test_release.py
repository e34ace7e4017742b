"""What `make release-check` says about versions, on changelogs that are made up."""

import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[1] / ".ci" / "check_release.py"
spec = importlib.util.spec_from_file_location("check_release", PATH)
check_release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_release)

ADDED = "\n### Added\n\n- A cell.\n"
FIXED = "\n### Fixed\n\n- A line.\n"
REMOVED = "\n### Removed\n\n- An argument.\n"


def changelog(**sections):
    return "# Changelog\n" + "".join(
        f"\n## [{name.replace('_', '.').lstrip('v')}] - 2026-11-27\n{text}"
        for name, text in sections.items()
    )


@pytest.mark.parametrize(
    ("version", "log"),
    [
        ("1.0.0", changelog(Unreleased="", v1_0_0=ADDED)),
        ("1.0.0rc1", changelog(Unreleased="", v1_0_0=ADDED)),
        ("1.0.0.dev0", changelog(Unreleased=ADDED)),
        ("1.0.1", changelog(v1_0_1=FIXED, v1_0_0=ADDED)),
        ("1.1.0", changelog(v1_1_0=ADDED, v1_0_0=ADDED)),
        ("2.0.0", changelog(v2_0_0=REMOVED, v1_1_0=ADDED)),
        ("0.2.0", changelog(v0_2_0=REMOVED, v0_1_0=ADDED)),
    ],
)
def test_a_version_that_may_be_released(version, log):
    assert check_release.check_version(version, log) == []


@pytest.mark.parametrize(
    ("version", "log", "says"),
    [
        ("1.0", changelog(), "no version"),
        ("1.0.0", changelog(Unreleased=ADDED), "says nothing under [1.0.0]"),
        ("1.0.0", changelog(Unreleased=FIXED, v1_0_0=ADDED), "belongs under [1.0.0]"),
        ("1.0.0.dev0", changelog(Unreleased=""), "nothing under [Unreleased]"),
        ("1.0.1", changelog(v1_0_1=ADDED, v1_0_0=ADDED), "a minor version"),
        ("1.1.0", changelog(v1_1_0=REMOVED, v1_0_0=ADDED), "a major version"),
        ("1.0.0", changelog(v1_0_0=FIXED, v1_0_1=FIXED), "not newer"),
        ("1.0.1.dev0", changelog(Unreleased=FIXED, v1_1_0=ADDED), "not newer"),
    ],
)
def test_a_version_that_may_not(version, log, says):
    complaints = check_release.check_version(version, log)
    assert any(says in complaint for complaint in complaints)


def test_the_citation_has_the_version_of_the_package():
    import keras_gated

    text = check_release.text("CITATION.cff")
    assert f"\nversion: {keras_gated.__version__}\n" in text
