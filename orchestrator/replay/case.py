"""A scheduling case: vLLM's settings, a latency formula and requests, read from JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from itertools import chain
from pathlib import Path
from typing import Any

from foundation.bounds import DATA_BYTES
from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import LARGEST, Fields
from foundation.records import dataclass
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.requests.request import Request
from orchestrator.schedulers.acceptance import RecordedAcceptance
from orchestrator.schedulers.speculation import METHODS
from orchestrator.schedulers.vllm.config import POLICIES, VERSIONS, VllmSchedulerConfig

COUNTS = {
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "block_size": "block_size",
    "num_gpu_blocks": "num_gpu_blocks",
    "max_model_len": "max_model_len",
    "long_prefill_token_threshold": "long_prefill_token_threshold",
    "prefix_cache_retention_interval": "prefix_cache_retention_interval",
    "pipeline_parallel_size": "pipeline_stages",
    "num_speculative_tokens": "num_speculative_tokens",
    "max_loras": "max_loras",
}
"""Keys that are whole numbers, and what the settings call them."""
SWITCHES = ("enable_prefix_caching", "enable_chunked_prefill", "async_scheduling", "scheduler_reserve_full_isl")
CHOICES = {
    "policy": ("policy", POLICIES),
    "vllm_version": ("version", VERSIONS),
    "engine_loop": ("engine_loop", VERSIONS),
    "speculative_method": ("speculative_method", METHODS),
}
DESCRIPTIVE = ("name", "description", "tags")
REQUEST_FIELDS = {"id", "arrival", "output_len", "priority", "output_segment", "max_tokens", "abort_at", "lora"}
DRAFT_FIELDS = ("accepted", "proposed")
"""What became of a request's drafts, and how many were found: entry `p` modulo the length, `p` tokens being known."""
PROMPTS = ("prompt_token_ids", "prompt_segments", "prompt_len")
LATEST_US = 2**53
MOST_TOKEN_IDS = 2**23
"""Token ids of all prompts and answers of a case, so that they fit into memory."""
MOST_STEPS = 2**20
"""Steps that a replay may take: each is kept until all are printed."""
RECORDED_LOOP = "0.19"
"""The version whose engine asked the scheduler, of whichever version, in recordings that do not say."""
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
    groups: tuple[LayerGroup, ...] = (FULL,)
    acceptance: RecordedAcceptance = field(default_factory=lambda: RecordedAcceptance({}, {}))


def read_case(path: Path, version: str) -> Case:
    """Read a case; whatever is missing, unknown or wrong is a `UserError` that names each field."""
    fields = Fields.of(read_json(path, "case", DATA_BYTES))
    fields.only({*COUNTS, *SWITCHES, *CHOICES, *DESCRIPTIVE, "latency_model", "requests", "kv_cache_groups"})
    settings = _settings(fields)
    latency = _latency(fields.object("latency_model"))
    groups = _groups(fields)
    if not fields.has("requests"):
        fields.problem("requests is missing", fix="give a list of them")
    reader = _Requests(int(settings.get("max_model_len") or 0))
    requests = reader.read(fields)
    fields.finish()
    try:
        config = VllmSchedulerConfig(**{"version": version, "engine_loop": RECORDED_LOOP, **settings})
    except UserError as error:
        written = {own: name for name, own in COUNTS.items()} | {own: name for name, (own, _) in CHOICES.items()}
        field = written.get(error.field or "", error.field)
        line = fields.document.line((field,)) if field else None
        raise UserError(error.what, path=path, line=line, field=field, fix=error.fix) from error
    _check_length(config, requests, path)
    return Case(config, latency, requests, groups, reader.acceptance)


