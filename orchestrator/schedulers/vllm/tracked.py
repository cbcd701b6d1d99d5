"""What the scheduler knows of one request while it is waiting or running."""

from __future__ import annotations

from enum import Enum

from orchestrator.kv_memory.prefix_chain import PrefixChain
from orchestrator.request import Request


class Status(Enum):
    """Where a request is. A preempted one waits again, its output kept and its KV blocks gone."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Tracked:
    """One request's counters, all in tokens. KV blocks hold its first `computed` tokens::

        0 ............... computed ........ room            tokens whose KV has a slot
        | blocks[0] | blocks[1] | ... | blocks[-1] |

    - `goal`: tokens that must be computed before the next one can be sampled (prompt, and after a preemption the
      output so far). While a request decodes, `computed` runs past it and it is of no more interest.
    - `limit`: `computed` after the request's last step; it is one less than its final length because the KV of
      the last token is never computed.
    - `next_full`: `computed` at which the next block can be registered for prefix caching.
    """

    __slots__ = (
        "blocks",
        "chain",
        "computed",
        "first_hit",
        "goal",
        "key",
        "limit",
        "next_full",
        "preemptions",
        "request",
        "room",
        "serial",
        "status",
    )

    def __init__(self, request: Request, serial: int, max_model_len: int, chain: PrefixChain | None) -> None:
        self.request = request
        self.serial = serial
        self.key = (request.priority, request.arrival_ns, request.name or str(request.id), serial)
        self.goal = request.prompt_tokens
        self.limit = min(request.prompt_tokens + request.output_tokens, max_model_len) - 1
        self.chain = chain
        self.status = Status.WAITING
        self.computed = 0
        self.blocks: list[int] = []
        self.room = 0
        self.next_full = 0
        self.preemptions = 0
        self.first_hit: int | None = None
