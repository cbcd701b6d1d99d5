"""Dimensions of models as their papers and model cards print them; nothing is read from a config."""

from __future__ import annotations

from dataclasses import replace

from parallelism.papers import Block, Blocks, Heads, Latent, Microscaled, Mixture, Mlp, Model

GPT3 = Block(Heads(96, 96, 128, bias=True, out_bias=True), Mlp(4 * 12288, gated=False, bias=True))
OPT = Block(Heads(32, 32, 128, bias=True, out_bias=True), Mlp(16384, gated=False, bias=True))
NEOX = Block(Heads(64, 64, 96, bias=True, out_bias=True), Mlp(24576, gated=False, bias=True))
FALCON_7B = Block(Heads(71, 1, 64), Mlp(4 * 4544, gated=False), norms=1, reduces_once=True)
FALCON_40B = Block(Heads(128, 8, 64), Mlp(4 * 8192, gated=False), reduces_once=True)
PHI_2 = Block(Heads(32, 32, 80, bias=True, out_bias=True), Mlp(10240, gated=False, bias=True), norms=1)
PHI_4 = Block(Heads(40, 10, 128), Mlp(17920))
LLAMA_1 = Block(Heads(32, 32, 128), Mlp(11008))
LLAMA_8B = Block(Heads(32, 8, 128), Mlp(14336))
LLAMA_70B = Block(Heads(64, 8, 128), Mlp(28672))
LLAMA_405B = Block(Heads(128, 8, 128), Mlp(53248))
MISTRAL = Block(Heads(32, 8, 128, window=4096), Mlp(14336))
NEMO = Block(Heads(32, 8, 128), Mlp(14336))
QWEN25 = Block(Heads(28, 4, 128, bias=True), Mlp(18944))
QWEN3_32B = Block(Heads(64, 8, 128, whole=2 * 128), Mlp(25600))
GLM_4 = Block(Heads(32, 2, 128, bias=True), Mlp(13696))
GEMMA_2 = Block(Heads(16, 8, 256, capped=True), Mlp(14336), norms=4)
GEMMA_2_LOCAL = replace(GEMMA_2, attention=Heads(16, 8, 256, window=4096, capped=True))
GEMMA_3 = Block(Heads(32, 16, 128, whole=2 * 128), Mlp(21504), norms=4)
GEMMA_3_LOCAL = replace(GEMMA_3, attention=Heads(32, 16, 128, window=1024, whole=2 * 128))

MIXTRAL_8X7B = Block(Heads(32, 8, 128), Mixture(8, 2, 14336, router=8))
QWEN3_30B = Block(Heads(32, 4, 128, whole=2 * 128), Mixture(128, 8, 768, router=128))
QWEN15_MOE = Block(Heads(16, 16, 128, bias=True), Mixture(60, 4, 1408, router=60 + 1, shared=5632))
PHI_35_MOE = Block(Heads(32, 8, 128, bias=True, out_bias=True), Mixture(16, 2, 6400, router=16))
GPT_OSS_EXPERTS = Mixture(32, 4, 2880, router=32, bias=True, router_bias=True, granule=32)
GPT_OSS = Block(Heads(64, 8, 64, bias=True, out_bias=True, divided=64), GPT_OSS_EXPERTS)
GPT_OSS_LOCAL = Block(replace(GPT_OSS.attention, window=128), GPT_OSS_EXPERTS)
SCOUT_EXPERTS = Mixture(16, 1, 8192, router=16, shared=8192)
SCOUT = Block(Heads(40, 8, 128), SCOUT_EXPERTS)
SCOUT_LOCAL = Block(Heads(40, 8, 128, chunk=8192), SCOUT_EXPERTS)

LITE = Latent(16, None, 512, 128, 64, 128)
LATENT = Latent(128, 1536, 512, 128, 64, 128)
KIMI = replace(LATENT, heads=64)
LITE_EXPERTS = Mixture(64, 6, 1408, router=64, shared=2 * 1408)
V2_EXPERTS = Mixture(160, 6, 1536, router=160, shared=2 * 1536)
V3_EXPERTS = Mixture(256, 8, 2048, router=256, shared=2048, router_bias=True)
KIMI_EXPERTS = Mixture(384, 8, 2048, router=384, shared=2048, router_bias=True)

