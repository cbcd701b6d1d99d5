"""Multi-head latent attention: operators, FLOPs and bytes by hand, which tokens are absorbed, KV cache and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, batches, decodes, make_generator, rows_named

from foundation.errors import UserError
from trace_gen.architecture import absorbing
from trace_gen.attention.absorption import absorption_named
from trace_gen.attention.interface import KVKind
from trace_gen.attention.latent import LatentAttention
from trace_gen.batch_shape import BatchShape, dummy_batch
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.operators import OperatorMaker
from trace_gen.perf_model import (
    AttentionGranularity,
    IntArray,
    LatencySource,
    OperatorTable,
    PerfModelOptions,
    make_perf_model,
)
from trace_gen.precision import Precision
from trace_gen.trace import CommType, Trace
from trace_gen.vocabulary import FUSED, SPLIT, Vocabulary
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

V3, LITE, V2 = "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V2"
SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
BEFORE = ["layernorm", "qkv_a_proj", "q_a_norm", "q_b_proj", "kv_a_norm", "rotary_emb"]
MIXED = [*BEFORE, "kv_b_proj", "q_absorb", "attention", "latent_attention", "v_up_proj", "o_proj"]
ABSORBED_ONLY = {"q_absorb", "latent_attention", "v_up_proj"}
EXPANDED_ONLY = {"kv_b_proj", "attention"}


class Counting:
    """Times nothing; says what it is asked for."""

    latency_source: LatencySource = "model"

    def __init__(self, vocabulary: Vocabulary, attention_granularity: AttentionGranularity) -> None:
        self.vocabulary, self.attention_granularity = vocabulary, attention_granularity
        self.tables: list[OperatorTable] = []

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        self.tables.append(operators)
        return np.ones_like(operators.flops)


def traced(name: str, *shapes: BatchShape, tensor: int = 1, mla: str = "auto", pipeline: int = 1) -> Trace:
    architecture = load_model(name, mla=absorption_named(mla))
    return make_generator(architecture, tensor, pipeline, hardware="H200").generate(list(shapes))


def block(trace: Trace, layer: int = 0) -> list[str]:
    """Names of a layer's operators up to the output projection."""
    names = [trace.name(row) for row in np.flatnonzero(trace.layer == layer)]
    return names[: names.index("o_proj") + 1]


def only(trace: Trace, name: str) -> int:
    return rows_named(trace, name)[0]


def sides(trace: Trace, name: str) -> tuple[int, int, int]:
    row = only(trace, name)
    return int(trace.input_bytes[row]), int(trace.output_bytes[row]), int(trace.weight_bytes[row])


def work(trace: Trace, name: str, step: int = 0) -> tuple[int, int]:
    row = only(trace, name)
    return int(trace.flops[step, row]), int(trace.mem_bytes[step, row])


def test_operators_of_a_batch_of_prompts_and_decodes() -> None:
    assert block(traced(V3, batch([7, 1], [20, 90]))) == MIXED
    assert block(traced(V3, batch([7, 5], [20, 90]))) == [name for name in MIXED if name not in ABSORBED_ONLY]
    assert block(traced(V3, batch([1, 1], [20, 90]))) == [name for name in MIXED if name not in EXPANDED_ONLY]
    lite = ["layernorm", "q_b_proj", "qkv_a_proj", *MIXED[4:]]
    assert block(traced(LITE, batch([7, 1], [20, 90]))) == lite, "queries are not compressed"


