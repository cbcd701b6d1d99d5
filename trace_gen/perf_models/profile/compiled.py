"""Attention that was measured, as functions that compile; `profile.attention` says the same with arrays.

Every kernel counts as a lookup, in `CompiledAttention.ints`; the model adds these to its own.
"""

from __future__ import annotations

from foundation.compiling import inner
from trace_gen.attention.compiled import kept_of, kept_sum, most_kept, note_contexts
from trace_gen.attention_numbers import CompiledAttention, FloatArray, IntArray
from trace_gen.perf_models.profile.numbers import (
    ALONE,
    ALONE_LENGTH,
    ALONE_ROWS,
    ALONE_SLICE,
    BESIDE,
    BESIDE_LENGTH,
    BESIDE_ROWS,
    COUNTS,
    COUNTS_LENGTH,
    DECODES,
    DECODES_LENGTH,
    EXTRAPOLATED,
    FIRST_SLICE,
    INTERPOLATED,
    LEAST_DECODE,
    MEASURED,
    MOST_CHUNK,
    MOST_CONTEXT,
    MOST_COUNT,
    MOST_DECODE,
    NO_CHUNK,
    NONE,
    PROMPTS,
    PROMPTS_LENGTH,
    SLICE_ROW,
    SQUARES_FROM,
    TAIL,
    TAIL_BESIDE,
    TAIL_BESIDE_LENGTH,
    TAIL_LENGTH,
    TAUS,
    TAUS_BESIDE,
    TIMES,
)


@inner
def batch_ns(attention: CompiledAttention, new: IntArray, context: IntArray, count: int) -> float:
    """Return the time of one kernel over the batch (ns)."""
    decodes, total, most, prompts, tokens, before, inside = 0, 0, 0, 0, 0, 0, True
    for request in range(count):
        own = kept_of(attention.ints, context[request])
        if new[request] == 1:
            decodes, total, most = decodes + 1, total + own, max(most, own)
            continue
        prompts += 1
        if prompts == 1:
            tokens, before = new[request], own
        inside = inside and new[request] <= attention.ints[MOST_CHUNK] and own <= attention.ints[MOST_CONTEXT]
    mean = total / decodes if decodes else 0.0
    inside = inside and _reaches_chunks(attention, new, count, prompts, decodes)
    _count(attention, prompts, tokens, before, decodes, mean, inside)
    if prompts == 0:
        time = _chunk_ns(attention, attention.ints[NO_CHUNK], 0.0, decodes, mean)
    else:
        time = _prompts_ns(attention, new, context, count, decodes, mean)
    return time + _excess_ns(attention, decodes, mean, most, prompts)


@inner
def begin_decodes(context: IntArray, count: int, floats: FloatArray, ints: IntArray) -> None:
    """Note the contexts."""
    note_contexts(context, count, floats, ints)


@inner
def decodes_ns(attention: CompiledAttention, count: int, step: int, floats: FloatArray, ints: IntArray) -> float:
    """Return the time of a step of decodes (ns)."""
    mean = kept_sum(attention.ints, count, step, floats, ints) / count
    _count(attention, 0, 0, 0, count, mean, True)
    time = _chunk_ns(attention, attention.ints[NO_CHUNK], 0.0, count, mean)
    return time + _excess_ns(attention, count, mean, most_kept(attention.ints, count, step, floats, ints), 0)


@inner
def _prompts_ns(
    attention: CompiledAttention, new: IntArray, context: IntArray, count: int, decodes: int, decode: float
) -> float:
    """Return the time of prompts, each a chunk of its own, beside decodes on `decode` tokens each (ns)."""
    shape, places = attention.ints, attention.places
    least = places[shape[BESIDE_ROWS] if decodes else shape[ALONE_ROWS]]
    base = _chunk_ns(attention, least, 0.0, decodes, decode)
    time = base
    for request in range(count):
        if new[request] > 1:
            own = kept_of(shape, context[request])
            time += _beyond_base_ns(attention, new[request], own, decodes, decode, base)
    return time


