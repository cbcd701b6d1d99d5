"""Mixtures of experts and latent attention against published figures: parameters, those that are active, bytes, FLOPs.

Each row says what is published, and where. The figures are also worked out here, from the dimensions in the models'
papers and cards alone, which the parts of trace_gen must meet to the unit; what is published is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from trace_cases import batch, make_generator

from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import load_model

GIB = 2**30


@dataclass(frozen=True)
class Mixture:
    """Dimensions of a decoder, by the names of its paper or card.

    `attention`: parameters of one layer's attention; `dense`: layers with an MLP of `dense_width`; `shared`: width of
    the shared experts; `router`: parameters of a router beside its matrix; `expert_bias`: of one expert's matrices;
    `norm_width`: 2 where a norm has biases; `head_bias`: of the LM head.
    """

    hidden: int
    layers: int
    vocab: int
    attention: int
    experts: int
    chosen: int
    width: int
    dense: int = 0
    dense_width: int = 0
    shared: int = 0
    router: int = 0
    expert_bias: int = 0
    norm_width: int = 1
    head_bias: int = 0

    @property
    def expert(self) -> int:
        return 3 * self.hidden * self.width + self.expert_bias

    @property
    def around(self) -> int:
        """Parameters that every token meets but for the experts it chooses: embedding and head not included."""
        sparse = self.layers - self.dense
        always = self.layers * (self.attention + 2 * self.norm_width * self.hidden) + self.norm_width * self.hidden
        always += self.dense * 3 * self.hidden * self.dense_width + self.head_bias
        return always + sparse * (self.hidden * self.experts + self.router + 3 * self.hidden * self.shared)

    @property
    def total(self) -> int:
        held = (self.layers - self.dense) * self.experts * self.expert
        return held + self.around + 2 * self.vocab * self.hidden

    def active(self, tables: int) -> int:
        """Parameters that one token meets, with so many of embedding and LM head counted."""
        met = (self.layers - self.dense) * self.chosen * self.expert
        return met + self.around + tables * self.vocab * self.hidden


def latent(hidden: int, heads: int, q_rank: int | None) -> int:
    """Parameters of DeepSeek's attention: ranks 512 + 64, heads of 128 + 64, values of 128 (V2's section 3.1.2)."""
    queries = hidden * heads * 192 if q_rank is None else hidden * q_rank + q_rank + q_rank * heads * 192
    return queries + hidden * 576 + 512 + 512 * heads * 256 + heads * 128 * hidden


def grouped(hidden: int, heads: int, kv_heads: int, width: int, bias: int = 0, own: int = 0) -> int:
    """Parameters of grouped attention; `bias`: 1 for query, key and value, 2 for the output's too; `own`: others."""
    qkv = (heads + 2 * kv_heads) * width
    return hidden * qkv + heads * width * hidden + bool(bias) * qkv + (bias == 2) * hidden + own


@dataclass(frozen=True)
class Published:
    """A model's figures. `total` and `active` in billions, each with how far they are rounded; `tables`: embedding
    tables that the active count includes; `kv`: numbers that the KV cache holds of a token; `quoted`: other exact ones.
    """

    name: str
    source: str
    shape: Mixture
    total: tuple[float, float]
    active: tuple[float, float]
    tables: int
    kv: int
    exact: int | None = None
    quoted: dict[str, float] = field(default_factory=dict)


