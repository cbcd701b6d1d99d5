"""Prompts that begin alike: system prompts, tools' descriptions, documents that many ask about.

Prefixes are the leaves of a tree: at each of `prefix_depth` levels a node has `prefix_groups` children, and each level
has an equal part of the prefix's tokens. Requests of one leaf share the whole prefix, others what their leaves have in
common. With one level there are `prefix_groups` prefixes that share nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import MOST_TOKENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.streams import Stream

_MOST_LEAVES = 2**53
NO_PREFIX = -1


@dataclass(frozen=True)
class PrefixSettings:
    """What the prompts of a client share; a prefix comes before the prompt's own tokens."""

    prefix_len: int = setting(
        0,
        "tokens that a shared prefix adds to a prompt",
        unit="tokens",
        least=0,
        most=MOST_TOKENS,
        aliases=("random_prefix_len",),
    )
    prefix_groups: int | None = setting(
        None, "different prefixes; with several levels, those below each", least=1, most=10**6, shown_default="1"
    )
    prefix_depth: int | None = setting(
        None, "levels of prefixes, each with an equal part of the tokens", least=1, most=64, shown_default="1"
    )
    prefix_share: float | None = setting(
        None, "share of requests that have a prefix", least=0, most=1, shown_default="1"
    )
    prefix_skew: float | None = setting(
        None, "exponent of Zipf's law by which prefixes are chosen; 0: all as likely", least=0, most=20,
        shown_default="0",
    )  # fmt: skip

    def problems(self) -> Iterator[Problem]:
        """There is a prefix to speak of, and a leaf has a number."""
        given = ("prefix_groups", "prefix_depth", "prefix_share", "prefix_skew")
        for name in given:
            if not self.prefix_len and getattr(self, name) is not None:
                yield Problem(name, "there is no shared prefix", "give --prefix_len, or leave it out")
        if self.groups**self.depth > _MOST_LEAVES:
            yield Problem("prefix_depth", f"{self.groups} prefixes below each of {self.depth} levels", "give fewer")
        if self.prefix_len and self.depth > self.prefix_len:
            yield Problem("prefix_depth", f"{self.depth} levels of {self.prefix_len} tokens", "give more --prefix_len")

    @property
    def groups(self) -> int:
        """Children of a node."""
        return self.prefix_groups or 1

    @property
    def depth(self) -> int:
        """Levels."""
        return self.prefix_depth or 1

    def leaves(self, chosen: Stream, shared: Stream, count: int) -> NDArray[np.int64]:
        """Return the leaf of each of the next `count` sessions, `NO_PREFIX` of those without."""
        import numpy as np

        from orchestrator.requests.generators.lengths.zipf import zipf_ranks

        leaf = np.zeros(count, dtype=np.int64)
        drawn = chosen.uniforms(count * self.depth).reshape(count, self.depth)
        for level in range(self.depth):
            leaf = leaf * self.groups + zipf_ranks(drawn[:, level], self.groups, self.prefix_skew or 0.0)
        share = 1.0 if self.prefix_share is None else self.prefix_share
        return np.where(shared.uniforms(count) < share, leaf, NO_PREFIX)

    def nodes(self, leaf: int) -> list[tuple[int, int, int]]:
        """Return the nodes on the way to a leaf: level, number within the level, tokens."""
        parts = [self.prefix_len * level // self.depth for level in range(self.depth + 1)]
        return [
            (level, leaf // self.groups ** (self.depth - 1 - level), parts[level + 1] - parts[level])
            for level in range(self.depth)
        ]
