"""`orrery estimate`: what a static batch takes by two formulas, and how far that is from the full simulation.

orrery estimate --model_name facebook/opt-6.7b --gpu A100-80G --prompt_length 1024 --response_length 512 --compare
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import choice, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from trace_gen.perf_models import PerfModelSettings, perf_models

if TYPE_CHECKING:
    from orchestrator.estimating.comparison import Comparison
    from orchestrator.estimating.estimate import Estimate
    from orchestrator.estimating.registries import Registries
    from orchestrator.settings.specification import RunSpec

MOST_TOKENS, MOST_SEQUENCES = 2**20, 2**16


@dataclass(frozen=True)
class EstimateSettings:
    """What the command is asked for."""

    model_name: str | None = setting(
        None,
        "model of the registry, shipped model, or the path of a config.json",
        aliases=("model",),
        shown_default="that of --run",
    )
    gpu: str | None = setting(
        None,
        "GPU of the registry, shipped device, or the path of a hardware file",
        shown_default="that of --run, else the one that PyTorch finds",
    )
    prompt_length: int | None = setting(
        None, "tokens of a prompt", least=1, most=MOST_TOKENS, shown_default="must be given"
    )
    response_length: int | None = setting(
        None,
        "tokens of the token phase; 0: the prompt phase alone",
        least=0,
        most=MOST_TOKENS,
        shown_default="must be given",
    )
    batch_size: int = setting(1, "sequences in the batch", least=1, most=MOST_SEQUENCES)
    efficiency: float = setting(
        1.0, "part of the memory bandwidth that reading weights and KV cache reaches", above=0, most=1
    )
    registry: Path = setting(Path("data"), "folder of gpu.json, model.json and ptps.json", folder=True)
    perf_model: PerfModelSettings = choice(
        perf_models,
        None,
        "what the full simulation has its latencies from, and PTPS where the registry has none",
        otherwise="roofline",
        shown_default="what the given table or profile needs, else roofline",
    )
    compare: bool = setting(False, "simulate the same requests in full, and tell the errors of the formulas")
    run: Path | None = setting(
        None,
        "run file whose engine simulates them: its policy, host times, performance model",
        shown_default="none: a static batch without host times",
    )
    json: Path | None = setting(None, "JSON file to write the figures to", shown_default="none")
    csv: Path | None = setting(None, "CSV file to write both curves to, a row a token", shown_default="none")
    report: Path | None = setting(None, "HTML file to write the plots and the table to", shown_default="none")

    @property
    def compares(self) -> bool:
        """Whether the full simulation is asked for."""
        return self.compare or any(one is not None for one in (self.run, self.csv, self.report))

    def problems(self) -> Iterator[Problem]:
        """All that the formulas need is given, and no file is written twice or over one that is read."""
        for name in ("prompt_length", "response_length"):
            if getattr(self, name) is None:
                yield Problem(name, "is not given", "say how many tokens")
        if self.model_name is None and self.run is None:
            yield Problem("model_name", "no model is named", "give one")
        name = perf_models.name_of(type(self.perf_model))
        if self.run is not None and name != "roofline":
            yield Problem("perf_model", f"{name} beside --run, which says what latencies are from", "leave one out")
        files = [self.run, *(self.registry / f"{name}.json" for name in ("gpu", "model", "ptps"))]
        taken = [path.absolute() for path in files if path is not None]
        for name in ("json", "csv", "report"):
            path = getattr(self, name)
            if path is None:
                continue
            if path.absolute() in taken:
                yield Problem(name, "the command reads or writes this file already", "name another file")
            taken.append(path.absolute())


def run(arguments: Sequence[str]) -> int:
    """Estimate as the command line asks; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(EstimateSettings),
                "main.py estimate --model_name M --gpu G --prompt_length N --response_length N [FLAGS]",
                "Tell what a static batch takes on one GPU by closed form: prompt tokens by the speed they are "
                "processed at, each further token by the weights and KV cache that it reads.",
                "The last line printed is latencys: [...], seconds; the first is the prompt phase. --run, --csv and "
                "--report imply --compare. See docs/estimator.md.",
            )
        )
        return 0
    _estimate(read(EstimateSettings, Layers(flags=parse(arguments, catalogue(EstimateSettings)))))
    return 0


def _estimate(wanted: EstimateSettings) -> None:
    import json

    from foundation.files import atomic_write
    from orchestrator.estimating.estimate import Asked, estimate
    from orchestrator.estimating.registries import Registries

    assert wanted.prompt_length is not None and wanted.response_length is not None, "checked by `problems`"
    spec = _run_file(wanted)
    model, gpu = _names(wanted, spec)
    perf_model = wanted.perf_model if spec is None else spec.engine.perf_model
    asked = Asked(wanted.prompt_length, wanted.response_length, wanted.batch_size)
    registries = Registries(wanted.registry)
    found = estimate(registries, model, gpu, asked, perf_model=perf_model, efficiency=wanted.efficiency)
    comparison = _compared(wanted, registries, found, spec, model, gpu) if wanted.compares else None
    if wanted.json is not None:
        figures = found.as_json() if comparison is None else comparison.as_json()
        with atomic_write(wanted.json) as stream:
            stream.write(json.dumps(figures, indent=2) + "\n")
    if comparison is not None:
        _write(wanted, comparison)
    _print(found, comparison)


def _run_file(wanted: EstimateSettings) -> RunSpec | None:
    from orchestrator.estimating.simulated import of_run_file

    return None if wanted.run is None else of_run_file(wanted.run)


def _names(wanted: EstimateSettings, spec: RunSpec | None) -> tuple[str, str | None]:
    """Return the model and the GPU by name: as flags say, else as the run file does."""
    from orchestrator.settings.engine import DEFAULT_HARDWARE, DEFAULT_MODEL

    if spec is None:
        assert wanted.model_name is not None, "checked by `problems`"
        return wanted.model_name, wanted.gpu
    model = spec.engine.model
    return (
        wanted.model_name or model.model_name or DEFAULT_MODEL,
        wanted.gpu or model.hardware or DEFAULT_HARDWARE,
    )


def _compared(
    wanted: EstimateSettings,
    registries: Registries,
    found: Estimate,
    spec: RunSpec | None,
    model: str,
    gpu: str | None,
) -> Comparison:
    from dataclasses import replace

    from orchestrator.estimating.comparison import compare
    from orchestrator.estimating.entries import known

    one = known(registries, model, gpu)
    if spec is None:
        return compare(found, one.run(wanted.perf_model))
    engine = replace(spec.engine, model=one.settings)
    return compare(found, replace(spec, engines=(engine,)))


def _write(wanted: EstimateSettings, comparison: Comparison) -> None:
    from foundation.files import atomic_write
    from orchestrator.estimating.comparison import csv_lines
    from orchestrator.estimating.page import render

    if wanted.csv is not None:
        with atomic_write(wanted.csv) as stream:
            stream.writelines(csv_lines(comparison))
    if wanted.report is not None:
        with atomic_write(wanted.report) as stream:
            stream.write(render(comparison))


def _print(found: Estimate, comparison: Comparison | None) -> None:
    from orchestrator.estimating.comparison import print_comparison
    from orchestrator.estimating.estimate import figure_rows
    from orchestrator.observers.tables import print_table

    notes = found.notes if comparison is None else comparison.notes
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print_table(f"{found.model} on {found.gpu}: {found.asked}", ("", ""), figure_rows(found), sys.stdout)
    if comparison is not None:
        print_comparison(comparison, sys.stdout)
    print(f"\nlatencys: {found.latencys}")


commands.register("estimate")(Command("tell what a static batch takes by closed form", run))
