"""What the smallest files are read as: every default of a model's, a device's and ASTRA-sim's files, as text.

Held in `read.txt` beside this file; made anew, and the difference read, by

    python tests/golden/read.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
HELD = Path(__file__).resolve().with_name("read.txt")
_SIZES = {
    "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 4, "vocab_size": 1000, "intermediate_size": 1024
}  # fmt: skip
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
_WINDOWS = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}
MODELS = {
    "gpt2": {"n_embd": 512, "n_layer": 2, "n_head": 8, "n_positions": 99, "vocab_size": 1000},
    "opt": {**_SIZES, "ffn_dim": 700, "max_position_embeddings": 99},
    "llama": _SIZES,
    "mistral": _SIZES,
    "qwen2": {**_SIZES, **_WINDOWS},
    "qwen3": _SIZES,
    "mixtral": {**_SIZES, "num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {**_SIZES, **_EXPERTS, "shared_expert_intermediate_size": 70},
    "qwen3_moe": {**_SIZES, **_EXPERTS},
    "gpt_neox": _SIZES,
    "falcon": _SIZES,
    "phi": _SIZES,
    "phi3": _SIZES,
    "gemma": _SIZES,
    "gemma2": _SIZES,
    "gemma3_text": {},
    "gemma3": {"text_config": {"num_hidden_layers": 7}},
    "internlm": _SIZES,
    "internlm2": _SIZES,
    "internlm3": _SIZES,
    "glm": _SIZES,
    "glm4": _SIZES,
    "chatglm": {**_SIZES, "num_layers": 3, "ffn_hidden_size": 700, "seq_length": 99},
    "qwen": _SIZES,
    "starcoder2": _SIZES,
    "stablelm": _SIZES,
}
DEVICE = {
    "device": "D", "memory_gib": 80, "memory_bandwidth_gb_s": 3000, "compute_units": 100, "cache_mib": 50,
    "link_gb_s": 450, "link_latency_ns": 700,
    "peak_tflops": {"bf16": 900}, "efficiency": {},
}  # fmt: skip
QUANTISED = {
    "fp8": {},
    "awq": {"bits": 4},
    "gptq": {"bits": 4},
    "compressed-tensors": {
        "format": "float-quantized",
        "config_groups": {
            "g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
        },
    },
}


def as_read() -> list[str]:
    """Return a line for each file; sets, which have no order, in alphabetical order."""
    return [re.sub(r"frozenset\(\{(.*?)\}\)", lambda found: _in_order(found[1]), line) for line in _lines()]


def _in_order(members: str) -> str:
    return "{" + ", ".join(sorted(members.split(", "))) + "}"


def _lines() -> Iterator[str]:
    from astra_files.memory import RemoteMemoryConfig
    from astra_files.network import NetworkConfig
    from astra_files.system import SystemConfig
    from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
    from trace_gen.models import load_model, shipped_models

    with TemporaryDirectory() as folder:
        path = Path(folder) / "smallest" / "config.json"
        path.parent.mkdir()

        def written(content: object) -> str:
            path.write_text(json.dumps(content))
            return str(path)

        for family, fields in MODELS.items():
            model = load_model(written({"model_type": family, **fields}))
            yield f"{family}: {replace(model, name=family)}"
        for method, fields in QUANTISED.items():
            content = {"model_type": "llama", **_SIZES, "quantization_config": {"quant_method": method, **fields}}
            yield f"{method}: {load_model(written(content)).quantization}"
        yield f"device: {load_hardware(written(DEVICE))}"
    for name in sorted(path.stem for path in HARDWARE_FOLDER.glob("*.json")):
        yield f"{name}: {load_hardware(name)}"
    for name in sorted(shipped_models()):
        yield f"{name}: {load_model(name)}"
    yield str(
        NetworkConfig.from_text("topology: [Ring]\nnpus_count: [4]\nbandwidth: [50]\nlatency: [500]\n", "network")
    )
    yield str(SystemConfig.from_text('{"scheduling-policy": "LIFO"}', "system"))
    for kind in ("NO_MEMORY_EXPANSION", "PER_NPU_MEMORY_EXPANSION"):
        rates = {} if kind.startswith("NO") else {"remote-mem-bw": 5}
        yield str(RemoteMemoryConfig.from_text(json.dumps({"memory-type": kind, **rates}), "memory"))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    HELD.write_text("".join(f"{line}\n" for line in as_read()))
