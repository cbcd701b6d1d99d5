"""Collectives take their fabric's time on every backend: sizes that the lowering gives them, and runs that follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.embedded import EmbeddedBackend, create
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from converters.chakra import read_graph
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, NodeWork, RankGraph
from converters.lowering import Lowering
from external.astra_sim.factories import create_process
from foundation.errors import UserError
from orchestrator import RunSpec, Simulation
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.fabrics.carrying import NAMES, CarriedCurves, carrying_system
from orchestrator.fabrics.reading import load_fabric
from orchestrator.settings.engine import NetworkSettings
from orchestrator.settings.record import repeating
from orchestrator.settings.specification import from_flags
from tests.external.parallel_graphs import TRACES
from trace_gen.mesh import lines
from trace_gen.trace import CommType

BINARY = os.environ.get("ORRERY_ASTRA_SIM", "")
MEMORY = RemoteMemoryConfig(memory_type="PER_NPU_MEMORY_EXPANSION", remote_mem_bw=100).to_text()
FABRICS = ("rtxpro6000-pcie5-host", "rtxpro6000-pcie5-peer", "l40s-pcie4", "a100-nvlink", "h100-nvlink", "b200-nvlink")
KINDS = st.sampled_from(sorted(NAMES))
LARGEST = 2**31


def network_of(topology: str, counts: tuple[int, ...], gb_s: float, latency: float) -> NetworkConfig:
    """A network with the same links on all its dimensions."""
    count = len(counts)
    return NetworkConfig((topology,) * count, counts, (gb_s,) * count, (latency,) * count)


def texts(network: NetworkConfig) -> dict[str, str]:
    system = carrying_system(SystemConfig(roofline_enabled=True, peak_perf=1.0), len(network.npus_count))
    return {"network": network.to_text(), "system": system.to_text(), "memory": MEMORY}


def backend(network: NetworkConfig) -> EmbeddedBackend:
    return create(**texts(network), options={})


def meeting(kind: CollectiveType, size: int, mask: int, entries: list[int]) -> ExecutionGraph:
    """A graph in which every rank computes for its entry's ns, then meets those that the dimensions of `mask` join."""
    return ExecutionGraph([rank_graph(rank, kind, size, mask, entry) for rank, entry in enumerate(entries)])


def rank_graph(rank: int, kind: CollectiveType, size: int, mask: int, entry: int) -> RankGraph:
    none = np.full(2, ABSENT)
    return RankGraph(
        ranks=(rank,),
        names=("node",),
        node_id=np.arange(2),
        node_type=np.array([NodeType.COMP, NodeType.COMM_COLL], dtype=np.int8),
        is_cpu_op=np.zeros(2, dtype=np.bool_),
        name=np.zeros(2, dtype=np.int32),
        duration_us=np.zeros(2, dtype=np.int64),
        work=NodeWork.by_node(np.array([[1000 * entry + 500, ABSENT]]), np.array([[1, ABSENT]])),
        comm_type=np.array([-1, kind], dtype=np.int8),
        comm_size=np.array([ABSENT, size]),
        comm_priority=none,
        comm_tag=none,
        comm_src_delta=none,
        comm_dst_delta=none,
        comm_group=np.zeros(2, dtype=np.int32),
        involved_dims=np.array([ABSENT, mask]),
        dep_offsets=np.array([0, 0, 1]),
        dep_index=np.zeros(1, dtype=np.int64),
    )


@st.composite
def machines(draw: st.DrawFn) -> tuple[NetworkConfig, int]:
    """A network of one to three dimensions, maybe with stages beyond, and a mask of those that ranks meet over."""
    inner = draw(st.sampled_from([(2,), (3,), (4,), (5,), (7,), (8,), (2, 2), (2, 3), (4, 2), (2, 4), (2, 2, 2)]))
    mask = draw(st.integers(1, 2 ** len(inner) - 1))
    topology, stages = draw(st.sampled_from(["FullyConnected", "Switch"])), draw(st.sampled_from([(), (2,)]))
    outer = len(stages)
    gb_s, latency = draw(st.floats(20, 900)), draw(st.floats(0, 300))
    network = NetworkConfig(
        (topology,) * len(inner) + ("Switch",) * outer,
        (*inner, *stages),
        (gb_s,) * len(inner) + (gb_s / 10,) * outer,
        (latency,) * len(inner) + (9000.0,) * outer,
    )
    return network, mask


