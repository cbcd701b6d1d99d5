"""KV cache on its way to and from a vLLM scheduler's blocks: who waits for it, and when the scheduler gets to know.

The worker looks what has come when a pass of the engine is launched (`get_finished` in
v1/worker/kv_connector_model_runner_mixin.py, 0.19), and the scheduler hears of it when that pass has ended::

    landed        ----------*
    passes        |A        |    |B        |C
    launched      A              B looks    C
    heard                                  end of B: the first decision that counts on it is C's

A pass that computes nothing is over at once, so an engine with nothing else to do loses no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from foundation.errors import InternalError
from foundation.records import dataclass
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.request import Request
from orchestrator.schedulers.ledger import Flight
from orchestrator.schedulers.vllm.connector import KVConnector
from orchestrator.schedulers.vllm.draft import Draft
from orchestrator.schedulers.vllm.entry import Entry, Status


@dataclass(slots=True, eq=False)
class RemoteKV:
    """See the module's docstring.

    - `fetching`: whose KV cache is on its way [WAITING_FOR_REMOTE_KVS], or was when they were given up;
    - `heard`: those of them that it is known to have come for [finished_recving_kv_req_ids];
    - `sending`: finished requests whose blocks are still read.
    """

    connector: KVConnector
    kv: KVStore
    fetching: dict[int, Entry] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)
    sending: dict[int, Entry] = field(default_factory=dict)
    _news: list[tuple[dict[int, Entry], int]] = field(default_factory=list)
    _carried: dict[int, list[tuple[dict[int, Entry], int]]] = field(default_factory=dict)

    @property
    def has_news(self) -> bool:
        """Whether the next pass will bring word of something."""
        return bool(self._news)

    def __post_init__(self) -> None:
        # vLLM gives layers with a window blocks for all tokens where there is a connector (config/vllm.py, 0.19).
        if self.kv.windowed:
            raise InternalError("a connector beside groups of layers that drop what leaves their windows")

    def landed(self, request: Request) -> None:
        """The KV cache of `request` is in its blocks."""
        self._note(self.fetching, request)

    def sent(self, request: Request) -> None:
        """The blocks of `request` are read."""
        self._note(self.sending, request)

    def took(self, draft: Draft, entry: Entry, local_tokens: int, tokens: int, *, asynchronous: bool) -> None:
        """`entry` has blocks for KV cache of so many tokens after those found here."""
        fetch = self.connector.took(entry, local_tokens, tokens)
        if asynchronous:
            entry.status, entry.computed = Status.FETCHING, local_tokens + tokens
            self.fetching[entry.request.id] = entry
        if fetch is not None:
            (draft.fetches if asynchronous else draft.loads).append(fetch)

    def arrives(self, entry: Entry) -> bool:
        """Whether `entry`, which awaits its KV cache, is known to have it; it may be admitted from now on.

        Of tokens that are all computed elsewhere the last is computed anew: nothing was sampled from it here.
        """
        number = entry.request.id
        if number not in self.heard:
            return False
        self.heard.remove(number)
        del self.fetching[number]
        self.kv.register(entry, entry.computed)
        entry.computed = min(entry.computed, entry.tokens - 1)
        entry.status = Status.PREEMPTED if entry.preemptions else Status.WAITING
        return True

    def keeps(self, entry: Entry, *, aborted: bool) -> bool:
        """Whether the blocks of `entry`, which is done, stay taken: something is read from them, or written to them."""
        number = entry.request.id
        if self.connector.finished(entry, aborted=aborted):
            self.sending[number] = entry
            return True
        if entry.status is Status.FETCHING and number in self.heard:
            self.heard.remove(number)
            del self.fetching[number]
            return False
        return entry.status is Status.FETCHING

    def launch(self, flight: Flight[Entry], now: int) -> Flight[Entry]:
        """Let a pass set out with what it fetches and looks up; one that does either is like no other."""
        batch = flight.batch
        if batch.fetches:
            self.connector.start(batch.fetches, now)
            flight.plain = False
        if self._news:
            self._carried[batch.serial], self._news = self._news, []
            flight.plain = False
        if self.connector.writes and flight.plain and batch.prompt_work()[0]:
            flight.plain = False  # the connector is told of prompts as they are computed
        return flight

    def computed(self, flight: Flight[Entry]) -> None:
        """A pass has ended: the connector may have what it computed of prompts, where it is still in its blocks.

        Of one that lost its place meanwhile, and has begun anew, only so much counts as no pass in flight computes.
        """
        batch = flight.batch
        if not (self.connector.writes and batch.prompt_work()[0]):
            return
        columns = flight.members, batch.context_tokens.tolist(), batch.new_tokens.tolist()
        for entry, context, new in zip(*columns, strict=True):
            prompt = entry.request.prompt_tokens
            if context >= prompt or entry.status is not Status.RUNNING:
                continue
            tokens = min(context + new, prompt)
            if entry.preemptions:
                tokens = min(tokens, entry.computed - entry.in_flight + new)
            if tokens > 0:
                self.connector.computed(entry, tokens)

    def ended(self, serial: int, now: int) -> None:
        """A pass has ended, and been accounted for: what it looked up is known."""
        self._hear(self._carried.pop(serial, ()))
        if self.connector.writes:
            self.connector.flush(now)

    def settle(self) -> None:
        """No pass will come any more: what none has looked up is known all the same."""
        self._hear(self._news)
        self._news = []

    def _hear(self, news: Sequence[tuple[dict[int, Entry], int]]) -> None:
        for kind, number in news:
            entry = kind[number]
            if entry.status is Status.FETCHING:
                self.heard.add(number)
                continue
            del kind[number]
            if number not in self.fetching and number not in self.sending:
                self.kv.release(entry)

    def _note(self, kind: dict[int, Entry], request: Request) -> None:
        if request.id not in kind:
            raise InternalError(f"KV cache of request {request.id} was moved, which nobody waits for")
        self._news.append((kind, request.id))
