"""What is kept on disk, and what becomes of it where the disk fails."""

import contextlib
import io
import os
import sqlite3

import pytest

from keras_gated.datasets import store
from keras_gated.datasets.store import Store


def keep(folder, **values):
    with Store("some", folder) as kept:
        return [kept.put(k.encode(), v, [1.5]) for k, v in values.items()]


def found(folder, *keys):
    with Store("some", folder) as kept:
        entries = [kept.get(key.encode()) for key in keys]
        return [entry and kept.read(entry) for entry in entries]


def test_data_comes_back(tmp_path):
    entries = keep(tmp_path, a=b"one", b=io.BytesIO(b"two"), c=b"")
    keep(tmp_path, d=b"three")
    assert found(tmp_path, *"abcde") == [b"one", b"two", b"", b"three", None]
    assert entries[1].result()[:4] == (tmp_path / "some.data", 3, 3, [1.5])


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    keep(tmp_path, a=b"one")
    with open(tmp_path / "some.data", "ab") as file:
        file.write(b"half of what")
    keep(tmp_path, b=b"two")
    assert found(tmp_path, "a", "b") == [b"one", b"two"]
    assert (tmp_path / "some.data").read_bytes()[:6] == b"onetwo"


@pytest.mark.parametrize("what", ["table", "page", "data"])
def test_what_is_damaged_is_made_anew(tmp_path, caplog, what):
    keep(tmp_path, **{f"k{i}": b"x" * 99 for i in range(200)})
    table, data = tmp_path / "some.sqlite", tmp_path / "some.data"
    if what == "table":
        table.write_bytes(b"this is no database at all" * 99)
    elif what == "page":
        content = table.read_bytes()
        table.write_bytes(content[:4096] + b"?" * (len(content) - 4096))
    else:
        os.truncate(data, 50)
    for _ in range(2):  # the first may keep it in another place
        keep(tmp_path, k5=b"new")
    assert found(tmp_path, "k5") == [b"new"]
    assert "damaged" in caplog.text or "cannot be kept" in caplog.text


@pytest.mark.parametrize("column", ["start", "size", "about", "digests", "seal"])
@pytest.mark.parametrize("value", [-1, 7, 2.5, "[", None, b"x"])
def test_a_damaged_row_is_made_anew(tmp_path, caplog, column, value):
    keep(tmp_path, a=b"one", b=b"two")
    with contextlib.closing(sqlite3.connect(tmp_path / "some.sqlite")) as index:
        change = f"UPDATE entries SET {column} = ? WHERE key = ?"  # noqa: S608
        index.execute(change, (value, b"a"))
        index.commit()
    assert found(tmp_path, "a", "b") == [None, b"two"]
    assert "damaged" in caplog.text
    keep(tmp_path, a=b"new")
    assert found(tmp_path, "a", "b") == [b"new", b"two"]


@pytest.mark.parametrize("value", [0, 2, 10**6, "x", None])
def test_where_the_end_is_damaged_nothing_wrong_comes_back(tmp_path, value):
    keep(tmp_path, a=b"one", b=b"two")
    with contextlib.closing(sqlite3.connect(tmp_path / "some.sqlite")) as index:
        index.execute("UPDATE entries SET start = ? WHERE key = ?", (value, store.END))
        index.commit()
    keep(tmp_path, c=b"three")  # in another place, this time
    assert found(tmp_path, *"abc") == [None] * 3
    keep(tmp_path, d=b"four")
    assert found(tmp_path, "d") == [b"four"]


