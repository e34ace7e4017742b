"""Prepares what the site is made of, in build/site; `make docs` then builds it.

    python docs/make_site.py          # before the site is built
    python docs/make_site.py --check  # after: every link and anchor leads somewhere

The pages are docs/*.md as they stand, so that they read well in a repository, too.
Three things differ in the copies: a link to a file outside docs/ leads to a page that
shows it, a block of LaTeX (```math) becomes MathML, which browsers draw without a
script, and the pages of the reference are lists of the public names, made here.
"""

import argparse
import ast
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "site"
PAGES = BUILD / "docs"
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
DOCTEST = re.compile(r"^( *)>>> .*\n(?:\1(?!\"\"\").+\n)*", re.MULTILINE)
MATH = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)

UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
"""Above sources, records and this project's own pages: every page loads the index of
the search, which would be twice as large with them."""

REFERENCE = {
    "cells": ("Cells", ["keras_gated.cells"]),
    "layers": (
        "Layers",
        ["keras_gated.layers", "keras_gated.RollEncoding", "keras_gated.match_units"],
    ),
    "training": (
        "Losses, metrics, optimizers",
        ["keras_gated.losses", "keras_gated.metrics", "keras_gated.optimizers"],
    ),
    "callbacks": ("Callbacks", ["keras_gated.callbacks"]),
    "generation": (
        "Generation and distributions",
        ["keras_gated.generation", "keras_gated.NADE", "keras_gated.GaussianMixture"],
    ),
    "inspection": (
        "Inspection and pictures",
        ["keras_gated.inspection", "keras_gated.pictures"],
    ),
    "exporting": ("Exports", ["keras_gated.exporting"]),
    "distribution": ("Several processes", ["keras_gated.distribution"]),
    "music": (
        "Data sets of music",
        [
            "keras_gated.datasets.music.midi",
            "keras_gated.datasets.music.midi_directory",
            "keras_gated.datasets.music.midi_records",
            "keras_gated.datasets.music.piano_roll",
            "keras_gated.datasets.resuming.resumable",
        ],
    ),
    "sound": (
        "Data sets of sound",
        [
            "keras_gated.datasets.sound.audio",
            "keras_gated.datasets.sound.audio_records",
        ],
    ),
    "sets": (
        "Published sets",
        [
            "keras_gated.datasets.sets.bach_chorales",
            "keras_gated.datasets.sets.jsb_chorales",
            "keras_gated.datasets.sets.nottingham",
            "keras_gated.datasets.sets.muse_data",
            "keras_gated.datasets.sets.piano_midi",
            "keras_gated.datasets.sets.fsdd",
            "keras_gated.datasets.sets.synthesized",
        ],
    ),
}
"""The pages of the reference: their titles, and the modules and names on them."""


def public_names(path: Path) -> list[str]:
    """The names a module exports: those of `__all__`, or else those that it defines."""
    tree = ast.parse(path.read_text())
    defined = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == (
            "__all__"
        ):
            return sorted(ast.literal_eval(node.value), key=str.lower)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
            defined.append(node.name)
    return defined


def source_of(dotted: str) -> Path | None:
    """The file of a module of the package, or None for another name."""
    parts = dotted.split(".")
    folder = ROOT / "keras_gated"
    if parts[1:2] == ["datasets"]:
        folder, parts = ROOT / "datasets", parts[1:]
    path = folder.joinpath(*parts[1:])
    files = path.with_suffix(".py"), path / "__init__.py"
    return next((file for file in files if file.is_file()), None)


def write_reference() -> None:
    folder = PAGES / "reference"
    folder.mkdir()
    index = [
        "# Reference\n",
        "Every public name, with its arguments, defaults, shapes and errors. The "
        "examples are run by the tests. The names of `keras_gated.cells` and "
        "`keras_gated.layers`, and `NADE`, `GaussianMixture`, `RollEncoding` and "
        "`match_units`, are names of `keras_gated`, too; modules such as `midi` are "
        "`keras_gated.datasets.midi`.\n",
    ]
    for page, (title, entries) in REFERENCE.items():
        lines = [f"# {title}\n"]
        index.append(f"\n**[{title}]({page}.md)**\n")
        for entry in entries:
            path = source_of(entry)
            if path is None:
                lines.append(f"::: {entry}\n")
                index.append(f"- [`{entry.rpartition('.')[2]}`]({page}.md#{entry})")
                continue
            shown = entry.replace("datasets.music", "datasets").replace(
                "datasets.sound", "datasets"
            )
            shown = shown.replace("datasets.sets", "datasets")
            summary = ast.get_docstring(ast.parse(path.read_text()))
            lines.append(f"## `{shown}`\n\n{summary.partition(chr(10))[0]}\n")
            for name in public_names(path):
                lines.append(
                    f"::: {entry}.{name}\n    options:\n      heading_level: 3\n"
                )
                index.append(f"- [`{name}`]({page}.md#{entry}.{name})")
        if page == "layers":
            lines.append(
                "## Layers of further cells\n\n`IndRNN`, `MinGRU`, `MinLSTM`, "
                "`ProjectedLSTM` and `SLSTM` are made by `layer_by_units` of the "
                "[cells](cells.md) of those names, and take the cell's arguments and "
                "then those of `RNN`.\n"
            )
        (folder / f"{page}.md").write_text("\n".join(lines))
    (folder / "index.md").write_text("\n".join(index) + "\n")


