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


@pytest.mark.parametrize("column", ["start", "size", "about", "crc", "checksum"])
@pytest.mark.parametrize("value", [-1, 7, 2.5, "[", None, b"x"])
def test_a_damaged_row_is_made_anew(tmp_path, caplog, column, value):
    keep(tmp_path, a=b"one", b=b"two")
    with contextlib.closing(sqlite3.connect(tmp_path / "some.sqlite")) as index:
        index.execute(f"UPDATE kept SET {column} = ? WHERE key = ?", (value, b"a"))
        index.commit()
    assert found(tmp_path, "a", "b") == [None, b"two"]
    assert "damaged" in caplog.text
    keep(tmp_path, a=b"new")
    assert found(tmp_path, "a", "b") == [b"new", b"two"]


@pytest.mark.parametrize("value", [0, 2, 10**6, "x", None])
def test_where_the_end_is_damaged_nothing_is_overwritten(tmp_path, value):
    keep(tmp_path, a=b"one", b=b"two")
    with contextlib.closing(sqlite3.connect(tmp_path / "some.sqlite")) as index:
        index.execute("UPDATE kept SET start = ? WHERE key = ?", (value, store.END))
        index.commit()
    keep(tmp_path, c=b"three")
    keep(tmp_path, d=b"four")
    assert found(tmp_path, *"abcd") == [b"one", b"two", b"three", b"four"]


@pytest.mark.parametrize("place", range(3))
def test_damaged_data_is_not_handed_out(tmp_path, place):
    keep(tmp_path, a=b"one", b=b"two")
    data = bytearray((tmp_path / "some.data").read_bytes())
    data[place] ^= 1
    (tmp_path / "some.data").write_bytes(data)
    assert found(tmp_path, "a", "b") == [None, b"two"]


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
