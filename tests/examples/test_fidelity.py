"""The benchmark of what stays of files finds nothing wrong, and finds what is."""

import sys
from fractions import Fraction
from pathlib import Path

import mido
import numpy as np
import pytest

from keras_gated.datasets import midi, piano_roll

BARS, GRID = 4, 2


@pytest.fixture
def benchmark(monkeypatch):
    """Its files and its checks."""
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    import fidelity_checks
    import fidelity_files

    yield fidelity_files, fidelity_checks
    for name in ("fidelity_checks", "fidelity_files"):
        del sys.modules[name]


def some_roll(steps):
    random, roll = np.random.default_rng(1), np.zeros((steps, 88), np.uint8)
    for row in roll:
        row[random.choice(range(25, 50), 4)] = 1
    return roll


def faults_of(checks, path, out):
    old = checks.File(path)
    piece = midi.read_piece(path)
    seam = midi.find_seam(piece, GRID, BARS)
    notes = len(piano_roll.to_notes(some_roll(seam.steps)))
    step = Fraction(old.quarter, GRID)
    found = checks.of_continuation(old, checks.File(out), step, BARS, notes)
    return {check for check, lines in found.items() if lines}


def test_nothing_is_wrong_with_the_files_of_the_benchmark(benchmark, tmp_path):
    files, checks = benchmark
    out = tmp_path / "out.mid"
    for path in files.made_here(tmp_path):
        piece = midi.read_piece(path)
        seam = midi.find_seam(piece, GRID, BARS)
        midi.continue_piece(piece, some_roll(seam.steps), seam, out, GRID)
        assert not faults_of(checks, path, out), path.name
        kept, *others = piece.pitched
        fixed = midi.fixed_roll(piece, [kept], GRID)
        roll = some_roll(len(fixed)) * (fixed == -1)
        midi.replace_voices(piece, roll.astype(np.uint8), others, out, GRID)
        found = checks.of_harmony(checks.File(path), checks.File(out), [kept.place])
        assert not any(found.values()), path.name


def louder(file):
    strokes = (m for m in file.tracks[1] if m.type == "note_on" and m.velocity)
    next(strokes).velocity += 1


def slower(file):
    next(m for m in file.tracks[0] if m.type == "set_tempo").tempo += 1


def one_track_less(file):
    file.tracks.pop()


def a_note_too_early(file):
    for velocity in (60, 0):
        file.tracks[2].insert(0, mido.Message("note_on", channel=2, velocity=velocity))


def a_word(file):
    file.tracks[2].insert(-1, mido.MetaMessage("text", text="la"))


def held_on(file):
    file.tracks[2].insert(-1, mido.Message("note_on", channel=2, note=99))


def a_stranger(file):
    for kind in ("note_on", "note_off"):
        file.tracks[2].insert(-1, mido.Message(kind, channel=5, note=99))


def too_long(file):
    for wait, kind in ((0, "note_on"), (9999, "note_off")):
        new = mido.Message(kind, channel=2, note=99, time=wait)
        file.tracks[2].insert(-1, new)


DAMAGE = {
    louder: "messages stand",
    slower: "tempi, meters and keys",
    one_track_less: "tracks",
    a_note_too_early: "new notes after the seam",
    a_word: "nothing else is new",
    held_on: "all keys released",
    a_stranger: "in voices of the piece",
    too_long: "within the bars",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_wrong_is_found(benchmark, tmp_path, damage):
    files, checks = benchmark
    path, out = tmp_path / "band.mid", tmp_path / "out.mid"
    files.band(np.random.default_rng(1)).save(path)
    piece = midi.read_piece(path)
    seam = midi.find_seam(piece, GRID, BARS)
    midi.continue_piece(piece, some_roll(seam.steps), seam, out, GRID)
    file = mido.MidiFile(out)
    damage(file)
    file.save(out)
    assert DAMAGE[damage] in faults_of(checks, path, out)
