"""The contract of a KV connector: where a vLLM scheduler may get KV cache from that it did not compute.

As vLLM's `KVConnectorBase_V1` on the scheduler's side (0.19, vllm/distributed/kv_transfer/kv_connector/v1/base.py); its
names are in brackets. The scheduler asks in this order:

    matched(entry, local_tokens)     [get_num_new_matched_tokens]  each time that a request without KV may be admitted
    took(entry, tokens)              [update_state_after_alloc]    it has got blocks, for those tokens as well
    start(fetches, now)              [build_connector_meta]        the decision is made: what it took sets out
    computed(entry, tokens)          [build_connector_meta]        so much of its prompt is computed: it may be written
    finished(entry, aborted)         [request_finished]            it is done: may its blocks go?
    flush(now)                       [get_finished]                a batch is accounted for: what is written sets out

and is told, by whoever moves the cache: `VllmScheduler.landed` [finished_recving] and `VllmScheduler.sent`
[finished_sending]. A connector that keeps a request's blocks must say so once they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from orchestrator.schedulers.vllm.entry import Entry
    from trace_gen.batch_shape import KVTransfer


class Match(NamedTuple):
    """KV cache elsewhere: of how many tokens after those found here, and whether it comes while others are computed.

    What is not `asynchronous` is there when the step that takes it begins to compute; none is never asynchronous.
    """

    tokens: int
    asynchronous: bool


NO_MATCH = Match(0, asynchronous=False)


class KVConnector(Protocol):
    """See the module's docstring. Tokens count from where the KV cache found on this engine ends.

    `writes`: it is told what is computed here (`computed`, `flush`); one that is not derives from this, and leaves both
    as they are.
    """

    writes: ClassVar[bool] = False

    def matched(self, entry: Entry, local_tokens: int) -> Match | None:
        """Return what could be had beyond `local_tokens` tokens; None: not known yet, ask again at the next decision.

        All known tokens at most; of one token only once. It may be asked again before anything is taken, and after the
        request lost its place.
        """

    def took(self, entry: Entry, local_tokens: int, tokens: int) -> KVTransfer | None:
        """Blocks are there for the `tokens` tokens after the first `local_tokens` (0: nothing is fetched).

        Return what will be moved, if anything is.
        """

    def start(self, fetches: Sequence[KVTransfer], now: int) -> None:
        """Set out what was taken asynchronously by the decision made at `now` (ns)."""

    def computed(self, entry: Entry, tokens: int) -> None:
        """The KV cache of the first `tokens` tokens of `entry`, all of its prompt, is in its blocks."""
        return

    def finished(self, entry: Entry, *, aborted: bool) -> bool:
        """A request is done. True: its blocks are still read; `VllmScheduler.sent` will say when they no longer are."""

    def flush(self, now: int) -> None:
        """A batch has been accounted for at `now` (ns), in which requests were `computed` and have `finished`."""
        return
