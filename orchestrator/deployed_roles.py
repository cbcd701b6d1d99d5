"""What is between the engines of a run some of which compute prompts only, and whether they can be paired at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.errors import UserError
from orchestrator.deployment import Deployment
from orchestrator.network_cards import latency_ns
from orchestrator.settings.specification import RunSpec

if TYPE_CHECKING:
    from orchestrator.cluster.disaggregation import Disaggregation


def check_pairs(kinds: Sequence[Deployment]) -> None:
    """Refuse engines that could not read each other's KV cache, as vLLM's NixlConnector does (0.19)."""
    sources = [one for one in kinds if one.engine.role == "prefill"]
    targets = [one for one in kinds if one.engine.role != "prefill"]
    for source in sources:
        for target in targets:
            _check_pair(source, target)


def _check_pair(source: Deployment, target: Deployment) -> None:
    """Refuse what `_validate_remote_agent_handshake` of nixl_connector.py refuses, and other models."""
    ones, others = source.engine, target.engine
    if source.model.name != target.model.name:
        raise _unlike("--model_name", source.model.name, target.model.name, "name one model")
    if ones.model.kv_bits != others.model.kv_bits:
        widths = f"{ones.model.kv_bits}-bit", f"{others.model.kv_bits}-bit"
        raise _unlike("--kv_cache_dtype", *widths, "give all engines the same")
    if others.block_size % ones.block_size:
        fix = "give all engines the same, or those that decode a multiple"
        raise _unlike("--block_size", ones.block_size, others.block_size, fix)
    few, many = sorted((ones.parallelism.tensor, others.parallelism.tensor))
    if many % few:
        fix = "let one divide the other"
        raise _unlike("--tensor_parallel_size", ones.parallelism.tensor, others.parallelism.tensor, fix)


def _unlike(field: str, first: object, second: object, fix: str) -> UserError:
    what = f"an engine that computes prompts has {first}, one that goes on with them {second}"
    return UserError(f"{what}: the KV cache of one does not fit the other", field=field, fix=fix)


def disaggregation(spec: RunSpec) -> Disaggregation | None:
    """Return what is between the engines; None where each serves its requests alone."""
    if not spec.hands_over:
        return None
    from orchestrator.cluster.disaggregation import Disaggregation

    layerwise = spec.transfer.kv_transfer == "layerwise"
    return Disaggregation(spec.new_decode_router(), latency_ns(spec, spec.engines), layerwise=layerwise)
