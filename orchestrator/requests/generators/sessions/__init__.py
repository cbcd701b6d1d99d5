"""What follows a first request: the turns of a conversation, an agent's calls of tools; one module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.streams import Stream


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of some sessions, session after session.

    `count` has the turns of each session. Of each turn, `pause_ns` is the time from its end to the next one's arrival
    (0 after the last), `tool_tokens` how many tokens a tool adds to the prompt (0: a user writes them).
    """

    count: NDArray[np.int64]
    pause_ns: NDArray[np.int64]
    tool_tokens: NDArray[np.int64]


class Sessions(Protocol):
    """Settings of sessions. `max_history`: tokens of earlier turns that a prompt repeats at most (None: all)."""

    max_history: int | None

    def turns(self, stream: Callable[[str], Stream]) -> Callable[[int], Turns]:
        """Return what draws the turns of so many further sessions."""


session_kinds: Registry[type[Any]] = Registry("kind of sessions", package="orchestrator.requests.generators.sessions")
