"""What becomes of drafts: drawn by rates, or as recorded.

A rate is given for each place in a run of drafts: the share of runs that is right up to there, as vLLM counts it
(`vllm:spec_decode_num_accepted_tokens_per_pos`). One draw decides about a run, and depends on nothing but the seed, the
request and its place in the answer: not on batches, on preemption or on the order of evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foundation.draws import uniform
from orchestrator.requests.request import Request


class DrawnAcceptance:
    """`rates`: of runs of drafts, the share that is right at least so far, falling; beyond them nothing is right.

    `found`: the share of searches for an n-gram that find one.
    """

    def __init__(self, seed: int, rates: Sequence[float], found: float = 1.0) -> None:
        self._seed = seed
        self._rates = rates
        self._found = found

    def proposed(self, request: Request, position: int, most: int) -> int:
        """Return `most` or nothing."""
        return most if self._draw("proposed", request, position) < self._found else 0

    def accepted(self, request: Request, position: int, drafts: int) -> int:
        """Return how many drafts are right: as many as have a rate above the draw."""
        draw = self._draw("accepted", request, position)
        return sum(draw < rate for rate in self._rates[:drafts])

    def _draw(self, purpose: str, request: Request, position: int) -> float:
        """Return a number from 0 to 1, 1 excluded."""
        return uniform(self._seed, purpose, request.id, position)


class RecordedAcceptance:
    """What is right (`counts`) and what is found, by request: entry `p` modulo the length, `p` tokens being known."""

    def __init__(self, counts: Mapping[int, Sequence[int]], found: Mapping[int, Sequence[int]]) -> None:
        self.counts = dict(counts)
        self.found = dict(found)

    def proposed(self, request: Request, position: int, most: int) -> int:
        """Return what was found, at most `most`; all where nothing is recorded."""
        found = self.found.get(request.id)
        return most if not found else min(most, found[position % len(found)])

    def accepted(self, request: Request, position: int, drafts: int) -> int:
        """Return what was right, at most `drafts`; nothing where nothing is recorded."""
        counts = self.counts.get(request.id)
        return 0 if not counts else min(drafts, counts[position % len(counts)])
