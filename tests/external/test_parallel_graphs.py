"""Graphs of every parallelism on the embedded backend, and, where one is configured, equal on a real ASTRA-sim."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from parallel_graphs import TRACES, graph
from small_graphs import MEMORY

from analytical.embedded import create
from converters.chakra import read_graph, write_graph
from converters.lowering import lower
from external.astra_sim.factories import create_process

BINARY = os.environ.get("ORRERY_ASTRA_SIM", "")
WAYS = pytest.mark.parametrize("dimensions", [False, True])
NAMES = pytest.mark.parametrize("name", TRACES)


def files(sizes: tuple[int, ...]) -> dict[str, str]:
    count = len(sizes)
    network = {
        "topology": ["FullyConnected"] * count,
        "npus_count": list(sizes),
        "bandwidth": [50.0] * count,
        "latency": [500.0] * count,
    }
    system = {
        "scheduling-policy": "LIFO",
        "collective-optimization": "localBWAware",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 4,
        "local-mem-bw": 1600,
        "roofline-enabled": 1,
        "peak-perf": 1,
    }
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    system |= {f"{kind}-implementation": ["ring"] * count for kind in kinds}
    return {"network": json.dumps(network), "system": json.dumps(system), "memory": MEMORY}


@NAMES
@WAYS
def test_every_rank_finishes_after_its_own_work(name: str, dimensions: bool, tmp_path: Path) -> None:
    found, sizes = graph(name, dimensions=dimensions)
    times = create(**files(sizes), options={}).simulate(found).by_rank()
    trace = TRACES[name][0]()
    for rank, (finish, exposed) in times.items():
        own = [index for index, ranks in enumerate(trace.rank_sets) if rank in ranks]
        works = int(trace.latency_ns[0, [row for row in range(trace.rows) if trace.rank_set[row] in own]].sum())
        assert finish >= works and 0 <= exposed <= finish - works
    assert sorted(times) == list(range(found.num_ranks))
    write_graph(found, tmp_path / "g", 0)
    assert create(**files(sizes), options={}).simulate(read_graph(tmp_path / "g")).by_rank() == times


def test_sub_batches_overlap() -> None:
    """Together they take less than one after the other, for one computes while the other communicates."""
    make, sizes = TRACES["two sub-batches"]
    trace = make()
    backend = create(**files(sizes), options={})
    (together,) = {finish for finish, _ in backend.simulate(lower(trace)).by_rank().values()}
    works = [int(trace.latency_ns[0, trace.sub_batch == number].sum()) for number in (0, 1)]
    assert together >= sum(works)
    (exposed,) = {exposed for _, exposed in backend.simulate(lower(trace)).by_rank().values()}
    assert exposed == together - sum(works)


@pytest.mark.external
@pytest.mark.skipif(not BINARY, reason="ORRERY_ASTRA_SIM names no ASTRA-sim binary")
@NAMES
@WAYS
def test_the_real_binary_gives_the_same_cycles(name: str, dimensions: bool) -> None:
    found, sizes = graph(name, dimensions=dimensions)
    ours = create(**files(sizes), options={}).simulate(found)
    options = {"astra_sim": BINARY, "no_cache": "1", "backend_timeout": "60"}
    used = create_process(**files(sizes), options=options)
    theirs = used.simulate(found)
    used.close()
    assert theirs.by_rank() == ours.by_rank()
