"""An unmodified ASTRA-sim binary against the embedded backend: random graphs, and whole runs of every kind.

ORRERY_ASTRA_SIM names the binary (AstraSim_Analytical_Congestion_Unaware).
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import MEMORY, collective, compute, load, network, rank_graph, receive, send, system
from stand_ins import ROOT

from analytical.embedded import create
from converters.execution_graph import ExecutionGraph
from external.astra_sim.factories import create_process
from foundation.errors import SimulationError

BINARY = os.environ.get("ORRERY_ASTRA_SIM", "")
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not BINARY, reason="ORRERY_ASTRA_SIM names no ASTRA-sim binary"),
]


def compare(graph: ExecutionGraph, files: dict[str, str]) -> bool:
    """Simulate on both; False where the embedded backend refuses the graph."""
    try:
        ours = create(**files, options={}).simulate(graph)
    except SimulationError:
        return False
    used = create_process(**files, options={"astra_sim": BINARY, "no_cache": "1", "backend_timeout": "20"})
    theirs = used.simulate(graph)
    used.close()
    assert theirs.by_rank() == ours.by_rank()
    return True


STEPS = st.lists(
    st.one_of(
        st.builds(compute, st.integers(1, 5000)),
        st.builds(load, st.integers(1, 1 << 20)),
        st.builds(collective, st.sampled_from([0, 2, 6, 7]), st.integers(64, 1 << 20)),
        st.just({"transfer": True}),
    ),
    min_size=1,
    max_size=8,
)


@given(
    steps=STEPS,
    npus=st.integers(2, 5),
    topology=st.sampled_from(["Ring", "FullyConnected", "Switch"]),
    latency=st.sampled_from([0.0, 500.0]),
    algorithm=st.sampled_from(["ring", "direct"]),
    splits=st.integers(1, 3),
    group=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_graphs(
    steps: list, npus: int, topology: str, latency: float, algorithm: str, splits: int, group: bool
) -> None:
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    changes: dict[str, Any] = {f"{kind}-implementation": [algorithm] for kind in kinds}
    graphs = [rank_graph((rank,), list(chain(steps, rank, npus, group))) for rank in range(npus)]
    graph = ExecutionGraph(graphs, {1: (1, 0)} if group else {})
    files = {"network": network(npus, topology, latency), "memory": MEMORY}
    compare(graph, files | {"system": system(preferred_dataset_splits=splits, **changes)})


def chain(steps: list, rank: int, npus: int, group: bool) -> Any:
    """A rank's nodes: transfers go from rank 0 to the last; collectives stay in ranks 0 and 1 with a group."""
    yield compute(3 + rank)
    for number, step in enumerate(steps):
        if "transfer" in step:
            if rank == 0:
                yield send(npus - 1, 4096, tag=number)
            elif rank == npus - 1:
                yield receive(npus - 1, 4096, tag=number)
        elif "comm_type" in step and group:
            if rank < 2:
                yield {**step, "comm_group": 1}
        else:
            yield step
    yield compute(1)


@pytest.mark.parametrize("root", [collective(0, 4096), load(10), load(100_000), compute(0)])
@pytest.mark.parametrize("npus", [1, 2])
def test_whatever_begins_at_zero_ends_when_it_should(root: dict, npus: int) -> None:
    if npus == 1 and "comm_type" in root:
        pytest.skip("a collective of one rank never ends, here as there")
    memory = MEMORY.replace("100", "0")
    files = {"network": network(npus), "system": system(endpoint_delay=0), "memory": memory}
    graph = ExecutionGraph([rank_graph(tuple(range(npus)), [root, compute(50)])])
    used = create_process(**files, options={"astra_sim": BINARY, "no_cache": "1"})
    alone = used.simulate(graph).by_rank()
    later = ExecutionGraph([rank_graph(tuple(range(npus)), [compute(70), root, compute(50)])])
    shifted = used.simulate(later).by_rank()
    used.close()
    assert {rank: (end + 70, exposed) for rank, (end, exposed) in alone.items()} == shifted


