"""What context-parallel ranks exchange around attention, and each one's part of attention itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.operators import Portion
from trace_gen.precision import ceil_div
from trace_gen.trace import NO_LAYER, CommType, Trace
from trace_test.operators import ATTENTION, CONTEXT_EXCHANGES, CONTEXT_MERGE, members
from trace_test.rule import ModelFacts, Rule, Subject, Violation

LSE_BYTES = 4


class _Row(NamedTuple):
    """What a row should be; None where it is not known. `back`: how far before it the rows stand that it waits for."""

    name: str
    into: int | None = None
    out: int | None = None
    comm: CommType = CommType.NONE
    carried: int | None = None
    flops: tuple[int, ...] | None = None
    back: tuple[int, ...] = ()


def check(subject: Subject) -> Iterator[Violation]:
    """Compare the rows around the attention of every block and member with those that its batch needs."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    if facts.mesh.context == 1:
        return
    names = ATTENTION | CONTEXT_EXCHANGES.keys() | {CONTEXT_MERGE}
    member = members(trace)[trace.rank_set]
    rows = [row for row in range(trace.rows) if trace.name(row) in names and trace.layer[row] != NO_LAYER]
    for (layer, own), section in groupby(rows, key=lambda row: (int(trace.layer[row]), int(member[row]))):
        kind = facts.architecture.layers[layer].attention
        part = _Part(facts, kind.shapes(facts.mesh.tensor, facts.precision), _mode(trace))
        found = list(section)
        expected = part.rows(facts.batches[own]) if facts.batches else part.unknown(trace, found)
        yield from _compare(subject, trace, found, expected)


def _mode(trace: Trace) -> str:
    return trace.attributes.get("context_mode", "")


@dataclass(frozen=True, slots=True)
class _Part:
    """One rank's part of attention of some shapes."""

    facts: ModelFacts
    shapes: Mapping[Portion, AttentionShape]
    mode: str

    @property
    def ranks(self) -> int:
        return self.facts.mesh.context

    def rows(self, batch: BatchShape) -> list[_Row]:
        """Return the rows that `batch` needs."""
        columns = (batch.request_ids, batch.new_tokens, batch.context_tokens, batch.samples)
        decodes: list[_Request] = []
        prompts: list[_Request] = []
        for number, new, context, samples in zip(*(column.tolist() for column in columns), strict=True):
            (decodes if new <= max(samples, 1) else prompts).append(_Request(number, new, context))
        return self._in_order(decodes, prompts, batch.steps)

    def unknown(self, trace: Trace, found: list[int]) -> list[_Row]:
        """Return the rows of a batch that is not known, by which of its two sorts of requests there are."""
        names = {trace.name(row) for row in found}
        decodes = [_Request(0, 1, 0)] if "query_gather" in names else []
        prompts = [_Request(0, 2, 0)] if names & {"kv_pass", "kv_gather"} else []
        rows = self._in_order(decodes, prompts, 1)
        return [_Row(row.name, comm=row.comm, back=row.back) for row in rows]

    def _in_order(self, decodes: list[_Request], prompts: list[_Request], steps: int) -> list[_Row]:
        """Return the rows of both; where each has operators of its own, those of prompts come first."""
        first = self._decodes(decodes, steps) if decodes else []
        then = self._prompts(prompts) if prompts else []
        return first + then if Portion.ALL in self.shapes else then + first

    def _shape(self, portion: Portion) -> AttentionShape:
        return self.shapes[portion if portion in self.shapes else Portion.ALL]

    def _decodes(self, requests: list[_Request], steps: int) -> list[_Row]:
        shape, count = self._shape(Portion.DECODES), sum(request.new for request in requests)
        query, lse = shape.query_bytes, max(1, round(LSE_BYTES * shape.query_heads))
        own = ceil_div(count, self.ranks)
        flops = []
        for step in range(steps):
            at = [request.later(step) for request in requests]
            again = (max(0, ceil_div(request.attended(shape), self.ranks) - request.new) for request in at)
            pairs = sum(ceil_div(request.pairs(shape), self.ranks) for request in at)
            flops.append(shape.pair_flops * pairs + shape.context_flops * sum(again))
        return [
            _Row("query_gather", own * query, count * query, CommType.ALLGATHER, own * query),
            _Row("attention", count * query, None, flops=tuple(flops)),
            _Row("lse_gather", count * lse, self.ranks * count * lse, CommType.ALLGATHER, count * lse),
            _Row(CONTEXT_MERGE),
            _Row("output_scatter", comm=CommType.REDUCESCATTER),
        ]

    def _prompts(self, requests: list[_Request]) -> list[_Row]:
        shape, ranks = self._shape(Portion.PROMPTS), self.ranks
        blocks = ranks if self.mode == "ring" else 1
        kept = sum(ceil_div(request.attended(shape), ranks) for request in requests)
        pairs = sum(ceil_div(request.pairs(shape), ranks * blocks) for request in requests)
        again = sum(
            ceil_div(max(0, request.attended(shape) - ceil_div(request.new, ranks)), blocks) for request in requests
        )
        flops = (shape.pair_flops * pairs + shape.context_flops * again,)
        own = ceil_div(sum(request.new for request in requests), ranks) * shape.query_bytes
        moved = kept * shape.kept_bytes
        attention = _Row("attention", own, None, flops=flops)
        if self.mode != "ring":
            return [_Row("kv_gather", moved, ranks * moved, CommType.ALLGATHER, moved), attention]
        move = _Row("kv_pass", moved, moved, CommType.PERMUTE, moved, back=(2,))
        return [attention, *[move, attention._replace(back=(2, 1))] * (ranks - 1)]