@settings(max_examples=120)
@given(machines(), KINDS, st.sampled_from(FABRICS), st.integers(1, LARGEST), st.data())
def test_every_collective_takes_the_curves_time(
    machine: tuple[NetworkConfig, int], kind: CollectiveType, name: str, size: int, data: st.DataObject
) -> None:
    """Over one dimension to 1 ns, over several to 2, of ranks that come together; else all wait for the last."""
    network, mask = machine
    dims = [dim for dim in range(len(network.npus_count)) if mask >> dim & 1]
    over = tuple(network.npus_count[dim] for dim in dims)
    ranks = int(np.prod(over))
    curves = CarriedCurves.on(network, load_fabric(name))
    assert curves.obstacle(kind, over) == ""
    true = np.array([size])
    total = true * ranks if kind is CollectiveType.ALL_GATHER else true
    wanted = int(curves.fabric.times_ns(NAMES[kind], ranks, total)[0])
    (carried,) = curves.sizes(kind, over, true).tolist()
    used = backend(network)
    together = used.simulate(meeting(kind, carried, mask, [1000] * network.npus)).makespan_ns.tolist()[0] - 1000
    assert abs(together - wanted) <= (1 if len(over) == 1 else 2)
    entries = data.draw(st.lists(st.integers(1, 50_000), min_size=network.npus, max_size=network.npus))
    found = used.simulate(meeting(kind, carried, mask, entries)).by_rank()
    for line in lines(network.npus_count, dims):
        last = max(entries[rank] for rank in line)
        assert {found[rank][0] > last for rank in line} == {True}, "nobody leaves before the last has come"
        assert max(found[rank][0] for rank in line) <= last + together


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_sizes_grow_with_bytes(kind: CollectiveType) -> None:
    network = network_of("FullyConnected", (8,), 450, 500)
    curves = CarriedCurves.on(network, load_fabric("h100-nvlink"))
    sizes = np.arange(1, 2**24, 4097)
    carried = curves.sizes(kind, (8,), sizes)
    assert (np.diff(carried) >= 0).all() and carried[0] > 0 and carried.dtype == np.int64


def test_a_broadcast_keeps_its_size_and_what_cannot_be_reached_is_said() -> None:
    network = network_of("FullyConnected", (8,), 450, 500)
    curves = CarriedCurves.on(network, load_fabric("h100-nvlink"))
    assert curves.sizes(CollectiveType.BROADCAST, (8,), np.array([77])).tolist() == [77]
    ring = CollectiveType.ALL_REDUCE
    assert "over 2 to 8 ranks, not over 16" in curves.obstacle(ring, (8, 2))
    far = CarriedCurves.on(network_of("Switch", (8,), 450, 5000), curves.fabric)
    assert "latency alone" in far.obstacle(ring, (8,))
    slow = CarriedCurves.on(network_of("Switch", (8,), 1, 500), curves.fabric)
    assert "too slow" in slow.obstacle(ring, (8,))


# -- graphs of every parallelism


def carried_graph(name: str) -> tuple[ExecutionGraph, NetworkConfig]:
    make, sizes = TRACES[name]
    network = network_of("FullyConnected", sizes, 450, 500)
    curves = CarriedCurves.on(network, load_fabric("h100-nvlink"))
    lowering = Lowering(network_dims=network.npus_count, collective_sizes=curves.sizes)
    return lowering.lower(make()), network


@pytest.mark.parametrize("name", TRACES)
def test_messages_keep_their_bytes_and_collectives_say_theirs(name: str) -> None:
    graph, network = carried_graph(name)
    make, _ = TRACES[name]
    plain = Lowering(network_dims=network.npus_count).lower(make())
    met = 0
    for carried, own in zip(graph.rank_graphs, plain.rank_graphs, strict=True):
        true = carried.annotations["orrery.comm_size"]
        assert np.array_equal(true, own.comm_size)
        collectives = carried.comm_type >= 0
        assert np.array_equal(carried.comm_size[~collectives], own.comm_size[~collectives])
        met += int(collectives.sum())
    assert met


@pytest.mark.external
@pytest.mark.skipif(not BINARY, reason="ORRERY_ASTRA_SIM names no ASTRA-sim binary")
@pytest.mark.parametrize("name", TRACES)
def test_the_real_binary_takes_the_curves_times_too(name: str) -> None:
    graph, network = carried_graph(name)
    options = {"astra_sim": BINARY, "no_cache": "1", "backend_timeout": "60"}
    used = create_process(**texts(network), options=options)
    theirs = used.simulate(graph)
    used.close()
    assert theirs.by_rank() == backend(network).simulate(graph).by_rank()


# -- runs


def deployed(**values: Any) -> Deployment:
    spec = RunSpec.of(**{"model_name": "gpt2", "hardware": "H100", "npu_num": 2, "req_num": 2, **values})
    return Deploying(spec).deploy(spec.engines[0])


