"""`orrery estimate`: what a static batch takes by two formulas, and how far that is from the full simulation.

orrery estimate --model_name facebook/opt-6.7b --gpu A100-80G --prompt_length 1024 --response_length 512 --compare
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.digits import whole_number
from foundation.printable import brief
from foundation.records import dataclass
from foundation.settings import choice, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from trace_gen.perf_models import PerfModelSettings, perf_models

if TYPE_CHECKING:
    from orchestrator.estimating.comparison import Comparison
    from orchestrator.estimating.estimate import Estimate, Estimator
    from orchestrator.settings.specification import RunSpec

MOST_TOKENS, MOST_SEQUENCES = 2**20, 2**16
MOST_SIMULATED = 10**7
"""Tokens of a batch whose times are kept: some hundred bytes each."""


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
    prompt_length: str | None = setting(
        None, "tokens of a prompt; several lengths separated by commas", shown_default="must be given"
    )
    response_length: int | None = setting(
        None,
        "tokens of the token phase; 0: the prompt phase alone",
        least=0,
        most=MOST_TOKENS,
        shown_default="must be given",
    )
    batch_size: str = setting("1", "sequences in the batch; several sizes separated by commas")
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

    @property
    def batches(self) -> list[tuple[int, int]]:
        """Each prompt length with each batch size."""
        lengths, sizes = (_listed(text, most) for text, most in self._lists().values())
        return [(length, size) for length in lengths or () for size in sizes or ()]

    def problems(self) -> Iterator[Problem]:
        """All that the formulas need is given, and no file is written twice or over one that is read."""
        for name in ("prompt_length", "response_length"):
            if getattr(self, name) is None:
                yield Problem(name, "is not given", "say how many tokens")
        for name, (text, most) in self._lists().items():
            if text is not None and _listed(text, most) is None:
                what = f"{brief(text)} is no list of whole numbers from 1 to {most}"
                yield Problem(name, what, "separate them by commas")
        if self.model_name is None and self.run is None:
            yield Problem("model_name", "no model is named", "give one")
        name = perf_models.name_of(type(self.perf_model))
        if self.run is not None and name != "roofline":
            yield Problem("perf_model", f"{name} beside --run, which says what latencies are from", "leave one out")
        yield from self._wrong_files()
        longest = max((size for _, size in self.batches), default=0) * (self.response_length or 0)
        if self.compares and longest > MOST_SIMULATED:
            what = f"{longest} tokens of a batch, of which the full simulation keeps {MOST_SIMULATED} at most"
            yield Problem("response_length", what, "give fewer, or a smaller --batch_size")

    def _wrong_files(self) -> Iterator[Problem]:
        files = [self.run, *(self.registry / f"{name}.json" for name in ("gpu", "model", "ptps"))]
        taken = [path.absolute() for path in files if path is not None]
        for name in ("json", "csv", "report"):
            path = getattr(self, name)
            if path is None:
                continue
            if path.absolute() in taken:
                yield Problem(name, "the command reads or writes this file already", "name another file")
            if name != "json" and len(self.batches) > 1:
                yield Problem(name, "has the curve of one batch", "give one prompt length and one batch size")
            taken.append(path.absolute())

    def _lists(self) -> dict[str, tuple[str | None, int]]:
        return {"prompt_length": (self.prompt_length, MOST_TOKENS), "batch_size": (self.batch_size, MOST_SEQUENCES)}


def _listed(text: str | None, most: int) -> list[int] | None:
    """Return the whole numbers from 1 to `most` that a text lists; None where it is no such list."""
    found = [whole_number(part.strip(), 1, most) for part in (text or "").split(",")]
    return None if None in found else [number for number in found if number is not None]


def run(arguments: Sequence[str]) -> int:
    """Estimate as the command line asks; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(EstimateSettings),
                "main.py estimate --model_name M --gpu G --prompt_length N --response_length N [FLAGS]",
                "Tell what a static batch takes on one GPU by closed form: prompt tokens by the speed they are "
                "processed at, each further token by the weights and KV cache that it reads.",
                "Of one batch the last line printed is latencys: [...], seconds; the first is the prompt phase. --run, "
                "--csv and --report imply --compare. See docs/estimator.md.",
            )
        )
        return 0
    _estimate(read(EstimateSettings, Layers(flags=parse(arguments, catalogue(EstimateSettings)))))
    return 0


