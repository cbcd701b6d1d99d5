"""`--sessions agentic`: an agent that calls tools: each turn of the user is answered after some calls.

A call is a request of its own, whose answer calls the tool; the next prompt holds all that was before and the tool's
result, and arrives when the tool is done. So a turn of the user is one request more than it has calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.sessions import session_kinds
from orchestrator.requests.generators.sessions.multi_turn import MOST_TURNS, MultiTurn

if TYPE_CHECKING:
    from orchestrator.requests.generators.sessions import Turns
    from orchestrator.requests.generators.streams import Stream


@session_kinds.register("agentic")
@dataclass(frozen=True)
class Agentic(MultiTurn):
    """Agents that call tools between requests."""

    session_turns: float = setting(1.0, "mean turns of a session that a user opens", least=1, most=MOST_TURNS)
    tool_calls: float = setting(4.0, "mean tool calls of a turn", least=0, most=MOST_TURNS, implies=True)
    tool_time: float = setting(1.0, "mean time that a tool takes", unit="s", least=0, most=1e6, implies=True)
    tool_tokens: float = setting(
        256.0, "mean tokens of a tool's result", unit="tokens", least=1, most=10**6, implies=True
    )

    def turns(self, stream: Callable[[str], Stream]) -> Callable[[int], Turns]:
        """See `Sessions`."""
        import numpy as np

        from orchestrator.requests.generators.sessions import Turns

        users, calls, pauses, tools, results = map(stream, ("turns", "calls", "pause", "tool", "result"))

        def draw(sessions: int) -> Turns:
            asked = 1 + self.counted(users, sessions, self.session_turns - 1.0)
            requests = 1 + self.counted(calls, int(asked.sum()), self.tool_calls)
            rows = int(requests.sum())
            ends = np.cumsum(requests)
            called = np.ones(rows, dtype=np.bool_)
            called[ends - requests] = False
            pause = self.spent(tools, rows, self.tool_time)
            pause[ends - 1] = self.spent(pauses, len(requests), self.pause_time)
            last = ends[np.cumsum(asked) - 1]
            pause[last - 1] = 0
            count = np.diff(last, prepend=0)
            result = np.where(called, 1 + self.counted(results, rows, self.tool_tokens - 1.0), 0)
            return Turns(count, pause, result)

        return draw
