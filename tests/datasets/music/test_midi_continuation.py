"""MIDI files that go on: what was there stands, what is new reads as it was made."""

import itertools
from fractions import Fraction
from pathlib import Path

import mido
import numpy as np
import pytest
from midi_bytes import END, SCALE, end, header, meta, off, on, track

from keras_gated.datasets import midi, piano_roll
from keras_gated.datasets.music.midi_voices import Manner, assign

KEYS, DRUMS, PEDAL = 88, 9, 64


def absolute(track):
    """The messages of a track with their ticks, without its end."""
    tick, found = 0, []
    for message in track:
        tick += message.time
        found.append((tick, message.copy(time=0)))
    assert found.pop()[1].type == "end_of_track"
    return found


def tracks_of(path):
    return [absolute(track) for track in mido.MidiFile(path).tracks]


def without(found, original):
    """What is left of the messages of a track without those of another, in order."""
    left, rest = [], iter(original)
    awaited = next(rest, None)
    for event in found:
        if event == awaited:
            awaited = next(rest, None)
        else:
            left.append(event)
    assert awaited is None, f"lost: {awaited}"
    return left


def some_file(seed, path):
    """Voices of one note or of chords, drums, pedal, meters, tempi, keys held on."""
    random = np.random.default_rng(seed)
    quarter = int(random.choice([96, 120, 480, 1024]))
    made = mido.MidiFile(ticks_per_beat=quarter)
    meters = [(3, 4), (6, 8), (2, 2), (5, 8), (4, 4)]
    first, second = (meters[random.integers(5)] for _ in range(2))
    change = 4 * quarter * first[0] // first[1] * int(random.integers(1, 4))
    head = [
        (0, mido.MetaMessage("set_tempo", tempo=int(random.integers(3, 9)) * 10**5))
    ]
    for tick, (over, under) in ((0, first), (change, second)):
        about = {"numerator": over, "denominator": under}
        head.append((tick, mido.MetaMessage("time_signature", **about)))
    head.append((change, mido.MetaMessage("key_signature", key="Eb")))
    tracks = [head]
    for number in range(int(random.integers(1, 5))):
        channel = DRUMS if number == 3 else number
        center, size = int(random.integers(40, 80)), int(random.integers(1, 4))
        about = {"channel": channel}
        events = [
            (0, mido.MetaMessage("track_name", name=f"part {number}")),
            (0, mido.Message("program_change", program=40 + number, **about)),
            (7, mido.Message("control_change", control=PEDAL, value=127, **about)),
        ]
        now = 0
        for _ in range(int(random.integers(3, 20))):
            length = int(random.choice([1, 2, 4])) * quarter // 2
            early = int(random.integers(0, quarter // 8))
            for pitch in set((center + random.integers(-9, 9, size)).tolist()):
                key = {"note": pitch, **about}
                loud = int(random.integers(30, 120))
                events.append((now, mido.Message("note_on", velocity=loud, **key)))
                events.append((now + length - early, mido.Message("note_off", **key)))
            now += length * int(random.integers(1, 3))
        if random.random() < 0.5:
            # Held to the end, and below the piano's keys, which rolls do not show.
            events.append((now, mido.Message("note_on", note=10 + number, **about)))
        tracks.append(events)
    if random.random() < 0.3:
        made.type, tracks = 0, [list(itertools.chain(*tracks))]
    for events in tracks:
        events.sort(key=lambda event: (event[0], event[1].type != "note_off"))
        now, row = 0, mido.MidiTrack()
        for tick, message in events:
            row.append(message.copy(time=tick - now))
            now = tick
        made.tracks.append(row)
    made.save(path)
    return path


def some_roll(seed, steps):
    """Four keys at a time, in three octaves."""
    random = np.random.default_rng(seed)
    roll = np.zeros((steps, KEYS), np.uint8)
    for row in roll:
        row[random.integers(20, 60, 4)] = 1
    return roll


def padded(roll, steps):
    return np.pad(roll, ((0, steps - len(roll)), (0, 0)))


def trimmed(roll):
    return roll[: np.flatnonzero(roll.any(axis=1)).max(initial=-1) + 1]


@pytest.mark.parametrize("seed", range(40))
def test_all_messages_stand_and_the_new_notes_read_as_the_roll(seed, tmp_path):
    path, out = some_file(seed, tmp_path / "in.mid"), tmp_path / "out.mid"
    grid = [1, 2, 4, Fraction(4, 3)][seed % 4]
    piece = midi.read_piece(path)
    seam = midi.find_seam(piece, grid, bars=4)
    roll = some_roll(seed, seam.steps)
    midi.continue_piece(piece, roll, seam, out, grid)
    before, after = tracks_of(path), tracks_of(out)
    assert len(after) == len(before)
    assert mido.MidiFile(out).type == mido.MidiFile(path).type
    for old, new in zip(before, after, strict=True):
        for tick, message in without(new, old):
            assert tick >= seam.tick or message.type == "note_off"  # held on
            assert message.type in ("note_on", "note_off", "control_change")
            assert getattr(message, "control", PEDAL) == PEDAL
            assert message.type != "note_on" or message.channel != DRUMS
    try:
        old = midi.read(path, grid)
    except midi.MIDIError:  # all notes are rounded to nothing
        old = np.zeros((0, KEYS), np.uint8)
    whole = np.concatenate([padded(old, seam.step), roll])
    np.testing.assert_array_equal(midi.read(out, grid), trimmed(whole))
    old, new = midi.read_score(path), midi.read_score(out)
    for field in ("tempi", "time_signatures", "key_signatures"):
        np.testing.assert_array_equal(getattr(old, field), getattr(new, field))
    assert not len(new.unreleased)
    # The seam and the end are bar lines.
    position = new.beats(piece.ticks_per_quarter, seam.end + 1).position
    assert position[seam.tick] == position[seam.end] == 0


@pytest.mark.parametrize("seed", range(12))
def test_replaced_voices_alone_change(seed, tmp_path):
    path, out = some_file(seed, tmp_path / "in.mid"), tmp_path / "out.mid"
    piece = midi.read_piece(path)
    kept, replaced = piece.pitched[:1], piece.pitched[1:]
    fixed = midi.fixed_roll(piece, kept, 2)
    roll = some_roll(seed, len(fixed)) & (fixed != 1)
    midi.replace_voices(piece, roll, replaced, out, 2)
    before, after = tracks_of(path), tracks_of(out)
    others = {(voice.track, voice.channel) for voice in replaced}
    for number, (old, new) in enumerate(zip(before, after, strict=bool(replaced))):
        of_kept = [
            [e for e in some if (number, getattr(e[1], "channel", -1)) not in others]
            for some in (old, new)
        ]
        assert of_kept[0] == of_kept[1]
    np.testing.assert_array_equal(midi.read(out), trimmed(roll | (fixed == 1)))


def test_fixed_keys_keep_the_melody_on_top():
    rows = [(0, 0, 960, 72), (0, 960, 1920, 74), (1, 0, 1920, 60), (2, 0, 1920, 48)]
    piece = piece_of(rows)
    fixed = midi.fixed_roll(piece, piece.choose(["0"]), 1)
    assert fixed.shape == (4, KEYS)
    assert fixed[0, 72 - 21] == fixed[2, 74 - 21] == 1
    assert (fixed[0, 72 - 20 :] == 0).all()
    # Free to a fifth beyond the range of the others.
    assert np.flatnonzero(fixed[0] == -1).tolist() == [*range(41 - 21, 68 - 21)]
    fixed = midi.fixed_roll(piece, piece.choose(["2"]), 1, semitones=2)
    assert fixed[0, 50 - 21] == 1
    assert (fixed[0, 2 : 50 - 21] == 0).all()
    assert (fixed[0, 55 - 21 : 84 - 21] == -1).all()
    middle = midi.fixed_roll(piece, piece.choose(["1"]), 1)
    free = [*range(41 - 21, 60 - 21), *range(61 - 21, 82 - 21)]
    assert np.flatnonzero(middle[0] == -1).tolist() == free


def piece_of(rows, **about):
    """A piece of notes (track, start, end, pitch), at 480 ticks a quarter note."""
    tracks = 1 + max(row[0] for row in rows)
    made = mido.MidiFile(ticks_per_beat=480)
    for number in range(tracks):
        events = []
        for track_number, start, last, pitch in rows:
            if track_number == number:
                key = {"channel": number, "note": pitch}
                events.append((start, mido.Message("note_on", velocity=70, **key)))
                events.append((last, mido.Message("note_off", **key)))
        events.sort(key=lambda event: (event[0], event[1].type != "note_off"))
        row, now = mido.MidiTrack(), 0
        for tick, message in events:
            row.append(message.copy(time=tick - now))
            now = tick
        made.tracks.append(row)
    made.save("piece.mid")
    return midi.read_piece("piece.mid")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def manner_of(register, at_once=1):
    return Manner(register, at_once, 80, {}, 0)


def test_chords_go_to_voices_at_the_least_sum_of_squares():
    """Beside all permutations."""
    random = np.random.default_rng(1)
    for _ in range(50):
        registers = random.integers(56, 66, 4)
        pitches = np.sort(random.choice(range(54, 68), 4, replace=False))
        notes = np.column_stack([np.zeros(4), np.ones(4), pitches]).astype(int)
        voices = assign(notes, [manner_of(register) for register in registers])
        costs = {
            order: sum(
                (registers[v] - p) ** 2 for v, p in zip(order, pitches, strict=True)
            )
            for order in itertools.permutations(range(4))
        }
        assert costs[tuple(voices)] == min(costs.values())


def test_held_notes_keep_their_voice_and_chords_go_where_chords_are():
    held = [(0, 4, 70), (1, 2, 69), (2, 3, 68)]  # while the upper voice sounds on
    voices = assign(np.array(held), [manner_of(70), manner_of(60)])
    assert voices.tolist() == [0, 1, 1]
    chord = [(0, 1, 58), (0, 1, 62), (0, 1, 65), (0, 1, 67)]
    voices = assign(np.array(chord), [manner_of(66), manner_of(60, at_once=3)])
    assert voices.tolist() == [1, 1, 1, 0]
    # A fourth low note is not for the melody, which is far above.
    low = [(0, 1, 38), (0, 1, 41), (0, 1, 45), (0, 1, 50)]
    voices = assign(np.array(low), [manner_of(71), manner_of(45, at_once=3)])
    assert voices.tolist() == [1, 1, 1, 1]
    voices = assign(np.array(chord), [manner_of(60)])  # too many, and none is lost
    assert voices.tolist() == [0, 0, 0, 0]


TIMES = {
    # name: meters (tick, over, under), last note's end, bars asked for, seam, steps
    "four quarters": ([], 1920, 2, (1920, 4, 8)),
    "a started bar counts": ([], 2000, 2, (3840, 8, 8)),
    "a little late": ([], 1930, 2, (1920, 4, 8)),
    "three": ([(0, 3, 4)], 1440, 2, (1440, 3, 6)),
    "six eighths": ([(0, 6, 8)], 1400, 2, (1440, 3, 6)),
    "half steps": ([(0, 3, 8)], 700, 2, (720, 2, 2)),
    "an upbeat": ([(0, 1, 4), (480, 4, 4)], 2400, 2, (2400, 5, 8)),
    "the meter that holds at the end": (
        [(0, 4, 4), (1920, 3, 4)],
        3300,
        1,
        (3360, 7, 3),
    ),
    "a meter that begins at the seam": (
        [(0, 4, 4), (1920, 3, 4)],
        1920,
        2,
        (1920, 4, 6),
    ),
    "a meter that begins later": ([(0, 4, 4), (3840, 3, 4)], 1920, 2, (1920, 4, 7)),
}


@pytest.mark.parametrize("name", TIMES)
def test_the_seam(name):
    meters, last, bars, (tick, step, steps) = TIMES[name]
    piece = piece_of([(0, 0, last, 60)])
    if meters:
        table = np.array(meters)
        piece = piece._replace(score=piece.score._replace(time_signatures=table))
    seam = midi.find_seam(piece, 1, bars)
    assert (seam.tick, seam.step, seam.steps) == (tick, step, steps)
    assert not seam.cuts


def test_a_cut_ends_what_sounds_and_takes_the_rest_away():
    piece = piece_of([(0, 0, 3840, 60), (0, 480, 960, 64), (0, 2400, 2880, 65)])
    seam = midi.find_seam(piece, 1, bars=1, primer_bars=1)
    assert (seam.tick, seam.cuts, seam.left_out) == (1920, True, 1)
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 62 - 21] = 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1)
    notes = piano_roll.to_notes(midi.read("out.mid", 1)).tolist()
    assert notes == [[0, 4, 60], [1, 2, 64], [4, 8, 62]]
    with pytest.raises(midi.MIDIError, match=r"no bar 4 to begin at; .* from 1 to 2"):
        midi.find_seam(piece, 1, bars=1, primer_bars=3)


