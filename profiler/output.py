"""Writes what was measured as `--profile_dir` and `--perf_table` read it, each file whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundation.files import atomic_write
from profiler.device import Timing
from profiler.plan import Table
from profiler.work import Work

META, KERNELS = "meta.yaml", "kernels.csv"


def write_tables(folder: Path, tables: Sequence[Table], known: Mapping[Work, Timing]) -> None:
    """Write every table into `folder`; `known` has the timing of all their work."""
    for table in tables:
        with atomic_write(folder / table.path) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(table.columns.split(","))
            writer.writerows([*cells, _time(known[work].ns, in_ns=table.in_ns)] for cells, work in table.rows)


def write_kernels(folder: Path, wanted: Sequence[Work], known: Mapping[Work, Timing]) -> None:
    """Write which kernels were timed, as far as their names were asked."""
    with atomic_write(folder / KERNELS) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["kernel", "shape", "sizes", "time_us", "names"])
        for work in wanted:
            timing = known[work]
            if timing.kernels:
                shape, sizes = ("x".join(map(str, numbers)) for numbers in (work.kernel.shape, work.sizes))
                names = "; ".join(timing.kernels)
                writer.writerow([work.kernel.name, shape, sizes, _time(timing.ns, in_ns=False), names])


def write_meta(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``meta.yaml``, by which the folder is recognised: the last file, when all others are there."""
    with atomic_write(folder / META) as stream:
        yaml.safe_dump(dict(facts), stream, sort_keys=False, allow_unicode=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON."""
    with atomic_write(path) as stream:
        stream.write(f"{json.dumps(content, indent=1)}\n")


def _time(ns: float, *, in_ns: bool) -> str:
    return str(max(1, round(ns))) if in_ns else f"{ns / 1e3:.6g}"
