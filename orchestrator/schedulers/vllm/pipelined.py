"""vLLM's v1 scheduler with pipeline stages: as many batches in flight as there are stages, decided synchronously.

A request whose token is in flight wants nothing; so tokens count when they arrive, not when they are decided. A
request preempted meanwhile may be admitted again before its token arrives, and vLLM then counts on.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.request import Request
from orchestrator.schedulers.vllm.plan import Draft, Plan
from orchestrator.schedulers.vllm.scheduler import VllmScheduler
from orchestrator.schedulers.vllm.tracked import Status, Tracked


class PipelinedVllmScheduler(VllmScheduler):
    """As `VllmScheduler`; `goal` of a request is the number of its tokens that have arrived."""

    def _decode_all(self, draft: Draft) -> bool:
        """Never: which requests want a token depends on what is in flight."""
        return False

    def _wanted(self, item: Tracked) -> int:
        return item.goal - item.computed

    def _yields_token(self, item: Tracked, computed: int) -> bool:
        return computed == item.goal

    def _decided(self, item: Tracked) -> int:
        return item.goal

    def _known(self, item: Tracked) -> int:
        return item.goal

    def _arrive(self, plan: Plan) -> tuple[Sequence[Request], Sequence[Tracked]]:
        emitted: list[Request] = []
        finished: list[Tracked] = []
        for item, samples in zip(plan.items, plan.batch.samples, strict=True):
            if not samples or item.status is Status.FINISHED:
                continue
            emitted.append(item.request)
            item.goal += 1
            if item.goal > item.limit:
                finished.append(item)
        return emitted, finished
