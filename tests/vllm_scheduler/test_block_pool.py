"""The order in which blocks are handed out, found again and given back."""

import pytest

from foundation.errors import InternalError
from orchestrator.kv_memory.block_pool import LifoSharedBlockPool, SharedBlockPool


def test_unused_blocks_come_in_order_and_freed_ones_after_them_tail_first() -> None:
    pool = SharedBlockPool(8)
    first, second = pool.take(2), pool.take(3)
    assert (first, second, pool.free) == ([1, 2], [3, 4, 5], 2)
    pool.give_back(second)
    pool.give_back(first)
    assert pool.order() == [6, 7, 5, 4, 3, 2, 1]
    assert pool.take(4) == [6, 7, 5, 4]


def test_the_newer_pool_reuses_the_last_freed_tail_first() -> None:
    pool = LifoSharedBlockPool(8)
    first, second = pool.take(2), pool.take(3)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.order() == [5, 4, 3, 2, 1, 6, 7]
    assert pool.take(3) == [5, 4, 3]


@pytest.mark.parametrize("registered", [True, False])
def test_the_newer_pool_keeps_findable_blocks_longest(registered: bool) -> None:
    pool = LifoSharedBlockPool(8)
    blocks = pool.take(4)
    for block in blocks[:2] if registered else ():
        pool.register(block, f"content of {block}")
    pool.give_back(blocks, () if registered else blocks[:2])
    assert pool.order() == [4, 3, 5, 6, 7, 2, 1]


def test_contents_are_found_until_the_block_is_taken_again() -> None:
    pool = SharedBlockPool(3)
    (block,) = pool.take(1)
    pool.register(block, "a")
    pool.give_back([block])
    assert pool.find("a") == block
    assert pool.take(2) == [2, block]
    assert pool.find("a") is None
    assert pool.content_of(block) is None


def test_of_equal_contents_the_first_registered_is_found() -> None:
    pool = SharedBlockPool(5)
    pool.take(4)
    for block in (3, 1, 2):
        pool.register(block, "a")
    assert pool.find("a") == 3
    pool.give_back([3])
    pool.take(1)
    assert pool.find("a") == 1


def test_a_block_has_one_content() -> None:
    pool = SharedBlockPool(3)
    (block,) = pool.take(1)
    pool.register(block, "a")
    with pytest.raises(InternalError, match="registered twice"):
        pool.register(block, "b")


def test_an_adopted_block_leaves_the_free_list_and_needs_both_owners_to_go() -> None:
    pool = SharedBlockPool(3)
    (block,) = pool.take(1)
    pool.register(block, "a")
    pool.give_back([block])
    pool.adopt([block])
    pool.adopt([block])
    assert (pool.free, pool.references[block]) == (1, 2)
    pool.give_back([block])
    assert pool.free == 1
    pool.give_back([block])
    assert pool.free == 2
    with pytest.raises(InternalError, match="freed more often"):
        pool.give_back([block])


def test_taking_more_than_there_are_is_a_defect() -> None:
    with pytest.raises(InternalError, match="3 KV blocks taken where 2 are free"):
        SharedBlockPool(3).take(3)


def test_blocks_that_were_never_used_take_no_memory() -> None:
    for pool in (SharedBlockPool(10**12), LifoSharedBlockPool(10**12)):
        blocks = pool.take(3)
        pool.adopt(blocks[:1])
        assert pool.references == [0, 2, 1, 1] and pool.content_of(10**11) is None
        pool.give_back(blocks)
        assert pool.references == [0, 1, 0, 0] and pool.free == 10**12 - 2
