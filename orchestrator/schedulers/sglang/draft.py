"""One step being decided: its rows, prompts before decodes, and who came and went."""

from __future__ import annotations

from dataclasses import field

from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.requests.request import Request
from orchestrator.schedulers.ledger import Flight
from orchestrator.schedulers.sglang.entry import Entry


@dataclass(slots=True)
class Draft:
    """See the module's docstring. `prompts`: how many of the rows compute prompts, or what was lost with them."""

    entries: list[Entry] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    prompts: int = 0

    def extend(self, entry: Entry, tokens: int, *, whole: bool) -> None:
        """Add a row of prompt tokens; `whole`: nothing of the prompt is left then."""
        self.entries.append(entry)
        self.new.append(tokens)
        self.context.append(entry.computed)
        self.samples.append(int(whole))
        self.prompts += 1

    def decode(self, entries: list[Entry]) -> None:
        """Add rows of one token each. A draft of nothing else has the very list, by which like steps are known."""
        self.entries = [*self.entries, *entries] if self.entries else entries
        self.new += [1] * len(entries)
        self.context += [entry.computed for entry in entries]
        self.samples += [1] * len(entries)

    def flight(self, serial: int) -> Flight[Entry]:
        """Return the step, as one that is in flight."""
        requests = [entry.request for entry in self.entries]
        batch = Batch.of(serial, requests, self.new, self.context, self.samples, self.admitted, self.preempted)
        return Flight(batch, self.entries, plain=not (self.prompts or self.admitted or self.preempted))
