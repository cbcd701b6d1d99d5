"""Quantised checkpoints: bytes of weights and scales by formula, rates by what is multiplied, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trace_cases import LLAMA, MIXTRAL, batch, make_generator, model, rows_named

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.hardware import load_hardware
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import load_model, shipped_models
from trace_gen.precision import Arithmetic, Precision
from trace_gen.trace import Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

LARGE = "meta-llama/Llama-3.1-70B"
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
FP8: dict[str, Any] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FLOAT = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
DYNAMIC = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}


def tensors(weights: dict[str, Any], activations: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


def quantized(folder: Path, name: str, config: dict[str, Any] | None) -> ModelArchitecture:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(shipped_models()[name].read_text()) | {"quantization_config": config}))
    return load_model(str(path))


def matrices(name: str) -> list[tuple[int, int]]:
    """The matrices of one layer as engines store them: inputs and outputs."""
    hidden, query, kv, inner = {LLAMA: (4096, 4096, 1024, 14336), LARGE: (8192, 8192, 1024, 28672)}[name]
    return [(hidden, query + 2 * kv), (query, hidden), (hidden, 2 * inner), (inner, hidden)]


def plain_bytes(name: str, layers: int) -> int:
    """Embedding, LM head and norms in 16 bits."""
    hidden = matrices(name)[0][0]
    return 2 * (2 * 128256 * hidden + (2 * layers + 1) * hidden)


def stored(name: str, layers: int, bits: float, scale: float, block: tuple[int, int], index: int = 0) -> int:
    """Bytes of a model whose scales (and zero points) take `scale` bytes a block of (inputs, outputs)."""
    total = 0.0
    for inputs, outputs in matrices(name):
        blocks = -(-inputs // block[0]) * -(-outputs // block[1])
        total += inputs * outputs * bits / 8 + blocks * scale + inputs * index
    return round(layers * total) + plain_bytes(name, layers)


WHOLE = 2**30
CASES = {
    "awq": (AWQ, (4, 2.5, (128, 1))),
    "awq without zero points": (AWQ | {"zero_point": False}, (4, 2, (128, 1))),
    "awq, old names": ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, (4, 2.5, (64, 1))),
    "gptq": (GPTQ, (4, 2, (128, 1))),
    "gptq with zero points": (GPTQ | {"sym": False}, (4, 2.5, (128, 1))),
    "gptq in order of activations": (GPTQ | {"desc_act": True}, (4, 2, (128, 1), 4)),
    "gptq of 8 bits, one scale an output": (GPTQ | {"bits": 8, "group_size": -1}, (8, 2, (WHOLE, 1))),
    "fp8": (FP8, (8, 4, (WHOLE, WHOLE))),
    "fp8 static": (FP8 | {"activation_scheme": "static", "ignored_layers": ["lm_head"]}, (8, 4, (WHOLE, WHOLE))),
    "fp8 in blocks": (FP8 | {"weight_block_size": [128, 64], "fmt": "e4m3"}, (8, 4, (64, 128))),
    "float tensors": (tensors(FLOAT, DYNAMIC), (8, 4, (WHOLE, 1))),
    "float tensors, one scale": (tensors(FLOAT | {"strategy": "tensor"}, DYNAMIC), (8, 4, (WHOLE, WHOLE))),
    "float tensors in blocks": (
        tensors(FLOAT | {"strategy": "block", "block_structure": [128, 64]}, DYNAMIC),
        (8, 4, (64, 128)),
    ),
    "packed int4": (tensors(INT4), (4, 2, (128, 1))),
    "packed int4 with zero points": (tensors(INT4 | {"symmetric": False}), (4, 2.5, (128, 1))),
    "packed int4 in order": (tensors(INT4 | {"actorder": "group"}), (4, 2, (128, 1), 4)),
    "int8": (tensors(FLOAT | {"type": "int"}, DYNAMIC | {"type": "int"}), (8, 4, (WHOLE, 1))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "layers"), [(LLAMA, 32), (LARGE, 80)])
def test_bytes_of_weights_and_scales(tmp_path: Path, case: str, name: str, layers: int) -> None:
    config, sizes = CASES[case]
    architecture = quantized(tmp_path, name, config)
    assert ModelMemory(architecture, Mesh()).weight_bytes(0) == stored(name, layers, *sizes)
    assert parameter_count(architecture) == parameter_count(model(name))


def test_a_published_checkpoint() -> None:
    """Llama 3.1 70B in AWQ's 4 bits: the tensors of the published files are 39.77 GB."""
    assert round(stored(LARGE, 80, 4, 2.5, (128, 1)) / 1e9, 2) == 39.77


