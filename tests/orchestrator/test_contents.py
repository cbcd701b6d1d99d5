"""Contents of KV blocks as numbers are alike where their hashes are; columns of ids are those of rows."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator import RunSpec
from orchestrator.engine.compiled import contents
from orchestrator.kv_memory.prefix_chain import PrefixChain, known_tokens
from orchestrator.request_source import read_workload_of
from orchestrator.request_table import BlockHashes, Ids, RequestTable, TokenIds
from orchestrator.requests.generators.token_ids import hashed, many_hashed
from orchestrator.requests.request import Request
from tests.helpers.two_ways import both_ways

WAYS = both_ways(contents.__name__)
ROW = st.tuples(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=12))


def table_of(rows: list[tuple[list[int], list[int]]]) -> RequestTable:
    """Return requests of (prompt, answer); a prompt of no ids is of ten unknown tokens."""
    requests = [Request(number, number, len(p) or 10, len(o) or 1) for number, (p, o) in enumerate(rows)]
    ids, answers = TokenIds.of(p for p, _ in rows), TokenIds.of(o for _, o in rows)
    return replace(RequestTable.of(requests), prompt_ids=ids, output_ids=answers)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=25), size=st.integers(1, 5), cut=st.integers(0, 25))
def test_numbers_are_alike_where_hashes_are(
    way: str, rows: list[tuple[list[int], list[int]]], size: int, cut: int
) -> None:
    """Whether requests come one by one or as columns."""
    module: ModuleType = WAYS[way]
    table, numbering = table_of(rows), module.Contents(size)
    first = [numbering.of(request).tolist() for request in list(table)[:cut]]
    numbers, counts = numbering.of_rows(table)
    split = [one.tolist() for one in np.split(numbers, np.cumsum(counts))[:-1]]
    assert split[:cut] == first
    hashes = [PrefixChain(known_tokens(request), size) for request in table]
    assert [len(one) for one in split] == [chain.blocks for chain in hashes]
    pairs = {(n, chain.hash(at)) for one, chain in zip(split, hashes, strict=True) for at, n in enumerate(one)}
    assert len({number for number, _ in pairs}) == len({one for _, one in pairs}) == len(pairs)
    assert {number for number, _ in pairs} == set(range(1, len(pairs) + 1))


@pytest.mark.parametrize("way", WAYS)
def test_many_contents_have_room(way: str) -> None:
    """Tables grow, with contents and with how many requests begin unlike any other, and nothing is forgotten by it."""
    draw = np.random.default_rng(1)
    rows = [(draw.integers(0, 50_000, 40).tolist(), [1]) for _ in range(900)]
    numbering = WAYS[way].Contents(2)
    before = numbering.of_rows(table_of(rows))[0].tolist()
    assert before == list(range(1, len(before) + 1))
    assert numbering.of_rows(table_of(rows))[0].tolist() == before


def test_wrong_counts_are_told() -> None:
    table = replace(table_of([([1, 2, 3], [1])]), prompt_tokens=np.array([4]))
    with pytest.raises(UserError, match="3 prompt token ids for 4 prompt tokens"):
        contents.Contents(2).of_rows(table)


def assert_flat(ids: Ids, count: int) -> None:
    values, bounds = ids.flat()
    assert values.dtype == bounds.dtype == np.int64
    for place, (begin, end) in enumerate(bounds.tolist()):
        assert values[begin:end].tolist() == list(ids.row(place) or ())
    assert len(bounds) == count


def test_ids_of_all_rows_are_those_of_each() -> None:
    table = table_of([([5, 6, 7], [1, 2]), ([], []), ([8], [9])])
    assert table.prompt_ids is not None
    assert_flat(table.prompt_ids, 3)
    assert_flat(table.prompt_ids.at(np.array([2, 0])), 2)
    hashes = BlockHashes(
        TokenIds.of([[7, 2, 9], [], [4]]).values, np.array([0, 3, 3]), np.array([3, 3, 4]), np.array([10, 5, 2]), 4
    )
    assert_flat(hashes, 3)
    assert_flat(hashes.at(np.array([2, 1, 0])), 3)


@pytest.mark.parametrize("way", ["compiled", "plain"])
def test_generated_ids_of_all_rows(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.requests.generators.token_ids.compiles", lambda: way == "compiled")
    if way == "compiled":
        pytest.importorskip("numba")
    given = {"prefix_len": 50, "prefix_groups": 3, "prefix_depth": 2, "prefix_share": 0.7, "num_prompts": 20}
    table = read_workload_of(RunSpec.of(model_name="gpt2", random_output_len=9, **given).workload).requests
    assert table.prompt_ids is not None and table.output_ids is not None
    for ids in (table.prompt_ids, table.output_ids):
        assert_flat(ids, 20)
        assert_flat(ids.at(np.array([7, 3])), 2)
    keys = [5, 2**64 - 1, 77]
    assert many_hashed(keys, [3, 0, 9]).tolist() == [*hashed(5, 3).tolist(), *hashed(77, 9).tolist()]
