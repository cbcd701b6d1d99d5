"""What a client of a real server sees besides the engine (`--client`), a kind of server a file.

    before    the request's way to the engine: HTTP, and making tokens of the prompt
    after     a token's way back: making text of it, and sending it

These are added to the engine's own times, in columns and figures of their own; nothing else changes. To add a kind, put
a module into this package that registers a record of its settings under a name, with a method that returns its
`ClientTerms`. All load lightly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from numpy import int64
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClientTerms:
    """Times (ns) outside of the engine: `request_ns` a request, `token_ns` a prompt token, `return_ns` a token back."""

    request_ns: int
    token_ns: int
    return_ns: int

    def outside_ns(self, prompt_tokens: NDArray[int64]) -> NDArray[int64]:
        """Return what a client waits for its first token, and for its last, beyond the engine's time."""
        return self.request_ns + self.token_ns * prompt_tokens + self.return_ns


class ClientSettings(Protocol):
    """The settings of a kind of server."""

    def terms(self) -> ClientTerms:
        """Return its times."""


clients: Registry[type[ClientSettings]] = Registry("kind of client", package="orchestrator.clients")
