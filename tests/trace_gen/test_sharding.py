"""What one rank holds, and what a user is told of it: worked out by hand, boundaries from both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trace_cases import LLAMA, MIXTRAL, make_generator, model, only_layer, with_layers

from foundation.errors import UserError
from trace_gen.architecture import Layer
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.precision import Precision

NAME = "meta-llama/Llama-3.1-8B"
"""32 heads of 128, 8 KV heads."""


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tensor", "said"),
    [
        (32, 8, 1, ""),
        (32, 8, 2, ""),
        (32, 8, 8, ""),
        (32, 8, 16, ""),
        (32, 8, 32, ""),
        (12, 12, 4, ""),
        (24, 6, 12, ""),
        (32, 8, 3, "32 attention heads, which 3 ranks do not divide: heads are split evenly"),
        (32, 8, 64, "32 attention heads, which 64 ranks do not divide: heads are split evenly"),
        (24, 6, 8, "6 KV heads, which do not divide 8 ranks: each rank holds a whole one"),
        (24, 6, 4, "6 KV heads, which 4 ranks do not divide: they are split evenly"),
        (12, 4, 3, "4 KV heads, which 3 ranks do not divide: they are split evenly"),
    ],
)
def test_a_warning_where_ranks_do_not_divide_heads_and_nowhere_else(
    heads: int, kv_heads: int, tensor: int, said: str
) -> None:
    attention, mlp = only_layer(model(LLAMA))
    layer = Layer(replace(attention, heads=heads, kv_heads=kv_heads), mlp)
    architecture = with_layers(model(LLAMA), *[layer] * 2)
    assert make_generator(architecture, tensor).warnings == ((f"{NAME} has {said}",) if said else ())


@pytest.mark.parametrize(
    ("tensor", "query", "kv"),
    [(1, 4096, 1024), (8, 512, 128), (16, 256, 128), (32, 128, 128), (33, 125, 125), (64, 64, 64), (3, 1366, 342)],
)
def test_heads_of_a_rank(tensor: int, query: int, kv: int) -> None:
    part = only_layer(model(LLAMA))[0].share(tensor)
    assert (part.query, part.kv, part.qkv) == (query, kv, query + 2 * kv)


def weights(name: str, operator: str, **mesh: int) -> int:
    """Return the parameters of an operator of the first layer on one rank."""
    operators = model_operators(model(name), Mesh(**mesh))
    return next(row.parameters for row in operators if row.name == operator)


def test_widths_of_a_rank() -> None:
    for tensor in (1, 3, 8, 64):
        inner, vocab = -(-14336 // tensor), -(-128256 // tensor)
        assert weights(LLAMA, "gate_up_proj", tensor=tensor) == 4096 * 2 * inner
        assert weights(LLAMA, "down_proj", tensor=tensor) == 4096 * inner
        assert weights(LLAMA, "lm_head", tensor=tensor) == weights(LLAMA, "embedding", tensor=tensor) == 4096 * vocab


def test_experts_of_a_rank() -> None:
    assert weights(MIXTRAL, "expert_down_proj", tensor=4) == 8 * 4096 * 14336 // 4
    assert weights(MIXTRAL, "expert_gate_up_proj", tensor=4, expert=4) == 2 * 4096 * 2 * 14336
    assert weights(MIXTRAL, "expert_down_proj", tensor=2, data=2, expert=4) == 2 * 4096 * 14336
    shared = "Qwen/Qwen1.5-MoE-A2.7B"
    for spread in ({"tensor": 4}, {"tensor": 4, "expert": 4}):
        assert weights(shared, "shared_down_proj", **spread) == 2048 * 5632 // 4
        assert weights(shared, "router", **spread) == 2048 * 61


def test_ranks_that_can_and_cannot_hold_whole_experts() -> None:
    for ranks in (1, 2, 4, 8):
        model_operators(model(MIXTRAL), Mesh(ranks, expert=ranks))
    with pytest.raises(UserError, match=r"^--ep_size: .*Llama-3\.1-8B has no experts to spread; leave it out$"):
        model_operators(model(LLAMA), Mesh(2, expert=2))
    with pytest.raises(UserError) as error:
        model_operators(model(MIXTRAL), Mesh(16, expert=16))
    assert str(error.value) == (
        "--ep_size: mistralai/Mixtral-8x7B-v0.1 has 8 experts for 16 ranks, so that some would have none; "
        "spread them over at most 8 NPUs of a stage, or give 1"
    )


def test_bits_of_a_number() -> None:
    for bits in (4, 8, 16, 32):
        precision = Precision(bits, bits, bits)
        assert precision.weight_bytes(16) == precision.activation_bytes(16) == precision.kv_bytes(16) == 2 * bits
    assert Precision(weight_bits=4).weight_bytes(3) == 2, "rounded up to whole bytes"
    assert Precision(activation_bits=4).activation_bytes(1) == 1
    assert Precision(kv_bits=4).kv_bytes(5) == 3
    for field in ("weight_bits", "activation_bits", "kv_bits"):
        with pytest.raises(UserError, match=rf"^{field} is 5; use 4, 8, 16 or 32 bits a number$"):
            Precision(**{field: 5})
