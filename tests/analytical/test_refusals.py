"""Where ASTRA-sim hangs, crashes, drops nodes or answers nonsense: one line that names rank and node, or the field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import analytical_cases as cases
import pytest

from analytical import __main__ as command
from converters.chakra import write_graph
from foundation.errors import OrreryError, SimulationError, UserError

Description = cases.Description
Node = dict[str, Any]

COLLECTIVE: Node = {"id": 1, "type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 4096, "deps": [0]}
COMPUTE: Node = {"id": 0, "type": "COMP", "num_ops": 5500, "tensor_size": 1, "deps": []}


def healthy() -> Description:
    """Four ranks: a compute node and an all-reduce."""
    return {
        "network": {"topology": ["Switch"], "npus_count": [4], "bandwidth": [50], "latency": [500]},
        "system": {
            "scheduling-policy": "LIFO",
            "preferred-dataset-splits": 2,
            "local-mem-bw": 1600,
            "peak-perf": 1,
            "roofline-enabled": 1,
            **{f"{name}-implementation": ["ring"] for name in ("all-reduce", "all-gather", "all-to-all")},
        },
        "memory": {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-bw": 25, "remote-mem-latency": 100},
        "groups": {},
        "options": {},
        "ranks": [[dict(COMPUTE), dict(COLLECTIVE)] for _ in range(4)],
    }


def every(case: Description, node: Node, *, first: bool = False) -> None:
    """Give every rank `node`, after its others or in place of its compute node."""
    for nodes in case["ranks"]:
        nodes[0 if first else len(nodes) :] = [{**node, "id": 0 if first else 9}, *(nodes[1:] if first else [])]


def message(kind: str, **values: int) -> Node:
    return {"id": 2, "type": kind, "comm_tag": 1, "comm_size": 100, "deps": [0], **values}


def change(path: str, value: object) -> Callable[[Description], None]:
    def apply(case: Description) -> None:
        section, key = path.split("/")
        if value is None:
            case[section].pop(key, None)
        else:
            case[section][key] = value

    return apply


def last(kind: str, **values: Any) -> Callable[[Description], None]:
    """Change the last node of rank 2 (all-reduce), or of every rank for ``kind`` "every"."""

    def apply(case: Description) -> None:
        for rank, nodes in enumerate(case["ranks"]):
            if kind == "every" or rank == 2:
                for name, value in values.items():
                    if value is None:
                        nodes[-1].pop(name)
                    else:
                        nodes[-1][name] = value

    return apply


def add(rank: int, node: Node) -> Callable[[Description], None]:
    return lambda case: case["ranks"][rank].append(node)


def first(**values: Any) -> Callable[[Description], None]:
    def apply(case: Description) -> None:
        for nodes in case["ranks"]:
            nodes[0].update(values)

    return apply


def both(*changes: Callable[[Description], None]) -> Callable[[Description], None]:
    def apply(case: Description) -> None:
        for one in changes:
            one(case)

    return apply


STORE: Node = {"id": 3, "type": "MEM_STORE", "tensor_size": 1000, "deps": [1]}

SITUATIONS: dict[str, tuple[Callable[[Description], None], str]] = {
    "a RECV without a SEND": (add(1, message("COMM_RECV", comm_src=3)), r"rank 1 waits in node 2 .*from rank 3"),
    "a rank missing in a collective": (lambda case: case["ranks"][3].pop(), r"rank 0 waits in node 1 .*all ranks"),
    "another size on one rank": (last("one", comm_size=8192), r"deadlock: rank 0 waits in node 1"),
    "another type on one rank": (last("one", comm_type="ALL_GATHER"), r"deadlock: rank 0 waits in node 1"),
    "a tag that differs": (
        both(
            add(0, message("COMM_SEND", comm_dst=1)),
            add(1, {**message("COMM_RECV", comm_src=0), "comm_tag": 2}),
        ),
        r"rank 1 waits in node 2 .*tag 2 from rank 0",
    ),
    "a cycle behind other nodes": (
        both(add(2, {**COMPUTE, "id": 5, "deps": [6]}), add(2, {**COMPUTE, "id": 6, "deps": [5]})),
        r"rank 2: node 5 .*waits for itself.*break the cycle",
    ),
    "nothing but a cycle": (
        lambda case: case["ranks"][2].__setitem__(slice(None), [{**COMPUTE, "deps": [0]}]),
        r"rank 2, node 0 .*every node waits",
    ),
    "a rank without nodes": (lambda case: case["ranks"][2].clear(), r"rank 2 has no nodes"),
    "METADATA": (add(2, {"id": 7, "type": "METADATA", "deps": []}), r"rank 2, node 7 \(METADATA\)"),
    "0 ns at t = 0": (first(num_ops=500), r"rank 0, node 0 .*0 ns at t = 0"),
    "endpoint-delay 0 at t = 0": (
        both(
            change("system/endpoint-delay", 0),
            lambda case: [nodes.__setitem__(slice(None), [{**COLLECTIVE, "deps": []}]) for nodes in case["ranks"]],
        ),
        r"rank 0, node 1 .*endpoint-delay 0",
    ),
    "a child behind a skipped node": (
        lambda case: case["ranks"].__setitem__(
            slice(None),
            [[COMPUTE, {"id": 1, "type": "INVALID", "deps": [0]}, {**COMPUTE, "id": 2, "deps": [1]}] for _ in range(4)],
        ),
        r"never issues node 2 .*skipped",
    ),
    "memory, and a SEND at the end": (
        both(add(0, STORE), add(0, {**message("COMM_SEND", comm_dst=1), "id": 4, "deps": [3]})),
        r"rank 0 ends with a SEND or RECV .*node 3 \(MEM_STORE\)",
    ),
    "num_ops missing": (first(num_ops=cases.ABSENT), r"node 0 \(COMP\): num_ops is missing"),
    "tensor_size missing": (first(tensor_size=cases.ABSENT), r"node 0 \(COMP\): tensor_size is missing"),
    "comm_tag missing": (
        add(0, {key: value for key, value in message("COMM_SEND", comm_dst=1).items() if key != "comm_tag"}),
        r"rank 0, node 2 \(COMM_SEND\): comm_tag is missing",
    ),
    "comm_size missing": (last("every", comm_size=None), r"node 1 \(COMM_COLL\): comm_size is missing"),
    "comm_type missing": (last("every", comm_type=None), r"comm_type is missing"),
    "an unsupported collective": (last("every", comm_type="REDUCE"), r"comm_type is not supported"),
    "no implementation": (change("system/all-reduce-implementation", None), r"no all-reduce-implementation"),
    "a list longer than the network": (
        change("system/all-reduce-implementation", ["ring", "ring"]),
        r"2 entries for 1 dimensions",
    ),
    "no dataset splits": (change("system/preferred-dataset-splits", None), r"preferred-dataset-splits"),
    "a tiny all-gather": (last("every", comm_type="ALL_GATHER", comm_size=1), r"all-gather of 1 bytes"),
    "a group without the rank": (
        both(change("groups/1", [0, 1]), last("every", group=1)),
        r"rank 2, node 1 .*not a member of group 1",
    ),
    "an unknown group": (last("every", group=5), r"communicator group is unknown"),
    "a message of 0 bytes": (add(0, message("COMM_SEND", comm_dst=1, comm_size=0)), r"comm_size is 0"),
    "a negative tag": (add(0, message("COMM_SEND", comm_dst=1, comm_tag=-1)), r"comm_tag does not lie in"),
    "a message to itself": (add(0, message("COMM_SEND", comm_dst=0)), r"rank 0, node 2 .*sends to rank 0"),
    "a message to nobody": (add(0, message("COMM_SEND", comm_dst=4)), r"sends to rank 4; write another rank of 0..3"),
    "num_ops 0": (first(num_ops=0), r"num_ops is 0"),
    "no peak-perf": (change("system/peak-perf", None), r"peak-perf of the system configuration"),
    "no local-mem-bw": (
        both(change("system/local-mem-bw", None), change("system/roofline-enabled", 0)),
        r"local-mem-bw of the system configuration",
    ),
    "no remote-mem-bw": (both(change("memory/remote-mem-bw", 0), add(0, STORE)), r"remote-mem-bw"),
    "no memory expansion": (
        both(change("memory/memory-type", "NO_MEMORY_EXPANSION"), add(0, STORE)),
        r"rank 0, node 3 \(MEM_STORE\): memory-type is NO_MEMORY_EXPANSION",
    ),
    "halvingDoubling over 6": (
        both(
            change("network/npus_count", [6]),
            change("system/all-reduce-implementation", ["halvingDoubling"]),
            lambda case: case["ranks"].extend(copy.deepcopy(case["ranks"][:2])),
        ),
        r"deadlock|a message needs at least 1 byte",
    ),
    "doubleBinaryTree over 6": (
        both(
            change("network/npus_count", [6]),
            change("system/all-reduce-implementation", ["doubleBinaryTree"]),
            lambda case: case["ranks"].extend(copy.deepcopy(case["ranks"][:2])),
        ),
        r"doubleBinaryTree over 6 NPUs: it needs a power of two",
    ),
    "doubleBinaryTree in a group": (
        both(
            change("groups/1", [0, 1]),
            change("groups/2", [2, 3]),
            change("system/all-reduce-implementation", ["doubleBinaryTree"]),
            lambda case: [nodes[1].update(group=1 + rank // 2) for rank, nodes in enumerate(case["ranks"])],
        ),
        r"doubleBinaryTree cannot run in a group",
    ),
    "groups that leave ranks behind": (
        both(
            change("groups/1", [0, 1]),
            lambda case: [case["ranks"][rank].insert(1, {**COLLECTIVE, "id": 8, "group": 1}) for rank in (0, 1)],
            lambda case: [case["ranks"][rank][2].update(deps=[8]) for rank in (0, 1)],
        ),
        r"deadlock: rank 0 waits in node 1 .*all ranks",
    ),
    "communication on the CPU": (last("every", is_cpu_op=True), r"communication cannot be a CPU operation"),
    "more ranks than NPUs": (change("network/npus_count", [2]), r"4 ranks, the network for 2 NPUs"),
}


def test_the_healthy_case_runs() -> None:
    case = healthy()
    assert set(cases.backend(case).simulate(cases.graph(case)).by_rank()) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", SITUATIONS)
def test_refused(name: str) -> None:
    """In memory: a `SimulationError` (exit code 1) whose text says where."""
    case = healthy()
    apply, expected = SITUATIONS[name]
    apply(case)
    with pytest.raises(SimulationError, match=expected):
        cases.backend(case).simulate(cases.graph(case))


def test_send_without_receive_ends() -> None:
    """As upstream: a SEND does not wait for its receiver."""
    case = healthy()
    case["ranks"][0].append(message("COMM_SEND", comm_dst=1))
    assert cases.backend(case).simulate(cases.graph(case)).by_rank()[0][0] > 0


@pytest.mark.parametrize(
    ("options", "network", "expected"),
    [
        ({"congestion": "aware"}, {"topology": ["Ring"], "npus_count": [2]}, "Ring of 2 NPUs"),
        (
            {"congestion": "aware"},
            {"topology": ["Ring"] * 2, "npus_count": [2, 2], "bandwidth": [1, 1], "latency": [1, 1]},
            "one dimension, not 2",
        ),
        ({"congestion": "some"}, {}, "congestion.*unaware or aware"),
        ({"num_queues_per_dim": "0"}, {}, "num_queues_per_dim.*1..1024"),
        ({"queues": "2"}, {}, "queues: unknown option.*num_queues_per_dim"),
        ({"injection_scale": "-1"}, {}, "injection_scale"),
        ({"rendezvous_protocol": "perhaps"}, {}, "rendezvous_protocol"),
    ],
)
def test_options_and_networks_are_refused(options: dict[str, str], network: dict[str, Any], expected: str) -> None:
    case = healthy()
    case["network"].update(network)
    with pytest.raises(UserError, match=expected):
        cases.backend(case, **options)


def files(case: Description, folder: Path) -> list[str]:
    """Write `case` and return the command's arguments."""
    write_graph(cases.graph(case), folder / "trace")
    (folder / "network.yml").write_text(cases.network_text(case))
    (folder / "system.json").write_text(json.dumps(case["system"], indent=1))
    (folder / "memory.json").write_text(json.dumps(case["memory"]))
    return [
        f"--workload-configuration={folder / 'trace'}",
        f"--network-configuration={folder / 'network.yml'}",
        f"--system-configuration={folder / 'system.json'}",
        f"--remote-memory-configuration={folder / 'memory.json'}",
    ]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "trace.1.et").unlink(), r"trace\.1\.et"),
        (lambda folder: (folder / "network.yml").unlink(), r"network\.yml: the network configuration does not exist"),
        (lambda folder: (folder / "system.json").write_text("{"), r"system\.json, line 1: not valid JSON"),
        (
            lambda folder: (folder / "memory.json").write_text('{"memory-type": "DISK"}'),
            r'memory-type: "DISK" is unknown',
        ),
        (lambda folder: (folder / "network.yml").write_text("topology: [Torus]\n"), r"line 1, topology: 'Torus'"),
        (
            lambda folder: (folder / "trace.2.et").write_bytes((folder / "trace.2.et").read_bytes()[:-3]),
            r"trace\.2\.et",
        ),
    ],
)
def test_damaged_files_are_refused(damage: Callable[[Path], object], expected: str, tmp_path: Path) -> None:
    arguments = files(healthy(), tmp_path)
    damage(tmp_path)
    with pytest.raises(OrreryError, match=expected) as caught:
        command.main(arguments)
    assert caught.value.exit_code == 1
