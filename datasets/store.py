"""What was read from files, kept on disk by the content of the files.

The data of all files lies in one file, one after the other; an index in SQLite beside
it says where. Data is only ever added at the end, and the index is told afterwards: a
process that is killed leaves data that the index does not know, which the next process
overwrites.

The index has digests of the data and of its own rows, so that nothing comes back but
what was written. They are no signatures: who may write to the folder may write
digests, too.

One rule holds for whatever is wrong with the two files: reading goes on. What is
damaged is made anew. Where the folder cannot be used (any more), a temporary one takes
its place for this time. The log says so in both cases.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

SECONDS_UNSAVED = 1.0
"""How much work an interruption may lose."""
BYTES_UNSAVED = 2**26
"""How much data waits in memory to be written."""
SECONDS_LOCKED = 600.0
"""How long another process may take to write."""
END = b""
"""The key of the entry that begins where the data ends."""
CHUNK = 2**18
"""How many bytes of an entry have a digest of their own, so that a part of it can be
checked without the rest."""
COLUMNS = "key", "start", "size", "about", "digests", "seal"
"""Of the index; one that has others is of another version."""

log = logging.getLogger("keras_gated")


class Entry(NamedTuple):
    """Where the data of one file lies."""

    file: Path
    """The file that holds it."""
    start: int
    """Its first byte."""
    size: int
    """How many bytes it has."""
    about: list
    """Numbers that are kept with it."""
    digests: bytes
    """Those of its chunks, one after the other."""

    def is_whole(self, file: BinaryIO, chunk: int) -> bool:
        """Whether a chunk of it is what was written.

        Args:
            file: The file, open.
            chunk: The number of the chunk.
        """
        begin = chunk * CHUNK
        file.seek(self.start + begin)
        data = file.read(min(CHUNK, self.size - begin))
        found, length = _digests(data), hashlib.sha256().digest_size
        return found == self.digests[chunk * length : (chunk + 1) * length]


def digest(settings: dict, content: bytes | BinaryIO) -> bytes:
    """The key of what is read with some settings from some content.

    Args:
        settings: What the data depends on, besides the content.
        content: The bytes of a file, or the file.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if isinstance(content, bytes):
        key.update(content)
    else:
        key.update(hashlib.file_digest(content, "sha256").digest())
    return key.digest()


class _Waiting(NamedTuple):
    """Data that is to be written."""

    data: bytes | BinaryIO
    about: list
    entry: "Future[Entry]"


