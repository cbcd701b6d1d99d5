"""The steps in which every running request decodes one token: counted for all of them at once.

A cohort is formed when each running request wants exactly one token (those whose last step is in flight want none), if
all of those get one from each batch in flight as well. It is dissolved by whatever else happens to any of them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from orchestrator.requests.request import Request
from orchestrator.schedulers.cohort import Cohort
from orchestrator.schedulers.interface import Alike
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.vllm.draft import Draft
from orchestrator.schedulers.vllm.entry import Entry


class Decoding:
    """See the module's docstring. `ahead`: decisions do not wait for tokens; `in_turn`: not all are in each batch."""

    def __init__(self, ledger: Ledger[Entry], *, ahead: bool, in_turn: bool) -> None:
        self._ledger = ledger
        self._ahead = ahead
        self._in_turn = in_turn
        self._cohort: Cohort[Entry] | None = None
        self._worth_a_look = True
        self._members: Set[Entry] = frozenset()
        self._to_final = self._to_longest = self._last_decision = 0

    @property
    def together(self) -> bool:
        """Whether all that runs is one cohort."""
        return self._cohort is not None

    def step(self, running: Sequence[Entry]) -> Cohort[Entry] | None:
        """Decide a token for each of `running` that wants one; None: nothing has been done, they want otherwise.

        The budget holds at least `max_num_seqs` tokens, so nobody goes short.
        """
        cohort = self._cohort
        if cohort is not None and self._somebody_is_done(cohort):
            self.dissolve()
            cohort = None
        if cohort is None and self._worth_a_look and not self._in_turn:
            cohort = self._form(running)
        if cohort is None or cohort.step():
            return cohort
        self.dissolve()
        return None

    def look(self, running: Sequence[Entry]) -> None:
        """After a decision: find out whether the next may be one for a cohort."""
        self._worth_a_look = all(entry.tokens + entry.placeholders - entry.computed <= 1 for entry in running)

    def flight(self, cohort: Cohort[Entry]) -> Flight[Entry]:
        """Return the flight of a decision for the cohort alone."""
        return Flight(cohort.batch(self._ledger.serial), cohort.members, plain=True, cohort=cohort)

    def open(self, draft: Draft) -> None:
        """Make the cohort's part of `draft` plain rows, because others join them."""
        cohort = draft.cohort
        if cohort is None:
            return
        draft.cohort = None
        self.dissolve()
        for entry in cohort.members:
            entry.computed -= 1
            draft.append(entry, 1, samples=1)
            entry.computed += 1
            draft.budget += 1  # the budget was charged when the step was decided

    def arrive(self, flight: Flight[Entry], ended: Set[Request]) -> bool:
        """Count the tokens of a batch for the cohort, if no member is done with it; False: nothing has been counted.

        The rows of `flight.others` are left to be counted.
        """
        cohort = self._cohort
        if cohort is None or flight.cohort is not cohort or cohort.arrived + 1 >= min(self._to_final, self._to_longest):
            return False
        if ended and not ended <= {flight.members[row].request for row in flight.others}:
            return False
        cohort.arrived += 1
        if not flight.plain:
            for entry, new, samples in zip(flight.members, *_columns(flight), strict=True):
                if samples and entry in self._members:
                    entry.in_flight -= new - 1  # one token is the cohort's to count
        return True

    def dissolve(self) -> None:
        """Let every request count for itself again."""
        if self._cohort is None:
            return
        cohort, self._cohort = self._cohort, None
        cohort.settle()
        if self._ahead:
            for entry in cohort.members:
                entry.placeholders += cohort.decided - cohort.arrived

    def alike(self, most: int, running: int) -> Alike | None:
        """Foresee further decodes if all of the `running` requests are in the batches in flight."""
        flights = self._ledger.flights
        cohort = self._cohort
        if cohort is None:
            if self._ahead or sum(len(flight.members) for flight in flights) < running:
                return None
            return self._ledger.alike_in_turn(most, Entry.steps_left)
        if len(cohort.members) < running:
            return None
        if not all(flight.plain and flight.cohort is cohort and not flight.others for flight in flights):
            return None
        by_client = self._to_final - (2 if len(flights) > 1 else 1)
        left = min(by_client, self._to_longest - len(flights)) - cohort.arrived
        return self._ledger.alike([cohort], min(most, left))

    def _somebody_is_done(self, cohort: Cohort[Entry]) -> bool:
        """Whether a member's last step is in flight, so that it wants no more."""
        by_client = self._ahead and bool(self._ledger.flights) and cohort.arrived >= self._to_final - 1
        return by_client or cohort.decided >= self._last_decision

    def _form(self, running: Sequence[Entry]) -> Cohort[Entry] | None:
        members = []
        for entry in running:
            wanted = entry.wanted()
            if wanted > 1:
                return None
            if wanted == 1:
                members.append(entry)
        flights = [flight for flight in self._ledger.flights if flight.members]
        if not members or any(entry.placeholders != len(flights) for entry in members):
            return None
        kv = self._ledger.kv.cohort(members)
        if kv is None:
            return None
        cohort = self._cohort = Cohort(members, kv)
        self._members = frozenset(members)
        for flight in flights:
            flight.cohort = cohort
            if not flight.plain or len(flight.members) != len(members):
                flight.others = [row for row, entry in enumerate(flight.members) if entry not in self._members]
        self._to_final = min(entry.final - entry.tokens for entry in members)
        self._to_longest = min(entry.longest - entry.tokens for entry in members)
        self._last_decision = min(entry.longest - 1 - entry.computed for entry in members)
        return cohort


def _columns(flight: Flight[Entry]) -> tuple[list[int], list[int]]:
    return flight.batch.new_tokens.tolist(), flight.batch.samples.tolist()
