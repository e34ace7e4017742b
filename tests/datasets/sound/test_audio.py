"""Sound files: against FFmpeg, SciPy and NumPy; folders; frames; bad files."""

import logging
import math
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from keras_gated.datasets import audio, audio_dataset_from_directory
from keras_gated.datasets.sound import (
    decoders,
    reader,
    soundfile_decoder,
    tensorflow_io_decoder,
)
from keras_gated.datasets.sound.decoders import AudioError
from keras_gated.datasets.sound.frames import frames_dataset
from keras_gated.datasets.sound.reader import read_files

soundfile = pytest.importorskip("soundfile", reason="the extra 'audio' is not there")
WITH_TFIO = not decoders.why_no_tensorflow_io()
WITH_PYAV = decoders.installed("av")
DECODERS = ["soundfile"] + ["pyav"] * WITH_PYAV + ["tensorflow-io"] * WITH_TFIO

# What soundfile writes, and what tensorflow-io does not read.
FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAVEX", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("FLAC", "PCM_S8"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_III"}
UNREAD_BY_TFIO = {"PCM_32", "DOUBLE", "OPUS"}


def noise(samples, channels=1, seed=0):
    random = np.random.default_rng(seed)
    return 0.3 * np.tanh(random.normal(size=(samples, channels)))


def tone(samples, rate, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)


def write(path, sound, rate=8000, subtype="PCM_16", container=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, subtype, format=container)
    return path


