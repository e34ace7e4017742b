"""Nothing is lost in silence: what is read in part, cut, joined, mixed or skipped."""

import collections
import json
import logging
import os
import pathlib
import struct
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from keras_gated.datasets import audio, audio_dataset_from_directory
from keras_gated.datasets.sound import decoders, reader
from keras_gated.datasets.sound.decoders import AudioError
from keras_gated.datasets.sound.headers import WHOLE, inspect
from keras_gated.datasets.sound.reader import read_files

soundfile = pytest.importorskip("soundfile", reason="the extra 'audio' is not there")
av = pytest.importorskip("av", reason="PyAV is not there")
RATE = 16_000
SCRIPT = pathlib.Path(__file__).parents[3] / "benchmarks" / "fuzz_sound.py"
FIRST = decoders.decoder_name()
"""What reads a plain file."""
EITHER = ["auto", "soundfile", "pyav"]


def tone(samples=3 * RATE, rate=RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)


def noise(samples, channels=1, seed=0):
    random = np.random.default_rng(seed)
    return 0.3 * np.tanh(random.normal(size=(samples, channels)))


def written(path, sound, rate=RATE, subtype="PCM_16", container=None, **options):
    channels = 1 if np.ndim(sound) == 1 else np.shape(sound)[1]
    container = container or path.suffix[1:].upper()
    with soundfile.SoundFile(
        path, "w", rate, channels, subtype, format=container, **options
    ) as file:
        file.write(sound)
    return path.read_bytes()


def encoded(path, codecs, rate=48_000, samples=96_000):
    """A file by FFmpeg: of a tone for each codec of sound, of pictures for "mpeg4"."""
    with av.open(str(path), "w") as file:
        streams = [
            file.add_stream(codec, rate=10 if codec == "mpeg4" else rate)
            for codec in codecs
        ]
        for stream in streams:
            if stream.type == "video":
                stream.width = stream.height = 32
                continue
            stream.layout, stream.bit_rate = "mono", 64_000
            stream.format = stream.codec.audio_formats[0].name
        file.start_encoding()
        for stream in streams:
            at, video = 0, stream.type == "video"
            for frame in pictures() if video else frames(stream, samples):
                frame.pts, frame.time_base = at, Fraction(1, 10 if video else rate)
                at += 1 if video else frame.samples
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return path.read_bytes()


def pictures():
    return [av.VideoFrame(32, 32, "yuv420p") for _ in range(5)]


def frames(stream, samples):
    sound = tone(samples, stream.rate).astype(np.float32)[None]
    whole = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
    whole.sample_rate, whole.pts = stream.rate, 0
    waiting = av.AudioFifo()
    resampler = av.AudioResampler(stream.format.name, "mono", stream.rate)
    for part in [*resampler.resample(whole), *resampler.resample(None)]:
        waiting.write(part)
    size = stream.codec_context.frame_size or 1024
    return iter(lambda: waiting.read(size, True), None)


def read(path, content=None, **arguments):
    if content is not None:
        path.write_bytes(content)
    return audio.read(path, **arguments)


def unless_refused(path, **arguments):
    """The samples; or `None`, if there is an error, which has to name the file."""
    try:
        return audio.read(path, **arguments)[0]
    except AudioError as error:
        message = str(error)
    assert str(path) in message
    return None


def kinds(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= 30]


# What soundfile does not read

