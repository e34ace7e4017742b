"""Many sound files, decoded into one file of samples."""

import concurrent.futures
import contextlib
import io
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import checks
from ..files import cache_directory, open_binary, os_errors_as
from ..folders import split
from ..reading import ERRORS, read_many
from ..store import Entry, Store, digest
from .decoders import AudioError, Sound, check_rate, decode, decoder_name

STORE = "recordings"
"""The name of the files in which samples are kept."""
RULES = "1"
"""Changes whenever the same file and settings come to give other samples."""
BYTES = np.dtype(np.float32).itemsize
BYTES_IN_MEMORY = 2**22
"""The samples of a larger file wait on disk until they are stored."""
AHEAD = 4
"""How many files are begun for each thread, so that none waits for work."""

log = logging.getLogger("keras_gated")


class Standardization(NamedTuple):
    """How samples are standardized: `(x - mean) / std`."""

    mean: float
    """The mean of the samples."""
    std: float
    """Their standard deviation."""


class Recordings:
    """Sound files: decoded, mixed to one channel, resampled, and kept on disk.

    `read_files` and `audio_dataset_from_directory` make them.
    """

    def __init__(
        self,
        store: Store,
        paths: Sequence[Path],
        entries: Sequence[Entry],
        sampling_rate: int,
        skipped: dict[Path, str],
    ) -> None:
        self.paths = list(paths)
        """The files, in their order."""
        self.sampling_rate = sampling_rate
        """Samples per second, of all files."""
        self.skipped = skipped
        """Why files, and folders that cannot be listed, were skipped."""
        self._store = store  # a temporary folder goes with it
        self._entries = list(entries)
        self._files = {entry.file for entry in entries}
        lengths = np.array([entry.size // BYTES for entry in entries], np.int64)
        # Where each file begins, if all were joined in their order.
        self._joined = np.concatenate([[0], np.cumsum(lengths)])

    @property
    def lengths(self) -> np.ndarray:
        """The number of samples of each file."""
        return np.diff(self._joined)

    @property
    def seconds(self) -> float:
        """The length of all files together, in seconds."""
        return float(self._joined[-1] / self.sampling_rate)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """The samples of one file, `float32 [samples]`."""
        begin, end = self._joined[range(len(self))[index] + np.array([0, 1])]
        samples = np.empty(end - begin, np.float32)
        self.copy([begin], [samples])
        return samples

    def take(self, members: Iterable[int]) -> "Recordings":
        """Selects some of the recordings.

        Args:
            members: The numbers of the recordings.
        """
        members = list(members)
        return Recordings(
            self._store,
            [self.paths[i] for i in members],
            [self._entries[i] for i in members],
            self.sampling_rate,
            self.skipped,
        )

    def split(
        self,
        fraction: float,
        shuffle: bool = True,
        seed: int | None = None,
        groups: Callable[[Path], Any] | None = None,
    ) -> tuple["Recordings", "Recordings"]:
        """Sets a fraction of the recordings aside.

        Args:
            fraction: The fraction of their number, between 0 and 1.
            shuffle: Whether to put them in a random order first; else the last are
                set aside. Default: `True`.
            seed: Makes the order repeatable. Default: `None`.
            groups: Maps a path to the group of the file, such as its speaker; files
                of one group stay together. Default: `None`, each file is its own
                group.

        Returns:
            The rest, and what is set aside: whole groups, one at least, as many as
            come nearest to the fraction.

        Raises:
            ValueError: There is only one group.
        """
        stay, aside = split(self.paths, fraction, shuffle, seed, groups)
        return self.take(stay), self.take(aside)

    def copy(self, begins: Sequence[int], rows: Iterable[np.ndarray]) -> None:
        """Copies stretches of all recordings, joined in their order.

        Args:
            begins: The first samples of the stretches.
            rows: Arrays to fill with them, `float32`.

        Raises:
            OSError: The file of samples is gone, or has been cut off.
        """
        numbers = np.searchsorted(self._joined, begins, "right") - 1
        offsets = np.asarray(begins) - self._joined[numbers]
        with contextlib.ExitStack() as stack:
            # Faster than a memory map, and nothing of it stays in memory.
            files = {
                path: stack.enter_context(open(path, "rb", buffering=0))
                for path in self._files
            }
            for number, offset, row in zip(
                numbers.tolist(), offsets.tolist(), rows, strict=True
            ):
                done = 0
                while done < len(row):  # on through the recordings that follow
                    entry = self._entries[number]
                    part = row[done : done + entry.size // BYTES - offset]
                    file = files[entry.file]
                    file.seek(entry.start + offset * BYTES)
                    if file.readinto(part) != part.nbytes:
                        raise OSError(f"{str(entry.file)!r} has been cut off.")
                    done, number, offset = done + len(part), number + 1, 0

    def standardization(self) -> Standardization:
        """The mean and the standard deviation of all samples.

        Raises:
            ValueError: All samples are equal, as in silence.
        """
        samples = int(self._joined[-1])
        _, totals, squares = zip(*(entry.about for entry in self._entries), strict=True)
        mean = sum(totals) / samples
        variance = sum(squares) / samples - mean**2
        if variance <= 1e-12 * mean**2:
            raise ValueError(
                f"All {samples:,} samples of the {len(self)} recordings are equal, as "
                "in silence; they cannot be standardized."
            )
        return Standardization(mean, float(np.sqrt(variance)))

    def __str__(self) -> str:
        minutes = self.seconds / 60
        lines = [
            f"{len(self):,} sound files read, {minutes:,.1f} minutes at "
            f"{self.sampling_rate:,} samples per second."
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped):,} skipped:")
            lines += [f"  {reason}" for reason in self.skipped.values()]
        return "\n".join(lines)


def read_files(
    paths: Sequence[str | os.PathLike],
    sampling_rate: int | None = None,
    *,
    decoder: str = "auto",
    max_seconds: float | None = 86_400.0,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: bool = True,
) -> Recordings:
    """Reads sound files: WAV, FLAC, OGG, MP3.

    Several threads decode them into one file of plain samples (4 bytes each), from
    which any stretch can be read at once, however much there is. The samples are kept
    by the content of the files: reading again is many times faster, also after an
    interruption.

    Args:
        paths: The files.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            the first file; files of another rate are then skipped.
        decoder: `"soundfile"`, `"tensorflow-io"`, or `"auto"`, tensorflow-io where
            it loads. Default: `"auto"`.
        max_seconds: Longer files are skipped; `None` for no limit. Default:
            86,400, a day.
        workers: The number of threads. Default: `None`, one for each core.
        cache: Whether to keep the samples for the next time. Default: `True`; else
            they lie in a temporary file for as long as they are used.
        cache_dir: The folder of the two files `recordings.sqlite` and
            `recordings.data`. Default: `datasets/keras_gated` in Keras's folder
            (`$KERAS_HOME`, or `~/.keras`).
        errors: `"skip"` files that cannot be read, or `"raise"`. Default: `"skip"`.
        verbose: Whether to show a progress bar. Default: `True`.

    Returns:
        The recordings, in the order of `paths`, and what was skipped and why.

    Raises:
        ValueError: None of the files can be read, or an argument is out of its
            range.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.
    """
    rate = check_rate(sampling_rate)
    checks.one_of("errors", errors, ERRORS)
    workers = checks.whole("workers", workers, optional=True) or os.cpu_count() or 1
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("Argument `paths` must name one file at least; it is empty.")
    skipped: dict[Path, str] = {}
    found: list[tuple[Path, Entry | concurrent.futures.Future[Entry]]] = []
    with contextlib.ExitStack() as stack:
        store = Store(STORE, cache_directory(cache_dir) if cache else None)
        reader = _Reader(stack.enter_context(store), rate, decoder, max_seconds)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))
        stack.callback(reader.cancel, pool)
        sounds = read_many(
            paths,
            lambda path: pool.submit(reader.read, path).result,
            skipped,
            errors,
            AHEAD * workers,
            verbose,
        )
        for path, (key, data, about) in sounds:
            entry = data if key is None else store.put(key, data, about)
            rate = rate or about[0]
            if about[0] == rate:
                found.append((path, entry))
                continue
            problem = (
                f"{str(path)!r} has {about[0]:,} samples per second, and the first "
                f"file {rate:,}; sampling_rate={rate} resamples it."
            )
            if errors == "raise":
                raise AudioError(problem)
            skipped[path] = problem
    if not found:
        raise ValueError(
            f"None of the {len(paths)} sound files can be read; the first: "
            f"{next(iter(skipped.values()))}"
        )
    files, entries = zip(*found, strict=True)
    entries = [e if isinstance(e, Entry) else e.result() for e in entries]
    return Recordings(store, files, entries, rate, skipped)


