"""Processes that read files: if a file brings one down, only that file is lost."""

import collections
import concurrent.futures
import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import worker
from .files import FileError

SECONDS, MEMORY = 300.0, 4096
"""How long a file may take, and how much memory in MiB, if nothing else is said. The
worst that were made, 4 MiB of nothing but notes, take half a minute and 0.7 GiB."""
TOLD = 4
"""How many files a process is told of, so that it need not wait for the next."""

Read = tuple[bytes, list]
"""What was read from a file: bytes, and a list of numbers."""
Task = tuple[Path | str, bytes, concurrent.futures.Future]


class Processes:
    """Starts processes as they are needed; used as a context manager.

    Unlike those of `multiprocessing` they do not import the user's script, which may
    lack `if __name__ == "__main__"`, or `keras_gated` and with it Keras (see
    `worker.py`). When one dies or hangs, it is known which file it was reading.

    Args:
        function: The function that reads files, as `worker.py` takes it.
        settings: Its settings.
        error: What to raise for a file that cannot be read.
        count: The largest number of processes.
        seconds: How long a file may take; then it is given up, and its process ended.
            `None` for no limit. Default: 300.
        memory: How much more memory, in MiB, a process may take for a file than it has
            when it starts; then it is given up, too. The parser itself, which is loaded
            with the first file, is part of it. Only Linux has this limit. `None` for no
            limit. Default: 4,096.
    """

    def __init__(
        self,
        function: str,
        settings: dict[str, Any],
        error: type[FileError],
        count: int,
        seconds: float | None = SECONDS,
        memory: int | None = MEMORY,
    ) -> None:
        self._command = [function, json.dumps(settings), json.dumps(memory)]
        self._error = error
        self._count = count
        self._limits = seconds, memory
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def __enter__(self) -> "Processes":
        self._start(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for process in self._processes:
            process.end()
        for _ in self._processes:
            self._tasks.put(None)  # wakes one that waits for a task
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def submit(self, path: Path | str, content: bytes) -> Callable[[], Read]:
        """Lets a process read a file.

        Args:
            path: The file, or its name, for messages.
            content: Its bytes.

        Returns:
            A function that waits for what was read; it raises the error for a file
            that cannot be read, and a `RuntimeError` where no process starts.
        """
        future = concurrent.futures.Future()
        self._tasks.put((path, content, future))
        if len(self._processes) < self._count and not self._tasks.empty():
            process = _Process(self._command, self._error, *self._limits)
            self._processes.append(process)
            self._start(process.serve, self._tasks)
        return future.result

    def _start(self, target: Callable, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)  # before it starts: Ctrl-C may come at any moment
        thread.start()

    def _watch(self) -> None:
        seconds, _ = self._limits
        while not self._ended.wait(min(1.0, (seconds or SECONDS) / 4)):
            for process in self._processes:
                process.kill_if_late()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is not for a process that is started here, not even before it says so."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """One process, started when there is work, and again when it was brought down.

    A thread runs `serve`; `end` and `kill_if_late` are called from others.
    """

    def __init__(
        self,
        command: list[str],
        error: type[FileError],
        seconds: float | None,
        memory: int | None,
    ) -> None:
        self._command = [sys.executable, "-P", worker.__file__, *command]
        self._error = error
        self._seconds = float("inf") if seconds is None else seconds
        self._memory = memory
        self._process: subprocess.Popen | None = None
        self._told: collections.deque[Task] = collections.deque()
        self._deadline: float | None = None
        self._ended = False

    def serve(self, tasks: "queue.SimpleQueue[Task | None]") -> None:
        """Reads files as they come, until the process is ended."""
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                while len(self._told) < TOLD:
                    task = tasks.get(block=not self._told)
                    if task is None:
                        break
                    self._told.append(task)
                    if self._process is not None:
                        self._send(task)
            if self._told and not self._ended:
                try:
                    self._read()
                except Exception as error:
                    self._told.popleft()[-1].set_exception(error)
        self._close()

    def _read(self) -> None:
        """Waits for what is read of the first file that the process was told of."""
        if self._process is None:
            self._start()
        path, _, future = self._told[0]
        self._deadline = time.monotonic() + self._seconds
        answer = worker.receive(self._process.stdout)
        late, self._deadline = time.monotonic() > self._deadline, None
        if answer is None:
            code = self._close()
            if late:
                what = f"took its parser longer than {self._seconds:g} seconds."
                raise self._error(f"{str(path)!r} {what}", "too slow to parse")
            if code == worker.OUT_OF_MEMORY:
                what = f"needed more than {self._memory:,} MiB of memory to be parsed."
                raise self._error(f"{str(path)!r} {what}", "too large to parse")
            what = f"brought its parser down (exit code {code})."
            raise self._error(f"{str(path)!r} {what}", "brings the parser down")
        data, (problem, *about) = answer
        if problem is not None:
            raise self._error(*problem)
        self._told.popleft()
        future.set_result((data, *about))

    def _start(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with _uninterrupted():
            self._process = subprocess.Popen(self._command, **pipes)
        if self._ended:  # meanwhile
            self._process.kill()
        if worker.receive(self._process.stdout) is None:
            self._close()
            raise RuntimeError(
                "A process that reads files did not start; what it said stands above. "
                "With workers=1 files are read without."
            )
        for task in self._told:
            self._send(task)

    def _send(self, task: Task) -> None:
        path, content, _ = task
        with contextlib.suppress(OSError):  # it has died, which the answer will show
            worker.send(self._process.stdin, content, str(path))

    def _close(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.stdout.close()
        with contextlib.suppress(OSError):  # what was not sent is lost
            process.stdin.close()
        return process.wait()

    def end(self) -> None:
        """Ends the process, and `serve`, which must be woken if it waits for a task."""
        self._ended = True
        self._kill()

    def kill_if_late(self) -> None:
        """Ends the process if its file has taken too long."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline:
            self._kill()

    def _kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()
