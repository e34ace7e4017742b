"""How tests run the scripts that prepare corpora."""

import contextlib
import importlib.util
import io
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TWO_PROCESSES = (
    *("--direct_running_mode", "multi_processing"),
    *("--direct_num_workers", 2),
)


def command(script, folder, output, *arguments):
    return [
        *(sys.executable, EXAMPLES / script, "--input", folder, "--output", output),
        *map(str, arguments),
    ]


def in_this_process(script):
    """A function that runs a script here; it returns output and errors."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, EXAMPLES / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments, code=0):
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", [*map(str, command(script, *arguments)[1:])])
            assert module.main() == code, err.getvalue()
        return out.getvalue(), err.getvalue()

    return run


def files(output):
    """The bytes of all shards, by name, and of the manifest."""
    paths = [*output.glob("*.tfrecord"), output / "manifest.json"]
    return {path.name: path.read_bytes() for path in paths}
