"""The loop: what is not yet measured is timed and kept, with the clocks as they were at each kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from foundation.errors import UserError
from foundation.records import dataclass
from profiler.device import Device, Facts
from profiler.journal import Journal
from profiler.work import Kernel, Work

NAMED_AT_ALL_SIZES = ("linear", "experts")
"""Kernels for which libraries choose by size: their names are asked at every size, of others at the first and last."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """How it went: how much was timed now, and how much was known."""

    timed: int
    known: int


def check_idle(device: Device, *, even_if_busy: bool) -> None:
    """Raise a `UserError` where others use the device, unless told not to mind."""
    found = "" if even_if_busy else device.busy()
    if found:
        fix = "wait, or give --even_if_busy and expect longer times"
        raise UserError(f"the device is not idle: {found}", field="--device", fix=fix)


def measure(device: Device, wanted: Sequence[Work], journal: Journal, tell: Callable[[int, Work], None]) -> Measurement:
    """Time what the `journal` lacks of `wanted`, a kernel after another, the device warm before each.

    `tell` hears how many are done, and what is next.

    Raises `UserError` where something cannot be timed; what was timed before is kept.
    """
    missing = [work for work in wanted if work not in journal.known]
    known = len(wanted) - len(missing)
    named, kernel = _named(wanted), None
    # A kernel's weights are made once: all of its sizes follow each other.
    order = {kernel: place for place, kernel in enumerate(dict.fromkeys(work.kernel for work in missing))}
    for done, work in enumerate(sorted(missing, key=lambda work: order[work.kernel])):
        tell(known + done, work)
        if work.kernel != kernel:
            # Building a kernel's weights lets the device rest.
            warm_up_s, kernel = device.warm_up(), work.kernel
            journal.note({**_now(), "kernel": kernel.name, "warm_up_s": round(warm_up_s, 1), **device.clocks()})
        journal.add(work, device.time(work, names=work in named))
    if missing:
        journal.note({**_now(), "kernel": "end", **device.clocks()})
    return Measurement(len(missing), known)


def _now() -> Facts:
    return {"at": datetime.now(UTC).isoformat(timespec="seconds")}


def _named(wanted: Sequence[Work]) -> set[Work]:
    """Return those of `wanted` whose kernels' names are asked."""
    by_kernel: dict[Kernel, list[Work]] = {}
    for work in wanted:
        by_kernel.setdefault(work.kernel, []).append(work)
    chosen: set[Work] = set()
    for kernel, every in by_kernel.items():
        chosen.update(every if kernel.name in NAMED_AT_ALL_SIZES else (every[0], every[-1]))
    return chosen
