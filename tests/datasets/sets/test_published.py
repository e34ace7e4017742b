"""The four published sets: small files of their layout, and the real ones."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from keras_gated.datasets import (
    jsb_chorales,
    muse_data,
    nottingham,
    piano_midi,
)
from keras_gated.datasets.files import cache_directory
from keras_gated.datasets.sets import published

REAL = Path(__file__).parents[4] / "shared" / "data" / "polyphonic"
SETS = {
    "JSB_Chorales.mat": jsb_chorales,
    "Nottingham.mat": nottingham,
    "MuseData.mat": muse_data,
    "Piano_midi.mat": piano_midi,
}
each_set = pytest.mark.parametrize("name", SETS)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Files of the published layout, with their checksums; the rolls in them."""
    generator = np.random.default_rng(5)
    folder = tmp_path / "published"
    folder.mkdir()
    rolls, digests = {}, {}
    for name in SETS:
        rolls[name] = [
            [
                (generator.random((3 + k, 88)) < 0.1).astype(np.uint8)
                for k in range(count)
            ]
            for count in (4, 1, 2)
        ]
        columns = {}
        for part, some in zip(published.PARTS, rolls[name], strict=True):
            columns[part] = np.empty((1, len(some)), object)
            for k, roll in enumerate(some):
                columns[part][0, k] = roll
        savemat(folder / name, columns)
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(published, "SHA256", digests)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(published.DATA_DIR, raising=False)
    return folder, rolls


def assert_same(found, expected):
    for some, others in zip(found, expected, strict=True):
        for roll, other in zip(some, others, strict=True):
            assert roll.dtype == np.uint8
            np.testing.assert_array_equal(roll, other)


@each_set
def test_from_a_folder(small, monkeypatch, name):
    folder, rolls = small
    assert_same(SETS[name].load_data(folder), rolls[name])
    monkeypatch.setenv(published.DATA_DIR, str(folder))
    assert_same(SETS[name].load_data(), rolls[name])


@pytest.fixture
def server(small, monkeypatch):
    """A web server that has the files; what was asked of it."""
    folder, _ = small
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{running.server_port}/"
        monkeypatch.setattr(published, "ORIGIN", origin)
        yield asked
        running.shutdown()


def test_download_once(small, server):
    _, rolls = small
    for _ in range(2):
        assert_same(nottingham.load_data(), rolls["Nottingham.mat"])
    assert server == ["/Nottingham.mat"]
    # A file that was cut off since is downloaded anew.
    kept = cache_directory() / "Nottingham.mat"
    kept.write_bytes(kept.read_bytes()[:100])
    assert_same(nottingham.load_data(), rolls["Nottingham.mat"])
    assert server == ["/Nottingham.mat"] * 2


def test_what_is_loaded_is_what_was_checked(small, monkeypatch):
    """Also if the file changes in between."""
    folder, rolls = small
    sha256 = hashlib.sha256

    def check_and_change(content):
        (folder / "Nottingham.mat").write_bytes(b"something else")
        return sha256(content)

    monkeypatch.setattr(published.hashlib, "sha256", check_and_change)
    assert_same(nottingham.load_data(folder), rolls["Nottingham.mat"])


def test_download_of_something_else(small, server):
    folder, _ = small
    (folder / "Nottingham.mat").write_bytes(b"<html>Not found</html>")
    with pytest.raises(ValueError, match=r"not the published Nottingham\.mat"):
        nottingham.load_data()


def test_download_that_fails(small, server):
    folder, _ = small
    (folder / "Nottingham.mat").unlink()
    with pytest.raises(OSError, match=r"data_dir=FOLDER.*KERAS_GATED_DATA_DIR"):
        nottingham.load_data()


@pytest.mark.parametrize("damage", ["cut", "altered", "wrong", "empty"])
def test_files_that_are_not_the_published_ones(small, damage):
    folder, _ = small
    path = folder / "MuseData.mat"
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-10],
            "altered": content[:500] + bytes([content[500] ^ 1]) + content[501:],
            "wrong": (folder / "Nottingham.mat").read_bytes(),
            "empty": b"",
        }[damage]
    )
    with pytest.raises(
        ValueError, match=r"is not the published MuseData\.mat"
    ) as error:
        muse_data.load_data(folder)
    assert str(path) in str(error.value)


def test_folder_without_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"JSB_Chorales\.mat.*Get it from"):
        jsb_chorales.load_data(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no published sets in {REAL}")
@pytest.mark.parametrize(
    ("name", "counts", "mean", "longest"),
    [
        ("JSB_Chorales.mat", (229, 76, 77), 60, 160),
        ("Nottingham.mat", (694, 173, 170), 254, 1793),
        ("MuseData.mat", (524, 135, 124), 468, 4273),
        ("Piano_midi.mat", (87, 12, 25), 872, 3857),
    ],
)
def test_counts_and_lengths_of_the_real_sets(name, counts, mean, longest):
    parts = SETS[name].load_data(REAL)
    assert tuple(map(len, parts)) == counts
    assert np.mean([len(roll) for roll in parts[0]]) == pytest.approx(mean, abs=0.6)
    assert max(len(roll) for part in parts for roll in part) == longest
    rolls = [roll for part in parts for roll in part]
    # Between two and five notes sound; some steps are silent, which is data.
    density = np.concatenate(rolls).sum(1)
    assert 2 < density.mean() < 5
    assert (density == 0).any()


@pytest.mark.parametrize("content", [b"", b"no matrices", b"\0" * 200])
def test_what_scipy_cannot_read_is_named(tmp_path, monkeypatch, content):
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(published.SHA256, "Nottingham.mat", digest)
    (tmp_path / "Nottingham.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"Nottingham\.mat' cannot be read by SciPy"):
        nottingham.load_data(tmp_path)
