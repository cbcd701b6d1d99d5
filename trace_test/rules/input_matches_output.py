"""An operator's input is as large as what its producers put out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.trace import NO_REQUEST, CommType, RowKind, Trace
from trace_test.operators import (
    ATTENTION,
    CONTEXT_EXCHANGES,
    CONTEXT_MERGE,
    JOINS_HIDDEN_STATE,
    LATENT,
    LATENT_ENDS,
    LATENT_FIRST,
    TOGETHER,
    members,
    mesh_of,
    works,
)
from trace_test.rule import Rule, Subject, Violation

_AROUND_ATTENTION = ATTENTION | CONTEXT_EXCHANGES.keys() | {CONTEXT_MERGE}
"""Rows of divided sequences, which another rule works out."""
MAX_SIBLINGS = 8
"""Rows side by side on one input; more than any block has."""
ALSO_LATENT = frozenset({"rotary_emb", "rope", "attention", "attn"})
"""Operators of latent attention that other attention has, too."""


@dataclass(frozen=True, slots=True)
class _Flow:
    """The rows just before that share one input of `shared` bytes, and what each of them puts out, in order."""

    shared: int
    outputs: tuple[int, ...]

    def may_give(self) -> set[int]:
        """Return what the next row's input may be: their own input, or what the last few put out together."""
        return {self.shared, *accumulate(reversed(self.outputs))}


@dataclass(slots=True)
class _Section:
    """Rows for single requests: first input and last output of each, summed."""

    before: _Flow
    first_row: int
    width: int
    inputs: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Latent:
    """Rows of latent attention, which divide and join what goes through them: their sizes are model-shape's.

    What stands before all of them, and what those put out that go into the output projection.
    """

    before: _Flow | None
    ended: int = 0


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a row's check found. `place`: the row where members of a wave meet or part, None where one works alone."""

    place: int | None
    violations: list[Violation]


def check(subject: Subject) -> Iterator[Violation]:
    """Walk each sub-batch from row to row, for every data-parallel member on its own."""
    trace = subject.trace
    assert trace is not None
    rows = works(trace).tolist()
    own = members(trace)[trace.rank_set]
    for batch in sorted(set(trace.sub_batch[rows].tolist())):
        findings: list[_Finding] = []
        for member in sorted({*own[rows].tolist()} - {TOGETHER}):
            lane = [row for row in rows if trace.sub_batch[row] == batch and own[row] in (member, TOGETHER)]
            findings += _walk(subject, trace, lane, own == TOGETHER)
        yield from _wrong(findings)


def _wrong(findings: list[_Finding]) -> Iterator[Violation]:
    """Yield what is wrong for one member, and where members meet or part what is wrong for all of them.

    What they do together has the rows of the largest member, so there the bytes of one of them must fit.
    """
    at: dict[int, list[list[Violation]]] = {}
    for finding in findings:
        if finding.place is None:
            yield from finding.violations
        else:
            at.setdefault(finding.place, []).append(finding.violations)
    for place in sorted(at):
        if all(at[place]):
            yield from at[place][0]


