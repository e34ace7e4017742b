"""Tests the library on many versions: `make test-matrix` (or `--help`).

Each row of LEGS is an environment of its own, `.venv-matrix/NAME`. A leg whose tests
ran on the very same files is not run again, so that a run that was stopped goes on.
Needs nothing but a Python. pip installs, as it is set up on the machine; uv, which is
installed for it, does what pip cannot: takes the lowest versions, leaves one out.
"""

import argparse
import collections
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-matrix"
RECORD = ROOT / "docs" / "versions.json"
PAGE = ROOT / "docs" / "versions.md"
MINUTES = 30

CORE = """tests/cells tests/layers tests/test_losses.py tests/test_metrics.py
    tests/test_mixture.py tests/test_versions.py"""
SOUND = "tests/datasets/sound tests/datasets/sets/test_fsdd.py"
OLDEST_KERAS = "keras==" + re.search(
    r"keras >=([\d.]+)", (ROOT / "setup.cfg").read_text()
).group(1)


@dataclasses.dataclass(frozen=True)
class Leg:
    """What an environment holds, and which tests run there."""

    python: str
    """One of these versions, the first that this machine has."""
    backend: str = "tensorflow"
    packages: str = ""
    """Beside the library and what its tests need."""
    extra: str = "test-cells"
    lowest: bool = False
    """The lowest version of every direct dependency that setup.cfg allows."""
    nightly: bool = False
    """A pre-release: only `make test-nightly` runs it, and it may fail."""
    drop: str = ""
    """Dependencies that the library is to do without."""
    tests: str = CORE
    options: str = ""


LEGS = {
    "oldest": Leg("3.11", lowest=True, packages="keras numpy tensorflow"),
    "keras-oldest": Leg("3.12 3.11 3.13", packages=OLDEST_KERAS, extra="test"),
    "tfio": Leg("3.12 3.11", extra="test-tfio", tests=f"{CORE} {SOUND}"),
    "python3.11": Leg("3.11"),
    "python3.12": Leg("3.12"),
    "python3.13": Leg("3.13"),
    "jax-keras-oldest": Leg(
        "3.11", "jax", f"jax==0.10.2 {OLDEST_KERAS}", drop="tensorflow"
    ),
    "jax": Leg("3.13", "jax", "jax", drop="tensorflow"),
    "torch": Leg("3.11", "torch", "torch==2.13.0", drop="tensorflow"),
    "torch-newest": Leg("3.13", "torch", "torch", drop="tensorflow"),
    "python3.14-jax": Leg("3.14", "jax", "jax"),
    "python3.14-torch": Leg("3.14", "torch", "torch"),
    "nightly": Leg(
        "3.13",
        packages="keras-nightly tf-nightly",
        drop="keras tensorflow",
        nightly=True,
    ),
    "pre-tensorflow": Leg(
        "3.13", packages="keras-nightly tensorflow", drop="keras", nightly=True
    ),
    "pre-jax": Leg("3.13", "jax", "keras jax", drop="tensorflow", nightly=True),
}


class CannotRunError(Exception):
    """Why a leg was not run, in one line."""


