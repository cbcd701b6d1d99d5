"""Byte counts follow from the model's shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trace_gen.architecture import ModelArchitecture
from trace_gen.parallelism import Parallelism
from trace_gen.sharding import Precision, ceil_div
from trace_gen.trace import NO_REQUEST, Trace
from trace_test.rule import ModelFacts, Rule, Subject, Violation

TOKEN_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Widths:
    """Bytes a row that an operator takes and puts out, and the bytes of its weights; None: not stated here."""

    into: int
    out: int
    weights: int


def check(subject: Subject) -> Iterator[Violation]:
    """Compare each operator's bytes with those worked out from the architecture."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    tables: dict[bool, dict[str, _Widths]] = {}
    tokens, logits = _rows(trace, facts)
    for row in range(trace.rows):
        alone = len(trace.rank_sets[trace.rank_set[row]]) == 1 and trace.request[row] != NO_REQUEST
        if alone not in tables:
            tensor = 1 if alone else facts.parallelism.tensor
            tables[alone] = _table(facts.architecture, tensor, facts.precision)
            tables[alone] |= _expert_table(facts.architecture, facts.parallelism, facts.precision)
        widths = tables[alone].get(trace.name(row))
        if widths is None:
            continue
        name, request = trace.name(row), int(trace.request[row])
        rows_in, rows_out = _counts(facts, name, tokens, logits)
        if request != NO_REQUEST:
            rows_in = rows_out = _request_tokens(facts, request)
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


def _rows(trace: Trace, facts: ModelFacts) -> tuple[int | None, int | None]:
    """Return tokens and sampled sequences of the batch; from the embedding and the sampler where it is not known."""
    if facts.batch is not None:
        return facts.batch.total_tokens, facts.batch.sampled_tokens
    counts: dict[str, int] = {}
    for row in range(trace.rows):
        counts.setdefault(trace.name(row), row)
    tokens = int(trace.input_bytes[counts["embedding"]]) // TOKEN_ID_BYTES if "embedding" in counts else None
    logits = int(trace.output_bytes[counts["sampler"]]) // TOKEN_ID_BYTES if "sampler" in counts else None
    return tokens, logits


def _counts(facts: ModelFacts, name: str, tokens: int | None, logits: int | None) -> tuple[int | None, int | None]:
    """Return the rows that an operator takes and puts out (None: not known)."""
    if name in ("lm_head", "sampler", "final_layernorm"):
        return tokens if name == "final_layernorm" else logits, logits
    mixture, ranks = facts.architecture.experts, facts.parallelism.expert
    if mixture is None or tokens is None or not name.startswith("expert_"):
        return tokens, tokens
    copies, own = ceil_div(tokens * mixture.per_token, ranks), ceil_div(tokens, ranks)
    ends = {
        "expert_dispatch": (tokens, copies),
        "expert_gate_up_proj": (tokens if ranks == 1 else copies, copies),
        "expert_sum": (copies, own),
        "expert_gather": (own, tokens),
    }
    return ends.get(name, (copies, copies))


def _request_tokens(facts: ModelFacts, request: int) -> int | None:
    if facts.batch is None:
        return None
    found = (facts.batch.request_ids == request).nonzero()[0]
    return int(facts.batch.new_tokens[found[0]]) if found.size else None


