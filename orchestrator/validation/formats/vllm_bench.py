"""What `vllm bench serve --save-result --save-detailed` writes: one JSON object, per-request lists among its keys.

After vllm/benchmarks/serve.py and vllm/benchmarks/lib/endpoint_request_func.py: `input_lens`, `output_lens`, `ttfts`
(s from when the client sent), `itls` (lists of s between chunks of an answer), `errors`, in the order of the workload.
``--save-detailed`` is what keeps them. Later versions (0.19 among them) add `start_times` (s, the client's monotonic
clock), and later ones `latencies`; where these are absent a latency is the TTFT and all ITLs after it, which is how the
client works it out, and throughput is over `duration`. A chunk may bring several tokens, so that ITLs are of chunks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.bounds import DATA_BYTES
from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import Fields
from orchestrator.validation.formats import WHAT, RecordingFormat, recording_formats
from orchestrator.validation.recording import ARRIVAL, Recording
from orchestrator.workload import MOST_TOKENS

KIND = "vllm bench serve"
PER_REQUEST = ("input_lens", "output_lens", "ttfts", "itls", "errors")
_FIX = "run vllm bench serve with --save-result --save-detailed"
_LATEST_S = 1e9
_MARKS = (b'"request_throughput"', b'"tokenizer_id"', b'"endpoint_type"', b'"ttfts"', b'"mean_ttft_ms"')


def recognises(head: bytes) -> bool:
    """Whether a file begins as the benchmark's result does."""
    return head.startswith(b"{") and any(mark in head for mark in _MARKS)


def read(path: Path) -> Recording:
    """Read the requests that were answered; those that failed are noted. Raises `UserError`."""
    fields = Fields.of(read_json(path, WHAT, DATA_BYTES))
    missing = [name for name in PER_REQUEST if not fields.has(name)]
    if missing:
        raise UserError(f"per-request data is missing: {', '.join(missing)}", path=path, fix=_FIX)
    prompts, outputs = (fields.integers(name, low=0, high=MOST_TOKENS) for name in ("input_lens", "output_lens"))
    ttfts, starts = (_ns(fields, name) for name in ("ttfts", "start_times"))
    gaps = [_gaps(fields, row, one) for row, one in enumerate(fields.items("itls"))]
    errors = fields.items("errors")
    latencies = _ns(fields, "latencies")
    duration = fields.positive_number("duration", default=None)
    fields.finish()
    columns: dict[str, Any] = {"output_lens": outputs, "ttfts": ttfts, "itls": gaps, "errors": errors}
    columns |= {
        name: found for name, found in {"start_times": starts, "latencies": latencies}.items() if fields.has(name)
    }
    for name, column in columns.items():
        if len(column) != len(prompts):
            fields.problem(f"{len(column)} entries, input_lens has {len(prompts)}", name, "give one a request")
    fields.finish()
    answered = np.array(
        [not error and output > 0 for error, output in zip(errors, outputs, strict=True)], dtype=np.bool_
    )
    if not answered.any():
        raise UserError(f"none of the {len(prompts)} requests was answered", path=path, fix="see its errors")
    begin = starts - starts.min() if "start_times" in columns else np.zeros(len(prompts), dtype=np.int64)
    whole = latencies if "latencies" in columns else ttfts + np.array([int(one.sum()) for one in gaps], dtype=np.int64)
    rows = np.flatnonzero(answered)
    return Recording(
        path,
        KIND,
        rows,
        np.array(prompts, dtype=np.int64)[rows],
        np.array(outputs, dtype=np.int64)[rows],
        {ARRIVAL: begin[rows], "first_token": (begin + ttfts)[rows], "end": (begin + whole)[rows]},
        (ARRIVAL,),
        one_clock="start_times" in columns,
        gaps=[gaps[row] for row in rows.tolist()],
        duration_ns=None if duration is None else round(duration * 1e9),
        notes=_notes(answered, outputs, gaps),
    )


def _ns(fields: Fields, name: str) -> NDArray[np.int64]:
    return np.rint(np.array(fields.numbers(name, low=0, high=_LATEST_S)) * 1e9).astype(np.int64)


def _gaps(fields: Fields, row: int, values: Any) -> NDArray[np.int64]:
    """Return a request's times between chunks in ns; what is no list of them is a problem of `fields`."""
    numbers = isinstance(values, list) and all(type(one) in (int, float) and 0 <= one <= _LATEST_S for one in values)
    if not numbers:
        fields.problem(f"entry {row} is no list of times of at least 0", "itls", "give s between its tokens")
        return np.zeros(0, dtype=np.int64)
    return np.rint(np.array(values, dtype=np.float64) * 1e9).astype(np.int64)


def _notes(answered: NDArray[np.bool_], outputs: tuple[int, ...], gaps: list[NDArray[np.int64]]) -> tuple[str, ...]:
    notes = []
    failed = int((~answered).sum())
    if failed:
        notes.append(f"{failed} of {len(answered)} requests failed when they were recorded, and are left out")
    bundled = sum(len(one) != output - 1 for one, output, fine in zip(gaps, outputs, answered, strict=True) if fine)
    if bundled:
        notes.append(f"of {bundled} recorded requests some chunks brought several tokens: their ITL is of chunks")
    return tuple(notes)


recording_formats.register("vllm-bench")(
    RecordingFormat("JSON of vllm bench serve --save-result --save-detailed", recognises, read)
)
