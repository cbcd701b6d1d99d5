"""What is to be checked, from a file: a text trace, spread over ranks and lowered, or the .et files of all ranks."""

from __future__ import annotations

import re
from dataclasses import replace
from glob import escape as glob_escape
from pathlib import Path

from astra_files.network import NetworkConfig
from converters.chakra import read_graph
from converters.lowering import lower
from converters.text import collect, open_text, place
from converters.text.records import RecordStream
from foundation.errors import UserError
from foundation.files import names_in
from foundation.records import dataclass
from trace_gen.attention.absorption import absorption_named
from trace_gen.models import load_model
from trace_gen.precision import Precision
from trace_gen.trace import Trace
from trace_test.operators import named_mesh
from trace_test.rule import ModelFacts, Subject
from trace_test.rules import dependencies, group_members

_ET_FILE = re.compile(r"(.+)\.[0-9]+\.et")
_NUMBERED = frozenset({"orca", "colocated", "decode", "prefill"})
_ROW_NUMBER = re.compile(r"(?<=[^ _])_\d+$")


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: NPUs and stages of texts that name no ranks, bits of a number, and the network of .et files.

    Without `network`, a network.yml that stands beside .et files is theirs.
    """

    npu_num: int | None = None
    npu_group: int | None = None
    bits: int = 16
    network: NetworkConfig | None = None


def in_folder(name: str) -> list[str]:
    """Return `name`, or the text traces and the prefixes of .et files in it where it is a folder, in order."""
    path = Path(name)
    if not path.is_dir():
        return [name]
    names = names_in(path)
    found = {match[1] for match in map(_ET_FILE.fullmatch, names) if match} | {n for n in names if n.endswith(".txt")}
    if not found:
        raise UserError("the folder holds no traces", path=path, fix="name one with .txt or .et files")
    return [str(path / one) for one in sorted(found)]


def read_subject(name: str, reading: Reading) -> Subject:
    """Read a text trace, one rank's .et file (which stands for all of its prefix), or a prefix of .et files.

    A file that is there but cannot be read gives a subject that says so; one that is not there is a `UserError`.
    """
    path = Path(name)
    match = _ET_FILE.fullmatch(path.name)
    prefix = path.with_name(match[1]) if match else path
    is_text = path.is_file() and not match
    if not path.exists() and (match or not list(path.parent.glob(f"{glob_escape(path.name)}.*.et"))):
        raise UserError("there is neither such a file nor a PREFIX.0.et", path=path, fix="check the path")
    try:
        if not is_text:
            graph = read_graph(prefix)
            dims = _network_dims(reading, prefix, graph.num_ranks)
            return Subject(name, graph=graph, prefix=str(prefix), network_dims=dims)
        trace = collect(place(_without_numbers(open_text(path)), reading.npu_num, reading.npu_group))
    except UserError as error:
        if error.field is not None and error.field.startswith("--"):
            raise
        return Subject(name, unreadable=str(error))
    return of_trace(name, trace, _model(trace, reading))


def _network_dims(reading: Reading, prefix: Path, ranks: int) -> tuple[int, ...] | None:
    """Return the dimensions of the network given, or of the one beside the files, which must have all their ranks."""
    beside = prefix.with_name("network.yml")
    network = reading.network or (NetworkConfig.from_file(beside) if beside.is_file() else None)
    if network is None:
        return None
    if network.npus != ranks:
        what = f"the network has {network.npus} NPUs, but there are {ranks} ranks"
        if reading.network is not None:
            raise UserError(what, field="--network", fix="give the network that these files were made for")
        raise UserError(what, path=beside, fix="a rank is missing, or it is another deployment's: give --network FILE")
    return network.npus_count


def _without_numbers(stream: RecordStream) -> RecordStream:
    """Return `stream` without row numbers in names where a text edited by hand has them out of step with its rows.

    Reading takes off the numbers that fit; rules know operators by name, and one deleted row is one mistake.
    """
    if stream.attributes["format"] not in _NUMBERED:
        return stream
    return replace(stream, records=(one._replace(op=_ROW_NUMBER.sub("", one.op)) for one in stream.records))


def of_trace(source: str, trace: Trace, model: ModelFacts | None) -> Subject:
    """Return the subject of a trace with its execution graph; without one where its rows could not be lowered."""
    subject = Subject(source, trace, model=model)
    for rule in (dependencies.RULE, group_members.RULE):
        if next(rule.check(subject), None) is not None:
            return subject
    return replace(subject, graph=lower(trace))


def _model(trace: Trace, reading: Reading) -> ModelFacts | None:
    """Return the model that our own generator's traces name, where it is one that can be loaded."""
    mesh = named_mesh(trace, spread=True)
    if mesh is None or not {"model", "tensor_parallel"} <= trace.attributes.keys():
        return None
    try:
        quantization, mla = trace.attributes.get("quantization"), trace.attributes.get("mla", "auto")
        architecture = load_model(trace.attributes["model"], quantization, absorption_named(mla))
        mesh.stage_layers(architecture.num_layers)
    except UserError:
        return None
    return ModelFacts(architecture, mesh, Precision(reading.bits, reading.bits, reading.bits))
