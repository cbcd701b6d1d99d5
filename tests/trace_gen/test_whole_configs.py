"""Configs as their authors publish them, every field of them: read without a refusal and without a note."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trace_cases import model

from trace_gen.models import load_model

TOKENS = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "use_cache": True,
    "transformers_version": "4",
}
WHOLE: dict[str, dict[str, object]] = {
    "openai-community/gpt2": {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "resid_pdrop": 0.1, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "EleutherAI/gpt-neox-20b": {
        "attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "is_decoder": True,
        "layer_norm_eps": 1e-05, "rotary_emb_base": 10000, "tie_word_embeddings": False, "torch_dtype": "float16",
    },
    "tiiuae/falcon-40b": {
        "attention_dropout": 0.0, "hidden_dropout": 0.0, "layer_norm_epsilon": 1e-05, "torch_dtype": "bfloat16",
        "apply_residual_connection_post_layernorm": False, "auto_map": {"AutoConfig": "a.b"},
    },
    "tiiuae/falcon-7b": {"num_kv_heads": 71, "attention_dropout": 0.0, "hidden_dropout": 0.0},
    "facebook/opt-350m": {
        "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu", "dropout": 0.1,
        "attention_dropout": 0.0, "init_std": 0.02, "layerdrop": 0.0, "prefix": "</s>", "pad_token_id": 1,
        "torch_dtype": "float16",
    },
    "meta-llama/Llama-3.2-1B": {
        "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "mlp_bias": False, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "rope_type": "llama3"}, "rope_theta": 500000.0,
    },
    "mistralai/Mistral-Nemo-Instruct-2407": {"hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 1000000.0},
    "Qwen/Qwen-7B": {
        "architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0, "bf16": False, "emb_dropout_prob": 0.0,
        "fp16": False, "fp32": False, "layer_norm_epsilon": 1e-06, "onnx_safe": None, "rotary_emb_base": 10000,
        "scale_attn_weights": True, "seq_length": 8192, "tokenizer_class": "QWenTokenizer", "use_dynamic_ntk": True,
        "use_flash_attn": "auto", "use_logn_attn": True, "use_cache_quantization": False, "use_cache_kernel": False,
        "softmax_in_fp32": False,
    },
    "Qwen/Qwen2.5-7B": {
        "attention_dropout": 0.0, "hidden_act": "silu", "max_window_layers": 28, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 131072, "use_mrope": False,
    },
    "Qwen/Qwen3-8B": {
        "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "max_window_layers": 36,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    },
    "microsoft/phi-2": {
        "attention_dropout": 0.0, "embd_pdrop": 0.0, "hidden_act": "gelu_new", "layer_norm_eps": 1e-05,
        "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0,
    },
    "microsoft/Phi-3-mini-4k-instruct": {
        "attention_bias": False, "attention_dropout": 0.0, "auto_map": {}, "embd_pdrop": 0.0, "hidden_act": "silu",
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    },
    "microsoft/Phi-4-mini-instruct": {
        "attention_bias": False, "embd_pdrop": 0.0, "full_attn_mod": 1, "hidden_act": "silu", "interpolate_factor": 1,
        "lm_head_bias": False, "mlp_bias": False, "original_max_position_embeddings": 4096, "resid_pdrop": 0.0,
        "rope_scaling": {"type": "longrope", "long_factor": [1], "short_factor": [1]}, "rope_theta": 10000.0,
    },
    "google/gemma-7b": {
        "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "gelu", "hidden_activation": None,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "pad_token_id": 0,
    },
    "google/gemma-2-9b": {
        "attention_bias": False, "attention_dropout": 0.0, "cache_implementation": "hybrid", "hidden_act": "gelu",
        "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window_size": 4096,
    },
    "google/gemma-3-1b-it": {
        "attention_bias": False, "attn_logit_softcapping": None, "cache_implementation": "hybrid",
        "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
    },
    "internlm/internlm2-7b": {
        "attn_implementation": "eager", "hidden_act": "silu", "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 1000000,
    },
    "internlm/internlm3-8b-instruct": {
        "attention_dropout": 0.0, "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 50000000,
        "rope_scaling": {"factor": 6.0, "rope_type": "dynamic"},
    },
    "zai-org/glm-4-9b-chat-hf": {
        "attention_dropout": 0.0, "hidden_act": "silu", "pad_token_id": 151329, "rms_norm_eps": 1.5625e-07,
        "rope_theta": 10000.0,
    },
    "zai-org/chatglm3-6b": {
        "apply_query_key_layer_scaling": True, "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0, "attention_softmax_in_fp32": True, "bias_dropout_fusion": True,
        "classifier_dropout": None, "fp32_residual_connection": False, "hidden_dropout": 0.0, "interleaved_qkv": False,
        "layernorm_epsilon": 1e-05, "original_rope": True, "post_layer_norm": True, "pre_seq_len": None,
        "prefix_projection": False, "quantization_bit": 0, "rmsnorm": True, "vocab_size": 65024,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""What the published file has beside what the shipped one holds."""


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_config_is_read(name: str, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / f"configs/models/{name}.json"
    folder = tmp_path / "whole"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**TOKENS, **json.loads(shipped.read_text()), **WHOLE[name]}))
    read = load_model(str(folder))
    assert read.notes == ()
    shape = model(name)
    assert (read.runs, read.hidden_size, read.vocab_size) == (shape.runs, shape.hidden_size, shape.vocab_size)
