"""Byte counts follow from the model's shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.precision import Precision, ceil_div
from trace_gen.quantization import Quantization
from trace_gen.trace import NO_LAYER, NO_REQUEST, CommType, Trace
from trace_test.operators import TOGETHER, members
from trace_test.rule import ModelFacts, Rule, Subject, Violation

TOKEN_ID_BYTES = 4
Counts = tuple[int | None, int | None]


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
        yield from _compare(subject, row, "input", int(trace.input_bytes[row]), widths.into, rows_in)
        yield from _compare(subject, row, "output", int(trace.output_bytes[row]), widths.out, rows_out)
        if int(trace.weight_bytes[row]) != widths.weights:
            found = int(trace.weight_bytes[row])
            yield Violation(subject.row(row), f"its weights are {found} bytes, but the model has {widths.weights}")


def _compare(subject: Subject, row: int, side: str, found: int, width: int, count: int | None) -> Iterator[Violation]:
    if count is not None and found != width * count:
        what = f"its {side} is {found} bytes, but {count} rows of {width} bytes are {width * count}"
        yield Violation(subject.row(row), what)
    elif found % width:
        yield Violation(subject.row(row), f"its {side} is {found} bytes, which is no whole number of rows of {width}")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How many rows operators have: tokens, logits and those of each request; empty where nothing is known."""

    facts: ModelFacts
    member: list[int]
    tokens: list[int]
    logits: list[int]
    of_request: dict[int, int]

    @staticmethod
    def of(trace: Trace, facts: ModelFacts) -> _Tokens:
        """Return those of the batches; from embedding and sampler where these are not known."""
        member = members(trace)[trace.rank_set].tolist()
        if facts.batches:
            tokens = [batch.total_tokens for batch in facts.batches]
            logits = [batch.sampled_tokens for batch in facts.batches]
            pairs = [
                pair
                for batch in facts.batches
                for pair in zip(batch.request_ids.tolist(), batch.new_tokens.tolist(), strict=True)
            ]
            return _Tokens(facts, member, tokens, logits, dict(pairs))
        first: dict[str, int] = {}
        for row in range(trace.rows):
            first.setdefault(trace.name(row), row)
        known = facts.mesh.data == 1
        tokens = (
            [int(trace.input_bytes[first["embedding"]]) // TOKEN_ID_BYTES] if known and "embedding" in first else []
        )
        logits = [int(trace.output_bytes[first["sampler"]]) // TOKEN_ID_BYTES] if known and "sampler" in first else []
        return _Tokens(facts, member, tokens, logits, {})

    def rows(self, trace: Trace, row: int, layer: Layer | None) -> Counts:
        """Return the rows that the operator of `row` takes and puts out (None: not known)."""
        name, request, member = trace.name(row), int(trace.request[row]), self.member[row]
        if request != NO_REQUEST:
            own = self.of_request.get(request)
            return own, own
        logits = self.logits[member] if self.logits and member != TOGETHER else None
        tokens = (max(self.tokens) if member == TOGETHER else self.tokens[member]) if self.tokens else None
        if name in ("lm_head", "sampler", "final_layernorm"):
            return tokens if name == "final_layernorm" else logits, logits
        if layer is None or not isinstance(layer.mlp, Experts) or tokens is None or not name.startswith("expert_"):
            return tokens, tokens
        if self.facts.mesh.expert == 1:
            copies = tokens * layer.mlp.per_token
            return {"expert_gate_up_proj": (tokens, copies), "expert_sum": (copies, tokens)}.get(name, (copies, copies))
        return self._spread(trace, name, layer.mlp.per_token, tokens)

    def _spread(self, trace: Trace, name: str, chosen: int, tokens: int) -> Counts:
        """Return the rows of an operator of experts that whole ranks hold; `tokens` are its member's, or the most."""
        mesh = self.facts.mesh
        copies = ceil_div(sum(self.tokens) * chosen, mesh.expert)
        own, exchanged = ceil_div(tokens, mesh.tensor), ceil_div(tokens * chosen, mesh.tensor)
        gathered = mesh.expert * ceil_div(max(self.tokens), mesh.tensor)
        ends = {"expert_gather": (own, tokens)}
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
    matrices = _Matrices(precision, model.quantization)
    norm = _operator(precision, model.hidden_size, model.hidden_size, model.norm_parameters)
    if layer is None:
        return {**_ends(model, tensor, matrices), "final_layernorm": norm}
    table = dict.fromkeys(("layernorm", "input_layernorm", "post_layernorm"), norm)
    if isinstance(layer.attention, GroupedAttention):
        table |= _attention(layer.attention, model.hidden_size, tensor, matrices)
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
    quantization: Quantization | None

    def linear(self, role: str, into: int, out: int, bias: bool = False, copies: int = 1) -> _Widths:
        """Return a projection, or `copies` of them that stand for one operator."""
        found = _operator(self.precision, into, out, copies * (into * out + out * bias))
        stored = self.quantization
        if stored is None or role in stored.plain:
            return found
        across, along = stored.block[0] or into, stored.block[1] or out
        scales = -(-into // across) * -(-out // along)
        parts = into * out * stored.bits, scales * (stored.scale_bits + stored.zero_bits), into * stored.index_bits
        whole = sum(ceil_div(bits, 8) for bits in parts)
        return replace(found, weights=copies * (whole + self.precision.weight_bytes(out * bias)))


def _ends(model: ModelArchitecture, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    hidden, vocab, precision = model.hidden_size, ceil_div(model.vocab_size, tensor), matrices.precision
    tables = precision.weight_bytes((vocab + model.position_rows) * hidden)
    return {
        "embedding": _Widths(TOKEN_ID_BYTES, precision.activation_bytes(hidden), tables),
        "hidden_state_proj": _operator(precision, 2 * hidden, hidden, 2 * hidden * hidden),
        "lm_head": matrices.linear("lm_head", hidden, vocab),
        "sampler": _Widths(precision.activation_bytes(vocab) * tensor, TOKEN_ID_BYTES, 0),
    }


def _attention(kind: GroupedAttention, hidden: int, tensor: int, matrices: _Matrices) -> dict[str, _Widths]:
    precision, every_query, every_kv = matrices.precision, kind.heads * kind.head_dim, kind.kv_heads * kind.head_dim
    query = ceil_div(every_query, tensor)
    kv = kind.head_dim if kind.kv_heads < tensor <= kind.heads else ceil_div(every_kv, tensor)
    kv = ceil_div(every_query, tensor) if tensor > kind.heads else kv
    every = query + 2 * kv
    sides = _operator(precision, every, every)
    return {
        "qkv_proj": matrices.linear("q_proj", hidden, every, kind.qkv_bias),
        "q_proj": matrices.linear("q_proj", hidden, query, kind.qkv_bias),
        **dict.fromkeys(("k_proj", "v_proj"), matrices.linear("k_proj", hidden, kv, kind.qkv_bias)),
        "qk_norm": _operator(precision, every, every, 2 * kind.head_dim),
        **dict.fromkeys(("rotary_emb", "rope"), sides),
        **dict.fromkeys(("attention", "attn"), _operator(precision, every, query)),
        "o_proj": matrices.linear("o_proj", query, hidden, kind.output_bias),
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
    precision, held = matrices.precision, kind.count // mesh.expert
    inner = kind.width if mesh.expert > 1 else ceil_div(kind.width, mesh.tensor)
    shared = ceil_div(kind.shared_width, mesh.tensor)
    carried = ("expert_dispatch", "expert_combine", "expert_sum", "expert_gather")
    return {
        "router": matrices.linear("router", hidden, kind.count + kind.shared_gate),
        "expert_gate_up_proj": matrices.linear("expert_gate_up_proj", hidden, 2 * inner, copies=held),
        "expert_act_fn": _operator(precision, 2 * inner, inner),
        "expert_down_proj": matrices.linear("expert_down_proj", inner, hidden, copies=held),
        **dict.fromkeys(carried, _operator(precision, hidden, hidden)),
        "shared_gate_up_proj": matrices.linear("shared_gate_up_proj", hidden, 2 * shared),
        "shared_act_fn": _operator(precision, 2 * shared, shared),
        "shared_down_proj": matrices.linear("shared_down_proj", shared, hidden),
    }


RULE = Rule(
    name="model-shape",
    about="Inputs, outputs and weights of every operator have the bytes that the model's dimensions, the number of "
    "tokens and the tensor-parallel degree give; worked out here from the architecture, apart from the generator.",
    cause="a dimension that is not divided by the ranks (or divided twice), or KV heads taken for query heads",
    needs="model",
    check=check,
)
