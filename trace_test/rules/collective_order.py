"""All ranks that meet in collectives run the same ones in the same order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.collective_groups import spanned
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, RankGraph
from foundation.records import dataclass
from trace_test.rule import Rule, Subject, Violation

Collectives = list[tuple[int, int, int]]
"""(node id, type, bytes), in the order of node ids, which is the order of issue."""


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Ranks that meet: in communicator group `group`, or (0) over all network dimensions of `mask` at least."""

    group: int
    mask: int
    where: str
    ranks: tuple[int, ...]


def check(subject: Subject) -> Iterator[Violation]:
    """Compare every rank's sequence of collectives with that of the first rank that it meets."""
    graph = subject.graph
    assert graph is not None
    ranks = dict(graph.by_rank())
    sequences = _Sequences(subject)
    for meeting in _meetings(subject, graph):
        other, *present = [rank for rank in meeting.ranks if rank in ranks] or [0]  # who is missing, another rule says
        for rank in present:
            own, theirs = sequences.of(ranks[rank], meeting), sequences.of(ranks[other], meeting)
            if own is not theirs:
                yield from _compare(rank, own, other, theirs, meeting.where)
    yield from _strangers(subject, graph, sequences)


def unchecked(subject: Subject) -> str:
    """Which ranks meet over some network dimensions is the network's affair."""
    if subject.graph is None or subject.network_dims is not None:
        return ""
    count = sum(int(_over_dimensions(one).sum()) * len(one.ranks) for one in subject.graph.rank_graphs)
    return f"{count} collectives over some network dimensions (give --network FILE)" if count else ""


def _meetings(subject: Subject, graph: ExecutionGraph) -> Iterator[_Meeting]:
    everyone = tuple(range(graph.num_ranks))
    for group in sorted(_groups_used(graph) & graph.groups.keys()):
        yield _Meeting(group, 0, f"group {group}", graph.groups[group])
    if subject.network_dims is None:
        yield _Meeting(0, _everything(subject), "all ranks", everyone)
        return
    for mask in sorted(_masks(subject, graph)):
        dims = [str(dim) for dim in range(len(subject.network_dims)) if mask >> dim & 1]
        for ranks in spanned(subject.network_dims, mask):
            over = f"dimension{'s' if len(dims) > 1 else ''} {', '.join(dims)} of the network"
            yield _Meeting(0, mask, "all ranks" if mask == _everything(subject) else over, ranks)


def _masks(subject: Subject, graph: ExecutionGraph) -> set[int]:
    """Return the sets of dimensions that collectives are over, and what any of them have in common.

    Ranks that differ in dimension 0 alone meet in collectives over dimensions 0 and 1, and in those over 0 and 2, and
    must run both in one order: they are compared over what the two have in common.
    """
    used = {_everything(subject)}
    for one in graph.rank_graphs:
        used |= set(_mask(one, subject)[_anonymous(one)].tolist())
    closed = set(used)
    while more := {first & second for first in closed for second in used} - closed:
        closed |= more
    return {mask for mask in closed if mask}


class _Sequences:
    """The collectives of like ranks in a meeting, worked out once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[tuple[int, int, int], Collectives] = {}

    def of(self, graph: RankGraph, meeting: _Meeting) -> Collectives:
        """Return the collectives of a rank in `meeting`."""
        key = (id(graph), meeting.group, meeting.mask)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._sequence(graph, meeting)
        return found

    def _sequence(self, graph: RankGraph, meeting: _Meeting) -> Collectives:
        if meeting.group:
            chosen = (graph.node_type == NodeType.COMM_COLL) & (graph.comm_group == meeting.group)
        else:
            chosen = _anonymous(graph) & (_mask(graph, self._subject) & meeting.mask == meeting.mask)
        rows = np.flatnonzero(chosen)
        columns = (graph.node_id[rows], graph.comm_type[rows], graph.comm_size[rows])
        return sorted(zip(*(column.tolist() for column in columns), strict=True))


def _anonymous(graph: RankGraph) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Collectives that name no communicator group: over all ranks, or over network dimensions."""
    result: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (graph.node_type == NodeType.COMM_COLL) & (
        graph.comm_group == 0
    )
    return result


def _over_dimensions(graph: RankGraph) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    result: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = _anonymous(graph) & (graph.involved_dims != ABSENT)
    return result


def _everything(subject: Subject) -> int:
    """Return the mask of all dimensions; of a network that is not known, one that no set of dimensions has."""
    return (1 << 62) if subject.network_dims is None else (1 << len(subject.network_dims)) - 1


def _mask(graph: RankGraph, subject: Subject) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return every node's set of dimensions; files list more dimensions than the network has."""
    everything = _everything(subject)
    own = graph.involved_dims if subject.network_dims is None else graph.involved_dims & everything
    return np.where(graph.involved_dims == ABSENT, everything, own)


def _groups_used(graph: ExecutionGraph) -> set[int]:
    collectives = (own.comm_group[own.node_type == NodeType.COMM_COLL] for own in graph.rank_graphs)
    return {int(group) for groups in collectives for group in np.unique(groups)} - {0}


def _strangers(subject: Subject, graph: ExecutionGraph, sequences: _Sequences) -> Iterator[Violation]:
    """Yield groups that no file declares, and ranks that communicate in a group to which they do not belong."""
    for group in sorted(_groups_used(graph)):
        if group not in graph.groups:
            yield Violation(f"group {group}", "collectives name it, but the communicator group file does not")
            continue
        meeting = _Meeting(group, 0, "", graph.groups[group])
        outside = [rank for rank, own in graph.by_rank() if rank not in meeting.ranks and sequences.of(own, meeting)]
        if outside:
            what = f"it communicates in group {group}, to which it does not belong"
            yield Violation(f"rank {outside[0]}", what, rank=outside[0])


def _compare(rank: int, own: Collectives, other: int, theirs: Collectives, where: str) -> Iterator[Violation]:
    if len(own) != len(theirs):
        what = f"over {where} it runs {len(own)} collectives, rank {other} {len(theirs)}: they would wait for ever"
        yield Violation(f"rank {rank}", what, rank=rank)
        return
    for (node, kind, size), (_, kind_there, size_there) in zip(own, theirs, strict=True):
        if (kind, size) != (kind_there, size_there):
            here, there = CollectiveType(kind).name, CollectiveType(kind_there).name
            what = f"over {where} it runs {here} of {size} bytes where rank {other} runs {there} of {size_there} bytes"
            yield Violation(f"rank {rank}, node {node}", what, rank=rank)
            return


RULE = Rule(
    name="collective-order",
    about="Ranks that meet in collectives (all of them, those of a communicator group, or those along dimensions of "
    "the network) run the same ones (type and bytes) in the same order of node ids; ASTRA-sim matches them by number "
    "and waits for ever where one differs.",
    cause="a collective that only some ranks' rows have, or a group file or network that belongs to another deployment",
    needs="graph",
    check=check,
    unchecked=unchecked,
)
