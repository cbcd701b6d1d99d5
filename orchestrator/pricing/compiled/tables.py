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
from trace_gen.batch_shape import BatchShape
from trace_gen.compiled_attention import CompiledAttention
from trace_gen.generator import TraceGenerator
from trace_gen.operators import Portion
from trace_gen.perf_model import CompilesAttention, TimesAttention
from trace_gen.sized_columns import Count, SizedColumns
from trace_gen.trace import CommType, IntArray, OperatorClass, Trace

MOST_VALUES = 2048
"""Entries that tables begin with."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionLayers:
    """Attention of one shape, for the requests of `portion`, in so many `layers` of each stage, ``[stages]``."""

    shape: AttentionShape
    portion: Portion
    layers: IntArray

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
        self._checked: set[tuple[object, ...]] = set()
        self._looked_up = RememberedLookups(generator.perf_model)
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
        if not self._make_known(batch, shape, counts):
            return None
        self._looked_up.use(tuple(counts.items()))
        return self._sum(shape, counts)

    def _counts(self, shape: BatchShape) -> dict[Count, int]:
        """Return the counts of a batch that there are tables of; 0 where nobody works on such tokens."""
        counts = {Count.TOKENS: shape.total_tokens, Count.SAMPLES: shape.sampled_tokens}
        if len(self._tables) > len(counts):
            decoding, decodes = shape.decoding, shape.decode_tokens
            counts[Count.DECODES] = decodes if decoding.any() else 0
            counts[Count.PROMPTS] = 0 if decoding.all() else shape.total_tokens - decodes
        return {count: value for count, value in counts.items() if count in self._tables}

    def _make_known(self, batch: Batch, shape: BatchShape, counts: dict[Count, int]) -> bool:
        """Work out the entries for `counts` that are missing, and hold some to the truth; False: they are of no use."""
        try:
            for count, value in counts.items():
                if not self._tables[count].knows(value):
                    with self._looked_up.apart((count, value)):
                        self._tables[count].fill(value)
        except SimulationError:
            return False  # the traced way says what is wrong with this batch
        structure = tuple(value > 0 for value in counts.values())
        fresh = {(count, value // BLOCK) for count, value in counts.items()} | {structure}
        if not fresh <= self._checked:
            self._checked |= fresh
            self._check(batch, shape, counts)
        return self.unfit is None

    def _check(self, batch: Batch, shape: BatchShape, counts: dict[Count, int]) -> None:
        with self._looked_up.apart():
            truth, own = self._traced.price([batch]), self._sum(shape, counts)
        if not (np.array_equal(truth.finish_ns, own.finish_ns) and np.array_equal(truth.busy_ns, own.busy_ns)):
            self.unfit = f"an iteration of {counts[Count.TOKENS]} tokens took another time when it was traced"

    def _sum(self, shape: BatchShape, counts: dict[Count, int]) -> Cost:
        own, busy = np.zeros((shape.steps, self.stages), np.int64), np.zeros((shape.steps, len(self.classes)), np.int64)
        for count, value in counts.items():
            own += self._tables[count].ns[value]
            busy += self._tables[count].busy[value]
        model = cast("TimesAttention", self.generator.perf_model)
        for part in self.layers:
            requests = part.requests(shape)
            if len(requests.request_ids):
                spent = model.attention_ns(part.shape, requests)[:, None] * part.layers
                own += spent
                busy[:, self.attention_class] += spent.sum(axis=1)
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
        if not self._make_known(batch, shape, self._counts(shape)):
            self._traced.price([batch])  # says what is wrong
            raise SimulationError(f"iterations cannot be priced by tables: {self.unfit}")