def test_without_a_config_numbers_have_their_usual_width(tmp_path: Path) -> None:
    plain = quantized(tmp_path, LLAMA, None)
    assert plain.quantization is None and ModelMemory(plain, Mesh()).weight_bytes(0) == 2 * parameter_count(plain)


def rate_of(trace: Trace, name: str, hardware: str, kind: str) -> float:
    """Return the FLOP/s at which a long prompt's operator would run, were it bound by arithmetic alone."""
    row = rows_named(trace, name)[0]
    efficiency = load_hardware(hardware).efficiencies[kind]
    busy = int(trace.latency_ns[0, row]) - efficiency.overhead_ns
    memory = int(trace.mem_bytes[0, row]) / load_hardware(hardware).memory_bandwidth / efficiency.memory * 1e9
    return float(int(trace.flops[0, row]) / (busy**2 - memory**2) ** 0.5 / efficiency.compute * 1e9)


@pytest.mark.parametrize(
    ("config", "hardware", "peak"),
    [
        (None, "H100", 989.4e12),
        (AWQ, "H100", 989.4e12),
        (FP8, "H100", 1978.9e12),
        (FP8, "A100", 312e12),
        (tensors(FLOAT, DYNAMIC), "H100", 1978.9e12),
        (tensors(FLOAT), "H100", 989.4e12),
        (CASES["int8"][0], "A100", 624e12),
    ],
)
def test_matrices_are_multiplied_at_the_rate_of_their_activations(
    tmp_path: Path, config: dict[str, Any] | None, hardware: str, peak: float
) -> None:
    """Weights of 8 bits with activations of 8 run at that rate where a device has it; 4-bit weights are widened."""
    architecture = quantized(tmp_path, LLAMA, config)
    trace = make_generator(architecture, hardware=hardware).generate([batch([8192])])
    for name in ("qkv_proj", "gate_up_proj", "down_proj"):
        kind = "gemm" if peak in (989.4e12, 312e12) else "gemm_8bit"
        assert rate_of(trace, name, hardware, kind) == pytest.approx(peak, rel=0.01)
    head = make_generator(architecture, hardware=hardware).generate([batch([8192], samples=[8192])])
    half = load_hardware(hardware).rate(Arithmetic.HALF)
    assert rate_of(head, "lm_head", hardware, "gemm") == pytest.approx(half, rel=0.01), "never quantised"


def test_decodes_read_fewer_bytes(tmp_path: Path) -> None:
    times = []
    for config in (None, FP8, AWQ):
        trace = make_generator(quantized(tmp_path, LARGE, config), hardware="H200").generate([batch([1], [1])])
        row = rows_named(trace, "down_proj")[0]
        assert trace.mem_bytes[0, row] == trace.weight_bytes[row] + 2 * (8192 + 28672)
        times.append(int(trace.latency_ns[0, row]))
    assert times[0] > 1.7 * times[1] > 1.7 * 1.6 * times[2]


@pytest.mark.parametrize("case", ["awq", "fp8 in blocks", "packed int4 with zero points"])
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 3), (8, 1)])
def test_the_rules_of_traces_hold(tmp_path: Path, case: str, tensor: int, pipeline: int) -> None:
    architecture = quantized(tmp_path, LLAMA, CASES[case][0])
    shape = batch([7, 1], [0, 30])
    generator = make_generator(architecture, tensor, pipeline)
    facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
    assert run_rules(of_trace("quantised", generator.generate([shape]), facts)).violations == {}
    ranks = tensor * sum(generator.memory.weight_bytes(stage) for stage in range(pipeline))
    assert ranks >= ModelMemory(architecture, Mesh()).weight_bytes(0)