def test_a_last_chord_that_is_never_released_sounds_to_the_seam():
    with open("in.mid", "wb") as file:
        file.write(header() + track(SCALE + on(67, 480) + on(72) + end(0)))
    piece = midi.read_piece("in.mid")
    seam = midi.find_seam(piece, 1, bars=1)
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 67 - 21] = 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1)
    notes = piano_roll.to_notes(midi.read("out.mid", 1)).tolist()
    assert notes[3:] == [[4, 12, 67], [4, 8, 72]]  # in a roll, repeated notes are one
    starts = midi.read_piece("out.mid").voices[0].notes[3:, :2].tolist()
    assert starts == [[1920, 3840], [1920, 3840], [3840, 5760]]


def test_a_note_that_sounds_into_the_bar_does_not_end_the_new_one():
    piece = piece_of([(0, 0, 1950, 60)])
    seam = midi.find_seam(piece, 1, bars=1)
    assert seam.tick == 1920
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 60 - 21] = 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1)
    starts = midi.read_piece("out.mid").voices[0].notes[:, :2].tolist()
    assert starts == [[0, 1950], [1950, 3840]]


def test_the_continuation_alone_begins_as_the_piece_ended():
    events = (
        meta(0x51, b"\x0b\x71\xb0")
        + meta(0x58, b"\3\2\x18\x08")
        + meta(5, b"la")
        + b"\0\xc0\x28"
        + SCALE
        + b"\0\xc0\x29"
        + b"\0\xb0\x07\x50"
        + END
    )
    with open("in.mid", "wb") as file:
        file.write(header() + track(events))
    piece = midi.read_piece("in.mid")
    seam = midi.find_seam(piece, 1, bars=1)
    roll = np.zeros((3, KEYS), np.uint8)
    roll[1, 40] = 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1, only_new=True)
    (found,) = tracks_of("out.mid")
    assert [message.type for _, message in found] == [
        *("set_tempo", "time_signature", "program_change", "control_change"),
        *("note_on", "note_off"),
    ]
    assert found[2][1].program == 41
    assert [tick for tick, _ in found] == [0, 0, 0, 0, 480, 960]
    assert [message.velocity for _, message in found[-2:]] == [80, 0]


