"""Header ``ORRERY 1``: every column of a `Trace`, per rank, tab-separated. docs/text_trace.md describes each column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from converters.text.lines import MAX_NS, Lines, shorten
from converters.text.records import Operand, Record, RecordStream
from foundation.documents import parse_json
from foundation.errors import UserError
from trace_gen.trace import CommType, Location, RowKind, parts_of

VERSION = 1
COLUMNS = (
    *("op", "kind", "layer", "stage", "rank_set", "request", "sub_batch", "latency_ns", "flops", "mem_bytes"),
    *("input_loc", "input_bytes", "weight_loc", "weight_bytes", "output_loc", "output_bytes"),
    *("comm_type", "comm_bytes", "comm_group", "waits_for"),
)
MAX_RANK = 65535
MAX_LAYER = 65535
"""Of stages as well: what looks for missing ones counts up to the last."""
MAX_RANKS_LISTED = 1 << 20
MAX_STEPS = 4096
MAX_EXPANDED = 1 << 21
"""Step values that rows without computation may leave out: the rest is listed, so memory stays near the file's size."""
_NONE = "-"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_KINDS = {kind.name.lower(): int(kind) for kind in RowKind}


class OwnFormat:
    """See the module's docstring."""

    def read(self, lines: Lines, header: str) -> RecordStream:
        """See `TextFormat.read`."""
        if header != f"ORRERY\t{VERSION}":
            raise lines.error(f"the header is {shorten(header)}", f"this program reads ORRERY\\t{VERSION}")
        attributes = _attributes(lines, _fact(lines, "attributes"))
        steps = lines.integer(_fact(lines, "steps"), "steps", minimum=1, maximum=MAX_STEPS)
        requests = _numbers(lines, _fact(lines, "requests"), "a request")
        rank_sets = _rank_lists(lines, _fact(lines, "rank_sets"))
        groups, parts = _groups(lines, _fact(lines, "groups"))
        rows = lines.integer(_fact(lines, "rows"), "the number of rows", maximum=10**9)
        if tuple(lines.next("the line of column names").split("\t")) != COLUMNS:
            raise lines.error(
                "the line does not name the columns", "write them tab-separated, as docs/text_trace.md does"
            )
        stream = RecordStream(attributes, rows, iter(()), steps, requests, rank_sets, groups, parts)
        stream.records = _read_rows(lines, stream)
        return stream

    def write(self, stream: RecordStream) -> Iterator[str]:
        """See `TextFormat.write`; takes any placed stream that lists its rank sets and groups."""
        yield f"ORRERY\t{VERSION}\n"
        facts = {key: value for key, value in stream.attributes.items() if key != "format"}
        yield f"attributes\t{json.dumps(facts, sort_keys=True)}\n"
        yield f"steps\t{stream.steps}\n"
        yield f"requests\t{_join(stream.requests)}\n"
        yield f"rank_sets\t{_write_ranks(stream.rank_sets)}\n"
        divided = [(ranks, parts_of(stream.group_parts, index)) for index, ranks in enumerate(stream.groups)]
        yield f"groups\t{';'.join(_runs(ranks) + (f'/{n}' if n > 1 else '') for ranks, n in divided) or _NONE}\n"
        yield f"rows\t{stream.rows}\n"
        yield "\t".join(COLUMNS) + "\n"
        sets = {ranks: index for index, ranks in reversed(list(enumerate(stream.rank_sets)))}
        groups = {group: index for index, group in reversed(list(enumerate(divided)))}
        for record in stream.records:
            yield "\t".join(_fields(record, sets, groups)) + "\n"


def _fields(
    record: Record, sets: dict[tuple[int, ...], int], groups: dict[tuple[tuple[int, ...], int], int]
) -> list[str]:
    return [
        "".join(_ESCAPES.get(character, character) for character in record.op),
        RowKind(record.kind).name.lower(),
        _optional(record.layer),
        _optional(record.stage),
        str(sets[record.ranks]),
        _optional(record.request),
        str(record.sub_batch),
        _join(record.latency) if record.kind == RowKind.COMPUTE else _steps(record.latency),
        _steps(record.flops),
        _steps(record.mem_bytes),
        *(text for operand in (record.input, record.weight, record.output) for text in _operand_text(operand)),
        CommType(record.comm_type).name,
        str(record.comm_bytes),
        _NONE if record.group is None else str(groups[record.group, record.parts]),
        _join(record.deps),
    ]