LENGTHS = [  # the ending, the codec, samples per second, how many samples too many
    ("m4a", "aac", 48_000, 0),
    ("m4a", "alac", 48_000, 0),
    ("mp4", "aac", 48_000, 0),
    ("3gp", "aac", 48_000, 0),
    ("mov", "pcm_s16be", 48_000, 0),
    ("webm", "libopus", 48_000, 0),
    ("mka", "libopus", 48_000, 0),
    ("mkv", "flac", 48_000, 0),
    ("opus", "libopus", 48_000, 0),
    ("oga", "flac", 48_000, 0),
    ("wv", "wavpack", 48_000, 0),
    ("tta", "tta", 48_000, 0),
    ("mp3", "libmp3lame", 48_000, 0),
    ("caf", "alac", 48_000, 0),
    ("aiff", "pcm_f32be", 48_000, 0),
    ("wav", "adpcm_ms", RATE, 2048),
    ("wav", "pcm_mulaw", RATE, 0),
    ("wav", "g722", RATE, 0),
    # Formats that do not say how much silence the encoder has added.
    ("aac", "aac", 48_000, 2048),
    ("ts", "aac", 48_000, 2048),
    ("flv", "aac", 44_100, 2048),
    ("ac3", "ac3", 48_000, 1536),
    ("mp2", "mp2", 48_000, 1152),
    ("avi", "libmp3lame", 48_000, 2304),
    ("wav", "libmp3lame", RATE, 2304),
    ("wma", "wmav2", 44_100, 2048),
]


