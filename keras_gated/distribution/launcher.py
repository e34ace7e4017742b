"""Starts the processes of a training on this machine, and again if one is killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

from keras_gated.datasets import checks
from keras_gated.distribution.cluster import ADDRESSES, COUNT, INDEX

LIFELINE = "KERAS_GATED_LIFELINE"
"""The number of a pipe that the launcher holds open as long as it lives."""
KILLED = [
    getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGSEGV", "SIGBUS")
    if hasattr(signal, name)  # Windows has some of them
]
"""After which the same command may well succeed."""
GRACE = 10.0
"""Seconds that a process has to end by itself."""


def launch(
    workers: int, command: Sequence[str] | None = None, restarts: int = 3
) -> int:
    """Runs a command in several processes on this machine, which train together.

    Each is told who the others are, as `initialize` wants to know. The output of the
    first is shown, and of another its errors, if it fails. If one is killed, all are
    ended and started again, so that a training goes on from its backup.

    Args:
        workers: The number of processes.
        command: The command. Default: `None`, that of this program, so that a program
            may launch itself.
        restarts: How often they are started again. Default: 3.

    Returns:
        The exit code: 0 if all have ended well.

    Raises:
        ValueError: `workers` is not a positive integer, or `restarts` is negative.
        NotImplementedError: This is Windows.

    Example:

    >>> import sys
    >>> from keras_gated import distribution
    >>> distribution.launch(2, [sys.executable, "-c", "pass"])
    0
    """
    checks.whole("workers", workers)
    checks.whole("restarts", restarts, 0)
    if os.name == "nt":
        raise NotImplementedError(
            "Windows hands no pipe to a new process, by which it would end with this "
            f"one. Start the processes yourself, each with {ADDRESSES}, {COUNT} and "
            f"{INDEX} in its environment (docs/scaling_out.md)."
        )
    command = list(command or [sys.executable, *sys.orig_argv[1:]])
    for left in range(restarts, -1, -1):
        codes = _run(workers, command)
        killed = [n for n, code in enumerate(codes) if -code in KILLED]
        if not killed or not left:
            break
        print(f"Worker {killed[0]} was killed; all are started again.", file=sys.stderr)
    failed = [code for code in codes if code]
    return abs(failed[0]) if failed else 0


def _run(workers: int, command: Sequence[str]) -> list[int]:
    """Starts all and waits for them; the exit code of each, as it ended by itself."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in _free_ports(workers))
    with ExitStack() as stack:
        lifeline, other_end = os.pipe()
        stack.callback(os.close, lifeline)
        stack.callback(os.close, other_end)
        processes, errors = [], []
        for index in range(workers):
            errors.append(stack.enter_context(tempfile.TemporaryFile()))
            named = {ADDRESSES: addresses, COUNT: str(workers), INDEX: str(index)}
            first = index == 0
            process = subprocess.Popen(
                command,
                env={**os.environ, **named, LIFELINE: str(lifeline)},
                pass_fds=[lifeline],
                stdout=None if first else subprocess.DEVNULL,
                stderr=None if first else errors[-1],
            )
            processes.append(process)
        try:
            codes = _wait(processes)
        except KeyboardInterrupt:  # they have it, too, if it is from the keyboard
            _end(processes, signal.SIGINT)
            return [130]
        finally:
            _end(processes, signal.SIGKILL)
        for index, code in enumerate(codes):
            if index and code > 0:
                _show(index, errors[index])
    return codes


def _wait(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Returns when all have ended, or one has failed."""
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            time.sleep(1)  # what was killed may not be the first that is seen to fail
            codes = [process.poll() for process in processes]
            return [0 if code is None else code for code in codes]
        time.sleep(0.1)
    return codes


def _end(processes: Sequence[subprocess.Popen], how: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(how)
    until = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _show(index: int, errors: IO[bytes], most: int = 5_000) -> None:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - most))
    text = errors.read().decode(errors="replace")
    print(f"Worker {index} has failed:\n{text}", file=sys.stderr)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
