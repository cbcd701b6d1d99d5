"""Byte counts follow from the model's shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from foundation.records import dataclass
from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.attention.latent import LatentAttention
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.precision import Precision, ceil_div
from trace_gen.quantization import Scheme
from trace_gen.trace import NO_LAYER, NO_REQUEST, CommType, Trace
from trace_test.operators import (
    ABSORBED,
    ATTENTION,
    BY_TOKEN,
    EXPANDED,
    SEQUENCE_EXCHANGES,
    TOGETHER,
    members,
    rows_named,
)
from trace_test.rule import ModelFacts, Rule, Subject, Violation

TOKEN_ID_BYTES = 4
Counts = tuple[int | None, int | None]
ACTIVATION = "expert_act_fn"
ROUTING = "expert_routing"
"""The fact about a trace that says how tokens choose experts, where they do not balance."""


@dataclass(frozen=True, slots=True)
class _Widths:
    """Bytes a row that an operator takes and puts out, and the bytes of its weights."""

    into: int
    out: int
    weights: int


def check(subject: Subject) -> Iterator[Violation]:
    """Compare each operator's bytes with those worked out from the architecture."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    tables: dict[tuple[bool, Layer | None], dict[str, _Widths]] = {}
    batch, layers = _Tokens.of(trace, facts), facts.architecture.layers
    for row in range(trace.rows):
        by_request = trace.request[row] != NO_REQUEST or facts.mesh.member_size > 1
        alone = len(trace.rank_sets[trace.rank_set[row]]) == 1 and by_request
        number = int(trace.layer[row])
        layer = layers[number] if NO_LAYER < number < len(layers) else None
        key = alone, layer
        if key not in tables:
            tables[key] = _table(facts, 1 if alone else facts.mesh.tensor, layer)
        widths = tables[key].get(trace.name(row))
        if widths is None:
            continue
        rows_in, rows_out = batch.rows(trace, row, layer)
        yield from _routed(subject, row, batch, layer)
        yield from _compare(subject, row, "input", int(trace.input_bytes[row]), widths.into, rows_in)
        yield from _compare(subject, row, "output", int(trace.output_bytes[row]), widths.out, rows_out)
        if int(trace.weight_bytes[row]) != widths.weights:
            found = int(trace.weight_bytes[row])
            yield Violation(subject.row(row), f"its weights are {found} bytes, but the model has {widths.weights}")


