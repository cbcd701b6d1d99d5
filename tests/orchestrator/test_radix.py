"""The radix tree against a slow twin that knows no nodes, and the KV memory on top of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import InternalError
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.radix import RadixKV
from orchestrator.kv_memory.radix_tree import Node, RadixTree
from orchestrator.kv_memory.store import KVSpace
from orchestrator.requests.request import Request
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.orca import OrcaScheduler
from orchestrator.schedulers.tracked import Tracked
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import Run

Ids = tuple[int, ...]
KEYS = st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["insert", "match", "lock"]), KEYS),
        st.tuples(st.sampled_from(["unlock", "evict"]), st.integers(0, 12)),
    ),
    min_size=8,
    max_size=40,
)


@dataclass
class Piece:
    """A node, as the twin sees it: when it was used, and how often it is locked."""

    used: int
    locks: int = 0


@dataclass
class Twin:
    """Every prefix of whole pages that is stored, and the run of pages that it belongs to."""

    page: int
    clock: int = 0
    runs: dict[Ids, Piece] = field(default_factory=dict)

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def whole(self, key: Ids) -> list[Ids]:
        return [key[:end] for end in range(self.page, len(key) + 1, self.page)]

    def members(self, run: Piece) -> list[Ids]:
        return sorted((prefix for prefix, other in self.runs.items() if other is run), key=len)

    def walk(self, key: Ids) -> list[Ids]:
        now = self.tick()
        found = [prefix for prefix in self.whole(key) if prefix in self.runs]
        for prefix in found:
            self.runs[prefix].used = now
        if found:
            last = self.runs[found[-1]]
            upper = [prefix for prefix in self.members(last) if len(prefix) <= len(found[-1])]
            if len(upper) < len(self.members(last)):
                split = Piece(self.tick(), last.locks)
                self.runs.update(dict.fromkeys(upper, split))
        return found

    def insert(self, key: Ids) -> int:
        found = self.walk(key)
        rest = self.whole(key)[len(found) :]
        if rest:
            self.runs.update(dict.fromkeys(rest, Piece(self.tick())))
        return len(found) * self.page

    def lock(self, prefix: Ids, by: int) -> None:
        for run in {id(run): run for run in (self.runs[one] for one in self.whole(prefix))}.values():
            run.locks += by

    def leaves(self) -> list[Piece]:
        inner = {id(self.runs[prefix[: -self.page]]) for prefix in self.runs if len(prefix) > self.page}
        ends = {id(run): self.members(run)[-1] for run in self.runs.values()}
        return [
            run
            for run in {id(run): run for run in self.runs.values()}.values()
            if not run.locks and (id(run) not in inner or not any(p[: -self.page] == ends[id(run)] for p in self.runs))
        ]

    def evict(self, tokens: int) -> int:
        gone = 0
        while gone < tokens and (leaves := self.leaves()):
            run = min(leaves, key=lambda leaf: leaf.used)
            for prefix in self.members(run):
                del self.runs[prefix]
                gone += self.page
        return gone

    def size(self, *, locked: bool) -> int:
        return self.page * sum(bool(run.locks) is locked for run in self.runs.values())


@pytest.mark.parametrize("page", [1, 2, 3])
def test_the_tree_is_its_slow_twin(page: int) -> None:
    @reaches(0.3, examples=300, actions=ACTIONS)
    def compare(reached: Reached, actions: list[tuple[str, Any]]) -> None:
        tree, twin = RadixTree(page), Twin(page)
        locked: list[tuple[Node, Ids]] = []
        evicted = 0
        for action, operand in actions:
            if action == "insert":
                assert tree.insert(np.array(operand)) == twin.insert(operand)
            elif action == "match":
                assert tree.match(np.array(operand))[1] == len(twin.walk(operand)) * page
            elif action == "lock":
                node, found = tree.match(np.array(operand))
                assert found == len(twin.walk(operand)) * page
                tree.lock(node)
                twin.lock(operand[:found], 1)
                locked.append((node, operand[:found]))
            elif action == "unlock" and locked:
                node, prefix = locked.pop(operand % len(locked))
                tree.unlock(node)
                twin.lock(prefix, -1)
            elif action == "evict":
                gone = tree.evict(operand)
                assert gone == twin.evict(operand)
                evicted += gone
            assert (tree.evictable, tree.protected) == (twin.size(locked=False), twin.size(locked=True))
        if evicted:
            reached()

    compare()


def test_the_least_recently_used_leaf_goes_first_and_whole() -> None:
    tree = RadixTree()
    for key in ([1, 2, 3, 4], [1, 2, 5], [7, 8]):
        tree.insert(np.array(key))
    tree.match(np.array([1, 2, 3]))
    # Leaves, by last use: 5, then 7 8, then what is left of 3 4 where the search for 1 2 3 split it, last 3.
    assert tree.evict(1) == 1, "5"
    assert tree.evict(1) == 2, "7 8, though one token was wanted"
    assert tree.match(np.array([1, 2, 3, 4]))[1] == 4
    assert tree.evict(2) == 2, "4, and 3, which is a leaf now"
    assert tree.match(np.array([1, 2, 3, 4]))[1] == 2


def test_adapters_share_nothing() -> None:
    tree = RadixTree()
    tree.insert(np.array([1, 2, 3]))
    assert tree.match(np.array([1, 2, 3]), "french")[1] == 0
    assert tree.insert(np.array([1, 2, 3, 4]), "french") == 0
    assert tree.match(np.array([1, 2, 3, 4]), "french")[1] == 4
    assert tree.match(np.array([1, 2, 3, 4]))[1] == 3


def test_a_prefix_is_given_up_as_often_as_it_was_taken() -> None:
    tree = RadixTree()
    tree.insert(np.array([1, 2]))
    node, _ = tree.match(np.array([1, 2]))
    with pytest.raises(InternalError, match="given up more often"):
        tree.unlock(node)


def memory(pages: int, page: int = 1, **options: Any) -> RadixKV:
    return RadixKV(KVSpace(pages, page, 1000, None), **options)


def holder(serial: int, ids: list[int] | None, tokens: int = 0) -> Holder:
    return Holder(Request(serial, 0, len(ids) if ids else tokens, 9, prompt_token_ids=ids), serial)


def test_what_is_computed_twice_is_kept_once() -> None:
    kv = memory(20)
    first, second = holder(0, [1, 2, 3, 4]), holder(1, [1, 2, 3, 9])
    for one in (first, second):
        assert kv.admit(one, kv.lookup(one, 4), 4)
        one.computed = 4
    assert kv.available == 12
    kv.register(first, 4)
    kv.register(second, 4)
    assert (kv.available, kv.tree.protected, second.shared) == (15, 5, 4), "1 2 3 of the second are free again"
    kv.release(first)
    kv.release(second)
    assert (kv.available, kv.tree.evictable, kv.free) == (15, 5, 20)
    third = holder(2, [1, 2, 3, 4, 5])
    assert kv.lookup(third, 5).tokens == 4
    assert kv.lookup(holder(3, [1, 2, 3]), 3).tokens == 2, "the last token is computed anew"


def test_a_prompt_without_ids_is_found_by_nobody_else() -> None:
    kv = memory(20)
    first, second = holder(0, None, 6), holder(1, None, 6)
    kv.admit(first, kv.lookup(first, 6), 6)
    first.computed = 6
    kv.register(first, 6)
    assert kv.lookup(first, 6).tokens == 5
    assert kv.lookup(second, 6).tokens == 0


def test_pages_are_shared_whole() -> None:
    kv = memory(10, 4)
    first = holder(0, [1, 2, 3, 4, 5, 6, 7])
    kv.admit(first, kv.lookup(first, 7), 7)
    first.computed = 7
    kv.register(first, 7)
    assert (first.shared, first.room, kv.available) == (4, 8, 32)
    assert kv.lookup(holder(1, [1, 2, 3, 4, 5, 6, 7]), 7).tokens == 4
    assert kv.lookup(holder(1, [1, 2, 3, 9, 5, 6, 7]), 7).tokens == 0
    kv.release(first)
    assert (kv.available, kv.tree.evictable) == (36, 4)


def test_a_prefix_that_was_found_is_not_evicted_for_its_own_sake() -> None:
    kv = memory(6)
    first = holder(0, [1, 2, 3, 4])
    kv.admit(first, kv.lookup(first, 4), 4)
    first.computed = 4
    kv.release(first)
    again = holder(1, [1, 2, 3, 4, 5, 6, 7])
    hit = kv.lookup(again, 7)
    assert hit.tokens == 4 and kv.free == 6
    assert not kv.fits(again, hit, 7) and kv.fits(again, hit, 6)
    assert not kv.admit(again, hit, 7) and kv.tree.protected == 0
    assert kv.admit(again, hit, 6) and kv.available == 0


def test_groups_of_layers_each_have_a_block_of_a_page() -> None:
    kv = memory(20, 1, groups=(LayerGroup(4), FULL, LayerGroup(4)))
    assert (kv.capacity, kv.total, kv.free) == (6, 18, 18)
    one = holder(0, [1, 2, 3, 4])
    assert kv.admit(one, kv.lookup(one, 4), 4)
    assert (kv.free, kv.held(one), kv.peak_blocks(one.request, 5)) == (6, 12, 15)


@pytest.mark.parametrize("shares", [True, False])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30), st.integers(0, 30_000)), min_size=1, max_size=8),
    blocks=st.integers(14, 40),
)
def test_another_policy_runs_over_it(shares: bool, rows: list[tuple[int, int, int]], blocks: int) -> None:
    """The contract is kept whole: orca evicts to host memory, reloads, and leaves all of it free or findable."""
    kv = memory(blocks, 4, shares=shares)
    ledger: Ledger[Tracked] = Ledger(kv)
    run = Run(OrcaScheduler(ledger), sorted(rows, key=lambda row: row[2]))
    assert len(run.rows()) == len(rows)
    assert kv.free == kv.total == blocks
    assert kv.available + kv.tree.evictable == kv.capacity and kv.tree.protected == 0
    assert run.metrics.totals.evicted_bytes == run.metrics.totals.reloaded_bytes
