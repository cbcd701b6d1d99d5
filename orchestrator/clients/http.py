"""`--client http`: an OpenAI-like HTTP server in front of the engine, such as `vllm serve`."""

from __future__ import annotations

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.clients import ClientTerms, clients

MOST = 1e6


@clients.register("http")
@dataclass(frozen=True)
class HttpSettings:
    """Estimates for a server that is not short of processors, to be replaced by what was measured."""

    client_request_ms: float = setting(
        1.0, "way of a request to the engine: HTTP and checks", unit="ms", least=0, most=MOST
    )
    client_token_us: float = setting(1.0, "making a token of a prompt's text", unit="us", least=0, most=MOST)
    client_return_ms: float = setting(0.5, "way of a token back: its text, and HTTP", unit="ms", least=0, most=MOST)

    def terms(self) -> ClientTerms:
        """See `orchestrator.clients.ClientSettings`."""
        return ClientTerms(
            round(self.client_request_ms * 1e6), round(self.client_token_us * 1e3), round(self.client_return_ms * 1e6)
        )
