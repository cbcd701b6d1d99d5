"""What a run says of itself before it begins: its engines, memory, links, workload, and what a user should know."""

from __future__ import annotations

from collections.abc import Iterator

from astra_files.network import NetworkConfig
from orchestrator.configurations import link_figures
from orchestrator.deployed_tiers import described
from orchestrator.deployment import Deployment
from orchestrator.fabrics.carrying import CarriedCurves
from orchestrator.fabrics.fabric import COLLECTIVES, SHARE
from orchestrator.lookups import looked_up
from orchestrator.network_cards import bytes_per_s, latency_ns
from orchestrator.observers.interface import Run
from orchestrator.requests.request import Request
from orchestrator.settings.engine import NetworkSettings


def introduction(run: Run) -> list[str]:
    """Return the lines."""
    lines = [line for one, places in run.places().items() for line in _engine(one, len(places))]
    traffic = [f"traffic: {'; '.join(said)}"] if (said := run.spec.traffic.described) else []
    if run.spec.hands_over:
        cards = {bytes_per_s(run.spec, one.engine) // one.engine.parallelism.npus for one in run.kinds()}
        speeds = " or ".join(f"{card / 1e9:g}" for card in sorted(cards))
        away = latency_ns(run.spec, run.spec.engines)
        lines.append(f"KV cache goes from engine to engine at {speeds} GB/s (1e9) an NPU, {away} ns away")
    return [*lines, f"workload: {run.source.described}", *traffic, *(f"note: {note}" for note in notes(run))]


def notes(run: Run) -> list[str]:
    """Return what a user should know of the run, each in one sentence: before it begins, or until now."""
    found = [*run.notes, *run.source.notes, *(note for one in run.kinds() for note in _notes(one, run))]
    if run.source.skipped:
        found.append(f"{run.source.skipped} requests that can never fit are skipped")
    for model in looked_up(run):
        found += [*model.notes, *model.lookups.notes()]
    return list(dict.fromkeys(found))


def _engine(deployment: Deployment, count: int) -> Iterator[str]:
    engine, space = deployment.engine, deployment.space
    weights = deployment.weight_bytes
    yield (
        f"{_several(count, engine.parallelism.data)}{deployment.model.name} on {deployment.system()}, "
        f"{engine.model.bits}-bit; scheduling {engine.names['scheduling']}, backend {engine.names['backend']}"
        + (f"; role {engine.role}" if deployment.spec.hands_over else "")
    )
    part = f" ({deployment.share.part})" if deployment.share.part else ""
    limits = engine.scheduling.step_limits()
    if limits:
        yield f"a step: at most {' and '.join(f'{most} {counted}' for counted, most in limits.items())}"
    yield (
        f"memory of an NPU: {deployment.share.bytes / 1e9:.2f} GB{part}, weights {weights / 1e9:.2f} GB; KV cache: "
        f"{space.total_blocks} blocks of {space.block_size} tokens, "
        f"{space.total_blocks * space.block_bytes / 1e9:.2f} GB over all NPUs"
        + (" of an engine" if engine.parallelism.data > 1 else "")
    )
    why = deployment.traced_because
    if why is not None and not deployment.spec.execution.asks_for_traces:
        yield f"every iteration is traced and simulated, for {why}"
    if engine.tier.given:
        yield f"KV tier: {described(engine.tier)}"
    speculation = engine.scheduling.speculation
    if speculation is not None:
        drafter = speculation.method if deployment.drafter is None else deployment.drafter.architecture.name
        yield f"speculation: up to {speculation.tokens} tokens a step, guessed by {drafter}"
    slots = engine.scheduling.adapter_slots
    if slots is not None:
        yield f"LoRA adapters: {slots.count} of rank {slots.rank} in a step at most"
    if engine.parallelism.npus * engine.parallelism.data > 1:
        yield f"links: {_links(deployment)}"
        if deployment.configurations.curves is not None:
            yield f"collectives: {_collectives(deployment.configurations.curves)}"


def _several(count: int, members: int) -> str:
    """Return how many engines there are, of which so many each advance in lock step; "" for one."""
    if count > members > 1:
        return f"{count // members} groups of {members} engines in lock step, each "
    if members > 1:
        return f"{members} engines in lock step, "
    return f"{count} engines, each " if count > 1 else ""


def _links(deployment: Deployment) -> str:
    """Return which links are assumed."""
    network, hardware = deployment.engine.network, deployment.hardware
    if network.network is not None:
        return f"those of {network.network}"
    if network.node is not None:
        return f"those of {network.node}: {_dimensions(deployment.configurations.network)}"
    bandwidth, latency = figures = link_figures(network, hardware)
    whose = f", {hardware.name}'s own" if figures == link_figures(NetworkSettings(), hardware) else ""
    return f"{bandwidth * 2**30 / 1e9:g} GB/s (1e9) a direction, {latency:g} ns{whose}"


def _collectives(curves: CarriedCurves) -> str:
    """Return whose curves collectives follow."""
    fabric = curves.fabric
    derived = " and ".join(name for name in COLLECTIVES if fabric.derives(name))
    share = f"; {derived}: {SHARE:.2f} of the all_reduce's time" if derived else ""
    return f"as measured on {fabric.name} ({fabric.device}; {fabric.origin}){share}"


def _dimensions(network: NetworkConfig) -> str:
    """Return the dimensions, innermost first, in a few words each."""
    rows = zip(network.npus_count, network.topology, network.bandwidth, network.latency, strict=True)
    return ", then ".join(
        f"{count} ({topology}) at {width * 2**30 / 1e9:g} GB/s (1e9) a direction, {latency:g} ns"
        for count, topology, width, latency in rows
    )


def _notes(deployment: Deployment, run: Run) -> Iterator[str]:
    yield from deployment.generator.warnings
    yield from deployment.configurations.notes
    policy = deployment.engine.scheduling
    if policy.reuses_prefixes and run.source.table.prompt_ids is None:
        yield "prompts have no token ids: prefix caching finds nothing but the blocks of a request that was preempted"
    positions = deployment.model.max_position
    longest = deployment.engine.memory.max_model_len
    needed = longest if policy.ends_at_longest and policy.needs_longest else None
    if needed and deployment.unfit(Request(-1, 0, needed - 1, 1)):
        held = deployment.space.total_blocks * deployment.space.block_size
        yield (
            f"the KV cache holds {held} tokens, less than one sequence of {needed} (max_model_len); an engine would "
            "not start, it needs a lower --max_model_len"
        )
    beyond = run.source.longer_than(positions)
    if beyond and not policy.ends_at_longest:
        yield f"{beyond} requests go beyond the model's {positions} positions"
