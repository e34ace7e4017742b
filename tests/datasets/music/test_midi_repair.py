"""MIDI files that are a little wrong: whole notes are read, what was wrong is said."""

import io
import logging
import random
import re
import struct

import mido
import numpy as np
import pytest
from midi_bytes import END, SCALE, header, meta, on, track

from keras_gated.datasets import midi, midi_directory, piano_roll
from keras_gated.datasets.music import midi_repair

pretty_midi = pytest.importorskip("pretty_midi")
each_engine = pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])

WHOLE = header() + track(SCALE + END)
RIFF = b"RIFF" + struct.pack("<I", len(WHOLE) + 12) + b"RMIDdata"
MACBINARY = b"\0\4tune" + bytes(122)


WRONG = {
    "RIFF": (RIFF + struct.pack("<I", len(WHOLE)) + WHOLE, "wrapper"),
    "RIFF with more": (
        RIFF + struct.pack("<I", len(WHOLE)) + WHOLE + b"LISTx",
        "wrapp",
    ),
    "MacBinary": (MACBINARY + WHOLE + bytes(40), "128 bytes of a wrapper"),
    "longer header": (header(size=8, more=b"ab") + track(SCALE + END), "8 bytes"),
    "more tracks promised": (header(9) + track(SCALE + END), "header says 9"),
    "fewer tracks promised": (header(0) + track(SCALE + END), "header says 0"),
    "foreign chunk": (header() + b"XFIH\0\0\0\4abcd" + track(SCALE + END), "'XFIH'"),
    "foreign chunk at the end": (WHOLE + b"XFKM\0\0\0\2ab", "'XFKM'"),
    "trailing bytes": (WHOLE + b"\0\1\2", "3 byte(s) follow the end"),
    "trailing text": (WHOLE + b"made by hand", "follow the end"),
    "format 2 of one track": (header(kind=2) + track(SCALE + END), "format is 2"),
    "format 9": (header(kind=9) + track(SCALE + END), "format is 9"),
    "no length": (header() + track(SCALE + END, size=0), "length of track 0 is wrong"),
    "length too large": (header() + track(SCALE + END, size=10**6), "early"),
    "no end of track": (header() + track(SCALE), "has no end"),
    "more after the end": (header() + track(SCALE + END + b"\0\x90\x30\x40"), "follow"),
    "last byte missing": (WHOLE[:-1], "early"),
    "tempo of 2 bytes": (
        header() + track(meta(0x51, b"\7\xa1") + SCALE + END),
        "tempo",
    ),
    "tempo of 0": (header() + track(meta(0x51, b"\0\0\0") + SCALE + END), "tempo"),
    "meter of 2": (
        header() + track(meta(0x58, b"\4\2") + SCALE + END),
        "time signature",
    ),
    "meter of 0": (
        header() + track(meta(0x58, b"\0\2\x18\x08") + SCALE + END),
        "impossible time signature",
    ),
    "8 sharps": (
        header() + track(meta(0x59, b"\x08\0") + SCALE + END),
        "key signature",
    ),
    "neither major nor minor": (
        header() + track(meta(0x59, b"\0\7") + SCALE + END),
        "key signature",
    ),
    "end of 1 byte": (
        header() + track(SCALE + meta(0x2F, b"\0") + END),
        "meta event 47",
    ),
    "velocity above 127": (
        header() + track(SCALE.replace(b"\x3e\x50", b"\x3e\xd0", 1) + END),
        "above 127",
    ),
    "half an event": (header() + track(SCALE + b"\0\x90\x43"), "middle of an event"),
    "waits that are too long together": (
        header() + track(SCALE + 2 * (b"\xff\xff\xff\x7f" + b"\xf7\1\0") + END),
        "wait that is too long",
    ),
    "long number": (
        header() + track(SCALE + b"\xff\xff\xff\xff\x7f" + END),
        "four bytes",
    ),
}


