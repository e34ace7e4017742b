"""Makes the report of the study; see the package `study` beside this script."""

import sys

from study.report import main

if __name__ == "__main__":
    sys.exit(main())