def test_sizes_on_one_of_8_ranks() -> None:
    """DeepSeek-V2 in 16 bits: 16 of 128 heads; 7 tokens of a prompt and 2 of decodes."""
    trace = traced(V2, batch([7, 1, 1], [20, 90, 40]), tensor=8)
    assert {name: sides(trace, name) for name in MIXED[1:]} == {
        "qkv_a_proj": (9 * 5120 * 2, 9 * (1536 + 576) * 2, 5120 * (1536 + 576) * 2),
        "q_a_norm": (9 * 1536 * 2, 9 * 1536 * 2, 1536 * 2),
        "q_b_proj": (9 * 1536 * 2, 9 * 16 * 192 * 2, 1536 * 16 * 192 * 2),
        "kv_a_norm": (9 * 512 * 2, 9 * 512 * 2, 512 * 2),
        "rotary_emb": (9 * 17 * 64 * 2, 9 * 17 * 64 * 2, 0),
        "kv_b_proj": (7 * 512 * 2, 7 * 16 * 256 * 2, 512 * 16 * 256 * 2),
        "q_absorb": (2 * 16 * 128 * 2, 2 * 16 * 512 * 2, 16 * 128 * 512 * 2),
        "attention": (7 * 16 * (192 + 192 + 128) * 2, 7 * 16 * 128 * 2, 0),
        "latent_attention": (2 * (16 * 576 + 576) * 2, 2 * 16 * 512 * 2, 0),
        "v_up_proj": (2 * 16 * 512 * 2, 2 * 16 * 128 * 2, 16 * 512 * 128 * 2),
        "o_proj": (9 * 16 * 128 * 2, 9 * 5120 * 2, 16 * 128 * 5120 * 2),
    }
    reduced = only(trace, "o_proj")
    assert trace.comm_type[reduced] == CommType.ALLREDUCE and trace.comm_bytes[reduced] == 9 * 5120 * 2


def test_operations_and_bytes_by_hand() -> None:
    """The prompt: 7 queries on 20 tokens and themselves; the decodes attend to 91 and 41 tokens. 128 heads."""
    trace = traced(V2, batch([7, 1, 1], [20, 90, 40]))
    pairs = 7 * 20 + 7 * 8 // 2
    up = 2 * 512 * 128 * (128 + 128)
    expanded_bytes = 27 * 128 * (192 + 128) * 2 + 7 * (128 * (192 + 128) + 576) * 2 + 20 * (576 + 128 * 256) * 2
    assert work(trace, "attention") == (pairs * 128 * 2 * (192 + 128) + 20 * up, expanded_bytes)
    absorbed_bytes = (91 + 41) * 576 * 2 + 2 * (128 * (576 + 512) + 576) * 2
    assert work(trace, "latent_attention") == ((91 + 41) * 128 * 2 * (576 + 512), absorbed_bytes)
    assert work(trace, "kv_b_proj")[0] == 7 * up, "the prompt's own tokens"
    assert work(trace, "q_absorb") == (2 * 2 * 128 * 128 * 512, 128 * 128 * 512 * 2 + 2 * 128 * (128 + 512) * 2)
    assert work(trace, "v_up_proj")[0] == 2 * 2 * 128 * 128 * 512
    assert work(trace, "q_b_proj")[0] == 9 * 2 * 1536 * 128 * 192
    assert work(trace, "qkv_a_proj")[0] == 9 * 2 * 5120 * (1536 + 576)


@SETTINGS
@given(shape=batches, tensor=st.sampled_from([1, 2, 4, 16]))
def test_each_form_works_on_its_own_tokens(shape: BatchShape, tensor: int) -> None:
    """Whatever the batch: what a rank does with its heads, worked out pair by pair."""
    trace = traced(LITE, shape, tensor=tensor)
    heads = 16 // tensor
    found = {"attention": 0, "latent_attention": 0}
    tokens = {"kv_b_proj": 0, "q_absorb": 0}
    for new, context in zip(shape.new_tokens.tolist(), shape.context_tokens.tolist(), strict=True):
        pairs = sum(context + query for query in range(1, new + 1))
        if new == 1:
            found["latent_attention"] += pairs * heads * 2 * (576 + 512)
            tokens["q_absorb"] += 1
        else:
            found["attention"] += pairs * heads * 2 * (192 + 128) + context * 2 * 512 * heads * 256
            tokens["kv_b_proj"] += new
    for name, flops in found.items():
        rows = rows_named(trace, name)
        assert bool(rows) == bool(flops) and (not rows or work(trace, name)[0] == flops)
    for name, width in (("kv_b_proj", 512), ("q_absorb", heads * 128)):
        rows = rows_named(trace, name)
        assert (sides(trace, name)[0] if rows else 0) == tokens[name] * width * 2


