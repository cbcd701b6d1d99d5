"""The weights that a stage's operators read are the weights that its ranks hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.memory_layout import MemoryLayout
from trace_gen.sharding import ceil_div
from trace_gen.trace import Trace
from trace_test.rule import ModelFacts, Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Sum the weights of each stage's rows and compare with the memory layout."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    layout = MemoryLayout(facts.architecture, facts.parallelism, facts.precision)
    for stage in range(facts.parallelism.pipeline):
        rows = np.flatnonzero(trace.stage == stage)
        found = int(trace.weight_bytes[rows].sum())
        held = layout.weight_bytes(stage) + _head(trace, facts, stage)
        if abs(found - held) > _rounding(facts, rows.size):
            yield Violation(f"stage {stage}", f"its operators read {found} bytes of weights, but a rank holds {held}")


def _head(trace: Trace, facts: ModelFacts, stage: int) -> int:
    """Return the LM head's bytes beyond what the layout counts: tied embeddings are read twice, held once."""
    model, last = facts.architecture, facts.parallelism.pipeline - 1
    if stage != last:
        return 0
    head = facts.precision.weight_bytes(ceil_div(model.vocab_size, facts.parallelism.tensor) * model.hidden_size)
    runs = "lm_head" in {trace.name(row) for row in np.flatnonzero(trace.stage == stage).tolist()}
    counted = not (model.tie_word_embeddings and stage == 0)
    return head * (int(runs) - int(counted))


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
