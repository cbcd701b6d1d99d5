"""The tiers of a run's engines: whether what each says of them goes together, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.errors import UserError
from orchestrator.settings.specification import EngineSpec, RunSpec
from orchestrator.settings.tiers import TierSettings, wrong_groups

if TYPE_CHECKING:
    from orchestrator.cluster.tiers import Tiers
    from orchestrator.kv_memory.layout import KVLayout


def tiers_of(spec: RunSpec) -> Tiers | None:
    """Return the tiers, of which nothing is held yet; None where there are none."""
    if not spec.has_tiers:
        return None
    from orchestrator.cluster.tiers import Tiers

    return Tiers()


def check_groups(engines: Sequence[EngineSpec]) -> None:
    """Refuse engines of one group whose tiers, as decided, differ."""
    for problem in wrong_groups([one.tier for one in engines]):
        raise UserError(problem.what, field=f"--{problem.name}", fix=problem.fix)


def check_windows(engine: EngineSpec, layout: KVLayout) -> None:
    """Refuse a tier of blocks whose layers keep different tokens: a block of a window is not what its prefix needs."""
    windows = sorted({group.window for group in layout.groups if group.window is not None})
    if engine.tier.given and not engine.scheduling.swaps and windows:
        raise UserError(
            f"{engine.tier.kv_tier} with layers that keep a window of {windows[0]} tokens is not modelled",
            field="--kv_tier",
            fix="leave it out, or use a policy that swaps whole requests, such as orca",
        )


def described(tier: TierSettings) -> str:
    """Return what a tier is, in a few words."""
    size = "no limit of room" if tier.kv_tier_size is None else f"{tier.kv_tier_size:g} GiB"
    whose = "of one engine" if tier.kv_tier_group is None else f"shared by the group {tier.kv_tier_group}"
    way = f"{tier.kv_tier_bw:g} GB/s (1e9) a direction, {tier.latency_ns / 1000:g} us"
    return f"{tier.kv_tier}, {size}, {way}, {whose}"
