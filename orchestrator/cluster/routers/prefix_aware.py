"""`--router prefix-aware`: the engine whose KV cache holds most of the prompt, unless loads differ too much.

The rule is that of the cache-aware policy of SGLang's router (`cache_aware`), thresholds and their defaults included:

- where the most requests that an engine has exceed the fewest by more than `balance_abs_threshold`, and are more than
  `balance_rel_threshold` times as many, the engine with the fewest gets the request;
- else, where the longest prefix that an engine holds is more than `cache_threshold` of the prompt, one that holds it
  does, of several the one with the fewest requests;
- else the one with the fewest requests.

SGLang's router guesses what engines hold by a tree of what it has sent them, or follows their KV events; here the
engines are asked, as of the very moment: what they find is what an admission at that moment would find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.fewest import Turns, outstanding
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


@routers.register("prefix-aware")
@dataclass(frozen=True)
class PrefixAwareSettings:
    """The longest prefix that is cached, with a guard of loads."""

    cache_threshold: float = setting(
        0.3, "share of a prompt that an engine must hold more of to be preferred", least=0, most=1
    )
    balance_abs_threshold: int = setting(
        64, "loads are balanced first where they differ by more", unit="requests", least=0
    )
    balance_rel_threshold: float = setting(1.5, "and where the highest is more times the lowest", least=1)

    def router(self, place: RouterPlace) -> PrefixAware:
        """Return a new router."""
        return PrefixAware(self)


class PrefixAware:
    """See the module's docstring. Among equal engines the next in turn."""

    def __init__(self, settings: PrefixAwareSettings) -> None:
        self._settings = settings
        self._turns = Turns()

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        given = self._settings
        loads: list[float] = [outstanding(engine, now) for engine in engines]
        most, fewest = max(loads), min(loads)
        balanced = most - fewest <= given.balance_abs_threshold or most <= given.balance_rel_threshold * fewest
        if balanced and request.prompt_token_ids is not None:
            cached = [engine.cached_tokens(request, now) for engine in engines]
            longest = max(cached)
            if longest > given.cache_threshold * request.prompt_tokens:
                loads = [load if tokens == longest else most + 1 for load, tokens in zip(loads, cached, strict=True)]
        return self._turns.least(engines, loads)
