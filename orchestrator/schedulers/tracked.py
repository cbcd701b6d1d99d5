"""What a scheduler knows of one request while it is waiting or running."""

from __future__ import annotations

from orchestrator.kv_memory.holder import Holder
from orchestrator.requests.admission import Admission


class Tracked(Holder):
    """A request under a policy. Its tokens and those in its KV cache are the holder's; `serial` is its place in line.

    One that comes with its prompt computed has its first output token as well: it goes on as a decode. `gone`: its
    client has aborted it.
    """

    __slots__ = ("gone",)

    def __init__(self, admission: Admission, serial: int) -> None:
        super().__init__(admission.request, serial)
        self.gone = False
        self.computed = admission.computed_tokens
        self.tokens = max(self.tokens, self.computed + 1)
