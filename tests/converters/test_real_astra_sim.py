"""An unmodified ASTRA-sim reads our files and counts the cycles that the rows say."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from converters.chakra import write_graph
from converters.lowering import lower
from tests.converters.traces import Row, make_trace, transformer
from trace_gen.trace import Location, RowKind, Trace

BINARY = os.environ.get("ORRERY_ASTRA_SIM", "")

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not BINARY, reason="name an ASTRA-sim analytical binary in ORRERY_ASTRA_SIM"),
]

GIB = 2**30
BANDWIDTH_GB, LATENCY_NS, MEMORY_LATENCY_NS, MEMORY_BYTES_NS = 100, 500, 100, 50


def simulate(trace: Trace, dims: list[int], folder: Path) -> dict[int, int]:
    """Return each rank's cycles on rings of `dims`."""
    dimensional = dims if len(dims) > 1 else None
    written = write_graph(lower(trace, network_dims=dimensional, annotate=True), folder / "llm")
    implementations = {f"{kind}-implementation": ["ring"] * len(dims)
                       for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")}  # fmt: skip
    system = {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 1,
        "local-mem-bw": 1600,
        "collective-optimization": "baseline",
        "roofline-enabled": 1,
        "peak-perf": 1,
        **implementations,
    }
    memory = {
        "memory-type": "PER_NPU_MEMORY_EXPANSION",
        "remote-mem-latency": MEMORY_LATENCY_NS,
        "remote-mem-bw": MEMORY_BYTES_NS,
    }
    network = "\n".join(
        f"{name}: [ {', '.join(map(str, values))} ]"
        for name, values in (
            ("topology", ["Ring"] * len(dims)),
            ("npus_count", dims),
            ("bandwidth", [float(BANDWIDTH_GB)] * len(dims)),
            ("latency", [float(LATENCY_NS)] * len(dims)),
        )
    )
    for name, text in (("s.json", json.dumps(system)), ("m.json", json.dumps(memory)), ("n.yml", network + "\n")):
        (folder / name).write_text(text)
    command = [BINARY, "--workload-configuration=llm", "--system-configuration=s.json",
               "--network-configuration=n.yml", "--remote-memory-configuration=m.json"]  # fmt: skip
    if written.groups is not None:
        command.append(f"--comm-group-configuration={written.groups.name}")
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr[-500:]
    found = re.findall(r"sys\[(\d+)\] finished, (\d+) cycles", answer.stdout)
    return {int(rank): int(cycles) for rank, cycles in found}


def message_ns(size: int) -> int:
    return int(LATENCY_NS + size / (BANDWIDTH_GB * GIB / 1e9))


def test_a_pipeline_takes_its_rows_and_the_messages_between(tmp_path: Path) -> None:
    trace = transformer(1, 4)
    found = simulate(trace, [4], tmp_path)
    expected = MEMORY_LATENCY_NS + 64 // MEMORY_BYTES_NS
    for stage in range(4):
        expected += int(trace.latency_ns[0, trace.stage == stage].sum())
        if stage < 3:
            expected += message_ns(8192)
        else:
            expected += MEMORY_LATENCY_NS + 16 // MEMORY_BYTES_NS
        assert found[stage] == expected


def test_tensor_parallel_ranks_finish_together_and_by_group_or_dimension(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert len(set(simulate(transformer(4, 1), [4], tmp_path / "one").values())) == 1
    found = simulate(transformer(2, 2), [2, 2], tmp_path / "two")
    assert found[0] == found[1] < found[2] == found[3]


def test_kv_movement_in_a_pipeline_completes(tmp_path: Path) -> None:
    """A rank that moves memory and sends would make ASTRA-sim abort, were it not for the node that closes it."""
    moved = (Location.REMOTE, 0, 5000)
    trace = make_trace([
        Row("kv_evict", (0,), RowKind.MEM_STORE, output=moved),
        Row("kv_load", (0,), RowKind.MEM_LOAD, input=moved),
        Row("a", (0,), latency=1000, output=(Location.LOCAL, 0, 64)),
        Row("b", (1,), latency=10, stage=1),
    ])  # fmt: skip
    move = MEMORY_LATENCY_NS + 5000 // MEMORY_BYTES_NS
    first = 2 * move + 1000 + message_ns(64)
    assert simulate(trace, [2], tmp_path) == {0: first, 1: first + 10}