def test_drums_repeat_their_bars():
    drums = b"".join(
        on(36, wait, DRUMS) + off(36, 100, DRUMS) for wait in (0, 1820, 380)
    )
    tune = on(60) + off(60, 3840) + END
    with open("in.mid", "wb") as file:
        file.write(header(2) + track(tune) + track(drums + end(0)))
    piece = midi.read_piece("in.mid")
    seam = midi.find_seam(piece, 1, bars=3)
    roll = np.zeros((12, KEYS), np.uint8)
    for bars, starts in ((0, []), (1, [0, 480, 1920, 2400, 3840, 4320])):
        midi.continue_piece(piece, roll, seam, "out.mid", 1, repeat_drums=bars)
        notes = midi.read_piece("out.mid").voices[1].notes
        assert notes[:3].tolist() == piece.voices[1].notes.tolist()
        assert notes[3:, 0].tolist() == [3840 + start for start in starts]
        assert (notes[:, 3] == 80).all()
    with pytest.raises(midi.MIDIError, match="its drums cannot repeat 3"):
        midi.continue_piece(piece, roll, seam, "out.mid", 1, repeat_drums=3)


def test_accents_and_articulation_go_on():
    """A loud first beat, and notes that end a little early."""
    events = b""
    for _ in range(4):
        for beat in range(4):
            strong = 100 if beat == 0 else 60
            events += bytes([60 if (wait := 80 * bool(events)) else 0])[:0]
            events += bytes([wait, 0x90, 62, strong]) + off(62, 400)
    with open("in.mid", "wb") as file:
        file.write(header() + track(events + END))
    piece = midi.read_piece("in.mid")
    seam = midi.find_seam(piece, 1, bars=2)
    roll = np.zeros((8, KEYS), np.uint8)
    roll[::2, 41], roll[1::2, 43] = 1, 1
    midi.continue_piece(piece, roll, seam, "out.mid", 1)
    new = midi.read_piece("out.mid").voices[0].notes[16:]
    assert new[:, 3].tolist() == [100, 60, 60, 60] * 2
    assert (new[:, 1] - new[:, 0] == 400).all()


