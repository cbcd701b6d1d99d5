"""Whether an engine's collectives follow its fabric's curves on its network, or why they cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from astra_files.network import NetworkConfig
from converters.execution_graph import CollectiveType
from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.fabrics.carrying import HOPS, CarriedCurves
from orchestrator.fabrics.fabric import Fabric
from orchestrator.fabrics.reading import load_fabric
from orchestrator.settings.engine import NO_FABRIC, NetworkSettings, ParallelismSettings


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
    shared: ParallelismSettings, given: NetworkSettings, network: NetworkConfig, unfit: str
) -> CarriedCurves | NotFollowed:
    """Return the curves that an engine's collectives follow on its network of links, or why they follow none.

    `unfit`: what is against it whatever the fabric. Raises `UserError` for a fabric that is none.
    """
    if given.fabric in (None, NO_FABRIC):
        return NotFollowed("")
    fabric = _fabric(given.fabric)
    if shared.stage_size == 1:
        return NotFollowed("")
    if why := unfit or _apart(shared, network):
        return NotFollowed(why)
    curves = CarriedCurves.on(network, fabric)
    why = next((said for kind, over in _collectives(shared) if (said := curves.obstacle(kind, over))), "")
    return NotFollowed(why) if why else curves


def _fabric(name: str | None) -> Fabric:
    try:
        return load_fabric(str(name))
    except UserError as error:
        if error.path is not None or error.field is not None or len(error.problems) > 1:
            raise
        raise UserError(error.what, fix=error.fix, field="--fabric") from error


def _apart(shared: ParallelismSettings, network: NetworkConfig) -> str:
    """Return why the NPUs of a stage are not all alike apart, on dimensions of their own, "" where they are."""
    axes = [size for size in (shared.tensor, shared.context, shared.data) if size > 1]
    inner = len(axes)
    if list(network.npus_count[:inner]) != axes:
        return f"{shared.stage_size} NPUs of a stage are spread over nodes, or over links of several kinds"
    kinds = zip(network.topology, network.bandwidth, network.latency, strict=True)
    if len(set(list(kinds)[:inner])) > 1:
        return f"{shared.stage_size} NPUs of a stage are joined by links of several kinds"
    if inner and network.topology[0] not in HOPS:
        return "NPUs of a ring are not all alike apart"
    return ""


def _collectives(shared: ParallelismSettings) -> Iterator[tuple[CollectiveType, tuple[int, ...]]]:
    """Yield the kinds of collectives of an engine, with the dimensions that each may be over."""
    tensor, context = (shared.tensor,), (shared.context,)
    member, stage = (*tensor, *context), (*tensor, *context, shared.data)
    spread = shared.expert > 1
    gathered = spread and shared.exchange == "allgather"
    inner = [tensor, context, member]
    scatters = inner if shared.context > 1 or shared.sequence_parallel else []
    over: dict[CollectiveType, list[tuple[int, ...]]] = {
        CollectiveType.ALL_REDUCE: [tensor],
        CollectiveType.ALL_GATHER: [*inner, stage] if gathered else inner,
        CollectiveType.REDUCE_SCATTER: [*scatters, stage] if gathered else scatters,
        CollectiveType.ALL_TO_ALL: [stage] if spread and not gathered else [],
    }
    for kind, places in over.items():
        named = dict.fromkeys(tuple(size for size in place if size > 1) for place in places)
        yield from ((kind, place) for place in named if place)
