"""What context-parallel ranks exchange around attention, and each one's part of attention itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
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
        part = _Part(facts, kind.shape(facts.mesh.tensor, facts.precision), _mode(trace))
        found = list(section)
        expected = part.rows(facts.batches[own]) if facts.batches else part.unknown(trace, found)
        yield from _compare(subject, trace, found, expected)


def _mode(trace: Trace) -> str:
    return trace.attributes.get("context_mode", "")


@dataclass(frozen=True, slots=True)
class _Part:
    """One rank's part of attention of one shape."""

    facts: ModelFacts
    shape: AttentionShape
    mode: str

    @property
    def ranks(self) -> int:
        return self.facts.mesh.context

    def rows(self, batch: BatchShape) -> list[_Row]:
        """Return the rows that `batch` needs."""
        columns = (batch.request_ids, batch.new_tokens, batch.context_tokens, batch.samples)
        requests = list(zip(*(column.tolist() for column in columns), strict=True))
        decodes = [(number, new, context) for number, new, context, samples in requests if new in (1, samples)]
        prompts = [(new, context) for _, new, context, samples in requests if new not in (1, samples)]
        return (self._decodes(decodes, batch.steps) if decodes else []) + (self._prompts(prompts) if prompts else [])

    def unknown(self, trace: Trace, found: list[int]) -> list[_Row]:
        """Return the rows of a batch that is not known, by which of its two sorts of requests there are."""
        names = {trace.name(row) for row in found}
        rows = self._decodes([(0, 1, 0)], 1) if "query_gather" in names else []
        if names & {"kv_pass", "kv_gather"}:
            rows = rows + self._prompts([(2, 0)])
        return [_Row(row.name, comm=row.comm, back=row.back) for row in rows]

    def _decodes(self, requests: list[tuple[int, int, int]], steps: int) -> list[_Row]:
        query, count = self.shape.query_bytes, sum(new for _, new, _ in requests)
        lse = max(1, round(LSE_BYTES * self.shape.query_heads))
        own = ceil_div(count, self.ranks)
        flops = tuple(
            self.shape.pair_flops
            * sum(
                ceil_div(self._pairs(new, context + step * (number >= 0)), self.ranks)
                for number, new, context in requests
            )
            for step in range(steps)
        )
        return [
            _Row("query_gather", own * query, count * query, CommType.ALLGATHER, own * query),
            _Row("attention", count * query, None, flops=flops),
            _Row("lse_gather", count * lse, self.ranks * count * lse, CommType.ALLGATHER, count * lse),
            _Row(CONTEXT_MERGE),
            _Row("output_scatter", comm=CommType.REDUCESCATTER),
        ]

    def _pairs(self, new: int, context: int) -> int:
        """Return the query-key pairs of `new` tokens on `context`."""
        return sum(min(context + number, self.shape.window or 1 << 62) for number in range(1, new + 1))

    def _prompts(self, requests: list[tuple[int, int]]) -> list[_Row]:
        window, ranks = self.shape.window or 1 << 62, self.ranks
        blocks = ranks if self.mode == "ring" else 1
        kept = sum(ceil_div(min(context + new, window + new - 1), ranks) for new, context in requests)
        pairs = [self._pairs(new, context) for new, context in requests]
        flops = (self.shape.pair_flops * sum(ceil_div(count, ranks * blocks) for count in pairs),)
        own = ceil_div(sum(new for new, _ in requests), ranks) * self.shape.query_bytes
        moved = kept * self.shape.kv_bytes
        attention = _Row("attention", own, None, flops=flops)
        if self.mode != "ring":
            return [_Row("kv_gather", moved, ranks * moved, CommType.ALLGATHER, moved), attention]
        move = _Row("kv_pass", moved, moved, CommType.PERMUTE, moved, back=(2,))
        return [attention, *[move, attention._replace(back=(2, 1))] * (ranks - 1)]


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