@pytest.mark.parametrize(
    ("config", "tensor"),
    [
        (AWQ, 16),
        (FP8 | {"weight_block_size": [128, 128]}, 16),
        (AWQ | {"group_size": 5}, 1),
        (GPTQ | {"group_size": 8192}, 1),
        (tensors(INT4 | {"group_size": 96}), 1),
    ],
)
def test_groups_divide_the_inputs_of_a_rank(tmp_path: Path, config: dict[str, Any], tensor: int) -> None:
    """14336 inputs on each of 16 ranks are 7 groups of 128, on each of 32 they are three and a half."""
    architecture = quantized(tmp_path, LLAMA, config)
    if tensor > 1:
        assert ModelMemory(architecture, Mesh(tensor)).weight_bytes(0) > 0
        tensor *= 2
    with pytest.raises(UserError, match=r"quantization_config: groups of \d+ inputs share a scale, but a rank has"):
        ModelMemory(architecture, Mesh(tensor)).weight_bytes(0)


@pytest.mark.parametrize("expert", [1, 4])
def test_every_expert_has_its_own_scales(tmp_path: Path, expert: int) -> None:
    architecture = quantized(tmp_path, MIXTRAL, AWQ | {"modules_to_not_convert": ["gate"]})
    shape = batch([7])
    generator = make_generator(architecture, 4, expert=expert)
    trace = generator.generate([shape])
    held, inner = (2, 14336) if expert == 4 else (8, 14336 // 4)
    row = rows_named(trace, "expert_down_proj")[0]
    assert trace.weight_bytes[row] == held * (inner * 4096 // 2 + inner // 128 * 4096 * 5 // 2)
    assert trace.weight_bytes[rows_named(trace, "router")[0]] == 2 * 4096 * 8
    facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
    assert run_rules(of_trace("quantised", trace, facts)).violations == {}


@pytest.mark.parametrize(
    ("left_out", "plain"),
    [
        (["lm_head", "embed_tokens", "model.norm"], set()),
        (["self_attn"], {"qkv_proj", "o_proj"}),
        (["o_proj"], {"o_proj"}),
        (["re:.*down_proj$"], {"down_proj"}),
        (["mlp"], {"gate_up_proj", "down_proj"}),
        (["q_proj", "k_proj", "v_proj"], {"qkv_proj"}),
        ([f"model.layers.{layer}.mlp.down_proj" for layer in range(32)], {"down_proj"}),
    ],
)
def test_modules_that_are_left_out_keep_their_bits(tmp_path: Path, left_out: list[str], plain: set[str]) -> None:
    architecture = quantized(tmp_path, LLAMA, tensors(FLOAT | {"strategy": "tensor"}, ignore=left_out))
    trace = make_generator(architecture).generate([batch([3])])
    sizes = dict(zip(("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), matrices(LLAMA), strict=True))
    for name, (inputs, outputs) in sizes.items():
        expected = 2 * inputs * outputs if name in plain else inputs * outputs + 4
        assert trace.weight_bytes[rows_named(trace, name)[0]] == expected, name


def test_a_quantised_lm_head(tmp_path: Path) -> None:
    for said, expected in ((False, 2 * 4096 * 128256), (True, 4096 * 128256 // 2 + 32 * 128256 * 2)):
        architecture = quantized(tmp_path, LLAMA, GPTQ | {"lm_head": said})
        trace = make_generator(architecture).generate([batch([3])])
        assert trace.weight_bytes[rows_named(trace, "lm_head")[0]] == expected


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tensor", [1, 2])
def test_a_quantised_lm_head_adds_up(tmp_path: Path, tied: bool, tensor: int) -> None:
    """Tied to the embedding it is read and not held, or not read and not held; a prompt's chunk reads no head."""
    config = GPTQ | {"lm_head": True, "desc_act": True}
    architecture = replace(quantized(tmp_path, LLAMA, config), tie_word_embeddings=tied)
    generator = make_generator(architecture, tensor)
    for samples in (True, False):
        shape = batch([3], [0], [samples])
        facts = ModelFacts(architecture, generator.mesh, Precision(), (shape,))
        assert run_rules(of_trace("quantised", generator.generate([shape]), facts)).violations == {}


def test_the_kv_cache_of_a_checkpoint(tmp_path: Path) -> None:
    kept = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
    for scheme, bits in ((None, None), (kept, 8)):
        found = quantized(tmp_path, LLAMA, tensors(FLOAT, DYNAMIC, kv_cache_scheme=scheme)).quantization
        assert found is not None and found.kv_bits == bits


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"quant_method": "hqq"},
        r"quantization_config\.quant_method: 'hqq' is not modelled; supported: fp8, awq, gptq, mxfp4, compressed-tens",
    ),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"quant_method: 'bitsandbytes' is not modelled"),
    ({"bits": 4}, r"quant_method is missing"),
    (AWQ | {"bits": 3}, r"quantization_config\.bits: 3 bits are not modelled; expected 4$"),
    (GPTQ | {"bits": 2}, r"quantization_config\.bits: 2 bits are not modelled; expected 4 or 8$"),
    (GPTQ | {"bits": "4"}, r'quantization_config\.bits: "4" is not a whole number from 1 to 64$'),
    (GPTQ | {"group_size": 0}, r"group_size: 0 is no group; give -1 for all inputs of an output$"),
    (GPTQ | {"group_size": -2}, r"group_size: -2 is not a whole number of at least -1$"),
    (GPTQ | {"dynamic": {"-:.*": {}}}, r"dynamic: is not modelled: all matrices of all layers are quantised alike"),
    (AWQ | {"rotation": "hadamard"}, r"rotation: unknown field"),
    (FP8 | {"fmt": "e5m2"}, r'fmt: "e5m2" is unknown'),
    (FP8 | {"activation_scheme": "none"}, r'activation_scheme: "none" is unknown'),
    (FP8 | {"weight_block_size": [128]}, r"weight_block_size: holds not two numbers"),
    (FP8 | {"kv_cache_scheme": "static"}, r"kv_cache_scheme: is not modelled; leave it out, and give --kv_cache_dtype"),
    (FP8 | {"modules_to_not_convert": ["mixer"]}, r"modules_to_not_convert: 'mixer' is not a module"),
    (FP8 | {"ignored_layers": ["re:.*mlp\\.(gate|mix)_proj"]}, r"ignored_layers: 'mix_proj' is not a module that is"),
    (
        FP8 | {"ignored_layers": ["model.layers.7.self_attn.v_proj"]},
        r"q_proj, k_proj, v_proj are stored as one in layer 7: leave out all of them or none",
    ),
    (FP8 | {"ignored_layers": ["k_proj"]}, r"q_proj, k_proj, v_proj are stored as one: leave out all of them or none"),
    (tensors(FLOAT, DYNAMIC | {"num_bits": 4}), r"input_activations.num_bits: 4 bits are not modelled; expected 8$"),
    (tensors(FLOAT, DYNAMIC | {"type": "int"}), r"input_activations: activations of another format than the weights"),
    (tensors(INT4 | {"type": "float"}), r"weights.group_size: groups of 128 in 4-bit floating point; expected 32$"),
    (
        tensors(INT4 | {"type": "float", "group_size": 32}, DYNAMIC),
        r"input_activations: activations beside 4-bit floating point are not modelled; expected null$",
    ),
    (tensors(INT4 | {"strategy": "attn_head"}), r'weights.strategy: "attn_head" is unknown'),
    (tensors(INT4 | {"group_size": None}), r"weights.group_size is missing|group_size is missing"),
    (tensors(FLOAT, kv_cache_scheme={"num_bits": 4}), r"kv_cache_scheme.num_bits: 4 bits are not modelled"),
    (tensors(FLOAT, sparsity_config={"format": "2:4"}), r"sparsity_config: is not modelled"),
    (
        {"quant_method": "compressed-tensors", "config_groups": {}},
        r"config_groups: no groups; say how matrices",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_is_not_modelled_is_refused_with_its_field(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        quantized(tmp_path, LLAMA, config)
    assert str(error.value).startswith(str(tmp_path / "config.json"))


def test_targets_and_outputs_that_are_not_modelled(tmp_path: Path) -> None:
    config = tensors(FLOAT)
    config["config_groups"]["group_0"] |= {"targets": ["Linear", "Embedding"], "output_activations": DYNAMIC}
    with pytest.raises(UserError, match=r"output_activations: is not modelled.*targets: is not modelled; expected "):
        quantized(tmp_path, LLAMA, config)
    more = tensors(FLOAT)
    more["config_groups"]["group_1"] = more["config_groups"]["group_0"]
    with pytest.raises(UserError, match="config_groups: several groups target Linear; name the modules of all but one"):
        quantized(tmp_path, LLAMA, more)


def test_a_run_is_told_what_the_checkpoint_is(tmp_path: Path) -> None:
    for config, said in (
        (AWQ, "quantised: awq, matrices of 4 bits with their scales, multiplied in the activations' own width"),
        (FP8, "quantised: fp8, matrices of 8 bits with their scales, multiplied in FP8"),
        (tensors(FLOAT, kv_cache_scheme={"num_bits": 8}), "own width, KV cache in 8 bits"),
    ):
        (told,) = make_generator(quantized(tmp_path, LLAMA, config)).warnings
        assert said in told


GPTQ_NULLS = (
    *("block_name_to_quantize", "cache_block_outputs", "dataset", "exllama_config", "max_input_length", "dynamic"),
    *("model_file_base_name", "model_name_or_path", "model_seqlen", "module_name_preceding_first_block"),
    *("modules_in_block_to_quantize", "pad_token_id", "tokenizer", "modules_to_not_convert", "ignored_layers"),
)
WRITTEN_BY_OTHERS: dict[str, dict[str, Any]] = {
    # What AutoAWQ, GPTQModel and transformers write beside what counts; they write nulls, too.
    "awq": dict.fromkeys(("exllama_config", "fuse_max_seq_len", "modules_to_fuse", "modules_to_not_convert"))
    | {"backend": "autoawq", "do_fuse": False},
    "gptq": dict.fromkeys(GPTQ_NULLS)
    | {"batch_size": 1, "backend": "auto", "checkpoint_format": "gptq", "damp_auto_increment": 0.0015}
    | {"damp_percent": 0.1, "disable_exllama": False, "is_marlin_format": False, "lm_head": False}
    | {"meta": {"quantizer": "gptqmodel:1.0"}, "pack_dtype": "int32", "quantizer": "x", "static_groups": False}
    | {"true_sequential": True, "use_cuda_fp16": False, "use_exllama": True},
    "fp8": {"fmt": "e4m3", "kv_cache_scheme": None, "modules_to_not_convert": ["lm_head"], "ignored_layers": None},
    "compressed-tensors": {"format": "float-quantized", "global_compression_ratio": 1.5, "kv_cache_scheme": None}
    | {"quantization_status": "compressed", "sparsity_config": {"format": "dense"}, "transform_config": {}}
    | {"version": "0.9.0"},
}


@pytest.mark.parametrize(
    "config", [AWQ, GPTQ, FP8, tensors(FLOAT, DYNAMIC)], ids=lambda config: str(config["quant_method"])
)
def test_what_others_write_beside_it_changes_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    """Every field is known, so that an unknown one can be refused."""
    written = WRITTEN_BY_OTHERS[config["quant_method"]]
    assert quantized(tmp_path, LLAMA, config | written) == quantized(tmp_path, LLAMA, config)
    with pytest.raises(UserError, match=r"quantization_config\.modules_in_blocks: unknown field"):
        quantized(tmp_path, LLAMA, config | {"modules_in_blocks": None})


@pytest.mark.parametrize("field", ["dynamic", "modules_in_block_to_quantize"])
def test_gptq_that_leaves_modules_out_otherwise_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=rf"quantization_config\.{field}: is not modelled: all matrices of all layers"):
        quantized(tmp_path, LLAMA, GPTQ | {field: [["self_attn.q_proj"]]})