def _routed(subject: Subject, row: int, batch: _Tokens, layer: Layer | None) -> Iterator[Violation]:
    """Check that the copies of tokens that reach the slowest rank's experts are as many as can be."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    spread = layer is not None and isinstance(layer.mlp, Experts) and facts.mesh.expert > 1
    if not (spread and batch.tokens and trace.name(row) == ACTIVATION and ROUTING in trace.attributes):
        return
    assert layer is not None
    assert isinstance(layer.mlp, Experts)
    copies, (least, most) = batch.copies(trace, row, layer.mlp), batch.copies_possible(layer.mlp)
    if copies is not None and not least <= copies <= most:
        what = f"the slowest rank's experts work on {copies} copies of tokens, but it has from {least} to {most}"
        yield Violation(subject.row(row), what)


def _compare(subject: Subject, row: int, side: str, found: int, width: int, count: int | None) -> Iterator[Violation]:
    if count is not None and found != width * count:
        what = f"its {side} is {found} bytes, but {count} rows of {width} bytes are {width * count}"
        yield Violation(subject.row(row), what)
    elif found % width:
        yield Violation(subject.row(row), f"its {side} is {found} bytes, which is no whole number of rows of {width}")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How many rows operators have: tokens, logits and those of each request; empty where nothing is known.

    `tokens` and `logits` are those of one context-parallel rank, `routed` all tokens (0: not known). `scattered`:
    tensor-parallel ranks share out the tokens of norms.
    """

    facts: ModelFacts
    member: list[int]
    tokens: list[int]
    logits: list[int]
    of_request: dict[int, int]
    routed: int
    scattered: bool

    @staticmethod
    def of(trace: Trace, facts: ModelFacts) -> _Tokens:
        """Return those of the batches; from embedding and sampler where these are not known."""
        member, ranks = members(trace)[trace.rank_set].tolist(), facts.mesh.context
        scattered = "sequence_parallel" in trace.attributes
        if facts.batches:
            tokens = [ceil_div(batch.total_tokens, ranks) for batch in facts.batches]
            logits = [ceil_div(batch.sampled_tokens, ranks) for batch in facts.batches]
            routed = sum(batch.total_tokens for batch in facts.batches)
            pairs = [
                pair
                for batch in facts.batches
                for pair in zip(batch.request_ids.tolist(), batch.new_tokens.tolist(), strict=True)
            ]
            return _Tokens(facts, member, tokens, logits, dict(pairs), routed, scattered)
        first: dict[str, int] = {}
        for row in range(trace.rows):
            first.setdefault(trace.name(row), row)
        known = facts.mesh.data == 1
        tokens = (
            [int(trace.input_bytes[first["embedding"]]) // TOKEN_ID_BYTES] if known and "embedding" in first else []
        )
        logits = [int(trace.output_bytes[first["sampler"]]) // TOKEN_ID_BYTES] if known and "sampler" in first else []
        routed = sum(tokens) if ranks == 1 else 0
        return _Tokens(facts, member, tokens, logits, {}, routed, scattered)

    def rows(self, trace: Trace, row: int, layer: Layer | None) -> Counts:
        """Return the rows that the operator of `row` takes and puts out (None: not known)."""
        name, request, member = trace.name(row), int(trace.request[row]), self.member[row]
        if request != NO_REQUEST:
            own = self.of_request.get(request)
            return own, own
        if layer is not None and isinstance(layer.attention, LatentAttention) and name in ABSORBED | EXPANDED:
            own = self._latent(layer.attention.absorption, name in ABSORBED, member)
            return own, own
        logits = self.logits[member] if self.logits and member != TOGETHER else None
        tokens = (max(self.tokens) if member == TOGETHER else self.tokens[member]) if self.tokens else None
        if self.scattered and tokens is not None and (name in BY_TOKEN or name.endswith("layernorm")):
            part = ceil_div(tokens, self.facts.mesh.tensor)
            into = tokens if name == "sequence_scatter" else part
            return into, tokens if name == "sequence_gather" else part
        if name in ("lm_head", "logit_softcap", "sampler"):
            return logits, logits
        if name == ("project_out" if self.facts.architecture.embedding_size else "final_layernorm"):
            return tokens, logits
        if layer is None or not isinstance(layer.mlp, Experts) or tokens is None or not name.startswith("expert_"):
            return tokens, tokens
        if self.facts.mesh.expert == 1:
            copies = tokens * layer.mlp.per_token
            return {"expert_gate_up_proj": (tokens, copies), "expert_sum": (copies, tokens)}.get(name, (copies, copies))
        return self._spread(trace, name, layer.mlp, tokens, self.copies(trace, row, layer.mlp))

    def _latent(self, absorption: str, absorbed: bool, member: int) -> int | None:
        """Return the tokens of one form of latent attention: decodes, drafts with them, are absorbed unless told."""
        if not self.facts.batches:
            return None
        batch = self.facts.batches[member]
        pairs = list(zip(batch.new_tokens.tolist(), batch.samples.tolist(), strict=True))
        decodes: int = sum(new for new, sampled in pairs if new == 1 or new == sampled) + batch.padding
        decodes = {"absorb": batch.total_tokens, "expand": 0}.get(absorption, decodes)
        return ceil_div(decodes if absorbed else batch.total_tokens - decodes, self.facts.mesh.context)

    def copies(self, trace: Trace, row: int, experts: Experts) -> int | None:
        """Return the copies that the whole experts of a rank work on in the layer of `row`: of the slowest rank.

        Where routing is not balanced a trace has nothing else that says them than what the experts themselves take
        (None: it lacks that, or how many tokens there are is not known).
        """
        if ROUTING not in trace.attributes:
            if not self.routed:
                return None
            mesh = self.facts.mesh
            everywhere = experts.count + mesh.redundant_experts
            return ceil_div(self.routed * experts.per_token * ceil_div(everywhere, mesh.expert), everywhere)
        own = [at for at in rows_named(trace, frozenset({ACTIVATION})).tolist() if trace.layer[at] == trace.layer[row]]
        width = self.facts.precision.activation_bytes(2 * experts.width)
        return int(trace.input_bytes[own[0]]) // width if own else None

    def copies_possible(self, experts: Experts) -> tuple[int, int]:
        """Return how many copies the rank with most has at least, the mean, and at most, all that its experts take."""
        mesh = self.facts.mesh
        held = ceil_div(experts.count + mesh.redundant_experts, mesh.expert)
        return ceil_div(self.routed * experts.per_token, mesh.expert), self.routed * min(experts.per_token, held)

    def _spread(self, trace: Trace, name: str, kind: Experts, tokens: int, copies: int | None) -> Counts:
        """Return the rows of an operator of experts that whole ranks hold; `tokens` are its member's, or the most."""
        mesh, chosen = self.facts.mesh, kind.per_token
        own, exchanged = ceil_div(tokens, mesh.tensor), ceil_div(tokens * chosen, mesh.tensor)
        gathered = mesh.expert * ceil_div(max(self.tokens), mesh.tensor)
        ends: dict[str, Counts] = {"expert_gather": (own, tokens)}
        if _dispatch(trace) is CommType.ALLGATHER:
            ends |= {"expert_dispatch": (own, gathered), "expert_gate_up_proj": (gathered, copies)}
            ends |= {"expert_sum": (copies, gathered), "expert_combine": (gathered, own)}
        else:
            ends |= {"expert_dispatch": (tokens, copies), "expert_combine": (copies, exchanged)}
            ends |= {"expert_sum": (exchanged, own)}
        return ends.get(name, (copies, copies))


def _dispatch(trace: Trace) -> CommType:
    """Return how tokens reach experts on other ranks."""
    return CommType.ALLGATHER if trace.attributes.get("expert_exchange") == "allgather" else CommType.ALLTOALL


def _table(facts: ModelFacts, tensor: int, layer: Layer | None) -> dict[str, _Widths]:
    """Work out every operator on one of `tensor` ranks, from the architecture alone; of a layer, or of the ends."""
    model, precision = facts.architecture, facts.precision
    matrices = _Matrices(precision, dict(model.end_schemes if layer is None else layer.schemes))
    norm = _operator(precision, model.hidden_size, model.hidden_size, model.norm_parameters)
    if layer is None:
        embedded = _operator(precision, model.embedding_width, model.embedding_width)
        exchanges = {"sequence_scatter": embedded, "sequence_gather": replace(norm, weights=0)}
        return {**_ends(model, tensor, matrices), "final_layernorm": norm, **exchanges}
    table = dict.fromkeys(("layernorm", "input_layernorm", "post_layernorm"), norm)
    if isinstance(layer.attention, GroupedAttention):
        table |= _attention(layer.attention, model.hidden_size, tensor, matrices)
    elif isinstance(layer.attention, LatentAttention):
        table |= _latent(layer.attention, model.hidden_size, tensor, matrices)
    if facts.mesh.context > 1:
        table = {name: widths for name, widths in table.items() if name not in ATTENTION}  # see context_parallel
    table |= dict.fromkeys(SEQUENCE_EXCHANGES, replace(norm, weights=0))
    if isinstance(layer.mlp, Experts):
        return table | _experts(layer.mlp, model.hidden_size, facts.mesh, matrices)
    return table | (_mlp(layer.mlp, model.hidden_size, tensor, matrices) if isinstance(layer.mlp, DenseMlp) else {})


def _operator(precision: Precision, into: int, out: int, parameters: int = 0) -> _Widths:
    sides = precision.activation_bytes(into), precision.activation_bytes(out)
    return _Widths(*sides, precision.weight_bytes(parameters))


@dataclass(frozen=True, slots=True)
class _Matrices:
    """The matrices of a model: plain, or quantised with their scales."""

    precision: Precision
    schemes: Mapping[str, Scheme]

    def linear(self, role: str, into: int, out: int, bias: bool = False, copies: int = 1) -> _Widths:
        """Return a projection, or `copies` of them that stand for one operator."""
        found = _operator(self.precision, into, out, copies * (into * out + out * bias))
        stored = self.schemes.get(role)
        if stored is None:
            return found
        across, along = stored.block[0] or into, stored.block[1] or out
        scales = -(-into // across) * -(-out // along)
        parts = into * out * stored.bits, scales * (stored.scale_bits + stored.zero_bits), into * stored.index_bits
        whole = sum(ceil_div(bits, 8) for bits in (*parts, stored.matrix_bits))
        return replace(found, weights=copies * (whole + self.precision.weight_bytes(out * bias)))

    def part(self, role: str, width: int, ranks: int) -> int:
        """Return the inputs that the fullest rank has: whole blocks where these stay together."""
        stored = self.schemes.get(role)
        block = stored.block[0] if stored is not None and stored.whole_blocks else None
        return ceil_div(width, ranks) if not block else min(width, block * ceil_div(width, ranks * block))


def _ends(model: ModelArchitecture, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    hidden, vocab, precision = model.hidden_size, ceil_div(model.vocab_size, tensor), matrices.precision
    narrow = model.embedding_size or hidden
    tables = precision.weight_bytes(vocab * narrow), precision.weight_bytes(model.position_rows * hidden)
    gathered = precision.activation_bytes(vocab) * tensor
    ends = {
        "embedding": _Widths(TOKEN_ID_BYTES, precision.activation_bytes(narrow), tables[0]),
        "embedding_scale": _operator(precision, hidden, hidden),
        "hidden_state_proj": _operator(precision, 2 * hidden, hidden, 2 * hidden * hidden),
        "lm_head": matrices.linear("lm_head", narrow, vocab, model.head_bias),
        "logit_softcap": _Widths(gathered, gathered, 0),
        "sampler": _Widths(gathered, TOKEN_ID_BYTES, 0),
    }
    if narrow == hidden:
        return ends | {"embedding": replace(ends["embedding"], weights=sum(tables))}
    ends["position_embedding"] = replace(_operator(precision, hidden, hidden), weights=tables[1])
    return ends | {
        "project_in": _operator(precision, narrow, hidden, narrow * hidden),
        "project_out": _operator(precision, hidden, narrow, hidden * narrow),
    }


def _attention(kind: GroupedAttention, hidden: int, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    precision, every_query, every_kv = matrices.precision, kind.heads * kind.head_dim, kind.kv_heads * kind.head_dim
    query = ceil_div(every_query, tensor)
    kv = kind.head_dim if kind.kv_heads < tensor <= kind.heads else ceil_div(every_kv, tensor)
    kv = ceil_div(every_query, tensor) if tensor > kind.heads else kv
    every = query + 2 * kv
    sides, out = _operator(precision, every, every), matrices.linear("o_proj", query, hidden, kind.output_bias)
    sinks = precision.weight_bytes(ceil_div(kind.heads, tensor)) if kind.sinks else 0
    return {
        "qkv_proj": matrices.linear("q_proj", hidden, every, kind.qkv_bias),
        "q_proj": matrices.linear("q_proj", hidden, query, kind.qkv_bias),
        **dict.fromkeys(("k_proj", "v_proj"), matrices.linear("k_proj", hidden, kv, kind.qkv_bias)),
        "qk_norm": _operator(precision, every, every, 2 * kind.head_dim * kind.qk_norm_weights),
        **dict.fromkeys(("rotary_emb", "rope"), sides),
        **dict.fromkeys(("attention", "attn"), _operator(precision, every, query)),
        "o_proj": replace(out, weights=out.weights + sinks),
    }


def _latent(kind: LatentAttention, hidden: int, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    """Both forms: what is compressed is whole on every rank, what belongs to heads is divided."""
    precision = matrices.precision
    per_head = {"nope": kind.nope_dim, "rope": kind.rope_dim, "query": kind.nope_dim + kind.rope_dim}
    per_head |= {"value": kind.v_dim, "latent": kind.kv_rank, "pair": kind.nope_dim + kind.v_dim}
    per_head["wide"] = kind.kv_rank + kind.rope_dim
    part = {name: ceil_div(kind.heads * width, tensor) for name, width in per_head.items()}
    compressed, kept = kind.q_rank or hidden, kind.kv_rank + kind.rope_dim
    halves = [ceil_div(kind.heads * kind.kv_rank * width, tensor) for width in (kind.nope_dim, kind.v_dim)]
    to_latent, to_values = map(precision.weight_bytes, halves)
    both = matrices.linear("kv_a_proj", hidden, (kind.q_rank or 0) + kept, kind.bias)
    expanded = _operator(precision, part["query"] * 2 + part["value"], part["value"])
    turned = _operator(precision, part["rope"] + kind.rope_dim, part["rope"] + kind.rope_dim)
    return {
        "qkv_a_proj": both,
        "q_a_proj": matrices.linear("q_a_proj", hidden, compressed, kind.bias),
        "kv_a_proj": matrices.linear("kv_a_proj", hidden, kept, kind.bias),
        "q_a_norm": _operator(precision, compressed, compressed, compressed),
        "kv_a_norm": _operator(precision, kind.kv_rank, kind.kv_rank, kind.kv_rank),
        "q_b_proj": matrices.linear("q_b_proj", compressed, part["query"]),
        **dict.fromkeys(("rotary_emb", "rope"), turned),
        "kv_b_proj": matrices.linear("kv_b_proj", kind.kv_rank, part["pair"]),
        "q_absorb": replace(_operator(precision, part["nope"], part["latent"]), weights=to_latent),
        **dict.fromkeys(("attention", "attn"), expanded),
        "latent_attention": _operator(precision, part["wide"] + kept, part["latent"]),
        "v_up_proj": replace(_operator(precision, part["latent"], part["value"]), weights=to_values),
        "o_proj": matrices.linear("o_proj", part["value"], hidden, kind.bias),
    }


def _mlp(kind: DenseMlp, hidden: int, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    inner = ceil_div(kind.width, tensor)
    ups = {role: matrices.linear(role, hidden, inner, kind.bias) for role in ("gate_proj", "up_proj", "fc1")}
    downs = {role: matrices.linear(role, inner, hidden, kind.bias) for role in ("down_proj", "fc2")}
    both = matrices.linear("gate_proj", hidden, 2 * inner, kind.bias)
    act = _operator(matrices.precision, 2 * inner if kind.gated else inner, inner)
    return {**ups, **downs, "gate_up_proj": both, "act_fn": act}


def _experts(kind: Experts, hidden: int, mesh: Mesh, matrices: _Matrices) -> dict[str, _Widths]:
    """Widths are of one copy of a token, weights those of all experts on a rank."""
    precision, held = matrices.precision, ceil_div(kind.count + mesh.redundant_experts, mesh.expert)
    inner = kind.width if mesh.expert > 1 else matrices.part("expert_down_proj", kind.width, mesh.tensor)
    shared = ceil_div(kind.shared_width, mesh.tensor)
    carried = ("expert_dispatch", "expert_combine", "expert_sum", "expert_gather")
    return {
        "router": matrices.linear("router", hidden, kind.count + kind.shared_gate, kind.router_bias),
        "expert_gate_up_proj": matrices.linear("expert_gate_up_proj", hidden, 2 * inner, kind.bias, held),
        "expert_act_fn": _operator(precision, 2 * inner, inner),
        "expert_down_proj": matrices.linear("expert_down_proj", inner, hidden, kind.bias, held),
        **dict.fromkeys(carried, _operator(precision, hidden, hidden)),
        "shared_gate_up_proj": matrices.linear("shared_gate_up_proj", hidden, 2 * shared),
        "shared_act_fn": _operator(precision, 2 * shared, shared),
        "shared_down_proj": matrices.linear("shared_down_proj", shared, hidden),
    }


RULE = Rule(
    name="model-shape",
    about="Inputs, outputs and weights of every operator have the bytes that the model's dimensions, the number of "
    "tokens and the tensor-parallel degree give; worked out here from the architecture, apart from the generator. "
    "Where routing is not balanced, the slowest rank's experts have at least the mean of all ranks, and at most all.",
    cause="a dimension that is not divided by the ranks (or divided twice), or KV heads taken for query heads",
    needs="model",
    check=check,
)