@pytest.mark.parametrize("what", ["no folder", "locked", "full"])
def test_where_nothing_can_be_kept_all_goes_on(tmp_path, caplog, monkeypatch, what):
    folder = tmp_path / "kept"
    monkeypatch.setattr(store, "SECONDS_LOCKED", 0.1)
    keep(folder, a=b"one")
    if what == "no folder":
        folder = tmp_path / "file"
        folder.write_text("this is no folder")
    with Store("some", folder) as kept:
        if what == "full":
            fsync = os.fsync

            def full(handle):
                monkeypatch.setattr(os, "fsync", fsync)
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "fsync", full)
        if what == "locked":
            other = sqlite3.connect(folder / "some.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
        entry = kept.put(b"b", b"two", [])
        kept.flush()
        assert kept.read(entry.result()) == b"two"
        assert entry.result().file.parent != folder
    assert "cannot be kept" in caplog.text


def test_what_waits_is_not_written_twice(tmp_path):
    with Store("some", tmp_path) as kept:
        first, second = (kept.put(b"a", b"one", []) for _ in range(2))
    assert first.result() == second.result()
    assert (tmp_path / "some.data").read_bytes() == b"one"


def change_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change_index(path, change):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as index:
        for statement in change.split(";"):
            index.execute(statement)


SWAP = "UPDATE entries SET {0} = (SELECT {0} FROM entries WHERE key = x'62')"
"""The entry `b` in the place of all others."""


@pytest.mark.parametrize(
    "change",
    [
        0,
        -1,
        "UPDATE entries SET start = start + 1 WHERE start < 9",
        "UPDATE entries SET size = size - 1 WHERE size > 0",
        "UPDATE entries SET size = 'three' WHERE size > 0",
        "UPDATE entries SET about = '[9.5]'",
        "UPDATE entries SET about = 'no JSON' || x'ff'",
        "UPDATE entries SET digests = x''",
        "UPDATE entries SET seal = NULL",
        "UPDATE entries SET start = 2 WHERE key = x''",
        ";".join(SWAP.format(name) for name in ("start", "digests", "seal")),
        "DROP TABLE entries; CREATE TABLE entries (key BLOB, start, size, about)",
        "DROP TABLE entries; CREATE VIEW entries AS SELECT 1 AS key, 2 AS start",
    ],
)
def test_what_was_changed_never_comes_back(tmp_path, caplog, change):
    """A byte of the data, or any field of the index, or other columns."""
    keep(tmp_path, a=b"one", b=b"two", c=b"six")
    if isinstance(change, int):
        change_byte(tmp_path / "some.data", change)
    else:
        change_index(tmp_path / "some.sqlite", change)
    with Store("some", tmp_path) as kept:
        for key, value in (("a", b"one"), ("b", b"two"), ("c", b"six")):
            entry = kept.get(key.encode())
            assert not entry or kept.read(entry) in (value, None)
            assert not entry or entry.about == [1.5]
    assert "made anew" in caplog.text or "cannot be kept" in caplog.text


@pytest.mark.parametrize("size", [1, store.CHUNK, 2 * store.CHUNK + 5])
def test_every_chunk_is_checked_alone(tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    keep(tmp_path, a=b"before", b=data[:size])
    with Store("some", tmp_path) as kept:
        entry = kept.get(b"b")
    chunks = range(-(-size // store.CHUNK))
    with open(entry.file, "rb") as file:
        assert all(entry.is_whole(file, chunk) for chunk in chunks)
    change_byte(entry.file, entry.start + size - 1)
    with open(entry.file, "rb") as file:
        assert [entry.is_whole(file, chunk) for chunk in chunks] == [
            *[True] * (len(chunks) - 1),
            False,
        ]
    store.forget(entry)
    assert found(tmp_path, "a", "b") == [b"before", None]


def test_an_older_index_is_made_anew(tmp_path, caplog):
    change_index(
        tmp_path / "some.sqlite",
        "CREATE TABLE entries (key BLOB PRIMARY KEY, start, size, about);"
        "INSERT INTO entries VALUES (x'61', 0, 3, '[1.5]')",
    )
    (tmp_path / "some.data").write_bytes(b"one")
    assert found(tmp_path, "a") == [None]
    assert "another version" in caplog.text
    keep(tmp_path, a=b"two")
    assert found(tmp_path, "a") == [b"two"]