def test_which_tokens_are_absorbed() -> None:
    """Decodes, decodes with drafts, and what looks like them: the last token of a prompt in a chunk of its own."""
    shape = batch([1, 4, 4, 1, 2], [9, 9, 9, 9, 0], [1, 4, 1, 0, 1])
    assert shape.decoding.tolist() == [True, True, False, True, False]
    assert shape.decode_tokens == 6
    trace = traced(V2, shape)
    assert [sides(trace, name)[0] // width for name, width in (("q_absorb", 2 * 128 * 128), ("kv_b_proj", 1024))] == [
        6,
        6,
    ]
    assert dummy_batch().decoding.tolist() == [True]


def test_one_form_for_all_tokens() -> None:
    shape = batch([7, 1], [20, 90])
    for mla, absent in (("absorb", EXPANDED_ONLY), ("expand", ABSORBED_ONLY)):
        trace = traced(V2, shape, mla=mla)
        assert block(trace) == [name for name in MIXED if name not in absent]
        assert trace.attributes["mla"] == mla
    assert "mla" not in traced(V2, shape).attributes
    with pytest.raises(UserError, match=r'--mla: "both" is unknown; give one of auto, absorb, expand'):
        absorption_named("both")


@pytest.mark.parametrize("mla", ["auto", "absorb", "expand"])
def test_steps_are_as_single_iterations(mla: str) -> None:
    """The context of expanded decodes is projected up again at every step."""
    several = traced(LITE, batch([1, 1], [50, 7], steps=4), mla=mla)
    for step in range(4):
        alone = traced(LITE, batch([1, 1], [50 + step, 7 + step]), mla=mla)
        assert np.array_equal(several.flops[step], alone.flops[0])
        assert np.array_equal(several.mem_bytes[step], alone.mem_bytes[0])
        assert np.array_equal(several.latency_ns[step], alone.latency_ns[0])


def test_absorbing_pays_for_decodes_and_expanding_for_prompts() -> None:
    """The reason for `auto`: fewer bytes where few tokens attend to many, fewer operations where many do."""
    decode, prompt = batch([1], [8000]), batch([4000], [0])
    for shape, better in ((decode, "absorb"), (prompt, "expand")):
        times = {
            mla: int(traced(V3, shape, mla=mla, tensor=8).latency_ns.sum()) for mla in ("auto", "absorb", "expand")
        }
        assert times["auto"] == times[better] < 0.85 * max(times.values())


@pytest.mark.parametrize("vocabulary", [FUSED, SPLIT], ids=lambda words: words.name)
def test_a_row_for_each_request(vocabulary: Vocabulary) -> None:
    """Each request has the row of its own form; what stands around them works on all requests of a form."""
    architecture, shape = load_model(LITE), batch([7, 1, 5, 1], [20, 90, 0, 3])
    perf_model = Counting(vocabulary, "request")
    generator = TraceGenerator(architecture, Mesh(), perf_model)
    trace = generator.generate([shape])
    plain = vocabulary.of("attention")
    rows = [row for row in np.flatnonzero(trace.layer == 0) if trace.name(row) in (plain, "latent_attention")]
    assert [(trace.name(row), int(trace.request[row])) for row in rows] == [
        (plain, 0),
        ("latent_attention", 1),
        (plain, 2),
        ("latent_attention", 3),
    ]
    whole = TraceGenerator(architecture, Mesh(), Counting(vocabulary, "batch")).generate([shape])
    for name in (plain, "latent_attention"):
        own = [row for row in rows if trace.name(row) == name]
        assert int(trace.flops[0, own].sum()) == work(whole, name)[0]
        assert int(trace.mem_bytes[0, own].sum()) == work(whole, name)[1]
        assert int(trace.input_bytes[own].sum()) == sides(whole, name)[0]
    assert sides(trace, "kv_b_proj")[0] == 12 * 512 * 2 and sides(trace, "q_absorb")[0] == 2 * 16 * 128 * 2
    facts = ModelFacts(architecture, Mesh(), Precision(), (shape,))
    assert run_rules(of_trace("latent", trace, facts)).violations == {}
    parts = {part.columns.size: part for part in perf_model.tables[0].attention}
    assert all(part.per_request and len(part.batch.new_tokens) == 4 for part in parts.values())