def _table(model: ModelArchitecture, tensor: int, precision: Precision) -> dict[str, _Widths]:
    """Work out every operator on one of `tensor` ranks, from the architecture alone."""
    hidden = model.hidden_size
    query, inner = ceil_div(model.query_size, tensor), ceil_div(model.intermediate_size, tensor)
    vocab = ceil_div(model.vocab_size, tensor)
    kv = model.head_dim if model.num_kv_heads < tensor <= model.num_heads else ceil_div(model.kv_size, tensor)
    kv = ceil_div(model.query_size, tensor) if tensor > model.num_heads else kv
    every = query + 2 * kv

    def operator(into: int, out: int, parameters: int = 0) -> _Widths:
        sides = precision.activation_bytes(into), precision.activation_bytes(out)
        return _Widths(*sides, precision.weight_bytes(parameters))

    def linear(into: int, out: int, bias: bool) -> _Widths:
        return operator(into, out, into * out + out * bias)

    norm = operator(hidden, hidden, model.norm_parameters)
    up = linear(hidden, inner, model.mlp_bias)
    sides = operator(every, every)
    gates = 2 * inner if model.gated_mlp else inner
    hidden_bytes = precision.activation_bytes(hidden)
    tables = precision.weight_bytes((vocab + model.position_rows) * hidden)
    return {
        "embedding": _Widths(TOKEN_ID_BYTES, hidden_bytes, tables),
        **dict.fromkeys(("layernorm", "input_layernorm", "post_layernorm", "final_layernorm"), norm),
        "qkv_proj": linear(hidden, every, model.qkv_bias),
        "q_proj": linear(hidden, query, model.qkv_bias),
        **dict.fromkeys(("k_proj", "v_proj"), linear(hidden, kv, model.qkv_bias)),
        "qk_norm": operator(every, every, 2 * model.head_dim),
        **dict.fromkeys(("rotary_emb", "rope"), sides),
        **dict.fromkeys(("attention", "attn"), operator(every, query)),
        "o_proj": linear(query, hidden, model.output_bias),
        "gate_up_proj": linear(hidden, 2 * inner, model.mlp_bias),
        **dict.fromkeys(("gate_proj", "up_proj", "fc1"), up),
        "act_fn": operator(gates, inner),
        **dict.fromkeys(("down_proj", "fc2"), linear(inner, hidden, model.mlp_bias)),
        "lm_head": linear(hidden, vocab, False),
        "sampler": _Widths(precision.activation_bytes(vocab) * tensor, TOKEN_ID_BYTES, 0),
    }


def _expert_table(model: ModelArchitecture, parallelism: Parallelism, precision: Precision) -> dict[str, _Widths]:
    """Work out the operators of a mixture of experts on one rank; widths are of one copy of a token."""
    mixture = model.experts
    if mixture is None:
        return {}
    whole = parallelism.expert > 1
    held = mixture.count // parallelism.expert
    inner = mixture.intermediate_size if whole else ceil_div(mixture.intermediate_size, parallelism.tensor)
    shared = ceil_div(mixture.shared_intermediate_size, parallelism.tensor)
    hidden = model.hidden_size

    def operator(into: int, out: int, parameters: int = 0) -> _Widths:
        sides = precision.activation_bytes(into), precision.activation_bytes(out)
        return _Widths(*sides, precision.weight_bytes(parameters))

    scores = mixture.count + mixture.shared_gate
    carried = dict.fromkeys(
        ("expert_dispatch", "expert_combine", "expert_sum", "expert_gather"), operator(hidden, hidden)
    )
    return {
        "router": operator(hidden, scores, hidden * scores),
        "expert_gate_up_proj": operator(hidden, 2 * inner, held * hidden * 2 * inner),
        "expert_act_fn": operator(2 * inner, inner),
        "expert_down_proj": operator(inner, hidden, held * hidden * inner),
        **carried,
        "shared_gate_up_proj": operator(hidden, 2 * shared, hidden * 2 * shared),
        "shared_act_fn": operator(2 * shared, shared),
        "shared_down_proj": operator(shared, hidden, hidden * shared),
    }


RULE = Rule(
    name="model-shape",
    about="Inputs, outputs and weights of every operator have the bytes that the model's dimensions, the number of "
    "tokens and the tensor-parallel degree give; worked out here from the architecture, apart from the generator.",
    cause="a dimension that is not divided by the ranks (or divided twice), or KV heads taken for query heads",
    needs="model",
    check=check,
)
