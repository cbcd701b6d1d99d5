"""Models that guess tokens for another one: heads that share its embedding and its LM head, and models of their own.

A head (EAGLE, arXiv 2401.15077; multi-token prediction, arXiv 2412.19437) is one decoder layer. Its input joins the
embedding of a token with the model's hidden state before it, by a projection of two hidden states to one, which is
whole on every rank.
"""

from __future__ import annotations

from dataclasses import replace

from trace_gen.architecture import LayerRun, ModelArchitecture
from trace_gen.memory import ModelMemory
from trace_gen.model_operators import model_operators

SHARED = ("embedding", "lm_head")
"""The operators whose weights a head shares with its model."""


def head_of(model: ModelArchitecture, name: str) -> ModelArchitecture:
    """Return a head for `model`: a layer like its last one."""
    last = LayerRun(model.runs[-1].layer, 1)
    return replace(model, name=f"{name} of {model.name}", runs=(last,), joins_hidden_state=True)


def drafter_weight_bytes(memory: ModelMemory) -> int:
    """Return the bytes of weights that a drafter on one stage adds to each rank: a head's shared ones are no more."""
    model = memory.architecture
    if not model.joins_hidden_state:
        return memory.weight_bytes(0)
    operators = model_operators(model, memory.mesh, memory.precision)
    blocks = dict(zip(model.layer_kinds, operators.blocks, strict=True))
    layers = sum(run.repeats * sum(row.weight_bytes for row in blocks[run.layer]) for run in model.runs)
    outside = (row for row in (*operators.head, *operators.tail) if row.name not in SHARED)
    return layers + sum(row.weight_bytes for row in outside)
