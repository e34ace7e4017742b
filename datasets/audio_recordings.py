"""Many sound files as one row of samples on disk."""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
import queue
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_gated.datasets.audio_decoders import AudioError, decode, decoder_name
from keras_gated.datasets.files import cache_directory

RULES = "1"
"""Changes whenever the same file and settings come to give other samples."""
BYTES = np.dtype(np.float32).itemsize
BLOCKS_AHEAD = 4
"""How many times a few blocks of a file are decoded before they are stored."""
SECONDS_UNSAVED = 1.0
"""How much work an interruption may lose."""

log = logging.getLogger("keras_gated")


class Standardization(NamedTuple):
    """What standardized samples were made with: `(x - mean) / deviation`."""

    mean: float
    """Their mean."""
    deviation: float
    """Their standard deviation."""


class _Stored(NamedTuple):
    """Where the sound of a file lies in the store, and what it sums up to."""

    start: int
    samples: int
    sample_rate: int
    total: float
    squares: float


class Recordings:
    """Sound files, decoded, mixed to one channel, resampled; on disk.

    `read_files` and `read_directory` make them.
    """

    def __init__(
        self,
        store: "_Store",
        paths: Sequence[Path],
        stored: Sequence[_Stored],
        sample_rate: int,
        skipped: dict[Path, str],
    ) -> None:
        self.paths = list(paths)
        """The files, in their order."""
        self.sample_rate = sample_rate
        """Samples a second, of all."""
        self.skipped = skipped
        """Why files, and folders that cannot be listed, were skipped."""
        self._store = store
        self._stored = list(stored)
        lengths = np.array([one.samples for one in stored], np.int64)
        # Where each begins, if all were joined in their order.
        self._joined = np.concatenate([[0], np.cumsum(lengths)])

    @property
    def lengths(self) -> np.ndarray:
        """How many samples each has."""
        return np.diff(self._joined)

    @property
    def seconds(self) -> float:
        """How long all are together."""
        return float(self._joined[-1] / self.sample_rate)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """The samples of one, `float32 [samples]`."""
        begin, end = self._joined[range(len(self))[index] + np.array([0, 1])]
        samples = np.empty(end - begin, np.float32)
        self.copy([begin], [samples])
        return samples

    def take(self, members: Iterable[int]) -> "Recordings":
        """Some of the recordings.

        Args:
            members: Their numbers.
        """
        members = list(members)
        return Recordings(
            self._store,
            [self.paths[i] for i in members],
            [self._stored[i] for i in members],
            self.sample_rate,
            self.skipped,
        )

    def split(
        self,
        share: float,
        shuffle: bool = True,
        seed: int | None = None,
        groups: Callable[[Path], Any] | None = None,
    ) -> tuple["Recordings", "Recordings"]:
        """Sets a share of the recordings aside.

        Args:
            share: Of their number, between 0 and 1.
            shuffle: Whether to put them in a random order first; else the last are
                set aside. Default: `True`.
            seed: Makes the order repeatable. Default: `None`.
            groups: Tells from a file's path what may not be split. Default: `None`,
                each file is by itself.

        Returns:
            The rest, and what is set aside: whole groups, one at least, as many as
            come nearest to the share.

        Raises:
            ValueError: There is only one group.
        """
        members: dict[Any, list[int]] = {}
        for number, path in enumerate(self.paths):
            members.setdefault(groups(path) if groups else number, []).append(number)
        order = list(members.values())
        if shuffle:
            random = np.random.default_rng(seed)
            order = [order[i] for i in random.permutation(len(order))]
        held_out = np.cumsum([0, *(len(group) for group in reversed(order))])
        count = int(np.argmin(np.abs(held_out - share * len(self))))
        if len(order) < 2:
            what = "group" if groups else "file"
            raise ValueError(
                f"There is {len(order)} {what}, and each of two parts needs one."
            )
        cut = len(order) - min(max(1, count), len(order) - 1)
        return tuple(
            self.take(number for group in part for number in group)
            for part in (order[:cut], order[cut:])
        )

    def copy(self, begins: Sequence[int], rows: Iterable[np.ndarray]) -> None:
        """Copies stretches of all recordings, joined in their order.

        Args:
            begins: Where each stretch begins.
            rows: Where to put it, `float32`; as much is copied as fits in.

        Raises:
            OSError: The file of samples has gone.
        """
        numbers = np.searchsorted(self._joined, begins, "right") - 1
        offsets = np.asarray(begins) - self._joined[numbers]
        # Faster than a memory map, and nothing of it stays in memory.
        with open(self._store.data, "rb", buffering=0) as store:
            for number, offset, row in zip(
                numbers.tolist(), offsets.tolist(), rows, strict=True
            ):
                done = 0
                while done < len(row):  # on through the recordings that follow
                    one = self._stored[number]
                    some = row[done : done + one.samples - offset]
                    store.seek((one.start + offset) * BYTES)
                    if store.readinto(some) != some.nbytes:
                        raise OSError(f"{str(self._store.data)!r} has been cut off.")
                    done, number, offset = done + len(some), number + 1, 0

    def standardization(self) -> Standardization:
        """The mean and the standard deviation of all samples.

        Raises:
            ValueError: All samples are alike, as in silence.
        """
        samples = int(self._joined[-1])
        mean = sum(one.total for one in self._stored) / samples
        variance = sum(one.squares for one in self._stored) / samples - mean**2
        if variance <= 1e-12 * mean**2:
            raise ValueError(
                f"All {samples:,} samples of the {len(self)} recordings are alike, as "
                "in silence: there is nothing to standardize by."
            )
        return Standardization(mean, float(np.sqrt(variance)))

    def __str__(self) -> str:
        minutes = self.seconds / 60
        lines = [
            f"{len(self):,} sound files read, {minutes:,.1f} minutes at "
            f"{self.sample_rate:,} samples a second."
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped):,} skipped:")
            lines += [f"  {reason}" for reason in self.skipped.values()]
        return "\n".join(lines)


