"""MIDI files to rolls and back, by both parsers."""

import io
import logging
import os
import random
import struct
import wave
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_gated.datasets import midi, piano_roll
from keras_gated.datasets.music import midi_engines

NOTTINGHAM = Path(__file__).parents[4] / "shared" / "data" / "nottingham_midi"
each_engine = pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])


def strokes_and_releases(file):
    """The notes `(start, end, pitch, velocity, channel)`, straight from messages."""
    notes = []
    for track in file.tracks:
        time, down = 0, {}
        for message in track:
            time += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            strokes = down.setdefault((message.channel, message.note), {})
            if message.type == "note_on" and message.velocity:
                strokes[time] = message.velocity
                continue
            before = [start for start in strokes if start < time]
            for start, end in zip(before, [*before, time][1:], strict=True):
                note = (start, end, message.note, strokes[start], message.channel)
                notes.append(note)
            # A release at the tick of a stroke ends what sounded before.
            for start in before or list(strokes):
                del strokes[start]
    return notes


def by_mido(file, steps_per_quarter=2, short_notes="drop"):
    """An independent reading: the roll, and where notes begin."""
    file = file if isinstance(file, mido.MidiFile) else mido.MidiFile(file)
    beat = file.ticks_per_beat

    def q(x):
        return (2 * x * steps_per_quarter + beat) // (2 * beat)

    cells, onsets = set(), set()
    for start, end, pitch, _, channel in strokes_and_releases(file):
        first, last = q(start), q(end)
        if short_notes == "keep":
            last = max(last, first + 1)
        if channel != 9 and 21 <= pitch <= 108 and first < last:
            cells |= {(t, pitch - 21) for t in range(first, last)}
            onsets.add((first, pitch - 21))
    roll = np.zeros((1 + max(t for t, _ in cells), 88), np.uint8)
    begins = np.zeros_like(roll)
    roll[tuple(np.array(sorted(cells)).T)] = 1
    begins[tuple(np.array(sorted(onsets)).T)] = 1
    return roll, begins


def midi_file(*tracks, resolution=100):
    """Tracks of `(tick, message)`."""
    file = mido.MidiFile(ticks_per_beat=resolution)
    for messages in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in messages:
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    return file


def as_bytes(file):
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def on(pitch, channel=0, velocity=64):
    return mido.Message("note_on", note=pitch, channel=channel, velocity=velocity)


def off(pitch, channel=0, velocity=64):
    return mido.Message("note_off", note=pitch, channel=channel, velocity=velocity)


def meta(kind, **values):
    return mido.MetaMessage(kind, **values)


def notes_of(*notes, **use):
    """A file of `(start, end, pitch)`."""
    messages = [(s, on(p, **use)) for s, _, p in notes]
    messages += [(e, off(p, **use)) for _, e, p in notes]
    return sorted(messages, key=lambda m: (m[0], m[1].type == "note_on"))


def read(file, steps_per_quarter=1, **options):
    content = file if isinstance(file, bytes) else as_bytes(file)
    options = midi.Options(steps_per_quarter, **options)
    return midi.read_all("tune.mid", options, content)


def cells(reading):
    return piano_roll.to_notes(reading.roll, reading.onsets).tolist()


def write_example(path):
    """Two instruments, a change of tempo, drums that do not count."""
    music = pretty_midi.PrettyMIDI(resolution=220, initial_tempo=100)
    piano, drums = pretty_midi.Instrument(0), pretty_midi.Instrument(0, is_drum=True)
    for start, end, pitch in [(0, 1, 60), (1, 2.5, 64), (1, 1.1, 67), (3, 4, 21)]:
        piano.notes.append(pretty_midi.Note(90, pitch, start * 0.6, end * 0.6))
    drums.notes.append(pretty_midi.Note(90, 40, 0.0, 9.0))
    music.instruments += [piano, drums]
    music.write(str(path))
    # A tempo twice as fast from the second quarter on: the grid does not care.
    file = mido.MidiFile(path)
    file.tracks[0].insert(1, mido.MetaMessage("set_tempo", tempo=300_000, time=220))
    file.save(path)


@each_engine
def test_reads_on_the_grid_of_the_score(tmp_path, engine):
    path = tmp_path / "example.mid"
    write_example(path)
    roll = midi.read(path, steps_per_quarter=2, engine=engine)
    expected = np.zeros((8, 88), np.uint8)
    expected[0:2, 60 - 21] = expected[2:5, 64 - 21] = expected[6:8, 0] = 1
    np.testing.assert_array_equal(roll, expected)
    for steps_per_quarter in (1, 2, 3, 4, 12):
        np.testing.assert_array_equal(
            midi.read(path, steps_per_quarter, engine=engine),
            by_mido(path, steps_per_quarter)[0],
        )


