"""Many sound files, decoded into one file of samples."""

import collections
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
from ..files import Finding, cache_directory, open_binary, os_errors_as
from ..folders import split
from ..reading import ERRORS, read_many
from ..report import Report
from ..store import Entry, Store, digest
from . import decoders
from .decoders import AudioError, Sound, check_rate, decode, decoder_name

STORE = "recordings"
"""The name of the files in which samples are kept."""
RULES = "2"
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
        skipped: dict[Path, Finding],
        warnings: dict[Path, list[Finding]],
        facts: dict[str, Any],
    ) -> None:
        self.paths = list(paths)
        """The files, in their order."""
        self.sampling_rate = sampling_rate
        """Samples per second, of all files."""
        self.skipped = skipped
        """Why files, and folders that cannot be listed, were skipped."""
        self.warnings = {path: warnings[path] for path in paths if path in warnings}
        """What was found about files that were read."""
        self._facts = facts
        self._report_path: Path | None = None
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
        some = Recordings(
            self._store,
            [self.paths[i] for i in members],
            [self._entries[i] for i in members],
            self.sampling_rate,
            self.skipped,
            self.warnings,
            self._facts,
        )
        some._report_path = self._report_path
        return some

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
        about = [_About(*entry.about) for entry in self._entries]
        mean = sum(sound.total for sound in about) / samples
        variance = sum(sound.squares for sound in about) / samples - mean**2
        if variance <= 1e-12 * mean**2:
            raise ValueError(
                f"All {samples:,} samples of the {len(self)} recordings are equal, as "
                "in silence; they cannot be standardized."
            )
        return Standardization(mean, float(np.sqrt(variance)))

    @property
    def report(self) -> Report:
        """What came of the reading: readers, warnings and what was skipped."""
        minutes = self.seconds / 60
        return Report(
            f"{len(self):,} sound files read, {minutes:,.1f} minutes at "
            f"{self.sampling_rate:,} samples per second.",
            dict(collections.Counter(_About(*e.about).decoder for e in self._entries)),
            self.warnings,
            self.skipped,
            {
                "sampling_rate": self.sampling_rate,
                "seconds": self.seconds,
                **self._facts,
            },
            self._report_path,
        )

    def __str__(self) -> str:
        return str(self.report)

    def _save_report(self, cache: Path, folder: Path) -> None:
        report = self.report
        report.save(STORE, cache, folder)
        self._report_path = report.path


def read_files(
    paths: Sequence[str | os.PathLike],
    sampling_rate: int | None = None,
    *,
    decoder: str = "auto",
    channel: int | None = None,
    max_seconds: float | None = 86_400.0,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: bool = True,
) -> Recordings:
    """Reads sound files: WAV, FLAC, OGG, MP3, and with PyAV what FFmpeg reads.

    Several threads decode them into one file of plain samples (4 bytes each), from
    which any stretch can be read at once, however much there is. The samples are kept
    by the content of the files: reading again is many times faster, also after an
    interruption.

    Args:
        paths: The files.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            most files.
        decoder: `"soundfile"`, `"pyav"`, `"tensorflow-io"`, or `"auto"`, which
            chooses for each file, as in `audio.read`. Default: `"auto"`.
        channel: The number of the channel to keep, from 0. Default: `None`, the mean
            of all; a warning tells of channels that cancel each other.
        max_seconds: Longer files are skipped; `None` for no limit. Default:
            86,400, a day.
        workers: The number of threads. Default: `None`, one for each core.
        cache: Whether to keep the samples for the next time. Default: `True`; else
            they lie in a temporary file for as long as they are used.
        cache_dir: The folder of the two files `recordings.sqlite` and
            `recordings.data`. Default: `datasets/keras_gated` in Keras's folder
            (`$KERAS_HOME`, or `~/.keras`).
        errors: What to do about files that cannot be read or are cut off: `"skip"` or
            `"raise"`; or `"warn"`, which keeps the part that is there and skips what
            cannot be read at all. Default: `"skip"`.
        verbose: Whether to show a progress bar. Default: `True`.

    Returns:
        The recordings, in the order of `paths`; what was skipped and why; and a
        report, which is also kept as JSON beside the cache.

    Raises:
        ValueError: None of the files can be read, or an argument is out of its
            range.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("Argument `paths` must name one file at least; it is empty.")
    try:
        folder = os.path.commonpath([path.absolute().parent for path in paths])
    except ValueError:  # on two drives
        folder = paths[0].parent
    return read_listed(
        paths,
        Path(folder),
        {},
        {},
        sampling_rate,
        decoder=decoder,
        channel=channel,
        max_seconds=max_seconds,
        workers=workers,
        cache=cache,
        cache_dir=cache_dir,
        errors=errors,
        verbose=verbose,
    )


def read_listed(
    paths: Sequence[Path],
    folder: Path,
    skipped: dict[Path, Finding],
    facts: dict[str, Any],
    sampling_rate: int | None = None,
    *,
    decoder: str = "auto",
    channel: int | None = None,
    max_seconds: float | None = 86_400.0,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: bool = True,
) -> Recordings:
    """Reads the files that were found in a folder.

    Args:
        paths: The files.
        folder: The folder that the report is about.
        skipped: What was skipped before.
        facts: What else the report is to say.
        sampling_rate: As in `read_files`.
        decoder: As in `read_files`.
        channel: As in `read_files`.
        max_seconds: As in `read_files`.
        workers: As in `read_files`.
        cache: As in `read_files`.
        cache_dir: As in `read_files`.
        errors: As in `read_files`.
        verbose: As in `read_files`.

    Returns:
        The recordings.
    """
    rate = check_rate(sampling_rate)
    checks.whole("channel", channel, 0, optional=True)
    checks.one_of("errors", errors, (*ERRORS, "warn"))
    workers = checks.whole("workers", workers, optional=True) or os.cpu_count() or 1
    warnings: dict[Path, list[Finding]] = {}
    with contextlib.ExitStack() as stack:
        kept_in = cache_directory(cache_dir) if cache else None
        store = stack.enter_context(Store(STORE, kept_in))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))

        def read(paths: Sequence[Path], rate: int | None) -> list[_Found]:
            reader = _Reader(store, rate, decoder, channel, max_seconds, errors)
            stack.callback(reader.cancel, pool)
            sounds = read_many(
                paths,
                lambda path: pool.submit(reader.read, path).result,
                skipped,
                "raise" if errors == "raise" else "skip",
                AHEAD * workers,
                verbose,
            )
            found = []
            for path, (key, data, about) in sounds:
                entry = data if key is None else store.put(key, data, about)
                found.append(_Found(path, entry, _About(*about)))
                if findings := found[-1].about.warnings(path):
                    warnings[path] = findings
            return found

        found = read(paths, rate)
        rates = collections.Counter(sound.about.sampling_rate for sound in found)
        if len(rates) > 1:
            rate = rates.most_common(1)[0][0]
            found = _at_one_rate(found, rate, read, warnings)
    if not found:
        raise ValueError(
            f"None of the {len(paths)} sound files can be read; the first: "
            f"{next(iter(skipped.values()))}"
        )
    entries = [
        sound.entry if isinstance(sound.entry, Entry) else sound.entry.result()
        for sound in found
    ]
    recordings = Recordings(
        store,
        [sound.path for sound in found],
        entries,
        found[0].about.sampling_rate,
        skipped,
        warnings,
        facts,
    )
    _log_warnings(warnings)
    if kept_in is not None:
        recordings._save_report(kept_in, folder)
    return recordings


class _About(NamedTuple):
    """What the store keeps with the samples of a file."""

    sampling_rate: int
    total: float
    """The sum of the samples."""
    squares: float
    """The sum of their squares."""
    decoder: str
    findings: list[tuple[str, str]]
    """The kinds of what was found, and how the sentences go on from the file's name."""
    missing: bool
    """Whether the last of them tells of a part that is missing."""

    def warnings(self, path: Path) -> list[Finding]:
        """What was found, with the name of the file."""
        name = f"{str(path)!r}"
        return [Finding(f"{name} {text}.", kind) for kind, text in self.findings]


