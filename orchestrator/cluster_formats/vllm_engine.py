"""The arguments of a vLLM engine in a JSON file: by themselves, or as LLMServingSim's recordings hold them.

A recording is an object with `engine_kwargs`; what else it says (number of requests, their file, how often statistics
were taken) is about the workload. Arguments are vLLM's (`vllm.EngineArgs`), null is vLLM's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.documents import Document, read_json
from foundation.fields import Fields
from foundation.key_paths import shown_key_path
from foundation.settings.catalogue import Catalogue
from foundation.settings.files import values_of
from foundation.settings.reading import Given, Layers

WHAT = "engine configuration"
_KWARGS = "engine_kwargs"
_AROUND = ("model", "num_requests", "tick_seconds", "dataset_path", _KWARGS)
_PARALLEL = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "prefill_context_parallel_size",
    "enable_expert_parallel",
    "num_redundant_experts",
)
_STEPS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "long_prefill_token_threshold",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "async_scheduling",
    "scheduling_policy",
    "scheduler_reserve_full_isl",
)
_MEMORY = ("gpu_memory_utilization", "num_gpu_blocks_override", "block_size")
_NUMBERS = ("dtype", "kv_cache_dtype", "quantization")
_ADAPTERS = ("enable_lora", "max_loras", "max_lora_rank")
READ = ("model", *_PARALLEL, *_STEPS, *_MEMORY, *_NUMBERS, *_ADAPTERS, "vllm_version")
"""Arguments that are settings of the same meaning."""
MEMBERS = "data_parallel_size"
_SPECULATIVE = {
    "method": "speculative_method",
    "num_speculative_tokens": "num_speculative_tokens",
    "model": "speculative_model",
}
_SPECULATIVE_CONFIG = "speculative_config"
NO_EFFECT = frozenset(
    {
        "seed",
        "tokenizer",
        "tokenizer_mode",
        "skip_tokenizer_init",
        "trust_remote_code",
        "load_format",
        "download_dir",
        "revision",
        "served_model_name",
        "disable_log_stats",
        "disable_log_requests",
        "distributed_executor_backend",
    }
)
"""Arguments that change nothing of what is simulated."""


def read_engine_config(path: Path, known: Catalogue) -> Layers:
    """Return what the file says, all in `Layers.file`; `data_parallel_size` keeps its name where it is above 1.

    A file that is no JSON object is a `UserError`; what is wrong inside is in `Layers.problems`.
    """
    document = read_json(path, WHAT)
    top = Fields.of(document)
    recorded = top.has(_KWARGS)
    if recorded:
        top.only(_AROUND)
    arguments = top.object(_KWARGS, required=True) if recorded else top
    arguments.only({*READ, *NO_EFFECT, MEMBERS, _SPECULATIVE_CONFIG})
    taken = {name: arguments.values[name] for name in arguments.names() if name in READ}
    values = values_of(document, arguments.place, taken, known, top.problems)
    values |= _speculation(document, arguments)
    if arguments.positive_int(MEMBERS, default=1) > 1:
        values[MEMBERS] = _given(document, (*arguments.place, MEMBERS), arguments.values[MEMBERS])
    values["scheduling"] = _given(document, arguments.place, "vllm")
    if recorded:
        _check_model(top, arguments)
    return Layers(file=values, problems=top.problems)


def _check_model(top: Fields, arguments: Fields) -> None:
    """Refuse a recording of another model than the engine's."""
    recorded, served = top.text("model", default=None), arguments.text("model", default=None)
    if recorded != served and recorded is not None and served is not None:
        top.problem(
            f"{recorded!r}, but {shown_key_path(arguments.place)} has {served!r}", "model", "make them the same"
        )


def _speculation(document: Document, arguments: Fields) -> Mapping[str, Given]:
    """Return the settings of the object that says how tokens are guessed."""
    config = arguments.object(_SPECULATIVE_CONFIG)
    config.only(_SPECULATIVE)
    return {
        _SPECULATIVE[name]: _given(document, (*config.place, name), value)
        for name, value in config.values.items()
        if name in _SPECULATIVE and value is not None
    }


def _given(document: Document, place: tuple[str | int, ...], value: Any) -> Given:
    return Given(value, shown_key_path(place) or WHAT, path=document.path, line=document.line(place))
