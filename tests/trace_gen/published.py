"""What is published of the shipped models' sizes, with the sources: facts that nothing here computes.

A row has the parameters (tied embeddings once), the layers, KV heads and head width that the KV cache follows from, the
parameters of tables that are only looked up (embeddings that are no LM head, learned positions), of mixtures of experts
the published number of parameters that a token meets with the error it is rounded to, and how exact the count is (0: to
the number).
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    parameters: float
    kv: tuple[int, int, int]
    looked_up: int
    active: tuple[float, float] | None = None
    within: float = 0.0


PUBLISHED = {
    # Their checkpoints hold the tied embedding a second time, and 751,632,384, 2,031,739,904, 7,217,189,760 and
    # 179,522,565,120 numbers in all.
    "tiiuae/falcon-180B": Published(178_557_088_768, (80, 8, 64), 0),
    "Qwen/Qwen3-0.6B": Published(596_049_920, (28, 8, 128), 0),
    "Qwen/Qwen3-1.7B": Published(1_720_574_976, (28, 8, 128), 0),
    "tiiuae/falcon-7b": Published(6_921_720_704, (32, 1, 64), 0),
    # The model cards of GPT-NeoX-20B and Pythia (EleutherAI).
    "EleutherAI/gpt-neox-20b": Published(20_554_567_680, (44, 64, 96), 50432 * 6144),
    "EleutherAI/pythia-1.4b": Published(1_414_647_808, (24, 16, 128), 50304 * 2048),
    "EleutherAI/pythia-12b": Published(11_846_072_320, (36, 40, 128), 50688 * 5120),
    "EleutherAI/pythia-160m": Published(162_322_944, (12, 12, 64), 50304 * 768),
    "EleutherAI/pythia-6.9b": Published(6_857_302_016, (32, 32, 128), 50432 * 4096),
    # Checkpoints of 4,300,079,472, 12,187,325,040 and 27,432,406,640 numbers, of which 416,866,032 are the
    # vision tower's and 1152 x (hidden size + 1) the projector's and its norm's; what is left is the text decoder.
    "google/gemma-3-12b-it": Published(11_766_034_176, (48, 8, 256), 0),
    "google/gemma-3-27b-it": Published(27_009_346_304, (62, 16, 128), 0),
    "google/gemma-3-4b-it": Published(3_880_263_168, (34, 4, 256), 0),
    # Hugging Face's parameter count of the checkpoint's safetensors (`model.safetensors.index.json`, 16 bits a number).
    "01-ai/Yi-1.5-9B": Published(8_829_407_232, (48, 4, 128), 64000 * 4096),
    "01-ai/Yi-34B": Published(34_388_917_248, (60, 8, 128), 64000 * 7168),
    "01-ai/Yi-6B": Published(6_061_035_520, (32, 4, 128), 64000 * 4096),
    "Qwen/Qwen-14B": Published(14_167_290_880, (40, 40, 128), 152064 * 5120),
    "Qwen/Qwen-7B": Published(7_721_324_544, (32, 32, 128), 151936 * 4096),
    "Qwen/Qwen1.5-0.5B": Published(463_987_712, (24, 16, 64), 0),
    "Qwen/Qwen1.5-32B": Published(32_512_218_112, (64, 8, 128), 152064 * 5120),
    "Qwen/Qwen1.5-7B": Published(7_721_324_544, (32, 32, 128), 151936 * 4096),
    "Qwen/Qwen1.5-MoE-A2.7B": Published(14_315_784_192, (24, 16, 128), 151936 * 2048, (2.7e9, 0.02)),
    "Qwen/Qwen2-0.5B": Published(494_032_768, (24, 2, 64), 0),
    "Qwen/Qwen2-72B": Published(72_706_203_648, (80, 8, 128), 152064 * 8192),
    "Qwen/Qwen2-7B": Published(7_615_616_512, (28, 4, 128), 152064 * 3584),
    "Qwen/Qwen2.5-1.5B": Published(1_543_714_304, (28, 2, 128), 0),
    "Qwen/Qwen2.5-14B": Published(14_770_033_664, (48, 8, 128), 152064 * 5120),
    "Qwen/Qwen2.5-32B": Published(32_763_876_352, (64, 8, 128), 152064 * 5120),
    "Qwen/Qwen2.5-72B": Published(72_706_203_648, (80, 8, 128), 152064 * 8192),
    "Qwen/Qwen2.5-7B": Published(7_615_616_512, (28, 4, 128), 152064 * 3584),
    "Qwen/Qwen3-14B": Published(14_768_307_200, (40, 8, 128), 151936 * 5120),
    "Qwen/Qwen3-235B-A22B": Published(235_093_634_560, (94, 4, 128), 151936 * 4096, (22e9, 0.02)),
    "Qwen/Qwen3-30B-A3B": Published(30_532_122_624, (48, 4, 128), 151936 * 2048, (3.3e9, 0.02)),
    "Qwen/Qwen3-32B": Published(32_762_123_264, (64, 8, 128), 151936 * 5120),
    "Qwen/Qwen3-4B": Published(4_022_468_096, (36, 8, 128), 0),
    "Qwen/Qwen3-8B": Published(8_190_735_360, (36, 8, 128), 151936 * 4096),
    "codellama/CodeLlama-13b-hf": Published(13_016_028_160, (40, 40, 128), 32016 * 5120),
    "codellama/CodeLlama-34b-hf": Published(33_743_970_304, (48, 8, 128), 32000 * 8192),
    "codellama/CodeLlama-70b-hf": Published(68_976_910_336, (80, 8, 128), 32016 * 8192),
    "codellama/CodeLlama-7b-hf": Published(6_738_546_688, (32, 32, 128), 32016 * 4096),
    "facebook/opt-1.3b": Published(1_315_758_080, (24, 32, 64), 2050 * 2048),
    "facebook/opt-125m": Published(125_239_296, (12, 12, 64), 2050 * 768),
    "facebook/opt-13b": Published(12_853_473_280, (40, 40, 128), 2050 * 5120),
    "facebook/opt-2.7b": Published(2_651_596_800, (32, 32, 80), 2050 * 2560),
    "facebook/opt-30b": Published(29_974_540_288, (48, 56, 128), 2050 * 7168),
    "facebook/opt-350m": Published(331_196_416, (24, 16, 64), 2050 * 1024),
    "facebook/opt-6.7b": Published(6_658_473_984, (32, 32, 128), 2050 * 4096),
    "google/gemma-2-27b": Published(27_227_128_320, (46, 16, 128), 0),
    "google/gemma-2-2b": Published(2_614_341_888, (26, 4, 256), 0),
    "google/gemma-2-9b": Published(9_241_705_984, (42, 8, 256), 0),
    "google/gemma-2b": Published(2_506_172_416, (18, 1, 256), 0),
    "google/gemma-3-1b-it": Published(999_885_952, (26, 1, 256), 0),
    "google/gemma-7b": Published(8_537_680_896, (28, 16, 256), 0),
    "huggyllama/llama-13b": Published(13_015_864_320, (40, 40, 128), 32000 * 5120),
    "huggyllama/llama-30b": Published(32_528_943_616, (60, 52, 128), 32000 * 6656),
    "huggyllama/llama-65b": Published(65_285_660_672, (80, 64, 128), 32000 * 8192),
    "huggyllama/llama-7b": Published(6_738_415_616, (32, 32, 128), 32000 * 4096),
    "internlm/internlm2-20b": Published(19_861_149_696, (48, 8, 128), 92544 * 6144),
    "internlm/internlm2-7b": Published(7_737_708_544, (32, 8, 128), 92544 * 4096),
    "internlm/internlm3-8b-instruct": Published(8_804_241_408, (48, 2, 128), 128512 * 4096),
    "meta-llama/Llama-2-13b-hf": Published(13_015_864_320, (40, 40, 128), 32000 * 5120),
    "meta-llama/Llama-2-70b-hf": Published(68_976_648_192, (80, 8, 128), 32000 * 8192),
    "meta-llama/Llama-2-7b-hf": Published(6_738_415_616, (32, 32, 128), 32000 * 4096),
    "meta-llama/Llama-3.1-405B": Published(405_853_388_800, (126, 8, 128), 128256 * 16384),
    "meta-llama/Llama-3.1-70B": Published(70_553_706_496, (80, 8, 128), 128256 * 8192),
    "meta-llama/Llama-3.1-8B": Published(8_030_261_248, (32, 8, 128), 128256 * 4096),
    "meta-llama/Llama-3.2-1B": Published(1_235_814_400, (16, 8, 64), 0),
    "meta-llama/Llama-3.2-3B": Published(3_212_749_824, (28, 8, 128), 0),
    "meta-llama/Llama-3.3-70B-Instruct": Published(70_553_706_496, (80, 8, 128), 128256 * 8192),
    "meta-llama/Meta-Llama-3-70B": Published(70_553_706_496, (80, 8, 128), 128256 * 8192),
    "meta-llama/Meta-Llama-3-8B": Published(8_030_261_248, (32, 8, 128), 128256 * 4096),
    "microsoft/Phi-3-medium-4k-instruct": Published(13_960_238_080, (40, 10, 128), 32064 * 5120),
    "microsoft/Phi-3-mini-4k-instruct": Published(3_821_079_552, (32, 32, 96), 32064 * 3072),
    "microsoft/Phi-3.5-mini-instruct": Published(3_821_079_552, (32, 32, 96), 32064 * 3072),
    "microsoft/Phi-4-mini-instruct": Published(3_836_021_760, (32, 8, 128), 0),
    "microsoft/phi-1_5": Published(1_418_270_720, (24, 32, 64), 51200 * 2048),
    "microsoft/phi-2": Published(2_779_683_840, (32, 32, 80), 51200 * 2560),
    "microsoft/phi-4": Published(14_659_507_200, (40, 10, 128), 100352 * 5120),
    "mistralai/Ministral-8B-Instruct-2410": Published(8_019_808_256, (36, 8, 128), 131072 * 4096),
    "mistralai/Mistral-7B-Instruct-v0.3": Published(7_248_023_552, (32, 8, 128), 32768 * 4096),
    "mistralai/Mistral-7B-v0.1": Published(7_241_732_096, (32, 8, 128), 32000 * 4096),
    "mistralai/Mistral-Large-Instruct-2407": Published(122_610_069_504, (88, 8, 128), 32768 * 12288),
    "mistralai/Mistral-Nemo-Instruct-2407": Published(12_247_782_400, (40, 8, 128), 131072 * 5120),
    "mistralai/Mistral-Small-24B-Instruct-2501": Published(23_572_403_200, (40, 8, 128), 131072 * 5120),
    "mistralai/Mixtral-8x22B-v0.1": Published(140_620_634_112, (56, 8, 128), 32000 * 6144, (39e9, 0.01)),
    "mistralai/Mixtral-8x7B-v0.1": Published(46_702_792_704, (32, 8, 128), 32000 * 4096, (12.9e9, 0.005)),
    "openai-community/gpt2-large": Published(774_030_080, (36, 20, 64), 1024 * 1280),
    "openai-community/gpt2-medium": Published(354_823_168, (24, 16, 64), 1024 * 1024),
    "openai-community/gpt2-xl": Published(1_557_611_200, (48, 25, 64), 1024 * 1600),
    "openai-community/gpt2": Published(124_439_808, (12, 12, 64), 1024 * 768),
    "tiiuae/falcon-40b": Published(41_303_293_952, (60, 8, 64), 0),
    "tiiuae/falcon-rw-1b": Published(1_311_625_216, (24, 32, 64), 0),
    "zai-org/GLM-4-32B-0414": Published(32_566_081_536, (61, 2, 128), 151552 * 6144),
    "zai-org/GLM-4-9B-0414": Published(9_400_279_040, (40, 2, 128), 151552 * 4096),
    "zai-org/chatglm3-6b": Published(6_243_584_000, (28, 2, 128), 65024 * 4096),
    "zai-org/glm-4-9b-chat-hf": Published(9_399_951_360, (40, 2, 128), 151552 * 4096),
    "bigcode/starcoder2-3b": Published(3_030_371_328, (30, 2, 128), 0),
    "bigcode/starcoder2-15b": Published(15_957_889_024, (40, 4, 128), 49152 * 6144),
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": Published(23_572_403_200, (40, 8, 128), 131072 * 5120),
    "stabilityai/stablelm-2-1_6b": Published(1_644_515_328, (24, 32, 64), 100352 * 2048),
    "stabilityai/stablelm-3b-4e1t": Published(2_795_443_200, (32, 32, 80), 50304 * 2560),
    # "Language Models are Few-Shot Learners" (table 2.1) and the OPT paper (table 1); the 7B has GPT-3 6.7B's shape,
    # the 30B has OPT-30B's.
    "gpt3-7b": Published(6.7e9, (32, 32, 128), 2048 * 4096, within=0.01),
    "gpt3-13b": Published(13e9, (40, 40, 128), 2048 * 5120, within=0.02),
    "gpt3-30b": Published(30e9, (48, 56, 128), 2048 * 7168, within=0.01),
    "gpt3-175b": Published(175e9, (96, 96, 128), 2048 * 12288, within=0.005),
    "facebook/opt-66b": Published(66e9, (64, 72, 128), 2050 * 9216, within=0.005),
    "opt-175b": Published(175e9, (96, 96, 128), 2050 * 12288, within=0.005),
    # Its name, and the shape that its config.json states.
    "internlm/internlm-7b": Published(7e9, (32, 32, 128), 103168 * 4096, within=0.05),
    "mistralai/Mixtral-8x22B-Instruct-v0.1": Published(140_630_071_296, (56, 8, 128), 32768 * 6144, (39e9, 0.01)),
}
SAME_SHAPE = {
    "Qwen/Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B",
    "Qwen/Qwen3-235B-A22B-Instruct-2507": "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen2-57B-A14B-Instruct": "Qwen/Qwen2-57B-A14B",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen/Qwen3-30B-A3B",
    "meta-llama/Llama-2-13b-chat-hf": "meta-llama/Llama-2-13b-hf",
    "meta-llama/Llama-2-70b-chat-hf": "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-2-7b-chat-hf": "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-3.1-405B-Instruct": "meta-llama/Llama-3.1-405B",
    "meta-llama/Llama-3.1-70B-Instruct": "meta-llama/Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B-Instruct": "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B-Instruct": "meta-llama/Llama-3.2-3B",
    "meta-llama/Meta-Llama-3-70B-Instruct": "meta-llama/Meta-Llama-3-70B",
    "meta-llama/Meta-Llama-3-8B-Instruct": "meta-llama/Meta-Llama-3-8B",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistralai/Mixtral-8x7B-v0.1",
}
"""Models tuned from others, whose shape they have."""
CHECKPOINT_BYTES = {
    # `metadata.total_size` of the checkpoint's model.safetensors.index.json, or the size of its one file's tensors.
    "meta-llama/Llama-3.1-8B": 16_060_522_496,
    "meta-llama/Llama-3.1-70B": 141_107_412_992,
    "meta-llama/Llama-3.1-405B": 811_706_777_600,
    "mistralai/Mistral-7B-v0.1": 14_483_464_192,
    "mistralai/Mistral-Nemo-Instruct-2407": 24_495_564_800,
    "mistralai/Mixtral-8x7B-v0.1": 93_405_585_408,
    "Qwen/Qwen2.5-7B": 15_231_233_024,
    "Qwen/Qwen2.5-72B": 145_412_407_296,
    "google/gemma-7b": 17_075_361_792,
    "google/gemma-2-9b": 18_483_411_968,
    "microsoft/phi-2": 5_559_367_680,
    "microsoft/phi-4": 29_319_014_400,
    "microsoft/Phi-3-mini-4k-instruct": 7_642_159_104,
    "01-ai/Yi-34B": 68_777_834_496,
    "internlm/internlm2-7b": 15_475_417_088,
}
NON_EMBEDDING = {
    # Parameters without embedding and LM head, and half a unit of the last digit that is stated.
    # The model cards of Pythia, exactly.
    "EleutherAI/pythia-160m": (85_056_000, 0),
    "EleutherAI/pythia-1.4b": (1_208_602_624, 0),
    "EleutherAI/pythia-6.9b": (6_444_163_072, 0),
    "EleutherAI/pythia-12b": (11_327_027_200, 0),
    # "Gemma: Open Models Based on Gemini Research and Technology", table 2; "Gemma 2", table 1; "Gemma 3", table 1.
    "google/gemma-2b": (1_981_884_416, 0),
    "google/gemma-7b": (7_751_248_896, 0),
    "google/gemma-2-2b": (2_024_517_888, 0),
    "google/gemma-2-9b": (8_324_201_984, 0),
    "google/gemma-2-27b": (26_047_480_320, 0),
    "google/gemma-3-1b-it": (698e6, 0.5e6),
    "google/gemma-3-4b-it": (3_209e6, 0.5e6),
    "google/gemma-3-12b-it": (10_759e6, 0.5e6),
    "google/gemma-3-27b-it": (25_600e6, 0.5e6),
    # The model cards of Qwen2.5 and Qwen3.
    "Qwen/Qwen2.5-1.5B": (1.31e9, 5e6),
    "Qwen/Qwen2.5-7B": (6.53e9, 5e6),
    "Qwen/Qwen2.5-14B": (13.1e9, 0.15e9),
    "Qwen/Qwen2.5-32B": (31.0e9, 0.25e9),
    "Qwen/Qwen2.5-72B": (70.0e9, 0.25e9),
    "Qwen/Qwen3-0.6B": (0.44e9, 5e6),
    "Qwen/Qwen3-1.7B": (1.4e9, 50e6),
    "Qwen/Qwen3-4B": (3.6e9, 50e6),
    "Qwen/Qwen3-8B": (6.95e9, 5e6),
    "Qwen/Qwen3-14B": (13.2e9, 50e6),
    "Qwen/Qwen3-32B": (31.2e9, 50e6),
    "Qwen/Qwen3-30B-A3B": (29.9e9, 50e6),
}
