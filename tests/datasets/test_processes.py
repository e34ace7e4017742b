"""Processes that read files, and what becomes of those that do not end well."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from midi_bytes import DENSE, LONG

from keras_gated.datasets import midi, processes, worker
from keras_gated.datasets.files import FileError
from keras_gated.datasets.processes import Processes

EYE = [[int(j == t % 88) for j in range(88)] for t in range(12)]


NO_MESSAGES = [b"", b"[3]\nab", b"[3", b"3\n", b"[]\n", b"{}\n", b'["3"]\nabc']
NO_MESSAGES += [b"\xff\n", b"[-1]\nabc", b"[2.5]\nabc", b"[" * 99_999 + b"\n"]


@pytest.mark.parametrize("said", NO_MESSAGES)
def test_what_is_no_message_ends_the_stream(said):
    assert worker.receive(io.BytesIO(said)) is None


@pytest.fixture
def tune(tmp_path):
    midi.write(EYE, tmp_path / "tune.mid")
    return (tmp_path / "tune.mid").read_bytes()


def read_some(tune, paths, count=2, options=None, hogs=(), **limits):
    """What is read of each path, or the error; all but the hogs have the same bytes."""
    results, hogs = {}, dict(hogs)
    read = "music.midi:packed_reader", options or {}, FileError, count
    with Processes(*read, **limits) as some:
        waits = {path: some.submit(path, hogs.get(path, tune)) for path in paths}
        for path, wait in waits.items():
            try:
                results[path] = wait()
            except FileError as error:
                results[path] = str(error)
    return results


def strike(monkeypatch, number, struck):
    """Sends a signal to the process that is told of a path, once."""
    send = processes._Process._send
    waiting = [struck]

    def strike_and_send(self, task):
        if task[0] in waiting:
            waiting.remove(task[0])
            self._process.send_signal(number)
        send(self, task)

    monkeypatch.setattr(processes._Process, "_send", strike_and_send)


def test_all_are_read(tune):
    paths = [f"{k}.mid" for k in range(20)]
    results = read_some(tune, paths)
    assert list(results) == paths
    expected = midi.read_packed("tune.mid", tune, midi.Options())
    assert all(result == expected for result in results.values())


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSEGV, f" brought its parser down (exit code {-signal.SIGSEGV})."),
        (signal.SIGKILL, f" brought its parser down (exit code {-signal.SIGKILL})."),
        (signal.SIGSTOP, " took its parser longer than 2 seconds."),
    ],
    ids=["dies", "is killed", "hangs"],
)
@pytest.mark.parametrize("told", [1, 4])
def test_a_parser_that_fails_takes_one_file_with_it(
    tune, monkeypatch, number, message, told
):
    """As a fault in a parser in C++ would: without a word."""
    monkeypatch.setattr(processes, "TOLD", told)
    strike(monkeypatch, number, "3.mid")
    results = read_some(tune, [f"{k}.mid" for k in range(9)], seconds=2.0)
    (failed,) = (path for path, result in results.items() if isinstance(result, str))
    assert results.pop(failed) == f"{failed!r}{message}"
    assert len({str(result) for result in results.values()}) == 1
    if told == 1:  # else the process has others before it
        assert failed == "3.mid"


@pytest.mark.parametrize(
    ("hog", "limits", "message", "count"),
    [
        pytest.param(
            LONG,
            {"memory": 256},
            " needed more than 256 MiB of memory to be parsed.",
            1,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="of Linux"),
        ),
        (DENSE, {"seconds": 3}, " took its parser longer than 3 seconds.", 2),
    ],
    ids=["memory", "time"],
)
def test_a_hog_is_named_and_the_rest_is_read(tune, hog, limits, message, count):
    options = {"engine": "pretty_midi", "max_steps": None, "max_seconds": None}
    options["steps_per_quarter"] = 24
    paths = [f"{k}.mid" for k in range(9)]
    results = read_some(tune, paths, count, options, {"3.mid": hog}, **limits)
    assert results.pop("3.mid") == f"'3.mid'{message}"
    expected = midi.read_packed("tune.mid", tune, midi.Options(**options))
    assert all(result == expected for result in results.values())


def test_without_limits(tune):
    results = read_some(tune, ["a.mid"], seconds=None, memory=None)
    assert results["a.mid"] == midi.read_packed("a.mid", tune, midi.Options())


def test_processes_that_do_not_start(tune, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"did not start.*workers=1"):
        read_some(tune, ["a.mid"])


def test_as_many_processes_as_there_is_work_for(tune):
    with Processes("music.midi:packed_reader", {}, FileError, 8) as some:
        some.submit("a.mid", tune)()
        assert len(some._processes) == 1
        waits = [some.submit(f"{k}.mid", tune) for k in range(40)]
        assert len(some._processes) <= 8
        assert all(wait() for wait in waits)
        ids = [one._process.pid for one in some._processes if one._process]
    for one in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)


def test_processes_load_neither_keras_nor_what_loads_it():
    """This is what makes them start in a moment."""
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('worker', sys.argv[1])\n"
        "worker = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(worker)\n"
        "worker.load_folder()\n"
        "worker.load_function('music.midi:packed_reader', {})\n"
        "assert not {'keras', 'keras_gated', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script, worker.__file__], check=True)


def test_an_interruption_ends_all_and_says_so_once(tmp_path, tune):
    """Ctrl-C reaches every process of a terminal; only the first one answers."""
    script = (
        "import sys\n"
        "from keras_gated.datasets.processes import Processes\n"
        "from keras_gated.datasets.files import FileError\n"
        "with Processes('music.midi:packed_reader', {}, FileError, 2) as some:\n"
        "    tune = open(sys.argv[1], 'rb').read()\n"
        "    some.submit('a.mid', tune)()\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        some.submit('b.mid', tune)()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "tune.mid"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},  # which loads sooner
        start_new_session=True,
        # A shell that starts the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert time.monotonic() - began < 30
    assert said.count("Traceback") == 1
    assert "KeyboardInterrupt" in said
