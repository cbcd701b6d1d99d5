"""Every step of recorded runs: those kept here, decided by vLLM's own classes, and larger collections where present.

A replay is a whole simulation: the clock, engine and scheduler of the main job, with a formula for step times.
"""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.kv_memory.groups import FULL
from orchestrator.replay.case import Case, read_case
from orchestrator.replay.compare import first_difference
from orchestrator.replay.run import STEP_COLUMNS, FormulaPricing, replay
from orchestrator.requests.admission import Admission
from orchestrator.schedulers.speculation import METHODS
from orchestrator.schedulers.vllm import VllmScheduler

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("ORRERY_SHARED", HERE.parents[2] / "shared"))
CORPORA = [SHARED / "corpus" / "vllm_scheduler", SHARED / "corpus" / "vllm_scheduler_2"]
FREE_AFTER_UPDATE = STEP_COLUMNS.index("free_blocks_after_update")
FILES = sorted((HERE / "recordings").glob("*.jsonl"))
NOT_RECORDED = ("end_us",)
"""vLLM's clock stands still somewhere else when nothing goes on; and aborts that come after all is done move it."""


@dataclass(frozen=True)
class Recording:
    """A case, and what vLLM decided."""

    name: str
    case: dict[str, Any]
    expected: dict[str, Any]

    def read(self, folder: Path, **change: Any) -> Case:
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.case | change))
        return read_case(path, "0.19")


def recordings(path: Path) -> Iterator[Recording]:
    """Yield the recordings of a file, one a line."""
    for line in path.read_text().splitlines():
        document = json.loads(line)
        yield Recording(document["case"]["name"], document["case"], document["expected"])


def difference(expected: dict[str, Any], case: Case) -> str | None:
    actual = replay(case)
    columns = {key: actual[key] for key in ("step_columns", "request_columns")}
    known = {key: value for key, value in expected.items() if key not in NOT_RECORDED}
    return first_difference(columns | known, actual)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_decisions_are_those_of_vllm(path: Path, tmp_path: Path) -> None:
    found = {one.name: difference(one.expected, one.read(tmp_path)) for one in recordings(path)}
    assert len(found) >= 5
    assert {name: what for name, what in found.items() if what is not None} == {}


def test_there_are_recordings_of_all_that_versions_do_otherwise() -> None:
    every = [one for path in FILES for one in recordings(path)]
    versions = [one.case.get("vllm_version", "0.19") for one in every]
    assert min(versions.count("0.19"), versions.count("0.33")) > 100
    assert sum(one.case.get("pipeline_parallel_size", 1) > 1 for one in every) > 80
    assert sum(bool(one.expected.get("aborts")) for one in every) > 30
    assert sum("sliding_window" in json.dumps(one.case.get("kv_cache_groups")) for one in every) > 50
    drafting = [one.case["speculative_method"] for one in every if "speculative_method" in one.case]
    assert min(drafting.count(method) for method in METHODS) > 20
    assert sum("max_loras" in one.case for one in every) > 80


@pytest.mark.parametrize("name", ["0.33_ahead", "0.33_step", "0.33_alone"])
def test_the_versions_differ_where_they_should(name: str, tmp_path: Path) -> None:
    differing = [one for one in recordings(HERE / "recordings" / "earlier.jsonl") if one.name.startswith(name)]
    assert differing
    for one in differing:
        assert difference(one.expected, one.read(tmp_path, vllm_version="0.19")) is not None


@dataclass
class Life:
    """What a client sees of a request (us)."""

    first_token: int | None = None
    finish: int | None = None
    preemptions: int = 0
    output: int = 0


def lives(case: Case, max_steps: int) -> tuple[list[tuple[Any, ...]], int]:
    """Return what clients see, as recorded, and the batches, with up to `max_steps` iterations at once."""
    scheduler = VllmScheduler(case.config, case.groups, case.acceptance)
    engine = Engine(scheduler, FormulaPricing(case.latency, case.config.pipeline_stages), max_steps=max_steps)
    seen = {request.id: Life() for request in case.requests}
    ordered = sorted(case.requests, key=lambda request: request.arrival_ns)
    batches = 0
    for told in Cluster([engine], RoundRobin(), Listed(map(Admission, ordered))).run():
        if not isinstance(told, CompletedBatch):
            continue
        batches += 1
        for request in told.batch.preempted:
            seen[request.id].preemptions += 1
        for request, tokens in told.outcome.each():
            life = seen[request.id]
            life.output += tokens * len(told.ends_ns)
            life.first_token = int(told.ends_ns[0]) // 1000 if life.first_token is None else life.first_token
        for request in told.outcome.finished:
            seen[request.id].finish = told.end_ns // 1000
    rows = [(r.name, (s := seen[r.id]).first_token, s.finish, s.preemptions, s.output) for r in case.requests]
    return rows, batches


def test_whole_runs_with_many_iterations_at_once_are_as_recorded(tmp_path: Path) -> None:
    compared = saved = 0
    for path in FILES:
        for one in recordings(path):
            if one.expected.get("stalled", one.name == "0.19_step_fcfs_05"):
                continue
            case = one.read(tmp_path)
            rows, batches = lives(case, max_steps=512)
            recorded = [
                (name, first, finish if status == "length" else None, preemptions, output)
                for name, first, finish, preemptions, _, output, status in one.expected["requests"]
            ]
            assert rows == recorded, one.name
            compared += 1
            saved += batches < len(one.expected["steps"])
    assert compared > 290
    assert saved > 140


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda path: path.name)
def test_decisions_are_those_of_the_corpus(corpus: Path) -> None:
    if not corpus.is_dir():
        pytest.skip(f"no recorded corpus at {corpus} (set ORRERY_SHARED)")
    compared = 0
    for folder in sorted(path for path in corpus.iterdir() if path.is_dir()):
        plain = folder / "expected.json"
        text = plain.read_bytes() if plain.exists() else gzip.decompress((folder / "expected.json.gz").read_bytes())
        assert difference(json.loads(text), read_case(folder / "case.json", "0.19")) is None, folder.name
        compared += 1
    assert compared >= 30


def test_windows_free_what_vllm_frees(tmp_path: Path) -> None:
    """Three prompts of 256, a window of 64, 40 blocks of 16: at most five blocks a request stay while it decodes."""
    requests = [{"id": str(n), "arrival": 0, "prompt_len": 256, "output_len": 40} for n in range(3)]
    case = Recording(
        "window",
        {
            "num_gpu_blocks": 41,
            "max_model_len": 512,
            "max_num_batched_tokens": 256,
            "max_num_seqs": 8,
            "async_scheduling": False,
            "kv_cache_groups": [{"kind": "sliding_window", "sliding_window": 64}],
            "latency_model": {"a_us": 1000, "b_us_per_token": 0, "c_us_per_kv_token": 0},
            "requests": requests,
        },
        {},
    ).read(tmp_path)
    windowed, full = (replay(replace(case, groups=groups))["steps"] for groups in (case.groups, (FULL,)))
    decodes = [step for step in windowed if list(step[2].values()) == [1, 1, 1]]
    assert len(decodes) >= 36
    assert min(step[FREE_AFTER_UPDATE] for step in decodes) == 25
    assert min(step[FREE_AFTER_UPDATE] for step in full) == 40 - 2 * 19, "two prompts fill the memory, the third waits"
