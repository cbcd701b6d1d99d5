"""What ``nvidia-smi`` says of a GPU: clocks, power, whether others use it. Without it nothing is known."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu")
BUSY_PERCENT, BUSY_MIB = 5, 2048
"""A GPU is busy above this utilisation, or where this much memory is in use before we use any."""
_PATIENCE_S = 20


def query(gpu: str, what: Sequence[str]) -> dict[str, str]:
    """Return the answers for `gpu` (``GPU-...`` or its number), with units; those that are not known are left out."""
    lines = _lines(f"--id={gpu}", f"--query-gpu={','.join(what)}", "--format=csv,noheader")
    if not lines:
        return {}
    told = dict(zip(what, (cell.strip() for cell in lines[0].split(",")), strict=False))
    return {name: value for name, value in told.items() if value and not value.startswith(("[", "N/A"))}


def others(gpu: str) -> str:
    """Return in words what others do on `gpu`, asked before this process uses much of it; empty where it is idle."""
    running = _lines(f"--id={gpu}", "--query-compute-apps=pid", "--format=csv,noheader")
    return found_busy(query(gpu, ("utilization.gpu", "memory.used")), running, os.getpid())


def found_busy(told: dict[str, str], running: Sequence[str], own: int) -> str:
    """Return in words whether what nvidia-smi `told`, and the processes `running`, are more than process `own`."""
    strangers = [pid for pid in running if pid.isdigit() and int(pid) != own]
    if strangers:
        return f"processes {', '.join(strangers[:4])} compute on it"
    if _number(told.get("utilization.gpu", "")) > BUSY_PERCENT:
        return f"it is {told['utilization.gpu']} busy"
    if _number(told.get("memory.used", "")) > BUSY_MIB:
        return f"{told['memory.used']} of its memory are in use"
    return ""


def _number(text: str) -> float:
    word = text.partition(" ")[0]
    return float(word) if word.replace(".", "", 1).isdigit() else 0.0


def _lines(*options: str) -> list[str]:
    try:
        found = subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()] if found.returncode == 0 else []