@each_engine
@pytest.mark.parametrize("name", WRONG)
def test_all_whole_notes_are_read_and_what_was_wrong_is_said(name, engine, caplog):
    content, said = WRONG[name]
    reading = midi.read_all("x.mid", midi.Options(engine=engine), content)
    whole = midi.read_all("x.mid", midi.Options(engine=engine), WHOLE)
    np.testing.assert_array_equal(reading.roll, whole.roll)
    np.testing.assert_array_equal(reading.onsets, whole.onsets)
    assert any(part in "; ".join(reading.problems) for part in said.split("|"))
    assert whole.problems == ()
    with pytest.raises(midi.MIDIError, match=r"'x\.mid' is (damaged|not a r)"):
        midi.read_all("x.mid", midi.Options(engine=engine, strict=True), content)


@each_engine
@pytest.mark.parametrize(
    ("rate", "per_second"), [(24, 24), (25, 25), (29, 30 / 1.001), (30, 30)]
)
def test_film_frames(engine, rate, per_second, tmp_path):
    """Files in SMPTE time have seconds, whatever their tempi say."""
    division = (256 - rate) << 8 | 40
    events = meta(0x51, b"\1\0\0") + SCALE + END
    (tmp_path / "film.mid").write_bytes(header(division=division) + track(events))
    score = midi.read_score(tmp_path / "film.mid", engine)
    seconds = np.arange(3) * 480 / (per_second * 40)
    np.testing.assert_allclose(score.seconds(score.notes[:, 0]), seconds, rtol=1e-12)
    assert "a quarter note is taken for a second" in "; ".join(score.problems)


def test_warns_by_name(tmp_path, caplog):
    (tmp_path / "cut.mid").write_bytes(WHOLE[:-1])
    with caplog.at_level(logging.WARNING, "keras_gated"):
        midi.read(tmp_path / "cut.mid")
    assert "cut.mid': It was repaired: track 0 ends 1 byte(s) early" in caplog.text


def test_a_piece_is_repaired_once(tmp_path, monkeypatch):
    """Its notes and its messages are of the same bytes."""
    calls, repair = [], midi_repair.repair
    monkeypatch.setattr(
        midi_repair, "repair", lambda content: calls.append(1) or repair(content)
    )
    for content, _ in WRONG.values():
        path = tmp_path / "wrong.mid"
        path.write_bytes(content)
        calls.clear()
        piece = midi.read_piece(path)
        assert calls == [1]
        assert (piece.content, list(piece.score.problems)) == repair(content)


def random_file(seed):
    """By mido: notes, running status, system exclusive and meta messages."""
    generator = random.Random(seed)
    file = mido.MidiFile(ticks_per_beat=480)
    for _ in range(generator.randint(1, 3)):
        messages = file.add_track("a träck" if seed % 2 else "b")
        messages.append(
            mido.MetaMessage("set_tempo", tempo=generator.randint(1, 10**7))
        )
        messages.append(mido.MetaMessage("key_signature", key="F#m"))
        messages.append(mido.Message("sysex", data=[1, 2, 3]))
        for _ in range(generator.randint(1, 20)):
            pitch, ticks = (
                generator.randrange(21, 109),
                generator.randrange(400, 40_000),
            )
            messages.append(mido.Message("note_on", note=pitch, velocity=9, time=ticks))
            messages.append(mido.Message("note_off", note=pitch, time=ticks))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(8))
def test_whole_files_of_others_stay_as_they_are(seed):
    content = random_file(seed)
    assert midi_repair.looks_whole(content)
    repaired, problems = midi_repair.repair(content)
    assert problems == []
    tracks, same = (
        mido.MidiFile(file=io.BytesIO(some)).tracks for some in (content, repaired)
    )
    assert tracks == same


