"""`--admission tokens`: no more requests than so many tokens are under way, by what is known when a request comes.

A request counts with its prompt and with the longest answer that its client allows, from the moment when it is sent to
an engine until it is over there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.admission import gates

if TYPE_CHECKING:
    from orchestrator.cluster.pool import Pool
    from orchestrator.requests.request import Request


@dataclass(frozen=True)
class TokenGate:
    """See the module's docstring."""

    most: int

    def refuses(self, request: Request, now: int, pool: Pool) -> str | None:
        """See `Gate.refuses`; what comes to an empty pool is taken, however long."""
        backlog, wanted = pool.tokens, request.prompt_tokens + request.max_tokens
        if not backlog or backlog + wanted <= self.most:
            return None
        return f"{backlog} tokens were under way, {wanted} more were wanted (max_backlog_tokens {self.most})"


@gates.register("tokens")
@dataclass(frozen=True)
class TokenGateSettings:
    """By the tokens under way."""

    max_backlog_tokens: int = setting(
        1_000_000,
        "tokens of prompts and allowed answers that may be under way over all engines",
        least=1,
        most=10**15,
        implies=True,
    )

    def gate(self) -> TokenGate:
        """Return a new gate."""
        return TokenGate(self.max_backlog_tokens)