messages = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 7, 30]),  # ticks after the one before
        st.booleans(),
        st.sampled_from([60, 61]),
        st.sampled_from([0, 3, 9]),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(messages, min_size=1, max_size=2), st.sampled_from([1, 2, 5]))
def test_any_strokes_and_releases_equal_the_independent_reading(tracks, steps):
    """Repeated strokes, missing and stray releases, notes of no length."""
    timed = []
    for track in tracks:
        ticks = np.cumsum([0, *(wait for wait, *_ in track)])[1:].tolist()
        timed.append(
            [
                (tick, (on if stroke else off)(pitch, channel))
                for tick, (_, stroke, pitch, channel) in zip(ticks, track, strict=True)
            ]
        )
        timed[-1] += [(400, on(70)), (500, off(70))]  # something to read in any case
    file = midi_file(*timed)
    content = as_bytes(file)
    expected, onsets = by_mido(file, steps)
    for engine in ("pretty_midi", "symusic"):
        reading = read(content, steps, engine=engine)
        np.testing.assert_array_equal(reading.roll, expected, engine)
        np.testing.assert_array_equal(reading.onsets, onsets)


@pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason=f"no MIDI files in {NOTTINGHAM}")
@each_engine
def test_real_files_equal_the_independent_reading(engine):
    """Every 20th; `make test-slow` reads all 1,034."""
    compare_with_mido(engine, sorted(NOTTINGHAM.glob("*.mid"))[::20])


@pytest.mark.slow
@pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason=f"no MIDI files in {NOTTINGHAM}")
@each_engine
def test_all_real_files_equal_the_independent_reading(engine):
    compare_with_mido(engine, sorted(NOTTINGHAM.glob("*.mid")))


def compare_with_mido(engine, paths):
    assert paths
    for path in paths:
        roll, onsets = midi.read(path, engine=engine, onsets=True)
        expected, begins = by_mido(path)
        np.testing.assert_array_equal(roll, expected, str(path))
        np.testing.assert_array_equal(onsets, begins, str(path))


@each_engine
def test_rounding_and_short_notes(engine):
    """Nearest line, halves up; T is the largest q(end), of dropped notes, too."""
    file = midi_file(
        notes_of((0, 49, 60), (50, 149, 61), (149, 150, 62), (340, 350, 63))
    )
    assert cells(read(file, engine=engine)) == [[1, 2, 62], [3, 4, 63]]
    kept = read(file, engine=engine, short_notes="keep")
    assert cells(kept) == [[0, 1, 60], [1, 2, 61], [1, 2, 62], [3, 4, 63]]
    short = midi_file(notes_of((0, 100, 60), (500, 540, 60)))
    assert read(short, engine=engine).roll.shape == (5, 88)


@each_engine
def test_a_restruck_note_restarts(engine):
    file = midi_file([(0, on(60)), (200, on(60)), (300, off(60)), (400, off(60))])
    reading = read(file, engine=engine)
    assert cells(reading) == [[0, 2, 60], [2, 3, 60]]
    assert piano_roll.to_notes(reading.roll).tolist() == [[0, 3, 60]]


@each_engine
def test_start_and_the_keys_of_a_piano(engine, tmp_path, caplog):
    file = midi_file(notes_of((300, 500, 60), (0, 900, 20), (0, 900, 109)))
    reading = read(file, engine=engine)
    assert (reading.roll.shape, reading.dropped_notes) == ((5, 88), 2)
    assert cells(read(file, engine=engine, start="first_note")) == [[0, 2, 60]]
    path = tmp_path / "beyond.mid"
    path.write_bytes(as_bytes(file))
    with caplog.at_level(logging.WARNING, logger="keras_gated"):
        midi.read(path, engine=engine)
    assert "beyond.mid': 2 notes were left out, outside the 88 keys" in caplog.text
    assert str(path) in caplog.text


@each_engine
def test_clock_with_tempi_and_pedal(engine):
    """Half a second a quarter, then one; on the score's grid it makes no difference."""
    tempo = [
        (0, meta("set_tempo", tempo=500_000)),
        (200, meta("set_tempo", tempo=10**6)),
    ]
    file = midi_file(tempo, notes_of((0, 100, 60), (100, 300, 64)))
    assert cells(read(file, engine=engine)) == [[0, 1, 60], [1, 3, 64]]
    clock = read(file, engine=engine, step_seconds=0.25)
    assert cells(clock) == [[0, 2, 60], [2, 8, 64]]
    # In hundredths, which floating point has not exactly, no line is missed.
    fine = read(file, engine=engine, step_seconds=0.01)
    assert cells(fine) == [[0, 50, 60], [50, 200, 64]]


