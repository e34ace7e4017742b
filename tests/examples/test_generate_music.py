"""A saved model goes on with a MIDI file, and harmonizes it."""

import importlib.util
import re
import sys
import wave
import zipfile
from pathlib import Path

import keras
import mido
import numpy as np
import pytest
from midi_bytes import END, SCALE, header, meta, off, on, track

import keras_gated
from keras_gated.datasets import midi, piano_roll

SCRIPT = Path(__file__).parents[2] / "examples" / "generate_music.py"
WALTZ = meta(0x51, b"\x0b\x71\xb0") + meta(0x58, b"\3\2\x18\x08") + b"\0\xc0\x28"
"""80 quarters a minute, 3/4, a violin."""


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the script in this process; its exit code, output and errors."""
    spec = importlib.util.spec_from_file_location("generate_music", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        return script.main(), *capsys.readouterr()

    return run_here


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One of independent keys, the same without its grid, and one of whole frames."""
    folder = tmp_path_factory.mktemp("models")
    few = keras.initializers.Constant(-3.0)
    for name, first in (("keys", [keras_gated.RollEncoding(2)]), ("plain", [])):
        layers = [
            keras.Input((None, 88)),
            *first,
            keras_gated.GRU(4, return_sequences=True),
            keras.layers.Dense(88, bias_initializer=few),
        ]
        keras.Sequential(layers).save(folder / f"{name}.keras")
    frames, targets = keras.Input((None, 88)), keras.Input((None, 88))
    x = keras_gated.RollEncoding(2, transpose="C")(frames)
    x = keras_gated.GRU(4, return_sequences=True)(x)
    head = keras_gated.NADE(4)
    model = keras.Model([frames, targets], head([x, targets]))
    head.bias.assign(-3.0 * np.ones(88))
    model.save(folder / "frames.keras")
    told_model(few).save(folder / "told.keras")
    return folder


def told_model(few):
    """One of frames with onsets, which is told the meter and the key."""
    frames, targets = keras.Input((None, 176)), keras.Input((None, 176))
    told = keras.Input((None, 19))
    encoding = keras_gated.RollEncoding(2, "C", onsets=True, features=["meter", "key"])
    x = keras.layers.Concatenate()([encoding(frames), told])
    x = keras_gated.GRU(4, return_sequences=True)(x)
    head = keras_gated.NADE(4, onsets=True)
    model = keras.Model([frames, targets, told], head([x, targets, frames]))
    head.bias.assign(np.repeat([-2.0, 0.0], 88))  # half of what is held is struck
    return model


@pytest.fixture
def tune(tmp_path):
    """Seven notes of three keys, the last bar not full, in D."""
    notes = b"".join(
        on(pitch) + off(pitch, 480) for pitch in (62, 62, 69, 69, 71, 71, 69)
    )
    path = tmp_path / "tune.mid"
    path.write_bytes(header() + track(WALTZ + notes + END))
    return path


@pytest.fixture
def duet(tmp_path):
    path = tmp_path / "duet.mid"
    parts = [
        meta(3, name) + b"".join(on(p, 0, n) + off(p, 480, n) for p in pitches) + END
        for n, (name, pitches) in enumerate(
            [(b"Flute", (74, 76, 77, 76)), (b"Viola", (62, 60, 57, 60))]
        )
    ]
    path.write_bytes(header(2) + b"".join(map(track, parts)))
    return path


def messages(path):
    """Of each track, with ticks, without its end."""
    found = []
    for row in mido.MidiFile(path).tracks:
        ticks = np.cumsum([message.time for message in row]).tolist()
        pairs = zip(ticks, row, strict=True)
        found.append([(tick, message.copy(time=0)) for tick, message in pairs][:-1])
    return found


