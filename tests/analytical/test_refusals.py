"""Where ASTRA-sim hangs, crashes, drops nodes or answers nonsense: one line that names rank and node, or the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import analytical_cases as cases
import pytest
from analytical_cases import COLLECTIVE, COMPUTE, Node, files, healthy
from changes import Change, add, add_all, both, change, dimensions, every, first, last, on, ranks

from analytical import __main__ as command
from analytical.collectives.plan import Algorithm, Kind
from foundation.errors import OrreryError, SimulationError, UserError


def message(kind: str, **values: int) -> Node:
    return {"id": 2, "type": kind, "comm_tag": 1, "comm_size": 100, "deps": [0], **values}


def waits(*waiting: int, node: str = "node 1 (COMM_COLL)", over: str = "all ranks") -> str:
    """How a deadlock names the ranks that wait in a collective."""
    why = f"waits in {node} over {over}: another member has not entered, or with another type, size or order"
    return "; ".join(f"rank {rank} {why}" for rank in waiting)


STORE: Node = {"id": 3, "type": "MEM_STORE", "tensor_size": 1000, "deps": [1]}
LOAD: Node = {**STORE, "type": "MEM_LOAD"}
NONSENSE = (
    "something takes 0 ns at t = 0 (a COMP that rounds to 0 ns, endpoint-delay 0, or latency 0 with a tiny message)"
)
SKIPPED: Node = {"id": 1, "type": "INVALID", "deps": [0]}
SUPPORTED = "ALL_REDUCE, ALL_GATHER, BROADCAST, ALL_TO_ALL, REDUCE_SCATTER"
PER_NODE = {"memory-type": "PER_NODE_MEMORY_EXPANSION", "remote-mem-bw": 5, "num-nodes": 1, "num-npus-per-node": 3}

DEADLOCKS: dict[str, tuple[Change, str]] = {
    "a RECV without a SEND": (
        add(1, message("COMM_RECV", comm_src=3)),
        "rank 1 waits in node 2 (COMM_RECV) for 100 bytes with tag 1 from rank 3",
    ),
    "a rendezvous SEND without a RECV": (
        both(change("options/rendezvous_protocol", "true"), add(0, message("COMM_SEND", comm_dst=1))),
        "rank 0 waits in node 2 (COMM_SEND) to rank 1",
    ),
    "a name that is not printable, and long": (
        both(on(0, name="\x1b[2J" + "x" * 200), lambda case: [case["ranks"][rank].pop() for rank in (1, 2, 3)]),
        waits(0, node=f"node 1 (\\x1b[2J{'x' * 70}..., COMM_COLL)"),
    ),
    "a rank missing in a collective": (lambda case: case["ranks"][3].pop(), waits(0, 1, 2)),
    "another size on one rank": (on(2, comm_size=8192), waits(0, 1, 2, 3)),
    "another type on one rank": (on(2, comm_type="ALL_GATHER"), waits(0, 1, 2, 3)),
    "a tag that differs": (
        both(
            add(0, message("COMM_SEND", comm_dst=1)),
            add(1, {**message("COMM_RECV", comm_src=0), "comm_tag": 2}),
        ),
        "rank 1 waits in node 2 (COMM_RECV) for 100 bytes with tag 2 from rank 0",
    ),
    "a child behind a skipped node": (
        every(COMPUTE, SKIPPED, {**COMPUTE, "id": 2, "deps": [1], "name": "last"}),
        "; ".join(
            f"rank {rank} never issues node 2 (last, COMP): its parent was skipped and no event follows"
            for rank in range(4)
        ),
    ),
    "halvingDoubling over 6": (
        both(ranks(6), change("system/all-reduce-implementation", ["halvingDoubling"])),
        waits(0, 1, 2, 3) + "; 2 more ranks are stuck",
    ),
    "one dimension of two": (
        both(dimensions(2, 2), every(COMPUTE, {**COLLECTIVE, "involved_dims": 2}), lambda case: case["ranks"][3].pop()),
        waits(1, over="dimension 1 of the network"),
    ),
    "two dimensions of three": (
        both(
            dimensions(2, 2, 2),
            every(COMPUTE, {**COLLECTIVE, "comm_type": "ALL_GATHER", "involved_dims": 5}),
            lambda case: case["ranks"][5].pop(),
        ),
        waits(0, 1, 4, over="dimension 0 and 2 of the network"),
    ),
    "a member of a group that never enters": (
        both(
            change("groups/1", [0, 1]),
            on(0, group=1),
            lambda case: [case["ranks"][rank].pop() for rank in (1, 2, 3)],
        ),
        waits(0, over="group 1"),
    ),
    "groups that leave ranks behind": (
        both(
            change("groups/1", [0, 1]),
            lambda case: [case["ranks"][rank].insert(1, {**COLLECTIVE, "id": 8, "group": 1}) for rank in (0, 1)],
            lambda case: [case["ranks"][rank][2].update(deps=[8]) for rank in (0, 1)],
        ),
        waits(0, 1, 2, 3),
    ),
}

SITUATIONS: dict[str, tuple[Change, str]] = {
    "a cycle behind other nodes": (
        both(add(2, {**COMPUTE, "id": 5, "deps": [6]}), add(2, {**COMPUTE, "id": 6, "deps": [5]})),
        "rank 2: node 5 (COMP) waits for itself through its dependencies (2 nodes are in or behind the cycle); "
        "break the cycle",
    ),
    "nothing but a cycle": (
        lambda case: case["ranks"][2].__setitem__(slice(None), [{**COMPUTE, "deps": [0]}]),
        "rank 2, node 0 (COMP): every node waits for another (a dependency cycle); break the cycle",
    ),
    "a rank without nodes": (
        lambda case: case["ranks"][2].clear(),
        "rank 2 has no nodes; give every rank at least one",
    ),
    "METADATA": (
        add(2, {"id": 7, "type": "METADATA", "deps": [], "name": "init"}),
        "rank 2, node 7 (init, METADATA): METADATA nodes take no part (ASTRA-sim aborts); leave them out "
        "(--metadata=skip)",
    ),
    "0 ns at t = 0": (
        first(num_ops=500),
        f"rank 0, node 0 (COMP): {NONSENSE}, where ASTRA-sim aborts; make it at least 1 ns",
    ),
    "endpoint-delay 0 at t = 0": (
        both(change("system/endpoint-delay", 0), every({**COLLECTIVE, "deps": []})),
        f"rank 0, node 1 (COMM_COLL): {NONSENSE}, where ASTRA-sim aborts; make it at least 1 ns",
    ),
    "memory, and a SEND at the end": (
        both(add(0, STORE), add(0, {**message("COMM_SEND", comm_dst=1), "id": 4, "deps": [3]})),
        "rank 0 ends with a SEND or RECV and holds node 3 (MEM_STORE): ASTRA-sim aborts in its statistics; end the "
        "rank with a COMP or a collective",
    ),
    "an INVALID node alone": (
        lambda case: case["ranks"].__setitem__(slice(None), [[{"id": 0, "type": "INVALID"}] for _ in range(4)]),
        "rank 0 ends at t = 0 and holds node 0 (INVALID): ASTRA-sim aborts in its statistics; end the rank with a "
        "COMP or a collective",
    ),
    "num_ops missing": (
        first(num_ops=cases.ABSENT),
        "rank 0, node 0 (COMP): num_ops is missing (roofline-enabled needs it)",
    ),
    "num_ops missing in one step": (
        first(num_ops=[5500, cases.ABSENT]),
        "rank 0, node 0 (COMP): num_ops is missing (roofline-enabled needs it)",
    ),
    "tensor_size missing": (
        first(tensor_size=cases.ABSENT),
        "rank 0, node 0 (COMP): tensor_size is missing (roofline-enabled needs it)",
    ),
    "tensor_size negative": (first(tensor_size=-1), "rank 0, node 0 (COMP): tensor_size is negative"),
    "tensor_size 0 in one step": (
        first(num_ops=[5500, 5500], tensor_size=[1, 0]),
        "rank 0, node 0 (COMP): tensor_size is 0 in some steps only; simulate those apart",
    ),
    "num_ops 0": (
        first(num_ops=0),
        "rank 0, node 0 (COMP): num_ops is 0, for which ASTRA-sim answers nonsense; write at least 1",
    ),
    "no peak-perf": (
        change("system/peak-perf", None),
        "rank 0, node 0 (COMP): peak-perf of the system configuration is missing or 0, but the roofline needs it",
    ),
    "no local-mem-bw for the roofline": (
        change("system/local-mem-bw", None),
        "rank 0, node 0 (COMP): local-mem-bw of the system configuration is missing or 0, but the roofline needs it",
    ),
    "no local-mem-bw for a reduction": (
        both(change("system/local-mem-bw", None), change("system/roofline-enabled", 0)),
        "rank 0, node 1 (COMM_COLL): local-mem-bw of the system configuration is missing or 0, but the reduction "
        "needs it",
    ),
    "no remote-mem-bw": (
        both(change("memory/remote-mem-bw", 0), add(0, STORE)),
        "rank 0, node 3 (MEM_STORE): remote-mem-bw of the memory configuration is missing or 0 GB/s",
    ),
    "no memory expansion": (
        both(change("memory/memory-type", "NO_MEMORY_EXPANSION"), add(0, STORE)),
        "rank 0, node 3 (MEM_STORE): memory-type is NO_MEMORY_EXPANSION; choose another for memory nodes",
    ),
    "a load without bytes": (
        add(1, {**LOAD, "tensor_size": cases.ABSENT}),
        "rank 1, node 3 (MEM_LOAD): tensor_size is missing",
    ),
    "a load of negative bytes": (
        add(1, {**LOAD, "tensor_size": -1}),
        "rank 1, node 3 (MEM_LOAD): tensor_size is negative",
    ),
    "nodes of memory for fewer NPUs": (
        both(lambda case: case.update(memory=PER_NODE), add_all(STORE)),
        "rank 0, node 3 (MEM_STORE): num-nodes * num-npus-per-node does not cover 4 NPUs",
    ),
    "communication on the CPU": (
        last(is_cpu_op=True),
        "rank 0, node 1 (COMM_COLL): communication cannot be a CPU operation; drop is_cpu_op",
    ),
    "comm_size missing": (last(comm_size=None), "rank 0, node 1 (COMM_COLL): comm_size is missing"),
    "comm_size negative": (last(comm_size=-1), "rank 0, node 1 (COMM_COLL): comm_size is negative"),
    "comm_type missing": (last(comm_type=None), "rank 0, node 1 (COMM_COLL): comm_type is missing"),
    "an unsupported collective": (
        last(comm_type="REDUCE"),
        f"rank 0, node 1 (COMM_COLL): comm_type is not supported; write one of {SUPPORTED}",
    ),
    "five dimensions without involved_dim": (
        dimensions(2, 2, 2, 2, 2),
        "rank 0, node 1 (COMM_COLL): involved_dim is missing, whose default covers 4 dimensions only",
    ),
    "no dimension involved": (
        last(involved_dims=2),
        "rank 0, node 1 (COMM_COLL): no dimension of more than one NPU takes part; correct involved_dim or the group",
    ),
    "no optimisation of two dimensions": (
        dimensions(2, 2),
        "rank 0, node 1 (COMM_COLL): collective-optimization of the system configuration is missing, which leaves an "
        "all-reduce over several dimensions undefined in ASTRA-sim; write baseline or localBWAware",
    ),
    "no implementation": (
        change("system/all-reduce-implementation", None),
        "rank 0, node 1 (COMM_COLL): the system configuration has no all-reduce-implementation; write one entry a "
        "dimension",
    ),
    "a list longer than the network": (
        change("system/all-reduce-implementation", ["ring", "ring"]),
        "rank 0, node 1 (COMM_COLL): all-reduce-implementation has 2 entries for 1 dimensions; write one each",
    ),
    "a list that leaves ranks out": (
        both(
            dimensions(2, 2),
            change("system/collective-optimization", "baseline"),
            change("system/all-reduce-implementation", ["doubleBinaryTree"]),
        ),
        "rank 2, node 1 (COMM_COLL): doubleBinaryTree in the last entry of a list shorter than the network leaves "
        "this rank out; write one entry a dimension",
    ),
    "no dataset splits": (
        change("system/preferred-dataset-splits", None),
        "rank 0, node 1 (COMM_COLL): preferred-dataset-splits of the system configuration is missing or 0; write 1 "
        "or more",
    ),
    "a tiny all-gather": (
        last(comm_type="ALL_GATHER", comm_size=1),
        "rank 0, node 1 (COMM_COLL): an all-gather of 1 bytes is less than preferred-dataset-splits (2); make it at "
        "least that",
    ),
    "a collective of no bytes": (
        last(comm_type="ALL_GATHER", comm_size=0),
        "rank 0, node 1 (COMM_COLL): an all-gather of 0 bytes is less than preferred-dataset-splits (2); make it at "
        "least that",
    ),
    "a custom collective in chunks": (
        change("system/all-reduce-implementation-custom", ["graphs/ar"]),
        "rank 0, node 1 (COMM_COLL): a custom collective is one stream, but ASTRA-sim waits for "
        "preferred-dataset-splits of them and never ends; set preferred-dataset-splits to 1",
    ),
    "a group without the rank": (
        both(change("groups/1", [0, 1]), last(group=1)),
        "rank 2, node 1 (COMM_COLL): the rank is not a member of group 1",
    ),
    "an unknown group": (
        last(group=5),
        "rank 0, node 1 (COMM_COLL): its communicator group is unknown; known: none",
    ),
    "another unknown group": (
        both(change("groups/2", [0, 1]), change("groups/1", [0, 1]), last(group=5)),
        "rank 0, node 1 (COMM_COLL): its communicator group is unknown; known: [1, 2]",
    ),
    "doubleBinaryTree over 6": (
        both(ranks(6), change("system/all-reduce-implementation", ["doubleBinaryTree"])),
        "rank 0, node 1 (COMM_COLL): doubleBinaryTree over 6 NPUs: it needs a power of two; use ring or direct",
    ),
    "doubleBinaryTree in a group": (
        both(
            change("groups/1", [0, 1]),
            change("groups/2", [2, 3]),
            change("system/all-reduce-implementation", ["doubleBinaryTree"]),
            lambda case: [nodes[1].update(group=1 + rank // 2) for rank, nodes in enumerate(case["ranks"])],
        ),
        "rank 0, node 1 (COMM_COLL): doubleBinaryTree cannot run in a group smaller than the system; use ring or "
        "direct",
    ),
    "halvingDoubling all-to-all": (
        both(last(comm_type="ALL_TO_ALL"), change("system/all-to-all-implementation", ["halvingDoubling"])),
        "rank 0, node 1 (COMM_COLL): halvingDoubling cannot run an all-to-all; use ring or direct",
    ),
    "a halvingDoubling of tiny shards": (
        both(last(comm_size=7), change("system/all-reduce-implementation", ["halvingDoubling"])),
        "rank 3 sends 0 bytes to rank 1: a message needs at least 1 byte and another rank of 0..3 to go to; make the "
        "collective larger, or correct the node",
    ),
    "comm_tag missing": (
        add(0, {key: value for key, value in message("COMM_SEND", comm_dst=1).items() if key != "comm_tag"}),
        "rank 0, node 2 (COMM_SEND): comm_tag is missing",
    ),
    "a negative tag": (
        add(0, message("COMM_SEND", comm_dst=1, comm_tag=-1)),
        "rank 0, node 2 (COMM_SEND): comm_tag does not lie in 0..2147483647",
    ),
    "a tag beyond 31 bits": (
        add(0, message("COMM_RECV", comm_src=1, comm_tag=2**31)),
        "rank 0, node 2 (COMM_RECV): comm_tag does not lie in 0..2147483647",
    ),
    "a message of 0 bytes": (
        add(0, message("COMM_SEND", comm_dst=1, comm_size=0)),
        "rank 0, node 2 (COMM_SEND): comm_size is 0; send at least 1 byte",
    ),
    "comm_dst missing": (add(0, message("COMM_SEND")), "rank 0, node 2 (COMM_SEND): comm_dst is missing"),
    "comm_src missing": (add(0, message("COMM_RECV")), "rank 0, node 2 (COMM_RECV): comm_src is missing"),
    "another rank's SEND": (
        add(0, message("COMM_SEND", comm_dst=1, comm_src=2)),
        "rank 0, node 2 (COMM_SEND): comm_src of a SEND is another rank; only the sender can send",
    ),
    "another rank's RECV": (
        add(0, message("COMM_RECV", comm_src=1, comm_dst=2)),
        "rank 0, node 2 (COMM_RECV): comm_dst of a RECV is another rank; only the receiver can",
    ),
    "a message to itself": (
        add(0, message("COMM_SEND", comm_dst=0)),
        "rank 0, node 2 (COMM_SEND): it sends to rank 0; write another rank of 0..3",
    ),
    "a message to nobody": (
        add(0, message("COMM_SEND", comm_dst=4)),
        "rank 0, node 2 (COMM_SEND): it sends to rank 4; write another rank of 0..3",
    ),
    "a message from nobody": (
        add(0, message("COMM_RECV", comm_src=-1)),
        "rank 0, node 2 (COMM_RECV): it receives from rank -1; write another rank of 0..3",
    ),
    "the last of equal ranks sends to nobody": (
        both(
            lambda case: [nodes.append(message("COMM_SEND", comm_dst=at + 1)) for at, nodes in enumerate(case["ranks"])]
        ),
        "rank 3, node 2 (COMM_SEND): it sends to rank 4; write another rank of 0..3",
    ),
    "more than a rendezvous message holds": (
        both(
            change("options/rendezvous_protocol", "true"),
            add(0, {**message("COMM_SEND", comm_dst=1), "comm_size": 2**31}),
        ),
        "rank 0 sends 2147483648 bytes to rank 1: a rendezvous message holds at most 2147483647 bytes; send it in "
        "parts or switch the rendezvous protocol off",
    ),
    "compute of more than 104 days": (
        first(num_ops=2**63 - 1),
        "rank 0, node 0 (COMP): it takes longer than 104 days; correct its work or the roofline",
    ),
    "a recording of more than 104 days": (
        both(change("system/roofline-enabled", 0), first(duration_us=2**53 // 1000 + 1)),
        "rank 0, node 0 (COMP): duration_micros is more than 104 days",
    ),
    "a collective of more than an exbibyte": (
        last(comm_size=2**60 + 1),
        "rank 0, node 1 (COMM_COLL): comm_size is more than 1152921504606846976 bytes",
    ),
    "a load of more than an exbibyte": (
        add(1, {**LOAD, "tensor_size": 2**60 + 1}),
        "rank 1, node 3 (MEM_LOAD): tensor_size is more than 1152921504606846976 bytes",
    ),
    "a message of more than 104 days": (
        both(change("network/bandwidth", [1e-9]), add(0, {**message("COMM_SEND", comm_dst=1), "comm_size": 2**60})),
        "a message of 1152921504606846976 bytes over dimension 0 takes longer than 104 days; correct its bandwidth",
    ),
    "a reduction of more than 104 days": (
        both(
            change("system/local-mem-bw", 1e-12),
            change("system/roofline-enabled", 0),
            change("network/bandwidth", [1e9]),
            last(comm_size=2**60),
        ),
        "reducing 144115188075855872 bytes takes longer than 104 days; correct local-mem-bw",
    ),
    "a run of more than 146 years": (
        every(*({**COMPUTE, "id": at, "num_ops": 9 * 10**18, "deps": [at - 1][:at]} for at in range(600))),
        "the run takes longer than 146 years; correct the durations or bandwidths",
    ),
    "more ranks than NPUs": (
        change("network/npus_count", [2]),
        "the graph is for 4 ranks, the network for 2 NPUs (npus_count [2]); make their product the number of ranks",
    ),
}

GROUPS: dict[str, tuple[Change, str]] = {
    "group 0": (
        change("groups/0", [0, 1]),
        "communicator group 0: the id is out of range; use ids 1..2147 (0 means all ranks)",
    ),
    "group 2148": (
        change("groups/2148", [0, 1]),
        "communicator group 2148: the id is out of range; use ids 1..2147 (0 means all ranks)",
    ),
    "a rank twice in a group": (
        change("groups/1", [0, 1, 0]),
        "communicator group 1: [0, 1, 0] are not distinct ranks; list each rank of 0..3 once at most",
    ),
    "a rank of a group that there is not": (
        change("groups/1", [0, 4]),
        "communicator group 1: [0, 4] are not distinct ranks; list each rank of 0..3 once at most",
    ),
}


def changed(apply: Change) -> cases.Description:
    case = healthy()
    apply(case)
    return case


def test_the_healthy_case_runs() -> None:
    case = healthy()
    assert set(cases.backend(case).simulate(cases.graph(case)).by_rank()) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", SITUATIONS)
def test_refused(name: str) -> None:
    """In memory: a `SimulationError` (exit code 1) whose text says where."""
    apply, expected = SITUATIONS[name]
    case = changed(apply)
    with pytest.raises(SimulationError) as caught:
        cases.backend(case).simulate(cases.graph(case))
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", DEADLOCKS)
def test_deadlocks(name: str) -> None:
    apply, expected = DEADLOCKS[name]
    case = changed(apply)
    with pytest.raises(SimulationError) as caught:
        cases.backend(case).simulate(cases.graph(case))
    assert str(caught.value) == f"deadlock: {expected}"


@pytest.mark.parametrize("name", GROUPS)
def test_groups_that_cannot_be(name: str) -> None:
    apply, expected = GROUPS[name]
    case = changed(apply)
    with pytest.raises(UserError) as caught:
        cases.backend(case).simulate(cases.graph(case))
    assert str(caught.value) == expected


PAIR = both(
    add(0, message("COMM_SEND", comm_dst=1, comm_tag=2**31 - 1, comm_size=1)),
    add(1, message("COMM_RECV", comm_src=0, comm_tag=2**31 - 1, comm_size=1)),
)

TAKEN: dict[str, Change] = {
    "a SEND without a RECV": add(0, message("COMM_SEND", comm_dst=3)),
    "the highest tag, one byte": PAIR,
    "tag 0, own ends named": both(
        add(0, message("COMM_SEND", comm_src=0, comm_dst=1, comm_tag=0)),
        add(1, message("COMM_RECV", comm_src=0, comm_dst=1, comm_tag=0)),
    ),
    "a rendezvous message of 31 bits": both(
        change("options/rendezvous_protocol", "true"),
        add(0, {**message("COMM_SEND", comm_dst=1), "comm_size": 2**31 - 1}),
        add(1, {**message("COMM_RECV", comm_src=0), "comm_size": 2**31 - 1}),
    ),
    "one operation": both(first(num_ops=1, tensor_size=10**6), add_all({**COMPUTE, "id": 5})),
    "a skipped compute node": add_all({**COMPUTE, "id": 5, "tensor_size": 0}),
    "a load of nothing": add_all({**LOAD, "tensor_size": 0}, {**COMPUTE, "id": 4, "deps": [3]}),
    "an all-gather of as many bytes as splits": last(comm_type="ALL_GATHER", comm_size=2),
    "an all-reduce of no bytes": last(comm_size=0),
    "four dimensions without involved_dim": both(
        dimensions(2, 2, 2, 2), change("system/collective-optimization", "baseline")
    ),
    "five dimensions with involved_dim": both(
        dimensions(2, 2, 2, 2, 2), last(involved_dims=31), change("system/collective-optimization", "baseline")
    ),
    "the lowest and highest group": both(
        change("groups/1", [0, 1]),
        change("groups/2147", [2, 3]),
        lambda case: [nodes[1].update(group=1 if rank < 2 else 2147) for rank, nodes in enumerate(case["ranks"])],
    ),
    "memory of nodes that cover the NPUs": both(
        lambda case: case.update(memory={**PER_NODE, "num-npus-per-node": 4}),
        add_all(STORE, {**COMPUTE, "id": 4, "deps": [3]}),
    ),
    "no local-mem-bw where nothing is reduced": both(
        change("system/local-mem-bw", None), change("system/roofline-enabled", 0), last(comm_type="ALL_GATHER")
    ),
    "no roofline for what the CPU computes": both(
        change("system/peak-perf", None), first(is_cpu_op=True, num_ops=None, duration_us=3)
    ),
    "one dimension without an optimisation": change("system/collective-optimization", None),
    "compute of 104 days": both(first(num_ops=(2**53 - 1) * 1000), change("network/bandwidth", [400])),
    "a recording of 104 days": both(change("system/roofline-enabled", 0), first(duration_us=2**53 // 1000)),
    "an exbibyte": both(last(comm_size=2**60), change("network/bandwidth", [1e6]), change("system/local-mem-bw", 1e6)),
    "years in all": every(*({**COMPUTE, "id": at, "num_ops": 9 * 10**18, "deps": [at - 1][:at]} for at in range(100))),
    "replay of what could not run": both(change("system/replay-only", 1), last(comm_type="REDUCE", duration_us=4)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_just_still_taken(name: str) -> None:
    """The accepted side of each limit; message by message gives the same."""
    case = changed(TAKEN[name])
    backend, graph = cases.backend(case), cases.graph(case)
    answer = backend.simulate(graph).by_rank()
    runs = backend.events.run_step(graph, solve=False).rank_runs
    assert answer == {run.rank: (run.finished_ns, (run.finished_ns or 0) - run.gpu_ns) for run in runs}
    assert all(finish > 0 for finish, _ in answer.values())


@pytest.mark.parametrize(
    ("options", "network", "expected"),
    [
        (
            {"congestion": "aware"},
            {"topology": ["Ring"], "npus_count": [2]},
            "npus_count: a congestion-aware Ring of 2 NPUs would connect them twice; use FullyConnected or Switch for "
            "2 NPUs",
        ),
        (
            {"congestion": "aware"},
            {"topology": ["Ring"] * 2, "npus_count": [2, 2], "bandwidth": [1, 1], "latency": [1, 1]},
            "topology: the congestion-aware network has one dimension, not 2; use one dimension, or the "
            "congestion-unaware network",
        ),
        ({"congestion": "some"}, {}, "congestion: 'some' is unknown; write unaware or aware"),
        ({"metadata": "keep"}, {}, "metadata: 'keep' is unknown; write refuse or skip"),
        ({"num_queues_per_dim": "0"}, {}, "num_queues_per_dim: '0' is not a number of queues; write 1..1024"),
        ({"num_queues_per_dim": "1025"}, {}, "num_queues_per_dim: '1025' is not a number of queues; write 1..1024"),
        ({"num_queues_per_dim": "1_0"}, {}, "num_queues_per_dim: '1_0' is not a number of queues; write 1..1024"),
        ({"num_queues_per_dim": "x"}, {}, "num_queues_per_dim: 'x' is not a number of queues; write 1..1024"),
        (
            {"queues": "2"},
            {},
            "queues: unknown option of the embedded backend; did you mean num_queues_per_dim?",
        ),
        ({"injection_scale": "-1"}, {}, "injection_scale: '-1' is not a scale; write a number from 0 to 1000000"),
        (
            {"injection_scale": "1000001"},
            {},
            "injection_scale: '1000001' is not a scale; write a number from 0 to 1000000",
        ),
        ({"injection_scale": "nan"}, {}, "injection_scale: 'nan' is not a scale; write a number from 0 to 1000000"),
        (
            {"rendezvous_protocol": "perhaps"},
            {},
            "rendezvous_protocol: 'perhaps' is not true or false; write true or false",
        ),
    ],
)
def test_options_and_networks_are_refused(options: dict[str, str], network: dict[str, Any], expected: str) -> None:
    case = healthy()
    case["network"].update(network)
    with pytest.raises(UserError) as caught:
        cases.backend(case, **options)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "trace.1.et").unlink(), r"trace\.1\.et"),
        (lambda folder: (folder / "network.yml").unlink(), r"network\.yml: the network configuration does not exist"),
        (lambda folder: (folder / "system.json").write_text("{"), r"system\.json, line 1: not valid JSON"),
        (lambda folder: (folder / "memory.json").write_text('{"memory-type": "DISK"}'), r'memory-type: "DISK"'),
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
    with pytest.raises(OrreryError, match=expected):
        command.main(arguments)


@pytest.mark.parametrize(("text", "window"), [("direct4²", 4), ("direct2٣", 2), ("direct3x1", 3), ("direct", None)])
def test_of_a_number_after_direct_ascii_digits_count(text: str, window: int | None) -> None:
    """As std::stoi reads it; other characters that Python takes for digits are none."""
    assert Algorithm.parse(text) == Algorithm(Kind.DIRECT, window)