@pytest.mark.parametrize(
    ("values", "fabric"),
    [
        ({}, "h100-nvlink"),
        ({"npu_num": 4, "npu_group": 2}, "h100-nvlink"),
        ({"npu_num": 16, "npu_group": 2}, "h100-nvlink"),
        ({"fabric": "B200-nvlink"}, "b200-nvlink"),
        ({"node": "dgx-h100", "npu_num": 16, "npu_group": 4, "nodes": 2}, "h100-nvlink"),
        ({"node": "rtxpro6000-8", "hardware": None, "npu_num": 8}, "rtxpro6000-pcie5-peer"),
        ({"hardware": "RTXPRO6000"}, "rtxpro6000-pcie5-host"),
        ({"cp_size": 2, "npu_num": 4}, "h100-nvlink"),
    ],
)
def test_engines_follow_their_fabric(values: dict[str, Any], fabric: str) -> None:
    files = deployed(**values).configurations
    assert files.curves is not None and files.curves.fabric.name == fabric
    assert not files.notes and {one for row in files.system.implementations.values() for one in row} == {"direct"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"npu_num": 16}, "over 2 to 8 ranks, not over 16"),
        ({"node": "dgx-h100", "npu_num": 16}, "16 NPUs of a stage are spread over nodes"),
        ({"congestion": "aware"}, "congestion-aware"),
        ({"injection_scale": 2.0}, "--injection_scale"),
        ({"rendezvous_protocol": True}, "--rendezvous_protocol"),
        ({"perf_model": "backend"}, "--perf_model backend"),
        (
            {"node": "a6000-nvlink-4", "hardware": "A6000", "npu_num": 4, "fabric": "l40s-pcie4"},
            "links of several kinds",
        ),
        ({"npu_num": 8, "fabric": "gb200-nvlink"}, "over 2 to 4 ranks, not over 8"),
    ],
)
def test_what_cannot_follow_goes_by_its_links_and_says_so(values: dict[str, Any], said: str) -> None:
    files = deployed(**values).configurations
    plain = deployed(**{**values, "fabric": "none"}).configurations
    assert files.curves is None and files.texts() == plain.texts()
    (note,) = files.notes
    assert note.startswith("collectives follow no measured curve") and said in note


@pytest.mark.parametrize("values", [{"link_bw": 100.0}, {"link_latency": 700.0}, {"fabric": "none"}, {"npu_num": 1}])
def test_what_is_said_by_hand_turns_curves_off(values: dict[str, Any], tmp_path: Path) -> None:
    files = deployed(**values).configurations
    assert files.curves is None and not files.notes and files.system.preferred_dataset_splits == 4
    own = tmp_path / "network.yml"
    own.write_text(deployed(fabric="none").configurations.network.to_text())
    assert deployed(network=str(own)).configurations.curves is None


@pytest.mark.parametrize("beside", ["--network n.yml", "--system s.json", "--link_bw 5", "--link_latency 0"])
def test_a_fabric_beside_what_says_the_same_is_refused(beside: str) -> None:
    with pytest.raises(UserError, match=rf"^--fabric: .* beside {beside.split()[0]}, which says"):
        from_flags(["--fabric", "h100-nvlink", *beside.split()])
    from_flags(["--fabric", "none", *beside.split()])


def test_a_run_repeats_itself(tmp_path: Path) -> None:
    wanted = RunSpec.of(model_name="gpt2", hardware="H100", npu_num=2, req_num=3, output=str(tmp_path / "a.csv"))
    run = Simulation(wanted)
    first = run.run()
    record = repeating(RunSpec((deployed(req_num=3).engine,)))
    assert record["fabric"] == "h100-nvlink" and "link_bw" not in record
    again = Simulation(RunSpec.of(**{**record, "req_num": 3})).run()
    assert again.summary.makespan_s == first.summary.makespan_s
    by_links = Simulation(RunSpec.of(**{**record, "req_num": 3, "fabric": "none"})).run()
    assert by_links.summary.makespan_s != first.summary.makespan_s


def test_files_of_a_run_hold_the_sizes_that_are_simulated(tmp_path: Path) -> None:
    """Graphs and configurations of a trace folder belong together; text traces say true bytes."""
    wanted = RunSpec.of(
        model_name="gpt2",
        hardware="H100",
        npu_num=2,
        req_num=1,
        trace_dir=str(tmp_path),
        output=str(tmp_path / "a.csv"),
    )
    first = Simulation(wanted).run()
    graph = read_graph(tmp_path / "batch000000")
    names = {"network": "network.yml", "system": "system.json", "memory": "memory.json"}
    used = create(**{key: (tmp_path / name).read_text() for key, name in names.items()}, options={})
    assert used.simulate(graph).makespan_ns[0] > 0
    (one,) = graph.rank_graphs
    assert (one.annotations["orrery.comm_size"] != one.comm_size)[one.comm_type >= 0].all()
    said = json.dumps(sorted(set(one.annotations["orrery.comm_size"][one.comm_type >= 0].tolist())))
    text = (tmp_path / "batch000000.txt").read_text()
    assert all(size in text for size in said.strip("[]").split(", ")) and CommType.ALLREDUCE.name in text
    assert first.summary.complete


def test_what_is_decided_stays_decided() -> None:
    once = NetworkSettings().decided(1e9, 5, "h100-nvlink")
    assert once.fabric == "h100-nvlink" and once.link_bw is None and once.decided(1e9, 5, "a100-nvlink") == once
    by_hand = NetworkSettings(link_bw=5.0).decided(1e9, 5, "h100-nvlink")
    assert by_hand.fabric is None and by_hand.link_latency == 5
