"""Fields of a config.json that its family did not read: none that changes the work is left out in silence.

A family reads what it knows. Of what is left, names fall into four sorts: those that change no operator (token ids,
dropout, how positions are scaled), those that change the work (refused, unless their value says that the feature is
off), those of the other parts of a multimodal model (a note: only the text part is simulated), and unknown ones (a
note that names them). A family whose other fields make one of these meaningless calls `Fields.pass_over`.
"""

from __future__ import annotations

from collections.abc import Iterator

from foundation.fields import Fields
from foundation.printable import brief, shorten
from trace_gen.families import TEXT_PART

_NAMED = 8
"""So many unknown fields are named in a note."""
_OFF: tuple[object, ...] = (False, 0, "", [], {})
_WHOLE = frozenset({"rotary_pct", "partial_rotary_factor", "full_attn_mod"})
"""The part of each head, or every how manieth layer: 1 is all, as where the field is absent."""


def _names(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in text.split())


_HARMLESS = _names(
    # what the file is, and who wrote it
    """
    architectures auto_map model_type _name_or_path name_or_path transformers_version torch_dtype dtype params_dtype
    fp16 bf16 fp32 torchscript tokenizer_class finetuning_task task_specific_params problem_type id2label label2id
    num_labels language _commit_hash base_model_name_or_path model_name name version license prefix onnx_safe
    unsloth_fixed unsloth_version
    """,
    # token ids, and the length of texts
    """
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
    bos_token eos_token pad_token forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
    bad_words_ids model_max_length max_sequence_length seq_length seq_len initial_context_length for_llm_compressor
    """,
    # how the model is trained, and how numbers are drawn or kept from overflowing
    """
    initializer_range initializer_factor init_std init_method embedding_initializer_range dropout attention_dropout
    attn_dropout hidden_dropout activation_dropout ffn_dropout attention_dropout_prob attention_probs_dropout_prob
    hidden_dropout_prob attn_dropout_prob emb_dropout_prob classifier_dropout embd_pdrop resid_pdrop attn_pdrop
    embedding_dropout residual_dropout layerdrop summary_activation summary_first_dropout summary_proj_to_labels
    summary_type summary_use_proj gradient_checkpointing use_gradient_checkpointing pretraining_tp router_aux_loss_coef
    output_router_logits router_jitter_noise input_jitter_noise aux_loss_alpha router_z_loss_coef seq_aux z_loss
    reorder_and_upcast_attn scale_attn_by_inverse_layer_idx scale_attn_weights softmax_in_fp32 attention_softmax_in_fp32
    apply_query_key_layer_scaling fp32_residual_connection bias_dropout_fusion interleaved_qkv prefix_projection
    apply_residual_connection_post_layernorm
    """,
    # which function, with which constants: an element costs the same
    """
    hidden_act hidden_activation activation_function activation rms_norm_eps layer_norm_eps layer_norm_epsilon
    layernorm_epsilon norm_epsilon norm_eps query_pre_attn_scalar attention_multiplier attn_scale swiglu_limit
    attn_temperature_tuning floor_scale
    """,
    # how a router's scores are made into weights
    """
    scoring_func norm_topk_prob routed_scaling_factor topk_method experts_per_token
    """,
    # where positions are, not how many elements they turn
    """
    rope_theta rope_scaling rope_parameters rope_type rope_ratio rope_local_base_freq rope_interleave rope_interleaved
    rotary_base rotary_emb_base original_max_position_embeddings use_dynamic_ntk use_logn_attn original_rope use_mrope
    interpolate_factor
    """,
    # how a library runs the model, and what it returns
    """
    use_cache output_attentions output_hidden_states return_dict attn_implementation _attn_implementation
    _attn_implementation_autoset _flash_attn_2_enabled use_flash_attn use_bfloat16 use_cache_kernel pruned_heads
    chunk_size_feed_forward cache_implementation is_decoder do_sample temperature top_k top_p typical_p num_beams
    num_beam_groups max_length min_length length_penalty repetition_penalty diversity_penalty early_stopping
    no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences return_dict_in_generate output_scores
    remove_invalid_values exponential_decay_length_penalty use_mem_efficient_attention
    """,
)
"""Fields that change no operator, in any family."""

