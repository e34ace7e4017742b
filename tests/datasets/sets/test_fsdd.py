"""The spoken digits: small ones of our own, and the real ones where they are."""

import itertools
import os
import re

import numpy as np
import pytest

from keras_gated.datasets import audio, fsdd

pytest.importorskip("soundfile", reason="the extra 'audio' is not installed")

REAL = os.environ.get(fsdd.DATA_DIR)
SPEAKERS = ["anna", "ben", "cleo", "dora"]


@pytest.fixture
def digits(tmp_path):
    """Two digits, each 12 times by four speakers; every file says its own number."""
    folder = tmp_path / "digits"
    names = itertools.product((0, 7), SPEAKERS, range(12))
    for number, (digit, speaker, index) in enumerate(names):
        level = np.full(200 + number, number / 128)
        audio.write(level, folder / f"{digit}_{speaker}_{index}.wav", 8000)
    for other in ("0_anna.wav", "10_anna_1.wav", "0_anna_1.flac", "README.md"):
        (folder / other).write_bytes(b"no digit")
    return folder


def names(part):
    return [path.name for path in part.paths]


def test_parts_by_recording(digits, monkeypatch):
    monkeypatch.setenv(fsdd.DATA_DIR, str(digits))
    (digits / "7_ben_3.wav").write_bytes(b"broken")
    parts = fsdd.load_data(cache=False, verbose=0)
    expected = [
        sorted(
            f"{digit}_{speaker}_{index}.wav"
            for digit, speaker, index in itertools.product((0, 7), SPEAKERS, indices)
        )
        for indices in (range(10, 12), range(5, 10), range(5))
    ]
    expected[2].remove("7_ben_3.wav")
    assert [names(part) for part in parts] == expected
    for part in parts:
        assert list(part.skipped) == [digits / "7_ben_3.wav"]
        # 24 files a digit and speaker: the samples are those of the file named.
        for path, sound in zip(
            part.paths, map(part.__getitem__, range(9)), strict=False
        ):
            digit, speaker, index = path.stem.split("_")
            number = 48 * (digit == "7") + 12 * SPEAKERS.index(speaker) + int(index)
            assert len(sound) == 200 + number
            np.testing.assert_allclose(sound, number / 128, atol=1e-4)


def test_parts_by_speaker(digits):
    parts = fsdd.load_data(
        digits, "speaker", sampling_rate=4000, cache=False, verbose=0
    )
    assert [{name.split("_")[1] for name in names(part)} for part in parts] == [
        {"anna", "ben"},
        {"cleo"},
        {"dora"},
    ]
    assert [len(part) for part in parts] == [48, 24, 24]
    assert {part.sampling_rate for part in parts} == {4000}
    for path in digits.glob("*_[ab]*"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no recordings for training"):
        fsdd.load_data(digits, "speaker", cache=False, verbose=0)


def test_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv(fsdd.DATA_DIR, raising=False)
    for folder in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=f"{fsdd.DATA_DIR}.*git clone"):
            fsdd.load_data(folder)
    with pytest.raises(ValueError, match="`split` must be 'recording' or 'speaker'"):
        fsdd.load_data(tmp_path, split="digit")


@pytest.mark.skipif(
    not REAL or not os.path.isdir(REAL), reason=f"{fsdd.DATA_DIR} names no folder"
)
def test_the_real_ones(tmp_path):
    by_recording = fsdd.load_data(cache_dir=tmp_path, verbose=0)
    by_speaker = fsdd.load_data(split="speaker", cache_dir=tmp_path, verbose=0)
    assert [len(part) for part in by_recording] == [2400, 300, 300]
    assert [len(part) for part in by_speaker] == [2000, 500, 500]
    for parts in (by_recording, by_speaker):
        assert len({path for part in parts for path in part.paths}) == 3000
        for part in parts:
            assert part.sampling_rate == 8000
            assert not part.skipped
            digits = [int(re.match(r"\d", name)[0]) for name in names(part)]
            assert np.ptp(np.bincount(digits, minlength=10)) == 0
    assert 20 < sum(part.seconds for part in by_recording) / 60 < 24
