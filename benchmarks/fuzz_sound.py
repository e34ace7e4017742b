"""Reads damaged sound files, and counts what comes of them.

Small files of many formats are changed by chance: bytes, cuts, doubling, joining,
other sizes in the header. A process of its own reads each, as `audio.read` does by
default and with errors="warn", and beside it by soundfile alone and by PyAV alone; the
process that started it notices when it crashes, or is silent for ten seconds.

    python benchmarks/fuzz_sound.py --files 5000
"""

import argparse
import collections
import json
import os
import pathlib
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

SECONDS = 5.0
"""How long the reading of one file may take."""
SHORT = 20_000
"""Samples of the longest seed."""
BY_SOUNDFILE = [
    *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "FLOAT")),
    *(("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"), ("WAV", "GSM610")),
    *(("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16")),
    *(("AIFF", "FLOAT"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    ("MP3", "MPEG_LAYER_III"),
]
BY_PYAV = [
    *(
        ("m4a", "ipod", "aac"),
        ("fast.m4a", "ipod", "aac"),
        ("alac.m4a", "ipod", "alac"),
    ),
    *(("aac", "adts", "aac"), ("wma", "asf", "wmav2"), ("webm", "webm", "libopus")),
    *(("mka", "matroska", "flac"), ("ogg", "ogg", "flac"), ("ac3", "ac3", "ac3")),
    *(("eac3", "eac3", "eac3"), ("mp2", "mp2", "mp2"), ("avi", "avi", "libmp3lame")),
    *(("ts", "mpegts", "aac"), ("mov", "mov", "pcm_s16be"), ("wv", "wv", "wavpack")),
    *(("tta", "tta", "tta"), ("g722.wav", "wav", "g722"), ("flv", "flv", "aac")),
]


def sound(samples: int, channels: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(samples)[:, None]
    tone = 0.4 * np.sin(time * random.uniform(0.02, 0.3, channels))
    return tone + 0.05 * random.normal(size=(samples, channels))


def encode(path: str, container: str, codec: str, samples: np.ndarray) -> None:
    """Writes a file with PyAV."""
    import av

    rate = 44_100 if codec in ("wmav2", "libmp3lame", "aac") else 48_000
    rate = 16_000 if codec == "g722" else rate
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    options = {"movflags": "faststart"} if "fast" in path else {}
    with av.open(path, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 64_000
        kind = stream.codec.audio_formats[0].name
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T, np.float32), "fltp", layout
        )
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(kind, layout, rate)
        waiting = av.AudioFifo()
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            waiting.write(part)
        written = 0
        while part := waiting.read(stream.codec_context.frame_size or 1024, True):
            part.pts, part.time_base = written, Fraction(1, rate)
            written += part.samples
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def seeds(folder: pathlib.Path) -> dict[str, bytes]:
    """Whole files, by their names."""
    import soundfile

    files = {}
    for number, (container, subtype) in enumerate(BY_SOUNDFILE):
        channels = 1 if subtype == "GSM610" else 1 + number % 2
        rate = 48_000 if subtype == "OPUS" else 8000 * (1 + number % 2)
        path = folder / f"{number}.{container.lower()}"
        samples = sound(3000 + SHORT // 40 * number, channels, number)
        soundfile.write(path, samples, rate, subtype, format=container)
        files[f"{container} {subtype}"] = path.read_bytes()
    for number, (ending, container, codec) in enumerate(BY_PYAV):
        path = folder / f"{number}.{ending}"
        channels = 1 if codec == "g722" else 1 + number % 2
        encode(str(path), container, codec, sound(SHORT, channels, number))
        files[f"{ending} {codec}"] = path.read_bytes()
    # Without the frame that holds its index, and with the sizes of a crash.
    mp3, wav = files["MP3 MPEG_LAYER_III"], bytearray(files["WAV PCM_16"])
    second = mp3.find(mp3[:2], 100)
    files["MP3 without an index"] = mp3[second:]
    wav[40:44] = bytes(4)
    files["WAV of unknown length"] = bytes(wav)
    return files


def mutated(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The kind of a file and its bytes; the same for the same numbers."""
    random = np.random.default_rng([seed, number])
    names = list(files)
    name = names[number % len(names)]
    content = bytearray(files[name])
    for _ in range(random.integers(1, 4)):
        end = max(1, len(content))
        at = int(random.integers(0, end))
        match random.integers(0, 9):
            case 0 | 1:  # bytes in the header
                for place in random.integers(0, min(end, 120), random.integers(1, 6)):
                    content[place : place + 1] = random.bytes(1)
            case 2:  # bytes anywhere
                for place in random.integers(0, end, random.integers(1, 20)):
                    content[place : place + 1] = random.bytes(1)
            case 3:  # a cut
                del content[at:]
            case 4:  # a hole
                del content[at : at + int(random.integers(1, 3000))]
            case 5:  # doubled
                content += bytes(content)
            case 6:  # joined with another
                content += files[names[random.integers(len(names))]]
            case 7:  # a number that is a size, perhaps
                place = int(random.integers(0, min(end, 80)))
                value = int(random.choice([0, 1, 2**31 - 1, 2**32 - 1, 4_000_000_000]))
                content[place : place + 4] = struct.pack("<I", value)
            case 8:  # bytes in between
                content[at:at] = random.bytes(int(random.integers(1, 2000)))
        content = content[: 2**20]
    return name, bytes(content)


def read_by_us(path: str, errors: str) -> dict:
    from keras_gated.datasets.sound import decoders

    try:
        opened = decoders.decode(path, max_seconds=3600, errors=errors)
        count, finite = 0, True
        for block in opened.blocks:
            count += len(block)
            finite &= bool(np.isfinite(block).all())
        assert finite
        assert count
        kinds = [finding.kind for finding in opened.about]
        return {"samples": count, "by": opened.decoder, "kinds": kinds}
    except decoders.AudioError as error:
        if repr(path) not in str(error):
            raise ValueError(f"The file is not named: {error}") from error
        return {"samples": 0, "kind": error.kind, "message": str(error)}


def read_by_soundfile(path: str) -> dict:
    import soundfile

    count, failed = 0, False
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            while len(block := file.read(2**18, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all() or count > 3600 * rate:
                    return {"samples": 0, "failed": True}
                count += len(block)
    except Exception:
        failed = True
    return {"samples": count, "failed": failed}


def read_by_pyav(path: str) -> dict:
    import av

    count, failed = 0, False
    try:
        with av.open(path, metadata_errors="ignore") as container:
            for frame in container.decode(audio=0):
                count += frame.samples
                if not np.isfinite(frame.to_ndarray()).all():
                    return {"samples": 0, "failed": True}
                if count > 3600 * frame.sample_rate:
                    return {"samples": 0, "failed": True}
    except Exception:
        failed = True
    return {"samples": count, "failed": failed}


READERS = {
    "ours": lambda path: read_by_us(path, "raise"),
    "ours, warn": lambda path: read_by_us(path, "warn"),
    "soundfile": read_by_soundfile,
    "pyav": read_by_pyav,
}


def work(folder: pathlib.Path, seed: int, first: int, last: int) -> None:
    """Reads files, and tells of each before and after, in lines of JSON."""
    files = {name: bytes.fromhex(x) for name, x in json.load(sys.stdin).items()}
    from keras_gated.datasets.sound import decoders

    decoders.decoder_name()  # which loads what takes seconds to load
    for number in range(first, last):
        name, content = mutated(files, seed, number)
        path = folder / f"file{number}.wav"  # endings do not count
        path.write_bytes(content)
        for reader, read in READERS.items():
            print(json.dumps({"number": number, "begins": reader}), flush=True)
            begin = time.perf_counter()
            try:
                result = read(str(path))
            except Exception as error:
                result = {"undocumented": f"{type(error).__name__}: {error}"}
            result |= {"name": name, "seconds": time.perf_counter() - begin}
            print(json.dumps({"number": number, reader: result}), flush=True)
        path.unlink()


def lines(
    command: list[str], content: str, environment: dict[str, str]
) -> Iterator[dict | None]:
    """What a process says; `None` when it is silent for too long, and is killed."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        said: queue.SimpleQueue[str] = queue.SimpleQueue()

        def listen() -> None:
            for line in process.stdout:
                said.put(line)
            said.put("")

        threading.Thread(target=listen, daemon=True).start()
        process.stdin.write(content)
        process.stdin.close()
        patience = 120.0  # until it has started
        while True:
            try:
                line = said.get(timeout=patience)
            except queue.Empty:
                process.kill()
                yield None
                return
            if not line:
                return
            patience = 2 * SECONDS
            yield json.loads(line)


def fuzz(count: int, seed: int) -> dict:
    """Reads so many files; returns the counts, and what should not have happened."""
    results: dict[int, dict] = collections.defaultdict(dict)
    bad = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "seeds").mkdir()
        whole = seeds(folder / "seeds")
        content = json.dumps({name: data.hex() for name, data in whole.items()})
        first = 0
        while first < count:
            begun = None
            command = [sys.executable, __file__, "--work", str(folder)]
            command += ["--seed", str(seed), "--first", str(first)]
            command += ["--files", str(count)]
            environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
            ended = "crashed"
            for line in lines(command, content, environment):
                if line is None:
                    ended = "hangs"
                elif "begins" in line:
                    begun = line["number"], line["begins"]
                else:
                    results[line.pop("number")].update(line)
                    begun = None
            if begun is not None:
                number, reader = begun
                if reader.startswith("ours"):
                    bad.append([number, reader, ended])
                results[number][reader] = {ended: True, "samples": 0}
                first = number + 1
            elif len(results) < count:
                raise RuntimeError("The process ended before its first file.")
            else:
                break
    return summary(results, bad)


def summary(results: dict[int, dict], bad: list) -> dict:
    counts: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    worse = []
    for number, found in sorted(results.items()):
        for reader in READERS:
            result = found.get(reader, {})
            alone = reader in ("soundfile", "pyav")
            if "undocumented" in result:
                bad.append([number, reader, result["undocumented"]])
            if not alone and result.get("seconds", 0) > SECONDS:
                bad.append([number, reader, f"{result['seconds']:.1f} seconds"])
            read = result.get("samples", 0) > 0
            counts[reader] += read
            if alone:
                counts[f"{reader}, to its end"] += read and not result.get("failed")
                ends = result.get("crashed") or result.get("hangs")
                counts[f"{reader}, crashed or hung"] += bool(ends)
        ours, partly = found.get("ours", {}), found.get("ours, warn", {})
        kinds.update([ours["kind"]] if "kind" in ours else [])
        for other in ("soundfile", "pyav"):
            theirs = found.get(other, {})
            refused = partly.get("samples") or partly.get("kind") in NO_SOUND
            if theirs.get("samples", 0) and not refused:
                worse.append([number, other, partly, theirs])
            whole = theirs.get("samples", 0) and not theirs.get("failed")
            if whole and not ours.get("samples") and ours.get("kind") not in REFUSED:
                worse.append([number, f"{other} (whole)", ours, theirs])
    counts["refused, and read in part with errors='warn'"] = sum(
        not found["ours"].get("samples") and found["ours, warn"].get("samples", 0) > 0
        for found in results.values()
        if "ours" in found and "ours, warn" in found
    )
    slowest = max(
        found[reader].get("seconds", 0)
        for found in results.values()
        for reader in ("ours", "ours, warn")
        if reader in found
    )
    return {
        "files": len(results),
        "read": dict(counts),
        "skipped": dict(kinds.most_common()),
        "slowest_seconds": round(slowest, 2),
        "bad": bad,
        "worse": worse,
    }


NO_SOUND = {"a rate that is a mistake", "values that are not finite", "too long"}
"""Why a file is an error although a decoder gives samples of it."""
REFUSED = {*NO_SOUND, "cut off", "damaged", "read in part by soundfile"}
"""Why it is an error by default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000, help="how many files")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--output", type=pathlib.Path, help="the counts, as JSON")
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.seed, args.first, args.files)
        return
    counts = fuzz(args.files, args.seed)
    text = json.dumps(counts, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
