"""How much each way to reserve KV memory sets aside, to the block."""

from __future__ import annotations

import pytest

from foundation.errors import InternalError
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.paged import KVSpace, PagedKV
from orchestrator.request import Request


def manager(name: str, *, block_size: int = 1, blocks: int = 10_000, longest: int | None = 64) -> PagedKV:
    return kv_managers.get(name)().memory(KVSpace(blocks, block_size, 1000, longest), model_len=99)


@pytest.mark.parametrize(
    ("output", "room"),
    [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (1023, 1024), (1024, 1024), (1025, 2048)],
)
def test_pow2_rounds_the_output_up_to_a_power_of_two(output: int, room: int) -> None:
    assert manager("pow2", longest=None).blocks_for(Request(0, 0, 7, output), 7) == 7 + room


def test_oracle_reserves_the_true_length_and_max_the_longest() -> None:
    request = Request(0, 0, 7, 30)
    assert manager("oracle").blocks_for(request, 1) == 37
    assert manager("max").blocks_for(request, 1) == 64
    assert manager("vllm").blocks_for(request, 9) == 9


@pytest.mark.parametrize(("name", "tokens"), [("oracle", 16), ("pow2", 19), ("max", 64)])
def test_a_reservation_is_whole_blocks(name: str, tokens: int) -> None:
    # 3 prompt and 13 output tokens: 16 as they are, 3 + 16 rounded, 64 at the most.
    for size in (1, 2, 3, 4, 5, 16):
        assert manager(name, block_size=size).blocks_for(Request(0, 0, 3, 13), 3) == -(-tokens // size)


def test_a_reservation_does_not_grow_and_is_given_back_whole() -> None:
    kv, request = manager("oracle", blocks=20), Request(0, 0, 7, 5)
    kv.take(request, 7)
    assert kv.free_blocks == 8
    assert kv.need(request, 12) == 0
    assert kv.steps_that_fit([8], 99) == 99
    kv.take(request, 12)
    assert kv.on_device(request) == 12
    kv.release(request)
    assert kv.free_blocks == 20


def test_the_longest_is_the_models_where_none_is_given() -> None:
    assert manager("max", longest=None).blocks_for(Request(0, 0, 7, 30), 1) == 99


def test_demand_paging_takes_what_fits_and_not_one_block_more() -> None:
    kv = manager("vllm", block_size=4, blocks=3)
    kv.take(Request(0, 0, 4, 9), 4)
    assert kv.steps_that_fit([4], 50) == 8, "a full block of 4, two free ones: 8 more tokens fit"
    assert kv.steps_that_fit([3], 50) == 9
    assert kv.steps_that_fit([4, 4], 50) == 4
    assert kv.steps_that_fit([4], 8) == 8
    with pytest.raises(InternalError, match="takes 3 blocks of 2 free ones"):
        kv.take(Request(1, 0, 9, 1), 9)
    kv.take(Request(1, 0, 8, 1), 8)
    assert kv.free_blocks == 0


def test_what_does_not_fit_is_told_with_both_sizes() -> None:
    kv = manager("vllm", block_size=4, blocks=3, longest=12)
    request = Request(0, 0, 4, 9)
    assert kv.unfit(request, 12) is None
    assert kv.unfit(request, 13) == "the request grows to 13 tokens, the limit (max_model_len) is 12"
    small = manager("vllm", block_size=4, blocks=2, longest=12)
    assert small.unfit(request, 8) is None
    reason = small.unfit(request, 9)
    assert reason is not None and "needs 3 KV blocks" in reason and "holds 2" in reason
