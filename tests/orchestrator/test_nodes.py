"""Kinds of nodes: what ships is whole and sourced, and networks made of them have every rank and every path."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.json_schema import valid
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.machine.network import DelayModel
from astra_files.network import NetworkConfig
from converters.collective_groups import name_groups
from foundation.documents import read_document
from foundation.errors import UserError
from foundation.settings.catalogue import catalogue
from foundation.settings.schema import json_schema
from orchestrator import RunSpec
from orchestrator.cluster.node_network import node_network, place
from orchestrator.cluster.nodes import Dimension, Link, NodeKind, load_node, shipped_nodes
from orchestrator.commands.run import simulate
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import prepare
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh

GIB = 2**30
PAIRS = NodeKind(
    "pairs",
    "pairs",
    "A40",
    (Dimension("FullyConnected", 2, 50e9, 600), Dimension("Switch", 4, 30e9, 500)),
    Link(12e9, 1350, 1),
    {},
)
SWITCHED = NodeKind("box", "box", "H100", (Dimension("Switch", 8, 450e9, 300),), Link(50e9, 1350, 8), {})


def shape(network: NetworkConfig) -> list[tuple[str, int, float, float]]:
    """Dimensions with GB/s (1e9)."""
    widths = [round(one * GIB / 1e9, 6) for one in network.bandwidth]
    return list(zip(network.topology, network.npus_count, widths, network.latency, strict=True))


@pytest.mark.parametrize("name", sorted(shipped_nodes()))
def test_a_shipped_kind_names_a_device_and_the_source_of_every_number(name: str) -> None:
    node = load_node(name)
    device = load_hardware(node.hardware)
    assert node.name == name and node.npus in (4, 8, 16, 72) and 1 <= node.between.count <= 3 * node.npus
    inner, *rest = node.dims
    assert _joined(node, device.link_bandwidth)
    assert inner.bandwidth >= node.between.bandwidth * node.between.count / node.npus, "nodes are what is slow"
    for number in ("link_gb_s", "latency_ns"):
        of_dims = (
            [f"dimensions[{place}].{number}" for place in range(len(node.dims))] if rest else [f"dimensions.{number}"]
        )
        assert set(of_dims) <= set(node.sources)
    assert {"between", "between.latency_ns"} <= set(node.sources)
    assert all(len(source) > 20 for source in node.sources.values())


def _joined(node: NodeKind, link: float) -> bool:
    """Whether the links of a node are the device's own: one to a switch, or several that together are it, or bridges.

    Links of a torus: two of a ring, one where two are all; of a dimension where all are connected, one to each other.
    """
    inner, *rest = node.dims
    if inner.topology == "Switch" and not rest:
        return inner.bandwidth == link
    if rest and rest[-1].topology == "Switch":
        return inner.bandwidth > link == rest[0].bandwidth
    ends = {"Ring": lambda npus: 2, "FullyConnected": lambda npus: 1 if rest else npus - 1}
    together = sum(ends[one.topology](one.npus) * one.bandwidth for one in node.dims)
    return together <= link and (link in (together, 2 * together) or rest[0].npus == 4)


def test_kinds_of_every_sort_ship() -> None:
    sorts = Counter((len(node.dims), node.dims[0].topology) for node in map(load_node, shipped_nodes()))
    assert sorts[1, "Switch"] >= 10 and sorts[2, "FullyConnected"] >= 3 and sorts[3, "FullyConnected"] >= 2
    assert {load_node(name).hardware for name in shipped_nodes()} >= {
        *("A100-80G", "H100", "H200", "B200", "GB200", "A40", "L40S", "MI300X", "MI325X"),
        *("TPU-v4", "TPU-v5e", "TPU-v5p", "TPU-v6e", "Gaudi2", "Gaudi3", "Trainium2"),
    }
    assert load_node("DGX H100") == load_node("dgx-h100") and load_node("hgx h100").name == "dgx-h100"


@pytest.mark.parametrize(
    ("node", "axes", "nodes", "expected"),
    [
        (SWITCHED, (1, 1, 1), None, [("Switch", 1, 450, 300)]),
        (SWITCHED, (4, 1, 1), None, [("Switch", 4, 450, 300)]),
        (SWITCHED, (4, 1, 2), None, [("Switch", 4, 450, 300), ("Switch", 2, 450, 300)]),
        (SWITCHED, (8, 1, 2), None, [("Switch", 8, 450, 300), ("Switch", 2, 50, 1350)]),
        (SWITCHED, (16, 1, 1), None, [("Switch", 8, 450, 300), ("Switch", 2, 50, 1350)]),
        (SWITCHED, (2, 1, 2), 4, [("Switch", 2, 50, 1350), ("Switch", 2, 50, 1350)]),
        (SWITCHED, (4, 1, 3), None, [("Switch", 6, 450, 300), ("Switch", 2, 50, 1350)]),
        (SWITCHED, (4, 1, 3), 3, [("Switch", 4, 450, 300), ("Switch", 3, 50, 1350)]),
        (PAIRS, (2, 1, 1), None, [("FullyConnected", 2, 50, 600)]),
        (PAIRS, (4, 1, 1), None, [("FullyConnected", 2, 50, 600), ("Switch", 2, 30, 500)]),
        (PAIRS, (6, 1, 1), None, [("FullyConnected", 2, 50, 600), ("Switch", 3, 30, 500)]),
        (PAIRS, (4, 1, 2), None, [("FullyConnected", 2, 50, 600), ("Switch", 2, 30, 500), ("Switch", 2, 30, 500)]),
        (PAIRS, (8, 1, 2), None, [("FullyConnected", 2, 50, 600), ("Switch", 4, 30, 500), ("Switch", 2, 1.5, 1350)]),
        (PAIRS, (2, 1, 4), 4, [("FullyConnected", 2, 50, 600), ("Switch", 4, 6, 1350)]),
        (PAIRS, (2, 1, 2), 4, [("Switch", 2, 12, 1350), ("Switch", 2, 12, 1350)]),
    ],
)
def test_a_network_by_hand(
    node: NodeKind, axes: tuple[int, ...], nodes: int | None, expected: list[tuple[Any, ...]]
) -> None:
    """(tensor, context, stages) on nodes of 8: one link an NPU between the first kind, one a node between the other."""
    assert shape(node_network(node, axes, nodes)) == expected


def test_what_does_not_divide_is_refused_with_what_does() -> None:
    for node, ranks, nodes, said in (
        (PAIRS, 3, None, r"3 NPUs do not divide over 1 x pairs of 2 x 4 NPUs; give 3, or another number"),
        (SWITCHED, 13, None, r"13 NPUs do not divide over 2 x box of 8 NPUs; give 13, or"),
        (SWITCHED, 16, 1, r"over 1 x box of 8 NPUs; give 2, 4, 8 or 16, or"),
        (SWITCHED, 8, 3, r"8 NPUs do not divide over 3 x box of 8 NPUs; give 1, 2, 4 or 8, or"),
        (SWITCHED, 1, 2, r"1 NPUs do not divide over 2 x box of 8 NPUs; give 1, or"),
    ):
        with pytest.raises(UserError, match=rf"--nodes: .*{said}"):
            place(node, ranks, nodes)


def test_a_part_of_a_ring_is_no_ring() -> None:
    ring = NodeKind("ring", "ring", "H100", (Dimension("Ring", 8, 50e9, 500),), Link(25e9, 1350, 1), {})
    for part in (1, 2, 8):
        assert place(ring, part, None).part == part
    with pytest.raises(UserError, match="4 NPUs do not divide over 1 x ring of 8 NPUs; give 2 or 4, or"):
        place(ring, 4, None)


TOPOLOGIES = st.sampled_from(["Switch", "FullyConnected", "Ring"])
NODES = st.builds(
    NodeKind,
    st.just("n"),
    st.just("n"),
    st.just("H100"),
    st.lists(
        st.builds(Dimension, TOPOLOGIES, st.integers(2, 4), st.sampled_from([30e9, 450e9]), st.just(300)),
        min_size=1,
        max_size=3,
    ).map(tuple),
    st.builds(Link, st.just(50e9), st.just(1350), st.integers(1, 9)),
    st.just({}),
)
SEEN = Counter[str]()


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(NODES, st.tuples(*[st.integers(1, 4)] * 3), st.none() | st.integers(1, 6))
def network_properties(node: NodeKind, axes: tuple[int, int, int], nodes: int | None) -> None:
    ranks = math.prod(axes)
    try:
        made = node_network(node, axes, nodes)
    except UserError:
        SEEN["refused"] += 1
        return
    whole = node_network(node, (ranks,), nodes)
    assert made.npus == whole.npus == ranks and len(made.npus_count) <= 4
    assert NetworkConfig.from_text(made.to_text()) == made
    cut, uncut = DelayModel(made), DelayModel(whole)
    for src in range(ranks):
        for dst in range(ranks):
            if src != dst:
                assert cut.delay(src, dst, 10**6) == uncut.delay(src, dst, 10**6), "cuts change no path"
    SEEN["cut" if len(made.npus_count) > len(whole.npus_count) else "whole"] += 1
    mesh = Mesh(axes[0], axes[2], context=axes[1])
    groups = [mesh.stage_ranks(stage)[: axes[0]] for stage in range(axes[2])]
    named = name_groups(groups, ranks, made.npus_count)
    if not named.communicators and axes[0] > 1:
        SEEN["dimensions"] += 1


def test_networks_have_every_rank_and_cuts_change_no_path() -> None:
    SEEN.clear()
    network_properties()
    assert SEEN["cut"] >= 20 and SEEN["whole"] >= 20 and SEEN["refused"] >= 20 and SEEN["dimensions"] >= 20


def test_a_node_decides_device_and_network() -> None:
    spec = RunSpec.of(model_name="gpt2", node="dgx-b200", npu_num=16, npu_group=2, req_num=1)
    deployment = prepare(spec).deployments[0]
    assert deployment.hardware.name == "B200" and deployment.engine.model.hardware == "B200"
    assert shape(deployment.configurations.network) == [("Switch", 8, 900, 300), ("Switch", 2, 50, 1350)]
    other = prepare(RunSpec.of(model_name="gpt2", node="dgx-b200", hardware="H200", npu_num=2, req_num=1))
    assert other.deployments[0].hardware.name == "H200", "what is said wins over what the node has"


def test_a_users_own_network_wins_over_the_nodes(tmp_path: Path) -> None:
    own = tmp_path / "n.yml"
    own.write_text("topology: [Ring]\nnpus_count: [4]\nbandwidth: [25]\nlatency: [700]\n")
    spec = RunSpec.of(model_name="gpt2", node="dgx-a100", network=str(own), npu_num=4, req_num=1)
    deployment = prepare(spec).deployments[0]
    assert deployment.hardware.name == "A100-80G" and deployment.configurations.network == NetworkConfig.from_file(own)


def test_a_run_in_nodes_says_its_links_and_repeats_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--model_name", "gpt2", "--req_num", "3"]
    output = tmp_path / "run.csv"
    assert simulate([*base, "--node", "a40-nvlink-8", "--npu_num", "4", "--output", str(output)]) == 0
    told = capsys.readouterr().out
    assert "on 4 x A40 (TP 4 x PP 1)" in told
    pair = "2 (FullyConnected) at 56.25 GB/s (1e9) a direction, 600 ns"
    assert f"links: those of a40-nvlink-8: {pair}, then 2 (Switch) at 31.5 GB/s (1e9) a direction, 500 ns\n" in told
    again = tmp_path / "again.csv"
    assert simulate(["--settings", str(tmp_path / "run-settings.json"), "--output", str(again), "--quiet"]) == 0
    assert again.read_bytes() == output.read_bytes()
    slower = tmp_path / "slower.csv"
    flags = ["--node", "rtx3090-nvlink-4", "--hardware", "A40", "--npu_num", "4", "--nodes", "2"]
    assert simulate([*base, *flags, "--output", str(slower), "--quiet"]) == 0
    assert slower.read_bytes() != output.read_bytes(), "two nodes joined by Ethernet are slower"


FILE = {
    "hardware": "H100",
    "dimensions": [{"topology": "Switch", "npus": 4, "link_gb_s": 100, "latency_ns": 300}],
    "between": {"link_gb_s": 25, "latency_ns": 1500},
}


def test_a_users_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(FILE))
    node = load_node(str(path))
    assert node == NodeKind("mine", "mine", "H100", (Dimension("Switch", 4, 100e9, 300),), Link(25e9, 1500, 1), {})
    assert node.between.share(4) == 6.25e9 and Link(25e9, 0, 8).share(4) == 25e9


def test_all_that_is_wrong_with_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    dims = [{"topology": "Torus", "npus": 1, "link_gb_s": -5, "latency_ns": "fast"}]
    path.write_text(
        json.dumps({"hardware": "H1000", "dimensions": dims, "between": {"links": 0}, "racks": 2}, indent=1)
    )
    with pytest.raises(UserError) as error:
        load_node(str(path))
    said = str(error.value)
    for part in (
        "line 2, hardware: unknown hardware 'H1000'; did you mean H100",
        'line 5, dimensions[0].topology: "Torus" is unknown',
        "line 6, dimensions[0].npus: 1 is not a whole number from 2 to",
        "line 7, dimensions[0].link_gb_s: -5 is not a number above 0",
        'line 8, dimensions[0].latency_ns: "fast" is not a number of at least 0',
        "link_gb_s is missing",
        "line 12, between.links: 0 is not a whole number from 1",
        "line 14, racks: unknown field",
    ):
        assert part in said, part


def test_the_page_has_every_kind_with_its_figures() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `([\w-]+)` \| (\d+) (\S+) \| (.*?) \| (.*?) \|$", page, re.M)}
    assert set(rows) >= set(shipped_nodes())
    for name in shipped_nodes():
        npus, hardware, within, between = rows[name]
        node = load_node(name)
        assert (int(npus), hardware) == (node.npus, node.hardware)
        shown = [f"{one.bandwidth / 1e9:g}, {one.latency_ns:g}" for one in node.dims]
        assert re.findall(r"[\d.]+, \d+", within) == shown
        assert between.startswith(f"{node.between.count} x {node.between.bandwidth / 1e9:g}, ")


def test_the_pages_cluster_and_node_are_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    [cluster] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    [node] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("cluster.yml").write_text(cluster)
    spec = from_flags(["--settings", "cluster.yml"])
    run = prepare(spec)
    assert [one.hardware.name for one in run.deployments] == ["RTXPRO6000", "H100", "H100", "L40S"]
    assert [one.engine.names["scheduling"] for one in run.deployments] == ["vllm"] * 3 + ["orca"]
    assert valid(json_schema(catalogue(RunSpec), "run"), read_document("cluster.yml", "run file").value)
    Path("node.json").write_text(node)
    assert load_node("node.json").dims == load_node("a40-nvlink-8").dims
    wrong = cluster.replace("tensor_parallel_size: 2", "npu_num: 0").replace("hardware: L40S", "nodse: 2")
    Path("wrong.yml").write_text(wrong)
    with pytest.raises(UserError) as error:
        from_flags(["--settings", "wrong.yml"])
    assert f"error: {error.value}\n" in page, "with npu_num: 0 in line 7 and nodse: 2 in line 14"


def test_the_example_of_a_cluster_fits_the_schema() -> None:
    path = Path(__file__).parents[2] / "examples" / "cluster_of_16" / "cluster.yml"
    assert valid(json_schema(catalogue(RunSpec), "run"), read_document(path, "run file").value)
    assert sum(one.instances for one in from_flags(["--settings", str(path)]).engines) == 16