def interpreter(versions: str) -> str:
    """The path of a Python; pyenv's, too, which keeps them off the PATH."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    ask = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
    for version in versions.split():
        found = [shutil.which(f"python{version}"), shutil.which("python3")]
        found += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
        for path in filter(None, found):
            if run([path, "-c", ask]).stdout.strip() == version:
                return str(path)
    raise CannotRunError(f"no Python {' or '.join(versions.split())} on this machine")


def run(command: list, **options: object) -> subprocess.CompletedProcess:
    """Runs a program in the checkout, and keeps what it prints."""
    options = {"capture_output": True, "text": True, "cwd": ROOT, **options}
    return subprocess.run([str(word) for word in command], **options)


def attempt(command: list, **options: object) -> None:
    """Runs a program that installs something."""
    done = run(command, **options)
    if done.returncode:
        lines = [line.strip(" ×╰─▶│") for line in done.stderr.splitlines()]
        why = " ".join(line for line in lines if not line.startswith("WARNING"))
        raise CannotRunError(f"cannot be installed: {why[:200]}")


def uv(*arguments: object) -> None:
    """Installs with uv, which is told what pip is told here."""
    tool = HOME / ".uv" / "bin" / "uv"
    if not tool.exists():
        venv.create(HOME / ".uv", with_pip=True)
        attempt([tool.with_name("pip"), "install", "--quiet", "uv"])
    names = {"PIP_CERT": "SSL_CERT_FILE", "PIP_FIND_LINKS": "UV_FIND_LINKS"}
    told = {uvs: os.environ[pips] for pips, uvs in names.items() if pips in os.environ}
    attempt([tool, *arguments], env={**told, **os.environ})


def install(name: str, leg: Leg) -> pathlib.Path:
    """Sets the environment up, unless it is already what setup.cfg asks for."""
    folder = HOME / name
    stamp = folder / "installed"
    wanted = f"{leg}\n{(ROOT / 'setup.cfg').read_text()}"
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {folder.relative_to(ROOT)}:", flush=True)
    attempt([interpreter(leg.python), "-m", "venv", "--clear", folder])
    if leg.lowest or leg.nightly or leg.drop:
        install_with_uv(leg, folder, python)
    else:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        attempt([*pip, "--editable", f".[{leg.extra}]", *leg.packages.split()])
    stamp.write_text(wanted)
    return python


def install_with_uv(leg: Leg, folder: pathlib.Path, python: pathlib.Path) -> None:
    """What pip cannot: the lowest versions, pre-releases of some, one left out."""
    packages = leg.packages.split()
    options = ["--resolution", "lowest-direct"] if leg.lowest else []
    options += ["--prerelease", "allow"] if leg.nightly else []
    if leg.drop:
        never = folder / "dropped.txt"
        never.write_text(
            "".join(f"{one}; python_version < '3'\n" for one in leg.drop.split())
        )
        options += ["--override", never]
    target = ["pip", "install", "--quiet", "--python", python]
    if leg.lowest:
        # What tests with is the newest; only what the library asks for is the lowest.
        uv(*target, *options, "-r", "setup.cfg")
        frozen = folder / "lowest.txt"
        listed = run([HOME / ".uv/bin/uv", "pip", "freeze", "--python", python]).stdout
        frozen.write_text(
            "".join(
                f"{line}\n"
                for line in listed.splitlines()
                if line.split("==")[0] in packages
            )
        )
        # Newer onnx reads names of ml_dtypes that old TensorFlow's does not have.
        tools = ["-r", "setup.cfg", "--extra", leg.extra, "onnx==1.18.*"]
        uv(*target, "--constraint", frozen, *tools)
    else:
        uv(*target, *options, "-r", "setup.cfg", "--extra", leg.extra, *packages)
    uv(*target, "--no-deps", "--editable", ".")


def sources() -> str:
    """A digest of all that a result depends on, besides what is installed."""
    digest = hashlib.sha256()
    for folder in ("keras_gated", "datasets", "tests", "conftest.py", "setup.cfg"):
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def versions(python: pathlib.Path) -> dict:
    """The versions of what a result depends on, by name."""
    names = "keras tensorflow tensorflow-io jax torch numpy keras-nightly tf-nightly"
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {'Python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    return json.loads(run([python, "-c", code, *names.split()]).stdout)


def outcome(report: pathlib.Path) -> dict:
    """What pytest's report says: how many passed, and why the others did not."""
    passed, skipped, failed = 0, collections.Counter(), []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  (written by us)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif (skip := case.find("skipped")) is not None:
            # A path in a reason is one of the machine's.
            skipped[re.sub(r"/\S*/", "", skip.get("message", ""))[:120]] += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": dict(skipped), "failed": failed}


def run_leg(name: str, leg: Leg, tests: str, workers: int, fresh: bool) -> dict:
    """What came of a leg, as docs/versions.json has it."""
    result = {"leg": name, "python": leg.python, "backend": leg.backend}
    try:
        python = install(name, leg)
    except CannotRunError as error:
        return {**result, "not_run": str(error)}
    found = versions(python)
    key = [sources(), tests, found]
    stamp = HOME / name / "result.json"
    if stamp.exists() and not fresh:
        kept = json.loads(stamp.read_text())
        if kept["key"] == key and not kept["result"]["failed"]:
            print(f"{name}: nothing has changed since it ran.")
            return kept["result"]
    report = HOME / name / "report.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-n", workers, f"--junitxml={report}"]
    command.append("--continue-on-collection-errors")
    begin = datetime.datetime.now(datetime.UTC)
    dropped = " ".join({"tensorflow"} - {leg.backend})
    print(f"{name}: {', '.join(f'{k} {v}' for k, v in found.items())}", flush=True)
    try:
        run(
            [*command, *tests.split()],
            capture_output=False,
            timeout=MINUTES * 60,
            env={**os.environ, "KERAS_BACKEND": leg.backend, "WITHOUT": dropped},
        )
    except subprocess.TimeoutExpired:
        return {**result, "not_run": f"stopped after {MINUTES} minutes"}
    if not report.exists():
        return {**result, "versions": found, "not_run": "pytest did not start"}
    result |= {"versions": found, **outcome(report)}
    result["seconds"] = round((datetime.datetime.now(datetime.UTC) - begin).seconds)
    result["date"] = f"{begin:%Y-%m-%d}"
    target = "test-nightly" if leg.nightly else "test-matrix"
    result["command"] = f'make {target} LEGS="{name}"'
    result["part"] = tests != leg.tests
    if result["part"]:
        result["command"] += f' TESTS="{tests}"'
    result["tests"] = tests.split()
    stamp.write_text(json.dumps({"key": key, "result": result}))
    return result


