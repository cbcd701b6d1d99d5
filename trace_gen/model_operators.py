"""The operators of one iteration of a model, on one rank: before the layers, one block a kind of layer, after them.

A block is a norm, the attention's operators, a norm, and those of the feed-forward network; the latter two come from
`trace_gen.attention` and `trace_gen.mlp`. Names are the vocabulary's (`trace_gen.vocabulary`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.mesh import Mesh
from trace_gen.mlp.experts import check_spread
from trace_gen.operators import SAMPLER_FLOPS, TOKEN_ID_BYTES, Operator, OperatorMaker, Rows, exchange_row
from trace_gen.precision import Precision, ceil_div
from trace_gen.trace import CommType, OperatorClass
from trace_gen.vocabulary import FUSED, Vocabulary


@dataclass(frozen=True, slots=True)
class ModelOperators:
    """`blocks[k]` are the operators of layers of kind k, in the order of `ModelArchitecture.layer_kinds`."""

    head: tuple[Operator, ...]
    blocks: tuple[tuple[Operator, ...], ...]
    tail: tuple[Operator, ...]

    def __iter__(self) -> Iterator[Operator]:
        """Yield every different operator."""
        yield from self.head
        for block in self.blocks:
            yield from block
        yield from self.tail


def model_operators(
    model: ModelArchitecture,
    mesh: Mesh | None = None,
    precision: Precision | None = None,
    vocabulary: Vocabulary = FUSED,
    *,
    gathers: bool = False,
) -> ModelOperators:
    """Return the operators of `model` on one rank of `mesh` (default: the only one, in 16 bits).

    `gathers` decides how tokens reach experts on other ranks (`trace_gen.mlp.experts`). Raises `UserError` where the
    ranks cannot share the experts evenly.
    """
    mesh = mesh or Mesh()
    for experts in model.mixtures or (None,):
        check_spread(experts, mesh.expert, model.name)
    make = OperatorMaker(
        hidden_size=model.hidden_size,
        norm_parameters=model.norm_parameters,
        precision=precision or Precision(),
        vocabulary=vocabulary,
        tensor=mesh.tensor,
        expert=mesh.expert,
        gathers=gathers,
        quantization=model.quantization,
    )
    return ModelOperators(
        _head(model, make), tuple(_block(kind, make) for kind in model.layer_kinds), _tail(model, make)
    )


def _block(layer: Layer, make: OperatorMaker) -> tuple[Operator, ...]:
    before, between = make.norm("attention_norm"), make.norm("mlp_norm")
    attention = layer.attention.operators(make, before.name)
    return (before, *attention, between, *layer.mlp.operators(make, between.name))


def _head(model: ModelArchitecture, make: OperatorMaker) -> tuple[Operator, ...]:
    embedding = _embedding(model, make)
    if not model.joins_hidden_state:
        return (embedding,)
    hidden = model.hidden_size
    plain = replace(make, quantization=None)  # as checkpoints store it
    return (embedding, plain.linear("hidden_state_proj", embedding.name, 2 * hidden, hidden))


def _embedding(model: ModelArchitecture, make: OperatorMaker) -> Operator:
    """Vocabulary-parallel: each rank looks up the ids it holds, an all-reduce adds the parts."""
    hidden, precision = model.hidden_size, make.precision
    out = precision.activation_bytes(hidden)
    tables = 2 if model.position_rows else 1
    parallel = make.tensor > 1
    parameters = (ceil_div(model.vocab_size, make.tensor) + model.position_rows) * hidden
    return Operator(
        make.vocabulary.of("embedding"),
        OperatorClass.EMBEDDING,
        (),
        TOKEN_ID_BYTES,
        out,
        parameters=parameters,
        weight_bytes=precision.weight_bytes(parameters),
        flops=hidden * (tables - 1),
        traffic_bytes=TOKEN_ID_BYTES + tables * precision.weight_bytes(hidden) + out,
        arithmetic=precision.arithmetic,
        communication=CommType.ALLREDUCE if parallel else CommType.NONE,
        comm_bytes=out if parallel else 0,
    )


def _tail(model: ModelArchitecture, make: OperatorMaker) -> tuple[Operator, ...]:
    hidden, vocab = model.hidden_size, ceil_div(model.vocab_size, make.tensor)
    # The final norm runs on every token; only the rows whose logits are needed go on.
    norm = replace(make.norm("final_norm"), output_rows=Rows.LOGITS)
    head = make.linear("lm_head", norm.name, hidden, vocab, False, Rows.LOGITS, CommType.ALLGATHER)
    if "sampler" in make.vocabulary.absent:
        return (norm, head)
    gathered = make.precision.activation_bytes(vocab) * make.tensor
    sampler = Operator(
        make.vocabulary.of("sampler"),
        OperatorClass.SAMPLER,
        (head.name,),
        gathered,
        TOKEN_ID_BYTES,
        flops=SAMPLER_FLOPS * vocab * make.tensor,
        traffic_bytes=gathered + TOKEN_ID_BYTES,
        arithmetic=make.precision.arithmetic,
        input_rows=Rows.LOGITS,
        output_rows=Rows.LOGITS,
    )
    return (norm, head, sampler)


def placed_by_request(
    share: ModelOperators, whole: ModelOperators, vocabulary: Vocabulary, exchange: bool
) -> ModelOperators:
    """Return the operators of attention placed by request: each rank works on whole requests, all heads of them.

    `share` are the operators of one of several ranks, `whole` those of a single one, which the per-request rows
    come from. With `exchange` an all-to-all before them brings a request's heads together on its rank, and another
    after them takes the outputs back to the ranks of their heads. (Requests per rank differ by one at most; the
    exchanges carry what the ranks hold by heads.)
    """
    blocks = (
        _block_by_request(own, alone, vocabulary, exchange)
        for own, alone in zip(share.blocks, whole.blocks, strict=True)
    )
    return ModelOperators(share.head, tuple(blocks), share.tail)


def _block_by_request(
    share: tuple[Operator, ...], whole: tuple[Operator, ...], vocabulary: Vocabulary, exchange: bool
) -> tuple[Operator, ...]:
    alone = {row.name: row for row in whole}
    section = [row for row in share if row.is_per_request]
    first, last = share.index(section[0]), share.index(section[-1])
    rows = [alone[row.name] for row in section]
    if exchange:
        scatter, gather = vocabulary.of("attention_scatter"), vocabulary.of("attention_gather")
        before = exchange_row(scatter, section[0].sources, section[0].input_bytes)
        after = exchange_row(gather, (section[-1].name,), section[-1].output_bytes)
        rows = [before, replace(rows[0], sources=(before.name,)), *rows[1:], after]
    return share[:first] + tuple(rows) + share[last + 1 :]
