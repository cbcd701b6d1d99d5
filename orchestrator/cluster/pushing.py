"""Layer-wise transfers: KV cache leaves layer by layer while the prompt is being computed.

    prefill   |layer 0 |layer 1 |layer 2 |layer 3 |          a chunk of a prompt on one stage
    link               |   0    |   1    |   2    |   3    |

The decode engine is chosen and has blocks before the prompt is computed, and the prefill engine writes into them: vLLM
pull request 37686 (layer-wise push for its MooncakeConnector), vllm-ascend's `MooncakeLayerwiseConnector`. A layer is
ready by the trace's own times, scaled to when the stage began and ended. What a pass has sent is known when that ends.
Every layer is taken to keep as many bytes of a token.
"""

from __future__ import annotations

from foundation.records import dataclass
from orchestrator.cluster.peer import Peer
from orchestrator.cluster.resources import send
from orchestrator.engine.records import CompletedBatch
from orchestrator.pricing.layers import StageLayers
from orchestrator.requests.request import Request


@dataclass(slots=True, eq=False)
class Push:
    """The KV cache of a prompt on its way, `bytes` in all, of which `sent` have left; `computed` of its tokens are."""

    request: Request
    source: Peer
    target: Peer
    bytes: int
    first_token: int
    computed: int = 0
    sent: int = 0
    ready_ns: int = -1
    began_ns: int = -1
    came_ns: int = -1

    def reach(self, computed: int, done: CompletedBatch, layers: list[StageLayers], latency_ns: int) -> None:
        """A pass has computed the first `computed` tokens of the prompt, or of what was lost of it anew."""
        wanted = self.request.prompt_tokens - self.first_token
        reached = self.bytes * max(0, min(computed, self.request.prompt_tokens) - self.first_token) // wanted
        before, more, count = self.sent, max(0, reached - self.sent), sum(len(stage.done) for stage in layers)
        place = 0
        begins, ends = done.stages_ns[0].tolist()
        for stage, begin, end in zip(layers, begins, ends, strict=True):
            for spent in stage.done:
                place += 1
                ready = begin + (end - begin) * spent // stage.total
                self._send(before + more * place // count - self.sent, ready, latency_ns)

    def _send(self, amount: int, ready_ns: int, latency_ns: int) -> None:
        if amount <= 0:
            return
        passage = send((self.source.out, self.target.into), amount, ready_ns, latency_ns)
        if self.began_ns < 0:
            self.ready_ns, self.began_ns = ready_ns, passage.began_ns
        self.sent += amount
        self.came_ns = passage.came_ns
