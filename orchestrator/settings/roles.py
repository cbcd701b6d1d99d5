"""What is wrong with the roles of a run's engines: one without its counterpart, or a policy that knows of none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foundation.settings.reading import Problem

if TYPE_CHECKING:
    from orchestrator.settings.specification import EngineSpec


def wrong_roles(engines: Sequence[EngineSpec]) -> Iterator[Problem]:
    """Return the problems; none where no engine has a role."""
    roles = {engine.role for engine in engines}
    if roles == {"both"}:
        return
    if "prefill" not in roles:
        yield Problem("role", "decode: no engine hands requests over", "give an engine of the role prefill")
    elif roles == {"prefill"}:
        yield Problem("role", "prefill: no engine goes on with the requests", "give one of the role decode or both")
    for engine in engines:
        why = engine.scheduling.unconnected
        if why is not None:
            what = f"{engine.role} with --scheduling {engine.names['scheduling']}: {why}"
            yield Problem("role", what, "use --scheduling vllm --vllm_version 0.19 for all engines, and no speculation")
            return