def read_files(
    paths: Sequence[str | os.PathLike],
    sample_rate: int | None = None,
    *,
    decoder: str = "auto",
    max_seconds: float | None = 86_400.0,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: int = 1,
) -> Recordings:
    """Reads sound files: WAV, FLAC, OGG, MP3.

    They are decoded once, by several threads, into a file of plain samples (4
    bytes each), from which any stretch can be had at once whatever the size of
    all. It is kept by the content of the files: reading again is many times
    faster, after an interruption, too.

    Args:
        paths: The files.
        sample_rate: Samples a second to resample to. Default: `None`, those of
            the first file; files of another rate are then skipped.
        decoder: `"soundfile"`, `"tensorflow-io"`, or `"auto"`, tensorflow-io where
            it loads. Default: `"auto"`.
        max_seconds: Longer files are skipped, `None` for no limit. Default:
            86,400, a day.
        workers: The number of threads. Default: one a core.
        cache: Whether to keep what was decoded for the next time. Default: `True`;
            else it lies in a temporary file as long as it is used.
        cache_dir: Where to keep it. Default: `datasets/keras_gated` in Keras's
            folder (`$KERAS_HOME`, or `~/.keras`).
        errors: `"skip"` files that cannot be read, or `"raise"`. Default:
            `"skip"`.
        verbose: 1 shows a progress bar, 0 is silent. Default: 1.

    Returns:
        The recordings, in the order of `paths`, and what was skipped and why.

    Raises:
        ValueError: None of the files can be read, or an argument is out of its
            range.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.
    """
    if errors not in ("skip", "raise"):
        raise ValueError(
            f"Argument `errors` must be 'skip' or 'raise'. Received: errors={errors!r}"
        )
    if workers is not None and workers < 1:
        raise ValueError(
            "Argument `workers` must be a positive integer. "
            f"Received: workers={workers!r}"
        )
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("Argument `paths` is empty; it must name a file at least.")
    name = decoder_name(decoder)
    log.info("Sound files are decoded by %s.", name)
    settings = {"rate": sample_rate, "decoders": [decoder, name], "rules": RULES}
    from keras.utils import Progbar

    bar = Progbar(len(paths), verbose=verbose, unit_name="file")
    store = _Store(cache_directory(cache_dir) if cache else None, settings)
    found: list[tuple[Path, _Stored]] = []
    skipped: dict[Path, str] = {}
    rate = sample_rate
    with store.open() as known:

        def read(path: Path) -> Iterator:
            """The file's digest, and, unless it is known, its rate and its blocks."""
            digest = _digest(path)
            yield digest
            if digest not in known:
                sound = decode(path, sample_rate, True, decoder, max_seconds)
                yield sound.sample_rate
                yield from sound.blocks

        with contextlib.closing(
            _ahead(read, paths, workers or os.cpu_count() or 1)
        ) as answers:
            for path, answer in answers:
                try:
                    stored = store.put(next(answer), answer)
                    rate = rate or stored.sample_rate
                    if stored.sample_rate != rate:
                        raise AudioError(
                            f"{str(path)!r} has {stored.sample_rate:,} samples a "
                            f"second, and the first file {rate:,}; "
                            f"sample_rate={rate} resamples it."
                        )
                    found.append((path, stored))
                except AudioError as error:
                    if errors == "raise":
                        raise
                    skipped[path] = str(error)
                except OSError as error:
                    reason = f"{str(path)!r} cannot be read: {error.strerror or error}"
                    if errors == "raise":
                        raise AudioError(reason) from error
                    skipped[path] = reason
                bar.add(1)
    if not found:
        raise ValueError(
            f"None of the {len(paths)} sound files can be read; the first: "
            f"{next(iter(skipped.values()))}"
        )
    files, stored = zip(*found, strict=True)
    return Recordings(store, files, stored, rate, skipped)


def _digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"There is no file {str(path)!r}"
        ) from error


