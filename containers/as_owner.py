"""Entry point of the `sim` image: run a command of Orrery's as the user who owns the current folder.

Results then belong to whoever mounted the folder, without anybody having to pass a user id. It starts as root with two
capabilities (change user, change group), keeps none, and changes nothing when it is not root. A first argument that
names a file of Orrery's (``main.py``) is that file, whatever lies in the current folder; the rest is for Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

APP = Path(__file__).resolve().parents[1]


def main() -> None:
    """Drop to the owner of the current folder and become ``python ARGUMENTS``."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and (APP / arguments[0]).is_file():
        arguments[0] = str(APP / arguments[0])
    if os.getuid() == 0:
        owner = Path.cwd().stat()
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
