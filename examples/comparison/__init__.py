"""What the examples share that train all cells at equal size and compare them.

`arguments` is the command line. `training` has the `Settings`, and builds and trains a
model by the paper's recipe, `joint` builds one of whole frames of music. `music` and
`sound` say what a model of each predicts, and make the batches. `measures` says what
music is like in numbers. `results` runs one cell after another, and makes the table and
the picture; `runs` keeps the record, and goes on with a run that was stopped.
"""

from comparison.arguments import add_workers, parser, positive, seed
from comparison.joint import HEADS, JOINT, build_joint
from comparison.results import (
    color_of,
    format_table,
    plot_learning_curves,
    run_all,
    title_of,
)
from comparison.runs import Run, whole_events
from comparison.training import AT_ONCE, Settings, build, discard_backup, train
from comparison.versions import versions
from keras_gated import CELLS

__all__ = [
    "AT_ONCE",
    "CELLS",
    "HEADS",
    "JOINT",
    "Run",
    "Settings",
    "add_workers",
    "build",
    "build_joint",
    "color_of",
    "discard_backup",
    "format_table",
    "parser",
    "plot_learning_curves",
    "positive",
    "run_all",
    "seed",
    "title_of",
    "train",
    "versions",
    "whole_events",
]
