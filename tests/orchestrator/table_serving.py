"""Engines whose batches take what tables say, in both ways: as objects, and as a compiled loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.engine.batch import Batch, IntArray
from orchestrator.pricing.interface import Cost
from trace_gen.attention.work import AttentionShape
from trace_gen.hardware import load_hardware
from trace_gen.perf_model import AttentionPart
from trace_gen.perf_models.roofline.attention import AttentionRoofline

SHAPES = (
    AttentionShape(8, 2, 4 * 64, 512, 1024, 1024, 256),
    AttentionShape(8, 8, 4 * 64, 2048, 1024, 1024, 1024, window=9),
)


class Tables:
    """Prices of so many tokens and samples that nobody else would make up; filled when they are asked for."""

    def __init__(self, stages: int, tokens: int, samples: int, *, steep: int) -> None:
        self.stages = stages
        self.classes = ("compute", "attention")
        self.roofline = AttentionRoofline(load_hardware("H100"), 1e14, 1e11)
        layers = [np.arange(stages) + 1, np.arange(stages) % 2]
        self.attention = tuple((self.roofline.compiled(shape), own) for shape, own in zip(SHAPES, layers, strict=True))
        self.padded = np.array([8 * -(-count // 8) if count <= 32 else count for count in range(tokens + 1)])
        self.tokens_ns = np.full((max(tokens, 40) + 1, stages), -1, dtype=np.int64)
        self.samples_ns = np.full((samples + 1, stages), -1, dtype=np.int64)
        self.tokens_busy = np.zeros((len(self.tokens_ns), 2), dtype=np.int64)
        self.samples_busy = np.zeros((samples + 1, 2), dtype=np.int64)
        self.attention_class = 1
        self._steep = steep
        self.looks_up = False

    def fill(self, tokens: int, samples: int) -> None:
        self.tokens_ns[tokens] = 1000 + self._steep * tokens + np.arange(self.stages)
        self.samples_ns[samples] = 5 * samples * (np.arange(self.stages) == self.stages - 1)
        self.tokens_busy[tokens, 0] = self.tokens_ns[tokens].sum()
        self.samples_busy[samples, 0] = self.samples_ns[samples].sum()


class TablePricing:
    """`tables` as the object engines ask for prices."""

    classes = ("compute", "attention")
    max_steps = 10**6

    def __init__(self, tables: Tables) -> None:
        self.stages = tables.stages
        self._tables = tables

    def price(self, wave: Sequence[Batch]) -> Cost:
        (batch,) = wave
        tables, new = self._tables, int(batch.new_tokens.sum())
        tokens, samples = int(tables.padded[new]), int(batch.samples.sum())
        tables.fill(tokens, samples)
        attention = np.zeros((batch.steps, self.stages), dtype=np.int64)
        for shape, (_, layers) in zip(SHAPES, tables.attention, strict=True):
            attention += self._attention_ns(batch, shape)[:, None] * layers
        stages = tables.tokens_ns[tokens] + tables.samples_ns[samples] + attention
        spent = attention.sum(axis=1)
        busy = np.stack((stages.sum(axis=1) - spent, spent), axis=1)
        return Cost(stages.cumsum(axis=1)[None], busy[None])

    def _attention_ns(self, batch: Batch, shape: AttentionShape) -> IntArray:
        own = batch.shape()
        part = AttentionPart(np.zeros(1, dtype=np.int64), False, shape, own, shape.work(own))
        return np.maximum(np.rint(self._tables.roofline.batch_ns(part)), 1).astype(np.int64)