def test_a_row_for_the_batch_is_given_its_own_requests() -> None:
    perf_model = Counting(FUSED, "batch")
    TraceGenerator(load_model(LITE), Mesh(), perf_model).generate([batch([7, 1, 5, 1], [20, 90, 0, 3], first_id=8)])
    parts = perf_model.tables[0].attention
    assert [part.batch.request_ids.tolist() for part in parts] == [[8, 10], [9, 11]]
    assert [part.batch.context_tokens.tolist() for part in parts] == [[20, 0], [90, 3]]


@SETTINGS
@given(contexts=decodes)
def test_decodes_find_their_sizes_again(contexts: list[int]) -> None:
    """Between decode steps only contexts change: sizes and structure are the same arrays."""
    generator = make_generator(load_model(LITE))
    ones = [1] * len(contexts)
    first, second = (generator.generate([batch(ones, [c + more for c in contexts])]) for more in (0, 1))
    assert first.input_bytes is second.input_bytes and first.op is second.op


def test_a_batch_of_the_same_tokens_divided_otherwise() -> None:
    """Sizes go by how many tokens of a batch are absorbed, not only by how many there are."""
    generator = make_generator(load_model(LITE))
    for new, absorbed in (([7, 1, 1], 2), ([6, 2, 1], 1), ([7, 1, 1], 2), ([5, 3, 1], 1)):
        trace = generator.generate([batch(new)])
        assert sides(trace, "q_absorb")[0] == absorbed * 16 * 128 * 2
        assert sides(trace, "kv_b_proj")[0] == (9 - absorbed) * 512 * 2


def test_the_cache_holds_one_vector_on_every_rank() -> None:
    for tensor in (1, 8):
        memory = ModelMemory(load_model(V3), Mesh(tensor))
        (group,) = memory.kv_groups
        assert (group.kind, group.window, group.layers, group.bytes_per_token) == (
            *(KVKind.LATENT, None, (61,)),
            (61 * 576 * 2,),
        )
        assert memory.kv_bytes_per_token_all_ranks == tensor * 70_272
    narrow = ModelMemory(load_model(V3), Mesh(8), Precision(kv_bits=8))
    assert narrow.kv_bytes_per_token(0) == 61 * 576
    latent = load_model(V3).layers[0].attention
    assert latent.kv_share(8, Precision()).bytes_per_token == 2 * 72


def test_weights_of_a_rank() -> None:
    """`auto` holds the up-projection twice: as it is, and as 16-bit copies for absorption. Parameters count once."""
    halves = 16 * 512 * 256
    counts = {}
    for mla in ("auto", "absorb", "expand"):
        architecture = load_model(LITE, mla=absorption_named(mla))
        counts[mla] = ModelMemory(architecture, Mesh()).weight_bytes(0) // 2
        assert parameter_count(architecture) == 15_706_484_224
    assert counts == {
        "auto": 15_706_484_224 + 27 * halves,
        "absorb": 15_706_484_224,
        "expand": 15_706_484_224,
    }


