"""Counts the tokens of requests that get one at each step, without touching each request at each step.

Most requests get a token whenever those beside them do. So what is counted is the steps of those that do (`Together`),
and a request is looked at when it joins them and when it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.requests.request import Request

IntArray = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Together:
    """Requests that got a token at each of its steps since they joined; the last ended at `last_ns`."""

    members: set[int] = field(default_factory=set)
    listed: Sequence[Request] = ()
    steps: int = 0
    last_ns: int = 0
    ends: list[IntArray] = field(default_factory=list)
    """When its steps ended (ns), where lists are kept."""


@dataclass(slots=True, eq=False)
class Going:
    """What is known of a request that has not finished; -1 is not yet. Times are ns.

    `last_token`, `counted` and `tokens` (when each was there, where lists are kept) do not know of what has come since
    it joined others, when `joined` of their steps, in `joined_ends` arrays, had been made.
    """

    prompt: int
    arrival: int
    queued: int
    engine: int
    scheduled: int = -1
    first_token: int = -1
    last_token: int = -1
    counted: int = 0
    tokens: list[IntArray] = field(default_factory=list)
    others: Together | None = None
    joined: int = 0
    joined_ends: int = 0

    @property
    def generated(self) -> int:
        """How many tokens came out for it."""
        return self.counted if self.others is None else self.counted + self.others.steps - self.joined

    def join(self, others: Together) -> None:
        """Get a token whenever `others` do, from their next step on."""
        self.others, self.joined, self.joined_ends = others, others.steps, len(others.ends)

    def leave(self, identity: int) -> None:
        """Be on its own again, with all tokens that have come."""
        others = self.others
        if others is not None:
            self.counted, self.last_token = self.generated, others.last_ns
            self.tokens += others.ends[self.joined_ends :]
            others.members.discard(identity)
            others.listed = ()
            self.others = None


def gather(emitted: Sequence[Request], known: Mapping[int, Going], first_ns: int) -> tuple[Together, dict[int, int]]:
    """Let `emitted`, and nobody else, be together as all get a token at `first_ns`.

    Return them, and the times since each one's last token, with how many had to wait so long.
    """
    others = next((o for one in emitted if (o := known[one.id].others) is not None), None) or Together()
    gaps: dict[int, int] = {}
    if others.listed is not emitted:
        now = {request.id for request in emitted}
        for identity in others.members - now:
            known[identity].leave(identity)
        stay = len(others.members)
        for identity in now - others.members:
            going = known[identity]
            going.leave(identity)
            if going.first_token < 0:
                going.first_token = first_ns
            else:
                gap = first_ns - going.last_token
                gaps[gap] = gaps.get(gap, 0) + 1
            going.join(others)
        others.members, others.listed = now, emitted
    else:
        stay = len(others.members)
    if stay:
        gap = first_ns - others.last_ns
        gaps[gap] = gaps.get(gap, 0) + stay
    return others, gaps
