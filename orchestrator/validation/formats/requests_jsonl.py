"""Recordings of vLLM's own request statistics: `requests.jsonl`, an object a request.

    {"request_id": "bench-0", "input_toks": 2358, "output_toks": 531, "arrival_time": 1787267980.08,
     "queued_ts": 27536.660, "scheduled_ts": 27536.661, "first_token_ts": 27537.350, "last_token_ts": 27554.231}

The names are those of vLLM's `RequestStateStats` (v1/metrics/stats.py, 0.19): `arrival_time` is wall-clock time of the
front end, the others are the engine's monotonic clock, s. The two do not compare, so requests are counted from
``queued``, which is when the engine took them in. Beside it there may stand `timeseries.csv` (``t,prompt_throughput,
gen_throughput,running,waiting,kv_cache_pct``, a row a tick: s from the start, tokens/s, requests, %) and `meta.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.bounds import TEXT_BYTES
from foundation.digits import decimal_number
from foundation.documents import Document, parse_json, read_json
from foundation.errors import UserError, raise_all
from foundation.fields import Fields
from foundation.files import read_text
from foundation.printable import brief
from orchestrator.validation.formats import WHAT, RecordingFormat, recording_formats
from orchestrator.validation.recording import QUEUED, Recording, TimeSeries
from orchestrator.workload import MOST_TOKENS

KIND = "requests.jsonl"
SERIES = ("t", "prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct")
_TIMES = ("queued_ts", "first_token_ts", "last_token_ts")
_LATEST_S = 1e9
_NUMBER = re.compile(r"(\d{1,15})$")
Row = tuple[str, int, int, int, int, int]


def recognises(head: bytes) -> bool:
    """Whether a file begins with a request's statistics."""
    return head.startswith(b"{") and b'"queued_ts"' in head and b'"last_token_ts"' in head


def read(path: Path) -> Recording:
    """Read the requests, and what stands beside them. Raises `UserError`."""
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"the {WHAT} holds no requests", path=path, fix="give a JSON object a line")
    columns = np.array([row[1:] for row in rows], dtype=np.int64).T
    prompts, outputs, queued, first, end = columns
    beside = path.with_name("timeseries.csv"), path.with_name("meta.json")
    return Recording(
        path,
        KIND,
        _positions([row[0] for row in rows], queued),
        prompts,
        outputs,
        {QUEUED: queued, "first_token": first, "end": end},
        (QUEUED,),
        series=read_series(beside[0]) if beside[0].is_file() else None,
        facts=_facts(beside[1]) if beside[1].is_file() else {},
    )


def _rows(path: Path) -> Iterator[Row]:
    problems: list[UserError] = []
    for number, line in enumerate(read_text(path, WHAT).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, WHAT, path).value
        except UserError as error:
            raise UserError(error.what, fix=error.fix, path=path, line=number) from None
        row, wrong = _row(value, number, path)
        problems += wrong
        yield row
    raise_all(problems)


def _row(value: Any, number: int, path: Path) -> tuple[Row, list[UserError]]:
    """Return a request and what is wrong with it."""
    if not isinstance(value, dict):
        raise UserError(f"{brief(value)} is no object", path=path, line=number, fix="give a JSON object a line")
    fields = Fields.of(Document(value, WHAT, path))
    identity = fields.text("request_id", default="")
    prompt, output = (fields.integer(name, low=1, high=MOST_TOKENS) for name in ("input_toks", "output_toks"))
    times = [round(fields.number(name, low=0, high=_LATEST_S) * 1e9) for name in _TIMES]
    for before, after in pairwise(_TIMES):
        if fields.sound(before, after) and value[after] < value[before]:
            fields.problem(f"{value[after]} is before {before}, {value[before]}", after, "give the times in order")
    wrong = [UserError(one.what, fix=one.fix, path=path, line=number, field=one.field) for one in fields.problems]
    queued, first, end = times
    return (identity, prompt, output, queued, first, end), wrong


def _positions(identities: list[str], queued: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places in the workload: the numbers that ids end with, where all differ, else the order of queuing."""
    numbers = [int(found[1]) for one in identities if (found := _NUMBER.search(one))]
    if len(numbers) == len(set(numbers)) == len(identities) and max(numbers) < 10 * len(numbers):
        return np.array(numbers, dtype=np.int64)
    ranks = np.empty(len(queued), dtype=np.int64)
    ranks[np.argsort(queued, kind="stable")] = np.arange(len(queued))
    return ranks


def read_series(path: Path) -> TimeSeries:
    """Read what stands in `timeseries.csv`. Raises `UserError`."""
    lines = read_text(path, "time series", TEXT_BYTES).splitlines()
    if not lines or lines[0].strip().split(",") != list(SERIES):
        raise UserError("the header is another", path=path, line=1, fix=f"write {','.join(SERIES)}")
    rows: list[list[float]] = []
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            rows.append(_numbers(path, number, line.split(",")))
            if len(rows) > 1 and rows[-1][0] <= rows[-2][0]:
                raise UserError(f"{rows[-1][0]:g} does not follow {rows[-2][0]:g}", path=path, line=number, field="t")
    if not rows:
        raise UserError("the time series has no rows", path=path, fix="give rows, or remove the file")
    t, prompt, generated, running, waiting, kv = np.array(rows, dtype=np.float64).T
    ends = np.rint(t * 1e9).astype(np.int64)
    columns = {"prompt_per_s": prompt, "generation_per_s": generated, "running": running, "waiting": waiting}
    return TimeSeries(ends, int(np.median(np.diff(ends, prepend=0))), {**columns, "kv_used": kv / 100})


def _numbers(path: Path, number: int, cells: list[str]) -> list[float]:
    if len(cells) != len(SERIES):
        what = f"{len(cells)} columns, the header has {len(SERIES)}"
        raise UserError(what, path=path, line=number, fix=f"write {','.join(SERIES)}")
    found = []
    for name, cell in zip(SERIES, cells, strict=True):
        value = decimal_number(cell.strip())
        if value is None or not 0 <= value <= _LATEST_S:
            raise UserError(f"{brief(cell)} is not a number of at least 0", path=path, line=number, field=name)
        found.append(float(value))
    return found


def _facts(path: Path) -> dict[str, str]:
    """Return what is said of the server; what is not there is not said."""
    fields = Fields.of(read_json(path, "description of the recording"))
    cache, hardware = fields.object("kv_cache"), fields.object("hardware")
    blocks = cache.integer("num_gpu_blocks", low=2, default=None)
    said = {
        "model": fields.text("model", default=None),
        "vLLM": fields.text("vllm_version", default=None),
        "device": hardware.text("device_name", default=None),
        "KV blocks": None if blocks is None else blocks - 1,  # vLLM counts its null block, which holds nothing
    }
    fields.finish()
    return {name: str(value) for name, value in said.items() if value is not None}


recording_formats.register("requests-jsonl")(
    RecordingFormat("requests.jsonl (vLLM's request statistics)", recognises, read)
)