class Store:
    """Data by key, kept in a folder; used as a context manager.

    Args:
        name: The name of the two files, without their endings.
        folder: Where they are. Default: `None`, a temporary folder that goes when
            the store is no longer used.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._opened = contextlib.ExitStack()
        self._waiting: dict[bytes, _Waiting] = {}
        self._bytes_waiting = 0
        self._saved = time.monotonic()
        self._temporary = folder is None
        if folder is None:
            self._open_temporary()
            return
        try:
            self._open(folder)
        except (sqlite3.Error, OSError) as error:
            self._give_up(folder, error)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._opened.close()

    def get(self, key: bytes) -> Entry | None:
        """Finds what is kept; any thread may ask.

        Args:
            key: The key.

        Returns:
            Where the data is, or `None` if it is not known or not yet written.
        """
        with self._lock:
            try:
                row = self._row(key)
            except sqlite3.Error as error:
                self._give_up(self.file.parent, error)
                return None
            if row is None:
                return None
            if not _is_sealed(row):
                log.warning("An entry of %s is damaged and is made anew.", self.file)
                return None
            _, start, size, about, digests, _ = row
            return Entry(self.file, start, size, json.loads(about), digests)

    def read(self, entry: Entry) -> bytes | None:
        """Reads the data of an entry.

        Args:
            entry: As `get` returned it.

        Returns:
            The data, or `None` if it is not what was written.
        """
        with self._lock:
            self._data.seek(entry.start)
            data = self._data.read(entry.size)
        if _digests(data) == entry.digests:
            return data
        log.warning("Data in %s is damaged and is made anew.", self.file)
        return None

    def put(self, key: bytes, data: bytes | BinaryIO, about: list) -> "Future[Entry]":
        """Keeps data; it is written a second later at most, by the next call.

        Args:
            key: The key.
            data: The data, or a file that holds it from its beginning.
            about: Numbers to keep with it.

        Returns:
            Where the data is, once it is written.
        """
        if key in self._waiting:
            return self._waiting[key].entry
        self._waiting[key] = waiting = _Waiting(data, about, Future())
        self._bytes_waiting += len(data) if isinstance(data, bytes) else data.tell()
        late = time.monotonic() - self._saved > SECONDS_UNSAVED
        if late or self._bytes_waiting > BYTES_UNSAVED:
            self.flush()
        return waiting.entry

    def flush(self) -> None:
        """Writes what waits to be written.

        Raises:
            OSError: Not even a temporary folder takes it.
        """
        with self._lock:
            if self._waiting:
                try:
                    self._write()
                except (sqlite3.Error, OSError) as error:
                    self._give_up(self.file.parent, error)
                    self._write()
            self._waiting.clear()
            self._bytes_waiting = 0
            self._saved = time.monotonic()

    def _write(self) -> None:
        # One process at a time: its data begins where the index ends.
        self._index.execute("BEGIN IMMEDIATE")
        with self._transaction(), open(self.file, "r+b") as file:
            start, entries = self._end(), []
            file.seek(start)
            for data, about, _ in self._waiting.values():
                source = io.BytesIO(data) if isinstance(data, bytes) else data
                source.seek(0)
                digests = b""
                while chunk := source.read(CHUNK):
                    file.write(chunk)
                    digests += _digests(chunk)
                size = file.tell() - start
                entries.append(Entry(self.file, start, size, about, digests))
                start += size
            file.flush()
            if not self._temporary:
                os.fsync(file.fileno())  # before the index says that it is there
            end = Entry(self.file, start, 0, [], b"")
            self._index.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                map(_sealed_row, [*self._waiting, END], [*entries, end]),
            )
        for waiting, entry in zip(self._waiting.values(), entries, strict=True):
            waiting.entry.set_result(entry)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            yield
            self._index.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._index.execute("ROLLBACK")
            raise

    def _row(self, key: bytes) -> tuple | None:
        # With `_connect` the columns are those of COLUMNS, in their order.
        query = "SELECT * FROM entries WHERE key = ?"
        return self._index.execute(query, (key,)).fetchone()

    def _end(self) -> int:
        row = self._row(END)
        if row is None:
            return 0
        if not _is_sealed(row):
            raise sqlite3.DatabaseError("it is not known where the data ends")
        return row[1]

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"{self._name}.data"
        """The file of the data."""
        table = folder / f"{self._name}.sqlite"
        try:
            index = _connect(table)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            log.warning("%s is damaged and is made anew.", table)
            table.unlink()
            index = _connect(table)
        self._index = self._opened.enter_context(contextlib.closing(index))
        self.file.touch()
        # Unbuffered: a buffer would hide what another process adds.
        data = open(self.file, "rb", buffering=0)  # noqa: SIM115
        self._data = self._opened.enter_context(data)
        end = self._end()  # first: another process may add in between
        if self.file.stat().st_size < end:
            log.warning("%s is damaged and is made anew.", self.file)
            self._index.execute("DELETE FROM entries")

    def _open_temporary(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="keras_gated_")
        weakref.finalize(self, folder.cleanup)
        self._temporary = True
        self._open(Path(folder.name))

    def _give_up(self, folder: Path, error: Exception) -> None:
        log.warning(
            "What is read cannot be kept in %s (%s); it will be read anew next time.",
            folder,
            error,
        )
        self._opened.close()
        if not isinstance(error, sqlite3.OperationalError | OSError):
            # It is damaged; without the index all is made anew next time.
            (folder / f"{self._name}.sqlite").unlink(missing_ok=True)
        self._open_temporary()


def forget(entry: Entry) -> None:
    """Lets what is damaged be made anew the next time.

    Args:
        entry: What is damaged.
    """
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(_connect(entry.file.with_suffix(".sqlite"))) as index,
    ):
        query = "DELETE FROM entries WHERE start = ? AND key != ?"
        index.execute(query, (entry.start, END))


def _digests(data: bytes) -> bytes:
    """The digests of the chunks of some data."""
    view = memoryview(data)
    chunks = (view[at : at + CHUNK] for at in range(0, len(data), CHUNK))
    return b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)


def _seal(*fields: Any) -> bytes:
    """The digest of a row of the index."""
    return hashlib.sha256(repr(fields).encode()).digest()


def _sealed_row(key: bytes, entry: Entry) -> tuple:
    about = json.dumps(entry.about).encode()
    fields = key, entry.start, entry.size, about, entry.digests
    return *fields, _seal(*fields)


def _is_sealed(row: tuple) -> bool:
    *fields, seal = row
    return _seal(*fields) == seal


def _connect(table: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        table, SECONDS_LOCKED, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = bytes  # damaged text would be an error
    try:
        if not _is_current(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not _is_current(connection):  # another process may have been faster
                if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    log.warning("%s is of another version and is made anew.", table)
                connection.execute("DROP TABLE IF EXISTS entries")
                connection.execute(
                    f"CREATE TABLE entries ({', '.join(COLUMNS)}, PRIMARY KEY (key)) "
                    "WITHOUT ROWID"
                )
            connection.execute("COMMIT")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_current(index: sqlite3.Connection) -> bool:
    columns = index.execute("PRAGMA table_info(entries)").fetchall()
    return [name.decode() for _, name, *_ in columns] == [*COLUMNS]
