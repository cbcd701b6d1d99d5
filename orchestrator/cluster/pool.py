"""The engines that requests are routed to, and what is under way at them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.cluster.clock import OfRequests
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.records import CompletedBatch
from orchestrator.requests.request import Request


class Pool:
    """`engines` take requests; `tokens` are those of prompts and allowed answers that are under way at any engine."""

    def __init__(self, engines: Sequence[AnyEngine]) -> None:
        self.engines = engines
        self.tokens = 0
        self._under_way: dict[int, tuple[int, int]] = {}
        self._requests = {engine.number: 0 for engine in engines}

    def sent(self, request: Request, engine: AnyEngine) -> None:
        """Note that a request was taken by an engine."""
        tokens = request.prompt_tokens + request.max_tokens
        self._under_way[request.id] = (engine.number, tokens)
        self._requests[engine.number] += 1
        self.tokens += tokens

    def hear(self, told: OfRequests) -> None:
        """Note who is over, at its engine."""
        for request in told.outcome.finished if isinstance(told, CompletedBatch) else (told.request,):
            number, tokens = self._under_way.pop(request.id, (-1, 0))
            if number >= 0:
                self._requests[number] -= 1
                self.tokens -= tokens

    def busy(self, engine: AnyEngine) -> bool:
        """Whether a request is under way at an engine."""
        return self._requests[engine.number] > 0
