"""What the examples share that train all cells at equal size and compare them.

`arguments` is the command line. `training` has the `Settings`, and builds and trains a
model by the paper's recipe, `joint` builds one of whole frames of music. `music` and
`sound` say what a model of each predicts, and make the batches. `measures` says what
music is like in numbers. `results` runs one cell after another, and makes the table,
the record and the picture.
"""

from comparison.arguments import parser, positive, seed
from comparison.joint import HEADS, JOINT, build_joint
from comparison.results import (
    color_of,
    format_table,
    run_all,
    title_of,
    versions,
    write_record,
)
from comparison.training import AT_ONCE, Settings, build, train
from keras_gated import CELLS

__all__ = [
    "AT_ONCE",
    "CELLS",
    "HEADS",
    "JOINT",
    "Settings",
    "build",
    "build_joint",
    "color_of",
    "format_table",
    "parser",
    "positive",
    "run_all",
    "seed",
    "title_of",
    "train",
    "versions",
    "write_record",
]
