"""The weights that a stage's operators read are the weights that its ranks hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trace_gen.memory import ModelMemory
from trace_gen.model_operators import model_operators
from trace_gen.precision import ceil_div
from trace_gen.trace import Trace
from trace_test.operators import ABSORBED, EXPANDED
from trace_test.rule import ModelFacts, Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Sum the weights of each stage's rows and compare with what a rank holds."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    memory = ModelMemory(facts.architecture, facts.mesh, facts.precision)
    for stage in range(facts.mesh.pipeline):
        for member in range(facts.mesh.data):
            rank = facts.mesh.stage_ranks(stage, member)[0]
            runs = np.array([rank in ranks for ranks in trace.rank_sets], dtype=np.bool_)
            rows = np.flatnonzero(runs[trace.rank_set])
            if facts.batches and not len(facts.batches[member].request_ids):
                continue  # a member without tokens runs what the others need of it
            found = int(trace.weight_bytes[rows].sum())
            held = memory.weight_bytes(stage) + _head(trace, facts, stage, rows) - _idle(trace, facts, stage, rows)
            if abs(found - held) > _rounding(facts, rows.size):
                what = f"its operators read {found} bytes of weights, but a rank holds {held}"
                yield Violation(f"stage {stage}" if facts.mesh.data == 1 else f"rank {rank}", what)


def _head(trace: Trace, facts: ModelFacts, stage: int, rows: NDArray[np.int64]) -> int:
    """Return the LM head's bytes beyond what the memory counts: tied embeddings are read twice, held once."""
    model, last = facts.architecture, facts.mesh.pipeline - 1
    if stage != last:
        return 0
    vocab, scheme = ceil_div(model.vocab_size, facts.mesh.tensor), dict(model.end_schemes).get("lm_head")
    bias = facts.precision.weight_bytes(vocab) if model.head_bias else 0
    head = facts.precision.weight_bytes(vocab * model.embedding_width)
    if scheme is not None:
        head = scheme.matrix_bytes(model.embedding_width, vocab)
    runs = "lm_head" in {trace.name(row) for row in rows.tolist()}
    counted = not (model.tie_word_embeddings and stage == 0)
    return (head + bias) * int(runs) - head * int(counted) - bias


def _idle(trace: Trace, facts: ModelFacts, stage: int, rows: NDArray[np.int64]) -> int:
    """Return the bytes of the form of latent attention that a batch has no tokens for, and that no row reads."""
    model = facts.architecture
    if model.absorption is None:
        return 0
    run = {trace.op_names[op] for op in set(trace.op[rows].tolist())}
    blocks = dict(zip(model.layer_kinds, model_operators(model, facts.mesh, facts.precision).blocks, strict=True))
    layers = facts.mesh.stage_layers(model.num_layers)[stage]
    idle = (ABSORBED | EXPANDED) - run
    return sum(row.weight_bytes for layer in layers for row in blocks[model.layers[layer]] if row.name in idle)


def _rounding(facts: ModelFacts, rows: int) -> int:
    """Weights of less than a byte each are rounded up once a row."""
    return rows if facts.precision.weight_bits < 8 else 0


RULE = Rule(
    name="weights-add-up",
    about="Summed over a stage's rows, weights are what one of its ranks holds of the model: nothing is read twice, "
    "and nothing is left out.",
    cause="an operator without its bias or norm weights, a block too many, or weights of the whole model on each rank",
    needs="model",
    check=check,
)
