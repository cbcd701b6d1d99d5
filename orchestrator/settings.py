"""The settings of a run that decide its results: as values for its record, and as text with meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def deciding_flags() -> list[Flag]:
    """Return the flags that decide the results, in order."""
    return [flag for flag in FLAGS if flag.name not in NO_BEARING]


def deciding_values(config: RunConfig) -> dict[str, object]:
    """Return name -> value of the settings that decide the results, defaults included: given again, they repeat it."""
    values = {flag.name: getattr(config, flag.name) for flag in deciding_flags()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def settings(config: RunConfig) -> list[Setting]:
    """Return the settings that decide the results as text, in the order of the flags."""
    return [_setting(flag, getattr(config, flag.name)) for flag in deciding_flags()]


def _setting(flag: Flag, value: object) -> Setting:
    given = value != flag.default
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif value is None:
        text = flag.shown_default or "none"
    else:
        text = str(value)
    return Setting(flag.group, f"--{flag.name}", text, flag.help, given)
