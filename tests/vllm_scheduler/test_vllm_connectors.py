"""Steps with KV cache that comes from elsewhere, as vLLM 0.19.0's own Scheduler and AsyncScheduler decided them.

Recorded with a connector that offers each request so many tokens, at once or after a while, and keeps the blocks of
some that are done. A pass looks what has come when it is launched, as vLLM's worker does.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.clock import Told
from orchestrator.engine.records import Aborted, CompletedBatch
from orchestrator.replay.case import Case, read_case
from orchestrator.replay.run import FormulaPricing
from orchestrator.requests.request import Request
from tests.vllm_scheduler.elsewhere import Elsewhere, Remote, serve

FILES = sorted((Path(__file__).parent / "connectors").glob("*.jsonl"))
OWN = ("elsewhere", "kept_us")


def recorded(path: Path, folder: Path) -> Iterator[tuple[Case, Elsewhere, dict[str, Any]]]:
    """Yield the cases of a file, what each request may fetch, and what vLLM did."""
    for line in path.read_text().splitlines():
        document = json.loads(line)
        rows = document["case"]["requests"]
        elsewhere = Elsewhere(
            {index: remote(row["elsewhere"]) for index, row in enumerate(rows) if "elsewhere" in row},
            {index: row["kept_us"] * 1000 for index, row in enumerate(rows) if "kept_us" in row},
        )
        plain = [{key: value for key, value in row.items() if key not in OWN} for row in rows]
        place = folder / "case.json"
        place.write_text(json.dumps(document["case"] | {"requests": plain}))
        yield read_case(place, "0.19"), elsewhere, document["expected"]


def remote(row: dict[str, Any]) -> Remote:
    return Remote(row["tokens"], row["async"], row["takes_us"] * 1000, row["once"])


def rows_of_steps(told: Sequence[Told]) -> list[list[Any]]:
    """Return a row a step that computed, preempted or fetched something, in order of decisions."""
    rows: dict[int, list[Any]] = {}
    for record in told:
        if not isinstance(record, CompletedBatch) or (batch := record.batch).steps > 1:
            continue
        if not (batch.requests or batch.preempted or batch.fetches):
            continue
        names = [request.name for request in batch.requests]
        rows[int(record.serials[0])] = [
            record.decided_ns // 1000,
            (record.end_ns - record.start_ns) // 1000 if names else 0,
            dict(zip(names, batch.new_tokens.tolist(), strict=True)),
            sorted([request.name, hit] for request, hit in batch.admitted),
            sorted(request.name for request in batch.preempted),
            {f"r{fetch.request_id}": fetch.tokens for fetch in batch.fetches},
            record.usages.last.free_blocks,
            [request.name for request in record.outcome.finished],
            [record.after.free_blocks, record.after.running, record.after.waiting],
        ]
    return [rows[serial] for serial in sorted(rows)]


def rows_of_requests(told: Sequence[Told], requests: Sequence[Request]) -> list[list[Any]]:
    """Return (name, first token us, end us, tokens, status) of each request."""
    first: dict[str, int] = {}
    tokens: Counter[str] = Counter()
    ends: dict[str, tuple[int, str]] = {}
    for record in told:
        if isinstance(record, Aborted):
            ends[record.request.name] = record.now // 1000, "aborted"
        if isinstance(record, CompletedBatch):
            for request, count in record.outcome.each():
                first.setdefault(request.name, int(record.ends_ns[0]) // 1000)
                tokens[request.name] += count * record.batch.steps
            ends |= {request.name: (record.end_ns // 1000, "length") for request in record.outcome.finished}
    found = ((one.name, ends.get(one.name, (None, "unfinished"))) for one in requests)
    return [[name, first.get(name), end, tokens[name], status] for name, (end, status) in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_decisions_are_those_of_vllm(path: Path, tmp_path: Path) -> None:
    cases = fetched = 0
    for case, elsewhere, expected in recorded(path, tmp_path):
        told = serve(case.config, elsewhere, case.requests, FormulaPricing(case.latency, 1), max_steps=1)
        steps = rows_of_steps(told)
        for step, (found, wanted) in enumerate(zip(steps, expected["steps"], strict=False)):
            assert found == wanted, f"case {cases}, step {step}"
        assert len(steps) == len(expected["steps"])
        assert rows_of_requests(told, case.requests) == expected["requests"]
        cases += 1
        fetched += len(elsewhere.fetches)
    assert cases >= 20
    assert fetched >= cases


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stretches_change_nothing(path: Path, tmp_path: Path) -> None:
    """What comes from elsewhere cuts a stretch like an arrival does."""
    for case, elsewhere, expected in recorded(path, tmp_path):
        told = serve(case.config, elsewhere, case.requests, FormulaPricing(case.latency, 1))
        assert rows_of_requests(told, case.requests) == expected["requests"]
