"""Mutated files: refused with a `MIDIError`, or read alike by both parsers."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("pretty_midi")
pytest.importorskip("symusic")

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "fuzz_midi.py"


def test_more_is_read_than_by_any_other_reader():
    spec = importlib.util.spec_from_file_location("fuzz_midi", BENCHMARK)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    files = [fuzz.valid_file(seed) for seed in range(50)]
    counts, _ = fuzz.read_all(files, 200, seed=2)
    best = max(counts[name].total() for name in fuzz.PEERS)
    for name in fuzz.OURS:
        assert counts[f"ours: {name}"].total() >= max(best, 0.8 * 200)
