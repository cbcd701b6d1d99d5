"""Bytes of weights and KV cache a rank: arithmetic by hand, and what must hold however a model is spread."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, LLAMA, model

from foundation.errors import UserError
from trace_gen.memory_layout import MemoryLayout
from trace_gen.parallelism import Parallelism
from trace_gen.sharding import Precision, shard, shard_warnings

POWERS = st.sampled_from([1, 2, 4, 8])
EXACT = settings(max_examples=40, deadline=None, derandomize=True)


def layout(name: str, tensor: int = 1, pipeline: int = 1, **options: object) -> MemoryLayout:
    return MemoryLayout(model(name), Parallelism(tensor, pipeline), **options)  # type: ignore[arg-type]


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
    assert shard(model("gpt3-175b"), 2048).kv == 12288 // 2048
    assert shard(model(LLAMA), 64).kv == 64
    assert "split evenly" in shard_warnings(model("gpt3-175b"), 2048)[0]
    assert shard_warnings(model("gpt2"), 8)
    assert not shard_warnings(model(LLAMA), 16)


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
    assert one.weight_bytes(0) == 2 * model(name).parameters
    assert two.weight_bytes(0) + two.weight_bytes(1) == one.weight_bytes(0) + table


@EXACT
@given(name=st.sampled_from([LLAMA, "gpt3-13b", "huggyllama/llama-7b"]), tensor=POWERS, pipeline=POWERS)
def test_ranks_together_hold_the_model(name: str, tensor: int, pipeline: int) -> None:
    """What exceeds the model's own parameters is what every rank needs whole, and a second tied table."""
    shape, spread = model(name), layout(name, tensor, pipeline)
    total = tensor * sum(spread.weight_bytes(stage) for stage in range(pipeline)) // 2
    norms = (2 * shape.num_layers + 1) * shape.norm_parameters
    whole = norms + shape.num_layers * shape.hidden_size * (shape.output_bias + shape.mlp_bias)
    whole += shape.position_rows * shape.hidden_size
    padding = (shard(shape, tensor).vocab * tensor - shape.vocab_size) * shape.hidden_size
    tables = 1 if shape.tie_word_embeddings and pipeline == 1 else 2
    second = shape.vocab_size * shape.hidden_size if shape.tie_word_embeddings and pipeline > 1 else 0
    assert total == shape.parameters + (tensor - 1) * whole + tables * padding + second


@EXACT
@given(name=st.sampled_from(FAMILIES), tensor=st.integers(1, 70), pipeline=st.integers(1, 12))
def test_no_rank_holds_less_than_its_share(name: str, tensor: int, pipeline: int) -> None:
    spread, shape = layout(name, tensor, pipeline), model(name)
    ranks = tensor * pipeline
    assert spread.max_rank_weight_bytes >= 2 * shape.parameters // ranks
    assert spread.kv_bytes_per_token_all_ranks >= 4 * shape.num_layers * shape.kv_size
    tightest = spread.tightest_stage(10**13)
    assert spread.kv_tokens(tightest, 10**13) == min(spread.kv_tokens(stage, 10**13) for stage in range(pipeline))


@EXACT
@given(layers=st.integers(1, 200), pipeline=st.integers(1, 40))
def test_stages_take_every_layer_once_and_alike(layers: int, pipeline: int) -> None:
    parallelism = Parallelism(3, pipeline)
    if pipeline > layers:
        with pytest.raises(UserError, match="pipeline stages for a model"):
            parallelism.stage_layers(layers)
        return
    stages = parallelism.stage_layers(layers)
    assert [layer for stage in stages for layer in stage] == list(range(layers))
    lengths = [len(stage) for stage in stages]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
    assert [rank for stage in range(pipeline) for rank in parallelism.stage_ranks(stage)] == list(range(3 * pipeline))


def test_parallelism_of_nothing() -> None:
    with pytest.raises(UserError, match="tensor parallelism is 0"):
        Parallelism(0, 1)


@EXACT
@given(total=st.integers(0, 10**12), tensor=POWERS, pipeline=POWERS)
def test_transfers_are_shared_by_all_ranks(total: int, tensor: int, pipeline: int) -> None:
    spread = layout(LLAMA, tensor, pipeline)
    shares = tensor * sum(spread.transfer_share(total, stage) for stage in range(pipeline))
    assert total <= shares < total + tensor * pipeline
