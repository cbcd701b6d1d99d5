"""`--sessions multi-turn`: conversations; a user reads an answer, then asks on.

A turn's prompt holds what was said before it: the prompts and answers of earlier turns, oldest dropped first where they
are more than `--max_history`, and then the user's new tokens, which the lengths of prompts are drawn for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.sessions import session_kinds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.sessions import Turns
    from orchestrator.requests.generators.streams import Stream

MOST_TURNS = 1000
_MOST_S = 1e6


@session_kinds.register("multi-turn")
@dataclass(frozen=True)
class MultiTurn:
    """Conversations of several turns, with pauses between them."""

    session_turns: float = setting(4.0, "mean turns of a session that a user opens", least=1, most=MOST_TURNS)
    session_counts: str = setting(
        "geometric", "how numbers of turns and of tool calls are distributed", choices=("geometric", "fixed")
    )
    pause_time: float = setting(
        10.0, "mean time from an answer to the user's next turn", unit="s", least=0, most=_MOST_S
    )
    session_times: str = setting(
        "exponential", "how pauses and tool times are distributed", choices=("exponential", "fixed")
    )
    max_history: int | None = setting(
        None,
        "tokens of earlier turns that a prompt repeats at most; whole turns are dropped, oldest first",
        unit="tokens",
        least=0,
        most=10**7,
        shown_default="all",
    )

    def turns(self, stream: Callable[[str], Stream]) -> Callable[[int], Turns]:
        """See `Sessions`."""
        import numpy as np

        from orchestrator.requests.generators.sessions import Turns

        counts, pauses = stream("turns"), stream("pause")

        def draw(sessions: int) -> Turns:
            count = 1 + self.counted(counts, sessions, self.session_turns - 1.0)
            pause = self.spent(pauses, int(count.sum()), self.pause_time)
            pause[np.cumsum(count) - 1] = 0
            return Turns(count, pause, np.zeros_like(pause))

        return draw

    def counted(self, stream: Stream, count: int, mean: float) -> NDArray[np.int64]:
        """Return numbers from 0 on: geometric with a mean, or the mean rounded."""
        import numpy as np

        from orchestrator.requests.generators.elementary import log

        if self.session_counts == "fixed" or mean == 0.0:
            return np.full(count, round(mean), dtype=np.int64)
        stays = float(log(np.array([mean / (1.0 + mean)]))[0])
        return np.minimum(np.floor(log(stream.uniforms(count)) / stays), 100.0 * MOST_TURNS).astype(np.int64)

    def spent(self, stream: Stream, count: int, mean_s: float) -> NDArray[np.int64]:
        """Return times in ns: exponential with a mean, or the mean."""
        import numpy as np

        from orchestrator.requests.generators.clocks import nanoseconds
        from orchestrator.requests.generators.elementary import log

        if self.session_times == "fixed":
            return np.full(count, round(mean_s * 1e9), dtype=np.int64)
        return nanoseconds(-log(stream.uniforms(count)) * mean_s)
