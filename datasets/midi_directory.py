"""Folders of MIDI files: rolls of all of them, and batches for training."""

import base64
import collections
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import queue
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_gated.datasets import midi, piano_roll
from keras_gated.datasets.files import cache_directory
from keras_gated.datasets.folders import check_split, find_files
from keras_gated.datasets.midi_engines import MIDIError, engine_name, read_bytes

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".mid", ".midi")
"""The endings by which MIDI files are known, in any case."""
FILES_A_PROCESS = {"pretty_midi": 50, "symusic": 2000}
"""How many files are worth the start of another process."""
RULES = "2"
"""Changes whenever the same file and options come to give another roll."""

log = logging.getLogger("keras_gated")


@dataclasses.dataclass
class Folder:
    """The MIDI files of a folder, read."""

    paths: list[Path]
    """The files that were read, in their order."""
    rolls: piano_roll.PackedRolls
    """Their rolls."""
    skipped: dict[Path, str]
    """Why files, and folders that cannot be listed, were skipped."""
    dropped_notes: int
    """How many notes lie outside the 88 keys and were left out."""

    def __str__(self) -> str:
        steps = sum(self.rolls.lengths)
        lines = [f"{len(self.paths):,} MIDI files read, {steps:,} steps."]
        if self.dropped_notes:
            lines.append(
                f"{self.dropped_notes:,} notes outside the 88 keys were left out."
            )
        if self.skipped:
            lines.append(f"{len(self.skipped):,} skipped:")
            lines += [f"  {reason}" for reason in self.skipped.values()]
        return "\n".join(lines)


