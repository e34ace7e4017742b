"""Runners of Apache Beam beside its own for one machine; `make test-runners`."""

import importlib.util
import os
import shutil
import subprocess
import sys

import corpus_scripts
import numpy as np
import pytest

from keras_gated.datasets import audio, midi

pytestmark = pytest.mark.slow
RUNNERS = {
    "dask": (
        *("--runner", "apache_beam.runners.dask.dask_runner.DaskRunner"),
        *("--dask_npartitions", 3),
    ),
    "beam_pyspark_runner": (
        *("--runner", "beam_pyspark_runner.pyspark_runner.PySparkRunner"),
    ),
}
"""Beam's arguments, by the package that is needed."""
SPARK = "--master local[2] --conf spark.default.parallelism=4 pyspark-shell"


def prepare(script, folder, output, arguments, runner=()):
    command = corpus_scripts.command(script, folder, output, *arguments, *runner)
    spark = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": SPARK}
    environment = {**os.environ, **spark}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.mark.parametrize("package", RUNNERS)
@pytest.mark.parametrize("kind", ["midi", "audio"])
def test_it_gives_the_same_bytes(package, kind, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make test-runners")
    if package == "beam_pyspark_runner" and not shutil.which("java"):
        pytest.skip("Spark needs Java")
    script, folder = f"prepare_{kind}_corpus.py", tmp_path / "files"
    random = np.random.default_rng(1)
    for k in range(20):
        if kind == "midi":
            roll = (random.random((10 + k, 88)) < 0.1).astype(np.uint8)
            midi.write(roll, folder / f"{k}.mid")
        else:
            samples = random.normal(0, 0.1, 800 + k)
            audio.write(samples, folder / f"{k}.wav", (8000, 16_000)[k % 2])
    (folder / "bad.mid").write_bytes(b"")
    (folder / "bad.wav").write_bytes(b"")
    arguments = ["--shards", 5, *(["--sampling-rate", 8000] * (kind == "audio"))]
    expected = prepare(script, folder, tmp_path / "alone", arguments)
    found = prepare(script, folder, tmp_path / "other", arguments, RUNNERS[package])
    assert len(expected) == 2 * 5 + 2
    assert found == expected