def test_ranks_together_hold_the_heads() -> None:
    """What exceeds the model is what every rank has whole: norms, compressing projections, routers."""
    one, eight = (ModelMemory(load_model(V2, mla="expand"), Mesh(tensor)).weight_bytes(0) // 2 for tensor in (1, 8))
    whole = 60 * (2 * 5120 + 5120 * (1536 + 576) + 1536 + 512) + 59 * 5120 * 160 + 5120
    assert 8 * eight == one + 7 * whole


def test_heads_that_ranks_do_not_divide() -> None:
    (told,) = make_generator(load_model(LITE), 3).warnings
    assert told.endswith("has 16 attention heads, which 3 ranks do not divide: heads are split evenly")
    assert make_generator(load_model(LITE), 4).warnings == ()
    trace = traced(LITE, batch([4]), tensor=3)
    assert sides(trace, "o_proj")[0] == 4 * -(-16 * 128 // 3) * 2


def test_biases_of_the_compressing_projections() -> None:
    plain = LatentAttention(4, 32, 16, 8, 4, 8)
    biased = LatentAttention(4, 32, 16, 8, 4, 8, bias=True)
    make = OperatorMaker(2048, 2048, Precision(), FUSED)
    rows = []
    for attention in (plain, biased):
        operators = attention.operators(make, "layernorm")
        rows.append({row.name: row.parameters for row in operators})
    added = {name: rows[1][name] - rows[0][name] for name in rows[0] if rows[1][name] != rows[0][name]}
    assert added == {"qkv_a_proj": 32 + 16 + 4, "o_proj": 2048}


def test_what_cannot_be() -> None:
    architecture = load_model(LITE)
    with pytest.raises(UserError, match=r"--attention_placement: .*V2-Lite has latent attention, whose KV cache every"):
        make_generator(architecture, 2, attention_placement="requests")
    assert make_generator(architecture, 1, attention_placement="requests").by_request is False
    options = PerfModelOptions(architecture, load_hardware("H100"))
    with pytest.raises(UserError, match=r"V2-Lite has latent attention, which a table of this form cannot time"):
        make_perf_model("table_v0", options, perf_table=Path("any.csv"))


def test_only_latent_attention_is_absorbed() -> None:
    llama = load_model("meta-llama/Llama-3.1-8B")
    assert llama.absorption is None and absorbing(llama, "absorb") == llama
    assert load_model(LITE, mla="absorb").absorption == "absorb"


def test_times_of_absorbed_decodes() -> None:
    """16 heads of 128 are bound by memory, all 128 by arithmetic: 242 operations a byte, H100's ridge is at 295."""
    device = load_hardware("H100")
    shape = batch([1] * 64, [8000] * 64)
    for tensor, bound in ((8, "memory"), (1, "compute")):
        trace = make_generator(load_model(V3), tensor, hardware="H100").generate([shape])
        row = only(trace, "latent_attention")
        flops, moved = int(trace.flops[0, row]), int(trace.mem_bytes[0, row])
        decode, chunk = (device.efficiencies[f"attention_{kind}"] for kind in ("decode", "prefill"))
        memory = moved / (device.memory_bandwidth * decode.memory) * 1e9
        compute = flops / (device.peak_flops["fp16"] * chunk.compute) * 1e9
        tiles = 64 * decode.tile_ns / device.compute_units
        expected = (memory**2 + compute**2) ** 0.5 + tiles + decode.overhead_ns
        assert 0.97 * expected < int(trace.latency_ns[0, row]) < 1.001 * expected  # a kernel over chunks may be quicker
        assert (compute > memory) == (bound == "compute")


def test_drafts_share_a_tile() -> None:
    """Four tokens of each of 16 heads are one tile of 64 queries, not 16 tiles of four each."""
    shape = batch([4] * 8, [8000] * 8, [4] * 8)
    trace = make_generator(load_model(LITE), hardware="H100").generate([shape])
    single = make_generator(load_model(LITE), hardware="H100").generate([batch([1] * 8, [8000] * 8)])
    times = [int(one.latency_ns[0, only(one, "latent_attention")]) for one in (trace, single)]
    assert times[1] < times[0] < 8 * times[1]
