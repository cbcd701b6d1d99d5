"""How many tokens the answers of an engine's requests still lack: the workload's knowledge, which policies have not."""

from __future__ import annotations

from collections.abc import Sequence, Set

from orchestrator.engine.batch import Batch
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request

NOBODY: Set[Request] = frozenset()


class Answers:
    """Counts the tokens of requests; batches of the very same list of requests, one after another, cost nothing."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}
        self._together: Sequence[Request] = ()
        self._least = 0
        self._counted = 0

    def __len__(self) -> int:
        return len(self._left)

    def __contains__(self, request: Request) -> bool:
        return request.id in self._left

    def add(self, admission: Admission) -> None:
        """Await the answer of a request, or what the engine makes of it."""
        self._left[admission.request.id] = admission.most(admission.request.output_tokens)

    def begun(self, request: Request) -> bool:
        """Whether a token of `request` has been counted; False where nothing of it is awaited."""
        self._settle()
        return self._left.get(request.id, request.output_tokens) < request.output_tokens

    def drop(self, requests: Sequence[Request]) -> None:
        """Await nothing more of `requests`."""
        if requests:
            self._settle()
        for request in requests:
            self._left.pop(request.id, None)

    def count(self, batch: Batch) -> Set[Request]:
        """Count the tokens that `batch` brings; return the requests whose answer is complete with them."""
        if batch.brings is None and batch.requests is self._together and self._counted + 1 < self._least:
            self._counted += 1
            return NOBODY
        self._settle()
        left, ended = self._left, set()
        for request, tokens in zip(batch.requests, batch.tokens().tolist(), strict=True):
            if tokens and request.id in left:
                left[request.id] -= tokens
                if left[request.id] <= 0:
                    ended.add(request)
        return ended

    def advance(self, requests: Sequence[Request], times: int) -> None:
        """Count `times` tokens of each of `requests`, none of which is the last."""
        if requests is self._together:
            self._counted += times
            return
        self._settle()
        for request in requests:
            self._left[request.id] -= times

    def least(self, requests: Sequence[Request]) -> int:
        """Return the fewest tokens that any of `requests` lacks."""
        if requests is not self._together:
            self._settle()
            self._together = requests
            self._least = min(self._left[request.id] for request in requests)
        return self._least - self._counted

    def _settle(self) -> None:
        """Write what was counted together into each request's own count."""
        if self._counted:
            for request in self._together:
                self._left[request.id] -= self._counted
        self._together, self._counted = (), 0