def by_ffmpeg(path):
    """The samples, as floating-point numbers, and the rate."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        rate = container.streams.audio[0].rate
    parts = []
    for frame in frames:
        part = frame.to_ndarray()
        if not frame.format.is_planar:
            part = part.reshape(-1, frame.layout.nb_channels).T
        parts.append(part)
    samples = np.concatenate(parts, axis=1).T
    if samples.dtype == np.uint8:
        return (samples / 128.0 - 1).astype(np.float32), rate
    if samples.dtype.kind == "i":
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples / scale).astype(np.float32), rate
    return samples.astype(np.float32), rate


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_equals_ffmpeg(tmp_path, container, subtype, channels, decoder):
    if decoder == "tensorflow-io" and subtype in UNREAD_BY_TFIO:
        pytest.skip("tensorflow-io does not read it; see the test of that")
    rate = 48_000 if subtype == "OPUS" else 8000
    suffix = {"WAVEX": "wav"}.get(container, container.lower())
    sound = noise(6000, channels)
    path = write(tmp_path / f"sound.{suffix}", sound, rate, subtype, container)
    samples, found = audio.read(path, decoder=decoder)
    expected, rate = by_ffmpeg(path)
    assert samples.dtype == np.float32
    assert found == rate
    if subtype not in LOSSY:
        np.testing.assert_array_equal(samples, expected)
        return
    # Decoders differ in their last bits, and in how much silence they cut off.
    assert samples.shape == (6000, channels)
    part = samples[3000:3500]
    shift = np.correlate(expected[:, 0], part[:, 0], "valid").argmax()
    np.testing.assert_allclose(part, expected[shift : shift + 500], atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_32", "FLOAT"])
def test_equals_scipy(tmp_path, subtype):
    from scipy.io import wavfile

    path = write(tmp_path / "sound.wav", noise(1000, 3), 11_025, subtype)
    rate, expected = wavfile.read(path)
    samples, found = audio.read(path)
    assert found == rate
    if subtype != "FLOAT":
        bits = 8 * expected.itemsize
        expected = expected / 2.0 ** (bits - 1) - (bits == 8)
    np.testing.assert_array_equal(samples, expected.astype(np.float32))


@pytest.mark.skipif(not WITH_TFIO, reason="tensorflow-io does not load here")
def test_both_decoders_give_the_same_bits(tmp_path):
    import tensorflow as tf

    for container, subtype in FORMATS:
        suffix = {"WAVEX": "x.wav"}.get(container, container.lower())
        path = tmp_path / f"{subtype}.{suffix}"
        rate = 48_000 if subtype == "OPUS" else 8000
        write(path, noise(700_000 if subtype == "PCM_16" else 5000, 2), rate, subtype)
        if subtype in UNREAD_BY_TFIO:
            with pytest.raises(AudioError, match=str(path)):
                audio.read(path, decoder="tensorflow-io")
            both = audio.read(path)[0], audio.read(path, decoder="soundfile")[0]
        else:
            both = [
                audio.read(path, decoder=decoder)[0]
                for decoder in ("soundfile", "tensorflow-io")
            ]
        atol = 1e-5 if subtype in LOSSY else 0
        np.testing.assert_allclose(*both, rtol=0, atol=atol)
        if subtype in UNREAD_BY_TFIO | LOSSY:
            continue
        kind = tensorflow_io_decoder.KINDS[container.removesuffix("EX"), subtype]
        files = tf.data.Dataset.from_tensors(str(path)).map(tf.io.read_file)
        (samples,) = files.map(lambda file, k=kind: audio.decode_in_graph(file, *k))
        np.testing.assert_array_equal(samples, both[0])


@pytest.mark.skipif(not WITH_TFIO, reason="tensorflow-io does not load here")
def test_long_files_are_not_for_tensorflow_io(tmp_path, monkeypatch):
    sound = noise(1000, 2).astype(np.float32)
    path = write(tmp_path / "long.wav", sound, subtype="FLOAT")
    monkeypatch.setattr(tensorflow_io_decoder, "LARGEST_AT_ONCE", 2 * 1000)
    np.testing.assert_array_equal(audio.read(path, decoder="tensorflow-io")[0], sound)
    monkeypatch.setattr(tensorflow_io_decoder, "LARGEST_AT_ONCE", 2 * 1000 - 1)
    with pytest.raises(AudioError, match=r"1,000 samples are too many.*'soundfile'"):
        audio.read(path, decoder="tensorflow-io")
    np.testing.assert_array_equal(audio.read(path)[0], sound)


@pytest.mark.skipif(WITH_TFIO, reason="tensorflow-io loads here")
def test_tensorflow_io_that_is_asked_for_in_vain(tmp_path):
    path = write(tmp_path / "sound.wav", noise(100))
    with pytest.raises(ImportError, match=r"TensorFlow 2\.16 or 2\.17"):
        audio.read(path, decoder="tensorflow-io")


def test_decoder_is_said_in_the_log(tmp_path, caplog):
    path = write(tmp_path / "sound.wav", noise(100))
    with caplog.at_level(logging.INFO, "keras_gated"):
        read_files([path], cache=False, verbose=0)
    assert f"decoded by {decoders.decoder_name()}" in caplog.text


@pytest.mark.parametrize("rates", [(8000, 16_000), (44_100, 8000), (22_050, 8000)])
def test_resampled_tone_is_the_tone(tmp_path, rates):
    """And what lies above half the new rate is gone."""
    old, new = rates
    sound = np.stack([tone(old, old), tone(old, old, 0.499 * old)], axis=1)
    path = write(tmp_path / "sound.wav", sound, old, "FLOAT")
    samples, rate = audio.read(path, sampling_rate=new)
    assert rate == new
    assert abs(len(samples) - new) <= 1
    middle = slice(new // 4, new // 2)
    np.testing.assert_allclose(samples[middle, 0], tone(new, new)[middle], atol=1e-3)
    if new < old:
        assert np.abs(samples[middle, 1]).max() < 1e-3


def test_long_files_are_decoded_in_parts(tmp_path, monkeypatch):
    path = write(tmp_path / "sound.flac", noise(10_000, 2), 44_100)
    whole, _ = audio.read(path, mono=True)
    resampled, _ = audio.read(path, sampling_rate=16_000)
    for decoder in (soundfile_decoder, tensorflow_io_decoder):
        monkeypatch.setattr(decoder, "BLOCK", 256)
    np.testing.assert_array_equal(audio.read(path, mono=True)[0], whole)
    np.testing.assert_allclose(
        audio.read(path, sampling_rate=16_000)[0], resampled, atol=1e-6
    )
    assert whole.shape == (10_000, 1)
    both, _ = audio.read(path)
    np.testing.assert_array_equal(whole[:, 0], both.mean(axis=1))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_sound_in_blocks_is_the_sound_at_once(tmp_path, monkeypatch, suffix):
    """Written and read; MPEG's frames depend on those before, also across a seam."""
    sound = np.concatenate([noise(9000), tone(11_000, 8000)[:, None]])
    path = tmp_path / f"blocks.{suffix}"
    monkeypatch.setattr(audio, "WRITTEN_AT_ONCE", 1000)
    audio.write(sound, path, 8000)
    expected, _ = soundfile.read(path, dtype="float32")
    soundfile.write(tmp_path / f"once.{suffix}", sound, 8000)
    once, _ = soundfile.read(tmp_path / f"once.{suffix}", dtype="float32")
    # Vorbis chooses its first window by what the first block holds.
    same = slice(300 if suffix == "ogg" else 0, None)
    np.testing.assert_array_equal(expected[same], once[same])
    monkeypatch.setattr(soundfile_decoder, "BLOCK", 3000)
    samples, _ = audio.read(path, decoder="soundfile")
    np.testing.assert_allclose(samples[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_written_sound_is_read_again(tmp_path, suffix):
    path = tmp_path / "new" / f"sound.{suffix}"
    sound = np.append(tone(8000, 8000), [3.0, -3.0])
    audio.write(sound, path, 8000)
    samples, rate = audio.read(path)
    assert rate == 8000
    atol = 1e-4 if suffix in ("wav", "flac") else 0.1
    np.testing.assert_allclose(samples[:7900, 0], sound[:7900], atol=atol)
    assert list(path.parent.iterdir()) == [path]
    for arguments, message in (
        ((sound, "sound.aiff", 8000), "end in .wav"),
        ((sound, path, 0), "`sampling_rate` must be"),
        (([math.nan], path, 8000), "finite numbers"),
        ((np.zeros((1, 1, 1)), path, 8000), "finite numbers"),
        ((sound, path, 8000, 12), "16 or 24"),
    ):
        with pytest.raises(ValueError, match=message):
            audio.write(*arguments)


def wav_with(content=None, **fields):
    """A WAV file of 16 bits whose header says what one likes."""
    data = np.arange(200, dtype="<i2").tobytes() if content is None else content
    said = {"size": len(data), "rate": 8000, "channels": 1, "bits": 16, **fields}
    import struct

    block = said["channels"] * said["bits"] // 8
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + said["size"] & 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1),
        *(said["channels"], said["rate"], said["rate"] * block & 0xFFFFFFFF, block),
        *(said["bits"], b"data", said["size"]),
    )
    return head + data


