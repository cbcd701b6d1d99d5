"""A system file made into run files, workloads and networks: everything checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.files import atomic_write
from foundation.records import dataclass
from orchestrator.deploying import Deploying
from orchestrator.reallm.network import needs_files, network_files
from orchestrator.reallm.runs import Engine, notes, plan
from orchestrator.reallm.system_file import SystemFile, Traffic, read_system_file
from orchestrator.reallm.traffic import draw
from orchestrator.request_table import RequestTable
from orchestrator.requests.formats import read_requests
from orchestrator.requests.writing import write_tables
from orchestrator.settings.engine import NO_FABRIC
from orchestrator.settings.specification import RunSpec
from trace_gen.hardware import Hardware, load_hardware


@dataclass(frozen=True, slots=True)
class Given:
    """What an import is asked for. `lengths`: by task, a file of requests; `devices`: a folder of device files."""

    system: Path
    folder: Path
    lengths: Mapping[str, Path]
    devices: Path | None = None


@dataclass(frozen=True, slots=True)
class RunWorkload:
    """The requests of some runs: a file that is there, or what is to be drawn."""

    name: str
    path: Path
    drawn: tuple[RequestTable, str, float] | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written, what a user should know of it, and the combinations that were left out, with the reason.

    `pairs`: of each run file, its engine and its requests.
    """

    run_files: Sequence[Path]
    notes: Sequence[str]
    left_out: Mapping[str, str]
    pairs: Sequence[tuple[Engine, RunWorkload]] = ()


def import_system(given: Given) -> Imported:
    """Write the runs of a system file; what is wrong with it, or with all its combinations, is a `UserError`."""
    system = read_system_file(given.system)
    hardware = find_device(system, given.devices)
    workloads = workloads_of(given, system)
    engines, left_out = runnable(system, hardware)
    return write_runs(given, system, workloads, engines, left_out)


def write_runs(
    given: Given,
    system: SystemFile,
    workloads: Sequence[RunWorkload],
    engines: Sequence[tuple[Engine, Mapping[str, Any]]],
    left_out: Mapping[str, str],
) -> Imported:
    """Write a run file of each of `engines`, with its settings, for each of `workloads`, and what they name."""
    device = load_hardware(engines[0][1]["hardware"])
    for workload in workloads:
        _check_not_read(given, workload)
    for workload in workloads:
        _write_workload(workload, system.traffic)
    written, pairs = [], []
    for engine, values in engines:
        of_engine = {**values, **_network(given.folder, system, engine, device)}
        written += [_write_run(given, system, engine, of_engine, workload) for workload in workloads]
        pairs += [(engine, workload) for workload in workloads]
    return Imported(written, notes(system), left_out, pairs)


def runnable(system: SystemFile, hardware: str) -> tuple[Sequence[tuple[Engine, dict[str, Any]]], Mapping[str, str]]:
    """Return the engines of a file that can be deployed on `hardware`, with their settings, and why others cannot.

    None at all are a `UserError`.
    """
    made = plan(system)
    engines: list[tuple[Engine, dict[str, Any]]] = []
    for engine in made.engines:
        values = {"hardware": hardware, **engine.settings()}
        try:
            _check(values)
        except UserError as error:
            made.left_out[engine.name] = str(error)
        else:
            engines.append((engine, values))
    if not engines:
        reasons = "; ".join(f"{name}: {why}" for name, why in made.left_out.items())
        raise UserError(f"no combination can be run: {reasons}", path=system.path, fix="change one")
    return engines, made.left_out


def _check(values: Mapping[str, Any]) -> None:
    """Deploy an engine: every check that needs no requests. Memory and mesh do not depend on the network."""
    spec = RunSpec.of(**values)
    Deploying(spec).deploy(spec.engine)


def find_device(system: SystemFile, devices: Path | None) -> str:
    """Return what `--hardware` takes for the device: its file among ReaLLM's (`devices`), or one of our names."""
    folder = devices if devices is not None else system.path.parent.parent / "device"
    path = folder / f"{system.device}.json"
    if path.is_file():
        return str(path)
    try:
        load_hardware(system.device)
    except UserError as error:
        raise UserError(
            f"there is no {path}, and {error}", path=system.path, field="system.device", fix="give --devices FOLDER"
        ) from None
    return system.device


