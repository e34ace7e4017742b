"""Imports TensorFlow without the messages of its start-up; import this first.

TensorFlow prints that it uses oneDNN and that there is no GPU before it reads
`TF_CPP_MIN_LOG_LEVEL`, so these lines are dropped where they are written, at the file
descriptor of the standard error. Everything else is passed on.
"""

import contextlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator

NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|I\d{4} \d\d:\d\d:\d\d"  # information in the format of absl
    rb"|To enable the following instructions"
    rb"|.*(failed call to cuInit|Unable to register cu\w+ factory)"
)


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Drops the lines of `NOISE` from what C and Python write to standard error."""
    sys.stderr.flush()
    standard_error = os.dup(2)
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)

    def forward() -> None:
        with open(read, "rb") as lines, open(standard_error, "wb", 0) as out:
            for line in lines:
                if not NOISE.match(line):
                    out.write(line)

    forwarding = threading.Thread(target=forward)
    forwarding.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(standard_error, 2)  # closes the pipe, which ends the thread
        forwarding.join()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if importlib.util.find_spec("tensorflow"):
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for a GPU
