"""The command line of a comparison."""

import argparse
from pathlib import Path
from typing import Any

from keras_gated import CELLS


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the arguments of every comparison.

    Args:
        description: Above the list of arguments in `--help`.
        **defaults: Of the arguments, by their names in the parsed namespace.

    Returns:
        The parser; further arguments can be added to it.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_sizes(parser)
    _add_duration(parser)
    _add_updates(parser)
    parser.add_argument(
        "--seed",
        type=seed,
        default=1,
        metavar="N",
        help="of weights, noise, order, split and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="where results go, each run in a folder of its own named by the time "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew, also if the last run with the same arguments was stopped "
        "before its end, with which this command would go on",
    )
    parser.set_defaults(workers=1, **defaults)
    return parser


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of a comparison that several processes may train.

    Args:
        parser: To which it is added.
    """
    parser.add_argument(
        "--workers",
        type=positive(int),
        default=1,
        metavar="N",
        help="processes on this machine that train together, each with its share of "
        "every batch (default: %(default)s); in a cluster start this command on every "
        "machine (docs/scaling_out.md)",
    )


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cells",
        nargs="+",
        choices=list(CELLS),
        default=list(CELLS),
        metavar="CELL",
        help=f"which cells to train, of {', '.join(CELLS)} (default: all)",
    )
    parser.add_argument(
        "--budget",
        type=positive(int),
        metavar="N",
        help="parameters of each recurrent layer (default: %(default)s)",
    )
    parser.add_argument(
        "--units",
        type=positive(int),
        metavar="N",
        help="the same number of units for every cell, instead of --budget",
    )


def _add_duration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--epochs",
        type=positive(int),
        metavar="N",
        help="maximum number of passes over the training set (default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=positive(int),
        metavar="N",
        help="stop after this many epochs without a better validation NLL "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive(int),
        metavar="N",
        help="sequences per update (default: %(default)s)",
    )


def _add_updates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--learning-rate",
        type=positive(float),
        metavar="X",
        help="of RMSProp (default: %(default)s)",
    )
    parser.add_argument(
        "--decay",
        choices=["none", "cosine"],
        default="none",
        help="how the learning rate falls, to 0 after --epochs (default: %(default)s)",
    )
    parser.add_argument(
        "--weight-noise",
        type=float,
        default=0.075,
        metavar="X",
        help="standard deviation of the noise on the weights (default: %(default)s)",
    )
    parser.add_argument(
        "--gradient-norm",
        type=positive(float),
        default=1.0,
        metavar="X",
        help="scale gradients of a larger norm down to this one (default: %(default)s)",
    )
    parser.add_argument(
        "--truncate-gradient",
        type=positive(int),
        metavar="N",
        help="stop the gradient at every Nth step; for long sequences, in which the "
        "gradients of tanh explode (default: do not stop it)",
    )


def positive(kind: type) -> type:
    """The type of an argument that must be positive: `positive(int)` or of `float`."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = f"positive {'whole ' if kind is int else ''}number"
    return number


def seed(text: str) -> int:
    """The type of an argument that seeds NumPy and Keras."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 2^32 - 1")
    return value
