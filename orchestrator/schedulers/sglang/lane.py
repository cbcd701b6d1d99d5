"""One micro-batch of SGLang's scheduler: who decodes in it, and what was decided last. There is one for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from foundation.records import dataclass
from orchestrator.schedulers.sglang.entry import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Extend:
    """A batch with prompts in it that was decided last, and whose prompt was `cut` then."""

    entries: Sequence[Entry]
    cut: Entry | None


@dataclass(slots=True, eq=False)
class Lane:
    """`running` decode, those that have finished among them until the next decode; the list is never changed in place.

    `full`: nobody is let in until somebody leaves. `last`: the batch before, if it had prompts.
    """

    running: list[Entry] = field(default_factory=list)
    full: bool = False
    last: Extend | None = None

    def merge(self, cut: Entry | None) -> None:
        """Let those whose prompts were computed by the last batch decode; one whose prompt is `cut` does not yet."""
        last, self.last = self.last, None
        if last is None:
            return
        go_on = [entry for entry in last.entries if not entry.finished and entry is not cut and entry is not last.cut]
        if len(go_on) < len(last.entries):
            self.full = False
        if not go_on:
            return
        if not self.running:
            self.full = False
        self.running = [*self.running, *go_on]

    def drop_finished(self) -> None:
        """Let those go that have finished."""
        if any(entry.finished for entry in self.running):
            self.running = [entry for entry in self.running if not entry.finished]