BAD = {
    "empty.wav": (b"", "is empty"),
    "text.wav": (b"this is no sound, but it is long enough\n" * 20, "not a readable"),
    "riff.wav": (b"RIFF", "not a readable sound file"),
    "none.wav": (wav_with(b""), "holds no samples"),
    "still.wav": (wav_with(rate=0), "not a readable sound file|claims 0 samples"),
    "fast.wav": (wav_with(rate=1_000_000_000), "claims 1,000,000,000 samples per"),
    "channels.wav": (wav_with(channels=0), "not a readable sound file"),
    "bits.wav": (wav_with(bits=0), "not a readable sound file"),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name, decoder):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        audio.read(path, decoder=decoder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_is_no_number(tmp_path, decoder):
    # With the last, sums over channels and in resampling would overflow.
    for value in (math.nan, math.inf, -3e38):
        sound = noise(1000).astype("float32")
        sound[700] = value
        path = write(tmp_path / "sound.wav", sound, subtype="FLOAT")
        with pytest.raises(
            AudioError, match=r"not finite, or beyond 1e\+12, first in sample 700"
        ):
            audio.read(path, decoder=decoder)


def test_files_that_are_cut_off(tmp_path):
    """The headers of WAV and FLAC tell how much there should be."""
    wav = write(tmp_path / "sound.wav", noise(5000))
    whole, _ = audio.read(wav, decoder="soundfile")
    wav.write_bytes(wav.read_bytes()[:4000])
    flac = write(tmp_path / "sound.flac", noise(50_000))
    flac.write_bytes(flac.read_bytes()[:30_000])
    for decoder in DECODERS:
        if decoder != "tensorflow-io":  # which is not given what is damaged
            part, _ = audio.read(wav, decoder=decoder, errors="warn")
            np.testing.assert_array_equal(part, whole[: len(part)])
            assert len(part) == (4000 - 44) // 2
        for path in (wav, flac):
            with pytest.raises(AudioError, match=str(path)):
                audio.read(path, decoder=decoder)


def test_arguments_and_limits_of_read(tmp_path):
    path = write(tmp_path / "sound.wav", noise(16_000))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(IsADirectoryError):
        audio.read(tmp_path)
    for options, message in (
        ({"sampling_rate": 0}, "`sampling_rate` must be an integer from 100"),
        ({"decoder": "ffmpeg"}, "`decoder` must be 'auto', 'soundfile', 'pyav' or"),
        ({"max_seconds": 1}, "lasts longer than 1 seconds"),
    ):
        with pytest.raises(ValueError, match=message):
            audio.read(path, **options)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_mutated_files_end_in_samples_or_an_error(
    tmp_path, container, subtype, decoder
):
    random = np.random.default_rng(1)
    path = write(tmp_path / f"s.{container.lower()}", noise(2000), subtype=subtype)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    messages = []
    for _ in range(60):
        content = whole.copy()
        places = random.integers(0, min(len(content), 200), random.integers(1, 6))
        content[places] = random.integers(0, 256, len(places))
        path.write_bytes(content[: random.integers(1, len(content) + 1)].tobytes())
        try:
            samples, rate = audio.read(path, decoder=decoder, max_seconds=600)
        except AudioError as error:
            messages.append(str(error))
        else:
            assert np.isfinite(samples).all()
            assert len(samples)
            assert rate > 0
    assert messages
    assert all(str(path) in message for message in messages)


# Folders


@pytest.fixture
def folder(tmp_path):
    """Sound of several formats, lengths and folders, some of it bad."""
    root = tmp_path / "sound"
    for number, suffix in enumerate(["wav", "flac", "ogg", "mp3", "WAV"]):
        write(
            root / "ab"[number % 2] / f"{number}.{suffix}",
            noise(4000 + 100 * number, 1 + number % 2, number),
            subtype={"ogg": "VORBIS", "mp3": None}.get(suffix, "PCM_16"),
        )
    for name, (content, _) in BAD.items():
        (root / name).write_bytes(content)
    (root / "notes.txt").write_text("not looked at")
    return root


def test_folder(folder, tmp_path, capsys):
    data = audio_dataset_from_directory(
        folder, sequence_length=500, cache_dir=tmp_path / "cache", shuffle=False
    )
    names = [path.name for path in data.file_paths]
    assert names == ["0.wav", "2.ogg", "4.WAV", "1.flac", "3.mp3"]
    recordings = data.recordings
    assert {path.name for path in recordings.skipped} == set(BAD)
    for path, reason in recordings.skipped.items():
        assert str(path) in reason
    printed = capsys.readouterr().out
    assert "13/13" in printed
    assert "skipped: empty" in printed
    assert recordings.report.readers == {decoders.decoder_name(): 5}
    for number, path in enumerate(data.file_paths):
        expected, _ = audio.read(path, mono=True)
        np.testing.assert_array_equal(recordings[number], expected[:, 0])
    everything = np.concatenate([recordings[i] for i in range(5)]).astype(np.float64)
    mean, std = data.standardization
    assert mean == pytest.approx(everything.mean())
    assert std == pytest.approx(everything.std())
    inputs, targets, weights = next(iter(data))
    assert (weights.numpy() == 1).all()
    first = (recordings[0][:500] - mean) / std
    np.testing.assert_allclose(inputs[0, 0], first[:20], rtol=1e-5)
    np.testing.assert_allclose(targets[0].numpy().ravel(), first[20:], rtol=1e-5)
    with pytest.raises(AudioError, match="sound"):
        audio_dataset_from_directory(folder, errors="raise", verbose=0, cache=False)


def test_rates_are_not_mixed(tmp_path, caplog):
    """Files of other rates get that of most; or all the rate that is asked for."""
    write(tmp_path / "a.wav", noise(1600), 16_000)
    for name in "bc":
        write(tmp_path / f"{name}.wav", noise(800), 8000)
    paths = sorted(tmp_path.glob("*.wav"))
    options = {"verbose": 0, "cache_dir": tmp_path / "cache"}
    for _ in range(2):  # and from the cache
        with caplog.at_level(logging.INFO, "keras_gated"):
            recordings = read_files(paths, **options)
        assert recordings.paths == paths
        assert recordings.sampling_rate == 8000
        assert [abs(n - 800) <= 1 for n in recordings.lengths] == [True] * 3
        assert "1 of 3 sound files are resampled to 8000" in caplog.text
        assert [w.kind for w in recordings.warnings[paths[0]]] == ["resampled"]
        expected, _ = audio.read(paths[0], 8000)
        np.testing.assert_array_equal(recordings[0], expected[:, 0])
        caplog.clear()
    recordings = read_files(paths, 16_000, **options)
    assert recordings.sampling_rate == 16_000
    assert not recordings.warnings


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    """It is not kept as what it was before: it is skipped, and read next time."""
    path = write(tmp_path / "a.wav", noise(800))
    decode = reader.decode

    def change_and_decode(*arguments):
        write(path, noise(900, seed=1))
        return decode(*arguments)

    options = {"verbose": 0, "cache_dir": tmp_path / "cache"}
    with monkeypatch.context() as patch:
        patch.setattr(reader, "decode", change_and_decode)
        with pytest.raises(ValueError, match=r"a\.wav' changed while it was read"):
            read_files([path], **options)
    expected, _ = audio.read(path)
    np.testing.assert_array_equal(read_files([path], **options)[0], expected[:, 0])


def test_an_old_name_of_an_argument_is_named(tmp_path):
    path = write(tmp_path / "a.wav", noise(800))
    for call in (
        lambda: audio.read(path, sample_rate=4000),
        lambda: read_files([path], sample_rate=4000),
        lambda: audio.read_directory(tmp_path, sample_rate=4000),
        lambda: audio_dataset_from_directory(tmp_path, sample_rate=4000),
    ):
        with pytest.raises(TypeError, match="'sample_rate'"):
            call()


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        audio_dataset_from_directory(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no sound file"):
        audio_dataset_from_directory(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="None of the 1 sound files"):
        audio_dataset_from_directory(tmp_path, verbose=0, cache=False)
    write(tmp_path / "silent.wav", np.zeros(900))
    with pytest.raises(ValueError, match="are equal, as in silence"):
        audio_dataset_from_directory(tmp_path, verbose=0, cache=False)
    data = audio_dataset_from_directory(
        tmp_path, verbose=0, cache=False, standardize=False, sequence_length=300
    )
    assert len(data) == 1
    for arguments, message in (
        ({"sequence_length": 2000}, "No sequence of 2,000 samples"),
        (
            {"sequence_length": 29},
            "must be an integer of at least 30",
        ),
        ({"hop": 0}, "`hop` must be a positive integer"),
        ({"remainder": "keep"}, "`remainder` must be"),
        ({"errors": "ignore"}, "`errors` must be"),
        ({"workers": 0}, "`workers` must be"),
        ({"validation_split": 0.5}, "go together"),
        ({"labels": "inferred"}, "`labels` must be None: the targets are the next"),
        ({"output_sequence_length": 9}, "must be None; `sequence_length` cuts"),
        ({"ragged": True}, "`ragged` must be False; padding has weight 0"),
        ({"standardize": (0.0, 0.0)}, "must be a finite number above 0"),
        ({"standardize": 3}, "`standardize` must be True, False, or a pair"),
        (
            {"validation_split": 0.5, "subset": "both", "seed": 1},
            "each of two parts needs one",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            audio_dataset_from_directory(
                tmp_path,
                **{"standardize": False, "verbose": 0, "cache": False, **arguments},
            )
    with pytest.raises(ValueError, match="`paths` must name one file"):
        read_files([])


def test_cache(tmp_path, caplog, monkeypatch):
    """A second reading decodes nothing; damage is noticed and mended."""
    paths = [write(tmp_path / f"{k}.wav", noise(500, seed=k)) for k in range(4)]
    paths.append(write(tmp_path / "same.wav", noise(500, seed=0)))
    cache = tmp_path / "cache"
    options = {"cache_dir": cache, "verbose": 0}

    def sounds(paths=paths):
        recordings = read_files(paths, **options)
        return [recordings[i].tobytes() for i in range(len(recordings))]

    first = sounds()
    assert first[0] == first[4] != first[1]
    with monkeypatch.context() as patch:
        patch.setattr(reader, "decode", None)
        assert sounds() == first
        assert sounds(paths[::-1]) == first[::-1]
    (data,) = cache.glob("*.data")
    os.truncate(data, 3000)
    assert sounds() == first
    assert "is damaged and is made anew" in caplog.text
    (table,) = cache.glob("*.sqlite")
    table.write_bytes(b"no table" * 1000)
    assert sounds() == first
    recordings = read_files(paths, **options)
    os.truncate(data, 3000)
    with pytest.raises(OSError, match="damaged or cut off"):
        recordings[3]


@pytest.mark.parametrize("length", [500, 200_000])
def test_samples_that_were_changed_are_never_heard(tmp_path, length):
    """Each stretch is checked when it is first read; the next time all is decoded."""
    paths = [write(tmp_path / f"{k}.wav", noise(length, seed=k)) for k in range(3)]
    options = {"cache_dir": tmp_path / "cache", "verbose": 0}
    first = read_files(paths, **options)
    expected = [first[i].tobytes() for i in range(3)]
    (data,) = (tmp_path / "cache").glob("*.data")
    samples = np.fromfile(data, np.float32)
    samples[2 * length - 1] += 1  # the last of the second file
    samples.tofile(data)
    changed = read_files(paths, **options)
    assert changed[0].tobytes() == expected[0]
    with pytest.raises(OSError, match=r"samples of .*1\.wav.* are damaged"):
        changed[1]
    with pytest.raises(OSError, match="damaged"):  # also a part of it
        changed.copy([2 * length - 2], [np.empty(1, np.float32)])
    again = read_files(paths, **options)
    assert [again[i].tobytes() for i in range(3)] == expected


SCRIPT = """
import sys
from keras_gated.datasets import audio, store
store.SECONDS_UNSAVED = 0
put = store.Store.put
def put_and_tell(self, *arguments):
    entry = put(self, *arguments)
    print(entry.result().start, flush=True)
    return entry
store.Store.put = put_and_tell
audio.read_files(sys.argv[2:], cache_dir=sys.argv[1], verbose=0)
"""


@pytest.mark.slow
def test_killed_while_it_reads(tmp_path):
    """What was stored before is there, and what is read after is right."""
    paths = [write(tmp_path / f"{k}.wav", noise(200_000, seed=k)) for k in range(8)]
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", SCRIPT, str(cache), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    recordings = read_files(paths, cache_dir=cache, verbose=0)
    again = read_files(paths, cache=False, verbose=0)
    for i in range(8):
        np.testing.assert_array_equal(recordings[i], again[i])


def test_a_temporary_store_goes_with_its_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = write(tmp_path / "a.wav", noise(500))
    recordings = read_files([path], cache=False, verbose=0)
    some = recordings.take([0])
    del recordings
    assert len(some[0]) == 500
    del some
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_splits(tmp_path):
    for number in range(20):
        write(
            tmp_path / f"speaker{number % 5}" / f"{number}.wav", noise(100, 1, number)
        )
    options = {"validation_split": 0.2, "seed": 3, "verbose": 0, "cache": False}

    def speaker(path):
        return path.parent.name

    parts = audio_dataset_from_directory(tmp_path, subset="both", **options)
    names = [{path.name for path in part.file_paths} for part in parts]
    assert [len(some) for some in names] == [16, 4]
    assert not names[0] & names[1]
    alone = audio_dataset_from_directory(tmp_path, subset="validation", **options)
    assert {path.name for path in alone.file_paths} == names[1]
    assert alone.standardization == parts[0].standardization
    train, valid = audio_dataset_from_directory(
        tmp_path, subset="both", groups=speaker, **options
    )
    assert {*map(speaker, train.file_paths)} & {
        *map(speaker, valid.file_paths)
    } == set()
    assert len(valid.file_paths) == 4


# Frames


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    lengths = [700, 31, 29, 1500, 333, 30]
    paths = [
        write(folder / f"{k}.wav", noise(n, seed=k), subtype="FLOAT")
        for k, n in enumerate(lengths)
    ]
    return read_files(paths, verbose=0, cache_dir=folder / "cache")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_frames_equal_sliding_windows(recordings, data):
    """Every sequence, whatever the sizes: frames, targets, weights."""
    frame, target = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 15))
    hop = data.draw(st.one_of(st.none(), st.integers(1, 30)))
    length = data.draw(st.one_of(st.none(), st.integers(frame + target, 900)))
    join = data.draw(st.booleans())
    remainder = data.draw(st.sampled_from(["drop", "pad"]))
    dataset = frames_dataset(
        recordings,
        frame,
        target,
        hop,
        length,
        batch_size=data.draw(st.integers(1, 5)),
        join=join,
        remainder=remainder,
        max_shapes=data.draw(st.integers(1, 4)),
    )
    sounds = [recordings[i] for i in range(len(recordings))]
    if join:
        sounds = [np.concatenate(sounds)]
    pieces = [
        sound[k : k + (length or len(sound))]
        for sound in sounds
        for k in range(0, len(sound), length or len(sound))
    ]
    whole = length is not None and remainder == "drop"
    expected = []
    for piece in pieces:
        if len(piece) < (length if whole else frame + target):
            continue
        windows = sliding_window_view(piece, frame + target)[:: hop or target]
        expected.append(windows.tobytes())
    found = []
    for batch in dataset:
        for row in zip(*(part.numpy() for part in batch), strict=True):
            count = int(row[2].sum())
            assert row[2].tolist() == [1] * count + [0] * (len(row[2]) - count)
            assert not row[0][count:].any()
            if whole:
                assert count == len(row[2]), "there is no padding"
            if not count:
                continue
            windows = np.concatenate([row[0][:count], row[1][:count]], axis=-1)
            found.append(windows.tobytes())
    assert sorted(found) == sorted(expected)


def test_targets_tile_the_waveform(recordings):
    """The sum of the steps' NLLs is that of the waveform after its first frame."""
    from scipy import stats

    from keras_gated.metrics import EventNLL

    dataset = frames_dataset(recordings.take([3]), sequence_length=1500)
    ((inputs, targets, _),) = dataset
    assert inputs.shape == (1, 148, 20)
    sound = recordings[3]
    np.testing.assert_array_equal(targets.numpy().ravel(), sound[20:])
    # One Gaussian for all, as the parameters of a mixture of one component.
    mean, scale = 0.1, 0.4
    parameters = np.concatenate(
        [np.zeros(1), np.full(10, mean), np.full(10, np.log(scale))]
    )
    metric = EventNLL(components=1, event_dim=10)
    metric.update_state(targets, np.tile(parameters, (1, 148, 1)))
    expected = -stats.norm.logpdf(sound[20:], mean, scale).sum()
    assert float(metric.result()) * 148 == pytest.approx(expected, rel=1e-5)


def test_shuffled_passes(recordings):
    def order(dataset):
        return [row.tobytes() for x, *_ in dataset for row in x.numpy()]

    options = {"sequence_length": 60, "batch_size": 4, "shuffle": True}
    dataset = frames_dataset(recordings, seed=5, **options)
    same = frames_dataset(recordings, seed=5, **options)
    other = frames_dataset(recordings, seed=6, **options)
    passes = [order(dataset), order(dataset)]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1])
    assert [order(same), order(same)] == passes
    assert order(other) != passes[0]