class _Found(NamedTuple):
    """A file that was read."""

    path: Path
    entry: "Entry | concurrent.futures.Future[Entry]"
    about: _About


def _at_one_rate(
    found: list[_Found],
    rate: int,
    read: Callable[[Sequence[Path], int], list[_Found]],
    warnings: dict[Path, list[Finding]],
) -> list[_Found]:
    """Reads files of other rates again, and resamples them."""
    others = {s.path: s.about.sampling_rate for s in found}
    others = {path: other for path, other in others.items() if other != rate}
    log.info(
        "%d of %d sound files are resampled to %d samples per second, as most have.",
        len(others),
        len(found),
        rate,
    )
    again = {sound.path: sound for sound in read(list(others), rate)}
    for path in again:
        reason = (
            f"{str(path)!r} is resampled from {others[path]:,} to {rate:,} samples per "
            "second, the rate of most files."
        )
        warnings.setdefault(path, []).append(Finding(reason, "resampled"))
    found = [again.get(s.path, s) for s in found]
    return [sound for sound in found if sound.about.sampling_rate == rate]


def _log_warnings(warnings: dict[Path, list[Finding]]) -> None:
    """A line for each kind; the report has them all."""
    kinds: dict[str, list[Finding]] = {}
    for findings in warnings.values():
        for finding in findings:
            kinds.setdefault(finding.kind, []).append(finding)
    for findings in kinds.values():
        more = f" ({len(findings) - 1:,} more are alike.)" if len(findings) > 1 else ""
        log.warning("%s%s", findings[0], more)


class _Reader:
    """Reads single files, for several threads."""

    def __init__(
        self,
        store: Store,
        sampling_rate: int | None,
        decoder: str,
        channel: int | None,
        max_seconds: float | None,
        errors: str,
    ) -> None:
        self._settings = {
            "rate": sampling_rate,
            "decoders": [decoder, decoder_name(decoder)],
            "channel": channel,
            "rules": RULES,
        }
        self._partly = errors == "warn"
        errors = "warn" if self._partly else "raise"
        self._decoding = (sampling_rate, True, decoder, max_seconds, channel, errors)
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
                about = _About(*known.about)
                if about.missing and not self._partly:
                    kind, reason = about.findings[-1]
                    raise decoders.error(path, Finding(reason, kind))
                return _Sound(None, known, known.about)
        # Decoders are fastest, and need little memory, if they open the file by its
        # path; so it has to be checked that it is still the one of the key.
        try:
            with os_errors_as(AudioError, path):
                sound = decode(path, *self._decoding)
            data, sums = self._copy(sound)
        finally:
            with os_errors_as(AudioError, path):
                changed = _version(os.stat(path)) != version
            if changed:
                raise AudioError(f"{str(path)!r} changed while it was read.", "changed")
        findings = [(finding.kind, str(finding)) for finding in sound.about]
        missing = sound.missing is not None
        about = _About(sound.sampling_rate, *sums, sound.decoder, findings, missing)
        return _Sound(key, data, list(about))

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
    """An `_About`."""


def _version(status: os.stat_result) -> tuple:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