def test_a_tune_goes_on_as_it_was(call, models, tune, tmp_path):
    out = tmp_path / "new" / "tune"
    code, said, errors = call(
        *("--model", models / "frames.keras", "--midi", tune, "--output", out),
        *("--bars", 2, "--seed", 3, "--candidates", 2),
    )
    assert code == 0, errors
    assert re.search(r"tune.mid, from bar 4 on: 12 steps, --seed 3, in \d", said)
    (before,), (after,) = messages(tune), messages(f"{out}.mid")
    assert after[: len(before)] == before
    added = after[len(before) :]
    assert added
    assert all(tick >= 9 * 480 for tick, _ in added)
    assert {message.type for _, message in added} == {"note_on", "note_off"}
    score = midi.read_score(f"{out}.mid")
    assert set(score.notes[:, 3].tolist()) == {80}
    assert score.parts[0].program == 40
    assert score.tempi.tolist() == [[0, 750_000]]
    assert score.time_signatures.tolist() == [[0, 3, 4]]
    with wave.open(f"{out}.wav") as sound:
        assert sound.getnframes() / sound.getframerate() >= 9 * 0.75
    for ending in ("", "-2"):
        assert Path(f"{out}{ending}.png").read_bytes()[1:4] == b"PNG"
    page = Path(f"{out}.html").read_text()
    likelihoods = [float(x) for x in re.findall(r"(-[\d.]+) nats a step", page)]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert len(likelihoods) == 2
    assert page.count("<audio") == page.count("<svg") == 2
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|https?:", page)
    assert page.count("<rect") >= 14


def test_the_continuation_is_the_models(call, models, tune, tmp_path):
    """The roll that the model gives for the piece in C, transposed back."""
    code, _, errors = call(
        *("--model", models / "frames.keras", "--midi", tune, "--bars", 4),
        *("--seed", 5, "--only-new", "--output", tmp_path / "out"),
    )
    assert code == 0, errors
    model = keras.saving.load_model(models / "frames.keras", compile=False)
    primer = np.zeros((18, 88), np.uint8)
    roll = midi.read(tune, 2, transpose="C")
    assert (roll[0] == piano_roll.transpose(midi.read(tune, 2), -2)[0]).all()
    primer[: len(roll)] = roll
    made = keras_gated.generation.generate(model, primer[None], 24, seed=5)[0]
    made = piano_roll.transpose(made, 2)
    heard = midi.read(tmp_path / "out.mid", 2)
    np.testing.assert_array_equal(heard, made[: len(heard)])
    assert not made[len(heard) :].any()


@pytest.mark.parametrize("cut", [False, True])
def test_repeated_notes_meter_and_key_are_the_models(call, models, tune, tmp_path, cut):
    """It hears the strokes of the piece, and goes on in its meter and key."""
    more = ("--primer-bars", 2) if cut else ()
    code, _, errors = call(
        *("--model", models / "told.keras", "--midi", tune, "--bars", 4),
        *("--seed", 5, "--only-new", "--output", tmp_path / "out", *more),
    )
    assert code == 0, errors
    model = keras.saving.load_model(models / "told.keras", compile=False)
    past = 12 if cut else 18
    primer = np.zeros((past, 176), np.uint8)
    options = midi.Options(2, transpose="C", onsets=True)
    roll = midi.read_all(tune, options).roll[:past]
    assert roll[:, 88:].sum() >= 2
    primer[: len(roll)] = roll
    about = midi.step_features(["meter", "key"], past + 24, 2, meters=[(0, 3, 4)])
    made = keras_gated.generation.generate(
        model, primer[None], 24, seed=5, features=about
    )[0]
    made = piano_roll.transpose(made, 2)
    heard = midi.read_all(tmp_path / "out.mid", midi.Options(2, onsets=True)).roll
    notes = piano_roll.to_notes(made)
    assert len(notes) > len(piano_roll.to_notes(made[:, :88]))
    np.testing.assert_array_equal(piano_roll.to_notes(heard), notes)


def test_a_melody_with_repeated_notes_is_harmonized(call, models, duet, tmp_path):
    out = tmp_path / "out"
    code, _, errors = call(
        *("--model", models / "told.keras", "--midi", duet, "--output", out),
        *("--seed", 1, "--particles", 4, "--keep", "Flute"),
    )
    assert code == 0, errors
    before, after = messages(duet), messages(f"{out}.mid")
    assert after[0] == before[0]
    strokes = [m.note for _, m in after[1] if m.type == "note_on"]
    assert len(strokes) > 4