def test_a_file_that_is_a_little_wrong_is_continued_as_repaired():
    with open("in.mid", "wb") as file:
        file.write((header() + track(SCALE + END))[:-3])
    piece = midi.read_piece("in.mid")
    assert piece.score.problems
    assert len(piece.voices[0].notes) == 3


def test_a_new_track_gets_a_channel_of_its_own():
    piece = piece_of([(0, 0, 1920, 72)])
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 30] = 1
    midi.replace_voices(piece, roll, [], "out.mid", 1)
    old, new = midi.read_piece("out.mid").voices
    assert (old.channel, new.channel, new.track) == (0, 1, 1)
    assert new.notes.tolist() == [[0, 1920, 51, 70]]


def test_sheet_music_has_the_notes_and_the_meter():
    """Overlaps, triplets, ties over bar lines and silence, in two staves."""
    music21 = pytest.importorskip("music21")
    rows = [(0, 0, 480, 72), (0, 160, 320, 76), (0, 480, 640, 74), (0, 1440, 2400, 74)]
    rows += [(0, 1560, 2040, 79), (0, 1560, 2040, 83), (1, 960, 6000, 60)]
    piece = piece_of(rows)
    midi.write_musicxml(piece.path, "out.musicxml")
    found = [
        (
            int(48 * note.offset),
            int(48 * (note.offset + note.quarterLength)),
            pitch.midi,
        )
        for part in music21.converter.parse("out.musicxml", forceSource=True).parts
        for note in part.flatten().notes
        for pitch in note.pitches
    ]
    whole = np.array(rows)[:, 1:]
    np.testing.assert_array_equal(
        piano_roll.from_notes(found, 4), piano_roll.from_notes(whole, 40)
    )
    score = midi.read_score("out.musicxml")
    assert score.time_signatures.tolist() == [[0, 4, 4]]
    assert len(score.parts) == 2


