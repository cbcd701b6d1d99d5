"""``python -m profiler``: time a model's operators on the device at hand. See --help."""

from __future__ import annotations

import sys

from foundation.commands import run_command
from profiler.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
