"""Where the configuration files that ship with the project are: beside the packages, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"
