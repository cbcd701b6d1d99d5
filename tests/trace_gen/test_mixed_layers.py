"""Models whose layers differ: a family of the test's own, and the fields of Qwen's configs that make layers differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import QWEN, batch, batches, make_generator, rows_named

from foundation.errors import UserError
from foundation.fields import Fields
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.attention.interface import KVKind
from trace_gen.batch_shape import BatchShape
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.models import load_model, shipped_models
from trace_gen.precision import Precision
from trace_gen.trace import Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

HIDDEN, HEADS, KV_HEADS, WIDTH, INNER, VOCAB, LAYERS, WINDOW = 64, 8, 4, 16, 96, 500, 10, 100
EXPERTS = Experts(8, 2, 48)
CONFIG = {
    "model_type": "patchwork",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": WIDTH,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
}
SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)


def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
    """Sliding and full attention take turns; the first three layers have an MLP, the others experts."""
    for index in range(count):
        window = WINDOW if index % 2 == 0 else None
        yield Layer(replace(attention, window=window), mlp if index < 3 else EXPERTS)


@pytest.fixture(scope="module")
def patchwork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelArchitecture]:
    """A model of a family that is registered for this module alone."""

    @families.register("patchwork")
    def read(name: str, fields: Fields) -> ModelArchitecture:
        return read_rotary_decoder(name, fields, arrange=arrange)

    path = tmp_path_factory.mktemp("patchwork") / "config.json"
    path.write_text(json.dumps(CONFIG))
    yield load_model(str(path))
    del families._choices["patchwork"]


def attention_parameters() -> int:
    return HIDDEN * (HEADS + 2 * KV_HEADS) * WIDTH + HEADS * WIDTH * HIDDEN


def mlp_parameters(layer: int) -> int:
    return 3 * HIDDEN * INNER if layer < 3 else HIDDEN * 8 + 8 * 3 * HIDDEN * 48


def pairs(new: int, context: int, window: int | None) -> int:
    return sum(min(context + query, window or context + query) for query in range(1, new + 1))


def matrix_flops(tokens: int, layer: int) -> int:
    inner = 3 * INNER if layer < 3 else 8 + 2 * 3 * 48
    return 2 * tokens * (attention_parameters() + HIDDEN * inner)


def total(trace: Trace, column: str, layer: int, *kinds: str) -> int:
    rows = [row for row in np.flatnonzero(trace.layer == layer).tolist() if not kinds or trace.name(row) in kinds]
    return int(getattr(trace, column).reshape(-1, trace.rows)[0, rows].sum())


def test_the_layers_are_runs(patchwork: ModelArchitecture) -> None:
    assert patchwork.num_layers == LAYERS == len(patchwork.layers)
    assert [run.repeats for run in patchwork.runs] == [1] * LAYERS
    assert len(patchwork.layer_kinds) == 4
    assert patchwork.mixtures == (EXPERTS,)
    alike = replace(patchwork, runs=(LayerRun(patchwork.layers[0], 5),))
    assert alike.layers == (patchwork.layers[0],) * 5 and alike.mixtures == ()


def test_parameters_are_summed_over_layers(patchwork: ModelArchitecture) -> None:
    layers = sum(attention_parameters() + mlp_parameters(layer) + 2 * HIDDEN for layer in range(LAYERS))
    assert parameter_count(patchwork) == layers + 2 * VOCAB * HIDDEN + HIDDEN


@SETTINGS
@given(shape=batches)
def test_every_layer_does_its_own_work(patchwork: ModelArchitecture, shape: BatchShape) -> None:
    trace = make_generator(patchwork).generate([shape])
    counted = set()
    for layer in range(LAYERS):
        window = WINDOW if layer % 2 == 0 else None
        requests = zip(shape.new_tokens.tolist(), shape.context_tokens.tolist(), strict=True)
        scored = 4 * HEADS * WIDTH * sum(pairs(new, context, window) for new, context in requests)
        assert total(trace, "flops", layer, "attention") == scored
        matrices = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "router")
        matrices += ("expert_gate_up_proj", "expert_down_proj")
        assert total(trace, "flops", layer, *matrices) == matrix_flops(shape.total_tokens, layer)
        assert total(trace, "weight_bytes", layer) == 2 * (attention_parameters() + mlp_parameters(layer) + 2 * HIDDEN)
        counted.add(tuple(trace.name(row) for row in np.flatnonzero(trace.layer == layer).tolist()))
    assert len(counted) == 2, "names differ where layers have experts"


@SETTINGS
@given(
    shape=batches,
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 3, 4]),
    expert=st.booleans(),
    placement=st.sampled_from(["heads", "requests"]),
)
def test_the_rules_of_traces_hold(
    patchwork: ModelArchitecture, shape: BatchShape, tensor: int, pipeline: int, expert: bool, placement: str
) -> None:
    spread = tensor if expert else 1
    generator = make_generator(patchwork, tensor, pipeline, expert=spread, attention_placement=placement)
    facts = ModelFacts(patchwork, generator.mesh, Precision(), (shape,))
    outcome = run_rules(of_trace("patchwork", generator.generate([shape]), facts))
    assert outcome.violations == {} and outcome.skipped == []


def test_a_row_of_the_wrong_kind_of_layer_is_found(patchwork: ModelArchitecture) -> None:
    shape = batch([7, 1], [0, 300])
    generator = make_generator(patchwork)
    trace = generator.generate([shape])
    swapped = trace.op.copy()
    dense, sparse = (np.flatnonzero(trace.layer == layer) for layer in (2, 3))
    swapped[dense[-1]] = trace.op[sparse[-1]]
    facts = ModelFacts(patchwork, Mesh(), Precision(), (shape,))
    found = run_rules(of_trace("patchwork", replace(trace, op=swapped), facts)).violations
    assert "operator 8 is expert_sum, but in layer 0 it is down_proj" in found["blocks-complete"][0].what


@pytest.mark.parametrize(("tensor", "bytes_a_token"), [(1, 256), (2, 128), (8, 64)])
def test_what_is_kept_comes_in_groups(patchwork: ModelArchitecture, tensor: int, bytes_a_token: int) -> None:
    """2 x KV elements of a rank x 2 bytes; 10 layers on 3 stages are 0-3, 4-6 and 7-9."""
    memory = ModelMemory(patchwork, Mesh(tensor, 3))
    sliding, full = memory.kv_groups
    assert (sliding.kind, sliding.window, sliding.layers) == (KVKind.SLIDING, WINDOW, (2, 2, 1))
    assert (full.kind, full.window, full.layers) == (KVKind.FULL, None, (2, 1, 2))
    for group in (sliding, full):
        assert group.bytes_per_token == tuple(layers * bytes_a_token for layers in group.layers)
    assert [memory.kv_bytes_per_token(stage) for stage in range(3)] == [4 * bytes_a_token, *[3 * bytes_a_token] * 2]
    assert memory.kv_bytes_per_token_all_ranks == tensor * 10 * bytes_a_token


def test_weights_follow_the_layers_of_a_stage(patchwork: ModelArchitecture) -> None:
    memory = ModelMemory(patchwork, Mesh(1, 3))
    layers = [attention_parameters() + mlp_parameters(layer) + 2 * HIDDEN for layer in range(LAYERS)]
    table = VOCAB * HIDDEN
    expected = [sum(layers[:4]) + table, sum(layers[4:7]), sum(layers[7:]) + HIDDEN + table]
    assert [memory.weight_bytes(stage) for stage in range(3)] == [2 * parameters for parameters in expected]
    assert memory.max_rank_weight_bytes == 2 * max(expected)


def load(folder: Path, base: str, **changes: object) -> ModelArchitecture:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(shipped_models()[base].read_text()) | changes))
    return load_model(str(path))


def test_layers_without_experts(tmp_path: Path) -> None:
    """Every second layer has experts, beginning with the second, but for layer 5."""
    mixed = load(tmp_path, QWEN, decoder_sparse_step=2, mlp_only_layers=[5], num_hidden_layers=8)
    assert [isinstance(layer.mlp, Experts) for layer in mixed.layers] == [index in (1, 3, 7) for index in range(8)]
    trace = make_generator(mixed).generate([batch([3])])
    assert len(rows_named(trace, "expert_down_proj")) == 3 and len(rows_named(trace, "down_proj")) == 5


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_layers_with_a_window(tmp_path: Path, model_type: str) -> None:
    config = {**CONFIG, "model_type": model_type, "sliding_window": 32, "use_sliding_window": True}
    path = tmp_path / "config.json"

    def windows(**more: object) -> list[int | None]:
        path.write_text(json.dumps({**config, **more}))
        attentions = [layer.attention for layer in load_model(str(path)).layers]
        return [attention.window for attention in attentions if isinstance(attention, GroupedAttention)]

    assert windows(max_window_layers=7) == [None] * 7 + [32] * 3
    assert windows(max_window_layers=0) == [32] * LAYERS
    assert windows() == [None] * LAYERS, "the default is 28 layers without"
    assert windows(use_sliding_window=False, max_window_layers=0) == [None] * LAYERS
    kinds = ["sliding_attention", "full_attention"] * 5
    assert windows(layer_types=kinds, max_window_layers=0) == [32, None] * 5
    for wrong, message in (
        (kinds[:9], "layer_types: lists 9 layers, but there are 10$"),
        ([*kinds[:9], "linear_attention"], "layer_types: lists something else than full_attention and sliding"),
    ):
        with pytest.raises(UserError, match=message):
            windows(layer_types=wrong)
    with pytest.raises(UserError, match="sliding_window is missing"):
        windows(sliding_window=None)