def _read_rows(lines: Lines, stream: RecordStream) -> Iterator[Record]:
    expanded = 0
    for index in range(stream.rows):
        fields = lines.next(f"row {index} of the {stream.rows} that are announced").split("\t")
        if len(fields) != len(COLUMNS):
            raise lines.error(f"the row has {len(fields)} fields", f"write {len(COLUMNS)}, tab-separated")
        record = _record(lines, dict(zip(COLUMNS, fields, strict=True)), index, stream)
        if record.kind == RowKind.COMPUTE and "," not in fields[7] and stream.steps > 1:
            raise lines.error(f"latency_ns has 1 value for {stream.steps} steps", "list every step's latency")
        expanded += stream.steps - 1 if record.kind != RowKind.COMPUTE else 0
        if expanded > MAX_EXPANDED:
            raise lines.error(f"{stream.steps} steps are too many for so many rows", "write the steps apart")
        yield record
    for line in lines:
        if line.strip():
            raise lines.error(f"there are more rows than the {stream.rows} that are announced")


def _record(lines: Lines, text: dict[str, str], index: int, stream: RecordStream) -> Record:
    def number(name: str, **limits: int) -> int:
        return lines.integer(text[name], name, **limits)

    def optional(name: str, maximum: int) -> int:
        return -1 if text[name] == _NONE else number(name, maximum=maximum)

    if text["kind"] not in _KINDS:
        raise lines.error(f"kind is {shorten(text['kind'])}", f"write one of {', '.join(_KINDS)}")
    if text["comm_type"] not in CommType.__members__:
        raise lines.error(
            f"comm_type is {shorten(text['comm_type'])}", f"write one of {', '.join(CommType.__members__)}"
        )
    group = optional("comm_group", MAX_RANKS_LISTED)
    if group >= len(stream.groups):
        raise lines.error(f"comm_group is {group}, but {len(stream.groups)} groups are listed")
    rank_set = number("rank_set")
    if rank_set >= len(stream.rank_sets):
        raise lines.error(f"rank_set is {rank_set}, but {len(stream.rank_sets)} are listed")
    deps = _numbers(lines, text["waits_for"], "waits_for")
    if any(parent >= stream.rows or parent == index for parent in deps):
        raise lines.error("waits_for names a row that is not another row of the trace")
    return Record(
        op=_unescape(lines, text["op"]),
        kind=_KINDS[text["kind"]],
        layer=optional("layer", MAX_LAYER),
        stage=optional("stage", MAX_LAYER),
        ranks=stream.rank_sets[rank_set],
        request=-1 if text["request"] == _NONE else number("request"),
        sub_batch=number("sub_batch", maximum=10**9),
        latency=_stepped(lines, text["latency_ns"], "latency_ns", stream.steps, MAX_NS),
        flops=_stepped(lines, text["flops"], "flops", stream.steps),
        mem_bytes=_stepped(lines, text["mem_bytes"], "mem_bytes", stream.steps),
        input=_operand(lines, text, "input"),
        weight=_operand(lines, text, "weight"),
        output=_operand(lines, text, "output"),
        comm_type=CommType[text["comm_type"]],
        comm_bytes=number("comm_bytes"),
        group=None if group < 0 else stream.groups[group],
        deps=deps,
        parts=1 if group < 0 else parts_of(stream.group_parts, group),
    )


def _fact(lines: Lines, name: str) -> str:
    key, tab, value = lines.next(f"the header's {name}").partition("\t")
    if key != name or not tab:
        raise lines.error(f"the line is not the header's {name}", f"write {name}, a tab and its value")
    return value


def _attributes(lines: Lines, text: str) -> dict[str, str]:
    try:
        facts = parse_json(text, "attributes").value
    except UserError:
        facts = None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise lines.error("attributes are not a JSON object of texts", 'write {"model": "..."}, or {}')
    return {**facts, "format": "orrery"}


def _numbers(lines: Lines, text: str, what: str) -> tuple[int, ...]:
    return () if text == _NONE else tuple(lines.integer(part, what) for part in text.split(","))


