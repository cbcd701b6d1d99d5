"""`orrery workload`: write a workload, or say what one is like.

orrery workload OUTPUT [FLAGS]       make requests (or read and rescale those of --dataset) and write them
orrery workload --describe FILE      print what a file's requests are like
orrery workload --report FILE.html   the same of what the flags make, as a page; also beside OUTPUT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import section, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from orchestrator.settings.run import MOST_GENERATED, WorkloadSettings

if TYPE_CHECKING:
    from orchestrator.request_table import RequestTable


@dataclass(frozen=True)
class WorkloadCommand:
    """What the command is asked for."""

    output: Path | None = setting(
        None,
        "file to write, given without a flag: .jsonl for sessions, token ids and priorities, else TSV",
        shown_default="none: the workload is described",
    )
    describe: Path | None = setting(None, "file of requests to describe, in any format that a run reads")
    settings: Path | None = setting(None, "run file whose workload is meant; flags win over it")
    report: Path | None = setting(None, "HTML file to write a description to")
    json: Path | None = setting(None, "JSON file to write a description to")
    workload: WorkloadSettings = section(WorkloadSettings, "Workload")

    def problems(self) -> Iterator[Problem]:
        """There is something to do, and nothing is replaced that is read."""
        if not any((self.output, self.describe, self.report, self.json)):
            yield Problem("output", "no file is named", "give the file to write, or --describe FILE")
        if self.describe is not None and self.output is not None:
            yield Problem("describe", "a file is described or written", "leave one out; --dataset is what OUTPUT is of")
        if self.describe is not None and self.workload.dataset is not None:
            yield Problem("describe", "conflicts with --dataset", "leave one out")
        if (self.workload.req_num or 0) > MOST_GENERATED:
            yield Problem("req_num", f"{self.workload.req_num} requests", f"give at most {MOST_GENERATED}")
        if self.workload.skip_unfit:
            yield Problem("skip_unfit", "nothing is served here", "leave it out")
        written = [one.absolute() for one in (self.output, self.report, self.json) if one is not None]
        if len(set(written)) < len(written):
            yield Problem("output", "two of the files to write are one", "name them apart")

    @property
    def meant(self) -> WorkloadSettings:
        """The workload: that of the file to describe, or what the settings say."""
        return self.workload if self.describe is None else replace(self.workload, dataset=self.describe)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line asks for; return the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(_help())
        return 0
    wanted = read_flags(arguments)
    _check_not_read(wanted)
    if wanted.output is not None:
        print(f"{_write(wanted.output, wanted.workload)} requests written to {wanted.output}")
    if wanted.output is None or wanted.report is not None or wanted.json is not None:
        _describe(wanted)
    return 0


def read_flags(arguments: Sequence[str]) -> WorkloadCommand:
    """Return what a command line asks for; a `UserError` tells everything that is wrong with it."""
    given = parse(arguments, catalogue(WorkloadCommand), first="output")
    layers = Layers(flags=given)
    if "settings" in given and given["settings"].value:
        layers = replace(_of_run_file(str(given["settings"].value)), flags=given)
    return read(WorkloadCommand, layers)


def _of_run_file(path: str) -> Layers:
    """Return what a run file says of its workload; the rest of it is checked, too."""
    from orchestrator.settings.specification import RunCommand, given_by

    layers = given_by(["--settings", path])
    read(RunCommand, layers)
    own = {*catalogue(WorkloadSettings).entries}
    return Layers(
        file={name: value for name, value in layers.file.items() if name in own},
        lists={name: entries for name, entries in layers.lists.items() if name in catalogue(WorkloadSettings).lists},
    )


def _help() -> str:
    return help_text(
        catalogue(WorkloadCommand),
        "orrery workload [OUTPUT] [FLAGS]",
        "Write a workload, or describe one: rates, gaps, lengths, sessions, and what prompts share.",
        "A mixture of clients stands in a run file: --settings FILE. A seed gives the same bytes on every machine.",
    )


def _check_not_read(wanted: WorkloadCommand) -> None:
    """Refuse to replace a file that requests, lengths or times are taken from."""
    from orchestrator.settings.record import input_paths

    sources = [path for path in (wanted.describe, wanted.settings, *input_paths(wanted.workload)) if path is not None]
    for path in (wanted.output, wanted.report, wanted.json):
        if path is not None and path.exists() and any(one.exists() and path.samefile(one) for one in sources):
            raise UserError("would be replaced, and is read", path=path, fix="name another file")


def _write(path: Path, workload: WorkloadSettings) -> int:
    from orchestrator.request_source import read_workload_of, with_adapters
    from orchestrator.requests.writing import needs_json, write_tables

    if workload.dataset is not None:
        table = with_adapters(read_workload_of(workload).requests, workload)
        return write_tables(path, [table], needs_json=needs_json(table))
    from orchestrator.requests.generators.generating import Generator

    made = Generator(workload.mixture, workload.seed, workload.count, workload.until_ns).tables()
    tables = (with_adapters(one, workload) for one in made)
    more = any(one.has_ids or one.priority is not None for one in workload.mixture)
    return write_tables(path, tables, needs_json=more)


def _describe(wanted: WorkloadCommand) -> None:
    from foundation.files import atomic_write
    from orchestrator.describing.figures import describe
    from orchestrator.describing.tables import print_description
    from orchestrator.request_source import name_of, read_workload_of, with_adapters

    table: RequestTable = with_adapters(read_workload_of(wanted.meant).requests, wanted.meant)
    found, name = describe(table), name_of(wanted.meant)
    if wanted.output is None:
        print_description(name, found, sys.stdout)
    if wanted.json is not None:
        import json

        with atomic_write(wanted.json) as stream:
            json.dump({"workload": name, **found.to_json()}, stream, indent=2)
            stream.write("\n")
    if wanted.report is not None:
        from orchestrator.describing.page import render

        with atomic_write(wanted.report) as stream:
            stream.write(render(name, found, table))


commands.register("workload")(Command("write a workload, or describe one", run))
