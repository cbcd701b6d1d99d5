"""Dimensions of models as their papers and model cards print them; nothing is read from a config."""

from __future__ import annotations

from parallelism.papers import Block, Heads, Mixture, Mlp, Model

GPT3 = Block(Heads(96, 96, 128, bias=True, out_bias=True), Mlp(4 * 12288, gated=False, bias=True))
LLAMA_8B = Block(Heads(32, 8, 128), Mlp(14336))
LLAMA_70B = Block(Heads(64, 8, 128), Mlp(28672))
LLAMA_405B = Block(Heads(128, 8, 128), Mlp(53248))
MIXTRAL_8X7B = Block(Heads(32, 8, 128), Mixture(8, 2, 14336, router=8))
QWEN3_30B = Block(Heads(32, 4, 128, whole=2 * 128), Mixture(128, 8, 768, router=128))
QWEN15_MOE = Block(Heads(16, 16, 128, bias=True), Mixture(60, 4, 1408, router=60 + 1, shared=5632))

MODELS = {
    # Brown et al. 2020, "Language Models are Few-Shot Learners", table 2.1; GPT-2's tokenizer, 2,048 positions.
    "gpt3-175b": Model(12288, 50257, ((96, GPT3),), norm=2, positions=2048),
    # Grattafiori et al. 2024, "The Llama 3 Herd of Models", table 3.
    "Llama-3.1-8B": Model(4096, 128256, ((32, LLAMA_8B),)),
    "Llama-3.1-70B": Model(8192, 128256, ((80, LLAMA_70B),)),
    "Llama-3.1-405B": Model(16384, 128256, ((126, LLAMA_405B),)),
    # Jiang et al. 2024, "Mixtral of Experts", table 1.
    "Mixtral-8x7B-v0.1": Model(4096, 32000, ((32, MIXTRAL_8X7B),)),
    # Qwen Team 2025, "Qwen3 Technical Report", table 2 and the model card.
    "Qwen3-30B-A3B": Model(2048, 151936, ((48, QWEN3_30B),)),
    # Qwen Team 2024, "Qwen1.5-MoE: Matching 7B Model Performance with 1/3 Activated Parameters".
    "Qwen1.5-MoE-A2.7B": Model(2048, 151936, ((24, QWEN15_MOE),)),
}