def mathml(match: re.Match) -> str:
    from latex2mathml.converter import convert

    rows = match[1].strip()
    return f'<div class="math">{convert(rows, display="block")}</div>'


def staged(path: Path) -> Path:
    """Where a file of the project stands in the site."""
    if path.is_relative_to(ROOT / "docs"):
        return PAGES / path.relative_to(ROOT / "docs")
    if path == ROOT / "README.md":
        return PAGES / "README.md"
    name = PAGES / path.relative_to(ROOT)
    return name.with_name(f"{name.name}.md") if path.suffix == ".py" else name


def write_page(path: Path) -> list[Path]:
    """Writes a page of the site.

    Returns:
        The files outside docs/ that it links to.
    """
    to = staged(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".py":
        name = path.relative_to(ROOT)
        to.write_text(f"{UNSEARCHED}# {name}\n\n````python\n{path.read_text()}````\n")
        return []
    if path.suffix != ".md":
        shutil.copyfile(path, to)
        return []
    found = []

    def link(match: re.Match) -> str:
        target = path.parent / unquote(match[2])
        if urlsplit(match[2]).scheme or not target.exists():
            return match[0]
        target = Path(os.path.normpath(target))
        if not target.is_relative_to(ROOT / "docs"):
            found.append(target)
        relative = os.path.relpath(staged(target), to.parent)
        return f"{match[1]}{relative}{match[3]}"

    text = path.read_text()
    parts, end = [], 0
    for fence in FENCE.finditer(text):  # what is code stays as it is
        parts += [LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    parts.append(LINK.sub(link, text[end:]))
    page = MATH.sub(mathml, "".join(parts))
    to.write_text(page if path.parent == ROOT / "docs" else UNSEARCHED + page)
    return found


def prepare() -> None:
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(
        ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("__pycache__", "*_site.py")
    )
    for name, folder in (("", "keras_gated"), ("keras_gated/", "datasets")):
        shutil.copytree(
            ROOT / folder,
            BUILD / "python" / f"{name}{folder}",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for module in (BUILD / "python").rglob("*.py"):  # examples are code
        module.write_text(DOCTEST.sub(r"\1```pycon\n\g<0>\1```\n", module.read_text()))
    write_reference()
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]
    pages += [ROOT / "CHANGELOG.md"]
    done = {ROOT / "README.md"}
    while pages:
        page = pages.pop()
        if page not in done:
            done.add(page)
            pages += write_page(page)


class Links(HTMLParser):
    """What a page links to and loads, and the anchors in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append((tag, value))


def check() -> int:
    """Prints the links that lead nowhere, and what is loaded from other hosts.

    Returns:
        The number of both.
    """
    html = BUILD / "html"
    pages = {page: Links(page) for page in html.rglob("*.html")}
    bad, outside = [], set()
    for page, parsed in pages.items():
        for tag, link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme in ("mailto", "data", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                outside.add(link)
                if tag != "a" and "canonical" not in link:
                    bad.append(f"{page.relative_to(html)} loads {link}")
                continue
            if page.name == "404.html":  # its links begin at the root of a server
                continue
            target = page
            if parts.path:
                target = Path(os.path.normpath(page.parent / unquote(parts.path)))
                target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            known = pages[target].anchors if target in pages else ()
            if not target.exists() or (
                anchor and anchor not in known and not anchor.startswith("__")
            ):
                bad.append(f"{page.relative_to(html)}: {link}")
    print(f"{len(pages)} pages, {len(outside)} links to other hosts, not followed:")
    print("\n".join(f"  {link}" for link in sorted(outside)))
    print(
        "\n".join(["Links that lead nowhere:", *sorted(bad)] if bad else ["All lead."])
    )
    return len(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(bool(check()))
    prepare()
