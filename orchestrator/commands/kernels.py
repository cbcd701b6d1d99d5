"""`orrery kernels`: the distinct kernels of a deployment, and a table of their times from any performance model.

orrery kernels SYSTEM.yaml                       list them
orrery kernels SYSTEM.yaml --output FOLDER       fill a table, which --profile_dir FOLDER reads
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import choice, section, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from trace_gen.perf_models import PerfModelSettings, perf_models

if TYPE_CHECKING:
    from orchestrator.kernels.planning import TablePlan
    from trace_gen.kernels.shapes import Limits

MOST_SIZE = 10**7
MOST_PROCESSES = 1024


@dataclass(frozen=True)
class FillSettings:
    """The largest sizes that a table is for, beyond which runs go on with its slopes; and who fills it."""

    max_tokens: int = setting(16384, "tokens of a step in a kernel table", least=2, most=MOST_SIZE)
    max_context: int = setting(16384, "tokens of a request in a kernel table", least=2, most=MOST_SIZE)
    max_requests: int = setting(256, "requests of a step that decode, in a kernel table", least=1, most=10**5)
    processes: int | None = setting(
        None,
        "processes that price kernels; the table is the same with any number",
        least=1,
        most=MOST_PROCESSES,
        shown_default="one a processor",
    )
    devices: Path | None = setting(
        None,
        "folder of ReaLLM's device files",
        shown_default="../device beside the system file's folder",
    )
    perf_model: PerfModelSettings | None = choice(
        perf_models,
        None,
        "where the table's times come from",
        shown_default="what a run file says, else roofline",
    )

    @property
    def limits(self) -> Limits:
        """The largest sizes."""
        from trace_gen.kernels.shapes import Limits

        return Limits(self.max_tokens, self.max_context, self.max_requests)


@dataclass(frozen=True)
class KernelsSettings:
    """What the command is asked for."""

    system: Path | None = setting(
        None,
        "system file of ReaLLM's, or run file, given without a flag",
        shown_default="must be given",
    )
    output: Path | None = setting(
        None, "folder of the table; of several models, of a folder each", shown_default="none: kernels are listed"
    )
    list: Path | None = setting(None, "CSV file to write the kernels to", shown_default="none")
    filling: FillSettings = section(FillSettings, "Table")

    def problems(self) -> Iterator[Problem]:
        """A file is named, and a folder is none."""
        if self.system is None:
            yield Problem("system", "no file is named", "give a system file of ReaLLM's, or a run file")
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            yield Problem("output", f"{self.output} is no folder", "name a folder")


def kernels(arguments: Sequence[str]) -> int:
    """List, and fill, as the command line asks; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(KernelsSettings),
                "orrery kernels SYSTEM.yaml [FLAGS]",
                "List the distinct kernels of a deployment over its parallelisms, and fill a table of their times, "
                "which is a performance model again: --profile_dir FOLDER.",
                "A fill that was killed goes on where it was when the same command is given again (docs/kernels.md).",
            )
        )
        return 0
    _kernels(read(KernelsSettings, Layers(flags=parse(arguments, catalogue(KernelsSettings), first="system"))))
    return 0


def _kernels(wanted: KernelsSettings) -> None:
    from foundation.printable import printable
    from orchestrator.kernels.deployments import read_deployments
    from orchestrator.kernels.planning import plan_tables
    from orchestrator.kernels.told import fill_tables

    assert wanted.system is not None, "checked by `problems`"
    filling = wanted.filling
    found = read_deployments(wanted.system, filling.devices, filling.perf_model)
    plans, left_out = plan_tables(found, filling.limits)
    for name, why in left_out.items():
        print(printable(f"left out: {name}: {why}"))
    _list(wanted, plans)
    if wanted.output is not None:
        fill_tables(plans, wanted.output, filling.processes)


def _list(wanted: KernelsSettings, plans: Sequence[TablePlan]) -> None:
    from orchestrator.kernels.listing import COLUMNS, listed
    from orchestrator.observers.tables import print_table

    rows = [row for plan in plans for row in listed(plan)]
    if wanted.list is not None:
        import csv

        from foundation.files import atomic_write

        with atomic_write(wanted.list) as stream:
            csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    if wanted.output is None and wanted.list is None:
        print_table("Kernels", COLUMNS, rows, sys.stdout)
    sizes = sum(len(one) for plan in plans for one in plan.sizes.values())
    print(f"{len(rows)} kernels, {sizes} sizes")


commands.register("kernels")(Command("list a deployment's kernels, and fill a table of their times", kernels))
