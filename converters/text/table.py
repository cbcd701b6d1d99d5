"""The eleven columns that every text trace of LLMServingSim has, and its section markers.

    Layername comp_time input_loc input_size weight_loc weight_size output_loc output_size comm_type comm_size misc

A row is a record as it stands (unplaced: one rank, nothing divided); ``ATTENTION i``, ``EXPERT i``, ``PIM ch`` and
their ``END`` are records of kind COMM, so that a record is a line and a line is a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from converters.text.lines import MAX_NS, Lines, shorten
from converters.text.records import CHANNEL, NO_NODE, Operand, Record
from foundation.records import dataclass
from trace_gen.trace import NO_REQUEST, CommType, Location, RowKind

COLUMNS = (
    *("Layername", "comp_time", "input_loc", "input_size", "weight_loc", "weight_size"),
    *("output_loc", "output_size", "comm_type", "comm_size", "misc"),
)
LOADS, EVICTIONS = ("kv_load", "vllm_load"), ("kv_evict", "vllm_evict")
_LOCATION = re.compile(r"(LOCAL|REMOTE|CXL|STORAGE)(?::([0-9]{1,4})(?:\.([0-9]{1,4}))?)?")
_COMM = re.compile(r"(NONE|ALLREDUCE|ALLGATHER|REDUCESCATTER|ALLTOALL|BROADCAST)(?::([01](?:,[01]){0,15}))?")
_MISC = re.compile(r"NONE|BATCH_([1-9][0-9]{0,3})")
KNOWN_ROWS = 4096
"""Blocks are repeated verbatim, so rows are: this many distinct ones are read once."""
_SECTIONS = ("ATTENTION", "EXPERT", "PIM")


@dataclass(frozen=True, slots=True)
class Table:
    """How a format lays the columns out: their widths, what stands between them, and which markers it has."""

    widths: tuple[int, ...]
    separator: str
    markers: frozenset[str]
    marker_collectives: bool
    """Whether ``EXPERT i`` always says its collective (``EXPERT 1 NONE 0``)."""

    def header(self) -> str:
        """Return the line of column names."""
        return self.line(COLUMNS)

    def line(self, fields: Sequence[str]) -> str:
        """Lay `fields` out; one that fills its column is still followed by a space."""
        padded = [
            field.ljust(width) if len(field) < width or self.separator or index == len(COLUMNS) - 1 else field + " "
            for index, (field, width) in enumerate(zip(fields, self.widths, strict=True))
        ]
        return self.separator.join(padded) + "\n"

    def write(self, record: Record, index: int, numbered: bool = True) -> str:
        """Return the line of the record at row `index`, which its name ends with where rows are `numbered`."""
        words = record.op.split(" ")
        if record.kind == RowKind.COMM and words[0] in self.markers:
            if words[0] == "EXPERT" and (self.marker_collectives or record.comm_type != CommType.NONE):
                words += [_comm_text(record), str(record.comm_bytes)]
            return self.line([" ".join(words), *[""] * (len(COLUMNS) - 1)])
        misc = f"BATCH_{record.sub_batch}" if record.sub_batch else "NONE"
        operands = [text for operand in (record.input, record.weight, record.output) for text in _operand_text(operand)]
        name = f"{record.op}_{index}" if numbered else record.op
        return self.line([name, str(record.latency[0]), *operands, _comm_text(record), str(record.comm_bytes), misc])

    def read(self, lines: Lines, rows: int, numbered: bool = True) -> Iterator[Record]:
        """Yield the records of `rows` lines, less the row number in their names, and check that the file ends there."""
        request = NO_REQUEST
        known: dict[tuple[str, ...], Record] = {}
        for index in range(rows):
            words = lines.next(f"row {index} of the {rows} that its second line announces").split()
            if words and words[0] in _SECTIONS:
                record = self._marker(lines, words)
                if words[0] == "ATTENTION":
                    request = NO_REQUEST if words[1] == "END" else int(words[1])
                yield record
            else:
                fields = tuple(words[1:])
                record = known.get(fields) or _row(lines, words)
                if len(known) < KNOWN_ROWS:
                    known[fields] = record
                yield _named(record, words[0].removesuffix(f"_{index}") if numbered else words[0], request)
        for line in lines:
            if line.strip():
                raise lines.error(f"there are more rows than the {rows} that the second line announces")

    def _marker(self, lines: Lines, words: list[str]) -> Record:
        if words[0] not in self.markers:
            known = ", ".join(sorted(self.markers)) or "none"
            raise lines.error(f"this format has no {words[0]} sections", f"sections of this format: {known}")
        if len(words) < 2 or len(words) > (4 if words[0] == "EXPERT" else 2) or len(words) == 3:
            raise lines.error(f"a section marker cannot be {shorten(' '.join(words))}", f"write {words[0]} <n> or END")
        if words[1] != "END":
            lines.integer(words[1], "the section's number", maximum=10**9)
        comm_type, dims = _comm(lines, words[2]) if len(words) == 4 else (CommType.NONE, "")
        return Record(
            op=f"{words[0]} {words[1]}",
            kind=RowKind.COMM,
            comm_type=comm_type,
            comm_bytes=lines.integer(words[3], "comm_size") if len(words) == 4 else 0,
            group=(0,) if comm_type != CommType.NONE else None,
            dims=dims,
        )


def read_head(lines: Lines) -> tuple[int, str]:
    """Read the line that holds the number of rows and the line of column names after it; return both."""
    rows = lines.integer(lines.next("the number of rows").strip(), "the number of rows", maximum=10**9)
    names = lines.next("the line of column names")
    if tuple(names.split()) != COLUMNS:
        raise lines.error("the third line does not name the columns", f"write {' '.join(COLUMNS)}")
    return rows, names + "\n"


def _named(record: Record, name: str, request: int) -> Record:
    """Return the row with its name, which also says whether it moves KV blocks."""
    kind = RowKind.COMPUTE
    if name.startswith(LOADS):
        kind = RowKind.MEM_LOAD
    elif name.startswith(EVICTIONS):
        kind = RowKind.MEM_STORE
    return record._replace(op=name, kind=kind, request=request)


def _row(lines: Lines, words: list[str]) -> Record:
    """Read every column but the name."""
    if len(words) != len(COLUMNS):
        raise lines.error(f"the row has {len(words)} fields", f"write {len(COLUMNS)}: {' '.join(COLUMNS)}")
    comm_type, dims = _comm(lines, words[8])
    misc = _MISC.fullmatch(words[10])
    if misc is None:
        raise lines.error(f"misc is {shorten(words[10])}", "write NONE or BATCH_<n>")
    return Record(
        op="",
        sub_batch=int(misc[1] or 0),
        latency=(lines.integer(words[1], "comp_time", maximum=MAX_NS),),
        input=_operand(lines, words[2], words[3], "input"),
        weight=_operand(lines, words[4], words[5], "weight"),
        output=_operand(lines, words[6], words[7], "output"),
        comm_type=comm_type,
        comm_bytes=lines.integer(words[9], "comm_size"),
        group=(0,) if comm_type != CommType.NONE else None,
        dims=dims,
    )


def _comm(lines: Lines, text: str) -> tuple[CommType, str]:
    match = _COMM.fullmatch(text)
    if match is None:
        known = ", ".join(comm.name for comm in CommType if comm is not CommType.PERMUTE)
        raise lines.error(f"comm_type is {shorten(text)}", f"write one of {known}, with :1,0 for dimensions")
    comm = CommType[match[1]]
    return comm, "" if comm == CommType.NONE else match[2] or ""


def _comm_text(record: Record) -> str:
    return CommType(record.comm_type).name + (f":{record.dims}" if record.dims else "")


def _operand(lines: Lines, location: str, size: str, what: str) -> Operand:
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise lines.error(f"{what}_loc is {shorten(location)}", "write LOCAL, REMOTE:<node>, CXL:<id> or STORAGE")
    node = NO_NODE if match[2] is None else int(match[2])
    if match[3] is not None:
        node += (int(match[3]) + 1) * CHANNEL
    return Operand(Location[match[1]], node, lines.integer(size, f"{what}_size"))


def _operand_text(operand: Operand) -> tuple[str, str]:
    text = Location(operand.location).name
    if operand.node >= 0:
        channel, node = divmod(operand.node, CHANNEL)
        text += f":{node}" + (f".{channel - 1}" if channel else "")
    return text, str(operand.bytes)


def header_facts(lines: Lines, words: list[str]) -> dict[str, str]:
    """Return the ``name: value`` pairs of a header line."""
    facts: dict[str, str] = {}
    for key, value in zip(words[::2], words[1::2], strict=False):
        if not key.endswith(":"):
            raise lines.error(f"the header has {shorten(key)} where a name with a colon belongs")
        facts[key[:-1]] = value
    if len(words) % 2:
        raise lines.error(f"the header's {shorten(words[-1])} has no value")
    return facts
