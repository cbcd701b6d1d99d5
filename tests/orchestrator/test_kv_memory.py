"""KV memory from outside: how many blocks who holds, what never fits, windows, and many steps counted at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import InternalError, UserError
from orchestrator.kv_memory.block_pool import LifoSharedBlockPool, SharedBlockPool
from orchestrator.kv_memory.groups import FULL, LayerGroup, WindowRules
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.kv_memory.prefix import PrefixKV
from orchestrator.kv_memory.prefix_chain import PrefixChain, known_tokens
from orchestrator.kv_memory.store import NO_HIT, KVSpace, KVStore
from orchestrator.requests.request import Request
from tests.helpers.reached import Reached, reaches


def manager(name: str, *, block_size: int = 1, blocks: int = 10_000, longest: int | None = 64) -> PagedKV:
    return kv_managers.get(name)().memory(KVSpace(blocks, block_size, 1000, longest), (FULL,), model_len=99)


def held(kv: KVStore, request: Request, tokens: int) -> int:
    """Return the blocks that `request` holds once it was given room for `tokens` tokens."""
    before = kv.free
    assert kv.grow(Holder(request, 0), tokens)
    return before - kv.free


@pytest.mark.parametrize(
    ("output", "room"),
    [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (1023, 1024), (1024, 1024), (1025, 2048)],
)
def test_pow2_rounds_the_output_up_to_a_power_of_two(output: int, room: int) -> None:
    assert held(manager("pow2", longest=None), Request(0, 0, 7, output), 7) == 7 + room


def test_oracle_reserves_the_expected_length_and_max_the_longest() -> None:
    request = Request(0, 0, 7, 30)
    assert held(manager("oracle"), request, 1) == 37
    assert held(manager("oracle"), Request(0, 0, 7, 30, expected_output=5), 1) == 12, "by name, not the truth"
    assert held(manager("max"), request, 1) == 64
    assert held(manager("vllm"), request, 9) == 9


@pytest.mark.parametrize(("name", "tokens"), [("oracle", 16), ("pow2", 19), ("max", 64)])
def test_a_reservation_is_whole_blocks(name: str, tokens: int) -> None:
    # 3 prompt and 13 output tokens: 16 as they are, 3 + 16 rounded, 64 at the most.
    for size in (1, 2, 3, 4, 5, 16):
        assert held(manager(name, block_size=size), Request(0, 0, 3, 13), 3) == -(-tokens // size)


def test_a_reservation_does_not_grow_and_is_given_back_whole() -> None:
    kv, holder = manager("oracle", blocks=20), Holder(Request(0, 0, 7, 5), 0)
    assert kv.grow(holder, 7)
    assert kv.free == 8
    assert kv.need(holder, 12) == 0
    assert kv.grow(holder, 12)
    assert kv.held(holder) == 12
    kv.release(holder)
    assert kv.free == 20


def test_the_longest_is_the_models_where_none_is_given() -> None:
    assert held(manager("max", longest=None), Request(0, 0, 7, 30), 1) == 99


def test_demand_paging_takes_what_fits_and_not_one_block_more() -> None:
    kv, first, second = (
        manager("vllm", block_size=4, blocks=3),
        Holder(Request(0, 0, 4, 9), 0),
        Holder(Request(1, 0, 9, 1), 1),
    )
    assert kv.grow(first, 4)
    assert kv.fits(second, NO_HIT, 8) and not kv.fits(second, NO_HIT, 9)
    assert not kv.grow(second, 9)
    assert kv.free == 2, "a refusal takes nothing"
    assert kv.grow(second, 8)
    assert kv.free == 0
    assert kv.grow(second, 8), "what it has it need not find"
    assert not kv.grow(first, 5)


def test_what_does_not_fit_is_told_with_both_sizes() -> None:
    kv = manager("vllm", block_size=4, blocks=3, longest=12)
    request = Request(0, 0, 4, 9)
    assert kv.unfit(request, 12) is None
    assert kv.unfit(request, 13) == "the request grows to 13 tokens, the limit (max_model_len) is 12"
    small = manager("vllm", block_size=4, blocks=2, longest=12)
    assert small.unfit(request, 8) is None
    reason = small.unfit(request, 9)
    assert reason is not None and "needs 3 KV blocks" in reason and "holds 2" in reason


def test_swapped_blocks_come_back_as_they_went() -> None:
    kv, holder = manager("vllm", block_size=4, blocks=5), Holder(Request(3, 0, 9, 9), 0)
    assert kv.grow(holder, 9)
    out = kv.swap_out(holder)
    assert (out.request_id, out.blocks, out.tokens, out.bytes, out.tier) == (3, 3, 12, 3000, "host")
    assert (kv.free, kv.held(holder), kv.need(holder, 9), kv.need(holder, 13)) == (5, 0, 3, 4)
    with pytest.raises(InternalError, match="grows while its blocks are in host memory"):
        kv.grow(holder, 13)
    assert kv.swap_in(holder) == out
    assert kv.free == 2


# -- windows


@pytest.mark.parametrize("prefix", [False, True])
def test_a_window_frees_what_no_token_attends_to_any_more(prefix: bool) -> None:
    """Window 6, blocks of 4: the token after 10 attends to itself and tokens 5 .. 9, so one block of three is left."""
    kv, holder = store(prefix, blocks=20, size=4, groups=(LayerGroup(6),)), Holder(Request(0, 0, 10, 9), 0)
    assert kv.admit(holder, NO_HIT, 10)
    assert kv.free == 17, "a prompt is held whole while it is computed"
    free = []
    for computed in range(10, 19):
        holder.computed = computed
        assert kv.grow(holder, computed + 1)
        free.append(kv.free)
    # Blocks dropped before computing the token after n: (n - 5) // 4; blocks begun: n // 4 + 1.
    assert free == [20 - (n // 4 + 1) + (n - 5) // 4 for n in range(10, 19)]
    kv.release(holder)
    assert kv.free == 20


def test_groups_of_layers_have_blocks_of_their_own() -> None:
    kv, holder = (
        store(True, blocks=30, size=4, groups=(FULL, LayerGroup(5), LayerGroup(5))),
        Holder(Request(0, 0, 12, 3), 0),
    )
    assert kv.admit(holder, NO_HIT, 12)
    assert kv.free == 21
    holder.computed = 12
    assert kv.grow(holder, 13)
    assert kv.free == 21 - 3 + 2 * 2, "each takes one block, and each window gives back two"


def test_blocks_that_a_batch_in_flight_reads_are_kept_where_rules_say_so() -> None:
    groups, late = (LayerGroup(4),), WindowRules(eager=False)
    for rules, free in ((WindowRules(), 18), (late, 17)):
        kv, holder = PagedKV(KVSpace(20, 4, 0), groups, rules), Holder(Request(0, 0, 8, 3), 0)
        assert kv.grow(holder, 8)
        holder.computed, holder.in_flight = 8, 2
        assert kv.grow(holder, 9)
        assert kv.free == free


@pytest.mark.parametrize(("in_flight", "longest"), [(None, 20), (12, 10_000), (13, 20)])
def test_how_long_a_prompt_may_be_that_must_fit_whole(in_flight: int | None, longest: int) -> None:
    """Five blocks of 4, window 5: 4 tokens and 12 in flight fill four blocks, and a fifth if they begin within one."""
    kv = PagedKV(KVSpace(5, 4, 0, 10_000), (LayerGroup(5),), WindowRules(most_in_flight=in_flight))
    prompts = (4, 8, 12, 16, 20, 24, 10_000)
    assert max(n for n in prompts if kv.fits(Holder(Request(0, 0, n, 1), 0), NO_HIT, n)) == longest


@pytest.mark.parametrize(
    ("interval", "boundaries", "expected"),
    [
        (0, (23,), [3, 4]),  # what covers the window before token 20
        (0, (23, 12), [1, 2, 3, 4]),
        (0, (3,), []),
        (16, (3,), [2, 3, 6, 7]),
        (8, (), list(range(8))),  # two blocks cover the window, and every second is kept: all of them
        (None, (), list(range(8))),
    ],
)
def test_which_blocks_of_a_window_can_be_found_again(
    interval: int | None, boundaries: tuple[int, ...], expected: list[int]
) -> None:
    rules = WindowRules(sparse=True, interval=interval)
    assert list(rules.findable(LayerGroup(6), range(8), 4, boundaries)) == expected
    assert list(rules.findable(FULL, range(8), 4, boundaries)) == list(range(8))
    assert list(rules.findable(LayerGroup(1), range(8), 4, boundaries)) == []


# -- many steps at once


def store(prefix: bool, *, blocks: int, size: int, groups: tuple[LayerGroup, ...], lifo: bool = False) -> KVStore:
    space = KVSpace(blocks, size, 100)
    if not prefix:
        return PagedKV(space, groups)
    return PrefixKV(space, (LifoSharedBlockPool if lifo else SharedBlockPool)(blocks + 1), groups)


def holders(kv: KVStore, prompts: list[int], known: bool, ahead: int) -> list[Holder]:
    """Return requests that have computed their prompts and `ahead` tokens more, which are in flight."""
    made = []
    for index, prompt in enumerate(prompts):
        holder = Holder(Request(index, 0, prompt, 50), index)
        if known:
            holder.chain = PrefixChain([index * 7 % 3, *range(prompt + 49)], kv.block_size)
        assert kv.admit(holder, NO_HIT, prompt)
        kv.register(holder, prompt)
        holder.computed, holder.tokens = prompt, prompt + 1
        for _ in range(ahead):
            assert kv.grow(holder, holder.computed + 1)
            holder.computed += 1
            holder.in_flight += 1
        made.append(holder)
    return made


def state(kv: KVStore, members: list[Holder]) -> Any:
    """Return all that a later decision depends on."""
    blocks = [(holder.room, holder.tables, holder.dropped, holder.registered) for holder in members]
    if not isinstance(kv, PrefixKV):
        return kv.free, [(room, dropped) for room, _, dropped, _ in blocks]
    contents = [kv.pool.content_of(block) for block in range(kv.pool.num_blocks)]
    return kv.pool.order(), contents, kv.pool.references, blocks


GROUPS = st.sampled_from([(FULL,), (LayerGroup(5),), (FULL, LayerGroup(9)), (LayerGroup(3), FULL, LayerGroup(3))])


@reaches(
    0.5,
    prefix=st.booleans(),
    lifo=st.booleans(),
    known=st.booleans(),
    size=st.integers(1, 5),
    groups=GROUPS,
    prompts=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    steps=st.integers(1, 30),
    ahead=st.integers(0, 2),
    spare=st.integers(0, 60),
)
def test_a_cohorts_steps_are_those_of_its_members_one_by_one(
    reached: Reached, prefix: bool, lifo: bool, known: bool, size: int, groups: tuple[LayerGroup, ...],
    prompts: list[int], steps: int, ahead: int, spare: int,
) -> None:  # fmt: skip
    blocks = len(groups) * (sum(-(-(prompt + ahead) // size) for prompt in prompts)) + spare
    one, many = (store(prefix, blocks=blocks, size=size, groups=groups, lifo=lifo) for _ in range(2))
    singly, together = (holders(kv, prompts, known, ahead) for kv in (one, many))
    cohort = many.cohort(together)
    if cohort is None:
        return
    taken, given = cohort.flow(steps)
    done = 0
    for step in range(steps):
        free = many.free
        if not cohort.step(step):
            assert taken[step] > free
            break
        assert many.free == free - taken[step] + given[step]
        for holder in singly:
            assert one.grow(holder, holder.computed + 1), "a cohort never counts on what a step itself gives back"
            holder.computed += 1
            one.register(holder, min(holder.computed, holder.tokens))
        for holder in singly:  # the oldest of the steps in flight brings its token
            holder.tokens += 1
            one.register(holder, holder.tokens - 1)
        done += 1
    cohort.settle()
    for holder in together:
        holder.computed += done
        holder.tokens += done
        many.register(holder, holder.tokens - 1)
    assert state(many, together) == state(one, singly)
    for kv, members in ((one, singly), (many, together)):
        for holder in members:
            kv.release(holder)
        assert kv.free == blocks
    if done:
        reached()


# -- to host memory and back


@reaches(
    0.9,
    size=st.integers(1, 5),
    groups=GROUPS,
    prompt=st.integers(1, 30),
    steps=st.integers(0, 12),
    more=st.integers(0, 9),
    known=st.booleans(),
)
def test_both_stores_move_a_request_out_and_back_alike(
    reached: Reached, size: int, groups: tuple[LayerGroup, ...], prompt: int, steps: int, more: int, known: bool
) -> None:
    """Its blocks are free meanwhile, it counts what it needs to come back and grow, and then it goes on as before."""
    seen = []
    for prefix in (False, True):
        kv = store(prefix, blocks=400, size=size, groups=groups)
        (holder,) = holders(kv, [prompt], known, 0)
        for _ in range(steps):
            assert kv.grow(holder, holder.computed + 1)
            holder.computed += 1
        held, room = kv.held(holder), holder.room
        assert kv.free == 400 - held
        out = kv.swap_out(holder)
        assert (kv.free, kv.held(holder), holder.away, holder.room) == (400, 0, held, room)
        assert (out.request_id, out.blocks, out.bytes, out.tier) == (0, held, 100 * held, "host")
        needs = [kv.need(holder, tokens) for tokens in (1, holder.computed, room, room + 1, room + more)]
        assert needs[0] == needs[2] == held and needs[3] == held + len(groups)
        assert kv.swap_in(holder) == out
        assert (kv.free, kv.held(holder), holder.away) == (400 - held, held, 0)
        frees = []
        for _ in range(more):
            assert kv.grow(holder, holder.computed + 1)
            holder.computed += 1
            frees.append(kv.free)
        kv.release(holder)
        assert kv.free == 400
        seen.append((held, room, needs, frees, out))
    assert seen[0] == seen[1]
    reached()


def test_tokens_of_known_ids() -> None:
    assert known_tokens(Request(0, 0, 3, 2)) == ()
    assert list(known_tokens(Request(0, 0, 3, 2, prompt_token_ids=[5, 6, 7]))) == [5, 6, 7]
    assert list(known_tokens(Request(0, 0, 3, 2, prompt_token_ids=[5, 6, 7], output_token_ids=[8]))) == [5, 6, 7, 8]
    with pytest.raises(UserError, match=r"request 4 has 2 prompt token ids for 3 prompt tokens"):
        known_tokens(Request(4, 0, 3, 2, prompt_token_ids=[5, 6]))


def test_retrieved_tokens_end_what_is_known_of_a_prompt() -> None:
    request = Request(0, 0, 7, 2, prompt_token_ids=[5, 6, 7], output_token_ids=[8], retrieved_tokens=4)
    assert list(known_tokens(request)) == [5, 6, 7]
    with pytest.raises(UserError, match=r"request 4 has 3 prompt token ids for 2 prompt tokens"):
        known_tokens(Request(4, 0, 6, 2, prompt_token_ids=[5, 6, 7], retrieved_tokens=4))