def test_files_of_many_ticks_sound_as_those_of_few(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sounds = []
    for ticks in (480, 30_000):
        file = mido.MidiFile(ticks_per_beat=ticks)
        note = mido.Message("note_on", note=69, velocity=80, time=398 * ticks)
        file.tracks.append(
            mido.MidiTrack(
                [
                    mido.MetaMessage("set_tempo", tempo=100_000),
                    note,
                    mido.Message("note_off", note=69, time=4 * ticks),
                ]
            )
        )
        file.save(tmp_path / "long.mid")
        sounds.append(midi.synthesize(tmp_path / "long.mid", 2000))
    np.testing.assert_allclose(*sounds, atol=1e-3)
    assert not sounds[0][:79_500].any()


DRUM = on(36, 0, 9) + off(36, 480, 9)
FAR = on(60) + off(60, 480) + on(62, 2**27) + off(62, 480)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"RIFF, but no music in it", "not a MIDI file"),
        (header(0), "holds no track"),
        (header() + track(FAR + END), "longer than the limit"),
    ],
)
def test_what_has_no_sound_is_named(content, problem):
    Path("wrong.mid").write_bytes(content)
    with pytest.raises(midi.MIDIError, match=f"'wrong.mid'.*{problem}"):
        midi.synthesize("wrong.mid", 2000)