class _Request(NamedTuple):
    """One request of a batch; a dummy's number is negative, and its context does not grow."""

    number: int
    new: int
    context: int

    def later(self, steps: int) -> _Request:
        """Return what it is so many steps later."""
        return self._replace(context=self.context + steps * (self.number >= 0))

    def pairs(self, shape: AttentionShape) -> int:
        """Count the pairs of its new tokens and those that they attend to."""
        seen = range(self.context + 1, self.context + self.new + 1)
        if shape.window is None:
            return sum(seen)
        return sum((one - 1) % shape.window + 1 if shape.chunked else min(one, shape.window) for one in seen)

    def attended(self, shape: AttentionShape) -> int:
        """Count the tokens that some of its new tokens attend to."""
        if shape.window is None:
            return self.context + self.new
        if shape.chunked:
            return self.context % shape.window + self.new
        return min(self.context, shape.window - 1) + self.new


def _compare(subject: Subject, trace: Trace, rows: list[int], expected: list[_Row]) -> Iterator[Violation]:
    names = ["attention" if trace.name(row) in ATTENTION else trace.name(row) for row in rows]
    wanted = [row.name for row in expected]
    if names != wanted:
        shorter = min(len(names), len(wanted))
        at = next((place for place in range(shorter) if names[place] != wanted[place]), shorter)
        found, needed = (listed[at] if at < len(listed) else "nothing" for listed in (names, wanted))
        yield Violation(subject.row(rows[min(at, len(rows) - 1)]), f"{found} where {needed} is needed")
        return
    for row, needed_row in zip(rows, expected, strict=True):
        yield from _differences(subject, trace, row, needed_row)


def _differences(subject: Subject, trace: Trace, row: int, expected: _Row) -> Iterator[Violation]:
    for what, found, wanted in (
        ("its input is {} bytes", int(trace.input_bytes[row]), expected.into),
        ("its output is {} bytes", int(trace.output_bytes[row]), expected.out),
        ("it carries {} bytes", int(trace.comm_bytes[row]), expected.carried),
        ("its collective is {}", CommType(int(trace.comm_type[row])).name, expected.comm.name),
        ("it waits for the rows {} before it", tuple((row - trace.dependencies(row)).tolist()), expected.back),
    ):
        if wanted is not None and found != wanted:
            yield Violation(subject.row(row), what.format(found) + f", but {wanted} is needed")
    flops = tuple(trace.work.flops[:, trace.work.column[row]].tolist())
    if expected.flops is not None and flops != expected.flops:
        yield Violation(subject.row(row), f"it computes {flops[0]} FLOPs a rank, but {expected.flops[0]} are needed")


RULE = Rule(
    name="context-parallel",
    about="Where context-parallel ranks divide sequences, decodes gather queries, attend to a part of the cache, and "
    "merge by log-sum-exps; prompts gather keys and values, or pass them round block by block behind attention. Bytes "
    "and FLOPs are those of the fullest rank, worked out here from the batch.",
    cause="a part that is divided twice or not at all, or a block of the ring that waits for the wrong one",
    needs="model",
    check=check,
)
