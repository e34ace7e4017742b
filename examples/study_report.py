"""Makes the report of the study; see the package `study` beside this script."""

import sys

import quiet  # noqa: F401
from study.report import main

if __name__ == "__main__":
    sys.exit(main())