@each_engine
def test_sustain_pedal(engine):
    def pedal(value):
        return mido.Message("control_change", control=64, value=value)

    notes = notes_of((0, 100, 60), (100, 200, 64), (300, 400, 60), (500, 600, 67))
    moves = [(50, pedal(127)), (350, pedal(0)), (550, pedal(64))]
    messages = sorted([*notes, *moves], key=lambda m: m[0])
    file = midi_file(messages)
    plain = [[0, 1, 60], [1, 2, 64], [3, 4, 60], [5, 6, 67]]
    # 60 sounds on until it is struck again; 64 until the pedal rises at 350; after
    # 550 it never does, which holds the last to the end of the music: no longer.
    held = [[0, 3, 60], [1, 4, 64], [3, 4, 60], [5, 6, 67]]
    assert cells(read(file, engine=engine)) == plain
    assert cells(read(file, engine=engine, pedal=True)) == held
    assert cells(read(file, engine=engine, step_seconds=0.5)) == held
    assert cells(read(file, engine=engine, step_seconds=0.5, pedal=False)) == plain


@each_engine
def test_choice_of_instruments_tracks_and_drums(engine):
    def part(name, program, note, channel=0):
        change = mido.Message("program_change", program=program, channel=channel)
        begin = [(0, meta("track_name", name=name)), (0, change)]
        return [*begin, *notes_of(note, channel=channel)]

    file = midi_file(
        [(0, meta("set_tempo", tempo=500_000))],
        part("Melody", 40, (0, 100, 60)),
        part("Chords", 0, (0, 200, 64), 1),
        part("Beat", 0, (0, 300, 36), 9),
    )

    def pitches(**options):
        return [note[2] for note in cells(read(file, engine=engine, **options))]

    assert pitches() == [60, 64]
    assert pitches(drums=True) == [36, 60, 64]
    assert pitches(instruments=["violin"]) == pitches(instruments=[40]) == [60]
    assert pitches(instruments=["Strings", "piano"]) == [60, 64]
    assert pitches(tracks=["chords"]) == pitches(tracks=[2]) == [64]
    assert pitches(tracks=[1, 3], drums=True) == [36, 60]
    with pytest.raises(midi.MIDIError, match=r"asked for; it has .*'Melody'"):
        read(file, engine=engine, tracks=["bass"])
    with pytest.raises(ValueError, match=r"`instruments` must hold.*'Kazoo'"):
        read(file, engine=engine, instruments=["Kazoo"])


@each_engine
def test_transposition(engine):
    scale = notes_of(*((100 * i, 100 * i + 100, 62 + p) for i, p in enumerate(MAJOR)))
    in_d = midi_file(scale)
    assert midi.read_all("x", midi.Options(1, engine=engine), as_bytes(in_d)).roll[
        0, 41
    ]
    up = read(in_d, engine=engine, transpose=12)
    assert cells(up)[0] == [0, 1, 74]
    assert read(in_d, engine=engine, transpose="C").semitones == -2
    # The key signature is believed where there is one: B flat minor goes up by two.
    signed = midi_file([(0, meta("key_signature", key="Bbm")), *scale])
    assert read(signed, engine=engine, transpose="C").semitones == 2
    drawn = {
        read(in_d, engine=engine, transpose="random", seed=seed).semitones
        for seed in range(60)
    }
    assert drawn == set(range(-5, 7))
    # The keys are counted after the music has moved.
    edge = midi_file(notes_of((0, 100, 20), (0, 100, 60)))
    assert read(edge, engine=engine, transpose=1).dropped_notes == 0


MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)


def test_key_equals_that_of_music21():
    """Krumhansl and Schmuckler's algorithm, on chorales and on random notes."""
    music21 = pytest.importorskip("music21")
    generator = np.random.default_rng(3)
    agreed = 0
    for trial in range(12):
        tonic = generator.integers(12)
        pitches = 60 + tonic + generator.choice(MAJOR, 40)
        if trial % 3 == 2:
            pitches = generator.integers(50, 70, 40)
        lengths = generator.integers(1, 9, 40) / 4
        stream = music21.stream.Stream()
        for pitch, length in zip(pitches, lengths, strict=True):
            stream.append(music21.note.Note(int(pitch), quarterLength=float(length)))
        theirs = music21.analysis.discrete.KrumhanslKessler().getSolution(stream)
        expected = theirs.tonic.pitchClass + 12 * (theirs.mode == "minor")
        assert midi.estimate_key(pitches, lengths) == expected
        agreed += 1
    assert agreed == 12


