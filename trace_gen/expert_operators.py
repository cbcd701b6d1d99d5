"""The operators of a mixture of experts, which stands in a block where others have an MLP.

    on one rank, or every expert's width divided over the tensor-parallel ranks
        [shared experts] router expert_gate_up_proj expert_act_fn expert_down_proj expert_sum (ALLREDUCE)
    whole experts on ranks (expert parallel)
        [shared experts (ALLREDUCE)] router expert_dispatch expert_gate_up_proj expert_act_fn expert_down_proj
        expert_combine expert_sum expert_gather

With whole experts on ranks, every rank has all tokens after the all-reduce of attention. Each sends an equal part of
them (`Rows.OWN`) to the ranks of their experts (`expert_dispatch`, ALLTOALL), gets the results back (`expert_combine`,
ALLTOALL), adds up each token's, and an ALLGATHER (`expert_gather`) gives all ranks all tokens again. Without the first
step the ranks would send every token as many times as there are ranks. (The router, which is small, scores all tokens
on every rank.) This is what vLLM does between tensor-parallel ranks when it uses its all-to-all kernels
(sequence-parallel mixtures of experts), and the duplicate token dropping of DeepSpeed-TED (Singh et al. 2023, "A Hybrid
Tensor-Expert-Data Parallelism Approach to Optimize Mixture-of-Experts Training").

`comm_size` is in ASTRA-sim's meaning: of the ALLTOALLs a rank's full buffer, ``T k / ranks`` hidden states, the part
that stays included; of the ALLGATHER each rank's part, ``T / ranks``.

Shared experts are an MLP for every token, divided over the ranks by width. Their partial sums join those of the routed
experts where these are reduced, too; else they have an all-reduce of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trace_gen.architecture import Experts
from trace_gen.operators import (
    ACTIVATION_FLOPS,
    Operator,
    OperatorClass,
    Rows,
    elementwise,
    exchange_row,
    linear,
)
from trace_gen.sharding import Precision, Shard, ceil_div
from trace_gen.trace import CommType

SUM_FLOPS = 2
"""An element of a token's copy is weighted and added."""


def expert_operators(experts: Experts, hidden: int, part: Shard, precision: Precision, source: str) -> list[Operator]:
    """Return the operators on one rank that holds `part`; their input is the output of `source`."""
    return _Builder(experts, hidden, part, precision).build(source)


@dataclass(frozen=True)
class _Builder:
    experts: Experts
    hidden: int
    part: Shard
    precision: Precision

    @property
    def spread(self) -> bool:
        """Whether whole experts are on ranks."""
        return self.part.expert > 1

    def build(self, source: str) -> list[Operator]:
        router = linear(self.precision, "router", source, self.hidden, self.experts.router_outputs)
        rows = [*self._shared(source), router]
        if self.spread:
            width = self.precision.activation_bytes(self.hidden)
            dispatch = exchange_row("expert_dispatch", (source,), width, output_rows=Rows.ROUTED)
            combine = exchange_row(
                "expert_combine", ("expert_down_proj",), width, input_rows=Rows.ROUTED, output_rows=Rows.ROUTED
            )
            gather = exchange_row("expert_gather", ("expert_sum",), width, CommType.ALLGATHER, input_rows=Rows.OWN)
            return [*rows, dispatch, *self._routed(dispatch.name), combine, self._sum(combine.name), gather]
        return [*rows, *self._routed(source), self._sum("expert_down_proj")]

    def _routed(self, source: str) -> list[Operator]:
        """The experts' own matrices. Without a dispatch they read each token's hidden state where it lies."""
        inner = self.part.expert_intermediate
        up = self._grouped("expert_gate_up_proj", source, self.hidden, 2 * inner)
        if not self.spread:
            up = self._from_tokens(up)
        act = elementwise(
            self.precision, "expert_act_fn", up.name, 2 * inner, inner, ACTIVATION_FLOPS, rows=Rows.ROUTED
        )
        return [up, act, self._grouped("expert_down_proj", act.name, inner, self.hidden)]

    def _grouped(self, name: str, source: str, inputs: int, outputs: int) -> Operator:
        """Projections of all the experts of the rank; each copy of a token goes through one of them."""
        one = linear(self.precision, name, source, inputs, outputs, rows=Rows.ROUTED)
        weights = self.precision.weight_bytes(self.part.experts * inputs * outputs)
        return replace(
            one,
            kind=OperatorClass.GROUPED_GEMM,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
        )

    def _from_tokens(self, routed: Operator) -> Operator:
        """Return `routed` with a row of input for each token, from which all its copies are computed."""
        copies = self.experts.per_token
        return replace(
            routed,
            input_rows=Rows.TOKENS,
            flops=routed.flops * copies,
            traffic_bytes=routed.input_bytes + routed.output_bytes * copies,
        )

    def _sum(self, source: str) -> Operator:
        """Weighs and adds up the copies of each token."""
        width = self.precision.activation_bytes(self.hidden)
        reduces = self.part.tensor > 1 and not self.spread
        return Operator(
            "expert_sum",
            OperatorClass.ELEMENTWISE,
            (source,),
            width,
            width,
            flops=SUM_FLOPS * self.hidden,
            traffic_bytes=width + ceil_div(width, self.experts.per_token),
            input_rows=Rows.ROUTED,
            output_rows=Rows.OWN,
            communication=CommType.ALLREDUCE if reduces else CommType.NONE,
            comm_bytes=width if reduces else 0,
        )

    def _shared(self, source: str) -> list[Operator]:
        inner = self.part.shared_intermediate
        if not inner:
            return []
        after = CommType.ALLREDUCE if self.spread else CommType.NONE
        up = linear(self.precision, "shared_gate_up_proj", source, self.hidden, 2 * inner)
        act = elementwise(self.precision, "shared_act_fn", up.name, 2 * inner, inner, ACTIVATION_FLOPS)
        down = linear(self.precision, "shared_down_proj", act.name, inner, self.hidden, communication=after)
        return [up, act, down]
