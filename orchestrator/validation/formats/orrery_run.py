"""Runs of our own as recordings: the CSV of requests (`orchestrator.observers.files`), with the files beside it.

So two simulations compare, and a simulation is read as what it is compared with is read. Of `NAME-throughput.tsv` comes
the state over time, of `NAME-summary.json` the number of KV blocks; either may be absent.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.bounds import TEXT_BYTES
from foundation.digits import decimal_number, whole_number
from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.files import read_text
from foundation.printable import brief
from orchestrator.observers.files import CLIENT_REQUEST_COLUMNS, REQUEST_COLUMNS, THROUGHPUT_COLUMNS, companions
from orchestrator.validation.formats import WHAT, RecordingFormat, recording_formats
from orchestrator.validation.recording import ARRIVAL, QUEUED, Recording, TimeSeries

KIND = "Orrery"
_INSTANCE = "instance id"
_NO_ITL = "the simulation's CSV has no ITL lists (--itl list writes them)"
_FIX = "give the file as the run left it"
_KEPT = ("request id", "input", "output", "arrival", "queued", "first_token", "end_time")
_HEADERS = tuple(
    (*engine, *columns) for engine in ((), (_INSTANCE,)) for columns in (REQUEST_COLUMNS, CLIENT_REQUEST_COLUMNS)
)


def recognises(head: bytes) -> bool:
    """Whether a file's first line is the header of our requests."""
    return head.partition(b"\n")[0].decode("utf-8", "replace").strip().split(",") in [list(one) for one in _HEADERS]


def read(path: Path) -> Recording:
    """Read a run's requests, and what stands beside them. Raises `UserError`."""
    lines = read_text(path, WHAT, TEXT_BYTES).lstrip().splitlines()
    header = lines[0].strip().split(",")
    places = [header.index(name) for name in _KEPT]
    rows: list[list[int]] = []
    gaps: list[NDArray[np.int64]] = []
    known: set[int] = set()
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            cells, itl = _cells(path, number, line, len(header))
            rows.append(_row(path, number, [cells[place] for place in places]))
            if rows[-1][0] in known:
                raise UserError(f"{rows[-1][0]} occurs twice", path=path, line=number, field=_KEPT[0], fix=_FIX)
            known.add(rows[-1][0])
            gaps.append(_gaps(path, number, itl))
    if not rows:
        raise UserError("the run finished no requests", path=path, fix="name one that did")
    identities, prompts, outputs, arrival, queued, first, end = np.array(rows, dtype=np.int64).T
    whole = all(len(one) == output - 1 for one, output in zip(gaps, outputs.tolist(), strict=True))
    beside = companions(path)
    facts, early = _summary(beside["summary"]) if beside["summary"].is_file() else ({}, ())
    return Recording(
        path,
        KIND,
        identities,
        prompts,
        outputs,
        {ARRIVAL: arrival, QUEUED: queued, "first_token": first, "end": end},
        (ARRIVAL, QUEUED),
        gaps=gaps if whole else None,
        series=read_series(beside["throughput"]) if beside["throughput"].is_file() else None,
        facts=facts,
        notes=(*(() if whole else (_NO_ITL,)), *early),
    )


def _row(path: Path, number: int, cells: Sequence[str]) -> list[int]:
    """Return what is kept of a row; times that go back are a `UserError`."""
    row = [_whole(path, number, name, cell) for name, cell in zip(_KEPT, cells, strict=True)]
    for place in range(_KEPT.index("queued"), len(_KEPT)):
        if row[place] < row[place - 1]:
            what = f"{row[place]} is before {_KEPT[place - 1]}, {row[place - 1]}"
            raise UserError(what, path=path, line=number, field=_KEPT[place], fix=_FIX)
    return row


def _cells(path: Path, number: int, line: str, count: int) -> tuple[Sequence[str], str]:
    """Return the cells of a row before its last, and the last, the list of times between tokens."""
    text, bracket, rest = line.partition(',"[')
    if not bracket:
        text, bracket, rest = line.partition(",[")
    itl = f"[{rest.rstrip().removesuffix(chr(34))}" if bracket else "[]"
    cells = next(csv.reader([text if bracket else text.removesuffix(",")]))
    if len(cells) != count - 1:
        what = f"{len(cells) + 1} columns, the header has {count}"
        raise UserError(what, path=path, line=number, fix=_FIX)
    return cells, itl


def _whole(path: Path, number: int, name: str, text: str) -> int:
    value = whole_number(text)
    if value is None or not 0 <= value < 2**62:
        raise UserError(f"{brief(text)} is not a whole number of at least 0", path=path, line=number, field=name)
    return value


def _gaps(path: Path, number: int, text: str) -> NDArray[np.int64]:
    try:
        values = json.loads(text)
        if not all(type(one) is int and 0 <= one < 2**62 for one in values):
            raise ValueError
    except (ValueError, RecursionError):
        raise UserError("not a list of whole numbers", path=path, line=number, field="ITL") from None
    return np.array(values, dtype=np.int64)


def read_series(path: Path) -> TimeSeries | None:
    """Read throughput over time, None where nothing ran. Raises `UserError`."""
    lines = read_text(path, "time series", TEXT_BYTES).splitlines()
    if not lines or lines[0].split("\t") != list(THROUGHPUT_COLUMNS):
        raise UserError("the header is another", path=path, line=1, fix=_FIX)
    rows = []
    for number, line in enumerate(lines[1:], 2):
        values = [decimal_number(cell) for cell in line.split("\t")]
        if len(values) != len(THROUGHPUT_COLUMNS) or any(value is None for value in values):
            raise UserError("a malformed row", path=path, line=number, fix=_FIX)
        rows.append(values)
    if not rows:
        return None
    time, prompt, generated, running, waiting, kv = np.array(rows, dtype=np.float64).T
    ends = np.rint(time * 1e9).astype(np.int64)
    columns = {"prompt_per_s": prompt, "generation_per_s": generated, "running": running, "waiting": waiting}
    return TimeSeries(ends, int(np.gcd.reduce(ends)), {**columns, "kv_used": kv / 100})


def _summary(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what a summary says of the deployment, and a note where the run ended early."""
    fields = Fields.of(read_json(path, "summary of the run"))
    said = {
        "model": fields.text("model", default=None),
        "device": fields.text("hardware", default=None),
        "KV blocks": fields.integer("kv_blocks", low=0, default=None),
    }
    whole = fields.boolean("complete", default=True)
    fields.finish()
    early = () if whole else ("the simulated run ended early: requests are missing",)
    return {name: str(value) for name, value in said.items() if value is not None}, early


recording_formats.register("orrery")(RecordingFormat("the CSV of a simulated run", recognises, read))
