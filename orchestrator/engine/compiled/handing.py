"""How Python hands the arrays of a compiled engine over: by where they are in memory, all in one small array.

Some fifty arrays, one by one, take five times as long to hand over as an iteration does. So they are described once,
and again when one of them has grown: a row of address and sizes each. Whoever describes them keeps them alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from foundation.compiling import making
from orchestrator.engine.compiled.layout import (
    Attention,
    FloatArray,
    IntArray,
    Prices,
    Rules,
    SmallArray,
    State,
)
from orchestrator.engine.compiled.loop import run
from trace_gen.attention_numbers import CompiledAttention

PRICES, ATTENTION = len(State._fields), len(State._fields) + len(Prices._fields)
"""Rows where the descriptions of each begin, after the state's; those of a kind of attention take `PARTS`."""
PARTS, RULES = 4, len(Rules._fields)
KEEPS_TOKEN_TIMES = Rules._fields.index("keeps_token_times")
TOKEN_NS = State._fields.index("token_ns")


def described(state: State, rules: Rules, prices: Prices, attention: Attention) -> tuple[IntArray, IntArray]:
    """Return where the arrays are ``[arrays, 4]``, and the numbers beside them: the rules', and kinds of attention."""
    arrays: list[NDArray[Any]] = [*state, *prices]
    for kind in attention:
        arrays += [kind.ints, kind.floats, kind.places, kind.table]
    table = np.zeros((len(arrays), 4), dtype=np.int64)
    for row, array in zip(table, arrays, strict=True):
        assert array.flags.c_contiguous
        row[: 1 + array.ndim] = (array.ctypes.data, *array.shape)
    return table, np.array([*rules, *(kind.kind for kind in attention)], dtype=np.int64)


@intrinsic
def _made_pointer(context: Any, address: Any) -> Any:
    """Return an address as a pointer."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), made


_pointer: Any = _made_pointer  # numba gives the context itself


@making
def ints1(table: IntArray, at: int) -> IntArray:
    """Return the array that row `at` describes, ``[n]``."""
    return carray(_pointer(table[at, 0]), (table[at, 1],), np.int64)


@making
def ints2(table: IntArray, at: int) -> IntArray:
    """Return the array that row `at` describes, ``[n, m]``."""
    return carray(_pointer(table[at, 0]), (table[at, 1], table[at, 2]), np.int64)


@making
def _ints3(table: IntArray, at: int) -> IntArray:
    return carray(_pointer(table[at, 0]), (table[at, 1], table[at, 2], table[at, 3]), np.int64)


@making
def _smalls1(table: IntArray, at: int) -> SmallArray:
    return carray(_pointer(table[at, 0]), (table[at, 1],), np.int32)


@making
def _smalls2(table: IntArray, at: int) -> SmallArray:
    return carray(_pointer(table[at, 0]), (table[at, 1], table[at, 2]), np.int32)


@making
def _floats1(table: IntArray, at: int) -> FloatArray:
    return carray(_pointer(table[at, 0]), (table[at, 1],), np.float64)


@making
def _floats3(table: IntArray, at: int) -> FloatArray:
    return carray(_pointer(table[at, 0]), (table[at, 1], table[at, 2], table[at, 3]), np.float64)


@making
def _attention(table: IntArray, numbers: IntArray, kind: int) -> CompiledAttention:
    at = ATTENTION + PARTS * kind
    arrays = ints1(table, at), _floats1(table, at + 1), ints1(table, at + 2), _floats1(table, at + 3)
    return CompiledAttention(numbers[RULES + kind], arrays[0], arrays[1], arrays[2], arrays[3])


@making
def run_described(table: IntArray, numbers: IntArray, until: int) -> int:
    """See `loop.run`."""
    state = State(
        scalars=ints1(table, 0),
        request=ints2(table, 1),
        waiting=ints1(table, 2),
        running=ints1(table, 3),
        queue=ints1(table, 4),
        flight=ints2(table, 5),
        rows=_ints3(table, 6),
        passage=_ints3(table, 7),
        stage_free=ints1(table, 8),
        tables=_smalls2(table, 9),
        spare_seats=ints1(table, 10),
        links=_smalls2(table, 11),
        contents=_smalls2(table, 12),
        known=_smalls1(table, 13),
        told=ints2(table, 14),
        told_stages=_ints3(table, 15),
        gaps=ints2(table, 16),
        begun=ints2(table, 17),
        finished=ints2(table, 18),
        token_ns=ints1(table, 19),
        tokens_used=ints1(table, 20),
        samples_used=ints1(table, 21),
        spent=ints1(table, 22),
        attention_ns=ints1(table, 23),
        floats=_floats3(table, 24),
        ints=_ints3(table, 25),
    )
    prices = Prices(
        tokens_ns=ints2(table, PRICES),
        samples_ns=ints2(table, PRICES + 1),
        padded=ints1(table, PRICES + 2),
        layers=ints2(table, PRICES + 3),
        has_layers=ints1(table, PRICES + 4),
        launch_ns=ints1(table, PRICES + 5),
    )
    rules = Rules(
        places=numbers[0],
        stages=numbers[1],
        ahead=numbers[2],
        seats=numbers[3],
        budget=numbers[4],
        threshold=numbers[5],
        chunked=numbers[6],
        reserves=numbers[7],
        longest=numbers[8],
        block_size=numbers[9],
        blocks=numbers[10],
        numbered=numbers[11],
        keeps_token_times=numbers[12],
        host_ns=numbers[13],
        host_request_ns=numbers[14],
        host_hidden=numbers[15],
        has_host=numbers[16],
        largest_graph=numbers[17],
    )
    attention = (
        _attention(table, numbers, 0),
        _attention(table, numbers, 1),
        _attention(table, numbers, 2),
        _attention(table, numbers, 3),
    )
    return run(state, rules, prices, attention, until)