DEEPSEEK_V3 = Mixture(7168, 61, 129280, latent(7168, 128, 1536), 256, 8, 2048, 3, 18432, 2048, router=256)
KIMI = Mixture(7168, 61, 163840, latent(7168, 64, 1536), 384, 8, 2048, 1, 18432, 2048, router=384)
GPT_OSS = {
    layers: Mixture(
        2880,
        layers,
        201088,
        grouped(2880, 64, 8, 64, bias=2, own=64),
        experts,
        4,
        2880,
        router=experts,
        expert_bias=2 * 2880 + 2880,
    )
    for layers, experts in ((24, 32), (36, 128))
}
LLAMA4_ATTENTION = grouped(5120, 40, 8, 128)
MODELS = (
    Published(
        "deepseek-ai/DeepSeek-V2",
        "DeepSeek-AI 2024, arXiv 2405.04434, abstract: 236B, 21B active; safetensors: 235,741,434,880",
        Mixture(5120, 60, 102400, latent(5120, 128, 1536), 160, 6, 1536, 1, 12288, 2 * 1536),
        total=(236, 0.5),
        active=(21, 0.5),
        tables=1,
        kv=60 * 576,
        exact=235_741_434_880,
    ),
    Published(
        "deepseek-ai/DeepSeek-V2-Lite",
        "arXiv 2405.04434, appendix B: 15.7B, 2.4B active; safetensors: 15,706,484,224",
        Mixture(2048, 27, 102400, latent(2048, 16, None), 64, 6, 1408, 1, 10944, 2 * 1408),
        total=(15.7, 0.05),
        active=(2.4, 0.06),
        tables=1,
        kv=27 * 576,
        exact=15_706_484_224,
    ),
    Published(
        "deepseek-ai/DeepSeek-V3",
        "DeepSeek-AI 2024, arXiv 2412.19437, abstract: 671B, 37B active, the MTP module (14B) not counted",
        DEEPSEEK_V3,
        total=(671, 0.5),
        active=(37, 0.7),
        tables=1,
        kv=61 * 576,
        exact=671_026_419_200,
    ),
    Published(
        "deepseek-ai/DeepSeek-R1",
        "DeepSeek-AI 2025, model card: built on DeepSeek-V3-Base, 671B, 37B active",
        DEEPSEEK_V3,
        total=(671, 0.5),
        active=(37, 0.7),
        tables=1,
        kv=61 * 576,
        exact=671_026_419_200,
    ),
    Published(
        "moonshotai/Kimi-K2-Instruct",
        "Moonshot AI 2025, model card: 1T, 32B activated",
        KIMI,
        total=(1000, 50),
        active=(32, 0.5),
        tables=1,
        kv=61 * 576,
    ),
    Published(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "Meta 2025, model card: 109B, 17B activated; the vision encoder (0.9B) is not simulated",
        Mixture(5120, 48, 202048, LLAMA4_ATTENTION, 16, 1, 8192, shared=8192),
        total=(109 - 0.9, 0.5),
        active=(17, 0.5),
        tables=2,
        kv=48 * 2 * 8 * 128,
    ),
    Published(
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
        "Meta 2025, model card: 400B, 17B activated; the vision encoder (0.9B) is not simulated",
        Mixture(5120, 48, 202048, LLAMA4_ATTENTION, 128, 1, 8192, 24, 16384, 8192),
        total=(400, 1),
        active=(17, 0.5),
        tables=2,
        kv=48 * 2 * 8 * 128,
    ),
    Published(
        "openai/gpt-oss-20b",
        "OpenAI 2025, arXiv 2508.10925, table 1: 20.91B, 3.61B active (unembedding, not embedding), 12.8 GiB",
        GPT_OSS[24],
        total=(20.91, 0.005),
        active=(3.61, 0.005),
        tables=1,
        kv=24 * 2 * 8 * 64,
        quoted={"checkpoint GiB": 12.8},
    ),
    Published(
        "openai/gpt-oss-120b",
        "OpenAI 2025, arXiv 2508.10925, table 1: 116.83B, 5.13B active (unembedding, not embedding), 60.8 GiB",
        GPT_OSS[36],
        total=(116.83, 0.005),
        active=(5.13, 0.005),
        tables=1,
        kv=36 * 2 * 8 * 64,
        quoted={"checkpoint GiB": 60.8},
    ),
    Published(
        "microsoft/Phi-3.5-MoE-instruct",
        "Abdin et al. 2024, arXiv 2404.14219, section 2: 42B, 6.6B active; safetensors: 41,873,153,344",
        Mixture(4096, 32, 32064, grouped(4096, 32, 8, 128, bias=2), 16, 2, 6400, norm_width=2, head_bias=32064),
        total=(42, 0.5),
        active=(6.6, 0.1),
        tables=2,
        kv=32 * 2 * 8 * 128,
        exact=41_873_153_344,
    ),
    Published(
        "Qwen/Qwen1.5-MoE-A2.7B",
        "Qwen Team 2024, model card: 14.3B, 2.7B activated",
        Mixture(2048, 24, 151936, grouped(2048, 16, 16, 128, bias=1), 60, 4, 1408, shared=5632, router=2048),
        total=(14.3, 0.05),
        active=(2.7, 0.05),
        tables=2,
        kv=24 * 2 * 16 * 128,
    ),
    Published(
        "Qwen/Qwen2-57B-A14B",
        "Yang et al. 2024, arXiv 2407.10671, table 1: 57B, 14B activated",
        Mixture(3584, 28, 151936, grouped(3584, 28, 4, 128, bias=1), 64, 8, 2560, shared=20480, router=3584),
        total=(57, 0.5),
        active=(14, 0.5),
        tables=2,
        kv=28 * 2 * 4 * 128,
    ),
    Published(
        "Qwen/Qwen3-30B-A3B",
        "Yang et al. 2025, arXiv 2505.09388 and model card: 30.5B, 3.3B activated",
        Mixture(2048, 48, 151936, grouped(2048, 32, 4, 128, own=256), 128, 8, 768),
        total=(30.5, 0.05),
        active=(3.3, 0.06),
        tables=2,
        kv=48 * 2 * 4 * 128,
    ),
    Published(
        "Qwen/Qwen3-235B-A22B",
        "Yang et al. 2025, arXiv 2505.09388 and model card: 235B, 22B activated",
        Mixture(4096, 94, 151936, grouped(4096, 64, 4, 128, own=256), 128, 8, 1536),
        total=(235, 0.5),
        active=(22, 0.5),
        tables=2,
        kv=94 * 2 * 4 * 128,
    ),
    Published(
        "mistralai/Mixtral-8x7B-v0.1",
        "Jiang et al. 2024, arXiv 2401.04088, section 1: 47B, 13B active",
        Mixture(4096, 32, 32000, grouped(4096, 32, 8, 128), 8, 2, 14336),
        total=(47, 0.5),
        active=(13, 0.5),
        tables=2,
        kv=32 * 2 * 8 * 128,
    ),
    Published(
        "mistralai/Mixtral-8x22B-v0.1",
        "Mistral AI 2024, 'Cheaper, Better, Faster, Stronger': 141B, 39B active",
        Mixture(6144, 56, 32000, grouped(6144, 48, 8, 128), 8, 2, 16384),
        total=(141, 0.5),
        active=(39, 0.5),
        tables=2,
        kv=56 * 2 * 8 * 128,
    ),
)
by_name = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name.rpartition("/")[2])