def test_ranks_that_move_memory_may_end_with_transfers() -> None:
    sender = rank_graph((0,), [load(5000), compute(100), send(1, 4096)])
    receiver = rank_graph((1,), [load(500), receive(1, 4096)])
    files = {"network": network(2), "system": system(), "memory": MEMORY}
    used = create_process(**files, options={"astra_sim": BINARY, "no_cache": "1"})
    bare = used.simulate(ExecutionGraph([sender, receiver])).by_rank()
    used.close()
    ended = ExecutionGraph(
        [
            rank_graph((0,), [load(5000), compute(100), send(1, 4096), compute(1)]),
            rank_graph((1,), [load(500), receive(1, 4096), compute(1)]),
        ]
    )
    ours = create(**files, options={}).simulate(ended).by_rank()
    assert bare == {rank: (end - 1, exposed) for rank, (end, exposed) in ours.items()}


def test_expert_parallel_layers() -> None:
    """Two layers of TP 2 within pairs and an all-to-all over all four ranks, as EP over a DP group computes them."""
    nodes: list[dict[str, Any]] = [compute(1000)]
    for _ in range(2):
        nodes += [compute(2000), collective(0, 1 << 18, comm_group=0), compute(300)]
        nodes += [collective(6, 1 << 20), compute(5000), collective(6, 1 << 20), compute(700)]
    first, second = (
        [{**node, "comm_group": group} if node.get("comm_type") == 0 else node for node in nodes] for group in (1, 2)
    )
    graph = ExecutionGraph([rank_graph((0, 1), first), rank_graph((2, 3), second)], {1: (0, 1), 2: (2, 3)})
    for algorithm in ("ring", "direct"):
        changes = {f"{kind}-implementation": [algorithm] for kind in ("all-reduce", "all-to-all")}
        files = {"network": network(4, "Switch"), "system": system(**changes), "memory": MEMORY}
        assert compare(graph, files)


JOB = ["--hardware", "H100", "--link_bw", "25", "--link_latency", "700"]
KINDS = {
    "TP 1": ["--npu_num", "1"],
    "TP 4": ["--npu_num", "4", "--npu_group", "1"],
    "PP 4": ["--npu_num", "4", "--npu_group", "4"],
    "hybrid 2x2": ["--npu_num", "4", "--npu_group", "2"],
    "eviction under pressure": ["--npu_num", "1", "--npu_mem", "16.25", "--remote_bw", "20"],
    "MoE with EP": ["--npu_num", "4", "--ep_size", "4", "--model_name", "mistralai/Mixtral-8x7B-v0.1"],
    "attention by requests": ["--npu_num", "4", "--npu_group", "1", "--attention_placement", "requests"],
    "vLLM's scheduler": ["--npu_num", "2", "--npu_group", "1", "--scheduling", "vllm"],
}
"""What each kind of run adds to `JOB`."""
USUAL = [(120, 4, 0), (40, 6, 5_000_000), (300, 5, 20_000_000)]
CROWDED = [(300, 80, 0), (300, 80, 0), (310, 80, 0), (290, 90, 0), (280, 70, 0)]
"""Requests as (prompt tokens, output tokens, arrival in ns)."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_the_binary_gives_the_embedded_backends_csv(kind: str, tmp_path: Path) -> None:
    rows = CROWDED if kind == "eviction under pressure" else USUAL
    (tmp_path / "work.tsv").write_text("".join(f"{prompt}\t{output}\t{at}\n" for prompt, output, at in rows))
    job = [sys.executable, "main.py", *JOB, *KINDS[kind], "--dataset", str(tmp_path / "work.tsv")]
    written = {}
    for name, flags in {"embedded": [], "binary": ["--backend", "astra-sim", "--no_cache"]}.items():
        output = tmp_path / f"{name}.csv"
        done = subprocess.run([*job, *flags, "--output", output], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        written[name] = output.read_bytes()
        if kind == "eviction under pressure":
            assert "evictions                   0" not in done.stdout
    assert written["binary"] == written["embedded"]