def _stepped(lines: Lines, text: str, what: str, steps: int, maximum: int = 10**18 - 1) -> tuple[int, ...]:
    """Read one value a step, or the one value that all steps have."""
    values = tuple(lines.integer(part, what, maximum=maximum) for part in text.split(","))
    if len(values) not in (1, steps):
        raise lines.error(f"{what} has {len(values)} values", f"write one, or one for each of the {steps} steps")
    return values * (steps if len(values) == 1 else 1)


def _steps(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else ",".join(map(str, values))


def _optional(value: int) -> str:
    return _NONE if value < 0 else str(value)


def _join(values: Sequence[int]) -> str:
    return ",".join(map(str, values)) or _NONE


def _operand(lines: Lines, text: dict[str, str], side: str) -> Operand:
    name, _, node = text[f"{side}_loc"].partition(":")
    if name not in Location.__members__:
        known = ", ".join(Location.__members__)
        raise lines.error(f"{side}_loc is {shorten(text[f'{side}_loc'])}", f"write one of {known}, with :<node>")
    device = lines.integer(node, f"the node of {side}_loc", minimum=-1, maximum=2**31 - 1) if node else 0
    return Operand(Location[name], device, lines.integer(text[f"{side}_bytes"], f"{side}_bytes"))


def _operand_text(operand: Operand) -> tuple[str, str]:
    node = f":{operand.node}" if operand.node else ""
    return Location(operand.location).name + node, str(operand.bytes)


def _groups(lines: Lines, text: str) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Read ``0-7/2;0-7``: lists of ranks, and into how many groups of equal size each is divided (1)."""
    split = [part.partition("/") for part in ([] if text == _NONE else text.split(";"))]
    lists = _listed(lines, [ranks for ranks, _, _ in split])
    parts = [lines.integer(count, "the groups of a list", minimum=1) if slash else 1 for _, slash, count in split]
    for ranks, count in zip(lists, parts, strict=True):
        if len(ranks) % count:
            raise lines.error(f"{len(ranks)} ranks cannot be {count} groups", "let the groups be of equal size")
    return lists, tuple(parts) if max(parts, default=1) > 1 else ()


def _rank_lists(lines: Lines, text: str) -> tuple[tuple[int, ...], ...]:
    """Read ``0-3;4-7``: lists of ranks and runs of ranks."""
    return _listed(lines, [] if text == _NONE else text.split(";"))


def _listed(lines: Lines, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    lists: list[tuple[int, ...]] = []
    listed = 0
    for part in texts:
        ranks: list[int] = []
        for run in part.split(","):
            first, dash, last = run.partition("-")
            start = lines.integer(first, "a rank", maximum=MAX_RANK)
            stop = lines.integer(last, "a rank", minimum=start, maximum=MAX_RANK) if dash else start
            listed += stop - start + 1
            if listed > MAX_RANKS_LISTED:
                raise lines.error(f"more than {MAX_RANKS_LISTED} ranks are listed")
            ranks += range(start, stop + 1)
        if len(set(ranks)) != len(ranks):
            raise lines.error(f"the list {shorten(part)} names a rank twice")
        lists.append(tuple(ranks))
    return tuple(lists)


def _write_ranks(lists: Sequence[tuple[int, ...]]) -> str:
    return ";".join(map(_runs, lists)) or _NONE


def _runs(ranks: tuple[int, ...]) -> str:
    parts: list[str] = []
    start = 0
    for at in range(1, len(ranks) + 1):
        if at == len(ranks) or ranks[at] != ranks[at - 1] + 1:
            parts.append(str(ranks[start]) if at - start == 1 else f"{ranks[start]}-{ranks[at - 1]}")
            start = at
    return ",".join(parts)


def _unescape(lines: Lines, text: str) -> str:
    if "\\" not in text:
        return text
    plain, parts = [], iter(text)
    reverse = {escape[1]: character for character, escape in _ESCAPES.items()}
    for character in parts:
        if character == "\\":
            character = reverse.get(next(parts, ""), "")
            if not character:
                raise lines.error("op has an unknown escape", "write \\\\, \\t, \\n or \\r")
        plain.append(character)
    return "".join(plain)


ORRERY = OwnFormat()
