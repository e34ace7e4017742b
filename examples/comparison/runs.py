"""The folder of a run, which is gone on with if it was stopped."""

import argparse
import contextlib
import itertools
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from comparison.versions import versions
from keras_gated import distribution
from keras_gated.datasets.files import atomic_path, discard_unfinished, require

RECORD = "results.json"
AMOUNTS = "sequences", "steps", "recordings", "seconds_of_sound"
"""What descriptions of the same data have in common."""
NOT_COMPARED = "log_dir", "fresh"
"""Arguments that may be others when a run is gone on with."""


class Run:
    """A run, new or begun before with the same arguments.

    Args:
        args: The arguments, with `log_dir`, and `fresh` if a new one is asked for.
        workers: The processes that train together, of which the first keeps the
            record. Default: `None`, this one alone.

    Attributes:
        folder: Its folder.
        record: What it had recorded when it was stopped; empty if it is new.

    Raises:
        ValueError: `log_dir` is no folder, or the run was begun with other versions.
    """

    def __init__(
        self, args: argparse.Namespace, workers: distribution.Workers | None = None
    ) -> None:
        self._workers = workers or distribution.Workers()
        if self._workers.is_first:
            self._find(args)
            found = json.dumps([str(self.folder), self.record])
        found = self._workers.tell(found if self._workers.is_first else "")
        folder, self.record = json.loads(found)
        self.folder = Path(folder)

    def _find(self, args: argparse.Namespace) -> None:
        log_dir = args.log_dir
        if log_dir.exists() and not log_dir.is_dir():
            raise ValueError(f"--log-dir {str(log_dir)!r} is not a folder.")
        self._arguments = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in sorted(vars(args).items())
            if key not in NOT_COMPARED
        }
        self._arguments = json.loads(json.dumps(self._arguments, default=str))
        now = time.strftime("%Y%m%d-%H%M%S")
        names = itertools.chain([now], (f"{now}-{n}" for n in itertools.count(2)))
        self.folder = next(x for name in names if not (x := log_dir / name).exists())
        self.record = {}
        found = None if args.fresh else self._unfinished(log_dir)
        if found is not None:
            self.folder, self.record = found
            self._check("versions", versions())
            discard_unfinished(self.folder)
            print(f"Going on with the run in {self.folder} (--fresh begins anew).")

    def check_data(self, about: Mapping[str, Any]) -> None:
        """Raises an error if the run was begun with other data.

        Args:
            about: The description of the data.

        Raises:
            ValueError: It was; the message says what differs.
        """
        if self.record:
            for amount in AMOUNTS:
                self._check(amount, about.get(amount))

    def _check(self, name: str, now: Any) -> None:
        then = self.record.get(name)
        if then != json.loads(json.dumps(now)):
            raise ValueError(
                f"the run in {str(self.folder)!r} was begun with other {name}, {then}; "
                f"now: {now}. --fresh begins a new one."
            )

    def _unfinished(self, log_dir: Path) -> tuple[Path, dict] | None:
        """The last run with these arguments, if it has not ended and no one runs it."""
        for file in sorted(log_dir.glob(f"*/{RECORD}"), reverse=True):
            # What others have written under this name may be anything.
            with contextlib.suppress(ValueError, OSError, AttributeError, KeyError):
                record = json.loads(file.read_text())
                if record.get("arguments") == self._arguments:
                    self._locked = None if record["ended"] else _lock(file.parent)
                    return (file.parent, record) if self._locked else None
        return None

    def write(
        self,
        rows: list[dict],
        curves: Mapping[str, dict],
        about: Mapping[str, Any],
        ended: bool = False,
    ) -> None:
        """Writes what there is so far; a kill leaves the record that was there.

        Args:
            rows: Of the table.
            curves: The learning curves of each cell.
            about: What else the record says.
            ended: Whether nothing more is to come.

        Raises:
            OSError: It cannot be written.
        """
        if not self._workers.is_first:
            return
        if not self.record:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._locked = _lock(self.folder)
        self.record = {
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "arguments": self._arguments,
            "versions": versions(),
            "ended": ended,
            **about,
            "rows": rows,
            "curves": curves,
        }
        with atomic_path(self.folder / RECORD) as file:
            file.write_text(json.dumps(self.record, indent=1))


def _lock(folder: Path) -> IO | None:
    """A file that no other process can lock while it is open; `None` if one has."""
    file = open(folder / ".lock", "w")  # noqa: SIM115
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # on Windows two may go on with one run
        pass
    except OSError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def whole_events(folder: Path, name: str) -> Iterator[None]:
    """Lets what is written for TensorBoard appear at once, and once.

    Args:
        folder: Of the TensorBoard run.
        name: Of the file, which replaces an earlier one of this name.
    """
    tf = require("tensorflow")
    with tempfile.TemporaryDirectory() as made:
        with tf.summary.create_file_writer(made).as_default():
            yield
        (events,) = Path(made).iterdir()
        # Last by its name: TensorBoard does not look at what comes before again.
        with atomic_path(folder / f"events.out.tfevents.9999999999.{name}") as file:
            shutil.copyfile(events, file)
