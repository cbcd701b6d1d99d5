"""Conversions between whole files: text to .et, streamed, and text to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.chakra import GROUPS_SUFFIX, write_graph
from converters.chakra.graph_writer import groups_json
from converters.graph_plan import Planner
from converters.lowering import Filling, lower
from converters.stream_lowering import stream_lower, survey_stream
from converters.text import RecordStream, collect, is_placed, open_text, place, records, write_stream
from converters.text.gathering import gather
from foundation.errors import UserError
from foundation.files import atomic_write
from foundation.records import dataclass

_FAMILIES = (frozenset({"orca"}), frozenset({"colocated", "prefill", "decode"}), frozenset({"event"}))


@dataclass(frozen=True, slots=True)
class Spreading:
    """How a text that names no ranks is spread, and how its collectives are named."""

    npu_num: int | None = None
    npu_group: int | None = None
    network_dims: Sequence[int] | None = None


def text_to_et(
    path: str | Path,
    prefix: str | Path,
    where: Spreading,
    *,
    step: int = 0,
    true_work: bool = False,
    annotate: bool = True,
) -> list[Path]:
    """Convert a text trace to ``PREFIX.<rank>.et`` and return every file written.

    Reads the text twice and keeps nothing of it in memory, unless its rows have explicit dependencies, which may reach
    back to any row.
    """
    first = open_placed(path, where)
    check_step(first, step)
    survey = survey_stream(first)
    again = open_placed(path, where)
    if survey.has_dependencies:
        graph = lower(collect(again), network_dims=where.network_dims, true_work=true_work, annotate=annotate)
        written = write_graph(graph, prefix, step)
        return [*written.ranks, *([written.groups] if written.groups else [])]
    planner = Planner(survey, where.network_dims)
    paths = stream_lower(prefix, planner, again, Filling(true_work, annotate), step=step)
    groups = Path(f"{prefix}{GROUPS_SUFFIX}")
    if not planner.groups:
        groups.unlink(missing_ok=True)
        return paths
    with atomic_write(groups) as stream:
        stream.write(groups_json(planner.groups))
    return [*paths, groups]


def text_to_text(path: str | Path, output: str | Path, name: str, where: Spreading) -> None:
    """Convert a text trace to the text format called `name`; within a family only the header changes."""
    stream = open_text(path)
    source = stream.attributes["format"]
    if source == name or any({source, name} <= family for family in _FAMILIES):
        write_stream(stream, output, name)
        return
    if name == "event":
        raise UserError(f"a trace of operators ({source}) cannot be written as EVENT", field="--to")
    trace = collect(place(stream, where.npu_num, where.npu_group))
    write_stream(records(trace) if name == "orrery" else gather(trace, name), output, name)


def open_placed(path: str | Path, where: Spreading, *, spread: bool = True) -> RecordStream:
    """Open a text trace, spread over ranks unless told not to; a trace that names its ranks takes no deployment."""
    stream = open_text(path)
    if is_placed(stream) and (where.npu_num, where.npu_group) != (None, None):
        what = "the trace says itself which ranks run a row"
        raise UserError(what, path=path, fix="leave out --npu_num and --npu_group")
    return place(stream, where.npu_num, where.npu_group) if spread else stream


def check_step(stream: RecordStream, step: int) -> None:
    """Fail unless `stream` has a step of that number."""
    if not 0 <= step < stream.steps:
        raise UserError(
            f"there is no step {step} in a trace of {stream.steps}", field="--step", fix=f"give 0 .. {stream.steps - 1}"
        )
