"""A mixture of experts: its operators on one rank, wherever the experts are.

    every expert's width divided over the tensor-parallel ranks (or one rank)
        [shared experts] router expert_gate_up_proj expert_act_fn expert_down_proj expert_sum (ALLREDUCE)
    whole experts on the ranks of a stage, tokens exchanged
        [shared experts (ALLREDUCE)] router | expert_dispatch (ALLTOALL) expert_gate_up_proj expert_act_fn
        expert_down_proj expert_combine (ALLTOALL) | expert_sum expert_gather (ALLGATHER)
    whole experts on the ranks of a stage, tokens gathered
        [shared experts (ALLREDUCE)] router | expert_dispatch (ALLGATHER) expert_gate_up_proj expert_act_fn
        expert_down_proj expert_sum expert_combine (REDUCESCATTER) | expert_gather (ALLGATHER)

With whole experts on ranks, the tensor-parallel ranks all have the same tokens after the all-reduce of attention. Each
takes an equal part of them (`Rows.OWN`) to the experts, so that no token travels as many times as there are ranks; at
the end an ALLGATHER (`expert_gather`) gives them all the tokens again. (The router, which is small, scores all tokens
on every rank.) That is what vLLM calls sequence-parallel mixtures of experts, and the duplicate token dropping of
DeepSpeed-TED (Singh et al. 2023, "A Hybrid Tensor-Expert-Data Parallelism Approach to Optimize Mixture-of-Experts
Training"). The data-parallel members of a wave run what stands between the bars together, on all ranks of the stage.

How tokens travel: to the ranks of the experts they chose and back (ALLTOALL; vLLM with DeepEP and the like), or to
every rank, whose partial sums come back (ALLGATHER and REDUCESCATTER; vLLM's default between data-parallel ranks, which
sends as many tokens as each rank has: collectives carry the mean).

`comm_size` is in ASTRA-sim's meaning: of an ALLTOALL a rank's full buffer, ``T k / ranks`` hidden states, the part
that stays included; of an ALLGATHER each rank's part, ``T / ranks``; of a REDUCESCATTER all parts together. Collectives
need equal sizes on all ranks: members of a wave take part in an ALLTOALL with the buffer of the rank that sends or gets
most, and in what is gathered with the mean of all. What experts compute is not padded.

How many copies reach which rank is the routing's to say (`trace_gen.mlp.routing`). Redundant experts, second copies of
popular ones, take the place of more experts on every rank.

Shared experts are an MLP for every token, divided over the tensor-parallel ranks by width. Their partial sums join
those of the routed experts where these are reduced, too; else they have an all-reduce of their own.
"""

from __future__ import annotations

from dataclasses import replace

from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.mlp.dense import shared_mlp
from trace_gen.operators import ACTIVATION_FLOPS, Operator, OperatorMaker, Rows, exchange_row, with_rows
from trace_gen.precision import ceil_div
from trace_gen.trace import CommType, OperatorClass

SUM_FLOPS = 2
"""An element of a token's copy is weighted and added."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `count` gated MLPs of width `width`; a token goes through `per_token` of them.

    - `shared_width`: the width of the shared experts together, which every token goes through (0: none); `shared_gate`:
      the router has one output more, which weighs theirs;
    - `bias`: of the routed experts' matrices; `router_bias`: a number for each expert that is added to its score
      (gpt-oss), or for the choice alone (DeepSeek-V3);
    - `groups`, `groups_per_token`: the experts stand in as many equal groups, and those of a token are all in as many
      of them (DeepSeek-V2 and V3: a token reaches few nodes).
    """

    count: int
    per_token: int
    width: int
    shared_width: int = 0
    shared_gate: bool = False
    bias: bool = False
    router_bias: bool = False
    groups: int = 1
    groups_per_token: int = 1

    @property
    def inner(self) -> int:
        """See `Mlp.inner`."""
        return self.per_token * self.width + self.shared_width

    @property
    def router_outputs(self) -> int:
        """Scores that the router gives a token."""
        return self.count + self.shared_gate

    def held(self, ranks: int, redundant: int = 0) -> int:
        """Return the whole experts on the fullest of `ranks` ranks: as equally many as can be, as in vLLM.

        `redundant` are second copies beside its own.
        """
        return ceil_div(self.count + redundant, ranks)

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """See `Mlp.operators`."""
        spread = make.expert > 1
        after = CommType.ALLREDUCE if spread else CommType.NONE
        shared = shared_mlp(make, source, self.shared_width, after) if self.shared_width else []
        router = make.linear("router", source, make.hidden_size, self.router_outputs, self.router_bias)
        part = _Part(self, make)
        if not spread:
            return [*shared, router, *part.divided(source)]
        return [*shared, router, *(part.gathered(source) if make.gathers else part.exchanged(source))]


def expert_part(width: int, make: OperatorMaker) -> int:
    """Return how much of the width of each expert that it holds a rank has."""
    if make.expert > 1:
        return width
    scheme = make.scheme("expert_down_proj")
    return ceil_div(width, make.tensor) if scheme is None else scheme.part(width, make.tensor)


