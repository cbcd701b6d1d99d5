"""The tables of one deployment: what its iterations take but for attention, by the counts that decide it.

Entries are worked out when they are asked for, and held to the traced way: the first iteration of each structure, and
one for every `BLOCK` values of a count, are priced both ways. Where the two differ the tables are of no use (`unfit`).
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import numpy as np

from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError
from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.pricing.compiled.communication import Communication
from orchestrator.pricing.compiled.count_table import BLOCK, CountTable
from orchestrator.pricing.compiled.covering import lacks, uncovered
from orchestrator.pricing.compiled.remembered import RememberedLookups
from orchestrator.pricing.graphs import CapturedGraphs
from orchestrator.pricing.interface import Cost
from orchestrator.pricing.traced import TracedPricing
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.operators import Portion
from trace_gen.perf_model import CompilesAttention, TimesAttention
from trace_gen.sized_columns import Count, SizedColumns
from trace_gen.trace import CommType, IntArray, OperatorClass, Trace

MOST_VALUES = 2048
"""Entries that tables begin with."""
BASES_KEPT = 4096
"""Sums of entries that are remembered: decodes come again and again."""


@dataclass(frozen=True, eq=False)
class AttentionLayers:
    """Attention of one shape, for the requests of `portion`, in so many `layers` of each stage, ``[stages]``."""

    shape: AttentionShape
    portion: Portion
    layers: IntArray

    @cached_property
    def total(self) -> int:
        """Layers on all stages."""
        return int(self.layers.sum())

    def requests(self, batch: BatchShape) -> BatchShape:
        """Return the requests of `batch` that it works for."""
        if self.portion is Portion.ALL:
            return batch
        return batch.only(batch.decoding if self.portion is Portion.DECODES else ~batch.decoding)


class PriceTables:
    """Prices single batches of `generator`, whose truth is `traced`; `graphs` says what a captured step computes.

    A compiled loop reads them as arrays: `tokens_ns`, `samples_ns` ``[values, stages]`` (negative where not worked out
    yet), `tokens_busy`, `samples_busy` ``[values, classes]``, `padded` ``[values]``: the tokens that a step of so many
    runs as, and `attention`. They have room for so many `tokens` and `samples`, and stay the same arrays until there
    are more. `reason` says why such a loop has no use for them, `unfit` why nobody has (one clause each, or None).
    """

    def __init__(
        self,
        generator: TraceGenerator,
        traced: TracedPricing,
        graphs: CapturedGraphs,
        tokens: int = MOST_VALUES,
        samples: int = MOST_VALUES,
    ) -> None:
        self.classes, self.stages = traced.classes, traced.stages
        self.layers: tuple[AttentionLayers, ...] = ()
        self.generator, self._traced, self._graphs = generator, traced, graphs
        self._tables: dict[Count, CountTable] = {}
        self._bases: dict[tuple[int, ...], tuple[IntArray, IntArray]] = {}
        self._checked: set[tuple[object, ...]] = set()
        self._looked_up = RememberedLookups(generator.perf_model, self._tables)
        self.unfit = uncovered(generator)
        if self.unfit is None:
            self.attention_class = traced.work.place(OperatorClass.ATTENTION)
            with self._looked_up.apart():
                self._lay_out({Count.TOKENS: int(graphs.sizes_for(tokens)[-1]), Count.SAMPLES: samples})

    def _lay_out(self, most: dict[Count, int]) -> None:
        """Find out what iterations are made of, by one that has everything: a prompt and a decode."""
        ids, new, context, samples = np.array([(0, 1), (1, 2), (1, 0), (1, 1)], dtype=np.int64)
        everything = BatchShape(ids, new, context, samples)
        trace = self.generator.generate([everything])
        if trace.dep_rows.size or (trace.comm_type == CommType.PERMUTE).any():
            self.unfit = "operators run side by side"
            return
        structure, shape = self.generator.structure([everything])
        self.layers = tuple(
            AttentionLayers(part.shape, part.portion, self._layers(trace, part.columns)) for part in shape.attention
        )
        traced = self._traced

        def finish_ns(graph: ExecutionGraph) -> IntArray:
            return traced.finish_ns(graph)[0, :, 0]

        communication = Communication(trace, traced.lower, finish_ns, traced.stage_of)
        for count in Count:
            columns = SizedColumns(self.generator, structure, count)
            if columns.columns.size or count in most:
                self._tables[count] = CountTable(columns, trace, communication, traced.work, most.get(count, 0))

    def _layers(self, trace: Trace, columns: IntArray) -> IntArray:
        return np.bincount(trace.stage[np.isin(trace.work.column, columns)], minlength=self.stages)

    # -- for engines that ask for one batch after another

    def cost(self, batch: Batch) -> Cost | None:
        """Return what `batch`, one that computes something and moves nothing, costs; None: ask the traced way."""
        if self.unfit is not None:
            return None
        (shape,) = self._graphs.padded([batch.shape()])
        counts = self._counts(shape)
        base = self._bases.get(counts)
        if base is None:
            base = self._base(batch, shape, counts)
            if base is None:
                return None
        self._looked_up.use(counts)
        return self._with_attention(shape, base)

    def _counts(self, shape: BatchShape) -> tuple[int, ...]:
        """Return the counts of a batch that there are tables of, in their order; 0 where nobody has such tokens."""
        tokens, samples = shape.total_tokens, shape.sampled_tokens
        if len(self._tables) == 2:
            return tokens, samples
        decodes = shape.decode_tokens
        found = {
            Count.TOKENS: tokens,
            Count.SAMPLES: samples,
            Count.DECODES: decodes if shape.decoding.any() else 0,
            Count.PROMPTS: 0 if shape.decoding.all() else tokens - decodes,
        }
        return tuple(found[count] for count in self._tables)

    def _base(self, batch: Batch, shape: BatchShape, counts: tuple[int, ...]) -> tuple[IntArray, IntArray] | None:
        """Return what batches of these counts take but for attention, by stage and class; None: tables are of no use.

        Entries that are missing are worked out, and some held to the truth by `batch`.
        """
        entries = tuple(zip(self._tables, counts, strict=True))
        try:
            for count, value in entries:
                if not self._tables[count].knows(value):
                    with self._looked_up.apart((count, value)):
                        self._tables[count].fill(value)
        except SimulationError:
            return None  # the traced way says what is wrong with this batch
        base = (
            np.stack([self._tables[count].ns[value] for count, value in entries]).sum(axis=0),
            np.stack([self._tables[count].busy[value] for count, value in entries]).sum(axis=0),
        )
        fresh = {(count, value // BLOCK) for count, value in entries} | {tuple(value > 0 for value in counts)}
        if not fresh <= self._checked:
            self._checked |= fresh
            self._check(batch, shape, base)
        if self.unfit is not None:
            return None
        if len(self._bases) == BASES_KEPT:
            self._bases.clear()
        self._bases[counts] = base
        return base

    def _check(self, batch: Batch, shape: BatchShape, base: tuple[IntArray, IntArray]) -> None:
        with self._looked_up.apart():
            truth, own = self._traced.price([batch]), self._with_attention(shape, base)
        if not (np.array_equal(truth.finish_ns, own.finish_ns) and np.array_equal(truth.busy_ns, own.busy_ns)):
            self.unfit = f"an iteration of {shape.total_tokens} tokens took another time when it was traced"

    def _with_attention(self, shape: BatchShape, base: tuple[IntArray, IntArray]) -> Cost:
        own, busy = (np.repeat(values[None], shape.steps, axis=0) for values in base)
        model = cast("TimesAttention", self.generator.perf_model)
        for part in self.layers:
            requests = part.requests(shape)
            if len(requests.request_ids):
                spent = model.attention_ns(part.shape, requests)
                own += spent[:, None] * part.layers
                busy[:, self.attention_class] += spent * part.total
        return Cost(own.cumsum(axis=1)[None], busy[None])

    # -- for a compiled loop

    @property
    def tokens_ns(self) -> IntArray:
        """What so many tokens take on each stage, ``[values, stages]``."""
        return self._tables[Count.TOKENS].ns

    @property
    def samples_ns(self) -> IntArray:
        """What so many samples take on each stage, ``[values, stages]``."""
        return self._tables[Count.SAMPLES].ns

    @property
    def tokens_busy(self) -> IntArray:
        """What so many tokens take by class of work, ``[values, classes]``."""
        return self._tables[Count.TOKENS].busy

    @property
    def samples_busy(self) -> IntArray:
        """What so many samples take by class of work, ``[values, classes]``."""
        return self._tables[Count.SAMPLES].busy

    @property
    def padded(self) -> IntArray:
        """The tokens that a step of so many runs as, ``[values]`` of `tokens_ns`."""
        return self._graphs.sizes_for(len(self.tokens_ns) - 1)

    @cached_property
    def attention(self) -> tuple[tuple[CompiledAttention, IntArray], ...]:
        """The numbers of attention of each kind, and its layers on each stage ``[stages]``; see `reason`."""
        model = cast("CompilesAttention", self.generator.perf_model)
        found = [(model.compiled_attention(part.shape), part.layers) for part in self.layers]
        return tuple((one, layers) for one, layers in found if one is not None)

    @property
    def reason(self) -> str | None:
        """Why a compiled loop cannot use the tables (one clause), or None."""
        return self.unfit or lacks(self.generator)

    @property
    def looks_up(self) -> bool:
        """Whether anything is looked up in tables that tell how often (`count_lookups`)."""
        return self._looked_up.counts

    def count_lookups(self, tokens: IntArray, samples: IntArray) -> None:
        """Count what was looked up for batches of these counts, one after another, but for attention."""
        pairs = np.stack((tokens, samples), axis=1)
        fresh = np.ones(len(pairs), dtype=np.bool_)
        fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        for some, sampled in pairs[fresh].tolist():
            self._looked_up.use((some, sampled))

    def fill(self, tokens: int, samples: int) -> None:
        """Work out what a batch of so many tokens (with those of padding) and samples takes, where it is not known.

        Raises `SimulationError` where that cannot be done.
        """
        last = max(samples - 1, 0)
        new = np.ones(last + 1, dtype=np.int64)
        new[-1] = tokens - last
        sampled = np.full(last + 1, min(samples, 1), dtype=np.int64)
        batch = Batch(0, (), np.arange(last + 1), new, np.zeros_like(new) + 1, sampled)
        (shape,) = self._graphs.padded([batch.shape()])
        if self._base(batch, shape, self._counts(shape)) is None:
            self._traced.price([batch])  # says what is wrong
            raise SimulationError(f"iterations cannot be priced by tables: {self.unfit}")
