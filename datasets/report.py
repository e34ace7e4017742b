"""What came of reading many files: a table, and all of it as JSON."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import Finding, atomic_path

NAMES = 3
"""How many names of files a row of the table holds."""
HEAD = ("", "files", "the first of them")


@dataclasses.dataclass
class Report:
    """What came of reading many files.

    As a string it is a table with a row for each reader, kind of warning and kind of
    reason to skip a file; the reason of each file is in `warnings` and `skipped`, and
    in the JSON.

    Example:

    >>> from pathlib import Path
    >>> from keras_gated.datasets.files import Finding
    >>> from keras_gated.datasets.report import Report
    >>> skipped = {Path("a.mid"): Finding("'a.mid' is empty.", "empty")}
    >>> print(Report("2 MIDI files read.", {"symusic": 2}, {}, skipped))
    2 MIDI files read. 1 skipped.
                      files  the first of them
    read by symusic       2
    skipped: empty        1  'a.mid'
    """

    summary: str
    """A sentence: how many files, and how much they hold."""
    readers: dict[str, int]
    """How many files were read, by the name of the reader."""
    warnings: dict[Path, list[Finding]]
    """What was found about files that were read."""
    skipped: dict[Path, Finding]
    """Why files, and folders that cannot be listed, were skipped."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What else is known: numbers and names, for the JSON."""
    path: Path | None = None
    """The JSON file, once it is written."""

    @property
    def title(self) -> str:
        """The summary, and how many files were skipped."""
        skipped = f" {len(self.skipped):,} skipped." if self.skipped else ""
        return self.summary + skipped

    def rows(self) -> list[tuple[str, str, str]]:
        """The rows of the table: what, the number of files, the first names."""
        rows = [
            (f"read by {reader}", f"{count:,}", "")
            for reader, count in sorted(self.readers.items())
        ]
        for what in ("warnings", "skipped"):
            title = "warning" if what == "warnings" else what
            for kind, files in self._by_kind(what).items():
                # The name of a file may be no text that can be printed.
                first = [repr(os.fspath(path.name)) for path in list(files)[:NAMES]]
                more = ", ..." if len(files) > NAMES else ""
                row = f"{title}: {kind}", f"{len(files):,}", ", ".join(first) + more
                rows.append(row)
        return rows

    def __str__(self) -> str:
        rows = [HEAD, *self.rows()]
        wide, number = (max(len(row[column]) for row in rows) for column in (0, 1))
        table = [f"{a:{wide}}  {b:>{number}}  {c}".rstrip() for a, b, c in rows]
        return "\n".join([self.title, *table, *self._last_line()])

    def show(self) -> None:
        """Prints the table, with rich if it is installed."""
        try:
            from rich.console import Console
            from rich.markup import escape
            from rich.table import Table
        except ImportError:
            print(self)
            return
        console = Console()
        console.print(escape(self.title), highlight=False, soft_wrap=True)
        table = Table()
        for column, justify in zip(HEAD, ("left", "right", "left"), strict=True):
            table.add_column(column, justify=justify)
        for row in self.rows():
            table.add_row(*map(escape, row))
        console.print(table)
        for line in self._last_line():
            console.print(escape(line), highlight=False, soft_wrap=True)

    def _last_line(self) -> Iterator[str]:
        if self.path is not None and (self.warnings or self.skipped):
            yield f"All files and reasons: {str(self.path)!r}"

    def _by_kind(self, what: str) -> dict[str, dict[Path, list[Finding]]]:
        """The files of `warnings` or `skipped` by kind, the most frequent first."""
        kinds: dict[str, dict[Path, list[Finding]]] = {}
        for path, found in getattr(self, what).items():
            for finding in [found] if what == "skipped" else found:
                kinds.setdefault(finding.kind, {}).setdefault(path, []).append(finding)
        return dict(sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0])))

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "summary": self.summary,
            **self.facts,
            "read": self.readers,
            **{
                what: {
                    kind: {str(path): " ".join(found) for path, found in files.items()}
                    for kind, files in self._by_kind(what).items()
                }
                for what in ("warnings", "skipped")
            },
        }

    def save(self, name: str, cache: Path, folder: str | os.PathLike) -> None:
        """Writes the JSON beside the cache; a cache that takes no files has none.

        Args:
            name: The name of the cache, with which that of the file begins.
            cache: The folder of the cache.
            folder: The folder that was read: each has a report of its own.
        """
        key = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:8]
        path = cache / f"{name}_report_{key}.json"
        try:
            with atomic_path(path) as file:
                file.write_text(json.dumps(self.to_json(), indent=1))
        except OSError:  # the log has said that nothing can be kept there
            return
        self.path = path
