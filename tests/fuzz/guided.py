"""Lets atheris look for files that reach further lines of a reader.

    pip install atheris
    PYTHONPATH=tests:examples:benchmarks python -m fuzz.guided "midi repair" FOLDER

FOLDER keeps the files that reach something new. What follows are options of libFuzzer,
such as `-max_total_time=600`; it ends with the first failure, whose file it keeps.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def main() -> None:
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["keras_gated.datasets"]):
        from fuzz.child import judge
        from fuzz.readers import READERS
    reader, corpus = READERS[name], Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for seed, content in reader.seeds().items():
        (corpus / seed).write_bytes(content[:20_000])
    path = Path(tempfile.mkdtemp(), seed)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        kind, text = judge(reader, path)
        if kind not in ("accepted", "refused"):
            raise AssertionError(f"{kind}: {text}")

    atheris.Setup([sys.argv[0], folder, "-max_len=20000", *options], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