@pytest.mark.parametrize("named", [("--keep", "Flute"), ("--replace", "1")])
def test_a_melody_is_harmonized(call, models, duet, tmp_path, named):
    out = tmp_path / "out"
    code, said, errors = call(
        *("--model", models / "frames.keras", "--midi", duet, "--output", out),
        *("--seed", 1, "--particles", 4, *named),
    )
    assert code == 0, errors
    assert "duet.mid, harmonized: 8 steps" in said
    before, after = messages(duet), messages(f"{out}.mid")
    assert after[0] == before[0]
    assert after[1] != before[1]
    roll = midi.read(f"{out}.mid")
    melody = midi.read(duet, tracks=["Flute"])
    assert (roll[melody > 0] == 1).all()
    assert (roll.argmax(axis=1) <= melody.argmax(axis=1)).all()
    top = 87 - roll[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(top, melody.argmax(axis=1))


def test_a_cut_is_said_and_the_seed_repeats_the_music(call, models, tune, tmp_path):
    out = tmp_path / "out.mid"
    arguments = (
        *("--model", models / "keys.keras", "--midi", tune, "--bars", 1),
        *("--primer-bars", 1, "--output"),
    )
    code, said, errors = call(*arguments, out)
    assert code == 0, errors
    assert "4 notes after bar 1 are left out" in said
    assert "from bar 2 on" in said
    (seed,) = re.findall(r"--seed (\d+)", said)
    assert f"--seed {seed}" in out.with_suffix(".html").read_text()
    code, *_ = call(*arguments, tmp_path / "again", "--seed", seed)
    assert code == 0
    assert out.read_bytes() == (tmp_path / "again.mid").read_bytes()


@pytest.fixture
def files(models, tune, duet, tmp_path):
    """Files by name, of which most are wrong somewhere; an argument by name is one."""
    (tmp_path / "text.keras").write_text("no model")
    code = keras.layers.Lambda(lambda x: x)
    keras.Sequential([keras.Input((None, 88)), code]).save(tmp_path / "lambda.keras")
    (tmp_path / "lambda.h5").write_text("of an older format")
    (tmp_path / "text.mid").write_text("no music")
    drums = on(36, 0, 9) + off(36, 480, 9) + END
    named = meta(3, b"Flute") + on(60) + off(60, 480) + END
    short = on(60) + off(60, 20)
    for name, tracks in {
        "drums": [drums],
        "short": [short + END],
        "later": [short + on(60, 4000) + off(60, 480) + END],
        "band": [meta(3, b"Tempo") + WALTZ + END, named, meta(3, b"Kit") + drums],
        "nothing": [WALTZ + END],
    }.items():
        content = header(len(tracks)) + b"".join(map(track, tracks))
        (tmp_path / f"{name}.mid").write_bytes(content)
    return {path.name: path for path in (*models.iterdir(), *tmp_path.iterdir())}


TUNE, DUET, BAND = "tune.mid", "duet.mid", "band.mid"
KEYS, FRAMES, PLAIN = "keys.keras", "frames.keras", "plain.keras"


@pytest.mark.parametrize(
    ("model", "file", "more", "message"),
    [
        ("none.keras", TUNE, "", "There is no model .*; `make demo` trains some"),
        ("text.keras", TUNE, "", "no model that loads"),
        ("lambda.keras", TUNE, "", "lambda.keras' holds code of its own .* not loaded"),
        ("lambda.h5", TUNE, "", "is no .keras file; no other is loaded"),
        (KEYS, "none.mid", "", "There is no file"),
        (KEYS, "text.mid", "", "is not a MIDI file"),
        (KEYS, ".", "", "is a folder; --midi takes a file"),
        (KEYS, TUNE, "--bars 0", "--bars must be 1 or more"),
        (KEYS, TUNE, "--candidates 0", "--candidates must be 1 or more"),
        (FRAMES, DUET, "--keep 0 --particles 0", "--particles must be 1 or more"),
        (KEYS, TUNE, "--repeat-drums -1", "--repeat-drums must be 0 or more"),
        (KEYS, TUNE, "--temperature -1", "`temperature` must be a finite number of at"),
        (KEYS, TUNE, "--seed -1", "`seed` must be an integer from 0 to"),
        (PLAIN, TUNE, "", r"give --steps-per-quarter \(JSB Chorales: 1, "),
        (PLAIN, TUNE, "--steps-per-quarter 0", "must be a positive number or a fract"),
        (PLAIN, TUNE, "--steps-per-quarter 961", "has 480 ticks a quarter note, too f"),
        (KEYS, TUNE, "--steps-per-quarter 4", "with 2 steps per quarter, not 4; leave"),
        (KEYS, TUNE, "--in-c", "not trained on music in C; leave out --in-c"),
        (KEYS, DUET, "--keep 0", "need a model that ends in keras_gated.NADE"),
        (FRAMES, DUET, "--keep Oboe", "choose from .*: 0:1 'Flute', 1:2 'Viola'"),
        (FRAMES, BAND, "--keep Tempo", "no pitched notes in .* 'Tempo'; choose from"),
        (FRAMES, BAND, "--replace Kit", "no pitched notes in .* 'Kit'; choose from"),
        (FRAMES, DUET, "--keep 0 --replace flute", "to be kept and to be replaced"),
        (FRAMES, DUET, "--replace 0 1", "name one for --keep"),
        (FRAMES, DUET, "--keep 0 --bars 4", "leave out --bars"),
        (KEYS, TUNE, "--primer-bars 9", "no bar 10 to begin at; .* from 1 to 3"),
        (KEYS, TUNE, "--repeat-drums 9", "cannot repeat 9; choose fewer"),
        (KEYS, "drums.mid", "", "no notes but drums.*; choose a file with a pitched"),
        (FRAMES, "drums.mid", "--keep 0", "no notes but drums"),
        (KEYS, "nothing.mid", "", "choose a file with a pitched track"),
        (KEYS, "short.mid", "", "no note of half a step or longer"),
        (KEYS, "later.mid", "--primer-bars 1", "no note of half a step or longer"),
        (KEYS, TUNE, "--output text.mid/out", "Nothing can be written .*; choose ano"),
        (KEYS, TUNE, "--sound-font none.sf2", "There is no sound font"),
    ],
    ids=lambda value: value or "-",
)
def test_bad_input_ends_with_2_and_a_line(
    call, files, tmp_path, monkeypatch, model, file, more, message
):
    monkeypatch.chdir(tmp_path)
    arguments = "--model", files.get(model, model), "--midi", files.get(file, file)
    code, _, errors = call(*arguments, "--output", "out", *more.split())
    assert code == 2
    assert re.search(message, errors.splitlines()[-1]), errors
    assert not list(tmp_path.glob("out*"))


def test_a_change_of_meter_at_the_cut_is_said(call, models, tmp_path):
    """Where both meters could be meant, one is, and the way to the other is named."""
    bars = on(60) + off(60, 1440) + meta(0x58, b"\4\2\x18\x08") + on(60) + off(60, 1920)
    path = tmp_path / "two.mid"
    path.write_bytes(header() + track(WALTZ + bars + END))
    arguments = "--model", models / "keys.keras", "--midi", path, "--bars", 2
    arguments += "--output", tmp_path / "out", "--seed", 1
    _, said, _ = call(*arguments, "--primer-bars", 1)
    assert "the meter changes to 4/4" in said
    assert "goes on in 3/4; --primer-bars 2 takes 4/4 in" in said
    assert "12 steps" in said
    _, said, _ = call(*arguments)
    assert "the meter" not in said
    assert "16 steps" in said


def test_models_without_their_grid_take_it_from_the_command(call, models, tmp_path):
    path = tmp_path / "scale.mid"
    path.write_bytes(header() + track(SCALE + END))
    arguments = "--model", models / "plain.keras", "--midi", path, "--bars", 1
    code, said, errors = call(
        *arguments, "--steps-per-quarter", "4", "--output", tmp_path / "out"
    )
    assert code == 0, errors
    assert "16 steps" in said


def test_a_model_that_plays_nothing_is_said(call, tune, tmp_path):
    silent = keras.initializers.Constant(-50.0)
    layers = [
        keras.Input((None, 88)),
        keras_gated.GRU(2, return_sequences=True),
        keras.layers.Dense(88, bias_initializer=silent),
    ]
    keras.Sequential(layers).save(tmp_path / "silent.keras")
    for more in ((), ("--only-new",)):
        code, said, errors = call(
            *("--model", tmp_path / "silent.keras", "--midi", tune, "--bars", 1),
            *("--steps-per-quarter", 1, "--output", tmp_path / "out", *more),
        )
        assert code == 0, errors
        assert "plays nothing" in said


def test_a_model_of_other_values_is_refused_in_a_line(call, models, tmp_path):
    path = tmp_path / "other.keras"
    with (
        zipfile.ZipFile(models / "keys.keras") as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"units": 4', b'"units": -4'))
    (tmp_path / "tune.mid").write_bytes(header() + track(SCALE + END))
    code, _, errors = call("--model", path, "--midi", tmp_path / "tune.mid")
    assert code == 2
    assert re.fullmatch(
        r".*error: '.*other\.keras' is no model that loads: .*units.*\n", errors
    )
