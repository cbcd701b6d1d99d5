"""KV blocks of a compiled engine, as `kv_memory.paged` (counted) and `kv_memory.prefix` (numbered) give them out.

Numbered blocks stand in a queue of free ones, those never used before those that came back; what a block held is found
by its content's number until the block is taken again. One group of layers, without windows.
"""

from __future__ import annotations

from foundation.compiling import inner
from orchestrator.engine.compiled.layout import (
    BLOCKS,
    CONTENT,
    CONTENTS,
    FINAL,
    FREE_BLOCKS,
    FREED_FIRST,
    FREED_LAST,
    KNOWN,
    NEXT,
    NEXT_CONTENT,
    NEXT_SAME,
    OWNERS,
    PREEMPTIONS,
    PREVIOUS,
    PREVIOUS_SAME,
    PRIVATE,
    REGISTERED,
    SEAT,
    TOKENS,
    UNUSED_BLOCK,
    Rules,
    State,
)


@inner
def columns_of(rules: Rules, tokens: int) -> int:
    """Return the blocks that `tokens` tokens fill."""
    return -(-tokens // rules.block_size)


@inner
def grow(state: State, rules: Rules, place: int, tokens: int) -> bool:
    """Give the request at `place` room for `tokens` tokens, or return False and change nothing."""
    request = state.request
    more = -(-tokens // rules.block_size) - request[place, BLOCKS]
    if more <= 0:
        return True
    if more > state.scalars[FREE_BLOCKS]:
        return False
    if rules.numbered:
        seat, held = request[place, SEAT], request[place, BLOCKS]
        for column in range(held, held + more):
            state.tables[seat, column] = _take(state, rules)
    state.scalars[FREE_BLOCKS] -= more
    request[place, BLOCKS] += more
    return True


@inner
def found_columns(state: State, rules: Rules, place: int) -> int:
    """Return how many leading blocks of a request that waits are found, the one of its last token excepted."""
    request = state.request
    known = request[place, KNOWN]
    if not rules.numbered or (known == 0 and request[place, PREEMPTIONS] == 0):
        return 0
    most = (request[place, TOKENS] - 1) // rules.block_size
    for column in range(most):
        content = content_at(state, place, column)
        if content == 0 or state.contents[content, 0] == 0:
            return column
    return most


@inner
def content_at(state: State, place: int, column: int) -> int:
    """Return the number of the content of a request's block; 0 where it has none that anybody could look for."""
    request = state.request
    if column < request[place, KNOWN]:
        return state.known[request[place, CONTENTS] + column]
    private = request[place, PRIVATE]
    return private + 2 * column if private else 0


@inner
def missing_blocks(state: State, rules: Rules, place: int, found: int, tokens: int) -> int:
    """Return the free blocks that `tokens` tokens take, of which the first `found` blocks are there.

    What is found and has no owner is among the free ones, and leaves them.
    """
    missing = max(columns_of(rules, tokens) - found, 0)
    for column in range(found):
        block = state.contents[content_at(state, place, column), 0]
        if state.links[block, OWNERS] == 0:
            missing += 1
    return missing


@inner
def admit(state: State, rules: Rules, place: int, found: int, tokens: int) -> bool:
    """Give a request, which has a seat, the blocks found and new ones up to `tokens`, or return False."""
    if missing_blocks(state, rules, place, found, tokens) > state.scalars[FREE_BLOCKS]:
        return False
    request = state.request
    seat = request[place, SEAT]
    for column in range(found):
        block = state.contents[content_at(state, place, column), 0]
        if state.links[block, OWNERS] == 0:
            _leave_free(state, block)
            state.scalars[FREE_BLOCKS] -= 1
        state.links[block, OWNERS] += 1
        state.tables[seat, column] = block
    request[place, BLOCKS] = request[place, REGISTERED] = found
    return grow(state, rules, place, tokens)


@inner
def register(state: State, rules: Rules, place: int, tokens: int) -> None:
    """Make every full block within the first `tokens` tokens findable, as far as others may look for it."""
    if not rules.numbered:
        return
    request = state.request
    full = tokens // rules.block_size
    if full > request[place, REGISTERED]:
        _index(state, place, request[place, REGISTERED], min(full, request[place, KNOWN]))
        request[place, REGISTERED] = full


@inner
def release(state: State, rules: Rules, place: int, resumes: bool) -> None:
    """Take all blocks from a request, the last first; one that `resumes` may find them again."""
    request = state.request
    held = request[place, BLOCKS]
    if not rules.numbered:
        state.scalars[FREE_BLOCKS] += held
    else:
        if resumes:
            if request[place, PRIVATE] == 0:
                request[place, PRIVATE] = state.scalars[NEXT_CONTENT]
                state.scalars[NEXT_CONTENT] += 2 * columns_of(rules, min(request[place, FINAL], rules.longest))
            _index(state, place, request[place, KNOWN], request[place, REGISTERED])
        seat = request[place, SEAT]
        for column in range(held - 1, -1, -1):
            _give_back(state, state.tables[seat, column])
    request[place, BLOCKS] = request[place, REGISTERED] = 0


@inner
def _index(state: State, place: int, first: int, last: int) -> None:
    """Make the blocks in columns `first` to `last` - 1 findable, but for those that are."""
    seat, links, contents = state.request[place, SEAT], state.links, state.contents
    for column in range(first, last):
        block = state.tables[seat, column]
        if links[block, CONTENT] != 0:
            continue
        content = content_at(state, place, column)
        links[block, CONTENT] = content
        before = contents[content, 1]
        links[block, PREVIOUS_SAME], links[block, NEXT_SAME] = before, 0
        if before:
            links[before, NEXT_SAME] = block
        else:
            contents[content, 0] = block
        contents[content, 1] = block


@inner
def _take(state: State, rules: Rules) -> int:
    """Take the next free block; what it held can no longer be found."""
    scalars, links = state.scalars, state.links
    block = scalars[UNUSED_BLOCK]
    if block <= rules.blocks:
        scalars[UNUSED_BLOCK] += 1
    else:
        block = scalars[FREED_FIRST]
        _leave_free(state, block)
    links[block, OWNERS] = 1
    if links[block, CONTENT]:
        _forget(state, block)
    return block


@inner
def _give_back(state: State, block: int) -> None:
    """Drop an owner of a block; without any it is free, the last to be taken."""
    scalars, links = state.scalars, state.links
    links[block, OWNERS] -= 1
    if links[block, OWNERS]:
        return
    last = scalars[FREED_LAST]
    links[block, PREVIOUS], links[block, NEXT] = last, 0
    if last:
        links[last, NEXT] = block
    else:
        scalars[FREED_FIRST] = block
    scalars[FREED_LAST] = block
    scalars[FREE_BLOCKS] += 1


@inner
def _leave_free(state: State, block: int) -> None:
    """Take a block out of the queue of those that came back."""
    scalars, links = state.scalars, state.links
    before, after = links[block, PREVIOUS], links[block, NEXT]
    if before:
        links[before, NEXT] = after
    else:
        scalars[FREED_FIRST] = after
    if after:
        links[after, PREVIOUS] = before
    else:
        scalars[FREED_LAST] = before


@inner
def _forget(state: State, block: int) -> None:
    """Let a block's content be found in it no more."""
    links, contents = state.links, state.contents
    content, before, after = links[block, CONTENT], links[block, PREVIOUS_SAME], links[block, NEXT_SAME]
    if before:
        links[before, NEXT_SAME] = after
    else:
        contents[content, 0] = after
    if after:
        links[after, PREVIOUS_SAME] = before
    else:
        contents[content, 1] = before
    links[block, CONTENT] = 0
