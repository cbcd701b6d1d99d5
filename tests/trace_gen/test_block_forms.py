"""Blocks that are not pre-norm, embeddings that are projected or scaled, biased heads, capped scores: row by row.

The models are small, and their dimensions differ from each other; expectations are worked out here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_worked_by_hand import LOGITS, TOKENS, Row, linear, pairs, rows_of
from trace_cases import batch, batches, make_generator, model, rows_named

from trace_gen.architecture import BlockForm, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType
from trace_gen.vocabulary import SPLIT
from trace_test.random_batches import _WorkModel
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

HIDDEN, HEADS, KV_HEADS, WIDTH, INNER, VOCAB = 48, 6, 2, 8, 112, 1000
BATCH = batch([7, 1], [5, 20])
SCORED = pairs(7, 5) + pairs(1, 20)
NONE, REDUCE, GATHER = CommType.NONE, CommType.ALLREDUCE, CommType.ALLGATHER
COMMON = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
}
SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)


def load(folder: Path, model_type: str, **fields: Any) -> ModelArchitecture:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": model_type, **COMMON, **fields}))
    return load_model(str(path))


def rows(architecture: ModelArchitecture, ranks: int = 1) -> list[Row]:
    return rows_of(make_generator(architecture, tensor=ranks).generate([BATCH]))


def norm(name: str = "layernorm", *, extra: int = 2, weights: int = 2 * HIDDEN, rows_out: int = TOKENS) -> Row:
    """Input, output, `extra` hidden states and the weights are moved; LayerNorm has a weight and a bias."""
    traffic = (2 + extra) * 2 * TOKENS * HIDDEN + 2 * weights
    return Row(name, 5 * TOKENS * HIDDEN, traffic, 2 * TOKENS * HIDDEN, 2 * weights, 2 * rows_out * HIDDEN)


def act(inputs: int, outputs: int) -> Row:
    moved = 2 * TOKENS * (inputs + outputs)
    return Row("act_fn", 5 * TOKENS * max(inputs, outputs), moved, 2 * TOKENS * inputs, 0, 2 * TOKENS * outputs)


def attention(query: int, kv: int, score_flops: int = 0) -> Row:
    flops = (4 * query + score_flops * query // WIDTH) * SCORED
    traffic = 2 * 2 * kv * ((12 + 7) + (21 + 1)) + 2 * 2 * query * TOKENS
    return Row("attention", flops, traffic, 2 * TOKENS * (query + 2 * kv), 0, 2 * TOKENS * query)


def rotary(query: int, kv: int, turned: int) -> Row:
    """`turned` of each head's elements."""
    touched, passed = (query + kv) * turned // WIDTH, 2 * TOKENS * (query + 2 * kv)
    return Row("rotary_emb", 3 * TOKENS * touched, 2 * 2 * TOKENS * touched, passed, 0, passed)