@by_name
def test_parameters(model: Published) -> None:
    counted = parameter_count(load_model(model.name))
    assert counted == model.shape.total
    assert counted / 1e9 == pytest.approx(model.total[0], abs=model.total[1])
    assert model.exact in (None, counted)


@by_name
def test_active_parameters(model: Published) -> None:
    """What is published is what a token meets: worked out here, and found again in the operations of one token."""
    assert model.shape.active(model.tables) / 1e9 == pytest.approx(model.active[0], abs=model.active[1])


@by_name
def test_operations_of_a_token(model: Published) -> None:
    """Two for each number of the matrices that a token meets (Kaplan et al. 2020, section 2.1), attention apart."""
    shape = model.shape
    architecture = load_model(model.name)
    trace = make_generator(architecture, hardware="H200").generate([batch([1], [0])])
    gemms = [row for row in range(trace.rows) if trace.op_names[trace.op[row]].endswith(("proj", "absorb"))]
    gemms += [row for row in range(trace.rows) if trace.op_names[trace.op[row]] in ("router", "lm_head")]
    counted = sum(int(trace.flops[0, row]) for row in gemms)
    assert counted / (2 * shape.active(1)) == pytest.approx(1, abs=2e-3)


@by_name
def test_bytes_of_the_cache(model: Published) -> None:
    assert ModelMemory(load_model(model.name), Mesh()).kv_bytes_per_token(0) == 2 * model.kv


@by_name
def test_bytes_of_the_checkpoint(model: Published) -> None:
    """What the published files hold: mxfp4 of gpt-oss, fp8 in blocks of 128 x 128 of DeepSeek-V3 and Kimi-K2."""
    shape, stored = model.shape, ModelMemory(load_model(model.name, mla="expand"), Mesh()).weight_bytes(0)
    if model.name.startswith("openai"):
        numbers = (shape.layers * shape.experts) * 3 * shape.hidden * shape.width
        expected = numbers * 4 // 8 + numbers // 32 + 2 * (shape.total - numbers)
        assert stored == expected
        assert round(stored / GIB, 1) == model.quoted["checkpoint GiB"]
    elif load_model(model.name).quantization is not None:
        plain = 2 * shape.vocab * shape.hidden + (shape.layers - shape.dense) * shape.hidden * shape.experts
        assert stored == pytest.approx(shape.total - plain + 2 * plain + shape.total / 128**2 * 4, rel=1e-4)
    else:
        assert stored == 2 * shape.total


def test_what_deepseek_says_of_its_cache() -> None:
    """DeepSeek-V2, with 6 bits a number, holds 93.3 % less than DeepSeek 67B, which has 95 layers of 8 KV heads
    (arXiv 2405.04434, abstract and section 3.2.3)."""
    dense = 95 * 2 * 8 * 128
    numbers = ModelMemory(load_model("DeepSeek-V2"), Mesh()).kv_bytes_per_token(0) // 2
    assert 1 - numbers * 6 / (dense * 16) == pytest.approx(0.933, abs=0.001)
    assert ModelMemory(load_model("DeepSeek-V3"), Mesh()).kv_bytes_per_token(0) == 70_272
