"""`orrery pipeline`: kernels, traffic and simulations of a system file of ReaLLM's in one go.

orrery pipeline SYSTEM.yaml --output FOLDER --task code conv --rate 1 3 5 7
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from foundation.digits import decimal_number
from foundation.records import dataclass
from foundation.settings import section, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from orchestrator.commands.kernels import FillSettings

TASKS = ("code", "conv")
LEAST_RATE, MOST_RATE = 1e-6, 1e6


@dataclass(frozen=True)
class PipelineSettings:
    """What the command is asked for."""

    system: Path | None = setting(None, "system file of ReaLLM's, given without a flag", shown_default="must be given")
    output: Path | None = setting(None, "folder for tables, requests and results", shown_default="must be given")
    task: str | None = setting(
        None, f"tasks, after one another or separated by commas: {', '.join(TASKS)}", shown_default="the file's"
    )
    rate: str | None = setting(
        None, "request rates, after one another or separated by commas", unit="requests/s", shown_default="the file's"
    )
    code: Path | None = setting(
        None,
        "requests whose lengths task code draws: the Azure trace, or any workload file",
        shown_default="a distribution with the trace's medians",
    )
    conv: Path | None = setting(
        None,
        "requests whose lengths task conv draws: the Azure trace, or any workload file",
        shown_default="a distribution with the trace's medians",
    )
    filling: FillSettings = section(FillSettings, "Kernel tables")

    def problems(self) -> Iterator[Problem]:
        """A file and a folder are named; tasks are known, rates are rates, and none comes twice."""
        for name in ("system", "output"):
            if getattr(self, name) is None:
                yield Problem(
                    name, "is missing", "give a system file of ReaLLM's" if name == "system" else "give a folder"
                )
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            yield Problem("output", f"{self.output} is no folder", "name a folder")
        for task in listed(self.task):
            if task not in TASKS:
                yield Problem("task", f"{task!r} is unknown", f"known: {', '.join(TASKS)}")
        for rate in listed(self.rate):
            number = decimal_number(rate)
            if number is None or not LEAST_RATE <= number <= MOST_RATE:
                yield Problem("rate", f"{rate!r}", f"expected requests/s from {LEAST_RATE:g} to {MOST_RATE:g}")
        for name in ("task", "rate"):
            words = listed(getattr(self, name))
            if len(set(words)) < len(words):
                yield Problem(name, "one of them comes twice", "leave one out")

    @property
    def rates(self) -> list[float]:
        """The rates (requests/s); none where the file's are meant."""
        return [float(rate) for rate in listed(self.rate)]


def listed(words: str | None) -> list[str]:
    """Return what stands between commas."""
    return [] if words is None else [word.strip() for word in words.split(",")]


def pipeline(arguments: Sequence[str]) -> int:
    """Do as the command line asks; return 1 where a run could not be completed, else 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(PipelineSettings),
                "orrery pipeline SYSTEM.yaml --output FOLDER [FLAGS]",
                "Fill the kernel tables of a system file of ReaLLM's, draw the requests of each task and rate, "
                "simulate every engine on each, and write one table of all.",
                "A pipeline that was killed goes on where it was when the same command is given again "
                "(docs/kernels.md). Exit code: 0, 1 where a run could not be completed, 2 for wrong input.",
            )
        )
        return 0
    given = parse(together(arguments, ("task", "rate")), catalogue(PipelineSettings), first="system")
    return _pipeline(read(PipelineSettings, Layers(flags=given)))


def together(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command line in which all words after a flag of `names` are one, with commas between."""
    found: list[str] = []
    open_flag = False
    for word in arguments:
        if word.startswith("--"):
            open_flag = word.removeprefix("--") in names
            found.append(word)
        elif open_flag and not found[-1].startswith("--"):
            found[-1] += f",{word}"
        else:
            found.append(word)
    return found


def _pipeline(wanted: PipelineSettings) -> int:
    from foundation.printable import printable
    from orchestrator.pipeline.running import Pipeline, run_pipeline
    from orchestrator.pipeline.table import print_results, write_results

    assert wanted.system is not None and wanted.output is not None, "checked by `problems`"
    filling = wanted.filling
    rows = run_pipeline(
        Pipeline(
            wanted.system,
            wanted.output,
            listed(wanted.task),
            wanted.rates,
            {task: path for task in TASKS if (path := getattr(wanted, task)) is not None},
            filling.devices,
            filling.perf_model,
            filling.limits,
            filling.processes,
        ),
        lambda text: print(printable(text), flush=True),
    )
    print_results(rows)
    paths = write_results(wanted.output, rows)
    print(printable(f"{len(rows)} results: {', '.join(map(str, paths))}"))
    return 0 if all("requests" in row for row in rows) else 1


commands.register("pipeline")(Command("kernels, traffic and simulations of a ReaLLM system file in one go", pipeline))
