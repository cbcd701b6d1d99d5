"""The numbers of the roofline's attention, for `roofline.compiled`."""

from __future__ import annotations

import numpy as np

from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import ROOFLINE, SHAPE_NUMBERS, CompiledAttention, shape_numbers
from trace_gen.device_classes import Efficiency

QUERY_TILE = 64
"""Queries of one head that a compute unit handles at a time (FlashAttention-2's block of rows)."""
SURELY = 1 - 1e-12
"""Of a time that rounding may have made longer: what it is at least."""
TILE_HEADS, UNITS, APART = range(SHAPE_NUMBERS, SHAPE_NUMBERS + 3)
"""Places of `CompiledAttention.ints`; APART: kernels keep decodes and prompts apart."""
(
    HEADS,
    UNIT_RATE,
    CHUNK_RATE,
    CHUNK_TILE,
    CHUNK_OVERHEAD,
    READ_NS,
    COMPUTE_NS,
    DECODE_TILES,
    DECODE_OVERHEAD,
    DECODE_SERIAL,
) = range(10)
"""Places of `CompiledAttention.floats`: heads with tiles of their own; of chunks a unit's FLOP/s, bytes/s, a tile's
time and the overhead; of decodes the time of a byte, of a FLOP, of a request's tiles, the overhead, and the time of a
byte of the longest context."""


def roofline_numbers(
    shape: AttentionShape, peak: float, bandwidth: float, units: int, chunk: Efficiency, decode: Efficiency, apart: bool
) -> CompiledAttention:
    """Return the numbers of `shape` on a device of so many `units`, with the efficiencies of chunks and decodes."""
    floats = np.empty(DECODE_SERIAL + 1)
    floats[HEADS] = tile_heads(shape)
    floats[UNIT_RATE] = peak * chunk.compute / units
    floats[CHUNK_RATE] = bandwidth * chunk.memory
    floats[CHUNK_TILE], floats[CHUNK_OVERHEAD] = chunk.tile_ns, chunk.overhead_ns
    floats[READ_NS] = 1e9 / (bandwidth * decode.memory)
    floats[COMPUTE_NS] = 1e9 / (peak * chunk.compute)
    floats[DECODE_TILES] = decode.tile_ns * shape.kv_heads / units
    floats[DECODE_OVERHEAD] = decode.overhead_ns
    floats[DECODE_SERIAL] = serial_ns_a_byte(shape, decode)
    ints = np.array([*shape_numbers(shape), shape.tile_heads, units, int(apart)], dtype=np.int64)
    return CompiledAttention(ROOFLINE, ints, floats, np.zeros(0, dtype=np.int64), np.zeros(0))


def serial_ns_a_byte(shape: AttentionShape, decode: Efficiency) -> float:
    """Return `serial_ns` as the time of each byte that is moved for the longest context."""
    return decode.serial_ns / shape.kv_bytes


def tile_heads(shape: AttentionShape) -> float:
    """Return the heads (those that stand in one tile being one) that have tiles of their own."""
    return max(1.0, shape.query_heads / shape.tile_heads)
