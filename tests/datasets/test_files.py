"""Optional packages, and files that are whole or absent."""

import subprocess
import sys

import pytest

from keras_gated.datasets import files


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with files.atomic_path(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def interrupted():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half of i")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_has_left_is_removed(tmp_path):
    path = tmp_path / "run" / "cell" / "best.keras"
    killed = (
        "import os\n"
        "from keras_gated.datasets import files\n"
        f"with files.atomic_path({str(path)!r}) as temporary:\n"
        "    os._exit(9)\n"
    )
    run = subprocess.run([sys.executable, "-c", killed], check=False)
    assert run.returncode == 9
    for name in (".lock", "results.json", "cell/kept-00000001.mid"):
        (tmp_path / "run" / name).touch()
    assert len(list(path.parent.iterdir())) == 2
    files.discard_unfinished(tmp_path / "run")
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {".lock", "results.json", "kept-00000001.mid"}
    files.discard_unfinished(tmp_path / "none")


def test_require(monkeypatch):
    assert files.require("json", extra="examples").dumps([1]) == "[1]"
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(ImportError, match=r"'music21'.*keras-gated\[examples\]"):
        files.require("music21", extra="examples")


def test_cache_directory(monkeypatch, tmp_path):
    assert files.cache_directory(tmp_path) == tmp_path
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert files.cache_directory() == tmp_path / "datasets" / "keras_gated"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_directory() == tmp_path / ".keras" / "datasets" / "keras_gated"


def test_what_needs_tensorflow_says_so_where_it_is_absent(tmp_path):
    """Files are read without it; batches end in one line."""
    script = (
        "import os, sys\n"
        "sys.modules['tensorflow'] = None\n"
        "os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import numpy as np\n"
        "from keras_gated import datasets\n"
        "from keras_gated.datasets import audio, midi, midi_directory\n"
        "midi.write(np.eye(88), 'music/scale.mid')\n"
        "audio.write(np.sin(np.arange(900.0)), 'music/tone.wav', 8000)\n"
        "assert midi_directory.read_directory('music', verbose=False).rolls\n"
        "assert audio.read_directory('music', verbose=False).seconds\n"
        "for batches in (\n"
        "    datasets.midi_dataset_from_directory,\n"
        "    datasets.audio_dataset_from_directory,\n"
        "):\n"
        "    try:\n"
        "        batches('music', verbose=False)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    line = "This needs the package 'tensorflow', which is not installed. Install it"
    assert [said[: len(line)] for said in done.stdout.splitlines()] == [line] * 2
