"""Where the configuration files that ship with the project are, and whether a name is that of a file instead."""

from __future__ import annotations

from pathlib import Path

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"


def is_file(path: Path) -> bool:
    """Whether `path` is there and no folder; what cannot be a path at all (too long, a NUL in it) is none.

    A pipe or a device is meant as a file, too: its reader refuses it by what it is.
    """
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; what cannot be a path at all is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
