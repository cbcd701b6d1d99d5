"""The engines whose kernels are wanted: those of ReaLLM's system file, or of a run file of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.documents import read_yaml
from foundation.records import dataclass
from foundation.settings.reading import read
from orchestrator.reallm.importing import find_device, runnable
from orchestrator.reallm.system_file import SystemFile, read_system_file
from orchestrator.settings.specification import RunCommand, RunSpec, given_by
from trace_gen.kernels.grid import Extra
from trace_gen.perf_models import PerfModelSettings


@dataclass(frozen=True, slots=True)
class Wanted:
    """One engine whose kernels are wanted: what it is called, and a run that has it alone."""

    name: str
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Deployments:
    """The engines of a file, sizes that it names, and the combinations that cannot be, with the reason."""

    engines: Sequence[Wanted]
    extra: Extra
    left_out: Mapping[str, str]


def read_deployments(path: Path, devices: Path | None, perf_model: PerfModelSettings | None) -> Deployments:
    """Return the engines of the file at `path`, timed by `perf_model` (None: by what the file says, else the roofline).

    `devices`: a folder of ReaLLM's device files. What is wrong with the file is a `UserError`.
    """
    if is_reallm(path):
        found = _of_system(path, devices)
    else:
        found = _of_run_file(path)
    priced = [Wanted(one.name, timed(one.spec, perf_model)) for one in found.engines]
    return Deployments(priced, found.extra, found.left_out)


def is_reallm(path: Path) -> bool:
    """Whether the file is a system file of ReaLLM's, whose system is a section of its own."""
    values: Any = read_yaml(path, "system file").value
    return isinstance(values, dict) and any(name in values for name in ("system", "kernel_sim", "system_sim"))


def _of_system(path: Path, devices: Path | None) -> Deployments:
    system = read_system_file(path)
    engines, left_out = runnable(system, find_device(system, devices))
    wanted = [Wanted(engine.name, RunSpec.of(**values)) for engine, values in engines]
    return Deployments(wanted, extra_sizes(system), left_out)


def extra_sizes(system: SystemFile) -> Extra:
    """Return the sizes that a system file names: those of `kernel_sim`, and the chunks of its policies."""
    chunks = [*system.prefill_blocks, *(system.chunks if "mixed-sarathi" in system.algorithms else ())]
    return Extra(chunks, system.decode_contexts)


def _of_run_file(path: Path) -> Deployments:
    spec = read(RunCommand, given_by(["--settings", str(path)])).run
    several = len(spec.engines) > 1
    wanted = [
        Wanted(f"engine{number}" if several else path.stem, replace(spec, engines=(engine,)))
        for number, engine in enumerate(spec.engines)
    ]
    return Deployments(wanted, Extra(), {})


def timed(spec: RunSpec, perf_model: PerfModelSettings | None) -> RunSpec:
    """Return `spec` with its operators timed by `perf_model` (None: as it is)."""
    if perf_model is None:
        return spec
    return replace(spec, engines=tuple(replace(engine, perf_model=perf_model) for engine in spec.engines))
