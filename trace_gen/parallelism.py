"""How a model is spread over the ranks of one instance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from foundation.errors import UserError


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Tensor parallelism inside each of `pipeline` stages. Rank = stage x tensor + index within the stage.

    stage 0: ranks 0 .. tensor-1      stage 1: ranks tensor .. 2 tensor-1      ...

    `expert`: 1 divides every expert's width over the tensor-parallel ranks, as an MLP's; `tensor` gives each of them
    whole experts (vLLM's expert parallelism; there is nothing between).
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        for field, value in (("tensor", self.tensor), ("pipeline", self.pipeline)):
            if value < 1:
                raise UserError(f"{field} parallelism is {value}", fix="give at least 1")
        if self.expert not in (1, self.tensor):
            raise UserError(
                f"experts over {self.expert} ranks, but a stage has {self.tensor}",
                field="--ep_size",
                fix="give 1" if self.tensor == 1 else f"give 1 or {self.tensor}",
            )

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return self.tensor * self.pipeline

    def stage_ranks(self, stage: int) -> tuple[int, ...]:
        """Return the ranks of pipeline stage `stage`, ascending."""
        return tuple(range(stage * self.tensor, (stage + 1) * self.tensor))

    def stage_layers(self, num_layers: int) -> tuple[range, ...]:
        """Return the blocks of each stage: as equal as can be, the remainder one block each from the first stage on.

        (80 layers on 3 stages: 27, 27, 26. The last stage has the LM head, so it is among the lighter ones.)
        """
        if self.pipeline > num_layers:
            raise UserError(
                f"{self.pipeline} pipeline stages for a model of {num_layers} layers",
                fix="use at most one stage a layer",
            )
        share, remainder = divmod(num_layers, self.pipeline)
        starts = [stage * share + min(stage, remainder) for stage in range(self.pipeline + 1)]
        return tuple(range(first, last) for first, last in pairwise(starts))
