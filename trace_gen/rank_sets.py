"""Which ranks run a row of a trace together, and which meet in its collectives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.mesh import Mesh, Ranks
from trace_gen.operators import Axis
from trace_gen.trace import IntArray

EVERY_RANK = -1
"""The row is on all ranks of its member's stage."""
WAVE = -1
"""As a member: all of them together."""


@dataclass(frozen=True, slots=True)
class RankSets:
    """The rank sets and communication groups of a mesh, and where each stage, member and rank finds its own.

    Rank sets: every stage; then, with several members, every member of every stage; then, where attention is placed by
    request, every rank. Groups: every member of every stage that has several ranks, by its tensor-parallel groups and
    then by its context-parallel ones, which are `parts` of one entry; then, where it has more ranks than those, every
    stage. Members are counted through the stages: ``stage x members + member``.
    """

    mesh: Mesh
    sets: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    parts: tuple[int, ...]
    first_group: dict[str, int]
    """Where the groups of an axis begin, and where those of whole stages do (``""``)."""

    @staticmethod
    def of(mesh: Mesh, by_request: bool) -> RankSets:
        """Return the rank sets of `mesh`; `by_request` asks for one of every rank."""
        stages = mesh.groups("tp", "cp", "dp")
        members = mesh.groups("tp", "cp")
        single = tuple((rank,) for rank in range(mesh.ranks)) if by_request else ()
        groups: list[tuple[int, ...]] = []
        parts: list[int] = []
        first: dict[str, int] = {}
        axes: tuple[tuple[Axis, int], ...] = (("tp", mesh.tensor), ("cp", mesh.context))
        for axis, size in axes:
            if size > 1:
                first[axis] = len(groups)
                groups += side_by_side(members, mesh.groups(axis))
                parts += [mesh.member_size // size] * len(members)
        first[""] = 0
        if mesh.stage_size not in (mesh.tensor, mesh.context):  # else those of the one axis are whole stages
            first[""] = len(groups)
            groups += stages
            parts += [1] * len(stages)
        sets = stages + (members if mesh.data > 1 else ()) + single
        return RankSets(mesh, sets, tuple(groups), tuple(parts), first)

    def set_of(self, stage: IntArray, member: IntArray, rank: IntArray) -> IntArray:
        """Return the index of each row's rank set; `member` may be `WAVE`, `rank` `EVERY_RANK`."""
        mesh = self.mesh
        of_members = mesh.pipeline if mesh.data > 1 else 0
        own = of_members + stage * mesh.data + member
        first_single = mesh.pipeline + (mesh.pipeline * mesh.data if mesh.data > 1 else 0)
        single = first_single + stage * mesh.stage_size + member * mesh.member_size + rank
        shared: IntArray = np.where(member == WAVE, stage, own)
        return np.where(rank == EVERY_RANK, shared, single)

    def group_of(self, stage: IntArray, member: IntArray, along_context: NDArray[np.bool_]) -> IntArray:
        """Return the index of each row's communication group; `along_context`: those that differ in it alone meet."""
        own = stage * self.mesh.data + member
        first = np.where(along_context, self.first_group.get("cp", 0), self.first_group.get("tp", 0))
        return np.where(member == WAVE, self.first_group[""] + stage, first + own)


def side_by_side(members: Iterable[Ranks], groups: Iterable[Ranks]) -> list[Ranks]:
    """Return, for each of `members`, the `groups` that lie in it, one after another."""
    of_rank = {group[0]: group for group in groups}
    return [tuple(rank for first in member if first in of_rank for rank in of_rank[first]) for member in members]
