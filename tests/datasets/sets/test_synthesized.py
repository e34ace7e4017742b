"""Sound made here: chorales are heard as written, files are whole, voices speak."""

import os

import numpy as np
import pytest

from keras_gated.datasets import bach_chorales, synthesized

pytest.importorskip("pretty_midi", reason="the extra 'examples' is not installed")
wavfile = pytest.importorskip("scipy.io.wavfile")

STEP = 2000
"""Samples of a step: two a quarter note, 120 quarters a minute, 8,000 a second."""


@pytest.fixture
def rolls(monkeypatch):
    """Short music instead of the chorales: random chords, each for a second."""
    random = np.random.default_rng(0)
    rolls = []
    for k in range(synthesized.CHORALES + 1):
        roll = np.zeros((4, 88), np.uint8)
        # No note of one chord is in the next: held notes fade.
        roll[:, random.choice(np.arange(24 + k % 2, 64, 2), 4, replace=False)] = 1
        rolls.append(roll)
    rolls[0] = np.concatenate(rolls[:15])  # 60 steps
    monkeypatch.setattr(bach_chorales, "load_data", lambda **_: (rolls, [], []))
    return rolls


def heard(samples):
    """The MIDI pitches with a peak of the spectrum, of one second."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    pitches = np.arange(40, 100)
    bins = 440 * 2 ** ((pitches - 69) / 12) * len(samples) / 8000
    near = [spectrum[round(b) - 1 : round(b) + 2].max() for b in bins]
    return set(pitches[np.array(near) > 0.2 * spectrum.max()].tolist())


def fail(*_, **__):
    raise AssertionError("written again")


def test_chorales_sound_as_written_and_are_written_once(rolls, tmp_path, monkeypatch):
    folder = synthesized.chorales(tmp_path, verbose=0)
    assert folder == tmp_path / "chorales_as_sound"
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"chorale_{k:02d}.wav" for k in range(60)]
    for path, roll in zip(paths, rolls, strict=False):
        rate, samples = wavfile.read(path)
        assert rate == 8000
        roll = roll[:48]
        # The second of silence is pretty_midi's.
        assert len(roll) * STEP <= len(samples) <= len(roll) * STEP + 8000
        assert not samples[len(roll) * STEP :].any()
        for step in range(0, len(roll), 4):
            second = samples[step * STEP : (step + 4) * STEP]
            assert heard(second) == set((21 + np.flatnonzero(roll[step])).tolist())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    monkeypatch.setattr(wavfile, "write", fail)
    synthesized.chorales(tmp_path, verbose=0)
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}


@pytest.mark.parametrize("known", ["as it was", "no JSON", "[]"])
def test_sound_that_was_changed_is_made_anew(rolls, tmp_path, caplog, known):
    folder = synthesized.chorales(tmp_path, verbose=0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    content = bytearray((folder / "chorale_07.wav").read_bytes())
    content[-1] ^= 1
    (folder / "chorale_07.wav").write_bytes(content)
    if known != "as it was":
        (tmp_path / "chorales_as_sound.sha256.json").write_text(known)
    synthesized.chorales(tmp_path, verbose=0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "chorale_07.wav is not what was made" in caplog.text
    caplog.clear()
    synthesized.chorales(tmp_path, verbose=0)
    assert not caplog.text


def test_an_interruption_leaves_whole_files(rolls, tmp_path, monkeypatch):
    write, count = wavfile.write, 0

    def interrupted(file, *arguments):
        nonlocal count
        count += 1
        if count == 4:
            with open(file, "wb") as half:
                half.write(b"RIFF")
            raise KeyboardInterrupt
        write(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(wavfile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            synthesized.chorales(tmp_path / "one", verbose=0)
    names = {path.name for path in (tmp_path / "one/chorales_as_sound").iterdir()}
    assert names == {"chorale_00.wav", "chorale_01.wav", "chorale_02.wav"}
    one, two = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (
            synthesized.chorales(tmp_path / "one", verbose=0),
            synthesized.chorales(tmp_path / "two", verbose=0),
        )
    )
    assert one == two


needs_speaker = pytest.mark.skipif(
    not synthesized.has_speaker(), reason="the program espeak-ng is not installed"
)


@needs_speaker
def test_every_voice_speaks_once(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesized, "SENTENCES", synthesized.SENTENCES[:2])
    folder = synthesized.speech(tmp_path, verbose=0)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {
        f"{voice}/sentence_0{k}.wav" for voice in synthesized.VOICES for k in (0, 1)
    }
    assert {str(path.relative_to(folder)) for path in paths} == names
    for path in paths:
        rate, samples = wavfile.read(path)
        assert 1 < len(samples) / rate < 6
        assert np.abs(samples).max() > 500
    monkeypatch.setattr(synthesized, "_speak", fail)
    assert synthesized.speech(tmp_path, verbose=0) == folder


@needs_speaker
def test_no_two_voices_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesized, "SENTENCES", synthesized.SENTENCES[:1])
    folder = synthesized.speech(tmp_path, verbose=0)
    sounds = {path.read_bytes() for path in folder.rglob("*.wav")}
    assert len(sounds) == len(synthesized.VOICES)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a program of the speaker's name, of these shell commands."""

    def make(commands):
        path = tmp_path / "bin" / synthesized.SPEAKER
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return make


def test_a_speaker_that_fails_or_is_not_there(program, tmp_path, monkeypatch):
    program("echo half > $5; echo no such voice >&2; exit 1")
    with pytest.raises(OSError, match="espeak-ng failed: no such voice"):
        synthesized.speech(tmp_path / "cache", verbose=0)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install espeak-ng"):
        synthesized.speech(tmp_path / "cache", verbose=0)


def test_a_speaker_that_says_nothing_and_ends_well(program, tmp_path):
    program("echo \"Can't write to: '$5'\" >&2")
    with pytest.raises(OSError, match="espeak-ng failed"):
        synthesized.speech(tmp_path / "cache", verbose=0)
