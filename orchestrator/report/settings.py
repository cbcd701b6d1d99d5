"""The settings of a run as rows of text: those that decide its results, with their meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config import RunConfig
from orchestrator.flags import FLAGS, Flag

NO_BEARING = frozenset(
    {
        "output", "itl", "verbose", "no_report", "write_configs", "trace_dir", "interface", "macro_steps",
        "cross_check", "cache_dir", "no_cache", "work_dir", "spool_dir", "backend_timeout", "backend_jobs",
    }
)  # fmt: skip
"""Flags that say what is written, or by which way the same results are reached."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One flag: its group, name, value as text, meaning with unit, and whether its value is not the default."""

    group: str
    name: str
    value: str
    meaning: str
    given: bool


def settings(config: RunConfig) -> list[Setting]:
    """Return the settings that decide the results, in the order of the flags."""
    return [_setting(flag, getattr(config, flag.name)) for flag in FLAGS if flag.name not in NO_BEARING]


def _setting(flag: Flag, value: object) -> Setting:
    given = value != flag.default
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif value is None:
        text = flag.shown_default or "none"
    else:
        text = str(value)
    return Setting(flag.group, f"--{flag.name}", text, flag.help, given)
