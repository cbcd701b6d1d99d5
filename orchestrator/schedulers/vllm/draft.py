"""One step being decided: its rows in scheduling order, and the tokens that may still be given out."""

from __future__ import annotations

from dataclasses import field
from enum import Enum, auto

from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.requests.request import Request
from orchestrator.schedulers.cohort import Cohort
from orchestrator.schedulers.vllm.entry import Entry
from trace_gen.batch_shape import KVTransfer


class Refusal(Enum):
    """Why admission stopped in the waiting queue."""

    NOBODY = auto()
    """Nobody waits, but for KV cache on its way."""
    SEATS = auto()
    """As many run as may."""
    TOKENS = auto()
    """Too few tokens of the step are left."""
    BLOCKS = auto()
    """Too few KV blocks are free for all of its tokens."""
    CHUNK = auto()
    """Too few KV blocks are free for those of its tokens that the step has left."""
    STALE = auto()
    """Somebody was passed over."""


@dataclass(slots=True)
class Draft:
    """See the module's docstring. `cohort`: its members have the first rows, one token each.

    `loads` are there when the step begins to compute, `fetches` only set out with it. `refused_finds`: whom admission
    stopped at may find other KV cache at any time.
    """

    budget: int
    entries: list[Entry] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    loads: list[KVTransfer] = field(default_factory=list)
    fetches: list[KVTransfer] = field(default_factory=list)
    cohort: Cohort[Entry] | None = None
    refusal: Refusal = Refusal.NOBODY
    refused_finds: bool = False

    def start_with(self, cohort: Cohort[Entry]) -> None:
        """Give the first rows to `cohort`."""
        self.cohort = cohort
        self.budget -= len(cohort.members)

    def append(self, entry: Entry, tokens: int, samples: int) -> None:
        """Add a row: `tokens` are computed after those that `entry` has in its KV blocks, and so many logits."""
        self.entries.append(entry)
        self.new.append(tokens)
        self.context.append(entry.computed - entry.wrong)
        self.samples.append(samples)
        self.budget -= tokens

    def drop(self, entry: Entry) -> bool:
        """Take back `entry`'s row and tokens if it has any; return whether it had."""
        if entry not in self.entries:
            return False
        row = self.entries.index(entry)
        self.budget += self.new[row]
        entry.in_flight -= self.new[row]
        entry.placeholders -= self.samples[row] if entry.placeholders else 0
        for column in (self.entries, self.new, self.context, self.samples):
            del column[row]
        return True

    @property
    def plain(self) -> bool:
        """Whether every row is a decode of one token, and nobody came or went."""
        return not (self.admitted or self.preempted) and sum(self.new) == len(self.new) == sum(self.samples)

    def batch(self, serial: int) -> Batch:
        """Return the step as a batch."""
        requests = [entry.request for entry in self.entries]
        columns = requests, self.new, self.context, self.samples, self.admitted, self.preempted, tuple(self.loads)
        batch = Batch.of(serial, *columns)
        batch.fetches = tuple(self.fetches)
        return batch
