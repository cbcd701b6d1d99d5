"""What a row becomes on each of its ranks: up to five nodes of its own, and transfers before and after it.

    slot    0      1            2            3      4            5       6      7
    node    RECV   MEM_LOAD     MEM_LOAD     COMP   COMM_COLL    STORE   SEND   COMP
                   (input)      (weights)                                       (of 0 ns, once a rank)
    waits   -      row's        row's        1, 2   3            4 or 3  end    all that
    for            parents      parents                                  of row nobody awaits

The slot is the order within a row. The row's parents are awaited by its loads, or by its first node where it has none.
The row ends with slot 5, 4 or 3, whichever is last; that is what its dependents and its SEND wait for.

The last slot closes a rank that moves memory and sends: ASTRA-sim aborts where the last node to complete on a rank with
MEM nodes is a SEND.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import NodeType
from trace_gen.trace import CommType, Location, RowKind, Trace

BoolArray = NDArray[np.bool_]

SLOTS = 7
RECV, LOAD_INPUT, LOAD_WEIGHT, COMP, COLL, STORE, SEND, CLOSE = range(SLOTS + 1)
MEMORY_SLOTS = (LOAD_INPUT, LOAD_WEIGHT, STORE)
COMMUNICATION_SLOTS = (RECV, COLL, SEND)
SLOT_NODE_TYPES = (
    NodeType.COMM_RECV,
    NodeType.MEM_LOAD,
    NodeType.MEM_LOAD,
    NodeType.COMP,
    NodeType.COMM_COLL,
    NodeType.MEM_STORE,
    NodeType.COMM_SEND,
    NodeType.COMP,
)
"""The type of the node in each slot, `CLOSE` last."""
SUFFIXES = (".recv", ".load_input", ".load_weight", "", ".collective", ".store", ".send", ".close")
"""What the node's name ends with."""


def row_slots(trace: Trace) -> BoolArray:
    """Return which of the slots every row fills by itself, ``[rows, SLOTS]`` (transfers are not in it).

    Operands outside device memory are moved only where they have bytes.
    """
    slots = np.zeros((trace.rows, SLOTS), dtype=np.bool_)
    compute = trace.kind == RowKind.COMPUTE
    slots[:, COMP] = compute
    operands = (
        (LOAD_INPUT, trace.input_loc, trace.input_bytes),
        (LOAD_WEIGHT, trace.weight_loc, trace.weight_bytes),
        (STORE, trace.output_loc, trace.output_bytes),
    )
    for slot, location, size in operands:
        away = location != Location.LOCAL
        if away.any():  # of most traces nothing is
            slots[:, slot] = compute & away & (size > 0)
    collective = (trace.comm_type != CommType.NONE) & (trace.comm_type != CommType.PERMUTE)
    if collective.any():
        slots[:, COLL] = collective & (compute | (trace.kind == RowKind.COMM))
    if not compute.all():
        slots[:, LOAD_INPUT] |= trace.kind == RowKind.MEM_LOAD
        slots[:, STORE] |= trace.kind == RowKind.MEM_STORE
    return slots