class _Reader:
    """Reads single files, for several threads."""

    def __init__(
        self,
        store: Store,
        sampling_rate: int | None,
        decoder: str,
        max_seconds: float | None,
    ) -> None:
        name = decoder_name(decoder)
        log.info("Sound files are decoded by %s.", name)
        self._settings = {
            "rate": sampling_rate,
            "decoders": [decoder, name],
            "rules": RULES,
        }
        self._decoding = (sampling_rate, True, decoder, max_seconds)
        self._store = store
        self._cancelled = threading.Event()

    def cancel(self, pool: concurrent.futures.Executor) -> None:
        """Stops reading, and does not begin what waits."""
        self._cancelled.set()
        pool.shutdown(wait=False, cancel_futures=True)

    def read(self, path: Path) -> "_Sound":
        """Decodes a file, unless the store knows its content."""
        with os_errors_as(AudioError, path):
            with open_binary(path) as file:
                version = _version(os.fstat(file.fileno()))
                key = digest(self._settings, file)
            if known := self._store.get(key):
                return _Sound(None, known, known.about)
            sound = decode(path, *self._decoding)
        data, sums = self._copy(sound)
        # Decoders are fastest, and need little memory, if they open the file by its
        # path; so it has to be checked that it is still the one of the key.
        with os_errors_as(AudioError, path):
            if _version(os.stat(path)) != version:
                raise AudioError(f"{str(path)!r} changed while it was read.")
        return _Sound(key, data, [sound.sampling_rate, *sums])

    def _copy(self, sound: Sound) -> tuple[BinaryIO, tuple[float, float]]:
        """The samples in a file, and the sums of them and of their squares."""
        data: BinaryIO = io.BytesIO()
        total, squares = 0.0, 0.0
        for block in sound.blocks:
            if self._cancelled.is_set():
                raise concurrent.futures.CancelledError
            column = np.ascontiguousarray(block[:, 0], np.float32)
            data.write(column)
            total += float(column.sum(dtype=np.float64))
            squares += float(np.square(column, dtype=np.float64).sum())
            if isinstance(data, io.BytesIO) and data.tell() > BYTES_IN_MEMORY:
                file = tempfile.TemporaryFile(dir=self._store.file.parent)  # noqa: SIM115
                file.write(data.getbuffer())
                data = file
        return data, (total, squares)


class _Sound(NamedTuple):
    """A sound file: decoded, with its key, or where it lies in the store."""

    key: bytes | None
    data: BinaryIO | Entry
    about: list
    """The sampling rate, and the sums of the samples and of their squares."""


def _version(status: os.stat_result) -> tuple:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