@inner
def _beyond_base_ns(
    attention: CompiledAttention, chunk: int, context: int, decodes: int, decode: float, base: float
) -> float:
    """Return what one chunk takes beyond the smallest one (ns)."""
    numbers, floats = attention.ints, attention.floats
    if decodes:
        first, length, rows = numbers[BESIDE], numbers[BESIDE_LENGTH], numbers[BESIDE_ROWS]
    else:
        first, length, rows = numbers[ALONE], numbers[ALONE_LENGTH], numbers[ALONE_ROWS]
    low, high, share = _bracket(floats, first, length, chunk)
    least = _chunk_ns(attention, attention.places[rows + low], context, decodes, decode) - base
    if share == 0:
        return least
    most = _chunk_ns(attention, attention.places[rows + high], context, decodes, decode) - base
    smaller, larger = floats[first + low], floats[first + high]
    if smaller < SQUARES_FROM:
        return _mixed(least, most, share)
    return chunk * _mixed(least / smaller, most / larger, share)


@inner
def _chunk_ns(attention: CompiledAttention, row: int, context: float, decodes: int, decode: float) -> float:
    """Return the time of a chunk that was measured, whose row is `row` (ns)."""
    places = attention.places
    if decodes == 0:
        return _slice_ns(attention, places[row + ALONE_SLICE], context, decode)
    low, high, share = _bracket(attention.floats, places[row + COUNTS], places[row + COUNTS_LENGTH], decodes)
    fewer = _slice_ns(attention, places[row + FIRST_SLICE] + low * SLICE_ROW, context, decode)
    if share == 0:
        return fewer
    more = _slice_ns(attention, places[row + FIRST_SLICE] + high * SLICE_ROW, context, decode)
    return _mixed(fewer, more, share)


@inner
def _slice_ns(attention: CompiledAttention, row: int, context: float, decode: float) -> float:
    """Return the time in the slice of `row`, of a prompt's context and those of the decodes (ns)."""
    places, floats = attention.places, attention.floats
    low, high, share = _bracket(floats, places[row + PROMPTS], places[row + PROMPTS_LENGTH], context)
    length = places[row + DECODES_LENGTH]
    below = _straight(attention, places[row + DECODES], length, places[row + TIMES] + low * length, decode, True)
    if share == 0:
        return below
    above = _straight(attention, places[row + DECODES], length, places[row + TIMES] + high * length, decode, True)
    return _mixed(below, above, share)


@inner
def _excess_ns(attention: CompiledAttention, decodes: int, mean: float, most: int, prompts: int) -> float:
    """Return what contexts of unequal length take longer (ns)."""
    numbers = attention.ints
    if prompts:
        first, length, taus = numbers[TAIL_BESIDE], numbers[TAIL_BESIDE_LENGTH], numbers[TAUS_BESIDE]
    else:
        first, length, taus = numbers[TAIL], numbers[TAIL_LENGTH], numbers[TAUS]
    if decodes < 2 or length == 0:
        return 0.0
    return _straight(attention, first, length, taus, decodes, False) * (most - mean)


@inner
def _straight(attention: CompiledAttention, first: int, length: int, times: int, size: float, goes_on: bool) -> float:
    """Return what lies at `size` on the straight lines through times at sizes, beyond the last if it `goes_on`."""
    sizes, values = attention.floats, attention.table
    end, last = first + length - 1, times + length - 1
    time: float = values[last]
    if size <= sizes[first]:
        time = values[times]
    elif size < sizes[end]:
        low = _first_from(sizes, first, length, size) - 1
        at = times + low - first
        slope = (values[at + 1] - values[at]) / (sizes[low + 1] - sizes[low])
        time = slope * (size - sizes[low]) + values[at]
        if size == sizes[low + 1]:
            time = values[at + 1]
    elif goes_on and length > 1 and size > sizes[end]:
        slope = max(0.0, (values[last] - values[last - 1]) / (sizes[end] - sizes[end - 1]))
        time += (size - sizes[end]) * slope
    return time


