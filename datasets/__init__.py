"""Data sets and pipelines: piano rolls, MIDI and sound files, published sets, Bach.

They know nothing of cells or layers. Every module is an attribute of this package and
is imported when it is first used; what it needs beyond NumPy it imports when it is
called, and says which extra to install where that is missing.
"""

import importlib
from typing import Any

_MODULES = (
    "audio",
    "bach_chorales",
    "fsdd",
    "jsb_chorales",
    "midi",
    "midi_directory",
    "midi_records",
    "muse_data",
    "nottingham",
    "piano_midi",
    "piano_roll",
    "synthesised",
)
_FUNCTIONS = {
    "audio_dataset_from_directory": "audio",
    "midi_dataset_from_directory": "midi_directory",
}

__all__ = [*_FUNCTIONS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(__getattr__(_FUNCTIONS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
