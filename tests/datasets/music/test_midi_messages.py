"""What is written sounds as it is written, also where tracks share a channel."""

from fractions import Fraction
from itertools import chain

import mido
import numpy as np
import pytest

from keras_gated.datasets import midi

KEYS = 88


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def file_of(path, *tracks):
    """Tracks on channel 1 of notes: start and end in ticks, and pitch."""
    made = mido.MidiFile(ticks_per_beat=480)
    for notes in tracks:
        events = [(start, 1, pitch) for start, _, pitch in notes]
        events += [(end, 0, pitch) for _, end, pitch in notes]
        track, now = made.add_track(), 0
        for tick, strikes, pitch in sorted(events):
            about = {"note": pitch, "velocity": 70 * strikes, "time": tick - now}
            track.append(mido.Message("note_on", **about))
            now = tick
    made.save(path)
    return path


def some_voice(seed, steps=24):
    """Notes of five keys one after the other, some a little early or late."""
    random = np.random.default_rng(seed)
    notes, now = [], 0
    for _ in range(steps):
        length = 240 * int(random.integers(1, 4))
        end = now + length + int(random.choice([-90, -10, 0, 0, 0]))
        notes.append((now + int(random.choice([0, 0, 20])), end, 60 + random.choice(5)))
        now += length
    return notes


def written(path):
    """The notes of each track."""
    voices = midi.read_piece(path).voices
    return {v.track: [tuple(row[:3]) for row in v.notes.tolist()] for v in voices}


def heard(path, order):
    """The notes as they sound: channels have keys, and tracks come in some order."""
    events = []
    for place, track in enumerate(mido.MidiFile(path).tracks):
        ticks = np.cumsum([message.time for message in track]).tolist()
        for number, (tick, message) in enumerate(zip(ticks, track, strict=True)):
            if message.type in ("note_on", "note_off"):
                events.append((tick, order * place, number, message))
    since, notes = {}, []
    for tick, *_, message in sorted(events, key=lambda event: event[:3]):
        start = since.pop(message.note, None)
        if start is not None and start < tick:
            notes.append((start, tick, message.note))
        if message.type == "note_on" and message.velocity:
            since[message.note] = tick
    return sorted(notes)


def some_roll(seed, steps, onsets=False):
    """Four of nine keys at a time, among those of `some_voice`."""
    random = np.random.default_rng(seed)
    roll, again = np.zeros((2, steps, KEYS), np.uint8)
    for row in roll:
        row[random.choice(9, 4, replace=False) + 58 - 21] = 1
    held = (roll > 0) & (np.pad(roll, ((1, 0), (0, 0)))[:-1] > 0)
    again[held] = random.random(held.sum()) < 0.5
    return np.concatenate([roll, again], axis=1) if onsets else roll


@pytest.mark.parametrize("order", [1, -1], ids=["as written", "last track first"])
@pytest.mark.parametrize("seed", range(6))
def test_a_track_does_not_end_what_another_plays(seed, order):
    """Kept notes sound as they do without the new ones, and new ones to their end."""
    onsets = bool(seed % 2)
    tracks = [some_voice(3 * seed + n) for n in range(3)]
    piece = midi.read_piece(file_of("in.mid", *tracks))
    kept, *replaced = np.roll(np.arange(3), seed).tolist()
    voices = [piece.voices[number] for number in replaced]
    fixed = midi.fixed_roll(piece, [piece.voices[kept]], 2, onsets=onsets)
    roll = some_roll(seed, len(fixed), onsets) * (fixed != 1)
    midi.replace_voices(piece, roll.astype(np.uint8), voices, "out.mid", 2)
    before, after = written("in.mid"), written("out.mid")
    assert after[kept] == before[kept]
    assert sum(map(len, after.values())) > 2 * len(after[kept])
    assert heard("out.mid", order) == sorted(chain(*after.values()))

    seam = midi.find_seam(piece, 2, bars=4)
    midi.continue_piece(piece, some_roll(seed, seam.steps, onsets), seam, "out.mid", 2)
    new = [note for row in written("out.mid").values() for note in row]
    new = {note for note in new if note[0] >= seam.tick}
    assert len(new) > 20
    assert new <= set(heard("out.mid", order))


def test_a_second_release_does_not_end_a_new_note():
    kept = [(0, 480, 60), (240, 960, 60)]  # struck twice, then released twice
    piece = midi.read_piece(file_of("in.mid", kept, [(0, 1920, 67)]))
    roll = np.zeros((4, KEYS), np.uint8)
    roll[1:, 60 - 21] = 1
    midi.replace_voices(piece, roll, piece.voices[1:], "out.mid", 1)
    after = written("out.mid")
    assert after == {0: [(0, 240, 60), (240, 480, 60)], 1: [(481, 959, 60)]}
    assert heard("out.mid", 1) == heard("out.mid", -1) == sorted(chain(*after.values()))


def test_a_cut_piece_goes_on_with_the_keys_that_it_had_later():
    path = file_of("in.mid", [(0, 1920, 60), (1920, 7680, 62)])
    piece = midi.read_piece(path)
    seam = midi.find_seam(piece, 1, bars=1, primer_bars=1)
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 62 - 21] = 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1)
    assert written("out.mid") == {0: [(0, 1920, 60), (1920, 3840, 62)]}


@pytest.mark.parametrize("grid", [1, 2, Fraction(4, 3)])
@pytest.mark.parametrize("meter", [(3, 8), (5, 8), (7, 16), (4, 4)])
def test_new_notes_end_within_the_bars(grid, meter):
    piece = midi.read_piece(file_of("in.mid", [(0, 480, 60)]))
    meters = np.array([(0, *meter)])
    piece = piece._replace(score=piece.score._replace(time_signatures=meters))
    seam = midi.find_seam(piece, grid, bars=3)
    step = 480 / Fraction(grid)
    assert seam.tick <= seam.step * step < seam.tick + step
    assert seam.end - step < (seam.step + seam.steps) * step <= seam.end