@pytest.mark.parametrize(("ending", "codec", "rate", "more"), LENGTHS)
def test_what_ffmpeg_writes(tmp_path, ending, codec, rate, more, caplog):
    """The length is that of the sound, the sound is the tone, whatever the name."""
    content = encoded(tmp_path / f"a.{ending}", [codec], rate)
    path = tmp_path / "sound.mp3"
    samples, found = read(path, content)
    assert found == rate
    assert -more <= len(samples) - 96_000 <= more
    assert not kinds(caplog)
    middle = samples[20_000:60_000, 0]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(spectrum.argmax() * rate / len(middle) - 440) < 2
    quiet = 0.25 if codec in ("pcm_mulaw", "g722", "adpcm_ms", "wmav2", "mp2") else 0.1
    assert abs(np.abs(middle).max() - 0.5) < quiet
    # Half of it is never taken for all of it.
    if codec == "adpcm_ms" or ending in ("ts", "flv"):
        return
    path.write_bytes(content[: len(content) // 2 - 7])
    if (samples := unless_refused(path)) is not None:
        assert len(samples) < 0.6 * 96_000
        assert any(str(path) in line for line in kinds(caplog))


EXACT = [
    *(("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32")),
    *(("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16")),
    *(("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AU", "PCM_16")),
    *(("CAF", "PCM_16"), ("CAF", "PCM_24"), ("FLAC", "PCM_S8"), ("FLAC", "PCM_16")),
    *(("FLAC", "PCM_24"), ("WAV", "ULAW"), ("WAV", "ALAW")),
]


@pytest.mark.parametrize(("container", "subtype"), EXACT)
def test_pyav_gives_the_bits_of_soundfile(tmp_path, container, subtype):
    """Also above 1, where the format has it."""
    path = tmp_path / "sound"
    sound = noise(5000, 2) * (8 if subtype in ("FLOAT", "DOUBLE") else 1)
    written(path, sound, 8000, subtype, container)
    both = [audio.read(path, decoder=decoder) for decoder in ("soundfile", "pyav")]
    np.testing.assert_array_equal(both[0][0], both[1][0])
    assert both[0][1] == both[1][1] == 8000
    assert both[0][0].shape == (5000, 2)


# What soundfile reads in part


def without_index(path):
    """A variable-rate MP3 without the frame that says how long it is."""
    sound = np.concatenate([tone(), noise(3 * RATE)[:, 0], 0.02 * tone()])
    rates = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
    content = written(path, sound, RATE, "MPEG_LAYER_III", "MP3", **rates)
    return content[288:]


def part_of_a_flac(path):
    content = bytearray(written(path, tone(), container="FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def wav_of_size(data, riff=None):
    def make(path):
        content = bytearray(written(path, tone(), container="WAV"))
        content[40:44] = struct.pack("<I", data)
        if riff is not None:
            content[4:8] = struct.pack("<I", riff)
        return bytes(content)

    return make


IN_PART = {
    "MP3 without an index": (without_index, 9 * RATE, 1152 + 577),
    "FLAC of unknown length": (part_of_a_flac, 3 * RATE, 0),
    "WAV with sizes of 0": (wav_of_size(0, 0), 3 * RATE, 0),
    "WAV with a size of 0": (wav_of_size(0), 3 * RATE, 0),
    "WAV with sizes of -1": (wav_of_size(2**32 - 1, 2**32 - 1), 3 * RATE, 0),
    "WAV as arecord writes it": (wav_of_size(2**31, 2**31 + 36), 3 * RATE, 0),
}


@pytest.mark.parametrize("name", IN_PART)
def test_what_soundfile_reads_in_part(tmp_path, name, caplog, monkeypatch):
    make, length, more = IN_PART[name]
    path = tmp_path / "sound"
    path.write_bytes(make(path))
    with caplog.at_level(logging.INFO, "keras_gated"):
        samples, rate = audio.read(path)
        recordings = read_files([path], cache=False, verbose=0)
    assert rate == RATE
    assert 0 <= len(samples) - length <= more
    assert recordings.lengths[0] == len(samples)
    assert f"{str(path)!r} is decoded by " in caplog.text
    if recordings.report.readers == {"pyav": 1}:
        assert "is decoded by pyav (" in caplog.text  # and why
    for decoder in ("soundfile", "pyav"):
        alone = unless_refused(path, decoder=decoder)  # never a part in silence
        if decoder == "pyav" or alone is not None:
            np.testing.assert_array_equal(alone, samples)
    monkeypatch.setitem(sys.modules, "av", None)
    alone = unless_refused(path)
    assert alone is None or len(alone) == len(samples)


def two(rate, channels=1, seed=0):
    return noise(20_000, channels, seed), rate


JOINED = [
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    *(("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")),
]


@pytest.mark.parametrize("decoder", EITHER)
@pytest.mark.parametrize(("container", "subtype"), JOINED)
def test_joined_files(tmp_path, container, subtype, decoder, caplog):
    """All of each, in the form of the first; the samples are those of each alone."""
    path, rate = tmp_path / "sound", 48_000 if subtype == "OPUS" else RATE
    contents, sounds = [], []
    for seed, (new_rate, channels) in enumerate([(rate, 1), (rate, 1), (24_000, 2)]):
        content = written(
            path, noise(20_000, channels, seed), new_rate, subtype, container
        )
        contents.append(content)
        sounds.append(audio.read(path, decoder=decoder)[0])
    samples, _ = read(path, contents[0] + contents[1], decoder=decoder)
    np.testing.assert_allclose(samples, np.concatenate(sounds[:2]), atol=1e-6)
    assert "is 2 sounds, one after the other" in kinds(caplog)[-1]
    samples, found = read(path, contents[0] + contents[2], decoder=decoder)
    assert found == rate
    assert samples.shape[1] == 1
    np.testing.assert_allclose(samples[:20_000], sounds[0], atol=1e-6)
    ratio = 1 if decoder == "pyav" and subtype == "OPUS" else rate / 24_000
    rest = len(sounds[2]) * ratio
    assert abs(len(samples) - 20_000 - rest) <= 2
    assert any("it is converted to the form" in line for line in kinds(caplog))


def test_junk_and_tags_around_mp3(tmp_path):
    path = tmp_path / "sound.mp3"
    whole = written(path, noise(20_000), RATE, "MPEG_LAYER_III", "MP3")
    expected, _ = audio.read(path)
    assert len(expected) == 20_000
    id3 = b"ID3\x04\0\0\0\0\x27\x08" + bytes(5000)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(40)
    junk = np.random.default_rng(0).bytes(3000)
    for content in (
        *(id3 + whole, whole + b"TAG" + bytes(125), whole + ape + b"TAG" + bytes(125)),
        *(junk + whole, bytes(3000) + whole, id3 + id3 + whole),
    ):
        for decoder in EITHER:
            samples, _ = read(path, content, decoder=decoder)
            np.testing.assert_allclose(samples, expected, atol=1e-4)


# What is not there

CUT = [
    *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW")),
    *(("WAV", "MS_ADPCM"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
    *(("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("FLAC", "PCM_16")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
]


@pytest.mark.parametrize("decoder", EITHER)
@pytest.mark.parametrize(("container", "subtype"), CUT)
def test_half_a_file(tmp_path, container, subtype, decoder, caplog):
    path, rate = tmp_path / "sound", 48_000 if subtype == "OPUS" else RATE
    content = written(path, noise(400_000), rate, subtype, container)
    whole, _ = audio.read(path, decoder=decoder)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"is cut off|to its end") as caught:
        audio.read(path, decoder=decoder)
    assert caught.value.kind in ("cut off", "damaged")
    assert str(path) in str(caught.value)
    try:
        part, _ = audio.read(path, decoder=decoder, errors="warn")
    except AudioError:
        assert (container, decoder) in (("FLAC", "soundfile"), ("CAF", "soundfile"))
        return
    assert 0.3 < len(part) / len(whole) < 0.6
    np.testing.assert_allclose(part[:100_000], whole[:100_000], atol=1e-4)
    (line,) = (line for line in kinds(caplog) if "cut off" in line)
    assert str(path) in line
    if container != "OGG":
        assert "% is missing" in line


def test_a_cut_file_among_others(tmp_path, monkeypatch):
    """Skipped by default, kept in part where asked for; from the cache alike."""
    written(tmp_path / "a.wav", tone())
    cut = tmp_path / "b.wav"
    cut.write_bytes((tmp_path / "a.wav").read_bytes()[:48_022])
    options = {"verbose": 0, "cache_dir": tmp_path / "cache"}
    skipping = audio.read_directory(tmp_path, **options)
    assert skipping.skipped[cut].kind == "cut off"
    assert "48,000 samples, and 23,989 are there" in skipping.skipped[cut]
    kept = audio.read_directory(tmp_path, errors="warn", **options)
    monkeypatch.setattr(reader, "decode", None)
    again = audio.read_directory(tmp_path, errors="warn", **options)
    for recordings in (kept, again):
        assert recordings.lengths.tolist() == [48_000, 23_989]
        assert recordings.warnings == {cut: [f"{skipping.skipped[cut]}."]}
        assert recordings.warnings[cut][0].kind == "cut off"
        assert recordings.report.readers == collections.Counter([FIRST, "soundfile"])
    assert str(kept) == str(again)
    skipping = audio.read_directory(tmp_path, **options)
    assert list(skipping.skipped) == [cut]
    with pytest.raises(AudioError, match=r"b\.wav' is cut off"):
        audio.read_directory(tmp_path, errors="raise", **options)


def test_a_damaged_frame(tmp_path, caplog):
    """FFmpeg alone gives noise in its place."""
    path = tmp_path / "sound.flac"
    content = bytearray(written(path, tone(), container="FLAC"))
    whole, _ = audio.read(path)
    content[len(content) // 2] ^= 255
    for decoder in EITHER:
        with pytest.raises(AudioError, match=str(path)):
            read(path, bytes(content), decoder=decoder)
    samples, _ = audio.read(path, errors="warn")
    assert 0 < len(whole) - len(samples) <= 5 * 4096
    assert np.abs(samples).max() < 0.51
    assert "% is missing" in kinds(caplog)[-1]


def test_what_follows_the_sound_is_said(tmp_path, caplog):
    path = tmp_path / "sound.wav"
    content = wav_of_size(20_000)(path)
    samples, _ = read(path, content)
    assert len(samples) == 10_000
    assert "holds 76,000 bytes after its sound, which are not read" in caplog.text
    caplog.clear()
    chunk = b"LIST" + struct.pack("<I", 12) + b"INFOIART\0\0\0\0"
    read(path, written(path, tone()) + chunk)
    assert not kinds(caplog)


# Channels


def test_channels_that_cancel(tmp_path, caplog):
    path = tmp_path / "opposite.wav"
    written(path, np.stack([tone(), -tone()], 1))
    for decoder in EITHER:
        caplog.clear()
        samples, _ = audio.read(path, mono=True, decoder=decoder)
        assert np.abs(samples).max() < 1e-4
        (line,) = kinds(caplog)
        assert f"{str(path)!r} has channels that cancel" in line
        assert "`channel=0`" in line
    caplog.clear()
    one, _ = audio.read(path, channel=0)
    two, _ = audio.read(path, channel=1, mono=True)
    np.testing.assert_allclose(one, -two, atol=1e-4)
    np.testing.assert_allclose(one[:, 0], tone(), atol=1e-4)
    assert not kinds(caplog)
    with pytest.raises(AudioError, match=r"has 2 channels; there is no channel=2"):
        audio.read(path, channel=2)
    with pytest.raises(ValueError, match="`channel` must be"):
        audio.read(path, channel=-1)
    written(tmp_path / "fine.wav", noise(3 * RATE, 2))
    options = {"verbose": 0, "cache_dir": tmp_path / "cache", "sampling_rate": 8000}
    for _ in range(2):
        recordings = audio.read_directory(tmp_path, **options)
        assert {
            path: [w.kind for w in ws] for path, ws in recordings.warnings.items()
        } == {path: ["channels that cancel"]}
    recordings = audio.read_directory(tmp_path, channel=0, **options)
    assert not recordings.warnings
    assert np.abs(recordings[1]).max() > 0.4
    data = audio_dataset_from_directory(
        tmp_path, channel=1, cache=False, verbose=0, sequence_length=900
    )
    assert np.abs(data.recordings[1]).max() > 0.4


def test_channels_that_cancel_for_a_while(tmp_path, caplog):
    sound = noise(60 * RATE, 2)
    sound[20 * RATE : 40 * RATE, 1] = -sound[20 * RATE : 40 * RATE, 0]
    written(tmp_path / "a.wav", sound)
    audio.read(tmp_path / "a.wav", mono=True)
    assert "channels that cancel" in caplog.text


# Folders


def test_a_folder_of_all_kinds(tmp_path, capsys, monkeypatch):
    root = tmp_path / "sound"
    root.mkdir()
    encoded(root / "a.m4a", ["aac"])
    encoded(root / "b.MKV", ["mpeg4", "libopus"])
    encoded(root / "c.mka", ["libopus", "libopus"])
    encoded(root / "d.mp4", ["mpeg4"])
    written(root / "e.wav", tone(48_000, 48_000), 48_000)
    (root / "voice").write_bytes((root / "e.wav").read_bytes())
    (root / "README").write_text("no sound", "utf-16")
    (root / "f.txt").write_text("no sound")
    (root / "g.wma").write_bytes(b"")
    (root / "h.opus").write_bytes(b"O")
    (root / "i.aiff").write_text("#EXTM3U\n#EXTINF:1\n/etc/passwd\n")
    bad = os.fsdecode(os.fsencode(root) + b"/caf\xe9.wav")
    try:
        pathlib.Path(bad).write_bytes((root / "e.wav").read_bytes())
        pathlib.Path(bad[:-4] + "2.wav").write_bytes(b"RIFF")
    except OSError:
        pytest.skip("names have to be UTF-8 here")
    (root / "circle").symlink_to(root)
    (root / "j.wav").symlink_to(root / "nothing")
    options = {"cache_dir": tmp_path / "cache", "follow_links": True}
    data = audio_dataset_from_directory(
        root, sequence_length=900, shuffle=False, **options
    )
    recordings, report = data.recordings, data.recordings.report
    names = ["a.m4a", "b.MKV", "c.mka", "caf\udce9.wav", "e.wav", "voice"]
    assert [path.name for path in recordings.paths] == names
    assert recordings.sampling_rate == 48_000
    assert report.readers == {"pyav": 3, FIRST: 3}
    assert {path.name: found.kind for path, found in report.skipped.items()} == {
        "d.mp4": "no sound",
        "g.wma": "empty",
        "h.opus": "not sound",
        "i.aiff": "not sound",
        "caf\udce92.wav": "not sound",
        "j.wav": "not a file",
    }
    assert [[w.kind for w in found] for found in report.warnings.values()] == [
        ["several streams of sound"]
    ]
    printed = capsys.readouterr().out
    assert "read by pyav" in printed
    assert "skipped: no sound" in printed
    kept = json.loads(report.path.read_text())
    assert report.path.parent == tmp_path / "cache"
    assert kept["read"] == report.readers
    assert kept["skipped"]["empty"] == {
        str(root / "g.wma"): report.skipped[root / "g.wma"]
    }
    assert kept["other_files"] == {"": 1, ".txt": 1}
    some = recordings.take([4])
    assert str(some).startswith("1 sound files read, 0.0 minutes at 48,000")
    assert some.report.readers == {FIRST: 1}
    assert not some.warnings
    # Again, from the cache; and without PyAV, with what was read before.
    again = audio.read_directory(root, verbose=0, **options)
    assert str(again) == str(recordings)
    assert again.warnings == recordings.warnings
    monkeypatch.setitem(sys.modules, "av", None)
    without = audio.read_directory(root, verbose=0, cache=False)
    assert without.report.readers == {FIRST: 3}
    reason = without.skipped[root / "a.m4a"]
    assert "pip install 'keras-gated[audio]'" in reason
    assert reason.kind == "needs PyAV"
    assert without.report.path is None
    with pytest.raises(AudioError, match=r"pip install 'keras-gated\[audio\]'"):
        audio.read(root / "a.m4a")
    with pytest.raises(ImportError, match=r"pip install 'keras-gated\[audio\]'"):
        audio.read(root / "a.m4a", decoder="pyav")


def test_files_that_vanish_or_change(tmp_path, monkeypatch):
    """Between listing and reading: they are reported, and the others are read."""
    for name in "abc":
        written(tmp_path / f"{name}.wav", tone())
    paths = sorted(tmp_path.glob("*.wav"))
    decode = reader.decode

    def change(path, *arguments):
        if path.name == "b.wav":
            path.unlink()
        if path.name == "c.wav":
            path.write_bytes(path.read_bytes()[:9999])
        return decode(path, *arguments)

    monkeypatch.setattr(reader, "decode", change)
    recordings = read_files([*paths, tmp_path / "d.wav"], cache=False, verbose=0)
    assert recordings.paths == paths[:1]
    found = {path.name: finding.kind for path, finding in recordings.skipped.items()}
    assert found == {
        "b.wav": "cannot be opened",
        "c.wav": "changed",
        "d.wav": "cannot be opened",
    }
    assert all(str(path) in reason for path, reason in recordings.skipped.items())


def test_playlists_open_nothing(tmp_path):
    """FFmpeg would open the files that they name."""
    written(tmp_path / "secret.wav", tone())
    for number, text in enumerate(
        [
            "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n",
            "ffconcat version 1.0\nfile secret.wav\n",
            "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        ]
    ):
        path = tmp_path / f"{number}.mp3"
        path.write_text(text)
        with pytest.raises(AudioError, match=str(path)):
            audio.read(path)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_whole_files_are_not_suspected(tmp_path, container):
    """What soundfile reads whole, it reads, without a second look."""
    for channels, rate in ((1, 8000), (2, 44_100)):
        path = tmp_path / f"{rate}"
        written(path, noise(30_000, channels), rate, None, container)
        with open(path, "rb") as file:
            assert inspect(file) == WHOLE
        assert decoders.decode(path).decoder == decoders.decoder_name()


@pytest.mark.parametrize("count", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_files(count, tmp_path):
    """No crash, no hang, no other error; and nothing that others read is lost."""
    output = tmp_path / "counts.json"
    command = [sys.executable, SCRIPT, "--files", str(count), "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    counts = json.loads(output.read_text())
    assert counts["files"] == count
    assert counts["bad"] == []
    assert counts["worse"] == []
    assert counts["read"]["ours, warn"] >= counts["read"]["pyav"]
    assert counts["read"]["ours, warn"] >= counts["read"]["soundfile"]
