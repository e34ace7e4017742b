"""Data sets and pipelines: piano rolls, MIDI and sound files, published sets, Bach.

The folders are `music`, `sound` and `sets`; what they share stands beside them. Every
public module is an attribute of this package, imported when it is first used:
`keras_gated.datasets.midi` is `keras_gated.datasets.music.midi`. What a module needs
beyond NumPy is imported when it is called, and where that is missing the error says
which extra installs it.

Imports within this folder are relative, and nothing here needs the rest of the
package: `worker.py` loads the folder by itself, without Keras.
"""

import importlib
from typing import Any

_FOLDERS = {
    "audio": "sound",
    "audio_records": "sound",
    "bach_chorales": "sets",
    "fsdd": "sets",
    "jsb_chorales": "sets",
    "midi": "music",
    "midi_directory": "music",
    "midi_records": "music",
    "muse_data": "sets",
    "nottingham": "sets",
    "piano_midi": "sets",
    "piano_roll": "music",
    "synthesized": "sets",
}
_FUNCTIONS = {
    "audio_dataset_from_directory": "sound.audio",
    "midi_dataset_from_directory": "music.midi_directory",
    "resumable": "resuming",
}

__all__ = [*_FUNCTIONS, *_FOLDERS]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f".{_FOLDERS[name]}.{name}", __name__)
    if name in _FUNCTIONS:
        module = importlib.import_module(f".{_FUNCTIONS[name]}", __name__)
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
