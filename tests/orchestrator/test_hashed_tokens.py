"""Hashes of blocks in place of token ids: every KV memory finds by them what it finds by ids that are shared alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import RunSpec, Simulation
from orchestrator.kv_memory.prefix_chain import PrefixChain
from orchestrator.kv_memory.radix_tree import RadixTree
from orchestrator.request_table import BlockHashes, RequestTable
from orchestrator.requests.formats.mooncake import BLOCK
from orchestrator.requests.hashed_tokens import MOST_BLOCK, MOST_HASH, HashedTokens


def real_ids(hashes: Sequence[int], block: int, tokens: int) -> list[int]:
    """Return made-up ids: equal at a place of a block iff its hash is equal."""
    found: list[int] = []
    for one in hashes:
        found += [Random(f"{one}/{at}").randrange(2**31) for at in range(block)]
    return found[:tokens]


@settings(derandomize=True)
@given(st.lists(st.integers(0, MOST_HASH), min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_a_sequence_like_any_other(hashes: list[int], block: int, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(block * (len(hashes) - 1) + 1, block * len(hashes)))
    ids = HashedTokens(hashes, block, tokens)
    plain = [one * block + at for one in hashes for at in range(block)][:tokens]
    assert (list(ids), len(ids), ids[-1], ids[0]) == (plain, tokens, plain[-1], plain[0])
    place = data.draw(st.slices(tokens))
    assert list(ids[place]) == plain[place]
    with pytest.raises(IndexError):
        ids[tokens]


def test_ids_fit_into_64_bits() -> None:
    assert max(HashedTokens([MOST_HASH], MOST_BLOCK, MOST_BLOCK)) == 2**63 - 1


PROMPTS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(1, 6)), min_size=2, max_size=5
)


@settings(derandomize=True)
@given(PROMPTS, st.integers(1, 10))
def test_prefixes_are_found_as_by_ids(prompts: list[tuple[list[int], int]], size: int) -> None:
    """Blocks of the cache that divide those of the hashes, and others; and pages of a radix tree."""
    block = 6
    pairs = []
    for hashes, last in prompts:
        tokens = block * (len(hashes) - 1) + last
        pairs.append((HashedTokens(hashes, block, tokens), real_ids(hashes, block, tokens)))
    chains = [tuple(PrefixChain(known, size) for known in pair) for pair in pairs]
    seen: tuple[set[bytes], set[bytes]] = (set(), set())
    trees = RadixTree(size), RadixTree(size)
    for pair, chain in zip(pairs, chains, strict=True):
        hits = []
        for side in range(2):
            own = [chain[side].hash(at) for at in range(chain[side].blocks)]
            found = next((at for at, one in enumerate(own) if one not in seen[side]), len(own))
            key = np.array(pair[side][:], dtype=np.int64)
            hits.append((found, trees[side].match(key)[1], trees[side].insert(key)))
            seen[side].update(own)
        assert hits[0] == hits[1]


def test_rows_keep_their_hashes(tmp_path: Path) -> None:
    from array import array

    columns = BlockHashes(array("q", [7, 8, 9]), np.array([0, 2, 2]), np.array([2, 2, 3]), np.array([6, 5, 2]), 4)
    ones = np.ones(3, dtype=np.int64)
    table = RequestTable(np.arange(3), columns.prompt_tokens, ones, np.array([2, 1, 0]), ones, prompt_ids=columns)
    ids = [one.prompt_token_ids and list(one.prompt_token_ids) for one in table.in_arrival_order()]
    assert ids == [[36, 37], None, [28, 29, 30, 31, 32, 33]]
    longer = [one.prompt_token_ids for one in table.with_retrieved(3)]
    assert longer[0] is not None and len(longer[0]) == 6


SETTINGS = {
    "vllm": {"scheduling": "vllm", "block_size": 16},
    "vllm, other blocks": {"scheduling": "vllm", "block_size": 48},
    "sglang": {"scheduling": "sglang"},
    "routed": {"scheduling": "vllm", "instances": 2, "router": "prefix-aware", "cache_threshold": 0.1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_by_hashes_is_the_run_by_ids(name: str, tmp_path: Path) -> None:
    """A Mooncake trace against the same requests with ids: same times; and another run than without either."""
    draws, by_hash, by_id, bare = Random(3), [], [], []
    for at in range(16):
        hashes = [draws.randrange(2) for _ in range(draws.randrange(1, 3))]
        tokens = min(BLOCK * (len(hashes) - 1) + draws.randrange(1, BLOCK + 1), 900)
        times = {"output_length": 4 + at % 3, "input_length": tokens, "timestamp": 8 * at}
        by_hash.append(json.dumps({**times, "hash_ids": hashes}))
        bare.append(json.dumps(times))
        toks = {"input_toks": tokens, "output_toks": 4 + at % 3, "arrival_time_ns": 8_000_000 * at}
        by_id.append(json.dumps({**toks, "input_tok_ids": real_ids(hashes, BLOCK, tokens)}))
    ends = []
    for lines in (by_hash, by_id, bare):
        path = tmp_path / "w.jsonl"
        path.write_text("\n".join(lines))
        result = Simulation(RunSpec.of(model_name="gpt2", dataset=path, **SETTINGS[name])).run()
        ends.append(result.requests.to_csv())
    assert ends[0] == ends[1] != ends[2]
