"""A process that reads MIDI files for another: `python midi_worker.py PACKAGE`.

Lines of JSON come in: first the options, then paths. A line goes out when all is
ready, and then one for every path: the packed roll and the number of its dropped
notes, or why there is none.

It is run as a script, not imported: whoever starts several of them should not
wait for each to load Keras, as importing `keras_gated` does; and a process that
runs TensorFlow must not be forked.
"""

import base64
import importlib
import json
import os
import sys
import types
from pathlib import Path

READY = "ready"


def import_light(package: str) -> types.ModuleType:
    """`keras_gated.datasets.midi_directory`, without `keras_gated` itself."""
    here = str(Path(__file__).parent)
    for name, folder in (("keras_gated", package), ("keras_gated.datasets", here)):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [folder]
    return importlib.import_module("keras_gated.datasets.midi_directory")


def main() -> None:
    """Serves until the input ends."""
    # What a parser prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    midi_directory = import_light(sys.argv[1])
    options = midi_directory.midi.Options(**json.loads(sys.stdin.readline()))
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        answer = midi_directory.answer(json.loads(line), options)
        if not isinstance(answer, str):
            data, dropped = answer
            answer = base64.b64encode(data).decode(), dropped
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
