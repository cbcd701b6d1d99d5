"""A tier of KV blocks beyond device memory, and ports as the way to it: against slow twins, and at their limits."""

from __future__ import annotations

import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from foundation.errors import InternalError
from orchestrator.cluster.resources import Port, send
from orchestrator.kv_memory.second_tier import SecondTier


def holding(tier: SecondTier, contents: str, size: int = 1) -> None:
    coming = tier.reserve(contents, size)
    tier.arrived(coming)


def test_blocks_are_found_from_the_first_one_on_until_one_is_missing() -> None:
    tier = SecondTier(None)
    holding(tier, "abd")
    assert [tier.found(wanted) for wanted in ("abcd", "abd", "xab", "")] == [2, 3, 0, 0]


def test_what_is_coming_is_not_found_and_is_not_written_twice() -> None:
    tier = SecondTier(None)
    assert tier.reserve("ab", 1) == ["a", "b"]
    assert tier.reserve("abc", 1) == ["c"] and tier.found("abc") == 0
    tier.arrived("ab")
    assert tier.found("abc") == 2


def test_the_least_recently_used_go_first_and_a_lookup_is_a_use() -> None:
    tier = SecondTier(3)
    holding(tier, "abc")
    tier.found("a")
    assert tier.reserve("de", 1) == ["d", "e"]
    tier.arrived("de")
    assert [tier.found(one) for one in "abcde"] == [1, 0, 0, 1, 1]
    assert (tier.evicted, tier.held_bytes, tier.peak_bytes) == (2, 3, 3)


def test_what_is_read_or_coming_stays_and_who_finds_no_room_is_not_written() -> None:
    tier = SecondTier(3)
    holding(tier, "ab")
    tier.read("ab")
    tier.read("a")
    assert tier.reserve("cd", 1) == ["c"]
    tier.done("ab")
    assert tier.reserve("d", 1) == ["d"], "b is read by nobody any more, a by one, c is coming"
    assert (tier.found("a"), tier.found("b")) == (1, 0)


def test_a_block_larger_than_the_tier_evicts_nobody() -> None:
    tier = SecondTier(3)
    holding(tier, "abc")
    assert tier.reserve("x", 4) == [] and tier.found("abc") == 3


def test_blocks_of_several_sizes_take_their_bytes() -> None:
    tier = SecondTier(10)
    holding(tier, "ab", 4)
    assert tier.reserve("x", 2) == ["x"] and tier.evicted == 0
    assert tier.reserve("y", 3) == ["y"] and (tier.evicted, tier.held_bytes) == (1, 9)


def test_what_is_not_there_cannot_be_read_nor_arrive() -> None:
    tier = SecondTier(None)
    tier.reserve("a", 1)
    with pytest.raises(InternalError):
        tier.read("a")
    with pytest.raises(InternalError):
        tier.arrived("b")


def test_a_tier_is_a_list_in_order_of_use() -> None:
    """The slow twin is a list of [content, state], the least recently used first; state: coming, or how many read."""
    action = st.tuples(
        st.sampled_from(["find", "store", "reserve", "arrive", "read", "done"]), st.text("abcdef", max_size=4)
    )

    @reaches(0.5, examples=200, actions=st.lists(action, min_size=15, max_size=40), capacity=st.integers(1, 4))
    def compare(reached: Reached, actions: list[tuple[str, str]], capacity: int) -> None:
        tier, twin = SecondTier(capacity), Twin(capacity)
        for what, contents in actions:
            if what == "find":
                assert tier.found(contents) == twin.found(contents)
            elif what in ("reserve", "store"):
                coming = tier.reserve(contents, 1)
                assert coming == twin.reserve(contents)
                if what == "store":
                    tier.arrived(coming)
                    twin.set(coming, to=0)
            elif what == "arrive":
                coming = [one for one in dict.fromkeys(contents) if twin.state(one) == -1]
                tier.arrived(coming)
                twin.set(coming, to=0)
            else:
                change = 1 if what == "read" else -1
                there = [one for one in dict.fromkeys(contents) if (twin.state(one) or 0) >= (what == "done")]
                there = [one for one in there if twin.state(one) is not None]
                (tier.read if change > 0 else tier.done)(there)
                twin.set(there, by=change)
            assert len(tier) == len(twin.rows) == tier.held_bytes
        if tier.evicted:
            reached()

    compare()


class Twin:
    """See the test."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[list[object]] = []

    def state(self, content: str) -> int | None:
        return next((row[1] for row in self.rows if row[0] == content), None)  # type: ignore[return-value]

    def set(self, contents: list[str], *, to: int | None = None, by: int = 0) -> None:
        for row in self.rows:
            if row[0] in contents:
                row[1] = to if to is not None else row[1] + by  # type: ignore[operator]

    def use(self, content: str) -> None:
        self.rows.sort(key=lambda row: row[0] == content)

    def found(self, contents: str) -> int:
        count = 0
        for content in contents:
            if (self.state(content) if self.state(content) is not None else -1) < 0:  # type: ignore[operator]
                break
            self.use(content)
            count += 1
        return count

    def reserve(self, contents: str) -> list[str]:
        coming = []
        for content in contents:
            if self.state(content) is not None:
                self.use(content)
                continue
            idle = [row for row in self.rows if row[1] == 0]
            if len(self.rows) == self.capacity:
                if not idle:
                    break
                self.rows.remove(idle[0])
            self.rows.append([content, -1])
            coming.append(content)
        return coming


def test_what_is_dropped_leaves_its_room() -> None:
    tier = SecondTier(4)
    holding(tier, "ab")
    coming = tier.reserve("c", 2)
    tier.drop(["a", *coming])
    assert (tier.held_bytes, tier.evicted, len(tier)) == (1, 0, 1)
    assert tier.reserve("xyz", 1) == ["x", "y", "z"]


def test_ports_never_move_more_than_their_bandwidth_nor_go_back() -> None:
    asked = st.lists(st.tuples(st.integers(0, 100), st.integers(10**4, 10**7)), min_size=1, max_size=20)

    @reaches(0.5, examples=100, asked=asked, gb_s=st.integers(1, 400), latency=st.integers(0, 500))
    def compare(reached: Reached, asked: list[tuple[int, int]], gb_s: int, latency: int) -> None:
        port, now, last, first = Port(gb_s * 10**9), 0, 0, asked[0][0]
        for gap, size in asked:
            now += gap
            passage = send((port,), size, now, latency)
            assert passage.began_ns == max(now, last)
            assert passage.left_ns - passage.began_ns >= size / gb_s - 1e-6
            assert passage.came_ns == passage.left_ns + latency
            last = passage.left_ns
        assert sum(size for _, size in asked) <= (last - first) * gb_s + 1e-6
        if len(asked) > 1 and now < last:
            reached()

    compare()
