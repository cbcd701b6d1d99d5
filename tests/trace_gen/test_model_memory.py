"""Bytes of weights and KV cache a rank: arithmetic by hand, and what must hold however a model is spread."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, LLAMA, model, only_layer

from foundation.errors import UserError
from trace_gen.architecture import Layer
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.precision import Precision

POWERS = st.sampled_from([1, 2, 4, 8])
EXACT = settings(max_examples=40, deadline=None, derandomize=True)


def layout(name: str, tensor: int = 1, pipeline: int = 1, **options: object) -> ModelMemory:
    return ModelMemory(model(name), Mesh(tensor, pipeline), **options)  # type: ignore[arg-type]


def test_llama_31_8b() -> None:
    whole = layout(LLAMA)
    assert whole.weight_bytes(0) == 16_060_522_496
    assert whole.kv_bytes_per_token(0) == 2 * 32 * 8 * 128 * 2 == 131_072


def test_gpt3_175b() -> None:
    whole = layout("gpt3-175b")
    assert whole.weight_bytes(0) == 2 * 174_604_259_328
    assert whole.kv_bytes_per_token(0) == 2 * 96 * 12288 * 2


def test_kv_heads_are_copied_beyond_their_number() -> None:
    for tensor, copies in ((1, 1), (8, 1), (16, 2), (32, 4)):
        assert layout(LLAMA, tensor).kv_bytes_per_token_all_ranks == copies * 131_072
    by_request = layout(LLAMA, 32, requests_on_ranks=True)
    assert by_request.kv_bytes_per_token_all_ranks == 131_072


def test_beyond_the_query_heads_heads_are_split_evenly() -> None:
    assert only_layer(model("gpt3-175b"))[0].share(2048).kv == 12288 // 2048
    assert only_layer(model(LLAMA))[0].share(64).kv == 64


def test_bits() -> None:
    precision = Precision(weight_bits=4, activation_bits=16, kv_bits=8)
    packed = layout(LLAMA, precision=precision)
    assert packed.weight_bytes(0) == 16_060_522_496 // 4
    assert packed.kv_bytes_per_token(0) == 131_072 // 2
    with pytest.raises(UserError, match="weight_bits is 5"):
        Precision(weight_bits=5)


def test_tied_embeddings_are_stored_where_they_are_used() -> None:
    name = "gpt2"
    one, two = layout(name), layout(name, pipeline=2)
    table = model(name).vocab_size * model(name).hidden_size * 2
    assert one.weight_bytes(0) == 2 * parameter_count(model(name))
    assert two.weight_bytes(0) + two.weight_bytes(1) == one.weight_bytes(0) + table


@EXACT
@given(name=st.sampled_from([LLAMA, "gpt3-13b", "huggyllama/llama-7b"]), tensor=POWERS, pipeline=POWERS)
def test_ranks_together_hold_the_model(name: str, tensor: int, pipeline: int) -> None:
    """What exceeds the model's own parameters is what every rank needs whole, and a second tied table."""
    shape, spread = model(name), layout(name, tensor, pipeline)
    total = tensor * sum(spread.weight_bytes(stage) for stage in range(pipeline)) // 2
    norms = (2 * shape.num_layers + 1) * shape.norm_parameters
    attention, mlp = only_layer(shape)
    assert isinstance(mlp, DenseMlp)
    whole = norms + shape.num_layers * shape.hidden_size * (attention.output_bias + mlp.bias)
    whole += shape.position_rows * shape.hidden_size
    padding = (-(-shape.vocab_size // tensor) * tensor - shape.vocab_size) * shape.hidden_size
    tables = 1 if shape.tie_word_embeddings and pipeline == 1 else 2
    second = shape.vocab_size * shape.hidden_size if shape.tie_word_embeddings and pipeline > 1 else 0
    assert total == parameter_count(shape) + (tensor - 1) * whole + tables * padding + second


def kept_elements(layer: Layer) -> int:
    assert isinstance(layer.attention, GroupedAttention)
    return layer.attention.kv_heads * layer.attention.head_dim


@EXACT
@given(name=st.sampled_from(FAMILIES), tensor=st.integers(1, 70), pipeline=st.integers(1, 12))
def test_no_rank_holds_less_than_its_share(name: str, tensor: int, pipeline: int) -> None:
    spread, shape = layout(name, tensor, pipeline), model(name)
    ranks = tensor * pipeline
    assert spread.max_rank_weight_bytes >= 2 * parameter_count(shape) // ranks
    assert spread.kv_bytes_per_token_all_ranks >= 4 * sum(kept_elements(layer) for layer in shape.layers)


@EXACT
@given(layers=st.integers(1, 200), pipeline=st.integers(1, 40))
def test_stages_take_every_layer_once_and_alike(layers: int, pipeline: int) -> None:
    mesh = Mesh(3, pipeline)
    if pipeline > layers:
        with pytest.raises(UserError, match="pipeline stages for a model"):
            mesh.stage_layers(layers)
        return
    stages = mesh.stage_layers(layers)
    assert [layer for stage in stages for layer in stage] == list(range(layers))
    lengths = [len(stage) for stage in stages]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
    assert [rank for stage in range(pipeline) for rank in mesh.stage_ranks(stage)] == list(range(3 * pipeline))


def test_parallelism_of_nothing() -> None:
    with pytest.raises(UserError, match="tensor parallelism is 0"):
        Mesh(0, 1)


@EXACT
@given(total=st.integers(0, 10**12), tensor=POWERS, pipeline=POWERS)
def test_transfers_are_shared_by_all_ranks(total: int, tensor: int, pipeline: int) -> None:
    spread = layout(LLAMA, tensor, pipeline)
    shares = tensor * sum(spread.transfer_share(total, stage) for stage in range(pipeline))
    assert total <= shares < total + tensor * pipeline
