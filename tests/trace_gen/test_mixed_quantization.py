"""Matrices of one checkpoint that are stored differently: by module, by layer, in 4-bit floating point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trace_cases import LLAMA, MIXTRAL, batch, make_generator, rows_named

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model, shipped_models
from trace_gen.precision import Arithmetic, Precision
from trace_gen.quantization import QUANTIZED_ROLES, Quantization, Scheme, Stored
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

FLOAT = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
DYNAMIC = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
MXFP4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
LITE = "deepseek-ai/DeepSeek-V2-Lite"
SIZES = {"qkv_proj": (4096, 6144), "o_proj": (4096, 4096), "gate_up_proj": (4096, 28672), "down_proj": (14336, 4096)}
"""Inputs and outputs of Llama 3.1 8B's matrices, as engines store them."""


def group(weights: dict[str, Any], *targets: str, activations: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"weights": weights, "targets": list(targets), "input_activations": activations}


def quantized(folder: Path, name: str, config: dict[str, Any], **more: Any) -> ModelArchitecture:
    content = json.loads(shipped_models()[name].read_text()) | more | {"quantization_config": config}
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return load_model(str(path))


def tensors(*groups: dict[str, Any], ignore: tuple[str, ...] = ("lm_head",)) -> dict[str, Any]:
    named = {f"group_{index}": one for index, one in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": named, "ignore": list(ignore)}


def weights_of(architecture: ModelArchitecture, layer: int = 0) -> dict[str, int]:
    trace = make_generator(architecture, hardware="H200").generate([batch([3])])
    rows = [row for row in range(trace.rows) if trace.layer[row] == layer]
    return {trace.name(row): int(trace.weight_bytes[row]) for row in rows}


def plain(name: str) -> int:
    inputs, outputs = SIZES[name]
    return 2 * inputs * outputs


def eight(name: str) -> int:
    """One 32-bit scale."""
    inputs, outputs = SIZES[name]
    return inputs * outputs + 4


def four(name: str) -> int:
    """A 16-bit scale for 128 inputs."""
    inputs, outputs = SIZES[name]
    return inputs * outputs // 2 + inputs // 128 * outputs * 2


def test_attention_in_8_bits_and_the_rest_in_4(tmp_path: Path) -> None:
    """What names modules goes before what is said of all linear layers, wherever it stands."""
    for groups in (
        (group(FLOAT, "re:.*self_attn.*", activations=DYNAMIC), group(INT4, "Linear")),
        (group(INT4, "Linear"), group(FLOAT, "re:.*self_attn.*", activations=DYNAMIC)),
    ):
        architecture = quantized(tmp_path, LLAMA, tensors(*groups))
        found = weights_of(architecture)
        assert {name: found[name] for name in SIZES} == {
            name: (eight if name in ("qkv_proj", "o_proj") else four)(name) for name in SIZES
        }
        trace = make_generator(architecture, hardware="H100").generate([batch([4096])])
        times = {name: int(trace.latency_ns[0, rows_named(trace, name)[0]]) for name in SIZES}
        halves = make_generator(load_model(LLAMA), hardware="H100").generate([batch([4096])])
        for name in SIZES:
            ratio = times[name] / int(halves.latency_ns[0, rows_named(halves, name)[0]])
            assert (ratio < 0.95) == (name in ("qkv_proj", "o_proj")), "fp8 is faster, 4 bits are widened"
        (told,) = make_generator(architecture).warnings
        said = told.partition("compressed-tensors, ")[2].split(" and ")
        assert sorted(said) == [
            "matrices of 4 bits with their scales, multiplied in the activations' own width",
            "matrices of 8 bits with their scales, multiplied in FP8",
        ]


def test_layers_that_are_left_out(tmp_path: Path) -> None:
    """The first and the last layer stay in 16 bits: three runs of two kinds of layers."""
    left_out = ("lm_head", *(f"model.layers.{layer}.{part}" for layer in (0, 31) for part in ("self_attn", "mlp")))
    architecture = quantized(tmp_path, LLAMA, tensors(group(INT4, "Linear"), ignore=left_out))
    assert [run.repeats for run in architecture.runs] == [1, 30, 1]
    assert len(architecture.layer_kinds) == 2
    for layer in (0, 1, 30, 31):
        found = weights_of(architecture, layer)
        expected = plain if layer in (0, 31) else four
        assert {name: found[name] for name in SIZES} == {name: expected(name) for name in SIZES}
    held = 2 * sum(map(plain, SIZES)) + 30 * sum(map(four, SIZES))
    around = 2 * (2 * 128256 * 4096 + 65 * 4096)
    assert ModelMemory(architecture, Mesh()).weight_bytes(0) == held + around


def test_a_group_for_some_layers(tmp_path: Path) -> None:
    targets = [f"model.layers.{layer}.mlp.down_proj" for layer in (3, 5)]
    config = tensors(group(INT4, "Linear"), group(FLOAT, *targets))
    architecture = quantized(tmp_path, LLAMA, config)
    assert [weights_of(architecture, layer)["down_proj"] for layer in (2, 3, 4, 5)] == [
        four("down_proj"),
        eight("down_proj"),
        four("down_proj"),
        eight("down_proj"),
    ]


@pytest.mark.parametrize(("tensor", "pipeline", "expert"), [(1, 1, 1), (2, 2, 1), (4, 1, 4)])
def test_the_rules_of_traces_hold(tmp_path: Path, tensor: int, pipeline: int, expert: int) -> None:
    config = tensors(group(INT4, "Linear"), group(FLOAT, "re:.*self_attn.*"), ignore=("model.layers.0.self_attn",))
    architecture = quantized(tmp_path, MIXTRAL, config)
    shape = batch([7, 1], [0, 30])
    generator = make_generator(architecture, tensor, pipeline, expert=expert)
    facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
    assert run_rules(of_trace("quantised", generator.generate([shape]), facts)).violations == {}


@pytest.mark.parametrize(
    ("entry", "roles"),
    [
        ("re:.*self_attn.*", {"q_b_proj", "qkv_a_proj", "kv_b_proj", "o_proj"}),
        ("re:.*shared_experts.*", {"shared_gate_up_proj", "shared_down_proj"}),
        ("re:.*mlp\\.(gate|up|gate_up|down)_proj.*", set()),
        ("model.layers.*.mlp.experts", {"expert_gate_up_proj", "expert_down_proj"}),
        ("re:.*mlp.experts.*.(gate_proj|up_proj)$", {"expert_gate_up_proj"}),
        ("re:.*mlp.shared_experts.down_proj", {"shared_down_proj"}),
        ("down_proj", {"expert_down_proj", "shared_down_proj"}),
        ("model.layers.1.mlp.shared_experts", {"shared_gate_up_proj", "shared_down_proj"}),
        ("model.layers.2.mlp.shared_experts", set()),
        ("re:vision_tower.*", set()),
    ],
)
def test_modules_of_a_mixture(tmp_path: Path, entry: str, roles: set[str]) -> None:
    """Which matrices of layer 1, the first with experts, stay in 16 bits."""
    found = {
        left: weights_of(quantized(tmp_path, LITE, tensors(group(FLOAT, "Linear"), ignore=left)), 1)
        for left in ((), (entry,))
    }
    assert {name for name in found[()] if found[()][name] != found[(entry,)][name]} == roles


def test_an_mlp_that_is_left_out_is_that_of_dense_layers(tmp_path: Path) -> None:
    config = tensors(group(FLOAT, "Linear"), ignore=("re:.*mlp\\.(gate|up|gate_up|down)_proj.*",))
    architecture = quantized(tmp_path, LITE, config)
    assert weights_of(architecture, 0)["down_proj"] == 2 * 10944 * 2048
    assert weights_of(architecture, 1)["expert_down_proj"] == 64 * (1408 * 2048 + 4)


@pytest.mark.parametrize(
    ("weights", "size"),
    [
        (MXFP4, 4096 * 4096 // 2 + 4096 * 4096 // 32),
        (NVFP4, 4096 * 4096 // 2 + 4096 * 4096 // 16 + 4),
    ],
)
def test_floating_point_of_4_bits(tmp_path: Path, weights: dict[str, Any], size: int) -> None:
    """8 bits a block; nvfp4 has 32 more for the matrix. Activations are 16 bits."""
    architecture = quantized(tmp_path, LLAMA, tensors(group(weights, "Linear")))
    assert weights_of(architecture)["o_proj"] == size
    trace = make_generator(architecture, hardware="H100").generate([batch([8192])])
    half = make_generator(load_model(LLAMA), hardware="H100").generate([batch([8192])])
    row = rows_named(trace, "o_proj")[0]
    assert trace.latency_ns[0, row] == pytest.approx(half.latency_ns[0, row], rel=0.02)
    shape = batch([7, 1], [0, 30])
    generator = make_generator(architecture, 2)
    facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
    assert run_rules(of_trace("quantised", generator.generate([shape]), facts)).violations == {}


@pytest.mark.parametrize(
    ("activations", "arithmetic"),
    [(None, None), (DYNAMIC, Arithmetic.FP8), (DYNAMIC | {"type": "int"}, Arithmetic.INT8)],
)
def test_weights_of_4_bits_meet_activations_of_8(
    tmp_path: Path, activations: dict[str, Any] | None, arithmetic: Arithmetic | None
) -> None:
    """Weights, activations and KV cache each have a width of their own."""
    config = tensors(group(INT4, "Linear", activations=activations))
    architecture = quantized(tmp_path, LLAMA, config | {"kv_cache_scheme": {"num_bits": 8}})
    schemes = dict(architecture.layers[0].schemes)
    assert schemes["o_proj"] == Scheme(4, (128, 1), arithmetic=arithmetic)
    assert architecture.quantization is not None and architecture.quantization.kv_bits == 8


def test_mxfp4_is_of_experts_alone(tmp_path: Path) -> None:
    model = load_model("openai/gpt-oss-20b")
    assert {role for role, _ in model.layers[0].schemes} == {"expert_gate_up_proj", "expert_down_proj"}
    (scheme,) = {scheme for _, scheme in model.layers[0].schemes}
    assert scheme == Scheme(4, (32, 1), scale_bits=8, whole_blocks=True)
    assert "lm_head" not in dict(model.end_schemes)
    with pytest.raises(UserError, match=r"quantization_config\.bits: unknown field"):
        quantized(tmp_path, "openai/gpt-oss-20b", {"quant_method": "mxfp4", "bits": 4})


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        tensors(group(MXFP4 | {"group_size": 16}, "Linear")),
        r"group_size: groups of 16 in 4-bit floating .*expected 32$",
    ),
    (
        tensors(group(NVFP4 | {"group_size": 32}, "Linear")),
        r"group_size: groups of 32 in 4-bit floating .*expected 16$",
    ),
    (tensors(group(MXFP4 | {"strategy": "channel"}, "Linear")), r'weights\.strategy: "channel" is unknown'),
    (tensors(group(INT4, "Linear", "Conv")), r"group_0\.targets: is not modelled; expected \[\"Linear\"\], or names"),
    (tensors(group(INT4)), r"group_0\.targets: is not modelled"),
    (tensors(group(INT4, "re:" + "(q|k|v|o)" * 4 + "_proj")), r"group_0\.targets: .* is not a module that is known"),
    (tensors(group(INT4, f"re:.*({'|' * 100_000})_proj")), r"group_0\.targets: .* is not a module that is known"),
    (tensors(group(INT4, "re:.*(q|w)_proj")), r"group_0\.targets: 'w_proj' is not a module that is known"),
    (
        tensors(group(INT4, "Linear"), group(FLOAT, "q_proj")),
        r"q_proj, k_proj, v_proj are stored as one: leave out all",
    ),
    (
        tensors(group(INT4, "Linear"), group(FLOAT, "model.layers.9.mlp.up_proj")),
        r"gate_proj, up_proj are stored as one in layer 9: leave out all of them or none$",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_is_not_modelled_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        quantized(tmp_path, LLAMA, config)


def test_a_later_entry_overrides() -> None:
    one, other = Scheme(4), Scheme(8)
    roles = frozenset({"o_proj", "fc1"})
    stored = (
        Stored(roles, one),
        Stored(frozenset({"fc1"}), other, frozenset({2})),
        Stored(roles, None, frozenset({3})),
    )
    quantization = Quantization("any", stored)
    assert quantization.schemes() == quantization.schemes(0) == (("fc1", one), ("o_proj", one))
    assert quantization.schemes(2) == (("fc1", other), ("o_proj", one))
    assert quantization.schemes(3) == ()
    assert quantization.bits == "4 and 8" and Quantization("any", ()).bits == "16"
    assert Quantization("any", ()).described == "any, no matrices"


def test_routers_and_heads_are_never_among_all() -> None:
    assert not QUANTIZED_ROLES & {"router", "lm_head", "embedding", "q_absorb", "v_up_proj"}