@inner
def _bracket(sizes: FloatArray, first: int, length: int, size: float) -> tuple[int, int, float]:
    """Return the two of `length` sizes that `size` lies between (or beyond), and how far along: 0 below the first."""
    if length == 1 or size <= sizes[first]:
        return 0, 0, 0.0
    high = min(_first_from(sizes, first, length, size), first + length - 1)
    low = high - 1
    return low - first, high - first, (size - sizes[low]) / (sizes[high] - sizes[low])


@inner
def _first_from(sizes: FloatArray, first: int, length: int, size: float) -> int:
    """Return the place of the first of `length` sizes that is at least `size`, the place after them where none is."""
    low, high = first, first + length
    while low < high:
        middle = (low + high) // 2
        if sizes[middle] < size:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _mixed(low: float, high: float, share: float) -> float:
    """Return what lies `share` of the way from `low` to `high`; beyond 1 it is never less than `high`."""
    mixed = low + (high - low) * share
    return mixed if share <= 1 else max(mixed, high)


@inner
def _reaches_chunks(attention: CompiledAttention, new: IntArray, count: int, prompts: int, decodes: int) -> bool:
    """Whether no prompt is smaller than the smallest chunk that was measured."""
    if prompts == 0:
        return True
    least = attention.floats[attention.ints[BESIDE if decodes else ALONE]]
    reaches = True
    for request in range(count):
        reaches = reaches and (new[request] == 1 or new[request] >= least)
    return reaches


@inner
def _count(
    attention: CompiledAttention, prompts: int, chunk: int, context: int, decodes: int, mean: float, inside: bool
) -> None:
    """Count a lookup; `chunk` and `context` are the first prompt's; no prompt is outside of what was measured where all
    are `inside`."""
    numbers = attention.ints
    outside = decodes > 0 and (mean < numbers[LEAST_DECODE] or mean > numbers[MOST_DECODE])
    if not inside or outside or decodes > numbers[MOST_COUNT]:
        numbers[EXTRAPOLATED] += 1
    elif prompts < 2 and _measured(attention, prompts, chunk, context, decodes, mean):
        numbers[MEASURED] += 1
    else:
        numbers[INTERPOLATED] += 1


@inner
def _measured(attention: CompiledAttention, prompts: int, chunk: int, context: int, decodes: int, mean: float) -> bool:
    """Whether a kernel with at most one prompt was measured."""
    numbers, floats, places = attention.ints, attention.floats, attention.places
    row = numbers[NO_CHUNK]
    if prompts:
        first, length = numbers[ALONE], numbers[ALONE_LENGTH]
        rows = numbers[ALONE_ROWS]
        if decodes:
            first, length, rows = numbers[BESIDE], numbers[BESIDE_LENGTH], numbers[BESIDE_ROWS]
        at = _place_of(floats, first, length, chunk)
        if at == NONE:
            return False
        row = places[rows + at]
    own = places[row + ALONE_SLICE]
    if decodes:
        at = _place_of(floats, places[row + COUNTS], places[row + COUNTS_LENGTH], decodes)
        if at == NONE:
            return False
        own = places[row + FIRST_SLICE] + at * SLICE_ROW
    if _place_of(floats, places[own + PROMPTS], places[own + PROMPTS_LENGTH], context) == NONE:
        return False
    return _place_of(floats, places[own + DECODES], places[own + DECODES_LENGTH], mean) != NONE


@inner
def _place_of(sizes: FloatArray, first: int, length: int, size: float) -> int:
    """Return which of `length` sizes is `size`, or `NONE`."""
    place = _first_from(sizes, first, length, size)
    return place - first if place < first + length and sizes[place] == size else NONE
