"""An MLP that every token goes through; its width is divided over the tensor-parallel ranks, rounded up."""

from __future__ import annotations

from foundation.records import dataclass
from trace_gen.operators import ACTIVATION_FLOPS, Operator, OperatorMaker
from trace_gen.precision import ceil_div
from trace_gen.trace import CommType


@dataclass(frozen=True, slots=True)
class DenseMlp:
    """`gated`: gate, up and down projections (SwiGLU), otherwise one up and one down; `bias`: on all of them."""

    width: int
    gated: bool = True
    bias: bool = False

    @property
    def inner(self) -> int:
        """See `Mlp.inner`."""
        return self.width

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """See `Mlp.operators`."""
        inner, hidden = ceil_div(self.width, make.tensor), make.hidden_size
        ups = (("gate_proj", inner), ("up_proj", inner)) if self.gated else (("fc1", inner),)
        up = make.projections(ups, source, hidden, self.bias)
        producers = tuple(row.name for row in up)
        act = make.elementwise("act_fn", producers, len(ups) * inner, inner, ACTIVATION_FLOPS)
        role = "down_proj" if self.gated else "fc2"
        down = make.linear(role, act.name, inner, hidden, self.bias, communication=CommType.ALLREDUCE)
        return [*up, act, down]


def shared_mlp(make: OperatorMaker, source: str, width: int, communication: CommType) -> list[Operator]:
    """Return the gated MLP of shared experts, which every token goes through; `communication` ends it."""
    inner, hidden = ceil_div(width, make.tensor), make.hidden_size
    up = make.linear("shared_gate_up_proj", source, hidden, 2 * inner)
    act = make.elementwise("shared_act_fn", (up.name,), 2 * inner, inner, ACTIVATION_FLOPS)
    return [up, act, make.linear("shared_down_proj", act.name, inner, hidden, communication=communication)]
