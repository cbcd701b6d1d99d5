"""Context parallelism: attention of sequences that several ranks hold parts of (`Mesh.context`).

Every rank computes ``1 / ranks`` of a batch's tokens and keeps as much of the KV cache. Only attention needs the other
parts, of prompts in another way than of requests that decode (`BatchShape.decoding`):

    prompts, ring        attention (own block) -+-> attention (second block) -+-> attention (third block) ...
                         kv_pass (PERMUTE) -----+-> kv_pass (PERMUTE) --------+
    prompts, all-gather  kv_gather (ALLGATHER), attention
    decodes              query_gather (ALLGATHER), attention, lse_gather (ALLGATHER), attention_merge,
                         output_scatter (REDUCESCATTER)

Ring: keys and values travel from rank to rank, a block of ``1 / ranks`` at a time, each behind the attention of the one
before (Liu et al. 2023, "Ring Attention with Blockwise Transformers for Near-Infinite Context"). The sequence is cut
into twice as many chunks as there are ranks, of which a rank has one from each end, so that with a causal mask every
rank and every block have the same work (Brandon et al. 2023, "Striped Attention"; the zig-zag order of Megatron-LM).
All-gather: every rank gets all keys and values first (Llama Team 2024, "The Llama 3 Herd of Models", 3.3.2).

Decodes: the few new queries go to the cache rather than the cache to them. Every rank attends with all queries to the
part of the cache that it keeps, tokens dealt out in turn; the parts' log-sum-exps weigh the outputs, which are then
added up (vLLM's decode context parallelism, `vllm/v1/attention/ops/common.py`; Yang et al. 2024, "Context Parallelism
for Scalable Million-Token Inference").

Nothing here depends on the kind of attention: `AttentionShape` says how many bytes a token's queries have and how many
the cache holds of it on one rank, copied on tensor-parallel ranks or not. Latent vectors travel as they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.operators import Operator, Portion, Rows, exchange_row, with_rows
from trace_gen.precision import Precision
from trace_gen.trace import CommType, OperatorClass
from trace_gen.vocabulary import Vocabulary

ContextMode = Literal["ring", "allgather"]
LSE_BYTES = 4
"""A log-sum-exp is a 32-bit number, one for every query and head."""
MERGE_FLOPS = 2
"""An element of a partial output is weighed and added."""


@dataclass(frozen=True, slots=True)
class ContextOperators:
    """Makes the operators of attention over `ranks` context-parallel ranks."""

    ranks: int
    mode: ContextMode
    vocabulary: Vocabulary
    precision: Precision

    def block(self, operators: Sequence[Operator], shapes: Mapping[Portion, AttentionShape]) -> tuple[Operator, ...]:
        """Return a block's operators with attention divided; `shapes` are those of one rank's heads."""
        result: list[Operator] = []
        for row in operators:
            if row.kind is not OperatorClass.ATTENTION:
                result.append(row)
                continue
            shape = shapes[row.portion]
            if row.portion is not Portion.PROMPTS:
                result += self._decodes(row, shape)
            if row.portion is not Portion.DECODES:
                result += self._prompts(row, shape)
        return tuple(result)

    def _decodes(self, attention: Operator, shape: AttentionShape) -> list[Operator]:
        """Queries are gathered, partial outputs merged and scattered."""
        output = attention.output_bytes
        lse = max(1, round(LSE_BYTES * shape.query_heads))
        queries = self._exchange("query_gather", attention.sources, shape.query_bytes, CommType.ALLGATHER)
        part = replace(attention, sources=(queries.name,), input_bytes=shape.query_bytes)
        sums = self._exchange("lse_gather", (part.name,), lse, CommType.ALLGATHER)
        elements = output * 8 // self.precision.activation_bits
        merge = Operator(
            self.vocabulary.of("attention_merge"),
            OperatorClass.ELEMENTWISE,
            (part.name, sums.name),
            output,
            output,
            flops=MERGE_FLOPS * elements,
            traffic_bytes=2 * output + self.ranks * lse,
            arithmetic=self.precision.arithmetic,
        )
        back = self._exchange("output_scatter", (merge.name,), output, CommType.REDUCESCATTER)
        rows = [
            with_rows(queries, Rows.OWN_DECODES, Rows.DECODES),
            with_rows(part, Rows.DECODES, Rows.DECODES),
            with_rows(sums, Rows.DECODES, Rows.ALL_PARTS),
            with_rows(merge, Rows.DECODES, Rows.DECODES),
            with_rows(back, Rows.DECODES, Rows.OWN_DECODES, Rows.DECODES),
        ]
        return [replace(row, portion=Portion.DECODES) for row in rows]

    def _prompts(self, attention: Operator, shape: AttentionShape) -> list[Operator]:
        """Keys and values are gathered, or come round block by block."""
        own = replace(attention, input_bytes=shape.query_bytes, portion=Portion.PROMPTS)
        own = with_rows(own, Rows.OWN_PROMPTS, Rows.OWN_PROMPTS)
        if self.mode == "allgather":
            gather = self._exchange("kv_gather", attention.sources, shape.kept_bytes, CommType.ALLGATHER)
            gather = with_rows(gather, Rows.OWN_KEPT, Rows.KEPT)
            return [replace(gather, portion=Portion.PROMPTS), replace(own, sources=(*own.sources, gather.name))]
        move = self._exchange("kv_pass", attention.sources, shape.kept_bytes, CommType.PERMUTE)
        move = replace(with_rows(move, Rows.OWN_KEPT, Rows.OWN_KEPT), portion=Portion.PROMPTS, after=(2,))
        later = replace(own, sources=(*own.sources, move.name), after=(1, 2))
        return [own, *(row for _ in range(self.ranks - 1) for row in (move, later))]

    def _exchange(self, role: str, sources: tuple[str, ...], width: int, communication: CommType) -> Operator:
        return replace(exchange_row(self.vocabulary.of(role), sources, width, communication), axis="cp")