def check_spread(experts: Experts | None, ranks: int, model: str, redundant: int = 0) -> None:
    """Raise a `UserError` unless each of `ranks` ranks can hold whole experts of `model` (1 is always right).

    With `redundant` experts beside the model's own, all ranks hold equally many.
    """
    if ranks == 1:
        return
    if experts is None:
        raise UserError(f"{model} has no experts to spread", field="--ep_size", fix="leave it out")
    count = experts.count
    if redundant and (count + redundant) % ranks:
        right = redundant - (count + redundant) % ranks
        raise UserError(
            f"{model} has {count} experts, which with {redundant} redundant ones {ranks} ranks do not divide",
            field="--redundant_experts",
            fix=f"give {right} or {right + ranks}" if right > 0 else f"give {right + ranks}",
        )
    if redundant > (most := count * (ranks - 1)):
        what = f"{redundant} redundant experts, but {count} with a copy on each of {ranks} ranks take {most}"
        raise UserError(what, field="--redundant_experts", fix=f"give at most {most}")
    if ranks > count + redundant:
        raise UserError(
            f"{model} has {count} experts for {ranks} ranks, so that some would have none",
            field="--ep_size",
            fix=f"spread them over at most {count} NPUs of a stage, or give 1",
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """The routed experts of one rank of `make`."""

    experts: Experts
    make: OperatorMaker

    def divided(self, source: str) -> list[Operator]:
        """Every expert's width is divided: partial sums of all tokens, reduced over the ranks."""
        up, act, down = self._matrices(source)
        total = self._sum(down.name, Rows.ROUTED, Rows.TOKENS)
        if self.make.tensor > 1:
            total = replace(total, communication=CommType.ALLREDUCE, comm_bytes=total.output_bytes)
        return [self._from_tokens(up), act, down, total]

    def exchanged(self, source: str) -> list[Operator]:
        """Tokens travel to their experts and back, then each rank adds up its own tokens' copies."""
        to = self._exchange("expert_dispatch", source, CommType.ALLTOALL)
        to = with_rows(to, Rows.TOKENS, Rows.ROUTED, Rows.CARRIED)
        up, act, down = self._matrices(to.name)
        back = self._exchange("expert_combine", down.name, CommType.ALLTOALL)
        back = with_rows(back, Rows.ROUTED, Rows.EXCHANGED, Rows.CARRIED)
        total = self._sum(back.name, Rows.EXCHANGED, Rows.OWN)
        return [*_together(to, up, act, down, back), total, *self._spread_again(total.name)]

    def gathered(self, source: str) -> list[Operator]:
        """Every rank gets all tokens, its experts work on those that chose them, and partial sums are reduced."""
        to = self._exchange("expert_dispatch", source, CommType.ALLGATHER)
        to = with_rows(to, Rows.OWN, Rows.GATHERED, Rows.SHARE)
        up, act, down = self._matrices(to.name)
        up = replace(up, input_rows=Rows.GATHERED, worked_rows=Rows.ROUTED)
        total = self._sum(down.name, Rows.ROUTED, Rows.GATHERED)
        back = self._exchange("expert_combine", total.name, CommType.REDUCESCATTER)
        back = with_rows(back, Rows.GATHERED, Rows.OWN, Rows.SHARES)
        return [*_together(to, up, act, down, total, back), *self._spread_again(back.name)]

    def _spread_again(self, source: str) -> list[Operator]:
        """Give all tensor-parallel ranks all tokens; a single one has them."""
        if self.make.tensor == 1:
            return []
        gather = self._exchange("expert_gather", source, CommType.ALLGATHER)
        return [with_rows(gather, Rows.OWN, Rows.TOKENS)]

    def _exchange(self, role: str, source: str, communication: CommType) -> Operator:
        width = self.make.precision.activation_bytes(self.make.hidden_size)
        return exchange_row(self.make.vocabulary.of(role), (source,), width, communication)

    def _matrices(self, source: str) -> tuple[Operator, Operator, Operator]:
        """The experts' own matrices: a copy of a token goes through one of them."""
        inner = expert_part(self.experts.width, self.make)
        up = self._grouped("expert_gate_up_proj", source, self.make.hidden_size, 2 * inner)
        act = self.make.elementwise("expert_act_fn", (up.name,), 2 * inner, inner, ACTIVATION_FLOPS, rows=Rows.ROUTED)
        return up, act, self._grouped("expert_down_proj", act.name, inner, self.make.hidden_size)

    def _grouped(self, role: str, source: str, inputs: int, outputs: int) -> Operator:
        """Projections of all the experts of the rank."""
        one = self.make.linear(role, source, inputs, outputs, self.experts.bias, rows=Rows.ROUTED)
        held = self.experts.held(self.make.expert, self.make.redundant)
        parameters = held * one.parameters
        quantized = self.make.scheme(role) is not None
        weights = held * one.weight_bytes if quantized else self.make.precision.weight_bytes(parameters)
        return replace(
            one,
            kind=OperatorClass.GROUPED_GEMM,
            parameters=parameters,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
        )

    def _from_tokens(self, routed: Operator) -> Operator:
        """Return `routed` with a row of input for each token, from which all its copies are computed where it lies."""
        copies = self.experts.per_token
        return replace(
            routed,
            input_rows=Rows.TOKENS,
            flops=routed.flops * copies,
            traffic_bytes=routed.input_bytes + routed.output_bytes * copies,
        )

    def _sum(self, source: str, rows: Rows, sums: Rows) -> Operator:
        """Weighs the copies in `rows` and adds them up to the tokens in `sums`."""
        width = self.make.precision.activation_bytes(self.make.hidden_size)
        return Operator(
            self.make.vocabulary.of("expert_sum"),
            OperatorClass.ELEMENTWISE,
            (source,),
            width,
            width,
            flops=SUM_FLOPS * self.make.hidden_size,
            traffic_bytes=width + ceil_div(width, self.experts.per_token),
            input_rows=rows,
            output_rows=sums,
            arithmetic=self.make.precision.arithmetic,
        )


def _together(*operators: Operator) -> list[Operator]:
    return [replace(operator, together=True) for operator in operators]