def test_a_model_trains_on_it(recordings):
    import keras_gated

    data = frames_dataset(
        recordings, batch_size=2, standardization=recordings.standardization()
    )
    model = keras.Sequential(
        [
            keras.Input((None, 20)),
            keras_gated.SimplifiedGRU(4, return_sequences=True),
            keras_gated.GaussianMixture(2, 10),
        ]
    )
    model.compile(
        "rmsprop",
        keras_gated.losses.GaussianMixtureNLL(2, 10),
        weighted_metrics=[keras_gated.metrics.EventNLL(2, 10, name="nll")],
    )
    history = model.fit(data, epochs=3, verbose=0).history["nll"]
    assert history[-1] < history[0]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Forty minutes of one file, decoded and passed over, in a process of its own."""
    if sys.platform != "linux":
        pytest.skip("reads Linux's account of memory")
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        part = noise(16_000 * 60)
        for _ in range(40):
            file.write(part)
    script = """
import re, sys
from keras_gated.datasets import audio
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
short = audio.read_files(sys.argv[1:2], cache=False, verbose=0)
data = audio.frames_dataset(short, sequence_length=500, batch_size=64, shuffle=True)
data.reduce(0, lambda n, *batch: n + 1)
before = peak()
long = audio.read_files(sys.argv[2:], cache=False, verbose=0)
data = audio.frames_dataset(long, sequence_length=500, batch_size=64, shuffle=True)
data.reduce(0, lambda n, *batch: n + 1)
print(peak() - before, long.lengths.sum() * 4 // 1024)
"""
    short = write(tmp_path / "short.wav", noise(100_000), 16_000)
    done = subprocess.run(
        [sys.executable, "-c", script, short, path],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, size = map(int, done.stdout.split()[-2:])
    assert size > 140_000
    assert grown < size / 3