def test_a_damaged_file_sounds_as_it_is_read():
    Path("cut.mid").write_bytes(header() + track(SCALE + on(65), size=9999))
    Path("whole.mid").write_bytes(header() + track(SCALE + END))
    sounds = [midi.synthesize(f"{name}.mid", 2000) for name in ("cut", "whole")]
    np.testing.assert_allclose(*(sound[:3000] for sound in sounds), atol=1e-3)


def test_drums_alone_are_silence_without_the_player(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Path("drums.mid").write_bytes(header() + track(DRUM + END))
    sound = midi.synthesize("drums.mid", 2000)
    assert sound.dtype == np.float32
    assert len(sound) >= 1000
    assert not sound.any()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (DRUM, "holds no notes but drums"),
        (on(60) + off(60, 2**21) + END, "more than 5,000 bars"),
    ],
)
def test_what_is_no_sheet_music_is_named(content, problem):
    pytest.importorskip("music21")
    Path("none.mid").write_bytes(header(division=96) + track(content + END))
    with pytest.raises(midi.MIDIError, match=f"'none.mid'.*{problem}"):
        midi.write_musicxml("none.mid", "none.musicxml")
    assert not Path("none.musicxml").exists()


def test_a_meter_a_tick_late_is_written():
    pytest.importorskip("music21")
    late = b"\1" + meta(0x58, b"\3\2\x18\x08")[1:]
    Path("late.mid").write_bytes(header() + track(late + SCALE + END))
    midi.write_musicxml("late.mid", "late.musicxml")
    score = midi.read_score("late.musicxml")
    assert score.time_signatures.tolist() == [[0, 3, 4]]
    assert score.notes[:, :3].tolist() == [
        [0, 480, 60],
        [480, 960, 62],
        [960, 1440, 64],
    ]


def test_a_piece_of_millions_of_bars_is_refused():
    Path("far.mid").write_bytes(header() + track(FAR + END))
    with pytest.raises(midi.MIDIError, match=r"'far.mid' has 279,6\d\d quarter"):
        midi.read_piece("far.mid")


def test_instruments_are_heard_where_the_player_is_installed(caplog, monkeypatch):
    piece_of([(0, 0, 480, 72)])
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        sound = midi.synthesize("piece.mid", 8000)
        with pytest.raises(ImportError, match="tinysoundfont"):
            midi.synthesize("piece.mid", sound_font="piece.mid")
    assert 4000 <= len(sound) <= 13000
    assert np.abs(sound).max() == pytest.approx(0.9)
    assert "pip install --no-deps tinysoundfont" in caplog.text
    with pytest.raises(FileNotFoundError, match="sound font"):
        midi.synthesize("piece.mid", sound_font="none.sf2")
    pytest.importorskip("tinysoundfont")
    played = midi.synthesize("piece.mid", 8000)
    # The loudest of the spectrum is the pitch.
    spectrum = np.abs(np.fft.rfft(played[:4000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(523.25, abs=4)


def test_unisons_of_one_track_are_told_apart_by_their_channels():
    events = b"\0\xc0\x05\0\xc1\x06" + on(60, 0, 0) + on(60, 0, 1) + on(36, 0, DRUMS)
    events += off(60, 480, 0) + off(60, 480, 1) + off(36, 0, DRUMS)
    with open("in.mid", "wb") as file:
        file.write(header(kind=0) + track(events + END))
    voices = midi.read_piece("in.mid").voices
    assert [(*voice.place, voice.program) for voice in voices] == [
        *((0, 0, 5), (0, 1, 6), (0, DRUMS, 0))
    ]
    assert [voice.notes[0, 1] for voice in voices] == [480, 960, 960]
