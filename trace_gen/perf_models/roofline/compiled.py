"""The roofline's attention as functions that compile; `roofline.attention` says the same with arrays.

Integers are summed before they are scaled; where floats are, in the order of the requests.

    space       a batch with prompts                            decodes
    ints 0      operations of each chunk                        contexts
    ints 1      order of the sizes                              order of the contexts
    ints 2      for sorting                                     for sorting; then the longest context of each group
    ints 3      blocks of queries                               operations; then in which wave the group ends
    floats 0    size of a chunk's tile                          see `trace_gen.attention.compiled`
    floats 1    a tile's queries for each query of the chunk

A group are decodes whose tiles end in the same wave: only the longest of them counts, and as all grow together it stays
the longest.
"""

from __future__ import annotations

import numpy as np

from foundation.compiling import inner
from foundation.sorting import sort_falling
from trace_gen.attention.compiled import (
    CONTEXTS,
    STATE,
    bytes_of,
    context_sum,
    flops_of,
    kept_sum,
    note_contexts,
)
from trace_gen.attention_numbers import (
    CHUNKED,
    CONTEXT_BYTES,
    CONTEXT_FLOPS,
    KV_BYTES,
    NEW_BYTES,
    PAIR_FLOPS,
    CompiledAttention,
    FloatArray,
    IntArray,
)
from trace_gen.perf_models.roofline.numbers import (
    APART,
    CHUNK_OVERHEAD,
    CHUNK_RATE,
    CHUNK_TILE,
    COMPUTE_NS,
    DECODE_OVERHEAD,
    DECODE_SERIAL,
    DECODE_TILES,
    HEADS,
    QUERY_TILE,
    READ_NS,
    SURELY,
    TILE_HEADS,
    UNIT_RATE,
    UNITS,
)

FLOPS, ORDER, SPACE, BLOCKS = range(4)
GROUP_CONTEXTS, GROUP_WAVES = SPACE, BLOCKS
SIZES, PADDED = range(2)


@inner
def batch_ns(
    attention: CompiledAttention, new: IntArray, context: IntArray, count: int, floats: FloatArray, ints: IntArray
) -> float:
    """Return the time of one kernel over the batch (ns)."""
    prompts = 0
    for request in range(count):
        prompts += new[request] > 1
    if prompts == 0:
        begin_decodes(context, count, floats, ints)
        return decodes_ns(attention, count, 0, floats, ints)
    if prompts < count and attention.ints[APART]:
        own = _chunks_ns(attention, new, context, count, 2, floats, ints)
        return own + _beside_ns(attention, new, context, count)
    return _chunks_ns(attention, new, context, count, 1, floats, ints)


@inner
def begin_decodes(context: IntArray, count: int, floats: FloatArray, ints: IntArray) -> None:
    """Note the contexts. They are sorted when that is first needed, which for most batches is never."""
    note_contexts(context, count, floats, ints)


