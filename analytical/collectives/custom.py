"""Custom collectives: the graph of SEND, RECV and COMP nodes that a rank runs instead of a built-in algorithm.

Source: CustomAlgorithm.cc, CollectiveImplLookup.cc. Every node is started as soon as it waits for nothing; sizes, tags
and peers are the graph's own (peers are numbers within the communicator); COMP takes its recorded duration, or 1 ns.
"""

from __future__ import annotations

from analytical.collectives.algorithms import Endpoint
from analytical.collectives.plan import Phase
from analytical.machine.messages import point_to_point_tag
from converters.execution_graph import ABSENT, NodeType, RankGraph
from foundation.errors import SimulationError


class CustomGraphs:
    """The graphs of custom collectives, each set of files read once."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[str, int], dict[int, RankGraph]] = {}

    def get(self, prefix: str, members: int, position: int) -> RankGraph:
        """Return the graph of the member at `position`, of ``PREFIX.0.et`` .. ``PREFIX.<members - 1>.et``."""
        key = (prefix, members)
        if key not in self._graphs:
            from converters.chakra import read_graph

            self._graphs[key] = dict(read_graph(prefix, members).by_rank())
        return self._graphs[key][position]


class CustomRun:
    """One rank's run of a custom collective."""

    def __init__(self, endpoint: Endpoint, phase: Phase, graphs: CustomGraphs) -> None:
        self._endpoint = endpoint
        self._ranks = phase.ring.ranks
        self._position = phase.position
        self._graph = graph = graphs.get(phase.algorithm.custom, len(phase.ring.ranks), phase.position)
        self._parents = (graph.dep_offsets[1:] - graph.dep_offsets[:-1]).tolist()
        self._children: list[list[int]] = [[] for _ in range(graph.nodes)]
        for row in range(graph.nodes):
            for parent in graph.dependencies(row).tolist():
                self._children[parent].append(row)
        self._under_way = 0

    def start(self) -> None:
        """Start every node that waits for nothing."""
        self._issue([row for row, parents in enumerate(self._parents) if not parents])

    def _issue(self, rows: list[int]) -> None:
        self._under_way += len(rows)
        for row in sorted(rows, key=lambda row: int(self._graph.node_id[row])):
            self._issue_one(row)

    def _issue_one(self, row: int) -> None:
        graph, endpoint = self._graph, self._endpoint
        kind = int(graph.node_type[row])
        if kind == NodeType.COMP:
            recorded = int(graph.duration_us[row])
            endpoint.events.after(recorded * 1000 if recorded else 1, self._ended, row)
            return
        if kind not in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            raise SimulationError(
                f"rank {endpoint.rank}: node {int(graph.node_id[row])} of a custom collective is "
                f"{NodeType(kind).name}; use SEND, RECV and COMP only"
            )
        tag, size = point_to_point_tag(int(graph.comm_tag[row])), int(graph.comm_size[row])
        if kind == NodeType.COMM_SEND:
            peer = self._peer(row, int(graph.comm_dst_delta[row]))
            endpoint.messenger.send(tag, endpoint.rank, peer, size, (self._ended, row))
        else:
            peer = self._peer(row, int(graph.comm_src_delta[row]))
            endpoint.messenger.receive(tag, peer, endpoint.rank, size, (self._ended, row))

    def _peer(self, row: int, delta: int) -> int:
        number = self._position + delta
        if delta == ABSENT or not 0 <= number < len(self._ranks):
            raise SimulationError(
                f"rank {self._endpoint.rank}: node {int(self._graph.node_id[row])} of a custom collective has no peer "
                f"within the communicator; write a number of 0..{len(self._ranks) - 1}"
            )
        return self._ranks[number]

    def _ended(self, row: int) -> None:
        self._under_way -= 1
        ready = []
        for child in self._children[row]:
            self._parents[child] -= 1
            if not self._parents[child]:
                ready.append(child)
        self._issue(ready)
        if not self._under_way:
            self._endpoint.phase_done()
