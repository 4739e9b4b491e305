"""The command, as `python -m madcrow_events`."""

import os
import sys

from madcrow_events.cli import main

if __name__ == "__main__":  # pragma: no cover  # its tests are processes, which are not measured
    # `-m` puts the working directory first on the path. The option --app-dir does that here.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  # pathlib would be imported
        del sys.path[0]
    main()
