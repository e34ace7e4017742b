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

ROOT = Path(__file__).parents[2]
KEPT = 3
"""How many files that fail alike are kept."""


def command(reader: str, folder: str, seed: int, coverage: bool) -> list[str]:
    run = ["-m", "coverage", "run", "--parallel-mode"] if coverage else []
    if coverage:
        run += [f"--data-file={folder}/.coverage", f"--source={ROOT}/datasets"]
    return [sys.executable, *run, "-m", "fuzz.child", reader, folder, str(seed)]


class Run:
    """What came of the files of a reader."""

    def __init__(self, reader: str, args: argparse.Namespace) -> None:
        self.reader, self.args = reader, args
        self.counts: collections.Counter[str] = collections.Counter()
        self.texts = collections.defaultdict(collections.Counter)
        self.failures: dict[str, list[Path]] = collections.defaultdict(list)
        self.failed: collections.Counter[str] = collections.Counter()
        self.coverage = ""

    def read(self, count: int, seconds: float) -> None:
        """Reads so many files, or as long as this."""
        with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
            end, first = time.monotonic() + seconds, 0
            while first < count and time.monotonic() < end:
                first = self._process(folder, first, count, end)
            if self.args.coverage:
                self.coverage = self._covered(folder)

    def _process(self, folder: str, first: int, last: int, end: float) -> int:
        """Runs a process until it ends; returns the number of the next file."""
        run = command(self.reader, folder, self.args.seed, self.args.coverage)
        run += ["--first", str(first), "--last", str(last)]
        if self.args.data:
            from fuzz.readers import READERS

            endings = {Path(name).suffix for name in READERS[self.reader].seeds()}
            data = sorted(p for p in self.args.data.rglob("*") if p.suffix in endings)
            run += ["--data", *(str(p) for p in data[:50] if p.stat().st_size < 2**17)]
        begun = None
        errors = open(f"{folder}/errors", "w+", errors="replace")  # noqa: SIM115
        with subprocess.Popen(
            run, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process:
            for line in process.stdout:
                number, kind, text, *_ = json.loads(line)
                if kind == "begins":
                    begun = number, Path(text)
                    continue
                self._count(kind, text, number, begun and begun[1])
                begun = None if begun is None else (number + 1, None)
                if time.monotonic() > end and not self.args.coverage:
                    process.terminate()
                    break
        if begun is None or (begun[1] is not None and process.returncode == 0):
            errors.seek(0)
            raise RuntimeError(
                f"{self.reader} does not start:\n{errors.read()[-3000:]}"
            )
        number, path = begun
        if path is None or time.monotonic() > end:
            return number
        errors.seek(0)
        said = [line.strip() for line in errors.read()[-20_000:].splitlines()]
        begins = [i for i, x in enumerate(said) if "most recent call first" in x] or [0]
        stack = [x for x in said[begins[-1] :] if x.startswith("File")][:4]
        kind = "hang" if -process.returncode in (14, 27) else "crash"
        self._count(kind, f"exit {process.returncode}: {' '.join(stack)}", number, path)
        return number + 1

    def _count(self, kind: str, text: str, number: int, path: Path | None) -> None:
        self.counts[kind] += number >= 0
        self.texts[kind][text] += 1
        if kind in ("accepted", "refused"):
            return
        alike = f"{kind}: {text.partition(':')[0]} {text.rpartition(' [')[2]}"
        self.failed[alike] += 1
        if self.failed[alike] <= KEPT and path is not None:
            folder = self.args.output / self.reader.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"{self.args.seed}-{number}-{path.name}"
            kept.write_bytes(path.read_bytes())
            self.failures[alike].append(kept)
            print(f"  {kind}: {text[:600]}\n    {kept}", flush=True)

    def _covered(self, folder: str) -> str:
        from fuzz.readers import READERS

        if not (modules := READERS[self.reader].modules):
            return ""
        tool = [sys.executable, "-m", "coverage"]
        data = f"--data-file={folder}/.coverage"
        subprocess.run([*tool, "combine", "-q", data], check=False, cwd=folder)
        include = f"--include={ROOT}/datasets/{modules}"
        report = [*tool, "report", data, include]
        said = subprocess.run(report, capture_output=True, text=True, cwd=folder)
        lines = [line.split() for line in said.stdout.splitlines()]
        self.lines = [
            f"{Path(x[0]).name} {x[-1]}" for x in lines if x and x[0][0] == "/"
        ]
        return next((x[-1] for x in lines if x and x[0] == "TOTAL"), "?")

    @property
    def row(self) -> str:
        total, some = self.counts.total(), self.counts
        failures = total - some["accepted"] - some["refused"]
        row = f"{self.reader:22}{total:8,}{some['accepted']:10,}{some['refused']:9,}"
        row += f"{failures:10,}{len(self.texts['refused']):10,}"
        return row + f"{self.coverage:>10}"


HEAD = (
    f"{'':22}{'files':>8}{'accepted':>10}{'refused':>9}{'failures':>10}{'messages':>10}"
)


def replay(path: Path) -> int:
    """Reads a file that was kept."""
    from fuzz.readers import READERS

    reader = next(
        name for name in READERS if name.replace(" ", "_") == path.parent.name
    )
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        copy = Path(folder, path.name.split("-", 2)[2])
        copy.write_bytes(path.read_bytes())
        run = [*command(reader, folder, 0, False), "--replay", str(copy)]
        return subprocess.run(run).returncode


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
    add("--coverage", action="store_true", help="tell it; three times slower")
    add("--data", type=Path, metavar="DIR", help="further seeds: files below 128 KiB")
    add("--output", type=Path, default=Path("runs/fuzz"), help="for what fails")
    add("--replay", type=Path, metavar="FILE", help="read one of these again")
    args = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if args.replay:
        return replay(args.replay)
    from fuzz.readers import READERS

    names = [
        n for n in READERS if not args.readers or any(r in n for r in args.readers)
    ]
    runs = [Run(name, args) for name in names]
    print(HEAD + f"{'coverage':>10}" * args.coverage, flush=True)
    for run in runs:
        share = READERS[run.reader].share
        if args.files is not None:
            run.read(max(1, round(share * args.files)), float("inf"))
        else:
            run.read(10**9, 60 * args.minutes / len(runs))
        print(run.row, flush=True)
        if run.coverage:
            print("   ", ", ".join(run.lines))
        if args.messages:
            for text, count in run.texts["refused"].most_common():
                print(f"{count:8,}  {text}")
    return int(any(run.failed for run in runs))


if __name__ == "__main__":
    sys.exit(main())
