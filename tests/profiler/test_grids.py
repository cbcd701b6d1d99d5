"""The sizes that are timed: bounded, in order, each once, and with all that a bundle needs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.grids import Grids

some_grids = st.builds(
    Grids,
    max_tokens=st.integers(1, 3000),
    max_sequences=st.integers(1, 300),
    max_context=st.integers(1, 20000),
    chunk_factor=st.floats(1.1, 16),
    context_factor=st.floats(1.3, 16),
    max_cached=st.none() | st.integers(20000, 400000),
)


@settings(max_examples=60, deadline=None)
@given(some_grids)
def test_sizes_grow_to_the_limit(grids: Grids) -> None:
    for sizes, most in (
        (grids.tokens(), grids.max_tokens),
        (grids.sequences(), grids.max_sequences),
        (grids.contexts(), grids.max_context),
        (grids.chunks(), grids.max_tokens),
    ):
        assert list(sizes) == sorted(set(sizes)) and sizes[-1] == most and sizes[0] >= 1


@settings(max_examples=25, deadline=None)
@given(some_grids.filter(lambda grids: grids.chunk_factor > 1.6 and grids.context_factor > 1.6))
def test_attention_has_prompts_decodes_and_both_within_the_cache(grids: Grids) -> None:
    rows = list(grids.attention())
    assert len(rows) == len(set(rows))
    assert any(chunk and not count for chunk, _, count, _ in rows)
    assert any(count and not chunk for chunk, _, count, _ in rows)
    assert any(count and chunk for chunk, _, count, _ in rows)
    for chunk, past, count, context in rows:
        assert chunk <= grids.max_tokens and count <= grids.max_sequences
        assert bool(count) == bool(context) and (chunk or not past)
        assert max(past, context) <= grids.max_context
        assert grids.max_cached is None or past + count * context <= grids.max_cached


def test_the_grid_of_llmservingsims_profiler() -> None:
    grids = Grids()
    assert grids.chunks() == (16, 32, 64, 128, 256, 512, 1024, 2048)
    assert grids.contexts() == (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    assert grids.tokens()[:18] == (*range(1, 17), 20, 24) and grids.tokens()[-2:] == (2032, 2048)


@given(st.integers(1, 600), st.integers(1, 64), st.integers(1, 8))
def test_experts_are_as_many_as_copies_reach(max_tokens: int, more: int, per_token: int) -> None:
    rows = list(Grids(max_tokens=max_tokens).experts(per_token + more, per_token))
    assert rows and len(rows) == len(set(rows))
    for tokens, active in rows:
        assert per_token <= active <= min(tokens * per_token, per_token + more)
    assert max_tokens in {tokens for tokens, _ in rows}
