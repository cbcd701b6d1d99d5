"""The steps of a pipeline: kernel tables, requests, run files, simulations.

    FOLDER/kernels        the table of each model
    FOLDER/workloads      the requests of each task and rate        FOLDER/networks   what `io_algo` means
    FOLDER/*.yaml         the run files
    FOLDER/results        the files of each run, and NAME.result.json

A run's result is kept with a digest of all that it was made of, so that the same command simulates again what lacks or
has changed, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.errors import SimulationError
from foundation.files import atomic_write, read_bytes
from foundation.printable import printable
from foundation.records import dataclass
from orchestrator.kernels.deployments import Deployments, Wanted, extra_sizes, timed
from orchestrator.kernels.planning import plan_tables
from orchestrator.kernels.told import fill_tables
from orchestrator.pipeline.lengths import NAME, lengths_of
from orchestrator.pipeline.table import figures
from orchestrator.reallm.importing import Given, Imported, find_device, runnable, workloads_of, write_runs
from orchestrator.reallm.system_file import SystemFile, read_system_file
from orchestrator.request_table import RequestTable
from orchestrator.run_files import simulated
from orchestrator.settings.record import input_paths
from orchestrator.settings.specification import RunSpec, from_flags
from trace_gen.kernels.shapes import Limits
from trace_gen.perf_models import PerfModelSettings

Row = dict[str, Any]
"""A result by the names of columns; of a run that failed the figures lack."""
_MOST_INPUT = 1 << 34


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is asked for: `tasks`, `rates` (requests/s) in place of the file's where there are any.

    `lengths`: by task, a file of requests that lengths are drawn from; `devices`: a folder of ReaLLM's device files;
    `perf_model`: what kernels are priced by (None: the roofline); `processes`: None for one a processor.
    """

    system: Path
    folder: Path
    tasks: Sequence[str]
    rates: Sequence[float]
    lengths: Mapping[str, Path]
    devices: Path | None
    perf_model: PerfModelSettings | None
    limits: Limits
    processes: int | None


Say = Callable[[str], None]


def run_pipeline(asked: Pipeline, say: Say) -> list[Row]:
    """Do all steps and return a row of each run, in the order of engines, tasks and rates.

    What is wrong with the file, or a table that cannot be, is a `UserError` before anything is simulated; `say` is told
    what happens, one line each.
    """
    system = _with_traffic(read_system_file(asked.system), asked)
    engines, left_out = runnable(system, find_device(system, asked.devices))
    wanted = [Wanted(engine.name, timed(RunSpec.of(**values), asked.perf_model)) for engine, values in engines]
    plans, left_out = plan_tables(Deployments(wanted, extra_sizes(system), left_out), asked.limits)
    given = Given(asked.system, asked.folder, asked.lengths, asked.devices)
    workloads = workloads_of(given, system, _lengths(asked, system, say))
    for name, why in left_out.items():
        say(f"left out: {name}: {why}")
    filled = fill_tables(plans, asked.folder / "kernels", asked.processes)
    tables = {name: filled[plan.model] for plan in plans for names in plan.users.values() for name in names}
    timed_by = [
        (engine, {**values, "profile_dir": str(tables[engine.name])})
        for engine, values in engines
        if engine.name in tables
    ]
    made = write_runs(given, system, workloads, timed_by, left_out)
    for note in made.notes:
        if not note.startswith("kernel_sim"):
            say(f"note: {note}")
    return [_result(made, number, say) for number in range(len(made.run_files))]


def _with_traffic(system: SystemFile, asked: Pipeline) -> SystemFile:
    """Return the file with the tasks and rates that are asked for in place of its own."""
    if not asked.tasks and not asked.rates:
        return system
    traffic = replace(
        system.traffic, tasks=asked.tasks or system.traffic.tasks, rates=asked.rates or system.traffic.rates
    )
    return replace(system, traffic=traffic, traces=())


def _lengths(asked: Pipeline, system: SystemFile, say: Say) -> dict[str, RequestTable]:
    """Return lengths of each task that may be drawn and has no file of them."""
    if system.traces and all(Path(name).exists() for name in system.traces):
        return {}
    without = [task for task in system.traffic.tasks if task not in asked.lengths]
    for task in without:
        say(f"lengths of task {task} are those of the distribution {NAME}; --{task} takes a trace")
    return {task: lengths_of(task, system.traffic.seed) for task in without}


def _result(made: Imported, number: int, say: Say) -> Row:
    """Return the row of a run, simulated unless that was done before with the same inputs."""
    path, (engine, workload) = made.run_files[number], made.pairs[number]
    kept = path.parent / "results" / f"{path.stem}.result.json"
    spec = from_flags(["--settings", str(path)])
    inputs = _digest(path, spec)
    output = spec.output.output
    known = _known(kept, inputs) if output is not None and output.exists() else None
    place = f"run {number + 1} of {len(made.run_files)}: {path.stem}"
    if known is not None:
        say(f"{place}: done before")
        return known
    say(place)
    task, rate = (workload.name, None) if workload.drawn is None else workload.drawn[1:]
    row: Row = {"engine": engine.name, "task": task, "rate": rate}
    try:
        row |= figures(simulated(spec))
    except SimulationError as error:
        print(printable(f"error: {path}: {error}"), file=sys.stderr, flush=True)
        return row
    with atomic_write(kept) as stream:
        json.dump({"inputs": inputs, "row": row}, stream, indent=2)
        stream.write("\n")
    return row


def _digest(path: Path, spec: RunSpec) -> str:
    """Return a digest of a run file and of all files that the run reads."""
    found = hashlib.sha256()
    for one in (path, *input_paths(spec)):
        for file in sorted(one.rglob("*")) if one.is_dir() else [one]:
            if file.is_file():
                found.update(hashlib.sha256(read_bytes(file, "input", _MOST_INPUT)).digest())
    return found.hexdigest()


def _known(kept: Path, inputs: str) -> Row | None:
    """Return the row that is kept of a run with the same `inputs`; None where there is none, or it cannot be read."""
    try:
        found: Any = json.loads(kept.read_text(encoding="utf-8"))
        row = found["row"] if found["inputs"] == inputs else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return row if isinstance(row, dict) else None
