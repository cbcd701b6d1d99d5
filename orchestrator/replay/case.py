"""A scheduling case: vLLM's settings, a latency formula and requests, read from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from foundation.errors import UserError, near_names
from foundation.files import read_text
from orchestrator.request import Request
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig

SETTINGS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "block_size",
    "num_gpu_blocks",
    "max_model_len",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "long_prefill_token_threshold",
    "policy",
    "async_scheduling",
    "scheduler_reserve_full_isl",
)
DESCRIPTIVE = ("name", "description", "tags")
REQUEST_FIELDS = (
    "id",
    "arrival",
    "output_len",
    "priority",
    "prompt_len",
    "prompt_segments",
    "prompt_token_ids",
    "output_segment",
)
SEGMENT_STRIDE = 1_000_000
"""Token ids of segment `s` start at this multiple of `s`."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Step time in microseconds from nanoseconds a step, a scheduled token and a token of KV cache."""

    step_ns: int
    token_ns: int
    kv_token_ns: int

    def step_us(self, tokens: int, kv_tokens: int) -> int:
        """Return the time of a step; one that computes nothing takes none."""
        if tokens == 0:
            return 0
        return (self.step_ns + self.token_ns * tokens + self.kv_token_ns * kv_tokens) // 1000


@dataclass(frozen=True, slots=True)
class Case:
    """A case as read: `requests` in file order, their names the case's ids."""

    config: VllmSchedulerConfig
    latency: LatencyModel
    requests: tuple[Request, ...]


def read_case(path: Path, version: str) -> Case:
    """Read a case; what is missing, unknown or not a number is a `UserError` naming the field."""
    document = parse_json(read_text(path, "case"), path)
    known = {*SETTINGS, *DESCRIPTIVE, "latency_model", "requests"}
    _check_keys(document, known, {"num_gpu_blocks", "max_model_len", "latency_model", "requests"}, path, "")
    settings = {name: document[name] for name in SETTINGS if name in document}
    try:
        config = VllmSchedulerConfig(version=version, **settings)
    except UserError as error:
        raise UserError(error.what, path=path, field=error.field, fix=error.fix) from error
    if not isinstance(document["requests"], list):
        raise UserError("not a list", path=path, field="requests")
    requests = tuple(_request(row, index, path) for index, row in enumerate(document["requests"]))
    names = [request.name for request in requests]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"id {twice!r} occurs twice", path=path, field="requests")
    return Case(config, _latency(document["latency_model"], path), requests)


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in `text`; anything else is a `UserError` with its line."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error.msg}", path=path, line=error.lineno) from None
    if not isinstance(document, dict):
        raise UserError("not a JSON object", path=path)
    return document


def _latency(row: Any, path: Path) -> LatencyModel:
    names = ("a_us", "b_us_per_token", "c_us_per_kv_token")
    _check_keys(row, set(names), set(names), path, "latency_model.")
    values = []
    for name in names:
        if not isinstance(row[name], int | float) or row[name] < 0:
            raise UserError(f"{row[name]!r} is not a time in microseconds", path=path, field=f"latency_model.{name}")
        values.append(round(1000 * row[name]))
    return LatencyModel(*values)


def _request(row: Any, index: int, path: Path) -> Request:
    where = f"requests[{index}]."
    _check_keys(row, set(REQUEST_FIELDS), {"id", "arrival", "output_len"}, path, where)
    for name in ("arrival", "output_len", "priority", "prompt_len", "output_segment"):
        if name in row and (isinstance(row[name], bool) or not isinstance(row[name], int)):
            raise UserError(f"{row[name]!r} is not a whole number", path=path, field=where + name)
    given = [name for name in _PROMPTS if name in row]
    if len(given) != 1:
        raise UserError(f"a request has one of {', '.join(_PROMPTS)}", path=path, field=where.rstrip("."))
    try:
        tokens, ids = _PROMPTS[given[0]](row[given[0]])
    except (TypeError, ValueError):
        raise UserError(f"{row[given[0]]!r} is not a prompt", path=path, field=where + given[0]) from None
    output = None
    if "output_segment" in row and row["output_segment"] is not None:
        output = _segment(row["output_segment"], row["output_len"])
    return Request(
        id=index,
        arrival_ns=row["arrival"] * 1000,
        prompt_tokens=tokens,
        output_tokens=row["output_len"],
        name=str(row["id"]),
        priority=row.get("priority", 0),
        prompt_token_ids=ids,
        output_token_ids=output,
    )


def _from_ids(ids: list[int]) -> tuple[int, list[int] | None]:
    if not all(type(token) is int for token in ids):
        raise TypeError
    return len(ids), ids


def _from_segments(segments: list[list[int]]) -> tuple[int, list[int] | None]:
    ids = list(chain.from_iterable(_segment(segment, count) for segment, count in segments))
    return len(ids), ids


def _from_length(length: int) -> tuple[int, list[int] | None]:
    return length, None


_PROMPTS: dict[str, Callable[[Any], tuple[int, list[int] | None]]] = {
    "prompt_token_ids": _from_ids,
    "prompt_segments": _from_segments,
    "prompt_len": _from_length,
}


def _segment(segment: int, count: int) -> list[int]:
    return list(range(segment * SEGMENT_STRIDE, segment * SEGMENT_STRIDE + count))


def _check_keys(row: Any, known: set[str], needed: set[str], path: Path, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError("not a JSON object", path=path, field=where.rstrip(".") or None)
    for name in row:
        if name not in known:
            raise UserError(f"unknown key {name!r}", path=path, field=where + name, fix=near_names(name, known))
    for name in needed:
        if name not in row:
            raise UserError("the key is missing", path=path, field=where + name)
