"""Whether an engine's collectives follow its fabric's curves: on which network, or why they cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from astra_files.network import NetworkConfig
from converters.execution_graph import CollectiveType
from foundation.errors import UserError
from orchestrator.cluster.node_network import node_network, place
from orchestrator.cluster.nodes import load_node
from orchestrator.fabrics.carrying import CarriedCurves
from orchestrator.fabrics.fabric import Fabric
from orchestrator.fabrics.reading import load_fabric
from orchestrator.settings.engine import NO_FABRIC, NetworkSettings, ParallelismSettings


@dataclass(frozen=True, slots=True)
class Followed:
    """The network on which the curves are followed, and the curves."""

    network: NetworkConfig
    curves: CarriedCurves


@dataclass(frozen=True, slots=True)
class NotFollowed:
    """Why collectives go by the links' figures; "" where nothing else was meant."""

    why: str


def other_machine(backends: Sequence[object]) -> str:
    """Return why backends with these settings have another formula than the one that is inverted, "" where none has."""
    for settings in backends:
        if getattr(settings, "congestion", "unaware") != "unaware":
            return "messages of a congestion-aware network wait for each other"
        if getattr(settings, "injection_scale", 1.0) != 1.0:
            return "--injection_scale is not 1"
        if getattr(settings, "rendezvous_protocol", False):
            return "--rendezvous_protocol asks for messages before they are sent"
    return ""


def followed(
    shared: ParallelismSettings, given: NetworkSettings, link: tuple[float, float], unfit: str
) -> Followed | NotFollowed:
    """Return the curves that an engine's collectives follow, or why they follow none.

    `link`: GB/s (2^30) and ns of the device's own; `unfit`: what is against it whatever the fabric. Raises `UserError`
    for a fabric that is none.
    """
    if given.fabric in (None, NO_FABRIC) or shared.npus * shared.data == 1:
        return NotFollowed("")
    fabric = _fabric(given.fabric)
    if unfit:
        return NotFollowed(unfit)
    if said := _apart(shared, given):
        return NotFollowed(said)
    network = _flat(shared, given, link)
    curves = CarriedCurves.on(network, fabric)
    why = next((said for kind, ranks in _groups(shared) if (said := curves.obstacle(kind, ranks))), "")
    return NotFollowed(why) if why else Followed(network, curves)


def _fabric(name: str | None) -> Fabric:
    try:
        return load_fabric(str(name))
    except UserError as error:
        if error.path is not None or error.field is not None or len(error.problems) > 1:
            raise
        raise UserError(error.what, fix=error.fix, field="--fabric") from error


def _apart(shared: ParallelismSettings, given: NetworkSettings) -> str:
    """Return why the NPUs of a stage are not all one link apart, "" where they are."""
    if given.node is None:
        return ""
    kind = load_node(given.node)
    inner, size = kind.dims[0], shared.stage_size
    part = place(kind, shared.npus * shared.data, given.nodes).part
    if size > part or part % size:
        return f"{size} NPUs of a stage are spread over several nodes"
    if len(kind.dims) > 1 and size > inner.npus:
        return f"{size} NPUs of a stage are joined by links of several kinds"
    if inner.topology == "Ring":
        return f"NPUs of {kind.name} are a ring, not all one link apart"
    return ""


def _flat(shared: ParallelismSettings, given: NetworkSettings, link: tuple[float, float]) -> NetworkConfig:
    """Return the links as they are, in as few dimensions as there are kinds of them."""
    ranks = shared.npus * shared.data
    if given.node is not None:
        return node_network(load_node(given.node), (ranks,), given.nodes)
    bandwidth, latency = link
    return NetworkConfig(topology=("FullyConnected",), npus_count=(ranks,), bandwidth=(bandwidth,), latency=(latency,))


def _groups(shared: ParallelismSettings) -> Iterator[tuple[CollectiveType, int]]:
    """Yield the kinds of collectives of an engine with the numbers of ranks that each may be over."""
    spread = shared.expert > 1
    gathered = spread and shared.expert_exchange == "allgather"
    inner = {shared.tensor, shared.context, shared.member_size}
    stage = {shared.stage_size} if spread else set()
    sizes = {
        CollectiveType.ALL_REDUCE: {shared.tensor},
        CollectiveType.ALL_GATHER: inner | stage,
        CollectiveType.REDUCE_SCATTER: inner | stage if shared.context > 1 or shared.sequence_parallel else set(),
        CollectiveType.ALL_TO_ALL: set() if gathered else stage,
    }
    if gathered:
        sizes[CollectiveType.REDUCE_SCATTER] |= stage
    for kind, over in sizes.items():
        yield from ((kind, ranks) for ranks in sorted(over) if ranks > 1)
