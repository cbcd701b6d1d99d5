"""What is asked of a reader: how many requests, what becomes of malformed records, and how texts become tokens."""

from __future__ import annotations

from dataclasses import field

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.requests.importing.texts import TextTokens


class BadRecords:
    """Malformed records: the first one is the error, or (`skip`) they are counted, and the first is kept."""

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.count = 0
        self.first: UserError | None = None

    def take(self, error: UserError) -> None:
        """Count a malformed record, or raise what is wrong with it."""
        if not self.skip:
            raise error
        self.count += 1
        if self.first is None:
            self.first = error

    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of them."""
        if self.first is None:
            return ()
        if self.count == 1:
            return (f"a malformed record is skipped: {self.first}",)
        return (f"{self.count} malformed records are skipped; the first: {self.first}",)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read: `limit` requests at most (None: all)."""

    limit: int | None = None
    bad: BadRecords = field(default_factory=BadRecords)
    texts: TextTokens = field(default_factory=TextTokens)
