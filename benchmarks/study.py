"""Times the study; see `study.timing` in examples/, which this script runs."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # As a script in examples/ has it; in this folder `study` would be this file.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "examples")

    import quiet  # noqa: F401
    from study.timing import main

    main()
