"""A process that reads files for another: `python worker.py FUNCTION SETTINGS MEMORY`.

`FUNCTION` is a module of this folder and a function in it, `music.midi:packed_reader`;
called with the settings (JSON), it returns what is called for each file with its path
and its bytes, and returns bytes and a list of numbers, or raises a `FileError`.
`MEMORY` is how much more memory, in MiB, it may take then than before (`null`: all).

The process runs this file as a script and loads the folder around it as a package of
its own. To import `keras_gated` would load Keras and TensorFlow, some seconds and
hundreds of MB for each process; and a process that runs TensorFlow must not be forked.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

PACKAGE = "keras_gated_datasets"
"""The name of this folder in the process."""
OUT_OF_MEMORY = 77
"""The exit code of a process whose file needs more than it may take."""


def send(stream: BinaryIO, data: bytes, *fields: Any) -> None:
    """Writes a message: a line of JSON, and bytes.

    Args:
        stream: Where to.
        data: The bytes.
        *fields: What the line holds besides their number.
    """
    stream.write(json.dumps([len(data), *fields]).encode() + b"\n" + data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[bytes, list] | None:
    """Reads a message.

    Args:
        stream: Where from.

    Returns:
        The bytes and the fields, or `None` if the stream has ended, or holds no
        message: what has damaged a process may have it say anything.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        size, *fields = json.loads(line)
        data = stream.read(size) if size >= 0 else b""
    except Exception:
        return None
    return (data, fields) if len(data) == size else None


def load_folder() -> None:
    """Makes this folder importable as the package `PACKAGE`."""
    file = Path(__file__).with_name("__init__.py")
    spec = importlib.util.spec_from_file_location(PACKAGE, file)
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


def load_function(name: str, settings: dict) -> Callable[[str, bytes], tuple]:
    """The function that reads a file.

    Args:
        name: The module and the function that makes it.
        settings: Its arguments.
    """
    module, _, function = name.partition(":")
    module = importlib.import_module(f"{PACKAGE}.{module}")
    return getattr(module, function)(**settings)


def limit_memory(more: int) -> None:
    """Lets this process take so much more memory than it has, where that can be done.

    Args:
        more: MiB.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more * 2**20
        _, highest = resource.getrlimit(resource.RLIMIT_AS)
        if highest != resource.RLIM_INFINITY:
            limit = min(limit, highest)
        resource.setrlimit(resource.RLIMIT_AS, (limit, highest))
    except (ImportError, OSError, ValueError):  # it is not Linux
        return


def main() -> None:
    """Reads files until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    # What a parser prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with ending_the_process():
        load_folder()
        file_error = importlib.import_module(f"{PACKAGE}.files").FileError
        read = load_function(sys.argv[1], json.loads(sys.argv[2]))
        send(answers, b"")  # it is ready
    # A thread takes what is sent at once, so that the two never wait for each other.
    tasks: queue.SimpleQueue[tuple[bytes, list] | None] = queue.SimpleQueue()

    def take() -> None:
        with ending_the_process():
            while message := receive(sys.stdin.buffer):
                tasks.put(message)
            tasks.put(None)

    threading.Thread(target=take, daemon=True).start()
    if (memory := json.loads(sys.argv[3])) is not None:
        limit_memory(memory)
    with ending_the_process():
        for content, (path,) in iter(tasks.get, None):
            try:
                data, about = read(path, content)
            except file_error as error:
                send(answers, b"", [str(error), error.kind])
            else:
                send(answers, data, None, about)


@contextlib.contextmanager
def ending_the_process() -> Iterator[None]:
    """Lets an error end the process at once, also while another thread waits."""
    try:
        yield
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:  # whoever started this has ended
        os._exit(1)
    except Exception:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
