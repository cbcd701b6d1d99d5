"""Sequence-parallel norms: tensor-parallel ranks share out the tokens of what each of them would do for all.

    tensor parallel      o_proj (ALLREDUCE)               | norm                  | gate_up_proj
    sequence parallel    o_proj, sequence_scatter (REDUCESCATTER) | norm of T / ranks tokens | sequence_gather
                         (ALLGATHER), gate_up_proj

An all-reduce is a reduce-scatter and an all-gather, so the bytes are the same, while norms have a part of the work and
a pipeline stage sends a part of the hidden state (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models"; vLLM's compilation pass `enable_sp`). Whole experts on ranks end with such parts by themselves:
`expert_gather` falls away, and the norm after it gathers. After the last norm all tokens are gathered, as in vLLM. What
only joins the residual stream, as the second norms of Gemma 2, is not gathered (`Operator.streams`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trace_gen.model_operators import ModelOperators
from trace_gen.operators import Operator, Rows, exchange_row, with_rows
from trace_gen.trace import CommType
from trace_gen.vocabulary import Vocabulary


def sequence_parallel(operators: ModelOperators, vocabulary: Vocabulary) -> ModelOperators:
    """Return `operators` of one of several tensor-parallel ranks with norms shared out by token."""
    return ModelOperators(
        _shared_out(operators.head, vocabulary),
        tuple(_shared_out(block, vocabulary) for block in operators.blocks),
        _shared_out(operators.tail, vocabulary),
    )


def _shared_out(rows: Sequence[Operator], vocabulary: Vocabulary) -> tuple[Operator, ...]:
    result: list[Operator] = []
    renamed: dict[str, str] = {}
    for row in rows:
        if row.name == vocabulary.of("expert_gather"):
            continue
        row = replace(row, sources=tuple(renamed.get(source, source) for source in row.sources))
        if row.by_token:
            result.append(with_rows(row, Rows.PART, Rows.PART))
            if not row.streams:
                gather = vocabulary.of("sequence_gather")
                whole = exchange_row(gather, (row.name,), row.output_bytes, CommType.ALLGATHER)
                result.append(with_rows(whole, Rows.PART, Rows.TOKENS))
                renamed[row.name] = gather
        elif row.communication is CommType.ALLREDUCE:
            result.append(replace(row, communication=CommType.NONE, comm_bytes=0))
            part = exchange_row(
                vocabulary.of("sequence_scatter"), (row.name,), row.output_bytes, CommType.REDUCESCATTER
            )
            result.append(with_rows(part, row.output_rows, Rows.PART, row.output_rows))
        else:
            result.append(row)
    return tuple(result)
