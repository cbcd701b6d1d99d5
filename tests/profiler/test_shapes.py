"""What kernels a model's operators are: by hand for one model, and every shipped one has them or is refused."""

from __future__ import annotations

import pytest

from foundation.errors import UserError
from profiler.bench import kernels
from profiler.grids import Grids
from profiler.plan import plan, works
from profiler.shapes import rank_kernels
from profiler.work import Kernel
from trace_gen.models import load_model, shipped_models
from trace_gen.precision import Precision
from trace_gen.vocabulary import FUSED, SPLIT


def test_llama_on_two_ranks() -> None:
    found = rank_kernels(load_model("meta-llama/Llama-3.1-8B"), 2, Precision(), FUSED)
    assert found == {
        "embedding": Kernel("embedding", (64128, 4096, 0)),
        "layernorm": Kernel("rms_norm", (4096,)),
        "qkv_proj": Kernel("linear", (4096, 3072, 0)),
        "rotary_emb": Kernel("rotary", (16, 4, 128, 128)),
        "attention": Kernel("attention", (16, 4, 128)),
        "o_proj": Kernel("linear", (2048, 4096, 0)),
        "gate_up_proj": Kernel("linear", (4096, 14336, 0)),
        "act_fn": Kernel("gated_activation", (7168,)),
        "down_proj": Kernel("linear", (7168, 4096, 0)),
        "final_layernorm": Kernel("rms_norm", (4096,)),
        "lm_head": Kernel("linear", (4096, 64128, 0)),
        "sampler": Kernel("sampler", (128256,)),
    }


@pytest.mark.parametrize("bits", [16, 32])
def test_shapes_do_not_depend_on_the_width_of_numbers(bits: int) -> None:
    model = load_model("openai-community/gpt2")
    assert rank_kernels(model, 1, Precision(bits, bits, bits), SPLIT)["q_proj"] == Kernel("linear", (768, 768, 1))
    assert rank_kernels(model, 1, Precision(bits, bits, bits), FUSED)["act_fn"] == Kernel("activation", (3072,))


def test_experts_are_whole() -> None:
    model = load_model("Qwen/Qwen3-30B-A3B-Instruct-2507")
    for tensor in (1, 2):
        found = rank_kernels(model, tensor, Precision(), FUSED)
        assert found["moe"] == Kernel("experts", (2048, 768, 128, 8, 128))
        assert not {"router", "expert_act_fn", "gate_up_proj"} & set(found)


def test_every_shipped_model_is_measured_or_refused_in_one_line() -> None:
    grids = Grids(max_tokens=4, max_sequences=2, max_context=16)
    measured, refused = 0, 0
    known = set(kernels)
    for name in shipped_models():
        try:
            tables = plan(load_model(name), (1,), grids, Precision(), "X")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and "--model" in str(error)
            continue
        measured += 1
        assert {work.kernel.name for work in works(tables)} <= known
        assert all(min(work.kernel.shape) >= 0 and len(work.sizes) in (1, 2, 4) for work in works(tables))
    assert measured > 60 and refused > 5


def test_degrees_that_do_not_share_heads() -> None:
    with pytest.raises(UserError, match=r"--tensor.*32 heads and 8 KV heads.*divide"):
        rank_kernels(load_model("meta-llama/Llama-3.1-8B"), 3, Precision(), FUSED)
