"""Times the study; see `study.timing` in examples/, which this script runs."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # As a script in examples/ has it; in this folder `study` would be this file.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "examples")

    from study.timing import main

    main()