_CHANGING = _names(
    # attention
    """
    sliding_window use_sliding_window sliding_window_pattern attention_chunk_size layer_types full_attn_mod
    local_attention_every_n_layers full_attention_interval attn_logit_softcapping attn_logit_softcap attention_bias
    qkv_bias add_qkv_bias use_qk_norm qk_norm qk_layernorm clip_qkv use_bidirectional_attention alibi multi_query
    num_key_value_heads num_kv_heads head_dim multi_query_attention multi_query_group_num kv_channels v_head_dim
    rotary_pct rope_pct rotary_dim partial_rotary_factor no_rope_layers no_rope_layer_interval attention_sinks
    add_swa_sink_bias q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim index_topk index_n_heads
    num_kv_shared_layers cross_attention_layers add_cross_attention use_cache_quantization head_dim_list
    num_attention_heads_per_layer attention_other_setting swa_head_dim
    """,
    # feed-forward networks and experts
    """
    mlp_bias use_bias add_bias_linear ffn_hidden_size num_experts num_local_experts n_routed_experts num_experts_per_tok
    moe_intermediate_size moe_num_experts moe_topk moe_layer_freq moe_layers interleave_moe_layer_step
    first_k_dense_replace n_shared_experts num_shared_experts shared_expert_intermediate_size shared_intermediate_size
    decoder_sparse_step mlp_only_layers zero_expert_num activation_sparsity_pattern block_ffn_config
    """,
    # blocks, and what stands around them
    """
    parallel_attn use_parallel_residual parallel_residual new_decoder_architecture word_embed_proj_dim
    _remove_final_layer_norm hidden_size_per_layer_input altup_num_inputs laurel_rank lm_head_bias
    final_logit_softcapping num_nextn_predict_layers num_mtp_modules mtp_num_hidden_layers is_encoder_decoder
    encoder_layers num_encoder_layers pre_seq_len block_configs
    """,
    # layers that are no attention
    """
    layers_block_type block_types hybrid_override_pattern attn_layer_period attn_layer_indices mamba_d_state mamba_d_ssm
    mamba_num_heads ssm_cfg ssm_state_size linear_attn_config linear_num_key_heads linear_num_value_heads lru_width
    full_attn_idxs attn_type_list
    """,
    # how weights are stored, by other names
    "compression_config quantization quantization_bit",
)
"""Fields that change what is computed or stored, unless their value says that there is none of it."""

_OTHER_PARTS = _names(
    """
    vision_config audio_config vision_tower_config speech_config tts_config projector_config mm_tokens_per_image
    vision_feature_layer vision_feature_select_strategy projector_hidden_act multimodal_projector_bias
    spatial_merge_size visual embd_layer img_processor audio_processor boi_token_index eoi_token_index
    image_token_index audio_token_index video_token_index boi_token_id eoi_token_id image_token_id audio_token_id
    video_token_id vision_start_token_id vision_end_token_id vision_token_id
    """,
)
"""Fields of a multimodal model's other parts."""


def check_unread(fields: Fields, name: str) -> tuple[str, ...]:
    """Return notes on what the model called `name` has and no simulation of it has, one sentence each.

    Fields that change the work and were not read become problems of `fields`.
    """
    parts, unknown = [], []
    for place, group in _groups(fields):
        for field in group.unread():
            if field in _CHANGING:
                _refuse(field, group)
            elif field in _OTHER_PARTS:
                parts.append(place + field)
            elif field not in _HARMLESS:
                unknown.append(place + field)
    notes = []
    others = [part for part in parts if part.endswith("_config")]
    if others:
        notes.append(f"{name} has parts that are not simulated, only its text decoder is: {_listed(others)}")
    if unknown:
        notes.append(f"{name} has fields that are unknown; whatever they mean is not simulated: {_listed(unknown)}")
    return tuple(notes)


def _refuse(field: str, group: Fields) -> None:
    value = group.values[field]
    if not _is_off(field, group):
        shown = "" if isinstance(value, dict | list) else f"{brief(value)} "
        said = f"{shown}changes what is computed, and is not modelled for this model_type"
        group.problem(said, field, "use a model without it")


def _groups(fields: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield a multimodal model's own fields and those of its decoder, each with what their names begin with."""
    yield "", fields
    if isinstance(fields.values.get(TEXT_PART), dict) and TEXT_PART not in fields.unread():
        yield f"{TEXT_PART}.", fields.object(TEXT_PART)


def _is_off(field: str, group: Fields) -> bool:
    """Whether the value of `field` says that the model has nothing of it."""
    value = group.values[field]
    if field == "layer_types" and isinstance(value, list):
        return all(kind == "full_attention" for kind in value)
    if field == "sliding_window" and group.values.get("use_sliding_window") is False:
        return True
    return value in _OFF or (field in _WHOLE and value == 1)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shorten, names[:_NAMED])) + more
