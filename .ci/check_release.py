"""Run by `make release-check` after the archives are built: what else a release needs.

Prints every complaint, not only the first.
"""

import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MIB = 2**20
PLACES = r"/root/|/home/[a-z]\w*/|/Users/\w+/"
"""Paths of a machine."""
HOSTS = (
    r"py[p]i\.org|pythonhoste[d]\.|registry\.npmj[s]|deb\.debia[n]|artifactregistr[y]\."
)
"""Hosts of package registries. The brackets keep this line from finding itself."""


def git(*words: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)  # noqa: S607
    return done.stdout


def text(name: str) -> str:
    """A file of the checkout."""
    return (ROOT / name).read_text()


def numbers(version: str) -> tuple[int, ...]:
    """Of a release: `1.2.0rc1` is on the way to (1, 2, 0)."""
    return tuple(map(int, re.match(r"(\d+)\.(\d+)\.(\d+)", version).groups()))


def sections(changelog: str) -> dict[str, str]:
    """The text of each section by its version, the newest first."""
    parts = re.split(r"^## \[(.+?)\].*$", changelog, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def check_version(version: str, changelog: str) -> list[str]:
    """The version against the changelog.

    A development version (`1.1.0.dev0`) is described under [Unreleased]. A release, or
    a candidate for one, has a section of its own and nothing under [Unreleased].
    It is newer than the last, by as much as what has changed asks for.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", version):
        return [f"{version} is no version such as 1.2.0, 1.2.0rc1 or 1.2.0.dev0"]
    found = sections(changelog)
    unreleased = found.pop("Unreleased", "").strip()
    if ".dev" in version:
        name, changes = "Unreleased", unreleased
    else:
        name = re.sub(r"(a|b|rc)\d+$", "", version)
        changes = found.pop(name, "").strip()
    complaints = []
    if not changes:
        complaints.append(f"CHANGELOG.md says nothing under [{name}]")
    if unreleased and name != "Unreleased":
        complaints.append(f"what is under [Unreleased] belongs under [{name}]")
    if found:
        last = max(map(numbers, found))
        ours = numbers(version)
        stable = last[0] > 0
        if ours <= last:
            complaints.append(f"{version} is not newer than the last release")
        elif stable and "### Removed" in changes and ours[0] == last[0]:
            complaints.append(f"{version} removes something: that is a major version")
        elif "### Added" in changes and ours[:2] == last[:2]:
            complaints.append(f"{version} adds something: that is a minor version")
    return complaints


def check_tracked() -> list[str]:
    """No file is large, none names a machine or a registry, and all is committed."""
    complaints = []
    for name in git("ls-files", "-z").split("\0")[:-1]:
        size = (ROOT / name).stat().st_size
        if size > MIB:
            complaints.append(f"{name} has {size / MIB:.1f} MiB, more than 1")
    for what, pattern in [("a machine's path", PLACES), ("a registry's host", HOSTS)]:
        found = git("grep", "-nIE", pattern, "--", ":!.ci/check_release.py")
        complaints += [f"{what}: {line[:120]}" for line in found.splitlines()]
    if changed := git("status", "--porcelain").strip():
        complaints.append(f"not committed: {' '.join(changed.split())}")
    return complaints


def check_archives(version: str) -> list[str]:
    """One wheel and one sdist of this version, each with the license."""
    wheels = [*(ROOT / "dist").glob("*.whl")]
    sources = [*(ROOT / "dist").glob("*.tar.gz")]
    if len(wheels) != 1 or len(sources) != 1:
        return ["dist/ has not one wheel and one sdist: make package"]
    with zipfile.ZipFile(wheels[0]) as wheel, tarfile.open(sources[0]) as source:
        names = {wheels[0].name: wheel.namelist(), sources[0].name: source.getnames()}
    complaints = [
        f"{archive} has no LICENSE"
        for archive, inside in names.items()
        if not any(name.endswith("/LICENSE") for name in inside)
    ]
    complaints += [
        f"{one} is not {version}" for one in names if f"-{version}" not in one
    ]
    return complaints


def main() -> None:
    """Checks all, and says what is wrong."""
    version = re.search(
        r'^__version__ = "(.+)"$', text("keras_gated/__init__.py"), re.MULTILINE
    ).group(1)
    complaints = check_version(version, text("CHANGELOG.md"))
    if f"\nversion: {version}\n" not in text("CITATION.cff"):
        complaints.append(f"CITATION.cff has another version than {version}")
    complaints += check_tracked() + check_archives(version)
    for complaint in complaints:
        print(f"- {complaint}")
    sys.exit(f"{version} is no release yet." if complaints else 0)


if __name__ == "__main__":
    main()
