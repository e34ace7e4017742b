"""Reads mutated files, in a process that they may bring down, and tells of each."""

import contextlib
import faulthandler
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from fuzz.mutations import mutated
from fuzz.readers import READERS, Reader

BYTES = 2**31
"""Of memory, that the process may take beyond what it has with the seeds read."""
BYTES_A_FILE = 2**28
"""Of memory, that a file may take."""
MOST_FOUND, LARGEST_FOUND = 300, 2**16
"""How many files that led to something new become seeds, and their bytes at most."""
ROOT = Path(__file__).parents[2]


def judge(reader: Reader, path: Path) -> tuple[str, str]:
    """What comes of reading a file.

    Returns:
        `"accepted"`, `"refused"` or a kind of failure; and what there is to say,
        without numbers, so that it is the same for all files that are alike.
    """
    try:
        return "accepted", _plain(repr(reader.call(path)), path)
    except reader.errors as error:
        text, chain = str(error), error
        while chain is not None:
            if isinstance(chain, MemoryError):
                return "memory", text
            chain = chain.__cause__ or chain.__context__
        if "\n" in text or not (
            {path.name, path.parent.name} & {*re.split(r"[/']", text)}
        ):
            return "unclear error", f"{type(error).__name__}: {text} {_where(error)}"
        return "refused", _plain(f"{type(error).__name__}: {text}", path)
    except Exception as error:
        kind = "wrong" if isinstance(error, AssertionError) else "undocumented"
        return kind, f"{type(error).__name__}: {error} {_where(error)}"


def _plain(text: str, path: Path) -> str:
    text = text.replace(str(path), "PATH").replace(path.name, "NAME")
    return re.sub(r"-?\d[\d,.]*|(0x[0-9a-f]+)", "N", text)[:200]


def _where(error: BaseException) -> str:
    """The last places in this project that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f
        for f in frames
        if ROOT in Path(f.filename).parents and ".venv" not in f.filename
    ]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in own[-2:]]
    return f"[{' '.join(places)} {Path(frames[-1].filename).name}:{frames[-1].lineno}]"


def make(
    reader: Reader, whole: list, found: list, chance: random.Random
) -> tuple[str, bytes]:
    """The name and the bytes of a mutated file: one that is whole, or was found."""
    name, content = chance.choice(found if found and chance.random() < 0.3 else whole)
    shell = reader.shells.get(Path(name).suffix)
    if shell is not None and chance.random() < 0.6:
        with contextlib.suppress(Exception):  # it is damaged already
            return name, shell.mutated(content, chance)
    return name, mutated(content, [x for _, x in whole], chance)


def tell(*what: object) -> None:
    print(json.dumps(what), file=ANSWERS, flush=True)


def limit() -> None:
    """Limits memory, and lets a file that takes too long end the process."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, resource.RLIM_INFINITY))
    faulthandler.register(signal.SIGPROF, chain=True)
    faulthandler.register(signal.SIGALRM, chain=True)


def timed(reader: Reader, path: Path) -> tuple[str, str]:
    signal.setitimer(signal.ITIMER_PROF, reader.seconds)
    signal.alarm(12 * reader.seconds)  # for what waits for ever
    try:
        return judge(reader, path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(
    folder: Path, seed: str, name: str, first: int, last: int, end: float, more: list
) -> None:
    """Reads the files of a reader from one number to another, or as long as it may."""
    reader, end = READERS[name], time.monotonic() + end
    kept = folder / "found" / name
    kept.mkdir(parents=True, exist_ok=True)
    here = Path(tempfile.mkdtemp(dir=folder))
    whole, seen = [*reader.seeds().items()], set()
    for file, content in whole:
        path = here / file
        path.write_bytes(content)
        seen.add(judge(reader, path))
    if "accepted" not in {kind for kind, _ in seen}:
        raise RuntimeError(f"{name} accepts none of its whole files: {seen}")
    whole += [(Path(path).name, Path(path).read_bytes()) for path in more]
    paths = sorted(kept.iterdir())
    found = [(path.name.split("-", 1)[1], path.read_bytes()) for path in paths]
    limit()
    for number in range(first, last):
        if time.monotonic() > end:
            break
        chance = random.Random(f"{seed} {name} {number}")
        file, content = make(reader, whole, found, chance)
        path = here / file
        path.write_bytes(content)
        tell(name, number, "begins", str(path))
        before = peak()
        kind, text = timed(reader, path)
        if peak() - before > BYTES_A_FILE:
            kind, text = "memory", f"{(peak() - before) >> 20} MiB, {kind}: {text}"
        tell(name, number, kind, text)
        is_new = (kind, text) not in seen and kind in ("accepted", "refused")
        if is_new and len(found) < MOST_FOUND and len(content) <= LARGEST_FOUND:
            found.append((file, content))
            (kept / f"{number:08}-{file}").write_bytes(content)
        seen.add((kind, text))
        if kind == "memory":
            sys.exit(1)  # the peak would hide the next
    shutil.rmtree(here)
    tell(name, last, "ends", "")


def main() -> None:
    folder, seed, jobs = sys.argv[1:]
    faulthandler.enable()
    warnings.simplefilter("ignore")
    for name, first, last, *how in json.loads(jobs):
        if last:
            work(Path(folder), seed, name, first, last, *how)
        else:  # one file
            limit()
            print(*timed(READERS[name], Path(how[-1][0])), file=ANSWERS)


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    main()
