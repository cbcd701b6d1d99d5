"""The network cards over which KV cache goes from engine to engine: as the user says, their nodes', or a DGX H100's."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.cluster.nodes import load_node
from orchestrator.settings.run import NIC_GB_S, TRANSFER_LATENCY_NS
from orchestrator.settings.specification import EngineSpec, RunSpec


def bytes_per_s(spec: RunSpec, engine: EngineSpec) -> int:
    """Return what all cards of `engine` move a second in each direction; its NPUs have equal parts of their nodes'."""
    given, npus, node = spec.transfer.transfer_bw, engine.parallelism.npus, engine.network.node
    if given is not None or node is None:
        return round((given or NIC_GB_S) * 1e9) * npus
    kind = load_node(node)
    return round(kind.between.share(min(npus, kind.npus))) * npus


def latency_ns(spec: RunSpec, engines: Iterable[EngineSpec]) -> int:
    """Return the latency of a transfer: that of the slowest links between nodes, unless the user says another."""
    if spec.transfer.transfer_latency is not None:
        return spec.transfer.transfer_latency
    nodes = {engine.network.node for engine in engines} - {None}
    return max((round(load_node(str(node)).between.latency_ns) for node in nodes), default=TRANSFER_LATENCY_NS)
