"""The model that a command names, and the folder that it writes to.

Errors say in a line what is wrong with them.
"""

import argparse
from pathlib import Path

import keras

import keras_gated  # noqa: F401  its layers and losses are in the files


def load_model(path: Path) -> keras.Model:
    """Loads a `.keras` file, and nothing that runs code of its own.

    Args:
        path: The file.

    Raises:
        ValueError: There is none, or it is no model; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"There is no model {str(path)!r}; `make demo` trains some.")
    if path.suffix != ".keras":
        # Of the older formats some versions of Keras run what is in the file.
        raise ValueError(f"{str(path)!r} is no .keras file; no other is loaded.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a damaged archive leads to
        if "safe_mode" in str(error):
            raise ValueError(
                f"{str(path)!r} holds code of its own (as keras.layers.Lambda does), "
                "which could do anything; it is not loaded."
            ) from error
        # Keras puts all of the configuration before what it is about.
        reason = str(error).rpartition("Exception encountered: ")[2]
        reason = (reason or type(error).__name__).splitlines()[0]
        raise ValueError(f"{str(path)!r} is no model that loads: {reason}") from error


def export_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of a command that writes a model into a folder.

    Args:
        description: Of the command.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="a .keras file")
    add("--to", type=Path, required=True, metavar="FOLDER", help="where to write")
    return parser


def make_folder(path: Path) -> None:
    """Makes the folder that `--to` names, unless it is there.

    Args:
        path: The folder.

    Raises:
        ValueError: It is a file.
    """
    if path.is_file():
        raise ValueError(f"{str(path)!r} is a file; --to takes a folder.")
    path.mkdir(parents=True, exist_ok=True)
