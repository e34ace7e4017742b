"""What a roll does not hold is said, and kept by an option: both parsers alike."""

import logging
import os

import numpy as np
import pytest
from midi_bytes import END, SCALE, end, header, meta, off, on, track

from keras_gated.datasets import midi, midi_directory, piano_roll

pretty_midi = pytest.importorskip("pretty_midi")
each_engine = pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])


def read(content, engine, **options):
    return midi.read_all("x.mid", midi.Options(2, engine=engine, **options), content)


def notes(reading):
    return [tuple(n) for n in piano_roll.to_notes(reading.roll, reading.onsets)]


@each_engine
def test_a_chord_that_is_never_released(engine):
    content = header() + track(SCALE + on(67) + on(72) + end(960))
    reading = read(content, engine)
    assert (reading.unreleased_notes, reading.roll.shape) == (2, (6, 88))
    [finding] = reading.findings
    assert finding.kind == "notes never released"
    assert "2 notes were left out" in finding
    kept = read(content, engine, unreleased_notes="keep")
    assert (kept.unreleased_notes, kept.findings) == (0, [])
    assert kept.roll.shape == (10, 88)
    assert kept.roll[6:, [67 - 21, 72 - 21]].all()
    np.testing.assert_array_equal(kept.roll[:6], reading.roll)


@each_engine
def test_strokes_without_releases_end_where_their_key_is_struck_again(engine):
    """Two parts; the second track ends later; a key is struck thrice, released once."""
    one = on(60) + on(60, 480) + on(60, 480) + off(60, 240) + on(64) + end(240)
    two = on(60, 0, 9) + on(72, 480, 3) + on(72, 480, 3) + end(1440)
    content = header(2) + track(one) + track(two)
    reading = read(content, engine, drums=True)
    assert reading.unreleased_notes == 4
    assert notes(reading) == [(0, 2, 60), (2, 4, 60), (4, 5, 60)]
    kept = read(content, engine, unreleased_notes="keep")
    assert notes(kept) == [
        *notes(reading)[:2],
        (2, 4, 72),
        (4, 5, 60),
        (4, 10, 72),
        (5, 6, 64),
    ]
    with pytest.raises(midi.MIDIError, match="but 2 that are never released"):
        read(content, engine, tracks=[1])


@each_engine
def test_notes_outside_the_keys_are_moved_by_octaves(engine):
    pitches = [0, 8, 9, 20, 21, 108, 109, 119, 120, 127]
    strokes = b"".join(on(pitch) + off(pitch, 480) for pitch in pitches)
    content = header() + track(strokes + END)
    reading = read(content, engine)
    assert reading.dropped_notes == 8
    kept = read(content, engine, outside_notes="keep")
    assert (kept.dropped_notes, kept.findings) == (0, [])
    assert [pitch for *_, pitch in notes(kept)] == [
        24, 32, 21, 32, 21, 108, 97, 107, 108, 103
    ]  # fmt: skip


@each_engine
@pytest.mark.parametrize("coded", ["latin-1", "utf-8"])
def test_tracks_are_found_by_name_and_number(engine, coded):
    named = [
        meta(3, name.encode(coded)) + on(60 + k) + off(60 + k, 480) + END
        for k, name in enumerate(["Flöte ", "VIOLÍN\0", "Bass"])
    ]
    content = header(3) + b"".join(map(track, named))
    for track_, pitch in (("flöte", 60), ("Violín", 61), ("vIOLI\u0301N", 61), (2, 62)):
        assert notes(read(content, engine, tracks=[track_]))[0][2] == pitch
    both = read(content, engine, tracks=[0, "bass"])
    assert [pitch for *_, pitch in notes(both)] == [60, 62]
    with pytest.raises(midi.MIDIError, match=r"'Flöte ' .track 0, program 0"):
        read(content, engine, tracks=["Oboe"])


@each_engine
def test_more_than_ten_million_ticks(engine):
    """As music21 writes them: 10,080 ticks in a quarter note."""
    far = on(60, 2**24) + off(60, 10080)
    content = header(division=10080) + track(far + far + END)
    reading = midi.read_all("x.mid", midi.Options(1, engine=engine), content)
    assert notes(reading) == [(1664, 1665, 60), (3330, 3331, 60)]


def test_names_and_links_and_pipes_of_a_folder(tmp_path):
    """Names that are no UTF-8, circles of links, pipes, and a file that is claimed to
    hold 4 GB: the rest is read, and all can be printed, logged and written."""
    folder = tmp_path / "music"
    folder.mkdir()
    content = header() + track(SCALE + END)
    bad_name = os.path.join(os.fsencode(folder), b"caf\xe9.mid")
    with open(bad_name, "wb") as file:
        file.write(content)
    with open(os.path.join(os.fsencode(folder), b"\xff\xfe.mid"), "wb") as file:
        file.write(content[:-1])
    with open(os.path.join(os.fsencode(folder), b"\xff.mid"), "wb") as file:
        file.write(b"x")
    (folder / "claims.mid").write_bytes(header() + track(SCALE + END, 2**32 - 1))
    (folder / "nothing.mid").write_bytes(b"")
    (folder / "circle").symlink_to(folder)
    (folder / "gone.mid").symlink_to(folder / "nowhere")
    (folder / "folder.mid").mkdir()
    os.mkfifo(folder / "pipe.mid")
    for workers in (1, 2):
        corpus = midi_directory.read_directory(
            folder, follow_links=True, workers=workers, cache_dir=tmp_path / "cache"
        )
        names = sorted(os.fsencode(path.name) for path in corpus.paths)
        assert names == [b"caf\xe9.mid", b"claims.mid", b"\xff\xfe.mid"]
        kinds = {os.fsencode(path.name): f.kind for path, f in corpus.skipped.items()}
        assert kinds == {
            b"\xff.mid": "not a MIDI file",
            b"gone.mid": "not a file",
            b"nothing.mid": "empty",
            b"pipe.mid": "not a file",
        }
        assert str(corpus).encode()
        corpus.report.show()
        assert corpus.report.path.read_text()
    with pytest.raises(OSError, match="pipe"):
        midi.read(folder / "pipe.mid")


def test_a_file_that_vanishes_is_reported(tmp_path, monkeypatch, caplog):
    for name in ("a.mid", "b.mid"):
        (tmp_path / name).write_bytes(header() + track(SCALE + END))
    read_bytes = midi_directory.read_bytes

    def vanish(path):
        (tmp_path / "a.mid").unlink(missing_ok=True)
        return read_bytes(path)

    monkeypatch.setattr(midi_directory, "read_bytes", vanish)
    with caplog.at_level(logging.WARNING):
        corpus = midi_directory.read_directory(tmp_path, cache=False, verbose=False)
    assert [path.name for path in corpus.paths] == ["b.mid"]
    assert "cannot be read" in corpus.skipped[tmp_path / "a.mid"]
    assert corpus.skipped[tmp_path / "a.mid"].kind == "cannot be opened"