def workloads_of(
    given: Given, system: SystemFile, lengths: Mapping[str, RequestTable] | None = None
) -> list[RunWorkload]:
    """Return the traffic of all runs; files of lengths are read once.

    `lengths`: by task, requests whose lengths are drawn in place of a file's.
    """
    drawn = dict(lengths or {})
    found = []
    for name in system.traces:
        path = Path(name)
        task_and_rate = None if path.exists() else _drawn_by_name(path, system.traffic)
        if task_and_rate is None:
            read_requests(path, 1)
            found.append(RunWorkload(path.stem, path))
        else:
            found.append(_drawing(given, system.traffic, drawn, *task_and_rate))
    twice = [one.name for place, one in enumerate(found) if one.name in [other.name for other in found[:place]]]
    if twice:
        what = f"two files of requests are called {twice[0]}"
        raise UserError(what, path=given.system, field="system_sim.traces", fix="name them apart")
    if not system.traces:
        pairs = [(task, rate) for task in system.traffic.tasks for rate in system.traffic.rates]
        found = [_drawing(given, system.traffic, drawn, task, rate) for task, rate in pairs]
    return found


def _drawn_by_name(path: Path, traffic: Traffic) -> tuple[str, float] | None:
    """Return the task and rate of a file that ReaLLM's trace generator would write (``rr_code_1.csv``)."""
    pairs = [(task, rate) for task in traffic.tasks for rate in traffic.rates]
    return next(((task, rate) for task, rate in pairs if path.name == f"rr_{task}_{rate:g}.csv"), None)


def _drawing(given: Given, traffic: Traffic, drawn: dict[str, RequestTable], task: str, rate: float) -> RunWorkload:
    if task not in drawn:
        if task not in given.lengths:
            what = f"lengths of task {task} are drawn from a trace, and none is given"
            fix = f"give --{task} AzureLLMInferenceTrace_{task}.csv of the Azure Public Dataset, or any workload file"
            raise UserError(what, path=given.system, field="tasks", fix=fix)
        drawn[task] = read_requests(given.lengths[task]).requests
    if next(draw(drawn[task], traffic, task, rate), None) is None:
        what = f"no request of task {task} arrives within {traffic.end_time:g} s at {rate:g} requests/s"
        raise UserError(what, path=given.system, field="trace_gen.end_time", fix="give more time")
    name = f"{task}-rate{rate:g}"
    return RunWorkload(name, given.folder / "workloads" / f"{name}.tsv", (drawn[task], task, rate))


def _check_not_read(given: Given, workload: RunWorkload) -> None:
    """Refuse to draw requests into a file whose lengths they are drawn from."""
    for task, path in given.lengths.items():
        if workload.drawn is not None and workload.path.exists() and workload.path.samefile(path):
            raise UserError("would be replaced", path=path, field=f"--{task}", fix="name another FOLDER")


def _write_workload(workload: RunWorkload, traffic: Traffic) -> None:
    if workload.drawn is None:
        return
    lengths, task, rate = workload.drawn
    write_tables(workload.path, [RequestTable.of(draw(lengths, traffic, task, rate))])


def _network(folder: Path, system: SystemFile, engine: Engine, device: Hardware) -> dict[str, str]:
    """Write the network of an engine where it is not the one that links make anyway; return its settings.

    A ring is one over the device's links, whatever was measured on its fabric.
    """
    if not needs_files(system.io_algorithm, engine.degrees):
        measured = device.fabric is not None and engine.degrees.sharing * engine.degrees.context > 1
        return {"fabric": NO_FABRIC} if measured else {}
    network, algorithms = network_files(system.io_algorithm, engine.degrees, device)
    stem = f"{system.io_algorithm}-{engine.degrees.text}"
    paths = {"network": folder / "networks" / f"{stem}.yml", "system": folder / "networks" / f"{stem}.json"}
    for name, text in (("network", network.to_text()), ("system", algorithms.to_text())):
        with atomic_write(paths[name]) as stream:
            stream.write(text)
    return {name: str(path) for name, path in paths.items()}


def _write_run(
    given: Given, system: SystemFile, engine: Engine, values: Mapping[str, Any], workload: RunWorkload
) -> Path:
    name = f"{engine.name}-{workload.name}"
    of_run: dict[str, Any] = {**values, "dataset": str(workload.path)}
    if system.end_reqs is not None:
        of_run["req_num"] = system.end_reqs
    of_run["output"] = str(given.folder / "results" / f"{name}.csv")
    path = given.folder / f"{name}.yaml"
    with atomic_write(path) as stream:
        stream.write(f"# Made from ReaLLM's {given.system.name} by python -m orchestrator.reallm (docs/reallm.md).\n")
        stream.writelines(f"{key}: {json.dumps(value)}\n" for key, value in of_run.items())
    return path
