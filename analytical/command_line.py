"""The flags of ``python -m analytical``: ASTRA-sim's own, and a few beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from analytical.machine.options import LARGEST_SCALE, MOST_QUEUES
from foundation.records import dataclass
from foundation.settings import section, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read

USAGE = "python -m analytical FLAGS"
DESCRIPTION = (
    "Simulate Chakra execution graphs as ASTRA-sim's analytical backend does, cycle for cycle (1 cycle = 1 ns), with "
    "the same flags and the same lines: for every rank, in the order in which they finish, its cycles, its exposed "
    "communication and its statistics. Where ASTRA-sim hangs, crashes or answers nonsense, this says why and exits "
    "with 1; a wrong file or flag exits with 2."
)
EPILOG = "Hyphens may stand for underscores in flags, as ASTRA-sim writes them."
TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0")
_IGNORED = "accepted and without effect"


@dataclass(frozen=True)
class Files:
    """What is read."""

    workload_configuration: str | None = setting(
        None, "the graphs: PREFIX.<rank>.et, one a rank", shown_default="must be given"
    )
    system_configuration: Path | None = setting(None, "system.json", shown_default="must be given")
    remote_memory_configuration: Path | None = setting(None, "memory.json", shown_default="must be given")
    network_configuration: Path | None = setting(None, "network.yml", shown_default="must be given")
    comm_group_configuration: str = setting(
        "empty", 'communicator groups, JSON {"1": [ranks]}; a name that contains "empty" means none'
    )


@dataclass(frozen=True)
class Model:
    """What is simulated."""

    congestion: str = setting(
        "unaware",
        "messages pass each other freely, or queue for links, in one dimension",
        choices=("unaware", "aware"),
    )
    num_queues_per_dim: int = setting(1, "queues for collectives a dimension", least=1, most=MOST_QUEUES)
    injection_scale: float = setting(1.0, "factor on endpoint-delay", least=0, most=LARGEST_SCALE)
    rendezvous_protocol: str = setting(
        "false", "a message waits for 8192 bytes from its receiver; alone the flag means true", choices=TRUE + FALSE
    )
    metadata: str = setting(
        "refuse",
        "METADATA nodes, as in traces of frameworks: refuse them, for ASTRA-sim aborts, or leave them out",
        choices=("refuse", "skip"),
    )


@dataclass(frozen=True)
class Output:
    """What is written."""

    timeline: Path | None = setting(None, "write every node's start and end as a Chrome trace (for Perfetto)")
    serve: bool = setting(False, "answer runs that standard input asks for, one a line, in one process")
    logging_configuration: str | None = setting(None, _IGNORED)
    logging_folder: str | None = setting(None, _IGNORED)
    comm_scale: str | None = setting(None, f"{_IGNORED}, as in ASTRA-sim")
    compute_scale: str | None = setting(None, f"{_IGNORED}, as in ASTRA-sim")


@dataclass(frozen=True)
class Command:
    """One command line."""

    files: Files = section(Files, "Input files")
    model: Model = section(Model, "Model")
    output: Output = section(Output, "Output")

    def problems(self) -> Iterator[Problem]:
        """Yield the files that are missing."""
        for name in ("workload", "system", "remote_memory", "network"):
            if getattr(self.files, f"{name}_configuration") is None and not self.output.serve:
                yield Problem(f"{name}_configuration", "is missing", "name the file")


def read_command(arguments: Sequence[str]) -> Command:
    """Return what a command line asks for; a `UserError` tells everything that is wrong with it."""
    given = parse([_with_value(word) for word in _joined(arguments)], catalogue(Command))
    return read(Command, Layers(flags=given))


def command_help() -> str:
    """Return the text of ``--help``."""
    return help_text(catalogue(Command), USAGE, DESCRIPTION, EPILOG)


def _joined(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the words, `--rendezvous-protocol` joined with the value that stands behind it."""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if _is_bare(word) and rest and rest[0].lower() in TRUE + FALSE:
            word = f"{word}={rest.pop(0).lower()}"
        yield word


def _with_value(word: str) -> str:
    return f"{word}=true" if _is_bare(word) else word


def _is_bare(word: str) -> bool:
    return word.replace("-", "_") == "__rendezvous_protocol"