@each_engine
def test_velocities(engine):
    file = midi_file(
        [*notes_of((0, 300, 60), velocity=40)], [*notes_of((100, 200, 60))]
    )
    roll = read(file, engine=engine, velocity=True).roll
    assert roll[:, 39].tolist() == [40, 64, 40]


rolls = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.just(88)), elements=st.integers(0, 1)
)


@settings(max_examples=25, deadline=None)
@given(rolls, rolls, st.integers(1, 12), st.floats(20, 300))
def test_round_trip(tmp_path_factory, roll, onsets, steps_per_quarter, tempo):
    roll[-1, 40] = 1  # silence at the end has no note to keep it
    onsets = np.resize(onsets, roll.shape) & roll
    onsets |= roll > np.pad(roll, ((1, 0), (0, 0)))[:-1]  # where sound begins
    path = tmp_path_factory.mktemp("midi") / "roll.mid"
    midi.write(roll, path, steps_per_quarter, tempo)
    for engine in ("pretty_midi", "symusic"):
        np.testing.assert_array_equal(
            midi.read(path, steps_per_quarter, engine=engine), roll
        )
    np.testing.assert_array_equal(by_mido(path, steps_per_quarter)[0], roll)
    midi.write(roll, path, steps_per_quarter, tempo, onsets=onsets)
    for engine in ("pretty_midi", "symusic"):
        again = midi.read(path, steps_per_quarter, engine=engine, onsets=True)
        np.testing.assert_array_equal(again, [roll, onsets])


