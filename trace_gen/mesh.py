"""The ranks of one deployment as a mesh of named axes: the one place that numbers ranks and forms their groups.

    axis  ranks that differ only there ...                                         its coordinate in the rank's number
    tp    hold parts of every matrix (tensor parallel)                             varies fastest
    cp    hold parts of every sequence (context parallel)
    dp    serve different batches, in lock step (data-parallel members of a wave)
    pp    hold different layers (pipeline stages)                                  varies slowest

    2 stages, 2 members, tp 2:    stage 0: [ 0 1 | 2 3 ]    stage 1: [ 4 5 | 6 7 ]
                                        member 0   member 1

So stages are runs of ranks, members are runs inside a stage, and the tensor-parallel ranks, which communicate most,
are neighbours on the network's first dimension. Experts are spread *across* these axes: over all ranks of a stage, as
vLLM does with expert parallelism (its group is data x context x tensor). docs/parallelism.md says what each axis does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from foundation.errors import UserError
from foundation.records import dataclass

Ranks = tuple[int, ...]
AXES = ("tp", "cp", "dp", "pp")
"""The axes of a mesh, the one whose coordinate varies fastest first: the order of network dimensions."""


def lines(sizes: Sequence[int], along: Collection[int]) -> tuple[Ranks, ...]:
    """Return the groups of ranks that differ only in the dimensions `along`, each ascending, in order of first ranks.

    `sizes` are the lengths of the dimensions, dimension 0 first: its coordinate varies fastest with the rank.
    """
    count = len(sizes)
    ranks = np.arange(prod(sizes)).reshape(tuple(reversed(sizes)))
    fixed = [axis for axis in range(count) if count - 1 - axis not in along]
    moving = [axis for axis in range(count) if count - 1 - axis in along]
    width = prod(sizes[dimension] for dimension in along)
    return tuple(map(tuple, ranks.transpose(fixed + moving).reshape(-1, width).tolist()))


@dataclass(frozen=True, slots=True)
class Mesh:
    """How many ranks each axis has, and over how many ranks of a stage whole experts are spread.

    `expert`: 1 divides every expert's width over the tensor-parallel ranks, as an MLP's; all ranks of a stage give each
    of them whole experts. There is nothing between. `layers`: how many layers each stage has (none: as equal as can
    be). `redundant_experts`: experts that ranks hold beside the model's own, as second copies of some. A `UserError`
    says which degree is wrong.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    context: int = 1
    layers: tuple[int, ...] = ()
    redundant_experts: int = 0

    def __post_init__(self) -> None:
        degrees = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data, "context": self.context}
        for field, value in degrees.items():
            if value < 1:
                raise UserError(f"{field} parallelism is {value}", fix="give at least 1")
        if self.layers and (why := self._wrong_layers()):
            raise UserError(why, field="--pp_layers", fix="give each stage at least one layer")
        if self.expert not in (1, self.stage_size):
            raise UserError(
                f"experts over {self.expert} ranks, but a stage has {self.stage_size}",
                field="--ep_size",
                fix="give 1" if self.stage_size == 1 else f"give 1 or {self.stage_size}",
            )
        if self.redundant_experts and self.expert == 1:
            raise UserError(
                f"{self.redundant_experts} redundant experts, but no rank holds whole experts",
                field="--redundant_experts",
                fix="leave them out, or spread whole experts over several NPUs: --ep_size",
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ranks along each axis, in the order of `AXES`."""
        return (self.tensor, self.context, self.data, self.pipeline)

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return prod(self.sizes)

    @property
    def member_size(self) -> int:
        """Ranks of one data-parallel member in one stage."""
        return self.tensor * self.context

    @property
    def stage_size(self) -> int:
        """Ranks of one pipeline stage."""
        return self.member_size * self.data

    def _wrong_layers(self) -> str:
        """Return what is wrong with the layers of each stage, "" for nothing."""
        if len(self.layers) != self.pipeline:
            return f"layers of {len(self.layers)} stages, but there are {self.pipeline}"
        empty = [stage for stage, count in enumerate(self.layers) if count < 1]
        return f"stage {empty[0]} has {self.layers[empty[0]]} layers" if empty else ""

    def stages_of(self, ranks: Iterable[int]) -> set[int]:
        """Return the pipeline stages that `ranks` work for."""
        size = self.stage_size
        return {rank // size for rank in ranks}

    def member_of(self, rank: int) -> int:
        """Return the data-parallel member that `rank` belongs to."""
        return rank % self.stage_size // self.member_size

    def stage_ranks(self, stage: int, member: int | None = None) -> Ranks:
        """Return the ranks of a pipeline stage (those of one data-parallel member), ascending."""
        first = stage * self.stage_size + (member or 0) * self.member_size
        return tuple(range(first, first + (self.stage_size if member is None else self.member_size)))

    def groups(self, *axes: str) -> tuple[Ranks, ...]:
        """Return the groups of a collective along `axes`: ranks that differ in nothing else, by first rank."""
        return lines(self.sizes, [AXES.index(axis) for axis in axes])

    def stage_layers(self, num_layers: int) -> tuple[range, ...]:
        """Return the layers of each stage: as `layers` says, or as equal as can be.

        Then the remainder goes to the first stages, one each. (80 layers on 3 stages: 27, 27, 26. The last stage has
        the LM head, so it is among the lighter ones.)
        """
        if self.layers and sum(self.layers) != num_layers:
            raise UserError(
                f"stages of {'+'.join(map(str, self.layers))} = {sum(self.layers)} layers, the model has {num_layers}",
                field="--pp_layers",
                fix=f"give {self.pipeline} numbers that add up to {num_layers}",
            )
        if self.pipeline > num_layers:
            raise UserError(
                f"{self.pipeline} pipeline stages for a model of {num_layers} layers",
                fix="use at most one stage a layer",
            )
        share, remainder = divmod(num_layers, self.pipeline)
        counts = self.layers or [share + (stage < remainder) for stage in range(self.pipeline)]
        starts = [0, *accumulate(counts)]
        return tuple(range(first, last) for first, last in pairwise(starts))
