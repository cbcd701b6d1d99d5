"""Request-level scheduling with slots (`--scheduling static`), as FasterTransformer serves batches.

A batch is formed as `StaticScheduler` does, of as many requests as there are slots for: each gets one as long as the
longest prompt and the longest answer of the batch, for good. Prompts are computed without padding. A request that is
done keeps its slot, and its row in every operator but attention, until the last one is done; then all answers are
returned and all slots are free.

    slots of 5 + 4    p p p p p 1 2 3 4        p: a prompt's token, 1 ..: the answer's
                      p p 1 2 x x . . .        x: computed for nobody; . never used

Source: NVIDIA FasterTransformer (main, df4a753): `ParallelGpt` allocates the cache of a call for the batch times the
longest input and output, the context phase removes padding, decoding goes on until all are finished, and
`decoder_masked_multihead_attention` returns at once for those that are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from foundation.errors import InternalError
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.orca import ENDLESS
from orchestrator.schedulers.static import StaticScheduler
from orchestrator.schedulers.tracked import Tracked


class SlotScheduler:
    """Iterates over one batch, whose requests have slots of `length` tokens."""

    def __init__(self, ledger: Ledger[Tracked], length: int) -> None:
        self._ledger = ledger
        self._kv = ledger.kv
        self._length = length
        self._slots: list[Tracked] = []
        self._live: list[Tracked] = []
        self._begun = False

    def add(self, admission: Admission, now: int) -> None:
        """Give a request its slot."""
        member = Tracked(admission, len(self._slots))
        if not self._kv.grow(member, self._length):
            raise InternalError(f"there is no slot of {self._length} tokens for request {admission.request.id}")
        self._slots.append(member)
        self._live.append(member)

    def schedule(self, now: int) -> Batch:
        """Return the next token of all that are not done, beside the rows of those that are."""
        live, begun = self._live, self._begun
        batch = Batch.of(
            self._ledger.serial,
            [member.request for member in live],
            [member.tokens - member.computed for member in live],
            [member.computed for member in live],
            [1] * len(live),
            [] if begun else [(member.request, 0) for member in live],
        )
        batch.padding = len(self._slots) - len(live)
        for member in live:
            member.computed = member.tokens
        self._begun = True
        return self._ledger.launch(Flight(batch, live, plain=begun))

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the tokens; when nobody is left, all slots are free."""
        live = self._ledger.land(batch).members
        for member in live:
            member.tokens += 1
        self._live = [member for member in live if member.request not in ended]
        if not self._live:
            for member in self._slots:
                self._kv.release(member)
        return Outcome([member.request for member in live], [one.request for one in live if one.request in ended])

    def alike(self, most: int) -> Alike | None:
        """Foresee that the batches in flight come again: there is a slot for every token."""
        return self._ledger.alike_in_turn(most, lambda member: ENDLESS)


class SlottedScheduler(StaticScheduler):
    """See the module's docstring. On a pipeline another batch starts where there are slots for it beside the others."""

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why there can be no slot for `request`, with the answer that its client allows, or None."""
        return self._kv.unfit(request, request.prompt_tokens + request.max_tokens)

    def _inner(self, members: Sequence[Admission]) -> SlotScheduler:
        prompts, answers = zip(*((one.request.prompt_tokens, one.request.max_tokens) for one in members), strict=True)
        return SlotScheduler(self._ledger, max(prompts) + max(answers))

    def _fitting(self) -> Iterator[bool]:
        """Yield whether there are slots for each that waits and those before it, as long as the longest of them."""
        prompt = answer = 0
        for place, admission in enumerate(self._waiting):
            request = admission.request
            prompt, answer = max(prompt, request.prompt_tokens), max(answer, request.max_tokens)
            yield (place + 1) * self._kv.peak_blocks(request, prompt + answer) <= self._kv.free
