"""What clients do: how many are at work at once, how long they wait, and what is retrieved for their requests."""

from __future__ import annotations

from collections.abc import Iterator

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem

MOST_CLIENTS = 1_000_000
MOST_TIME_NS = 10**15
"""Some eleven days."""
_CLOSED_BOTH = "a run has one or the other"


@dataclass(frozen=True)
class TrafficSettings:
    """Clients, and the retrieval before the engines."""

    max_concurrency: int | None = setting(
        None,
        "requests under way at most; the next one is sent when an answer is there, but not before its arrival time",
        least=1,
        most=MOST_CLIENTS,
        shown_default="no limit",
    )
    clients: int | None = setting(
        None,
        "clients that send the requests in turn, each when it has had its answer; arrival times do not count",
        least=1,
        most=MOST_CLIENTS,
        shown_default="none: requests come at their arrival times",
    )
    think_time: int | None = setting(
        None,
        "time from an answer to the client's next request, with --clients",
        unit="ns",
        least=0,
        most=MOST_TIME_NS,
        shown_default="0",
    )
    client_timeout: float | None = setting(
        None,
        "time from arrival after which a client without its complete answer goes away",
        unit="s",
        above=0,
        most=MOST_TIME_NS / 1e9,
        shown_default="clients wait",
    )
    ttft_timeout: float | None = setting(
        None,
        "time from arrival after which a client without its first token goes away",
        unit="s",
        above=0,
        most=MOST_TIME_NS / 1e9,
        shown_default="clients wait",
    )
    rag_latency: int | None = setting(
        None,
        "time that retrieval takes before a request reaches the engines, however many there are",
        unit="ns",
        least=0,
        most=MOST_TIME_NS,
        shown_default="no retrieval",
    )
    rag_service: int | None = setting(
        None,
        "time that a retrieval server takes for a request; others queue",
        unit="ns",
        least=0,
        most=MOST_TIME_NS,
        shown_default="no retrieval",
    )
    rag_servers: int | None = setting(
        None, "retrieval servers, with --rag_service", least=1, most=MOST_CLIENTS, shown_default="1"
    )
    rag_tokens: int | None = setting(
        None, "tokens that retrieval adds to every prompt", least=0, most=10**6, shown_default="0"
    )

    @property
    def closed(self) -> bool:
        """Whether clients wait for answers before they send more: then no queue grows without end."""
        return self.clients is not None or self.max_concurrency is not None

    @property
    def described(self) -> list[str]:
        """What differs from requests that come at their times, each in a few words."""
        said = {
            f"at most {self.max_concurrency} requests under way": self.max_concurrency,
            f"clients: {self.clients}, each sends {(self.think_time or 0) / 1e6:g} ms after an answer": self.clients,
            f"clients wait {self.client_timeout} s for an answer": self.client_timeout,
            f"clients wait {self.ttft_timeout} s for a first token": self.ttft_timeout,
            f"retrieval takes {(self.rag_latency or 0) / 1e6:g} ms": self.rag_latency,
            f"retrieval servers: {self.rag_servers or 1}, {(self.rag_service or 0) / 1e6:g} ms a request": (
                self.rag_service
            ),
            f"retrieval adds {self.rag_tokens} tokens to a prompt": self.rag_tokens,
        }
        return [words for words, value in said.items() if value is not None]

    def problems(self) -> Iterator[Problem]:
        """What belongs to something stands beside it, and nothing is said twice."""
        if self.clients is not None and self.max_concurrency is not None:
            yield Problem("max_concurrency", "conflicts with --clients", _CLOSED_BOTH)
        if self.think_time is not None and self.clients is None:
            yield Problem("think_time", "there are no clients", "give --clients, or leave it out")
        if self.rag_latency is not None and self.rag_service is not None:
            yield Problem("rag_service", "conflicts with --rag_latency", _CLOSED_BOTH)
        if self.rag_servers is not None and self.rag_service is None:
            yield Problem("rag_servers", "what a server takes is not said", "give --rag_service")