MODELS = {
    # Brown et al. 2020, "Language Models are Few-Shot Learners", table 2.1; GPT-2's tokenizer, 2,048 positions.
    "gpt3-175b": Model(12288, 50257, ((96, GPT3),), norm=2, positions=2048),
    # Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models", table 1; two rows stand before position 0.
    "opt-6.7b": Model(4096, 50272, ((32, OPT),), norm=2, positions=2050),
    # Black et al. 2022, "GPT-NeoX-20B", section 2; the vocabulary is padded to 50,432.
    "gpt-neox-20b": Model(6144, 50432, ((44, NEOX),), norm=2),
    # Almazrouei et al. 2023, "The Falcon Series of Open Language Models", table 4 and the model cards.
    "falcon-7b": Model(4544, 65024, ((32, FALCON_7B),), norm=2),
    "falcon-40b": Model(8192, 65024, ((60, FALCON_40B),), norm=2),
    # Microsoft 2023, model card of Phi-2; Abdin et al. 2024, "Phi-4 Technical Report", section 3.
    "phi-2": Model(2560, 51200, ((32, PHI_2),), norm=2, head_bias=True),
    "phi-4": Model(5120, 100352, ((40, PHI_4),)),
    # Touvron et al. 2023, "LLaMA", table 2.
    "llama-7b": Model(4096, 32000, ((32, LLAMA_1),)),
    # Grattafiori et al. 2024, "The Llama 3 Herd of Models", table 3.
    "Llama-3.1-8B": Model(4096, 128256, ((32, LLAMA_8B),)),
    "Llama-3.1-70B": Model(8192, 128256, ((80, LLAMA_70B),)),
    "Llama-3.1-405B": Model(16384, 128256, ((126, LLAMA_405B),)),
    # Jiang et al. 2023, "Mistral 7B", table 1; Mistral AI 2024, model card of Mistral Nemo.
    "Mistral-7B-v0.1": Model(4096, 32000, ((32, MISTRAL),)),
    "Mistral-Nemo-Instruct-2407": Model(5120, 131072, ((40, NEMO),)),
    # Qwen Team 2024, "Qwen2.5 Technical Report", table 1; 2025, "Qwen3 Technical Report", table 1.
    "Qwen2.5-7B": Model(3584, 152064, ((28, QWEN25),)),
    "Qwen3-32B": Model(5120, 151936, ((64, QWEN3_32B),)),
    # GLM Team 2024, "ChatGLM: A Family of Large Language Models ...", and the model card of GLM-4-9B.
    "glm-4-9b-chat-hf": Model(4096, 151552, ((40, GLM_4),)),
    # Gemma Team 2024, "Gemma 2", tables 1 and 2: local and global layers in turn, norms before and after each half.
    "gemma-2-9b": Model(3584, 256000, ((1, GEMMA_2_LOCAL), (1, GEMMA_2)) * 21),
    # Gemma Team 2025, "Gemma 3 Technical Report", section 2: five local layers for each global one.
    "gemma-3-27b-it": Model(5376, 262208, ((5, GEMMA_3_LOCAL), (1, GEMMA_3)) * 10 + ((2, GEMMA_3_LOCAL),)),
    # Jiang et al. 2024, "Mixtral of Experts", table 1.
    "Mixtral-8x7B-v0.1": Model(4096, 32000, ((32, MIXTRAL_8X7B),)),
    # Qwen Team 2025, "Qwen3 Technical Report", table 2 and the model card.
    "Qwen3-30B-A3B": Model(2048, 151936, ((48, QWEN3_30B),)),
    # Qwen Team 2024, "Qwen1.5-MoE: Matching 7B Model Performance with 1/3 Activated Parameters".
    "Qwen1.5-MoE-A2.7B": Model(2048, 151936, ((24, QWEN15_MOE),)),
    # Abdin et al. 2024, "Phi-3 Technical Report", section 2, and the model card of Phi-3.5-MoE.
    "Phi-3.5-MoE-instruct": Model(4096, 32064, ((32, PHI_35_MOE),), norm=2, head_bias=True),
    # OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", section 2: windows of 128 in every other layer, sinks, MXFP4.
    "gpt-oss-20b": Model(2880, 201088, ((1, GPT_OSS_LOCAL), (1, GPT_OSS)) * 12, experts=Microscaled()),
    # Meta 2025, model card of Llama 4 Scout: chunks of 8,192 tokens in three of four layers.
    "Llama-4-Scout-17B-16E-Instruct": Model(5120, 202048, ((3, SCOUT_LOCAL), (1, SCOUT)) * 12),
    # DeepSeek-AI 2024, "DeepSeek-V2", section 3.1.2 and appendix B.
    "DeepSeek-V2-Lite": Model(2048, 102400, ((1, Block(LITE, Mlp(10944))), (26, Block(LITE, LITE_EXPERTS)))),
    "DeepSeek-V2": Model(5120, 102400, ((1, Block(LATENT, Mlp(12288))), (59, Block(LATENT, V2_EXPERTS)))),
    # DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 4.2; without the multi-token prediction module.
    "DeepSeek-V3": Model(
        7168,
        129280,
        ((3, Block(LATENT, Mlp(18432))), (58, Block(LATENT, V3_EXPERTS))),
        storage=Blocks(),
        experts=Blocks(),
    ),
    # Kimi Team 2025, "Kimi K2: Open Agentic Intelligence", table 2.
    "Kimi-K2-Instruct": Model(
        7168,
        163840,
        ((1, Block(KIMI, Mlp(18432))), (60, Block(KIMI, KIMI_EXPERTS))),
        storage=Blocks(),
        experts=Blocks(),
    ),
}