def _walk(subject: Subject, trace: Trace, rows: list[int], together: NDArray[np.bool_]) -> Iterator[_Finding]:
    flow: _Flow | None = None
    section: _Section | None = None
    latent: _Latent | None = None
    before: int | None = None
    divided = _AROUND_ATTENTION if mesh_of(trace).context > 1 else frozenset()
    for row in rows:
        if trace.kind[row] == RowKind.COMM and trace.input_bytes[row] == 0 and trace.output_bytes[row] == 0:
            continue  # a collective that a text states without its operand
        if divided and trace.name(row) in divided:
            flow, section, before = None, None, row
            continue
        place = row if together[row] else before if before is not None and together[before] else None
        before, name = row, trace.name(row)
        if name in LATENT or (latent is not None and name in ALSO_LATENT):
            latent = latent or _Latent(flow)
            latent.ended += int(trace.output_bytes[row]) if name in LATENT_ENDS else 0
            if name in LATENT_FIRST and latent.before is not None:
                yield _Finding(place, list(_fits(subject, row, latent.before, int(trace.input_bytes[row]), 1)))
            continue
        if latent is not None:
            flow, latent = (None if divided else _Flow(-1, (latent.ended,))), None
        if (trace.request[row] != NO_REQUEST or _narrow(trace, row)) and flow is not None:
            section = section or _Section(flow, row, _ranks(trace, row))
            yield _Finding(place, list(_request_row(subject, trace, section, row)))
            continue
        found: list[Violation] = []
        if section is not None:
            found += _fits(subject, section.first_row, section.before, sum(section.inputs.values()), section.width)
            # Where ranks work on different requests, no single rank's bytes say what goes on.
            flow = _Flow(-1, (sum(section.last.values()),)) if section.width == 1 else None
            section = None
        if flow is not None and not _own_part(trace, row, flow):
            joined = 2 if trace.name(row) == JOINS_HIDDEN_STATE else 1
            found += _fits(subject, row, flow, int(trace.input_bytes[row]) // joined, 1)
        yield _Finding(place, found)
        flow = _next(trace, row, flow)


def _narrow(trace: Trace, row: int) -> bool:
    """Whether one of its member's ranks runs the row alone, as it does a dummy's attention placed by request."""
    return len(trace.rank_sets[trace.rank_set[row]]) < mesh_of(trace).member_size


def _own_part(trace: Trace, row: int, flow: _Flow) -> bool:
    """Whether ranks that have the same tokens each give their part of them to an ALLGATHER, rounded up."""
    sharers, size = mesh_of(trace).tensor, int(trace.input_bytes[row])
    gathers = trace.kind[row] == RowKind.COMM and trace.comm_type[row] == CommType.ALLGATHER
    if trace.name(row) == "lm_head" and row and trace.name(row - 1) == "sequence_gather":
        return size <= flow.outputs[-1]  # of all tokens that were gathered, those whose logits are needed
    return bool(gathers) and any(size <= possible <= size * sharers for possible in flow.may_give())


def _ranks(trace: Trace, row: int) -> int:
    """Return how many ranks share the requests: those of the member's stage, where a row is on one of them."""
    ranks = trace.rank_sets[trace.rank_set[row]]
    if len(ranks) > 1:
        return 1
    same = set(trace.rank_set[trace.stage == trace.stage[row]].tolist())
    apart = members(trace) != TOGETHER
    return max(len(trace.rank_sets[index]) for index in same if apart[index] and ranks[0] in trace.rank_sets[index])


def _request_row(subject: Subject, trace: Trace, section: _Section, row: int) -> Iterator[Violation]:
    request, size = int(trace.request[row]), int(trace.input_bytes[row])
    if request not in section.inputs:
        section.inputs[request] = size
    elif size not in (section.last[request], section.inputs[request]):
        what = f"its input is {size} bytes, but request {request}'s row before puts out {section.last[request]}"
        yield Violation(subject.row(row), what)
    section.last[request] = int(trace.output_bytes[row])


def _fits(subject: Subject, row: int, flow: _Flow, size: int, width: int) -> Iterator[Violation]:
    """`width` ranks hold `size` together; what the rows before put out is of one of them.

    Their parts are rounded up, and ranks beyond the number of KV heads hold copies: three times as much at the most.
    """
    fewest, most = (size, size) if width == 1 else (size - size // 64, 3 * size)
    if not any(fewest <= possible * width <= most for possible in flow.may_give()):
        what = f"its input is {size} bytes, but the row before puts out {flow.outputs[-1]}"
        yield Violation(subject.row(row), what)


def _next(trace: Trace, row: int, flow: _Flow | None) -> _Flow:
    size, out = int(trace.input_bytes[row]), int(trace.output_bytes[row])
    if trace.comm_type[row] == CommType.ALLGATHER and trace.kind[row] == RowKind.COMPUTE:
        out *= trace.group_size(int(trace.comm_group[row]))
    if flow is not None and flow.shared == size and len(flow.outputs) < MAX_SIBLINGS:
        return _Flow(size, (*flow.outputs, out))
    return _Flow(size, (out,))


RULE = Rule(
    name="input-matches-output",
    about="Each operator's input has the bytes that the operator before it puts out; operators that share an input "
    "(query, key and value; gate and up) may stand side by side, and then the next one may take all their outputs.",
    cause="a size computed with the wrong dimension (hidden for intermediate, one head for all) or a missing operator",
    needs="trace",
    check=check,
)