def test_sound(tmp_path):
    """An A of one second, then silence: as loud and as high as it should be."""
    roll = np.zeros((4, 88), np.uint8)
    roll[0:2, 69 - 21] = 1
    midi.write_wav(roll, tmp_path / "a.wav", tempo=60, sampling_rate=8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (
            *(8000, 1, 2),
        )
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    spectrum = np.abs(np.fft.rfft(samples[:8000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert 0.85 * 2**15 < np.abs(samples.astype(int)).max() < 2**15
    with pytest.raises(FileNotFoundError, match="no sound font"):
        midi.write_wav(roll, tmp_path / "b.wav", sound_font=tmp_path / "none.sf2")
    with pytest.raises(ValueError, match="`sampling_rate`"):
        midi.write_wav(roll, tmp_path / "b.wav", sampling_rate=0)
    assert not (tmp_path / "b.wav").exists()


def header(kind=1, tracks=1, division=480):
    return b"MThd" + struct.pack(">IHHH", 6, kind, tracks, division)


def track(data):
    return b"MTrk" + struct.pack(">I", len(data)) + data


END = b"\x00\xff\x2f\x00"
BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"this is no music", "does not begin with a MIDI header"),
    "random bytes": (random.Random(1).randbytes(5000), "does not begin with"),
    "header alone": (header(tracks=0), "no tracks|not a readable MIDI file|no note"),
    "cut": (
        header() + track(b"\x00\x90\x3c\x40" * 9 + END)[:20],
        "holds no note",
    ),
    "no notes": (header() + track(END), "holds no note"),
    "running status": (header() + track(b"\x00\x3c\x40" + END), "holds no note"),
    "resolution 0": (header(division=0) + track(END), "resolution of 0"),
    "film frames": (header(division=0x9928) + track(END), "SMPTE"),
    "format 2": (header(2, tracks=2) + track(END) + track(END), "format 2"),
    "large": (header() + bytes(midi_engines.LARGEST_FILE), "larger files are not read"),
    "drums": (as_bytes(midi_file(notes_of((0, 100, 40), channel=9))), "but drums"),
    "one short note": (as_bytes(midi_file(notes_of((0, 1, 60)))), "short_notes='keep'"),
    "beyond the keys": (as_bytes(midi_file(notes_of((0, 100, 5)))), "88 keys"),
    "an hour": (as_bytes(midi_file(notes_of((0, 720_000, 60)))), "3,600 seconds"),
    "a million steps": (
        as_bytes(
            midi_file([(0, meta("set_tempo", tempo=100))], notes_of((0, 10**8, 60)))
        ),
        "1,000,000 steps|largest tick|1,000,000 or more",
    ),
}


@each_engine
@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_named(tmp_path, engine, name):
    content, reason = BROKEN[name]
    path = tmp_path / "bad.mid"
    path.write_bytes(content)
    with pytest.raises(midi.MIDIError, match=reason) as caught:
        midi.read(path, engine=engine)
    assert str(path) in str(caught.value)


@each_engine
def test_what_is_strange_but_can_be_read(engine):
    chord = [(0, 100, pitch) for pitch in range(128)] * 80  # 10,240 notes
    reading = read(midi_file(notes_of(*chord)), engine=engine)
    assert (reading.roll.shape, reading.roll.sum()) == ((1, 88), 88)
    for tempo in (1, 2**24 - 1):
        slow = midi_file([(0, meta("set_tempo", tempo=tempo))], notes_of((0, 200, 60)))
        assert read(slow, engine=engine).roll.shape == (2, 88)
    signature = meta("time_signature", numerator=255, denominator=1)
    odd = midi_file([(0, signature), *notes_of((0, 100, 60))])
    assert read(odd, engine=engine).roll.shape == (1, 88)
    empty_track = midi_file([], notes_of((0, 100, 60)))
    assert read(empty_track, engine=engine).roll.shape == (1, 88)
    long = midi_file(notes_of((0, 800_000, 60)))
    assert read(long, engine=engine, max_seconds=None).roll.shape == (8000, 88)


@each_engine
def test_mutated_files_end_in_a_roll_or_in_the_documented_error(engine, tmp_path):
    """Hundreds of damaged files; tens of thousands were tried by hand."""
    write_example(tmp_path / "example.mid")
    whole = (tmp_path / "example.mid").read_bytes()
    generator = random.Random(7)
    read_at_all = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(generator.choice([1, 1, 2, 5])):
            place = generator.randrange(len(content))
            match generator.choice(["low", "any", "cut", "add", "lose"]):
                case "low":
                    content[place] = generator.randrange(128)
                case "any":
                    content[place] = generator.randrange(256)
                case "cut":
                    del content[max(place, 20) :]
                case "add":
                    content[place:place] = generator.randbytes(3)
                case "lose":
                    del content[place : place + 2]
        try:
            reading = midi.read_all(
                "x.mid", midi.Options(engine=engine), bytes(content)
            )
        except midi.MIDIError as error:
            assert "'x.mid'" in str(error)  # noqa: PT017
        else:
            assert reading.roll.any()
            read_at_all += 1
    assert 20 < read_at_all < 380


def test_files_that_are_not_there_or_closed(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        midi.read(tmp_path / "absent.mid")
    with pytest.raises(OSError, match="directory"):
        midi.read(tmp_path)
    closed = tmp_path / "closed.mid"
    write_example(closed)
    closed.chmod(0)
    if not os.access(closed, os.R_OK):  # root may read it
        with pytest.raises(PermissionError):
            midi.read(closed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_quarter": 0}, "`steps_per_quarter` must be"),
        ({"steps_per_quarter": "fine"}, "`steps_per_quarter` must be"),
        ({"steps_per_quarter": float("nan")}, "`steps_per_quarter` must be"),
        ({"steps_per_quarter": None}, "`steps_per_quarter` must be"),
        ({"step_seconds": 0}, "`step_seconds` must be"),
        ({"short_notes": "lose"}, "`short_notes` must be"),
        ({"start": 3}, "`start` must be"),
        ({"transpose": "D"}, "`transpose` must be"),
        ({"tracks": "Melody"}, "`tracks` must be a list"),
        ({"engine": "mido"}, "`engine` must be"),
        ({"max_steps": 0}, "`max_steps` must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        midi.read("x.mid", **options)


def test_bad_rolls_leave_no_file(tmp_path):
    for roll in (np.ones((2, 87)), np.full((2, 88), 3)):
        with pytest.raises(ValueError, match="piano roll"):
            midi.write(roll, tmp_path / "roll.mid")
    with pytest.raises(ValueError, match="`tempo` must be a finite number above 0"):
        midi.write(np.ones((2, 88)), tmp_path / "roll.mid", tempo=0)
    with pytest.raises(ValueError, match="`steps_per_quarter` must be"):
        midi.write(np.ones((2, 88)), tmp_path / "roll.mid", 0)
    with pytest.raises(ValueError, match="`onsets` must have the shape"):
        midi.write(np.ones((2, 88)), tmp_path / "roll.mid", onsets=np.ones((3, 88)))
    assert list(tmp_path.iterdir()) == []


def test_picture_of_what_was_read(tmp_path):
    write_example(tmp_path / "example.mid")
    axes = piano_roll.plot(midi.read(tmp_path / "example.mid"))
    assert axes.get_xlim()[1] == 7.5
