"""Sound files read into recordings, several at a time."""

import collections
import concurrent.futures
import contextlib
import io
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import checks
from ..files import Finding, cache_directory, open_binary, os_errors_as
from ..reading import ERRORS, read_many
from ..store import Entry, Store, digest
from . import decoders
from .decoders import AudioError, Sound, check_rate, decode, decoder_name
from .recordings import STORE, About, Recordings

RULES = "2"
"""Changes whenever the same file and settings come to give other samples."""
BYTES_IN_MEMORY = 2**22
"""The samples of a larger file wait on disk until they are stored."""
AHEAD = 4
"""How many files are begun for each thread, so that none waits for work."""

log = logging.getLogger("keras_gated")


class Listing(NamedTuple):
    """Files that were found in a folder."""

    paths: list[Path]
    """The files."""
    folder: Path
    """The folder that the report is about."""
    skipped: dict[Path, Finding]
    """What was skipped before."""
    facts: dict[str, Any]
    """What else the report is to say."""


def _listing(paths: Sequence[str | os.PathLike]) -> Listing:
    """Files of which nothing else is known, in the folder that has them all."""
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("Argument `paths` must name one file at least; it is empty.")
    try:
        folder = os.path.commonpath([path.absolute().parent for path in paths])
    except ValueError:  # on two drives
        folder = paths[0].parent
    return Listing(paths, Path(folder), {}, {})


def read_files(
    paths: Sequence[str | os.PathLike] | Listing,
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
        paths: The files, or what was found in a folder.
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
        verbose: Whether to show a progress bar and the report. Default: `True`.

    Returns:
        The recordings, in the order of `paths`; what was skipped and why; and a
        report, which is also kept as JSON beside the cache.

    Raises:
        ValueError: None of the files can be read, or an argument is out of its
            range.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.
    """
    listing = paths if isinstance(paths, Listing) else _listing(paths)
    paths, folder, skipped, facts = listing
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
                found.append(_Found(path, entry, About(*about)))
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
        recordings.save_report(kept_in, folder)
    if verbose:
        recordings.report.show()
    return recordings


class _Found(NamedTuple):
    """A file that was read."""

    path: Path
    entry: "Entry | concurrent.futures.Future[Entry]"
    about: About


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
                about = About(*known.about)
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
        about = About(sound.sampling_rate, *sums, sound.decoder, findings, missing)
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
    """An `About`."""


def _version(status: os.stat_result) -> tuple:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
