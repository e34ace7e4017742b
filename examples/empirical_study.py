"""Runs the empirical study; see the package `study` beside this script."""

import sys

import quiet  # noqa: F401
from study.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
