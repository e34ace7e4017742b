"""Measures why tanh and why gates; see the package `why_tanh` beside this script."""

import sys

from why_tanh.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
