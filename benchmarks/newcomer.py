"""Goes the way of docs/quick_start.md in an empty environment, and times each step.

    python benchmarks/newcomer.py --midi-dir DIR

The commands and the code are those of the page, in their order; what is tracked of the
checkout is copied into an empty folder, and so are files of DIR. Nothing that is
installed is used but Python; whether packages are downloaded or lie in a cache decides
what the installation takes. The figures go to benchmarks/newcomer.json.
"""

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "quick_start.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = 6006  # TensorBoard's, which the page does not change


def steps(page: str) -> Iterator[tuple[str, str]]:
    """What the page asks for, but the demo: commands and, as one, the code so far.

    Args:
        page: The text.
    """
    code = ""
    for language, text in BLOCK.findall(page):
        if language == "python":
            code += text
            yield "code", code
        else:
            yield from (("command", line) for line in text.splitlines())


def words(command: str, folder: Path) -> list[str]:
    """The words of a command, with files in the place of `*`, as a shell takes it."""
    found = []
    for word in shlex.split(command):
        found += [str(x) for x in folder.glob(word)] if "*" in word else [word]
    return found


def serve(command: list[str], **options: Any) -> None:
    """Waits until TensorBoard knows a run and has shown its page."""
    options.pop("check")
    process = subprocess.Popen(command, **options)
    try:
        for path in ("", "data/runs"):
            while not _get(path):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} has ended")
                time.sleep(0.2)
    finally:
        process.terminate()


def _get(path: str) -> bool:
    """Whether there is an answer, which is not empty."""
    try:
        with urllib.request.urlopen(f"http://localhost:{PORT}/{path}") as answer:
            return answer.read().strip() not in (b"", b"[]")
    except OSError:
        return False


def environment() -> dict[str, str]:
    """That of a newcomer: nothing of an environment that is active."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KERAS"))
    }
    kept.pop("VIRTUAL_ENV", None)
    places = kept["PATH"].split(os.pathsep)
    active = str(Path(sys.prefix) / "bin")
    return {**kept, "PATH": os.pathsep.join(x for x in places if x != active)}


def take(kind: str, text: str, folder: Path) -> None:
    """Takes a step.

    Raises:
        subprocess.CalledProcessError: It fails.
    """
    options = {"cwd": folder, "check": True, "env": environment()}
    if kind == "code":
        subprocess.run([".venv/bin/python", "-c", text], **options)
    elif "tensorboard --" in text:
        serve(words(text, folder), **options)
    else:
        subprocess.run(words(text, folder), **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--midi-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--files", type=int, default=100, help="of DIR (default: 100)")
    args = parser.parse_args()
    music = sorted(args.midi_dir.rglob("*.mid"))[: args.files]
    if len(music) < 10:
        parser.error(
            f"{str(args.midi_dir)!r} has {len(music)} MIDI files; ten are needed"
        )
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "keras_gated"
        clone = ["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", copy]
        subprocess.run(clone, check=True)
        (copy / "music").mkdir()
        for path in music[1:]:
            shutil.copy(path, copy / "music")
        shutil.copy(music[0], copy / "music" / "tune.mid")
        begun = time.perf_counter()
        for kind, text in steps(PAGE.read_text()):
            if text.startswith("make "):
                continue
            before = time.perf_counter()
            take(kind, text, copy)
            now = time.perf_counter()
            last = text.strip().splitlines()[-1]
            taken.append(
                {
                    "step": text if kind == "command" else f"python: … {last}",
                    "seconds": round(now - before, 1),
                    "since_the_beginning": round(now - begun, 1),
                }
            )
            print(json.dumps(taken[-1]), flush=True)
    result = {
        "command": f"python benchmarks/newcomer.py --files {args.files} --midi-dir DIR",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "steps": taken,
    }
    (HERE / "newcomer.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