def page(results: list[dict]) -> str:
    """The table of docs/versions.md."""
    lines = [
        "# Versions that were tried\n",
        "`make test-matrix` writes this page and [versions.json](versions.json), a",
        "leg (an environment of its own) at a time; `make test-nightly` does so with",
        "pre-releases. What was not run is no result.",
        "A leg with a part of the tests has its command in versions.json.",
        "[verification.md](verification.md) says what the tests compare, and",
        "[systems.md](systems.md) what is known of macOS and Windows.\n",
        "| leg | Python | Keras | backend | NumPy | tests | passed | skipped | failed "
        "| seconds | date |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        if "not_run" in one:
            why = f"not run: {one['not_run']}"
            lines.append(
                f"| `{one['leg']}` | {one['python']} | | {one['backend']} | | {why} "
                "| | | | | |"
            )
            continue
        found = one["versions"]
        nightly = {"keras": "keras-nightly", "tensorflow": "tf-nightly"}
        newest = {
            ours: found.get(ours, found.get(name)) for ours, name in nightly.items()
        }
        newest = found | newest
        backend = f"{one['backend']} {newest[one['backend']]}"
        if "tensorflow-io" in found:
            backend += f", tensorflow-io {found['tensorflow-io']}"
        lines.append(
            f"| `{one['leg']}` | {found['Python']} | {newest['keras']} "
            f"| {backend} | {found['numpy']} "
            f"| {'part' if one.get('part') else 'all'} | {one['passed']:,} "
            f"| {sum(one['skipped'].values())} | {len(one['failed'])} "
            f"| {one['seconds']} | {one['date']} |"
        )
    reasons = collections.defaultdict(list)
    failures = collections.defaultdict(list)
    for one in results:
        for reason, times in one.get("skipped", {}).items():
            reasons[reason].append(f"`{one['leg']}` {times}")
        for test in one.get("failed", []):
            failures[test].append(f"`{one['leg']}`")
    for title, table in [("skipped, why", reasons), ("failed", failures)]:
        if table:
            lines += ["", f"| {title} | where |", "|---|---|"]
            lines += [f"| {what} | {', '.join(at)} |" for what, at in table.items()]
    lines += [
        "",
        'One leg again: `make test-matrix LEGS="NAME"`. The tests of each are in',
    ]
    lines += ["`versions.json`; the legs themselves are a table in `.ci/matrix.py`."]
    return "\n".join(lines) + "\n"


def record(result: dict) -> None:
    """Puts a result in the place of the leg's last one."""
    results = json.loads(RECORD.read_text()) if RECORD.exists() else []
    by_name = {one["leg"]: one for one in results} | {result["leg"]: result}
    ordered = [by_name[name] for name in LEGS if name in by_name]
    RECORD.write_text(json.dumps(ordered, indent=1) + "\n")
    PAGE.write_text(page(ordered))


def main() -> None:
    """Runs the legs that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help=", ".join(LEGS))
    parser.add_argument("--nightly", action="store_true", help="the pre-releases")
    parser.add_argument("--record", action="store_true", help="write docs/versions.*")
    parser.add_argument("--tests", help="instead of the legs' own")
    parser.add_argument("--fresh", action="store_true", help="run what ran before, too")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="of pytest-xdist")
    args = parser.parse_args()
    chosen = args.legs or [n for n, leg in LEGS.items() if leg.nightly == args.nightly]
    if unknown := [name for name in chosen if name not in LEGS]:
        parser.error(
            f"no leg is called {', '.join(unknown)}; there are {', '.join(LEGS)}"
        )
    HOME.mkdir(exist_ok=True)
    broken = []
    for name in chosen:
        leg = LEGS[name]
        if args.install_only:
            try:
                install(name, leg)
            except CannotRunError as error:
                print(f"{name}: {error}", flush=True)
            continue
        result = run_leg(name, leg, args.tests or leg.tests, args.workers, args.fresh)
        if args.record:
            record(result)
        what = result.get("not_run") or (
            f"{result['passed']} passed, {len(result['failed'])} failed, "
            f"{sum(result['skipped'].values())} skipped"
        )
        print(f"{name}: {what}", flush=True)
        # Who names a leg wants it run; who names none, what this machine can run.
        missing = "not_run" in result and (
            args.legs or not result["not_run"].startswith("no Python")
        )
        if (missing or result.get("failed")) and not leg.nightly:
            broken.append(name)
    sys.exit(f"Not passed: {', '.join(broken)}" if broken else 0)


if __name__ == "__main__":
    main()
