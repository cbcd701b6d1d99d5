"""Where the configuration files that ship with the project are."""

from __future__ import annotations

from pathlib import Path

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"
