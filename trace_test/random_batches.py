"""Traces of random batches for every model, parallelism, vocabulary and kind of batch that exists.

The kinds are what scheduling policies make: whole prompts beside decodes (Orca), chunks of prompts beside decodes
(chunked prefill), decodes only, prompts only, and several decode steps at once; with KV blocks moved in or out or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape, IntArray, KVTransfer
from trace_gen.generator import AttentionPlacement, TraceGenerator
from trace_gen.memory_layout import MemoryLayout
from trace_gen.models import load_model, shipped_models
from trace_gen.operators import Vocabulary
from trace_gen.parallelism import Parallelism
from trace_gen.perf_model import AttentionGranularity, LatencySource, OperatorTable
from trace_gen.sharding import Precision
from trace_test.rule import ModelFacts, Subject
from trace_test.subjects import of_trace

Kind = Literal["orca", "chunked", "decode", "prefill", "steps"]
KINDS: tuple[Kind, ...] = ("orca", "chunked", "decode", "prefill", "steps")
TENSOR, PIPELINE = (1, 2, 4, 8), (1, 2, 3, 4)
MAX_REQUESTS, MAX_TOKENS, BLOCK = 8, 600, 16


@dataclass(slots=True)
class _WorkModel:
    """Times operators by their FLOPs alone: traces are checked for what they hold, not for how long it takes."""

    vocabulary: Vocabulary
    attention_granularity: AttentionGranularity
    latency_source: LatencySource = "model"

    def latency_ns(self, operators: OperatorTable, batch: BatchShape) -> IntArray:
        """See `PerfModel.latency_ns`."""
        return np.maximum(operators.flops // 1000, 1)


def random_subjects(count: int, seed: int) -> Iterator[Subject]:
    """Yield `count` subjects; models, parallelisms and kinds take turns, so that many enough cover all of them."""
    random = Random(seed)
    models = sorted(shipped_models())
    random.shuffle(models)
    for number in range(count):
        architecture = load_model(models[number % len(models)])
        tensor, stages = TENSOR[number % 4], min(random.choice(PIPELINE), architecture.num_layers)
        parallelism = Parallelism(tensor, stages, _expert_ranks(architecture, tensor, random))
        yield _subject(architecture, parallelism, KINDS[number % len(KINDS)], random, number)


def _expert_ranks(architecture: ModelArchitecture, tensor: int, random: Random) -> int:
    """Return over how many ranks whole experts are spread: 1, or all of a stage where they divide the experts."""
    if architecture.experts is None or architecture.experts.count % tensor:
        return 1
    return random.choice((1, tensor))


def _subject(
    architecture: ModelArchitecture, parallelism: Parallelism, kind: Kind, random: Random, number: int
) -> Subject:
    precision = Precision()
    placement: AttentionPlacement = random.choice(("heads", "requests"))
    vocabulary: Vocabulary = random.choice(("fused", "split"))
    granularity: AttentionGranularity = random.choice(("request", "batch"))
    generator = TraceGenerator(
        architecture,
        parallelism,
        _WorkModel(vocabulary, granularity),
        precision=precision,
        attention_placement=placement,
        attention_exchange=random.random() < 0.5,
    )
    layout = MemoryLayout(architecture, parallelism, precision, generator.by_request)
    batch = _batch(kind, layout.kv_bytes_per_token_all_ranks, random)
    experts = f", EP {parallelism.expert}" if parallelism.expert > 1 else ""
    shape = f"TP {parallelism.tensor} x PP {parallelism.pipeline}{experts}"
    source = f"random {number}: {architecture.name}, {shape}, {kind}, {vocabulary}, attention by {placement}"
    return of_trace(source, generator.generate(batch), ModelFacts(architecture, parallelism, precision, batch))


def _batch(kind: Kind, kv_bytes_per_token: int, random: Random) -> BatchShape:
    count = random.randint(1, MAX_REQUESTS)
    ids = random.sample(range(1000), count)
    new, context, samples = zip(*(_request(kind, random) for _ in range(count)), strict=True)
    moved = [_transfer(request, kv_bytes_per_token, random) for request in random.sample(ids, random.randint(0, 1))]
    evicted = [_transfer(1000 + n, kv_bytes_per_token, random) for n in range(random.randint(0, 2))]
    return BatchShape(
        request_ids=np.array(ids, dtype=np.int64),
        new_tokens=np.array(new, dtype=np.int64),
        context_tokens=np.array(context, dtype=np.int64),
        samples=np.array(samples, dtype=np.int64),
        kv_loads=tuple(moved),
        kv_evictions=tuple(evicted),
        steps=random.randint(2, 5) if kind == "steps" else 1,
    )


def _request(kind: Kind, random: Random) -> tuple[int, int, bool]:
    """Return tokens computed now, tokens in the cache, and whether the request is sampled."""
    decodes = kind in ("decode", "steps") or (kind != "prefill" and random.random() < 0.5)
    if decodes:
        return 1, random.randint(1, MAX_TOKENS), True
    if kind == "chunked":
        return random.randint(2, MAX_TOKENS), random.choice((0, 128, 512)), random.random() < 0.5
    return random.randint(1, MAX_TOKENS), 0, True


def _transfer(request: int, kv_bytes_per_token: int, random: Random) -> KVTransfer:
    blocks = random.randint(1, 20)
    return KVTransfer(request, blocks, blocks * BLOCK, blocks * BLOCK * kv_bytes_per_token)