def _estimate(wanted: EstimateSettings) -> None:
    from orchestrator.estimating.comparison import compare
    from orchestrator.estimating.estimate import Asked, estimator
    from orchestrator.estimating.registries import Registries

    assert wanted.response_length is not None, "checked by `problems`"
    run_file = _run_file(wanted)
    model, gpu = _names(wanted, run_file)
    perf_model = wanted.perf_model if run_file is None else run_file.engine.perf_model
    one = estimator(Registries(wanted.registry), model, gpu, perf_model=perf_model, efficiency=wanted.efficiency)
    found = [one.estimate(Asked(length, wanted.response_length, size)) for length, size in wanted.batches]
    compared = []
    if wanted.compares:
        spec = one.known.run(perf_model) if run_file is None else _served_by(run_file, one)
        for done, estimate in enumerate(found):
            compared.append(compare(estimate, spec))
            if len(found) > 1 and sys.stderr.isatty():
                print(f"{done + 1} of {len(found)} batches simulated", file=sys.stderr, flush=True)
    _write(wanted, found, compared)
    _print(one, found, compared)


def _run_file(wanted: EstimateSettings) -> RunSpec | None:
    from orchestrator.estimating.simulated import of_run_file

    return None if wanted.run is None else of_run_file(wanted.run)


def _served_by(run_file: RunSpec, one: Estimator) -> RunSpec:
    """Return the run of a run file, of the model on the GPU that the formulas are asked about."""
    return replace(run_file, engines=(replace(run_file.engine, model=one.known.settings),))


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


def _write(wanted: EstimateSettings, found: Sequence[Estimate], compared: Sequence[Comparison]) -> None:
    import json

    from foundation.files import atomic_write
    from orchestrator.estimating.comparison import csv_lines
    from orchestrator.estimating.page import render

    if wanted.json is not None:
        figures = [one.as_json() for one in (compared or found)]
        with atomic_write(wanted.json) as stream:
            stream.write(json.dumps(figures if len(figures) > 1 else figures[0], indent=2) + "\n")
    if wanted.csv is not None:
        with atomic_write(wanted.csv) as stream:
            stream.writelines(csv_lines(compared[0]))
    if wanted.report is not None:
        with atomic_write(wanted.report) as stream:
            stream.write(render(compared[0]))


def _print(one: Estimator, found: Sequence[Estimate], compared: Sequence[Comparison]) -> None:
    from orchestrator.estimating.comparison import print_comparison
    from orchestrator.estimating.estimate import basis_rows, phase_rows
    from orchestrator.estimating.grid import print_grid
    from orchestrator.observers.tables import print_table

    for note in dict.fromkeys(note for each in (compared or found) for note in each.notes):
        print(f"note: {note}", file=sys.stderr)
    title, basis = f"{found[0].model} on {found[0].gpu}", basis_rows(one.formula, one.source)
    if len(found) > 1:
        print_table(title, ("", ""), basis, sys.stdout)
        tokens = f"{found[0].asked.response_length} further tokens a sequence"
        engine = f"; errors against {compared[0].engine}" if compared else ""
        print_grid(f"By the formulas, {tokens}{engine}", compared or found, sys.stdout)
        return
    print_table(f"{title}: {found[0].asked}", ("", ""), [*basis, *phase_rows(found[0])], sys.stdout)
    if compared:
        print_comparison(compared[0], sys.stdout)
    print(f"\nlatencys: {found[0].latencys}")


commands.register("estimate")(Command("tell what a static batch takes by closed form", run))
