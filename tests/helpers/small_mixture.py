"""A mixture of experts small enough for runs in tests: two layers of eight experts."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "model_type": "qwen3_moe",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
ROWS = [(100, 8, 0), (40, 15, 1_000), (300, 6, 20_000), (7, 1, 3_000_000), (64, 16, 3_001_000)]
"""Prompt and output tokens, and arrival (ns)."""


def small_mixture(folder: Path) -> tuple[str, str]:
    """Write the model and `ROWS` as a dataset into `folder`; return their paths."""
    model, dataset = folder / "mixture.json", folder / "few.tsv"
    model.write_text(json.dumps(CONFIG))
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return str(model), str(dataset)
