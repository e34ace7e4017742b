"""Reads mutated files with every reader of the project.

    make fuzz ARGS="--minutes 10"
    make fuzz ARGS="--replay runs/fuzz/midi.read/0-123-tune.mid"

A failure is an error that the reader does not document or that names no file, something
wrong or lost, a crash, more than ten seconds or a quarter of a gigabyte for a file. Its
file is kept in `runs/fuzz/READER`.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz.readers import READERS

ROOT = Path(__file__).parents[2]
KEPT = 3
"""How many files that fail alike are kept."""
HEAD = ("", "files", "accepted", "refused", "failures", "messages", "seconds")
START, HANGS = 3, (14, 27)
"""How often in a row a process may fail before its first file; the signals of time."""


def folder_of(reader: str) -> str:
    return reader.replace(" ", "_").replace("'", "")


class Run:
    """What came of the files of a reader."""

    def __init__(self, reader: str, args: argparse.Namespace) -> None:
        self.reader, self.seed = reader, args.seed
        self.output = args.output / folder_of(reader)
        self.counts: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.alike: collections.Counter[str] = collections.Counter()
        self.number = 0
        self.begun: float | None = None

    def count(self, number: int, kind: str, text: str, path: Path) -> None:
        """Counts a file, and keeps it if it failed."""
        self.counts[kind] += 1
        self.number = number + 1
        if kind == "refused":
            self.refused[text] += 1
        if kind in ("accepted", "refused"):
            return
        alike = f"{kind}: {text.partition(':')[0]} {text.rpartition(' [')[2]}"
        self.alike[alike] += 1
        if self.alike[alike] <= KEPT:
            self.output.mkdir(parents=True, exist_ok=True)
            kept = self.output / f"{self.seed}-{number}-{path.name}"
            kept.write_bytes(path.read_bytes())
            print(f"  {kind}: {text[:600]}\n    {kept}", flush=True)

    def row(self) -> tuple:
        total, some = self.counts.total(), self.counts
        failures = total - some["accepted"] - some["refused"]
        counts = total, some["accepted"], some["refused"], failures, len(self.refused)
        return self.reader, *counts, round(time.monotonic() - self.begun)


def table(name: str, *cells: object) -> None:
    print(f"{name:22}" + "".join(f"{x:>10}" for x in cells), flush=True)


def command(folder: str, jobs: list, args: argparse.Namespace) -> list[str]:
    run = [sys.executable]
    if args.coverage:
        run += ["-m", "coverage", "run", "--parallel-mode", "--branch"]
        run += [f"--data-file={folder}/.coverage", f"--source={ROOT}/datasets"]
    return [*run, "-m", "fuzz.child", folder, str(args.seed), json.dumps(jobs)]


def read_all(runs: dict[str, Run], args: argparse.Namespace) -> None:
    """Lets processes read until all readers have had their files."""
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        todo, failed = [*runs], 0
        while todo:
            # The coverage is told of each reader.
            batch = todo[:1] if args.coverage else todo
            before = runs[todo[0]].number
            begun = _process(folder, batch, runs, args)
            if begun is None and batch[0] in todo and runs[batch[0]].number == before:
                failed += 1
            for name in [name for name in batch if runs[name].number < 0]:
                todo.remove(name)
                if args.coverage:
                    tell_coverage(folder, name)
            if failed == START:
                text = Path(folder, "errors").read_text(errors="replace")
                raise RuntimeError(f"{batch[0]} does not start:\n{text[-3000:]}")


def _process(
    folder: str, batch: list[str], runs: dict[str, Run], args: argparse.Namespace
) -> tuple | None:
    """Runs a process to its end; returns what it was at, if a file ended it."""
    jobs, seconds = [], 60 * args.minutes / len(runs)
    for name in batch:
        run, last = runs[name], 10**9
        if args.files is not None:
            last, seconds = max(1, round(READERS[name].share * args.files)), 10**9
        spent = 0 if run.begun is None else time.monotonic() - run.begun
        jobs.append([name, run.number, last, seconds - spent, further(name, args.data)])
    begun, errors = None, Path(folder, "errors")
    with (
        open(errors, "w") as said,
        subprocess.Popen(
            command(folder, jobs, args), stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        for line in process.stdout:
            name, number, kind, text = json.loads(line)
            run = runs[name]
            if run.begun is None:
                run.begun = time.monotonic()
            if kind == "ends":
                table(*run.row())
                for text, count in run.refused.most_common() if args.messages else ():
                    print(f"{count:10,}  {text}")
                run.number = -1
            elif kind == "begins":
                begun = name, number, Path(text)
            else:
                run.count(number, kind, text, begun[-1])
                begun = None
    if begun is not None:
        name, number, path = begun
        kind = "hang" if -process.returncode in HANGS else "crash"
        lines = errors.read_text(errors="replace").splitlines()
        starts = [i for i, x in enumerate(lines) if "most recent call first" in x]
        stack = [x.strip() for x in lines[starts[-1] + 1 :]] if starts else lines[-4:]
        text = f"exit {process.returncode}: {' '.join(stack[:4])}"
        runs[name].count(number, kind, text, path)
    return begun


def further(reader: str, folder: Path | None) -> list[str]:
    """Files of a folder that are seeds, too."""
    if folder is None:
        return []
    endings = {Path(name).suffix for name in READERS[reader].seeds()}
    paths = sorted(p for p in folder.rglob("*") if p.suffix in endings)
    return [str(p) for p in paths if p.is_file() and p.stat().st_size < 2**16][:50]


def tell_coverage(folder: str, reader: str) -> None:
    """Says which parts of the files of a reader were run."""
    tool, data = [sys.executable, "-m", "coverage"], f"--data-file={folder}/.coverage"
    subprocess.run([*tool, "combine", "-q", data], check=False, cwd=folder)
    include = ",".join(f"{ROOT}/datasets/{x}" for x in READERS[reader].modules)
    report = [*tool, "report", data, f"--include={include}"]
    said = subprocess.run(report, capture_output=True, text=True, check=False).stdout
    lines = [line.split() for line in said.splitlines() if "%" in line]
    print("   ", ", ".join(f"{Path(x[0]).name} {x[-1]}" for x in lines), flush=True)
    Path(folder, ".coverage").unlink(missing_ok=True)


def replay(path: Path, args: argparse.Namespace) -> int:
    """Reads a file that was kept."""
    reader = next(name for name in READERS if folder_of(name) == path.parent.name)
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        copy = Path(folder, path.name.split("-", 2)[2])
        copy.write_bytes(path.read_bytes())
        jobs = [[reader, 0, 0, 0, [str(copy)]]]
        return subprocess.run(command(folder, jobs, args), check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=5.0, help="for all readers (default: 5)")
    add("--files", type=int, help="so many for a reader of share 1, instead")
    add("--readers", nargs="+", metavar="NAME", help="some, by parts of their names")
    add("--seed", type=int, default=0, help="of all that is random (default: 0)")
    add("--messages", action="store_true", help="tell why files were refused")
    add("--coverage", action="store_true", help="tell it; takes longer")
    add("--data", type=Path, metavar="DIR", help="further seeds, of less than 64 KiB")
    add("--output", type=Path, default=Path("runs/fuzz"), help="for what fails")
    add("--replay", type=Path, metavar="FILE", help="read one of these again")
    args = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if args.replay:
        return replay(args.replay, args)
    runs = {
        name: Run(name, args)
        for name in READERS
        if not args.readers or any(part in name for part in args.readers)
    }
    table(*HEAD)
    read_all(runs, args)
    total = sum(run.counts.total() for run in runs.values())
    failures = sum(run.alike.total() for run in runs.values())
    print(f"{total:,} files, {failures:,} failures.")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
