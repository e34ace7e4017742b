"""Trains with several processes on this machine.

    python -m keras_gated.distribution --workers 4 train.py --epochs 10

Each runs the script, in which `keras_gated.distribution.initialize` joins them.
"""

import argparse
import sys

from keras_gated.distribution import launch


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_gated.distribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=3,
        metavar="N",
        help="how often all are started again if one is killed (default: %(default)s)",
    )
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        return launch(
            args.workers, [sys.executable, args.script, *args.arguments], args.restarts
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
