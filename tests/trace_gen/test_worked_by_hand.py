"""Every operator's FLOPs and bytes worked out here from the model's dimensions, one literal row an operator.

The model is small and its dimensions differ from each other, so that no two products agree by chance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from trace_cases import batch, make_generator

from trace_gen.models import load_model
from trace_gen.trace import CommType, Trace

HIDDEN, HEADS, KV_HEADS, WIDTH, INNER, VOCAB = 48, 6, 2, 10, 112, 1000
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": WIDTH,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
}
TOKENS, LOGITS = 8, 2
"""Seven tokens of a prompt on 5 of context and one decode on 20; both are sampled."""
BATCH = batch([7, 1], [5, 20])
NONE, REDUCE, GATHER = CommType.NONE, CommType.ALLREDUCE, CommType.ALLGATHER


class Row(NamedTuple):
    name: str
    flops: int
    traffic: int
    input: int
    weights: int
    output: int
    comm: CommType = NONE
    carried: int = 0


def linear(name: str, rows: int, into: int, out: int, comm: CommType = NONE, bias: bool = False) -> Row:
    """2 FLOPs a weight and row; weights, input and output are moved once; 16 bits a number."""
    weights = 2 * (into * out + out * bias)
    flops = rows * (2 * into * out + out * bias)
    carried = 0 if comm is NONE else 2 * rows * out
    return Row(name, flops, 2 * rows * (into + out) + weights, 2 * rows * into, weights, 2 * rows * out, comm, carried)


def norm(name: str, rows_out: int = TOKENS) -> Row:
    """Input, output and the residual stream, read and written, and the weights; 5 operations an element."""
    traffic = 4 * 2 * TOKENS * HIDDEN + 2 * HIDDEN
    return Row(name, 5 * TOKENS * HIDDEN, traffic, 2 * TOKENS * HIDDEN, 2 * HIDDEN, 2 * rows_out * HIDDEN)


def pairs(new: int, context: int) -> int:
    return sum(context + query for query in range(1, new + 1))


def attention(query: int, kv: int) -> Row:
    """4 FLOPs an element of the query and pair; K and V of all tokens read, of new ones written, queries in and out."""
    flops = 4 * query * (pairs(7, 5) + pairs(1, 20))
    traffic = 2 * 2 * kv * ((12 + 7) + (21 + 1)) + 2 * 2 * query * TOKENS
    return Row("attention", flops, traffic, 2 * TOKENS * (query + 2 * kv), 0, 2 * TOKENS * query)


def rotary(query: int, kv: int) -> Row:
    touched, passed = query + kv, 2 * TOKENS * (query + 2 * kv)
    return Row("rotary_emb", 3 * TOKENS * touched, 2 * 2 * TOKENS * touched, passed, 0, passed)


def expected(ranks: int, vocab: int) -> list[Row]:
    """All rows of the model on one of `ranks` ranks, which divide heads and widths."""
    query, kv, inner = HEADS * WIDTH // ranks, KV_HEADS * WIDTH // ranks, INNER // ranks
    reduce, gather = (REDUCE, GATHER) if ranks > 1 else (NONE, NONE)
    looked_up = TOKENS * (4 + 2 * HIDDEN + 2 * HIDDEN)
    out = 2 * TOKENS * HIDDEN
    first = Row("embedding", 0, looked_up, 4 * TOKENS, 2 * vocab * HIDDEN, out, reduce, out if ranks > 1 else 0)
    gates = Row("act_fn", 5 * 2 * TOKENS * inner, 2 * 3 * TOKENS * inner, 4 * TOKENS * inner, 0, 2 * TOKENS * inner)
    block = [
        norm("layernorm"),
        linear("qkv_proj", TOKENS, HIDDEN, query + 2 * kv),
        rotary(query, kv),
        attention(query, kv),
        linear("o_proj", TOKENS, query, HIDDEN, reduce),
        norm("layernorm"),
        linear("gate_up_proj", TOKENS, HIDDEN, 2 * inner),
        gates,
        linear("down_proj", TOKENS, inner, HIDDEN, reduce),
    ]
    all_logits = vocab * ranks
    sampled = 2 * LOGITS * all_logits
    sampler = Row("sampler", 5 * LOGITS * all_logits, sampled + 4 * LOGITS, sampled, 0, 4 * LOGITS)
    return [
        first,
        *block,
        *block,
        norm("final_layernorm", LOGITS),
        linear("lm_head", LOGITS, HIDDEN, vocab, gather),
        sampler,
    ]


def rows_of(trace: Trace) -> list[Row]:
    columns = (trace.flops[0], trace.mem_bytes[0], trace.input_bytes, trace.weight_bytes, trace.output_bytes)
    sizes = zip(*(column.tolist() for column in columns), strict=True)
    carried = zip(map(CommType, trace.comm_type.tolist()), trace.comm_bytes.tolist(), strict=True)
    names = (trace.name(row) for row in range(trace.rows))
    return [Row(name, *size, *comm) for name, size, comm in zip(names, sizes, carried, strict=True)]


def load(folder: Path, **changes: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return str(path)


@pytest.mark.parametrize(("ranks", "vocab"), [(1, VOCAB), (2, VOCAB // 2)])
def test_a_llama_row_by_row(tmp_path: Path, ranks: int, vocab: int) -> None:
    trace = make_generator(load_model(load(tmp_path)), tensor=ranks).generate([BATCH])
    assert rows_of(trace) == expected(ranks, vocab)


def test_what_other_families_add(tmp_path: Path) -> None:
    """Biases add a number and an operation an output; normalised heads are read and written twice."""
    biased = load_model(load(tmp_path, model_type="qwen2", num_key_value_heads=HEADS))
    query = HEADS * WIDTH
    rows = rows_of(make_generator(biased).generate([BATCH]))
    assert rows[2] == linear("qkv_proj", TOKENS, HIDDEN, 3 * query, bias=True)
    assert rows[5] == linear("o_proj", TOKENS, query, HIDDEN)
    normed = rows_of(make_generator(load_model(load(tmp_path, model_type="qwen3"))).generate([BATCH]))
    touched, passed = query + KV_HEADS * WIDTH, 2 * TOKENS * (query + 2 * KV_HEADS * WIDTH)
    weights = 2 * 2 * WIDTH
    assert normed[3] == Row(
        "qk_norm", 5 * TOKENS * touched, 2 * 2 * 2 * TOKENS * touched + weights, passed, weights, passed
    )


def test_positions_from_a_table_are_looked_up_and_added(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": HIDDEN, "n_layer": 2, "n_head": 6, "n_positions": 64, "vocab_size": VOCAB}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    rows = rows_of(make_generator(load_model(str(path))).generate([BATCH]))
    out = 2 * TOKENS * HIDDEN
    assert rows[0] == Row(
        "embedding", TOKENS * HIDDEN, 4 * TOKENS + 3 * out, 4 * TOKENS, 2 * (VOCAB + 64) * HIDDEN, out
    )
    inner = 4 * HIDDEN
    gates = Row("act_fn", 5 * TOKENS * inner, 2 * 2 * TOKENS * inner, 2 * TOKENS * inner, 0, 2 * TOKENS * inner)
    assert rows[6:9] == [
        linear("fc1", TOKENS, HIDDEN, inner, bias=True),
        gates,
        linear("fc2", TOKENS, inner, HIDDEN, bias=True),
    ]
