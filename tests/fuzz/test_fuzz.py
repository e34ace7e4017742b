"""Some mutated files for every reader; `make fuzz` reads more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(tmp_path):
    for package in ("apache_beam", "av", "music21", "soundfile", "symusic"):
        pytest.importorskip(package)
    folders = [str(ROOT / name) for name in ("tests", "examples", "benchmarks")]
    command = [sys.executable, "-m", "fuzz", "--files", "60", "--output", tmp_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert " 0 failures." in done.stdout
