"""Many sound files, decoded into one file of samples."""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import checks
from ..files import Finding
from ..folders import split
from ..report import Report
from ..store import CHUNK, Entry, Store, forget

STORE = "recordings"
"""The name of the files in which samples are kept."""
BYTES = np.dtype(np.float32).itemsize


class Standardization(NamedTuple):
    """How samples are standardized: `(x - mean) / std`."""

    mean: float
    """The mean of the samples."""
    std: float
    """Their standard deviation; 0 if all samples are equal, as in silence."""

    @classmethod
    def of(cls, samples: int, total: float, squares: float) -> "Standardization":
        """That of samples of which sums are known.

        Args:
            samples: Their number, positive.
            total: Their sum.
            squares: The sum of their squares.
        """
        mean = total / samples
        variance = squares / samples - mean**2
        # Where all samples are equal, sums that are rounded may leave something.
        return cls(
            mean, float(np.sqrt(variance)) if variance > 1e-12 * mean**2 else 0.0
        )

    @classmethod
    def asked_for(
        cls,
        standardize: "bool | Standardization",
        measured: Callable[[], "Standardization"],
    ) -> "Standardization":
        """What an argument `standardize` asks for.

        Args:
            standardize: `True` for what is measured, `False` for the samples as they
                are, or a pair of a mean and a standard deviation.
            measured: Returns what is measured.

        Raises:
            ValueError: It is none of them.
        """
        if standardize is True:
            return measured()
        if standardize is False:
            return cls(0.0, 1.0)
        check_standardize(standardize)
        mean, std = standardize
        return cls(
            checks.number("standardize[0]", mean),
            checks.number("standardize[1]", std, above=0),
        )

    def check(self, samples: int, recordings: int) -> "Standardization":
        """Itself, if samples can be standardized by it.

        Args:
            samples: Their number, for the message.
            recordings: The number of recordings, for the message.

        Raises:
            ValueError: All samples are equal.
        """
        if self.std == 0:
            raise ValueError(
                f"All {samples:,} samples of the {recordings:,} recordings are equal, "
                "as in silence; they cannot be standardized."
            )
        return self


def check_standardize(standardize: bool | Standardization) -> None:
    """Refuses what `Standardization.asked_for` does not take, before files are read.

    Args:
        standardize: The argument.

    Raises:
        ValueError: It is neither `True`, `False` nor a pair.
    """
    if not isinstance(standardize, bool) and np.shape(standardize) != (2,):
        accepted = "True, False, or a pair of a mean and a standard deviation"
        raise checks.error("standardize", standardize, accepted)


class About(NamedTuple):
    """What the store keeps with the samples of a file."""

    sampling_rate: int
    """Samples per second."""
    total: float
    """The sum of the samples."""
    squares: float
    """The sum of their squares."""
    decoder: str
    """The name of the decoder."""
    findings: list[tuple[str, str]]
    """The kinds of what was found, and how the sentences go on from the file's name."""
    missing: bool
    """Whether the last of them tells of a part that is missing."""

    def warnings(self, path: Path) -> list[Finding]:
        """What was found, with the name of the file.

        Args:
            path: The file.
        """
        name = f"{str(path)!r}"
        return [Finding(f"{name} {text}.", kind) for kind, text in self.findings]


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
        # The first chunk of each file, if all were counted in their order, and whether
        # a chunk was compared with its digest.
        chunks = (-(-entry.size // CHUNK) for entry in entries)
        self._chunks = [0, *itertools.accumulate(chunks)]
        self._checked = bytearray(self._chunks[-1])
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
            OSError: The file of samples is gone, or is not what was written. What is
                damaged is decoded anew the next time that the sound is read.
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
                    self._check(number, file, offset * BYTES, part.nbytes)
                    file.seek(entry.start + offset * BYTES)
                    if file.readinto(part) != part.nbytes:
                        raise OSError(f"{str(entry.file)!r} has been cut off.")
                    done, number, offset = done + len(part), number + 1, 0

    def _check(self, number: int, file: BinaryIO, begin: int, size: int) -> None:
        """Compares what is read of a recording with its digests; all of it only once.

        Samples are read in small parts, and are many: to compare them all when they are
        opened would read everything twice.
        """
        first = self._chunks[number]
        span = first + begin // CHUNK, first + -(-(begin + size) // CHUNK)
        while (chunk := self._checked.find(0, *span)) >= 0:
            entry = self._entries[number]
            if not entry.is_whole(file, chunk - first):
                forget(entry)
                raise OSError(
                    f"The samples of {str(self.paths[number])!r} in "
                    f"{str(entry.file)!r} are damaged or cut off; they are decoded "
                    "anew the next time that the file is read."
                )
            self._checked[chunk] = 1

    def standardization(self) -> Standardization:
        """The mean and the standard deviation of all samples.

        Raises:
            ValueError: All samples are equal, as in silence.
        """
        samples = int(self._joined[-1])
        about = [About(*entry.about) for entry in self._entries]
        total = sum(sound.total for sound in about)
        squares = sum(sound.squares for sound in about)
        return Standardization.of(samples, total, squares).check(samples, len(self))

    @property
    def report(self) -> Report:
        """What came of the reading: readers, warnings and what was skipped."""
        minutes = self.seconds / 60
        return Report(
            f"{len(self):,} sound files read, {minutes:,.1f} minutes at "
            f"{self.sampling_rate:,} samples per second.",
            dict(collections.Counter(About(*e.about).decoder for e in self._entries)),
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

    def save_report(self, cache: Path, folder: Path) -> None:
        """Writes the report beside the cache.

        Args:
            cache: The folder of the cache.
            folder: The folder that was read.
        """
        report = self.report
        report.save(STORE, cache, folder)
        self._report_path = report.path
