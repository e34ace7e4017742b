"""Scores: notes, meters and keys in ticks, by either parser, and from notation."""

import io
import random
import zipfile
from fractions import Fraction
from pathlib import Path

import mido
import numpy as np
import pytest
from midi_bytes import END, header, off, on, track

from keras_gated.datasets import midi
from keras_gated.datasets.music.midi_engines import parse

pretty_midi = pytest.importorskip("pretty_midi")
music21 = pytest.importorskip("music21")

NAMES = ["Flute", "Flöte", "笛", "Piano droit", ""]
KEYS = ["C", "Am", "F#m", "Bb", "Ebm", "C#", "Cb"]


def random_file(seed):
    """A file of several tracks, and what it holds, written down while it is made."""
    chance = random.Random(seed)
    file = mido.MidiFile(ticks_per_beat=chance.choice([24, 96, 480, 1000, 10080]))
    longest = chance.choice([200, 5000, 400_000])  # the last makes millions of ticks
    held = {"notes": [], "tempi": {0: 500_000}, "meters": {0: (4, 4)}, "keys": {}}
    for number in range(chance.randint(1, 4)):
        name = chance.choice(NAMES)
        coded = name.encode("latin-1" if name == "Flöte" else "utf-8")
        track = file.add_track()
        events = [(0, mido.MetaMessage("track_name", name=coded.decode("latin-1")))]
        channels = chance.sample(range(16), chance.randint(1, 3))
        programs = {channel: chance.randrange(128) for channel in channels}
        events += [
            (0, mido.Message("program_change", channel=c, program=p))
            for c, p in programs.items()
        ]
        tick = 0
        for _ in range(chance.randint(1, 30)):
            tick += chance.randint(0, longest)
            end = tick + chance.randint(1, longest)
            channel, pitch = chance.choice(channels), chance.randrange(128)
            velocity = chance.randint(1, 127)
            message = {"channel": channel, "note": pitch}
            stroke = mido.Message("note_on", velocity=velocity, **message)
            events += [(tick, stroke), (end, mido.Message("note_off", **message))]
            part = (programs[channel], channel == 9, name, number)
            held["notes"].append((tick, end, pitch, velocity, part))
            tick = end  # no two at a time, so that nothing has to be paired
        more = [chance.randint(0, tick) for _ in range(chance.randint(0, 3))]
        for tick in {0, *more}:
            if number == 0:
                tempo, key = chance.randint(1, 10**6), chance.choice(KEYS)
                meter = chance.randint(1, 13), 2 ** chance.randint(0, 5)
                held["tempi"][tick], held["meters"][tick] = tempo, meter
                held["keys"][tick] = pretty_midi.key_name_to_key_number(key)
                meter = dict(zip(("numerator", "denominator"), meter, strict=True))
                events += [
                    (tick, mido.MetaMessage("set_tempo", tempo=tempo)),
                    (tick, mido.MetaMessage("time_signature", **meter)),
                    (tick, mido.MetaMessage("key_signature", key=key)),
                ]
        now = 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue(), held


def notes_with_parts(score):
    return [(*note, score.parts[part]) for *note, part in score.notes.tolist()]


