"""One profile from beginning to end: what is to be measured, measuring it, and writing it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.records import dataclass
from profiler.device import Device
from profiler.grids import Grids
from profiler.journal import Journal
from profiler.measuring import Measurement, check_idle, measure
from profiler.output import write_kernels, write_meta, write_tables
from profiler.plan import plan, works
from profiler.work import Work
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.precision import Precision

BITS = {"bf16": 16, "fp16": 16, "fp32": 32}


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for.

    - `model`, and `architecture`: what its configuration calls its kind; `degrees` of tensor parallelism;
    - `dtype`: a key of `BITS`; `hardware`: what `--hardware` will call the device; `out`: the folder;
    - `even_if_busy`: measure on a device that others use.
    """

    model: ModelArchitecture
    architecture: str
    degrees: Sequence[int]
    grids: Grids
    dtype: str
    hardware: str
    out: Path
    even_if_busy: bool = False


def profile(job: Job, device: Device, tell: Callable[[int, int, Work], None]) -> Measurement:
    """Measure on `device` what is not yet in ``job.out``, and write its tables; return how it went.

    `tell` hears how many of how many are done, and what is next. Raises `UserError`; what was measured is kept.
    """
    check_idle(device, even_if_busy=job.even_if_busy)
    bits = BITS[job.dtype]
    precision = Precision(bits, bits, bits)
    grids = _fitting(job, device, bits // 8)
    tables = plan(job.model, job.degrees, grids, precision, job.hardware)
    wanted = works(tables)
    # The model, too: tables of another one would stay beside its own.
    journal = Journal(job.out, {**device.identity(), "model": job.model.name})
    try:
        went = measure(device, wanted, journal, lambda done, work: tell(done, len(wanted), work))
        write_tables(job.out, tables, journal.known)
        write_kernels(job.out, wanted, journal.known)
        write_meta(job.out, _facts(job, grids, device, journal))
        journal.finish()
    finally:
        journal.close()
    return went


def _fitting(job: Job, device: Device, number_bytes: int) -> Grids:
    """Return the grids, of attention as much as the device's memory holds."""
    if job.grids.max_cached is not None:
        return job.grids
    kinds = [kind.attention for kind in job.model.layer_kinds if isinstance(kind.attention, GroupedAttention)]
    token = max((2 * number_bytes * one.kv_heads * one.head_dim for one in kinds), default=1)
    return replace(job.grids, max_cached=device.memory_bytes() // token)


def _facts(job: Job, grids: Grids, device: Device, journal: Journal) -> dict[str, Any]:
    return {
        "profiler": "orrery",
        "hardware": job.hardware,
        "profiled_at": journal.notes[-1].get("at", "") if journal.notes else "",
        "architecture": job.architecture,
        "model": job.model.name,
        "variant": job.dtype,
        "tp_degrees": list(job.degrees),
        "skew_fit": {"enabled": False},
        "device": dict(device.identity()),
        "timings": len(journal.known),
        "clocks": [dict(note) for note in journal.notes],
        "grid": {
            "max_tokens": grids.max_tokens,
            "max_sequences": grids.max_sequences,
            "max_context": grids.max_context,
            "chunk_factor": grids.chunk_factor,
            "context_factor": grids.context_factor,
            "max_cached": grids.max_cached,
        },
    }
