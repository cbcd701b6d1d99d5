"""`--router prefix-hash`: prompts that begin alike go to the same engine, while it has not too much to do.

Consistent hashing with bounded loads (V. Mirrokni, M. Thorup and M. Zadimoghaddam, SODA 2018), over rendezvous hashing
(D. Thaler and C. Ravishankar, IEEE/ACM ToN 6(1), 1998): the first tokens of a prompt give every engine a rank, and the
first one gets the request that has fewer than `prefix_load_factor` times the mean of all, the new request included.
When an engine comes or goes, only those prompts move that it gains or had. KubeAI's PrefixHash and SGLang's
`prefix_hash` are routers of the kind. Nothing is asked of the engines but how many requests they have.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.fewest import Turns, outstanding
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class PrefixHash:
    """See the module's docstring. Prompts whose tokens are not known go where the fewest requests are.

    `tokens` of a prompt count; the adapter does, too, since what different adapters compute is not shared.
    """

    def __init__(self, tokens: int, load_factor: float) -> None:
        self._tokens = tokens
        self._load_factor = load_factor
        self._turns = Turns()

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        loads = [outstanding(engine, now) for engine in engines]
        if request.prompt_token_ids is None:
            return self._turns.least(engines, loads)
        most = self._load_factor * (sum(loads) + 1) / len(engines)
        key = self._key(request)
        free = [place for place, load in enumerate(loads) if load < most]
        return max(free, key=lambda place: (_rank(key, engines[place].number), -place))

    def _key(self, request: Request) -> bytes:
        beginning = array("q", request.prompt_token_ids[: self._tokens]).tobytes()
        return blake2b((request.adapter or "").encode() + b"\0" + beginning, digest_size=16).digest()


def _rank(key: bytes, number: int) -> bytes:
    return blake2b(key + number.to_bytes(8, "big"), digest_size=8).digest()


@routers.register("prefix-hash")
@dataclass(frozen=True)
class PrefixHashSettings:
    """Prompts that begin alike go together."""

    prefix_hash_tokens: int = setting(256, "leading tokens of a prompt that count", least=1)
    prefix_load_factor: float = setting(
        1.25, "requests of an engine below which it gets more, as a multiple of the mean", least=1
    )

    def router(self, place: RouterPlace) -> PrefixHash:
        """Return a new router."""
        return PrefixHash(self.prefix_hash_tokens, self.prefix_load_factor)