def mlp(ranks: int, bias: bool) -> list[Row]:
    inner, after = INNER // ranks, REDUCE if ranks > 1 else NONE
    return [
        linear("fc1", TOKENS, HIDDEN, inner, bias=bias),
        act(inner, inner),
        linear("fc2", TOKENS, inner, HIDDEN, after, bias),
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_gpt_neox(tmp_path: Path, ranks: int) -> None:
    """Both norms first, of which the second finds the stream as it is; a quarter of each head turns; two reductions."""
    found = rows(load(tmp_path, "gpt_neox", rotary_pct=0.25), ranks)
    each, after = HIDDEN // ranks, REDUCE if ranks > 1 else NONE
    block = [
        norm(extra=3),
        norm(extra=0),
        linear("qkv_proj", TOKENS, HIDDEN, 3 * each, bias=True),
        rotary(each, each, 2),
        attention(each, each),
        linear("o_proj", TOKENS, each, HIDDEN, after, True),
        *mlp(ranks, True),
    ]
    assert found[1 : 1 + 2 * len(block)] == block * 2
    assert [row.name for row in found[1 + 2 * len(block) :]] == ["final_layernorm", "lm_head", "sampler"]


def test_blocks_of_gpt_neox_that_follow_each_other(tmp_path: Path) -> None:
    architecture = load(tmp_path, "gpt_neox", use_parallel_residual=False)
    assert architecture.layer_kinds[0].form is BlockForm.PRE_NORM
    assert [row.name for row in rows(architecture)[1:9]] == [
        *("layernorm", "qkv_proj", "rotary_emb", "attention", "o_proj", "layernorm", "fc1", "act_fn")
    ]


@pytest.mark.parametrize(("new", "norms"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("ranks", [1, 2])
def test_falcon(tmp_path: Path, new: bool, norms: int, ranks: int) -> None:
    """One norm or two, before attention and MLP side by side, whose sums are reduced together."""
    fields = {"new_decoder_architecture": new, "num_kv_heads": KV_HEADS, "parallel_attn": True, "multi_query": True}
    found = rows(load(tmp_path, "falcon", **{**fields, "ffn_hidden_size": INNER}), ranks)
    query, kv = HIDDEN // ranks, (KV_HEADS * WIDTH // ranks if new else WIDTH)
    block = [
        norm(extra=3),
        *[norm(extra=0)] * (norms - 1),
        linear("qkv_proj", TOKENS, HIDDEN, query + 2 * kv),
        rotary(query, kv, WIDTH),
        attention(query, kv),
        linear("o_proj", TOKENS, query, HIDDEN),
        *mlp(ranks, False),
    ]
    assert found[1 : 1 + 2 * len(block)] == block * 2


def test_falcon_rw(tmp_path: Path) -> None:
    """A bias on each score, 2 operations; blocks follow each other, and each half is reduced."""
    fields = {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "ffn_hidden_size": INNER}
    architecture = load(tmp_path, "falcon", **fields)
    block = [
        norm(),
        linear("qkv_proj", TOKENS, HIDDEN, 3 * HIDDEN // 2, bias=True),
        attention(HIDDEN // 2, HIDDEN // 2, 2),
        linear("o_proj", TOKENS, HIDDEN // 2, HIDDEN, REDUCE, True),
        norm(),
        *mlp(2, True),
    ]
    assert rows(architecture, 2)[1:9] == block


@pytest.mark.parametrize("ranks", [1, 2])
def test_phi(tmp_path: Path, ranks: int) -> None:
    """One norm, half of each head turns, everything is biased, the LM head, too."""
    found = rows(load(tmp_path, "phi"), ranks)
    each, after = HIDDEN // ranks, REDUCE if ranks > 1 else NONE
    block = [
        norm(extra=3),
        linear("qkv_proj", TOKENS, HIDDEN, 3 * each, bias=True),
        rotary(each, each, 4),
        attention(each, each),
        linear("o_proj", TOKENS, each, HIDDEN, after, True),
        *mlp(ranks, True),
    ]
    assert found[1 : 1 + 2 * len(block)] == block * 2
    gather = GATHER if ranks > 1 else NONE
    assert found[-2] == linear("lm_head", LOGITS, HIDDEN, VOCAB // ranks, gather, True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_gemma2(tmp_path: Path, ranks: int) -> None:
    """Four norms, of which those behind touch no stream; scores and logits are capped with 3 operations each."""
    fields = {"num_key_value_heads": KV_HEADS, "head_dim": WIDTH, "sliding_window": 400}
    found = rows(load(tmp_path, "gemma2", **fields), ranks)
    query, kv, inner = HEADS * WIDTH // ranks, KV_HEADS * WIDTH // ranks, INNER // ranks
    after = REDUCE if ranks > 1 else NONE
    plain = {"weights": HIDDEN}
    block = [
        norm(**plain),
        linear("qkv_proj", TOKENS, HIDDEN, query + 2 * kv),
        rotary(query, kv, WIDTH),
        attention(query, kv, 3),
        linear("o_proj", TOKENS, query, HIDDEN, after),
        norm(extra=0, **plain),
        norm(**plain),
        linear("gate_up_proj", TOKENS, HIDDEN, 2 * inner),
        act(2 * inner, inner),
        linear("down_proj", TOKENS, inner, HIDDEN, after),
        norm(extra=0, **plain),
    ]
    state, logits = 2 * TOKENS * HIDDEN, 2 * LOGITS * VOCAB
    assert found[1] == Row("embedding_scale", TOKENS * HIDDEN, 2 * state, state, 0, state)
    assert found[2 : 2 + 2 * len(block)] == block * 2
    assert [row.name for row in found[-4:]] == ["final_layernorm", "lm_head", "logit_softcap", "sampler"]
    assert found[-2] == Row("logit_softcap", 3 * LOGITS * VOCAB, 2 * logits, logits, 0, logits)


def test_caps_that_a_config_turns_off(tmp_path: Path) -> None:
    off = load(tmp_path, "gemma2", attn_logit_softcapping=None, final_logit_softcapping=None)
    capped = load(tmp_path, "gemma2")
    assert (off.caps_logits, capped.caps_logits) == (False, True)
    flops = [layer.attention.score_flops for layer in off.layers if isinstance(layer.attention, GroupedAttention)]
    assert flops == [0, 0] and "logit_softcap" not in [row.name for row in rows(off)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_opt_350m(tmp_path: Path, ranks: int) -> None:
    """The embedding is half as wide and projected before positions are added; norms stand behind, none at the end."""
    narrow = HIDDEN // 2
    fields = {"ffn_dim": INNER, "word_embed_proj_dim": narrow, "do_layer_norm_before": False, "intermediate_size": None}
    found = rows(load(tmp_path, "opt", **fields), ranks)
    each, vocab, (after, gather) = HIDDEN // ranks, VOCAB // ranks, (REDUCE, GATHER) if ranks > 1 else (NONE, NONE)
    looked_up, state, table = 2 * TOKENS * narrow, 2 * TOKENS * HIDDEN, 2 * 514 * HIDDEN
    head = [
        Row(
            *("embedding", 0, TOKENS * 4 + 2 * looked_up, TOKENS * 4, 2 * vocab * narrow, looked_up, after),
            looked_up if ranks > 1 else 0,
        ),
        linear("project_in", TOKENS, narrow, HIDDEN),
        Row("position_embedding", TOKENS * HIDDEN, 3 * state, state, table, state),
    ]
    block = [
        linear("qkv_proj", TOKENS, HIDDEN, 3 * each, bias=True),
        attention(each, each),
        linear("o_proj", TOKENS, each, HIDDEN, after, True),
        norm(extra=1),
        *mlp(ranks, True),
        norm(extra=1),
    ]
    assert found[:3] == head
    assert found[3 : 3 + 2 * len(block)] == block * 2
    out = linear("project_out", TOKENS, HIDDEN, narrow)
    assert found[-3]._replace(output=0) == out._replace(output=0)
    assert found[-3].output == 2 * LOGITS * narrow
    assert found[-2] == linear("lm_head", LOGITS, narrow, vocab, gather)


def test_no_logits_no_head(tmp_path: Path) -> None:
    """What runs on all tokens stays; what the rows of logits run through does not."""
    fields = {"ffn_dim": INNER, "word_embed_proj_dim": 24, "do_layer_norm_before": False, "intermediate_size": None}
    opt = make_generator(load(tmp_path, "opt", **fields)).generate([batch([5], samples=[0])])
    gemma = make_generator(load(tmp_path, "gemma2")).generate([batch([5], samples=[0])])
    assert opt.name(opt.rows - 1) == "project_out" and opt.output_bytes[-1] == 0
    assert gemma.name(gemma.rows - 1) == "final_layernorm"


def test_a_head_that_is_tied_and_biased_keeps_its_bias(tmp_path: Path) -> None:
    tied, untied = (load(tmp_path, "phi", tie_word_embeddings=said) for said in (True, False))
    for ranks in (1, 2):
        head = 2 * VOCAB * HIDDEN // ranks
        one, two = (ModelMemory(each, Mesh(ranks)).weight_bytes(0) for each in (tied, untied))
        assert two - one == head
        assert ModelMemory(tied, Mesh(ranks, 2)).weight_bytes(1) == ModelMemory(untied, Mesh(ranks, 2)).weight_bytes(1)


def test_tables_of_split_names_know_no_scaling_and_no_capping(tmp_path: Path) -> None:
    architecture = load(tmp_path, "gemma2")
    generator = make_generator(architecture)
    generator = type(generator)(architecture, Mesh(), _WorkModel(SPLIT, "request"))
    trace = generator.generate([BATCH])
    block = ["input_layernorm", "q_proj", "k_proj", "v_proj", *["rope", "attn"] * 2, "o_proj", "post_layernorm"]
    block += ["post_layernorm", "gate_proj", "up_proj", "act_fn", "down_proj", "post_layernorm"]
    names = [trace.name(row) for row in range(trace.rows)]
    assert names == ["embedding", *block * 2, "final_layernorm", "lm_head"]


FORMS = {
    "gpt_neox": {},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": KV_HEADS},
    "phi": {},
    "gemma2": {"num_key_value_heads": KV_HEADS, "head_dim": WIDTH, "sliding_window": 64},
    "gemma3_text": {"num_key_value_heads": KV_HEADS, "head_dim": WIDTH, "sliding_window": 64},
    "glm4": {"num_key_value_heads": KV_HEADS, "head_dim": WIDTH, "attention_bias": True},
    "opt": {"ffn_dim": INNER, "word_embed_proj_dim": 24, "do_layer_norm_before": False},
}


@pytest.mark.parametrize("model_type", FORMS)
def test_the_rules_hold_and_flops_are_conserved(tmp_path: Path, model_type: str) -> None:
    architecture = load(tmp_path, model_type, **FORMS[model_type])
    alone = make_generator(architecture)

    @SETTINGS
    @given(shape=batches, tensor=st.sampled_from([1, 2]), pipeline=st.sampled_from([1, 2]), by=st.booleans())
    def check(shape: BatchShape, tensor: int, pipeline: int, by: bool) -> None:
        placement = "requests" if by else "heads"
        generator = make_generator(architecture, tensor, pipeline, attention_placement=placement)
        trace = generator.generate([shape])
        facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
        outcome = run_rules(of_trace(model_type, trace, facts))
        assert outcome.violations == {} and outcome.skipped == []
        whole = alone.generate([shape])
        for name in ("qkv_proj", "attention", "fc1", "gate_up_proj", "act_fn"):
            if not by:
                assert tensor * flops(trace, name) == flops(whole, name)

    def flops(trace: Any, name: str) -> int:
        return int(trace.flops[0, rows_named(trace, name)].sum())

    check()


@pytest.mark.parametrize(("name", "reductions"), [("tiiuae/falcon-7b", 1), ("tiiuae/falcon-rw-1b", 2)])
def test_what_a_block_reduces(name: str, reductions: int) -> None:
    trace = make_generator(model(name), 4).generate([batch([3])])
    block = np.flatnonzero(trace.layer == 1)
    assert int((trace.comm_type[block] == CommType.ALLREDUCE).sum()) == reductions
