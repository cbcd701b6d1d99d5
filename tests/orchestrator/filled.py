"""Small deployments and kernel tables of them, for tests."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.small_mixture import CONFIG
from helpers.small_profile import MODEL

from orchestrator.kernels.deployments import read_deployments
from orchestrator.kernels.filling import fill
from orchestrator.kernels.planning import TablePlan, plan_tables
from trace_gen.kernels.layout import Meta
from trace_gen.kernels.shapes import Limits

LIMITS = Limits(tokens=600, context=700, requests=12)
LATENT = {
    "model_type": "deepseek_v3",
    "hidden_size": 256,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 8,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
WINDOWED = {**MODEL, "model_type": "mistral", "sliding_window": 96, "head_dim": 32}
MODELS = {"dense": MODEL, "windowed": WINDOWED, "mixture": CONFIG, "latent": LATENT}


def run_file(folder: Path, model: str, **settings: object) -> Path:
    """Write a run file of a model of `MODELS`; return its path."""
    config = folder / f"{model}.json"
    config.write_text(json.dumps(MODELS[model]))
    path = folder / f"{model}.yaml"
    values = {"model_name": str(config), "hardware": "A100", "scheduling": "vllm", "max_num_seqs": 8, **settings}
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()))
    return path


def plan_of(path: Path, limits: Limits = LIMITS) -> TablePlan:
    """Return the plan of the one model of a file."""
    [plan], left_out = plan_tables(read_deployments(path, None, None), limits)
    assert not left_out
    return plan


def filled(path: Path, folder: Path, limits: Limits = LIMITS, processes: int = 1) -> Meta:
    """Fill the table of the one model of a file."""
    return fill(plan_of(path, limits), folder, processes, lambda done, total: None)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in `folder`, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
