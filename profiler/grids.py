"""The sizes at which operators are timed: those of LLMServingSim's profiler, up to limits that a user gives."""

from __future__ import annotations

from collections.abc import Iterator

from foundation.records import dataclass

FIRST_SIZE = 16
"""The smallest chunk and context, from which sizes grow by a factor."""
ONE_BY_ONE, BY_FOUR, BY_SIXTEEN = 16, 64, 80
"""Tokens up to which every number is timed, every fourth, and from which every sixteenth is."""


@dataclass(frozen=True, slots=True)
class Grids:
    """Limits and factors.

    - `max_tokens`: tokens of one batch, and of one chunk of a prompt; `max_sequences`: requests of one batch;
    - `max_context`: tokens of a request in the KV cache;
    - `chunk_factor`, `context_factor`: by which chunks and contexts grow, from 16 on;
    - `max_cached`: tokens in the cache of all requests of a batch together (None: no limit of its own).
    """

    max_tokens: int = 2048
    max_sequences: int = 256
    max_context: int = 16384
    chunk_factor: float = 2.0
    context_factor: float = 2.0
    max_cached: int | None = None

    def tokens(self) -> tuple[int, ...]:
        """Return the sizes of operators over the tokens of a batch."""
        return _counted(self.max_tokens)

    def sequences(self) -> tuple[int, ...]:
        """Return the sizes of operators over sequences whose logits are needed."""
        return _counted(self.max_sequences)

    def contexts(self) -> tuple[int, ...]:
        """Return the contexts of a request, without 0."""
        return _growing(FIRST_SIZE, self.max_context, self.context_factor)

    def chunks(self) -> tuple[int, ...]:
        """Return the chunks of a prompt."""
        return _growing(FIRST_SIZE, self.max_tokens, self.chunk_factor)

    def attention(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield chunk, its context, decodes and their context, in the order of a bundle's rows."""
        contexts, counts = self.contexts(), _growing(1, self.max_sequences, 2.0)
        decodes = [(0, 0), *((count, context) for count in counts for context in contexts)]
        for chunk in (0, *self.chunks()):
            for past in (0, *contexts) if chunk else (0,):
                for count, context in decodes:
                    if (chunk or count) and (self.max_cached is None or past + count * context <= self.max_cached):
                        yield chunk, past, count, context

    def experts(self, count: int, per_token: int) -> Iterator[tuple[int, int]]:
        """Yield tokens and activated experts: of `count`, each token activating `per_token` different ones."""
        for tokens in _growing(1, self.max_tokens, 2.0):
            for active in _growing(per_token, count, 2.0):
                if active <= tokens * per_token:
                    yield tokens, active


def _counted(most: int) -> tuple[int, ...]:
    sizes = {*range(1, ONE_BY_ONE + 1), *range(ONE_BY_ONE, BY_FOUR + 1, 4), *range(BY_SIXTEEN, most + 1, 16), most}
    return tuple(sorted(size for size in sizes if size <= most))


def _growing(first: int, most: int, factor: float) -> tuple[int, ...]:
    """Return sizes from `first` to `most`, both of them in, each `factor` times the one before."""
    sizes, size = [], float(first)
    while size < most:
        sizes.append(int(size))
        size *= factor
    return tuple(dict.fromkeys([*sizes, most]))
