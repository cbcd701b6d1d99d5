"""Traces of random batches for every model, parallelism, vocabulary and kind of batch that exists.

The kinds are what scheduling policies make: whole prompts beside decodes (Orca), chunks of prompts beside decodes
(chunked prefill), decodes only, prompts only, and several decode steps at once; with KV blocks moved in or out or not.
Mixtures of experts also come as waves of several data-parallel members, some of them idle, with redundant experts, and
with every routing that needs no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Literal

import numpy as np

from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.absorption import Absorption
from trace_gen.batch_shape import BatchShape, IntArray, KVTransfer, dummy_batch, empty_batch
from trace_gen.generator import AttentionPlacement, TraceGenerator
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import Routing
from trace_gen.mlp.routings import routings
from trace_gen.models import load_model, shipped_models
from trace_gen.perf_model import AttentionGranularity, LatencySource, OperatorTable
from trace_gen.precision import Precision
from trace_gen.vocabulary import FUSED, SPLIT, Vocabulary
from trace_test.rule import ModelFacts, Subject
from trace_test.subjects import of_trace

Kind = Literal["orca", "chunked", "decode", "prefill", "steps"]
KINDS: tuple[Kind, ...] = ("orca", "chunked", "decode", "prefill", "steps")
ABSORPTIONS: tuple[Absorption, ...] = ("auto", "auto", "absorb", "expand")
TENSOR, PIPELINE, DATA, CONTEXT = (1, 2, 4, 8), (1, 2, 3, 4), (1, 1, 2, 3, 4), (1, 1, 1, 2, 3)
MAX_REQUESTS, MAX_TOKENS, BLOCK = 8, 600, 16


@dataclass(slots=True)
class _WorkModel:
    """Times operators by their FLOPs alone: traces are checked for what they hold, not for how long it takes."""

    vocabulary: Vocabulary
    attention_granularity: AttentionGranularity
    latency_source: LatencySource = "model"

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """See `PerfModel.latency_ns`."""
        return np.maximum(operators.flops // 1000, 1)


def random_subjects(count: int, seed: int) -> Iterator[Subject]:
    """Yield `count` subjects; models, parallelisms and kinds take turns, so that many enough cover all of them."""
    random = Random(seed)
    models = sorted(shipped_models())
    random.shuffle(models)
    for number in range(count):
        architecture = load_model(models[number % len(models)], mla=ABSORPTIONS[number % len(ABSORPTIONS)])
        tensor, stages = TENSOR[number % 4], min(random.choice(PIPELINE), architecture.num_layers)
        mesh = _mesh(architecture, tensor, stages, random)
        yield _subject(architecture, mesh, KINDS[number % len(KINDS)], random, number)


def _mesh(architecture: ModelArchitecture, tensor: int, stages: int, random: Random) -> Mesh:
    """Return a mesh on which whole experts are spread, or not; several members where the model is a mixture.

    Of spread experts some are redundant, or none.
    """
    counts = [experts.count for experts in architecture.mixtures]
    data = random.choice(DATA) if counts else 1
    context = random.choice(CONTEXT)
    spread = tensor * data * context
    if not counts or any(count < spread for count in counts) or random.random() < 0.3:
        spread = 1
    layers = _layers(architecture.num_layers, stages, random) if random.random() < 0.3 else ()
    divides = all(count % spread == 0 for count in counts)
    redundant = spread * random.choice((0, 0, 1, 2)) if spread > 1 and divides else 0
    return Mesh(tensor, stages, spread, data, context, layers, redundant)


def _layers(count: int, stages: int, random: Random) -> tuple[int, ...]:
    """Return how many of `count` layers each stage has, however unequal."""
    edges = sorted(random.sample(range(1, count), stages - 1))
    return tuple(last - first for first, last in pairwise((0, *edges, count)))


def _subject(architecture: ModelArchitecture, mesh: Mesh, kind: Kind, random: Random, number: int) -> Subject:
    precision = Precision()
    placement: AttentionPlacement = random.choice(("heads", "requests"))
    placement = "heads" if architecture.absorption is not None else placement
    vocabulary: Vocabulary = random.choice((FUSED, SPLIT))
    granularity: AttentionGranularity = random.choice(("request", "batch"))
    if mesh.context > 1:
        placement, granularity = "heads", "batch"
    generator = TraceGenerator(
        architecture,
        mesh,
        _WorkModel(vocabulary, granularity),
        precision=precision,
        attention_placement=placement,
        attention_exchange=random.random() < 0.5,
        expert_exchange=random.choice(("alltoall", "allgather")),
        context_mode=random.choice(("ring", "allgather")),
        sequence_parallel=random.random() < 0.3,
        routing=_routing(architecture, steps=kind == "steps", random=random),
    )
    memory = ModelMemory(architecture, mesh, precision, generator.by_request)
    batches = _wave(kind, mesh, memory.kv_bytes_per_token_all_ranks, random)
    degrees = f", EP {mesh.expert}" if mesh.expert > 1 else ""
    degrees += f", DP {mesh.data}" if mesh.data > 1 else ""
    degrees += f", CP {mesh.context} ({generator.context_mode})" if mesh.context > 1 else ""
    degrees += ", norms by token" if generator.sequence_parallel else ""
    degrees += f", layers {mesh.layers}" if mesh.layers else ""
    degrees += f", {mesh.redundant_experts} redundant" if mesh.redundant_experts else ""
    degrees += f", {generator.routing.name} routing" if architecture.mixtures else ""
    shape = f"TP {mesh.tensor} x PP {mesh.pipeline}{degrees}"
    source = f"random {number}: {architecture.name}, {shape}, {kind}, {vocabulary.name}, attention by {placement}"
    trace = generator.generate(batches, random.randrange(1000))
    return of_trace(source, trace, ModelFacts(architecture, mesh, precision, batches))


def _routing(architecture: ModelArchitecture, *, steps: bool, random: Random) -> Routing:
    """Return one of the routings that need no file; those that differ by step have one step a trace."""
    names = ("balanced", "round_robin") if steps else ("balanced", "balanced", "random", "round_robin", "zipf")
    name = random.choice(names) if architecture.mixtures else "balanced"
    return routings.get(name)().routing(architecture, random.randrange(1000))


def _wave(kind: Kind, mesh: Mesh, kv_bytes_per_token: int, random: Random) -> tuple[BatchShape, ...]:
    """Return a batch for each member; of several that share experts, the later ones may be dummy or empty."""
    steps = random.randint(2, 5) if kind == "steps" else 1
    batches = [_batch(kind, steps, kv_bytes_per_token, random, 0)]
    for member in range(1, mesh.data):
        kinds = (None, None, dummy_batch, empty_batch if mesh.member_size == 1 else dummy_batch)
        idle = random.choice(kinds) if mesh.expert > 1 else None
        first_id = 10_000 * member
        batches.append(idle(steps) if idle else _batch(kind, steps, kv_bytes_per_token, random, first_id))
    return tuple(batches)


def _batch(kind: Kind, steps: int, kv_bytes_per_token: int, random: Random, first_id: int) -> BatchShape:
    count = random.randint(1, MAX_REQUESTS)
    ids = [first_id + number for number in random.sample(range(1000), count)]
    new, context, samples = zip(*(_request(kind, random) for _ in range(count)), strict=True)
    moved = [_transfer(request, kv_bytes_per_token, random) for request in random.sample(ids, random.randint(0, 1))]
    evicted = [_transfer(first_id + 1000 + n, kv_bytes_per_token, random) for n in range(random.randint(0, 2))]
    return BatchShape(
        request_ids=np.array(ids, dtype=np.int64),
        new_tokens=np.array(new, dtype=np.int64),
        context_tokens=np.array(context, dtype=np.int64),
        samples=np.array(samples, dtype=np.int64),
        kv_loads=tuple(moved),
        kv_evictions=tuple(evicted),
        steps=steps,
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