def _check_length(config: VllmSchedulerConfig, requests: Sequence[Request], path: Path) -> None:
    """Refuse a case that may take more steps than can be kept: one a token of an answer, one a chunk of a prompt."""
    chunk = min(config.max_num_batched_tokens, config.long_prefill_token_threshold or config.max_num_batched_tokens)
    steps = sum(one.output_tokens + -(-one.prompt_tokens // chunk) for one in requests)
    if steps > MOST_STEPS:
        what = f"the requests ask for up to {steps} steps, but {MOST_STEPS} can be kept"
        raise UserError(what, path=path, field="requests", fix="give shorter answers, or fewer requests")


def _settings(fields: Fields) -> dict[str, Any]:
    """Return what is given of the scheduler's settings; a null of theirs is one that vLLM gives a meaning."""
    found: dict[str, Any] = {}
    for name, own in COUNTS.items():
        if fields.has(name) or name in ("num_gpu_blocks", "max_model_len"):
            found[own] = fields.integer(name, low=0, high=LARGEST)
        elif name in fields.values:
            found[own] = None
    found |= {name: fields.boolean(name) for name in SWITCHES if fields.has(name)}
    found |= {own: fields.choice(name, known) for name, (own, known) in CHOICES.items() if fields.has(name)}
    return found


def _groups(fields: Fields) -> tuple[LayerGroup, ...]:
    """Read the groups of layers: ``{"kind": "full"}`` or ``{"kind": "sliding_window", "sliding_window": tokens}``."""
    if not fields.has("kv_cache_groups"):
        return (FULL,)
    groups = fields.objects("kv_cache_groups")
    if not groups:
        fields.problem("there is no group of layers", "kv_cache_groups")
    return tuple(map(_group, groups))


def _group(fields: Fields) -> LayerGroup:
    windowed = fields.choice("kind", ("full", "sliding_window")) == "sliding_window"
    fields.only({"kind", "sliding_window"} if windowed else {"kind"})
    return LayerGroup(fields.positive_int("sliding_window")) if windowed else FULL


def _latency(fields: Fields) -> LatencyModel:
    names = ("a_us", "b_us_per_token", "c_us_per_kv_token")
    fields.only(names)
    return LatencyModel(*(round(1000 * fields.number(name, low=0.0, high=1e9)) for name in names))


class _Requests:
    """Reads the requests of a case; token ids of a prompt that is too long to be served are not made."""

    def __init__(self, max_model_len: int) -> None:
        self._max_model_len = max_model_len
        self._token_ids = 0
        self.acceptance = RecordedAcceptance({}, {})

    def read(self, fields: Fields) -> tuple[Request, ...]:
        """Return the requests in file order, ids counting from 0."""
        rows = fields.objects("requests")
        requests = tuple(self._request(row, index) for index, row in enumerate(rows))
        seen: set[str] = set()
        for request in requests:
            if request.name in seen:
                fields.problem(f"id {request.name!r} occurs twice", "requests")
            seen.add(request.name)
        return requests

    def _request(self, row: Fields, index: int) -> Request:
        row.only(REQUEST_FIELDS | {*PROMPTS, *DRAFT_FIELDS})
        for counts, kind in zip((self.acceptance.counts, self.acceptance.found), DRAFT_FIELDS, strict=True):
            if row.has(kind):
                counts[index] = row.integers(kind, low=0, high=LARGEST)
        prompt, ids = self._prompt(row)
        output = row.positive_int("output_len")
        segment = row.integer("output_segment", low=0, high=LARGEST, default=None)
        known = segment is not None and self._affords(row, output)
        abort_us = row.integer("abort_at", low=0, high=LATEST_US, default=None)
        adapter = row.integer("lora", low=1, high=LARGEST, default=None)
        name = row.values.get("id")
        if not isinstance(name, str | int) or isinstance(name, bool):
            row.wrong("id", "a name") if "id" in row.values else row.problem("id is missing", fix="give a name")
        return Request(
            id=index,
            arrival_ns=row.integer("arrival", low=0, high=LATEST_US) * 1000,
            prompt_tokens=prompt,
            output_tokens=output,
            name=str(name),
            priority=row.integer("priority", default=0),
            prompt_token_ids=ids,
            output_token_ids=_segment(segment, output) if known and segment is not None else None,
            max_tokens=row.integer("max_tokens", low=0, high=LARGEST, default=0),
            abort_ns=None if abort_us is None else abort_us * 1000,
            adapter=None if adapter is None else str(adapter),
        )

    def _prompt(self, row: Fields) -> tuple[int, list[int] | None]:
        """Return the prompt's length, and its token ids where they are given."""
        kind = row.one_of(*PROMPTS)
        if kind == "prompt_len":
            return row.positive_int("prompt_len"), None
        if kind == "prompt_token_ids":
            given = list(row.integers(kind))
            return (len(given), given) if self._affords(row, len(given)) else (1, None)
        segments = row.values.get(kind)
        if not isinstance(segments, list) or not segments or not all(map(_is_segment, segments)):
            row.wrong(kind, "a list of [segment, tokens], whole numbers")
            return 1, None
        tokens = sum(count for _, count in segments)
        if tokens > LARGEST:
            row.problem(f"{tokens} tokens are more than any prompt has", kind, f"at most {LARGEST}")
        elif tokens < self._max_model_len and self._affords(row, tokens):
            return tokens, list(chain.from_iterable(_segment(segment, count) for segment, count in segments))
        return min(tokens, LARGEST), None

    def _affords(self, row: Fields, tokens: int) -> bool:
        """Count token ids; those that are too many are a problem, told once."""
        before, self._token_ids = self._token_ids, self._token_ids + tokens
        if before <= MOST_TOKEN_IDS < self._token_ids:
            row.problem(f"the requests up to this one have more than {MOST_TOKEN_IDS} token ids", fix="give lengths")
        return self._token_ids <= MOST_TOKEN_IDS


def _is_segment(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(type(number) is int and 0 <= number <= LARGEST for number in item)
        and item[1] > 0
    )


def _segment(segment: int, count: int) -> list[int]:
    return list(range(segment * SEGMENT_STRIDE, segment * SEGMENT_STRIDE + count))
