"""Requests that are prompts first and decode then, and the steps in which they do: what phased policies share.

A request takes the blocks of all its tokens when it is admitted, so the chunks of its prompt find them there. When it
loses its place without being swapped, all tokens that are known by then are its prompt the next time.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import field

from foundation.records import dataclass
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.ledger import Flight
from orchestrator.schedulers.tracked import Tracked
from trace_gen.batch_shape import KVTransfer


class Phased(Tracked):
    """`prompt`: the tokens that were known when it was admitted; it decodes when they are computed."""

    __slots__ = ("prompt",)

    def __init__(self, admission: Admission, serial: int) -> None:
        super().__init__(admission, serial)
        self.prompt = self.tokens

    @property
    def decodes(self) -> bool:
        """Whether its prompt is computed."""
        return self.computed >= self.prompt

    @property
    def left(self) -> int:
        """Return how many of its known tokens are not computed."""
        return self.tokens - self.computed


@dataclass(slots=True)
class Step:
    """One step being decided: its rows, the tokens that may still be given out, who came, who went."""

    budget: int
    members: list[Phased] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    loads: list[KVTransfer] = field(default_factory=list)
    evictions: list[KVTransfer] = field(default_factory=list)

    def add(self, member: Phased, tokens: int) -> None:
        """Add a row: the next `tokens` tokens of `member`."""
        self.members.append(member)
        self.new.append(tokens)
        self.context.append(member.computed)
        member.computed += tokens
        member.in_flight += tokens
        self.budget -= tokens

    def is_prompt(self, row: int) -> bool:
        """Whether a row computes tokens of a prompt."""
        return self.context[row] < self.members[row].prompt

    def arrange(self, rows: Sequence[int]) -> None:
        """Put the rows into the order of `rows`, which names each once."""
        self.members = [self.members[row] for row in rows]
        self.new = [self.new[row] for row in rows]
        self.context = [self.context[row] for row in rows]

    def flight(self, serial: int, store: int = 0) -> Flight[Phased]:
        """Return it as a batch; what the last token of a prompt or a decode puts out is sampled."""
        decodes = not any(map(self.is_prompt, range(len(self.members))))
        batch = Batch.of(
            serial,
            [member.request for member in self.members],
            self.new,
            self.context,
            [int(member.left == 0) for member in self.members],
            self.admitted,
            self.preempted,
            tuple(self.loads),
            tuple(self.evictions),
        )
        return Flight(batch, self.members, decodes and not (self.admitted or self.preempted), store=store)


def arrive(kv: KVStore, flight: Flight[Phased], ended: Set[Request], longest: int) -> tuple[Outcome, Sequence[Phased]]:
    """Count the tokens of a batch that has finished; return what came of it, and who goes on.

    Who is done frees its blocks: those who have `ended`, those of `longest` tokens, and those whose clients have gone.
    """
    emitted, finished, going = [], [], []
    for member, new in zip(flight.members, flight.batch.new_tokens.tolist(), strict=True):
        member.in_flight -= new
        if member.gone:
            kv.release(member)
            continue
        if member.left:
            going.append(member)
            continue
        member.tokens += 1
        emitted.append(member.request)
        if member.request in ended or member.tokens >= longest:
            kv.release(member)
            finished.append(member.request)
        else:
            going.append(member)
    return Outcome(emitted, finished), going
