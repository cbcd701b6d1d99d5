"""Batches, models and generators for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from trace_gen.architecture import Layer, ModelArchitecture, layer_runs
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.batch_shape import BatchShape, KVTransfer
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.interface import Mlp
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import Trace

LLAMA = "meta-llama/Llama-3.1-8B"
MIXTRAL, QWEN = "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3-30B-A3B"
DENSE = (LLAMA, "gpt2", "facebook/opt-6.7b", "huggyllama/llama-7b", "gpt3-13b", "meta-llama/Llama-3.1-405B")
MIXTURES = (MIXTRAL, QWEN, "Qwen/Qwen1.5-MoE-A2.7B")
FAMILIES = (*DENSE, *MIXTURES)


def batch(
    new: Sequence[int],
    context: Sequence[int] | None = None,
    samples: Sequence[int] | None = None,
    steps: int = 1,
    first_id: int = 0,
    loads: tuple[KVTransfer, ...] = (),
    evictions: tuple[KVTransfer, ...] = (),
) -> BatchShape:
    count = len(new)
    return BatchShape(
        request_ids=np.arange(first_id, first_id + count, dtype=np.int64),
        new_tokens=np.array(new, dtype=np.int64),
        context_tokens=np.array(context if context is not None else [0] * count, dtype=np.int64),
        samples=np.array(samples if samples is not None else [1] * count, dtype=np.int64),
        kv_loads=loads,
        kv_evictions=evictions,
        steps=steps,
    )


@cache
def model(name: str = LLAMA) -> ModelArchitecture:
    return load_model(name)


def only_layer(architecture: ModelArchitecture) -> tuple[GroupedAttention, Mlp]:
    """Return attention and MLP of a model whose layers are all alike."""
    (layer,) = architecture.layer_kinds
    assert isinstance(layer.attention, GroupedAttention)
    return layer.attention, layer.mlp


def experts_of(architecture: ModelArchitecture) -> Experts:
    (experts,) = architecture.mixtures
    return experts


def with_layers(architecture: ModelArchitecture, *layers: Layer) -> ModelArchitecture:
    return replace(architecture, runs=layer_runs(layers))


def generator(
    name: str = LLAMA,
    tensor: int = 1,
    pipeline: int = 1,
    perf_model: str = "roofline",
    expert: int = 1,
    **options: Any,
) -> TraceGenerator:
    return make_generator(model(name), tensor, pipeline, perf_model, expert, **options)


def make_generator(
    architecture: ModelArchitecture,
    tensor: int = 1,
    pipeline: int = 1,
    perf_model: str = "roofline",
    expert: int = 1,
    hardware: str = "RTX3090",
    data: int = 1,
    context: int = 1,
    layers: tuple[int, ...] = (),
    **options: Any,
) -> TraceGenerator:
    latencies = make_perf_model(perf_model, PerfModelOptions(architecture, load_hardware(hardware), tensor))
    return TraceGenerator(architecture, Mesh(tensor, pipeline, expert, data, context, layers), latencies, **options)


def rows_named(trace: Trace, name: str) -> list[int]:
    return [row for row in range(trace.rows) if trace.name(row) == name]


batches = st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3000), st.booleans()), min_size=1, max_size=6).map(
    lambda rows: batch(
        [new for new, _, _ in rows], [context for _, context, _ in rows], [sampled for _, _, sampled in rows]
    )
)
decodes = st.lists(st.integers(1, 4000), min_size=1, max_size=8)