def read_directory(
    directory: str | os.PathLike,
    *,
    follow_links: bool = False,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
    verbose: int = 1,
    **options: Any,
) -> Folder:
    """Reads all MIDI files (`.mid`, `.midi`) of a folder and its subfolders.

    Files are read by several processes, and what was read is kept in a file, by
    the content of each MIDI file and the options: reading again is many times
    faster, after an interruption, too.

    Args:
        directory: The folder.
        follow_links: Whether to go into folders that are links. Default: `False`.
        workers: The largest number of processes. Default: one a core.
        cache: Whether to keep and use what was read. Default: `True`.
        cache_dir: Where to keep it, in the file `midi_rolls.sqlite`. Default:
            `datasets/keras_gated` in Keras's folder (`$KERAS_HOME`, or
            `~/.keras`).
        errors: `"skip"` files that cannot be read, or `"raise"`. Default:
            `"skip"`.
        verbose: 1 shows a progress bar, 0 is silent. Default: 1.
        **options: How to read the files: `midi.Options`, but for `velocity`.
            `transpose="random"` with a `seed` moves all by the same; without one it
            is not kept.

    Returns:
        The rolls, the files' paths, and what was skipped and why.

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no MIDI
            file that can be; or an argument is out of its range.
        MIDIError: With `errors="raise"`: a file cannot be read.
        ImportError: The parser is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import midi, midi_directory
    >>> midi.write(np.eye(88), "tunes/scale.mid")
    >>> folder = midi_directory.read_directory("tunes", verbose=0)
    >>> folder.rolls[0].shape
    (88, 88)
    """
    settings = midi.Options(**options)
    if settings.velocity:
        raise ValueError("Rolls of velocities are read one by one, with `midi.read`.")
    if errors not in ("skip", "raise"):
        raise ValueError(
            f"Argument `errors` must be 'skip' or 'raise'. Received: errors={errors!r}"
        )
    if workers is not None and workers < 1:
        raise ValueError(
            "Argument `workers` must be a positive integer. "
            f"Received: workers={workers!r}"
        )
    engine = engine_name(settings.engine)
    paths, skipped = find_files(directory, SUFFIXES, "MIDI file", follow_links)
    from keras.utils import Progbar

    bar = Progbar(len(paths), verbose=verbose, unit_name="file")
    found: dict[Path, tuple[bytes, int]] = {}
    by_chance = settings.transpose == "random" and settings.seed is None
    folder = cache_directory(cache_dir) if cache and not by_chance else None
    with _Cache(folder) as kept:
        keys = {}
        for path in paths:
            try:
                keys[path] = _key(read_bytes(path), settings)
            except OSError as error:
                skipped[path] = f"{str(path)!r} cannot be read: {error.strerror}"
                bar.add(1)
                continue
            known = kept.get(keys[path])
            if known is not None:
                found[path] = known
                bar.add(1)
        new = [path for path in keys if path not in found]
        count = min(workers or os.cpu_count() or 1, len(new) // FILES_A_PROCESS[engine])
        run = _in_processes(new, settings, count) if count > 1 else _here(new, settings)
        with contextlib.closing(run) as answers:
            for path, answer in answers:
                if isinstance(answer, str):
                    if errors == "raise":
                        raise MIDIError(answer)
                    skipped[path] = answer
                else:
                    found[path] = answer
                    kept.put(keys[path], answer)
                bar.add(1)
    if not found:
        path, reason = next(iter(skipped.items()))
        raise ValueError(
            f"None of the {len(skipped)} MIDI files of {str(directory)!r} can be "
            f"read; the first: {reason}"
        )
    read = [path for path in paths if path in found]
    return Folder(
        read,
        piano_roll.PackedRolls(found[path][0] for path in read),
        dict(sorted(skipped.items())),
        sum(found[path][1] for path in read),
    )


def midi_dataset_from_directory(
    directory: str | os.PathLike,
    batch_size: int = 16,
    sequence_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    max_shapes: int = 12,
    random_transpose: bool = False,
    verbose: int = 1,
    **arguments: Any,
) -> "tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]":
    """Batches of next-step prediction from a folder of MIDI files.

    In the manner of `keras.utils.audio_dataset_from_directory`; the batches are
    those of `piano_roll.next_step_dataset`.

    Args:
        directory: The folder; its subfolders are read, too.
        batch_size: The largest number of sequences in a batch. Default: 16.
        sequence_length: Cuts the music into sequences of so many predicted
            steps. Default: `None`, whole files.
        shuffle: Whether to put the files in a random order before they are split,
            and the batches before each pass. Without it, validation has the last
            files in the order of their paths. Default: `True`.
        seed: Of all that is random. Needed where `subset` is one of two parts of
            what is shuffled. Default: `None`.
        validation_split: The share of the files, between 0 and 1, that is set
            aside for validation. Default: `None`.
        subset: Which to return: `"training"`, `"validation"` or `"both"`.
            Needed with `validation_split`. Default: `None`.
        max_shapes: The largest number of different shapes of batches. Default: 12.
        random_transpose: Whether each pass moves each sequence of training by
            -5 to 6 semitones. Default: `False`.
        verbose: 1 shows a progress bar and a report, 0 is silent. Default: 1.
        **arguments: Of `read_directory`, and `midi.Options`.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`; with `subset="both"` that of training and
        that of validation. Each has the attributes `file_paths` (its files) and
        `folder` (the `Folder`, with what was skipped).

    Raises:
        ValueError: As `read_directory` does; or a part has no music of two
            steps or more, or the arguments do not go together.
        ImportError: The parser is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import midi, midi_dataset_from_directory
    >>> for k in range(4):
    ...     midi.write(np.eye(88)[: 60 + k], f"four/tune{k}.mid")
    >>> train, valid = midi_dataset_from_directory(
    ...     "four", validation_split=0.25, subset="both", seed=1, verbose=0
    ... )
    >>> len(train.file_paths), len(valid.file_paths)
    (3, 1)
    """
    check_split(validation_split, subset, shuffle, seed)
    folder = read_directory(directory, verbose=verbose, **arguments)
    if verbose:
        print(folder)
    long = [i for i, length in enumerate(folder.rolls.lengths) if length > 1]
    for path in {*folder.paths} - {folder.paths[i] for i in long}:
        folder.skipped[path] = f"{str(path)!r} has one step; training needs two."
    order = np.array(long, int)
    if shuffle:
        order = np.random.default_rng(seed).permutation(order)
    held_out = round(len(order) * (validation_split or 0))
    parts = {
        "training": order[: len(order) - held_out],
        "validation": order[len(order) - held_out :],
    }
    wanted = ["training"] if subset is None else list(parts)
    datasets = []
    for name in wanted if subset in (None, "both") else [subset]:
        members = parts[name]
        if not len(members):
            raise ValueError(
                f"No music is left for {name}: {str(directory)!r} has {len(order)} "
                f"files of two steps or more and validation_split={validation_split}."
            )
        dataset = piano_roll.next_step_dataset(
            folder.rolls.take(members),
            batch_size,
            shuffle,
            seed,
            max_shapes,
            sequence_length,
            random_transpose and name == "training",
        )
        dataset.file_paths = [folder.paths[i] for i in members]
        dataset.folder = folder
        datasets.append(dataset)
    return tuple(datasets) if len(datasets) > 1 else datasets[0]


def _key(content: bytes, options: midi.Options) -> bytes:
    """What the roll depends on."""
    settings = {**dataclasses.asdict(options), "engine": None, "rules": RULES}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(content)
    return digest.digest()


Answer = tuple[bytes, int] | str
"""A packed roll and the number of its dropped notes, or why there is none."""


def answer(
    path: str | os.PathLike, options: midi.Options, content: bytes | None = None
) -> Answer:
    """Reads one file of many.

    Args:
        path: The file; with `content`, its name in messages.
        options: How to read it.
        content: The bytes of the file. Default: they are read from `path`.

    Returns:
        The packed roll and the number of its dropped notes, or why there is none.
    """
    try:
        reading = midi.read_all(path, options, content)
    except MIDIError as error:
        return str(error)
    except OSError as error:
        return f"{os.fspath(path)!r} cannot be read: {error.strerror or error}"
    return piano_roll.pack(reading.roll), reading.dropped_notes


def _here(
    paths: Sequence[Path], options: midi.Options
) -> Iterator[tuple[Path, Answer]]:
    for path in paths:
        yield path, answer(path, options)


def _in_processes(
    paths: Sequence[Path], options: midi.Options, count: int
) -> Iterator[tuple[Path, Answer]]:
    """What `_here` gives, as it comes."""
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for path in paths:
        todo.put(path)
    done: queue.SimpleQueue = queue.SimpleQueue()
    workers = [_Worker(options) for _ in range(count)]

    def work(worker: _Worker) -> None:
        try:
            for answer in worker.read_all(iter(todo.get_nowait, None)):
                done.put(answer)
        except Exception as error:
            done.put(error)

    try:
        for worker in workers:
            threading.Thread(target=work, args=(worker,), daemon=True).start()
        for _ in paths:
            answer = done.get()
            if isinstance(answer, Exception):
                raise answer
            yield answer
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that reads files; where one brings it down, another takes over."""

    AHEAD = 4
    """How many files it has been told of, so that it never waits."""

    def __init__(self, options: midi.Options) -> None:
        self.options = dataclasses.asdict(options)
        self.process: subprocess.Popen | None = None
        self.stopped = False

    def read_all(self, paths: Iterator[Path]) -> Iterator[tuple[Path, Answer]]:
        """Reads files as they come; `queue.Empty` ends them."""
        told: collections.deque[Path] = collections.deque()
        while True:
            with contextlib.suppress(queue.Empty):
                while len(told) < self.AHEAD:
                    told.append(next(paths))
                    if self.process is not None:
                        self._send(os.fspath(told[-1]))
            if not told or self.stopped:
                return
            if self.process is None:
                self._start()
                for path in told:
                    self._send(os.fspath(path))
            line = self.process.stdout.readline()
            path = told.popleft()
            if line:
                yield path, self._decode(json.loads(line))
            else:
                code, self.process = self.process.wait(), None
                yield path, f"{str(path)!r} brought its parser down (exit code {code})."

    @staticmethod
    def _decode(found: str | list) -> Answer:
        if isinstance(found, str):
            return found
        data, dropped = found
        return base64.b64decode(data), dropped

    def _start(self) -> None:
        import keras_gated
        from keras_gated.datasets import midi_worker

        package = Path(keras_gated.__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, "-P", midi_worker.__file__, package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(self.options)
        if self.process.stdout.readline().strip() != midi_worker.READY:
            raise RuntimeError(
                "A process that reads MIDI files did not start; what it said stands "
                "above. workers=1 reads without."
            )

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone; reading will tell
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        self.stopped = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class _Cache:
    """Rolls by key, in a file. Where that fails, the log says so, and all goes on."""

    BATCH = 200

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.connection: sqlite3.Connection | None = None
        self.pending: list[tuple] = []

    def __enter__(self) -> "_Cache":
        if self.folder is not None:
            with self._forgiving():
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self.folder / "midi_rolls.sqlite"
                self.connection = sqlite3.connect(file, timeout=30)
                self.connection.execute(
                    "CREATE TABLE IF NOT EXISTS rolls "
                    "(key BLOB PRIMARY KEY, data BLOB, dropped INTEGER) WITHOUT ROWID"
                )
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        if self.connection is not None:
            self.connection.close()

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        with self._forgiving():
            if self.connection is not None:
                query = "SELECT data, dropped FROM rolls WHERE key = ?"
                return self.connection.execute(query, (key,)).fetchone()
        return None

    def put(self, key: bytes, value: tuple[bytes, int]) -> None:
        self.pending.append((key, *value))
        if len(self.pending) >= self.BATCH:
            self._write()

    def _write(self) -> None:
        with self._forgiving():
            if self.connection is not None:
                with self.connection:
                    self.connection.executemany(
                        "INSERT OR REPLACE INTO rolls VALUES (?, ?, ?)", self.pending
                    )
        self.pending = []

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.connection = None
            log.warning(
                "What is read from MIDI files cannot be kept in %s (%s); it will be "
                "read anew next time.",
                self.folder / "midi_rolls.sqlite",
                error,
            )
