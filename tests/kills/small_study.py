"""The study in small: random music, few units, two rates."""

import functools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from study.__main__ import main
from study.recipes import Recipe
from study.tasks import Music
from study.trials import Plan

EPOCHS = 30
"""Of the search; with `--shorten 30` there is one."""


def load_data(data_dir=None, seed=0):
    random = np.random.default_rng(seed)
    rolls = [(random.random((8 + k % 3, 88)) < 0.1).astype("uint8") for k in range(12)]
    return rolls[:6], rolls[6:9], rolls[9:]


def few(seed=0):
    """A set of a few chorales."""
    load = functools.partial(load_data, seed=seed)
    return Music("a few chorales", load, budget=500, inputs=88)


plan = Plan(
    recipes={"jsb_chorales": Recipe(EPOCHS, 2 * EPOCHS, 4, finalists=2)},
    tasks={"jsb_chorales": few()},
    ablations=(),
    rates=2,
    seeds=(1, 2),
)
if __name__ == "__main__":
    sys.exit(main(plan))
