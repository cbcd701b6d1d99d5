"""Execution graphs: .et files as they are shown and simulated, and the file of communicator groups."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.fuzz.target import Target, targets
from converters.chakra import read_graph, read_nodes
from converters.chakra.framing import encode_varint
from converters.chakra.graph_reader import read_groups
from converters.chakra.inspect import differences, show_dot, show_json, show_text
from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, NodeWork, RankGraph
from converters.unsimulated import unsimulated
from foundation.errors import SimulationError, UserError


def small_graph(ranks: int) -> ExecutionGraph:
    """Return compute, a load and one collective of each kind, the same on every rank."""
    kinds = [NodeType.COMP, NodeType.MEM_LOAD, *[NodeType.COMM_COLL] * 4]
    count = len(kinds)
    is_collective = [kind == NodeType.COMM_COLL for kind in kinds]

    def column(values: list[int], dtype: type = np.int64) -> np.ndarray:
        return np.array(values, dtype)

    absent = column([ABSENT] * count)
    graph = RankGraph(
        ranks=tuple(range(ranks)),
        names=("node",),
        node_id=np.arange(count, dtype=np.int64),
        node_type=column([int(kind) for kind in kinds], np.int8),
        is_cpu_op=np.zeros(count, np.bool_),
        name=np.zeros(count, np.int32),
        duration_us=np.zeros(count, np.int64),
        work=NodeWork.by_node(
            column([100_500, *[ABSENT] * (count - 1)]).reshape(1, count),
            column([1, 4096, *[ABSENT] * (count - 2)]).reshape(1, count),
        ),
        comm_type=column([-1, -1, 0, 2, 6, 7], np.int8),
        comm_size=column([1 << 20 if one else ABSENT for one in is_collective]),
        comm_priority=absent,
        comm_tag=absent,
        comm_src_delta=absent,
        comm_dst_delta=absent,
        comm_group=np.zeros(count, np.int32),
        involved_dims=absent,
        dep_offsets=column([0, *range(count)]),
        dep_index=np.arange(count - 1, dtype=np.int64),
    )
    return ExecutionGraph([graph])


def _et(path: Path) -> None:
    for show in (read_nodes, show_text, show_json, show_dot):
        for _ in show(path):
            pass
    for _ in differences(path, path):
        raise AssertionError("a file differs from itself")
    for _ in unsimulated(read_graph(path.with_name("g"))):
        pass


def _graph(path: Path) -> None:
    from analytical.embedded import EmbeddedBackend
    from benchmarks.fuzz.readers.astra_files import machine

    shutil.copy(path, path.with_name("g.1.et"))
    groups = path.with_name("g.comm_groups.json")
    groups.write_text('{"1": [0, 1], "2": [1, 0]}')
    found = EmbeddedBackend(machine()).simulate(read_graph(path.with_name("g"), 2))
    assert (np.asarray(found.finish_ns) >= 0).all()


def messages_of(content: bytes) -> list[bytes]:
    """Return the messages of an .et file, as far as its lengths hold."""
    found: list[bytes] = []
    at = 0
    while at < len(content):
        length = shift = 0
        while at < len(content):
            byte = content[at]
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        found.append(content[at : at + length])
        at += length
    return found


def mutate_messages(content: bytes, random: Random) -> bytes:
    """Change messages and frame them again, so that the lengths hold."""
    messages = messages_of(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(messages)) if messages else 0
        kind = random.randrange(8)
        if not messages or kind == 0:
            messages.insert(at, random.choice(messages) if messages else random.randbytes(8))
        elif kind == 1:
            del messages[at]
        else:
            messages[at] = _changed(messages[at], random)
    return b"".join(encode_varint(len(message)) + message for message in messages)


def _changed(message: bytes, random: Random) -> bytes:
    at = random.randrange(len(message) + 1)
    piece = random.choice(
        (b"", random.randbytes(1), b"\xff" * 9 + b"\x01", encode_varint(random.getrandbits(random.randrange(1, 64))))
    )
    return message[:at] + piece + message[at + random.choice((0, 1, 1, 2)) :]


_ENDS = (UserError, SimulationError)
targets.register("et")(Target(".et files, as they are shown", _et, "g.0.et", mutate=mutate_messages))
targets.register("graph")(Target(".et files, as they are simulated", _graph, "g.0.et", _ENDS, mutate_messages))
targets.register("comm_groups")(Target("communicator groups", lambda path: read_groups(path, 8), "g.comm_groups.json"))
