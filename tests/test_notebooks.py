"""The notebooks run from top to bottom, and hold what they gave."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(notebook):
    """Of the outputs of each cell."""
    return [{x["output_type"] for x in cell["outputs"]} for cell in cells(notebook)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_holds_what_it_gave(path):
    text = path.read_text()
    counts = [cell["execution_count"] for cell in cells(json.loads(text))]
    assert counts == list(range(1, len(counts) + 1))
    assert '"image/png"' in text
    assert len(text) < 500_000
    assert str(Path.home()) not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    found = runpy.run_path(str(FOLDER / "execute.py"))["execute"](path)
    assert kinds(found) == kinds(json.loads(path.read_text()))