@pytest.mark.parametrize("seed", range(25))
def test_all_that_was_written_is_read_by_both_parsers(seed, tmp_path):
    content, held = random_file(seed)
    (tmp_path / "random.mid").write_bytes(content)
    scores = [
        midi.read_score(tmp_path / "random.mid", engine)
        for engine in ("pretty_midi", "symusic")
    ]
    for score in scores:
        assert sorted(notes_with_parts(score)) == sorted(held["notes"])
        assert dict(score.tempi.tolist()) == held["tempi"]
        meters = {tick: (a, b) for tick, a, b in score.time_signatures.tolist()}
        assert meters == held["meters"]
        assert dict(score.key_signatures.tolist()) == held["keys"]
        assert [part.track for part in score.parts] == sorted(
            part.track for part in score.parts
        )
    assert scores[0].parts == scores[1].parts
    for ours, theirs in zip(*scores, strict=True):
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(25, 40))
def test_seconds_and_bars_equal_those_of_pretty_midi(seed, tmp_path):
    content, _ = random_file(seed)
    path = tmp_path / "random.mid"
    path.write_bytes(content)
    score = midi.read_score(path)
    if score.notes[:, 1].max() > 500_000:
        return  # pretty_midi takes seconds
    peer = pretty_midi.PrettyMIDI(str(path))
    theirs = sorted(n.start for i in peer.instruments for n in i.notes)
    ours = np.sort(score.seconds(score.notes[:, 0]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    # A step a tick: bars begin where the position is 0. (At one tempo, because
    # pretty_midi adds bars where tempi change.)
    file = mido.MidiFile(path)
    for message in (message for some in file.tracks for message in some):
        if message.type == "set_tempo":
            message.tempo = 500_000
    peer = pretty_midi.PrettyMIDI(mido_object=file)
    beats = score.beats(score.ticks_per_quarter)
    begins = np.flatnonzero(beats.position == 0)
    downbeats = [round(peer.time_to_tick(time)) for time in peer.get_downbeats()]
    changes = score.time_signatures[:, 0].tolist()
    # pretty_midi leaves out bars that a time signature cuts short, to within a tick.
    assert {t for t in downbeats if t < len(beats.bar)} <= {*begins, *changes}
    np.testing.assert_array_equal(np.flatnonzero(np.diff(beats.bar)) + 1, begins[1:])
    assert (beats.position < beats.length).all()


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
@pytest.mark.parametrize("kind", [0x45, 0x0B, 0x7E])
def test_ticks_before_events_of_unknown_kinds_count(kind, engine, tmp_path):
    """mido forgets them."""
    path = tmp_path / "unknown.mid"
    unknown = b"\x60\xff" + bytes([kind]) + b"\3abc"
    path.write_bytes(
        header() + track(on(60) + off(60, 480) + unknown + on(62, 4) + END)
    )
    score = midi.read_score(path, engine)
    assert score.unreleased[:, :3].tolist() == [[580, 580, 62]]
    piece = midi.read_piece(path)
    assert [tick for tick, _ in piece.tracks[0]] == [0, 480, 576, 580]
    midi.continue_piece(
        piece, np.eye(88)[:4], midi.find_seam(piece, 1, 1), tmp_path / "on.mid", 1
    )
    assert b"\xff" + bytes([kind]) + b"\3abc" in (tmp_path / "on.mid").read_bytes()
    again = midi.read_piece(tmp_path / "on.mid")
    assert [tick for tick, _ in again.tracks[0]][:4] == [0, 480, 576, 580]


DOWN, UP = b"\0\xb0\x40\x7f", b"\x60\xb0\x40\0"
FIRST, SECOND = b"\0\xc0\3", b"\0\xc0\5"
LOW, HIGH = on(50) + off(50, 480), on(60) + off(60, 480)
PEDALS = {
    "down before both": (DOWN + LOW + SECOND + HIGH + UP, {0: 0, 5: 0}, 1056),
    "down between": (LOW + DOWN + SECOND + HIGH + UP, {0: 480, 5: 480}, 1056),
    "up under a program without notes": (
        FIRST + DOWN + LOW + SECOND + UP,
        {3: 0},
        576,
    ),
    "before its program": (DOWN + FIRST + LOW + UP, {3: 0}, 576),
}


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
@pytest.mark.parametrize("name", PEDALS)
def test_a_pedal_is_of_its_channel_whatever_the_program(name, engine, tmp_path):
    body, down, up = PEDALS[name]
    (tmp_path / "pedal.mid").write_bytes(header() + track(body + END))
    score = midi.read_score(tmp_path / "pedal.mid", engine)
    assert [part.program for part in score.parts] == [*down]
    expected = [
        [number, *move]
        for number, at in enumerate(down.values())
        for move in ([at, 127], [up, 0])
    ]
    assert sorted(score.pedals.tolist()) == expected


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
def test_a_key_that_is_struck_again_under_another_program_ends(engine, tmp_path):
    body = FIRST + on(50) + b"\x60" + SECOND[1:] + on(50, 4) + off(50, 480)
    (tmp_path / "again.mid").write_bytes(header() + track(body + END))
    score = midi.read_score(tmp_path / "again.mid", engine)
    assert score.notes[:, [0, 1, 2, 4]].tolist() == [[0, 100, 50, 0], [100, 580, 50, 1]]
    assert not len(score.unreleased)


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
def test_a_note_has_the_program_of_its_stroke(engine, tmp_path):
    body = FIRST + DOWN + on(50) + SECOND + off(50, 480) + HIGH + UP
    (tmp_path / "held.mid").write_bytes(header() + track(body + END))
    score = midi.read_score(tmp_path / "held.mid", engine)
    assert [part.program for part in score.parts] == [3, 5]
    assert score.notes[:, [2, 4]].tolist() == [[50, 0], [60, 1]]


def test_positions_in_bars_of_several_meters():
    """3/4, from the second bar on 6/8, and a 4/4 that begins in the middle of a bar."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = file.add_track()
    for numerator, denominator, wait in [(3, 4, 0), (6, 8, 1440), (4, 4, 2400)]:
        meter = {"numerator": numerator, "denominator": denominator, "time": wait}
        track.append(mido.MetaMessage("time_signature", **meter))
    track += [mido.Message("note_on", note=60), mido.Message("note_off", time=960)]
    track[-2].velocity, track[-1].note = 64, 60
    out = io.BytesIO()
    file.save(file=out)
    beats = parse("x.mid", content=out.getvalue()).beats()
    three, six, four = [0, 0.5, 1, 1.5, 2, 2.5], [0, 0.5, 1, 1.5], [0, 0.5, 1, 1.5]
    np.testing.assert_array_equal(beats.position, three + three + six + four)
    np.testing.assert_array_equal(beats.bar, 6 * [0] + 6 * [1] + 4 * [2] + 4 * [3])
    np.testing.assert_array_equal(beats.length, 16 * [3] + 4 * [4])
    finer = parse("x.mid", content=out.getvalue()).beats(Fraction(4, 3), steps=6)
    np.testing.assert_allclose(finer.position, [0, 0.75, 1.5, 2.25, 0, 0.75])


PIECES = ["bach/bwv66.6", "bach/bwv269", "ryansMammoth/AWillieWeHaveMissdYouStrathspey"]
PIECES += ["schoenberg/opus19/movement2", "demos/drum_sample"]


@pytest.mark.parametrize("name", PIECES)
def test_notation_gives_what_music21_itself_writes_as_midi(name, tmp_path):
    """Repeats, upbeats, ties, triplets, chords, MusicXML and ABC."""
    path = music21.corpus.getWork(name)
    score = midi.read_score(path)
    music21.converter.parse(path).write("midi", tmp_path / "peer.mid")
    peer = midi.read_score(tmp_path / "peer.mid")

    def times(score):
        quarter = score.ticks_per_quarter
        return {
            (round(start / quarter, 3), round(end / quarter, 3), pitch)
            for start, end, pitch, *_ in score.notes.tolist()
        }

    assert times(score) == times(peer)
    np.testing.assert_array_equal(score.tempi[0], peer.tempi[0])
    assert score.key_signatures[0].tolist() == peer.key_signatures[0].tolist()
    programs = [(part.program, part.is_drum) for part in peer.parts]
    assert [(part.program, part.is_drum) for part in score.parts] == programs


def test_upbeats_and_bars_of_notation_are_those_that_are_written():
    """The chorale begins with a quarter before the bar; each note knows its beat."""
    path = music21.corpus.getWork("bach/bwv269")
    score = midi.read_score(path)
    piece = music21.converter.parse(path).expandRepeats()
    beats = score.beats(score.ticks_per_quarter)
    soprano = piece.parts[0]
    for measure in soprano.getElementsByClass(music21.stream.Measure):
        for note in measure.notes:
            tick = round((measure.offset + note.offset) * score.ticks_per_quarter)
            assert beats.position[tick] == note.offset
    assert beats.length[0] == 1


def test_files_that_cannot_be_read_are_named(tmp_path):
    tunes = "X:{}\nT:tune\nM:3/4\nL:1/4\nK:D\nDFA|d3|\n"
    (tmp_path / "two.abc").write_text(tunes.format(1) + "\n" + tunes.format(7))
    with pytest.raises(midi.MIDIError, match=r"two\.abc.*2 tunes; number= chooses"):
        midi.read_score(tmp_path / "two.abc")
    score = midi.read_score(tmp_path / "two.abc", number=7)
    assert score.notes[:, :3].tolist() == [
        [0, 480, 62],
        [480, 960, 66],
        [960, 1440, 69],
        [1440, 2880, 74],
    ]
    assert score.time_signatures.tolist() == [[0, 3, 4]]
    assert score.key_signatures.tolist() == [[0, 2]]
    (tmp_path / "half.musicxml").write_text("<?xml version='1.0'?><score-partwise>")
    (tmp_path / "none.abc").write_text("")
    (tmp_path / "text.mid").write_text("no music")
    for name in ("half.musicxml", "none.abc", "text.mid"):
        with pytest.raises(midi.MIDIError, match=name):
            midi.read_score(tmp_path / name)
    for name in ("gone.abc", "gone.mid"):
        with pytest.raises(FileNotFoundError, match=name):
            midi.read_score(tmp_path / name)


def zipped(path, text, name="score.xml"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)


BOMB = "".join(f"<!ENTITY e{k} '{f'&e{k - 1};' * 9}'>" for k in range(1, 12))
BOMB = (
    f"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY e0 '{'x' * 99}'>{BOMB}]><s>&e11;</s>"
)
"""Some terabytes of text, if its entities were replaced."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("archive.mxl", "holds 100,000,000 bytes; up to 67,108,864 are read"),
        ("entities.musicxml", "cannot be read by music21"),
        ("entities.mxl", "cannot be read by music21"),
    ],
)
def test_scores_that_unpack_to_much(tmp_path, name, message):
    if name == "archive.mxl":
        zipped(tmp_path / name, " " * 10**8)
        assert (tmp_path / name).stat().st_size < 10**6
    elif name == "entities.mxl":
        zipped(tmp_path / name, BOMB)
    else:
        (tmp_path / name).write_text(BOMB)
    with pytest.raises(midi.MIDIError, match=message):
        midi.read_score(tmp_path / name)


@pytest.mark.parametrize("name", ["../outside.xml", "{}/outside.xml"])
def test_members_of_archives_stay_where_they_are(tmp_path, name):
    """What music21 reads of them, it reads in memory."""
    part = music21.converter.parse("tinyNotation: 4/4 c4 d e f")
    text = Path(part.write("musicxml", tmp_path / "a.musicxml")).read_text()
    (tmp_path / "inner").mkdir()
    zipped(tmp_path / "inner" / "a.mxl", text, name.format(tmp_path))
    assert len(midi.read_score(tmp_path / "inner" / "a.mxl").notes) == 4
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        *("a.musicxml", "a.mxl"),
    ]


def test_no_pickle_takes_the_place_of_a_score(tmp_path, monkeypatch):
    """music21 would keep some beside its settings, and read them next time."""

    def refuse(*_, **__):
        raise AssertionError("a pickle is read")

    monkeypatch.setattr(music21.freezeThaw.StreamThawer, "open", refuse)
    part = music21.converter.parse("tinyNotation: 4/4 c4 d e f")
    path = part.write("musicxml", tmp_path / "a.musicxml")
    for _ in range(2):
        assert len(midi.read_score(path).notes) == 4