@inner
def decodes_ns(attention: CompiledAttention, count: int, step: int, floats: FloatArray, ints: IntArray) -> float:
    """Return the time of a step of decodes (ns): as such, or as chunks if that is less."""
    shape, numbers = attention.ints, attention.floats
    attended, contexts = kept_sum(shape, count, step, floats, ints) + count, context_sum(count, step, floats)
    flops = shape[PAIR_FLOPS] * attended + shape[CONTEXT_FLOPS] * contexts
    moved = shape[KV_BYTES] * attended + shape[NEW_BYTES] * count + shape[CONTEXT_BYTES] * contexts
    read: float = moved * numbers[READ_NS]
    if shape[TILE_HEADS] > 1:
        read = _read_ns(attention, count, step, ints)
    spread: float = read + count * numbers[DECODE_TILES]
    if numbers[DECODE_SERIAL] > 0:
        spread = max(spread, _longest(attention, count, step, ints) * numbers[DECODE_SERIAL])
    alone = spread + numbers[DECODE_OVERHEAD]
    blocks, padded = -(-shape[TILE_HEADS] // QUERY_TILE), QUERY_TILE / shape[TILE_HEADS]
    mean = flops * padded / numbers[HEADS] * (blocks * numbers[HEADS]) / shape[UNITS]
    least = _kernel_ns(attention, mean, moved, count * blocks)
    if alone <= least * SURELY:
        return alone
    busiest = _busiest(attention, count, step, floats, ints) * padded / numbers[HEADS]
    return min(alone, _kernel_ns(attention, max(mean, busiest), moved, count * blocks))


@inner
def _longest(attention: CompiledAttention, count: int, step: int, ints: IntArray) -> int:
    """Return the most bytes that are moved for a decode."""
    most = 0
    for request in range(count):
        most = max(most, bytes_of(attention.ints, 1, ints[CONTEXTS, request] + step))
    return most


@inner
def _read_ns(attention: CompiledAttention, count: int, step: int, ints: IntArray) -> float:
    """Return what decodes read and compute, one after another, where what they compute counts (ns)."""
    read = 0.0
    for request in range(count):
        read += _decode_ns(attention, ints[CONTEXTS, request] + step)
    return read


@inner
def _decode_ns(attention: CompiledAttention, context: int) -> float:
    shape, numbers = attention.ints, attention.floats
    moved, flops = bytes_of(shape, 1, context), flops_of(shape, 1, context)
    both: float = np.hypot(moved * numbers[READ_NS], flops * numbers[COMPUTE_NS])
    return both


@inner
def _busiest(attention: CompiledAttention, count: int, step: int, floats: FloatArray, ints: IntArray) -> int:
    """Return the most operations of a decode, times the waves of the tiles that have at least as many."""
    shape = attention.ints
    if shape[CHUNKED] or floats[STATE, 0] == 0:
        _group(attention, count, step if shape[CHUNKED] else 0, floats, ints)
    busiest, since = 0, 0 if shape[CHUNKED] else step
    for group in range(int(floats[STATE, 0])):
        context = ints[GROUP_CONTEXTS, group] + since
        busiest = max(busiest, ints[GROUP_WAVES, group] * flops_of(shape, 1, context))
    return busiest


@inner
def _group(attention: CompiledAttention, count: int, step: int, floats: FloatArray, ints: IntArray) -> None:
    """Sort the contexts, and note the longest of each group."""
    shape, heads = attention.ints, attention.floats[HEADS]
    blocks, groups, last = -(-shape[TILE_HEADS] // QUERY_TILE), 0, 0
    for request in range(count):
        ints[ORDER, request] = request
        ints[BLOCKS, request] = flops_of(shape, 1, ints[CONTEXTS, request] + step)
    sort_falling(ints[BLOCKS] if shape[CHUNKED] else ints[CONTEXTS], count, ints[ORDER], ints[SPACE])
    for place in range(count):
        waves = int(np.ceil((place + 1) * blocks * heads / shape[UNITS]))
        if waves > last:
            ints[GROUP_CONTEXTS, groups] = ints[CONTEXTS, ints[ORDER, place]] + step
            ints[GROUP_WAVES, groups] = waves
            groups, last = groups + 1, waves
    floats[STATE, 0] = groups


@inner
def _chunks_ns(
    attention: CompiledAttention,
    new: IntArray,
    context: IntArray,
    count: int,
    least: int,
    floats: FloatArray,
    ints: IntArray,
) -> float:
    """Return the time of one kernel over the requests that compute `least` tokens or more, as chunks (ns)."""
    shape, heads = attention.ints, attention.floats[HEADS]
    moved, passed, chunks, total = 0, 0, 0, 0.0
    for request in range(count):
        if new[request] < least:
            continue
        queries = new[request] * shape[TILE_HEADS]
        blocks, padded = -(-queries // QUERY_TILE), QUERY_TILE / queries
        flops = flops_of(shape, new[request], context[request])
        size = flops * padded / heads
        ints[FLOPS, chunks], ints[ORDER, chunks], ints[BLOCKS, chunks] = flops, chunks, blocks
        floats[SIZES, chunks], floats[PADDED, chunks] = size, padded
        total += size * (blocks * heads)
        passed += blocks
        moved += bytes_of(shape, new[request], context[request])
        chunks += 1
    sort_falling(floats[SIZES], chunks, ints[ORDER], ints[SPACE])
    busiest = _busiest_chunk(attention, chunks, floats, ints)
    return _kernel_ns(attention, max(total / shape[UNITS], busiest), moved, passed)


@inner
def _busiest_chunk(attention: CompiledAttention, chunks: int, floats: FloatArray, ints: IntArray) -> float:
    """Return the most that is in a tile, times the waves of the tiles that have at least as much."""
    heads, units = attention.floats[HEADS], attention.ints[UNITS]
    busiest, passed = 0.0, 0
    for place in range(chunks):
        chunk = ints[ORDER, place]
        passed += ints[BLOCKS, chunk]
        waves = int(np.ceil(passed * heads / units))
        busiest = max(busiest, waves * ints[FLOPS, chunk] * floats[PADDED, chunk] / heads)
    return busiest


@inner
def _kernel_ns(attention: CompiledAttention, busiest: float, moved: int, blocks: int) -> float:
    """Return the time of a kernel over chunks (ns) whose busiest unit does so many operations."""
    numbers = attention.floats
    compute, memory = busiest / numbers[UNIT_RATE] * 1e9, moved / numbers[CHUNK_RATE] * 1e9
    tiles = numbers[CHUNK_TILE] * (blocks * numbers[HEADS]) / attention.ints[UNITS]
    time: float = np.hypot(compute, memory) + tiles + numbers[CHUNK_OVERHEAD]
    return time


@inner
def _beside_ns(attention: CompiledAttention, new: IntArray, context: IntArray, count: int) -> float:
    """Return what the decodes of a batch with prompts add, where kernels keep them apart (ns)."""
    shape, numbers = attention.ints, attention.floats
    moved, decodes, longest, read = 0, 0, 0, 0.0
    for request in range(count):
        if new[request] > 1:
            continue
        decodes += 1
        longest = max(longest, bytes_of(shape, 1, context[request]))
        if shape[TILE_HEADS] > 1:
            read += _decode_ns(attention, context[request])
        else:
            moved += bytes_of(shape, 1, context[request])
    if shape[TILE_HEADS] == 1:
        read = moved * numbers[READ_NS]
    added: float = max(read + decodes * numbers[DECODE_TILES], longest * numbers[DECODE_SERIAL])
    return added
