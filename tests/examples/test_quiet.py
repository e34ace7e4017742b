"""Commands drop the messages of TensorFlow's start-up, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

EXAMPLES = Path(__file__).parents[2] / "examples"
CODE = """
import os
import sys

import quiet

with quiet.without_noise():
    print("a warning", file=sys.stderr)
    os.write(2, b"I0000 00:00:00.1 1 port.cc:153] oneDNN is on\\nwritten by C\\n")
    os.write(2, b"E0000 00:00:00.1 1 some.cc:1] an error\\nno end of line")
print("after", file=sys.stderr)
with quiet.without_noise():
    raise ValueError("shown")
"""


def test_real_errors_show_and_noise_does_not():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=EXAMPLES, capture_output=True, text=True
    )
    lines = done.stderr.splitlines()
    assert lines[:3] == [
        "a warning",
        "written by C",
        "E0000 00:00:00.1 1 some.cc:1] an error",
    ]
    assert lines[3] == "no end of lineafter"
    assert lines[-1] == "ValueError: shown"
    assert len(lines) < 10