@each_engine
def test_right_files_that_parsers_trip_over(engine):
    """A system message in parts, a long text, a missing status after a meta event."""
    odd = b"\0\xf0\3abc\x10\xf7\3de\xf7"
    odd += b"\0\xff\1\x82\x2c" + bytes(300) + on(67) + b"\0\xff\1\1x" + b"\x10\x43\0"
    content = header() + track(odd + SCALE + END)
    reading = midi.read_all("x.mid", midi.Options(30, engine=engine), content)
    found = piano_roll.to_notes(reading.roll, reading.onsets).tolist()
    assert found[0] == [1, 2, 67]
    assert found[1:] == [[30 * k + 2, 30 * k + 32, 60 + 2 * k] for k in range(3)]
    assert reading.problems == ()


def notes(content, engine="pretty_midi"):
    onsets = midi.read_all("x.mid", midi.Options(12, engine=engine), content).onsets
    return {tuple(place) for place in np.argwhere(onsets)}


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
def test_a_file_that_is_cut_anywhere_gives_its_whole_notes(engine):
    whole = header() + track(SCALE + END)
    found, places = [], notes(whole, engine)
    for length in range(22, len(whole)):
        try:
            some = notes(whole[:length], engine)
        except midi.MIDIError as error:
            assert "holds no note" in str(error)  # noqa: PT017
            some = set()
        assert some <= places
        found.append(len(some))
    assert found == sorted(found)
    assert found[-1] == len(places) == 3


@pytest.mark.parametrize("seed", range(100))
def test_what_is_repaired_is_whole(seed):
    content, generator = bytearray(random_file(seed)), random.Random(seed)
    for _ in range(generator.choice([1, 3, 20])):
        content[generator.randrange(14, len(content))] = generator.randrange(256)
    del content[generator.randrange(60, 2 * len(content)) :]
    content[:0] = generator.randbytes(generator.choice([0, 0, 7]))
    repaired, problems = midi_repair.repair(bytes(content))
    if problems:
        assert midi_repair.repair(repaired) == (repaired, [])
        for message in mido.merge_tracks(
            mido.MidiFile(file=io.BytesIO(repaired)).tracks
        ):
            assert message.time >= 0


def test_a_folder_reports_what_was_repaired(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    (music / "a.mid").write_bytes(WHOLE)
    (music / "b.mid").write_bytes(WHOLE[:-1])
    settings = {"cache_dir": tmp_path / "cache", "verbose": False}
    for _ in range(2):  # the second time from the cache
        corpus = midi_directory.read_directory(music, **settings)
        assert len(corpus.paths) == 2
        assert list(corpus.problems) == [music / "b.mid"]
        assert re.search(r"warning: repaired +1  'b.mid'\n", str(corpus))
        assert "track 0 ends 1 byte(s) early" in corpus.report.path.read_text()
        with pytest.raises(midi.MIDIError, match=r"b\.mid' is damaged: track 0 ends"):
            midi_directory.read_directory(music, errors="raise", **settings)


@each_engine
def test_notes_that_the_grid_rounds_to_nothing_are_counted(engine, tmp_path, caplog):
    sixteenths = b"".join(
        b"\0\x90" + bytes([pitch, 80]) + b"\x78\x80" + bytes([pitch, 0])
        for pitch in range(60, 68)
    )
    path = tmp_path / "music" / "fast.mid"
    path.parent.mkdir()
    path.write_bytes(header() + track(sixteenths + END))
    counts = {2: 4, 4: 0, 1: 6}
    for steps, count in counts.items():
        reading = midi.read_all(path, midi.Options(steps, engine=engine))
        assert reading.rounded_notes == count
        assert reading.onsets.sum() == 8 - count
    kept = midi.read_all(path, midi.Options(2, engine=engine, short_notes="keep"))
    assert (kept.rounded_notes, kept.onsets.sum()) == (0, 8)
    with caplog.at_level(logging.WARNING, "keras_gated"):
        midi.read(path, engine=engine)
    assert "4 notes were left out, rounded to nothing" in caplog.text
    corpus = midi_directory.read_directory(path.parent, cache=False, verbose=False)
    assert corpus.rounded_notes == 4
    assert "warning: notes rounded to nothing" in str(corpus)
