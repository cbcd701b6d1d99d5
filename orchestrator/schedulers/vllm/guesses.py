"""The drafts of a vLLM scheduler's requests: what a step verifies, what becomes of it, and what is guessed after it."""

from __future__ import annotations

import numpy as np

from foundation.errors import InternalError
from orchestrator.engine.batch import Batch
from orchestrator.schedulers.ledger import Flight
from orchestrator.schedulers.speculation import NGRAM, Acceptance, Speculation
from orchestrator.schedulers.vllm.draft import Draft
from orchestrator.schedulers.vllm.entry import Entry, Status


class Guesses:
    """Keeps the counters of entries that speculation needs; `longest` (tokens) is the longest sequence there is."""

    def __init__(self, speculation: Speculation, acceptance: Acceptance | None, longest: int) -> None:
        self._speculation = speculation
        if acceptance is None:
            raise InternalError("tokens are guessed ahead, and nothing says what becomes of them")
        self._acceptance = acceptance
        self._longest = longest

    def slots(self, tokens: int) -> int:
        """Return the tokens that need a slot where `tokens` are computed: a drafter goes on from there."""
        return min(tokens + self._speculation.lookahead, self._longest)

    def verify(self, draft: Draft, batch: Batch) -> None:
        """Note what comes out of each row of a decision: its right drafts, and one token more."""
        reached = max((entry.computed for entry in draft.entries), default=0)
        fits = reached + self._speculation.tokens <= self._longest
        brings = []
        for entry, samples in zip(draft.entries, draft.samples, strict=True):
            right = 0
            if samples > 1 and entry.guided:
                right = self._acceptance.accepted(entry.request, entry.position, samples - 1)
            brings.append(right + 1 if samples else 0)
            entry.coming += brings[-1]
            entry.wrong += samples - brings[-1]
            entry.guided = fits
        batch.brings = np.array(brings, dtype=np.int64)
        batch.guesses = self._speculation.lookahead if fits else 0

    def roll_back(self, entry: Entry, wrong: int, brings: int) -> None:
        """Let the drafts that were `wrong` have never been computed."""
        entry.coming -= brings
        if entry.computed:
            entry.computed -= wrong
            entry.wrong -= wrong
        if entry.placeholders:
            entry.placeholders -= wrong

    def take(self, flight: Flight[Entry]) -> None:
        """Take the drafts that were made after a batch for those that sampled: the next step verifies them."""
        tokens = self._speculation.tokens
        for entry, samples in zip(flight.members, flight.batch.samples.tolist(), strict=True):
            if samples and entry.guided and entry.status is Status.RUNNING:
                entry.drafts = tokens
                if self._speculation.method == NGRAM:
                    most = min(tokens, self._longest - entry.tokens)
                    entry.drafts = min(most, self._acceptance.proposed(entry.request, entry.position, most))