class _Box:
    """What a thread has read of a file, for whoever wants it."""

    END = object()
    AT_ONCE = 3

    def __init__(self) -> None:
        self.items: queue.Queue = queue.Queue(BLOCKS_AHEAD)
        self.wanted = True

    def fill(self, items: Iterator) -> None:
        some: list = []  # what a short file has goes at once
        try:
            for item in items:
                some.append(item)
                if len(some) > self.AT_ONCE:
                    self._put(some)
                    some = []
        except Exception as error:
            some.append(error)
        self._put([*some, self.END])

    def _put(self, items: list) -> None:
        while self.wanted:
            with contextlib.suppress(queue.Full):
                return self.items.put(items, timeout=0.1)

    def __iter__(self) -> Iterator:
        while True:
            for item in self.items.get():
                if item is self.END:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item


def _ahead(
    read: Callable[[Path], Iterator], paths: Sequence[Path], workers: int
) -> Iterator[tuple[Path, Iterator]]:
    """Each path with what `read` gives of it; threads read some files ahead."""
    boxes: collections.deque[tuple[Path, _Box]] = collections.deque()
    todo = iter(paths)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(boxes) < 4 * workers and (path := next(todo, None)):
                    boxes.append((path, _Box()))
                    pool.submit(lambda p, box: box.fill(read(p)), *boxes[-1])
                if not boxes:
                    return
                path, box = boxes[0]
                yield path, iter(box)
                box.wanted = False
                boxes.popleft()
        finally:
            for _, box in boxes:
                box.wanted = False


class _Store:
    """One file of samples, and a table of where each sound file's lie in it.

    Samples are only ever added at the end, then the table is told: a process that
    is killed leaves samples that nobody knows of, and the next overwrites them.
    """

    def __init__(self, folder: Path | None, settings: dict) -> None:
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="keras_gated_")
            weakref.finalize(self, temporary.cleanup)
            folder = Path(temporary.name)
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / f"audio-{name}.f32"
        self.table = folder / f"audio-{name}.sqlite"

    @contextlib.contextmanager
    def open(self) -> Iterator[dict[bytes, _Stored]]:
        """For `put`; gives what is known."""
        with (
            contextlib.closing(self._connect()) as self.connection,
            open(self.data, "ab"),  # it exists
            open(self.data, "r+b") as self.file,
        ):
            rows = self.connection.execute("SELECT * FROM sounds")
            self.known = {digest: _Stored(*row) for digest, *row in rows}
            if self.data.stat().st_size < self._end() * BYTES:  # it was cut off
                log.warning("%s is damaged and is made anew.", self.data)
                self.connection.execute("DELETE FROM sounds")
                self.known.clear()
            try:
                yield self.known
            finally:
                self._commit()

    def _connect(self) -> sqlite3.Connection:
        """A damaged table is made anew."""
        for last in (False, True):
            connection = sqlite3.connect(self.table, timeout=600, isolation_level=None)
            try:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS sounds (digest BLOB PRIMARY KEY, "
                    "start INTEGER, samples INTEGER, sample_rate INTEGER, total REAL, "
                    "squares REAL) WITHOUT ROWID"
                )
                return connection
            except sqlite3.DatabaseError as error:
                connection.close()
                if last or isinstance(error, sqlite3.OperationalError):
                    raise
                log.warning("%s is damaged and is made anew.", self.table)
                self.table.unlink()
        raise AssertionError  # the loop returns or raises

    def _end(self) -> int:
        query = "SELECT COALESCE(MAX(start + samples), 0) FROM sounds"
        return self.connection.execute(query).fetchone()[0]

    def _commit(self) -> None:
        if self.connection.in_transaction:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.connection.execute("COMMIT")

    def put(self, digest: bytes, rest: Iterator) -> _Stored:
        """Adds a sound, unless it is known.

        Args:
            digest: Of the file.
            rest: Of a file that is not known: its rate, then its blocks.
        """
        if digest in self.known:
            return self.known[digest]
        rate = next(rest)
        if not self.connection.in_transaction:
            # One process at a time: its sounds begin where the table ends.
            self.connection.execute("BEGIN IMMEDIATE")
            self.began, self.start = time.monotonic(), self._end()
        self.file.seek(self.start * BYTES)
        samples, total, squares = 0, 0.0, 0.0
        for block in rest:
            column = np.ascontiguousarray(block[:, 0], np.float32)
            self.file.write(column)
            samples += len(column)
            total += float(column.sum(dtype=np.float64))
            squares += float(np.square(column, dtype=np.float64).sum())
        stored = _Stored(self.start, samples, rate, total, squares)
        self.connection.execute(
            "INSERT OR REPLACE INTO sounds VALUES (?, ?, ?, ?, ?, ?)",
            (digest, *stored),
        )
        self.known[digest] = stored
        self.start += samples
        if time.monotonic() - self.began > SECONDS_UNSAVED:
            self._commit()
        return stored
