"""The operators of one iteration of a model, on one rank: before the layers, one block a kind of layer, after them.

A block is the attention's operators, those of the feed-forward network, and norms where its form has them; the former
two come from `trace_gen.attention` and `trace_gen.mlp`. Names are the vocabulary's (`trace_gen.vocabulary`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.records import dataclass
from trace_gen.architecture import BlockForm, Layer, ModelArchitecture
from trace_gen.mesh import Mesh
from trace_gen.mlp.experts import check_spread
from trace_gen.operators import (
    ADD_FLOPS,
    CAP_FLOPS,
    RESIDUAL,
    SAMPLER_FLOPS,
    SCALE_FLOPS,
    TOKEN_ID_BYTES,
    Operator,
    OperatorMaker,
    Rows,
    exchange_row,
)
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
        check_spread(experts, mesh.expert, model.name, mesh.redundant_experts)
    make = OperatorMaker(
        hidden_size=model.hidden_size,
        norm_parameters=model.norm_parameters,
        precision=precision or Precision(),
        vocabulary=vocabulary,
        tensor=mesh.tensor,
        expert=mesh.expert,
        redundant=mesh.redundant_experts,
        gathers=gathers,
        schemes=model.end_schemes,
    )
    return ModelOperators(
        _head(model, make), tuple(_block(kind, make) for kind in model.layer_kinds), _tail(model, make)
    )


def _block(layer: Layer, make: OperatorMaker) -> tuple[Operator, ...]:
    """Return the operators of a layer. What a norm reads and writes beside its input and output is the residual stream.

    In a parallel block the outputs of attention and feed-forward network are both added to the stream by the next
    block's norm, which reads one hidden state more for it; a second norm takes the stream as the first left it. The
    norms come first, as engines that reduce the sum once have it (vLLM's Falcon; its GPT-NeoX and Phi reduce twice).
    """
    make = replace(make, schemes=layer.schemes)
    if layer.form is BlockForm.POST_NORM:
        attention = layer.attention.operators(make, RESIDUAL)
        after = make.norm("attention_post_norm", attention[-1].name, extra=1)
        mlp = layer.mlp.operators(make, after.name)
        return (*attention, after, *mlp, make.norm("mlp_post_norm", mlp[-1].name, extra=1))
    parallel = layer.form in (BlockForm.PARALLEL, BlockForm.PARALLEL_NORMS)
    before = make.norm("attention_norm", extra=3 if parallel else 2)
    attention = layer.attention.operators(make, before.name)
    if parallel:
        norms = [before, make.norm("mlp_norm", extra=0)] if layer.form is BlockForm.PARALLEL_NORMS else [before]
        if layer.reduces_once:
            attention[-1] = replace(attention[-1], communication=CommType.NONE, comm_bytes=0)
        return (*norms, *attention, *layer.mlp.operators(make, norms[-1].name))
    between = make.norm("mlp_norm")
    mlp = layer.mlp.operators(make, between.name)
    if layer.form is BlockForm.SANDWICH:
        attention.append(replace(make.norm("attention_post_norm", attention[-1].name, extra=0), streams=True))
        mlp.append(replace(make.norm("mlp_post_norm", mlp[-1].name, extra=0), streams=True))
    return (before, *attention, between, *mlp)


def _head(model: ModelArchitecture, make: OperatorMaker) -> tuple[Operator, ...]:
    """Return what stands before the layers. Projections of the embedding are whole on every rank, as in vLLM."""
    rows = [_embedding(model, make)]
    hidden = model.hidden_size

    def add(row: Operator) -> None:
        rows.append(replace(row, by_token=True, streams=True))

    if model.embedding_size:
        add(make.linear("project_in", rows[-1].name, model.embedding_size, hidden))
        if model.position_rows:
            table = model.position_rows * hidden
            name = rows[-1].name
            added = make.elementwise("position_embedding", (name,), hidden, hidden, ADD_FLOPS, table, extra=hidden)
            add(replace(added, weight_traffic_bytes=0))
    if model.scales_embedding and "embedding_scale" not in make.vocabulary.absent:
        add(make.elementwise("embedding_scale", (rows[-1].name,), hidden, hidden, SCALE_FLOPS))
    if model.joins_hidden_state:
        add(make.linear("hidden_state_proj", rows[-1].name, 2 * hidden, hidden))
    if model.runs[0].layer.form is BlockForm.POST_NORM:  # whose attention takes the hidden state as it is
        rows[-1] = replace(rows[-1], streams=False)
    return tuple(rows)


def _embedding(model: ModelArchitecture, make: OperatorMaker) -> Operator:
    """Vocabulary-parallel: each rank looks up the ids it holds, an all-reduce adds the parts.

    Learned positions are added at once, unless a projection comes before.
    """
    hidden, precision = model.embedding_width, make.precision
    out = precision.activation_bytes(hidden)
    positions = 0 if model.embedding_size else model.position_rows
    tables = 2 if positions else 1
    parallel = make.tensor > 1
    parameters = (ceil_div(model.vocab_size, make.tensor) + positions) * hidden
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
    """Return what stands after the layers: whatever comes before the LM head runs on every token.

    Only the rows whose logits are needed go on from there.
    """
    width, vocab = model.embedding_width, ceil_div(model.vocab_size, make.tensor)
    rows = [make.norm("final_norm")] if model.final_norm else []
    if model.embedding_size:
        source = rows[-1].name if rows else RESIDUAL
        rows.append(make.linear("project_out", source, model.hidden_size, width))
    rows[-1] = replace(rows[-1], output_rows=Rows.LOGITS)
    bias, gather = model.head_bias, CommType.ALLGATHER
    rows.append(make.linear("lm_head", rows[-1].name, width, vocab, bias, Rows.LOGITS, gather))
    logits = vocab * make.tensor
    if model.caps_logits and "logit_softcap" not in make.vocabulary.absent:
        source = rows[-1].name
        rows.append(make.elementwise("logit_softcap", (source,), logits, logits, CAP_FLOPS, rows=Rows.LOGITS))
    if "sampler" not in make.vocabulary.absent:
        rows.append(_sampler(make, rows[-1].name, vocab))
    return tuple(rows)


def _sampler(make: OperatorMaker, source: str, vocab: int) -> Operator:
    """`vocab`: logits that each rank has; they are gathered."""
    gathered = make.precision.activation_bytes(vocab) * make.tensor
    return Operator(
        make.vocabulary.of("sampler"),
        OperatorClass.SAMPLER,
        (source,),
        gathered,
        TOKEN_ID_BYTES,
        flops=SAMPLER_FLOPS * vocab * make.tensor,
        traffic_bytes=gathered + TOKEN_ID_BYTES,
        arithmetic=make.precision.arithmetic,
        input_rows=Rows.LOGITS,
        output_rows=Rows.LOGITS,
    )


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
