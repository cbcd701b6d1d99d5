"""What is to be priced: the kernels of all engines of a model, each once for its tensor-parallel degree, and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.kernels.deployments import Deployments, Wanted
from orchestrator.settings.specification import RunSpec
from trace_gen.kernels.grid import Job, Sizes, jobs_of, sizes_of
from trace_gen.kernels.layout import LAYOUT
from trace_gen.kernels.probing import probes_of
from trace_gen.kernels.shapes import Kernel, Limits, kernels_of, merged

DEFAULT_LIMITS = Limits(tokens=16384, context=16384, requests=256)


@dataclass(frozen=True, slots=True, eq=False)
class TablePlan:
    """A table of one model on one device.

    `specs`: of each tensor-parallel degree, a run that prices its kernels; `sizes`: of each kernel on so many ranks;
    `users`: the engines that have it; `deployment`: one of them.
    """

    deployment: Deployment
    limits: Limits
    specs: Mapping[int, RunSpec]
    sizes: Mapping[tuple[int, Kernel], Sequence[Sizes]]
    users: Mapping[tuple[int, Kernel], Sequence[str]]

    @property
    def model(self) -> str:
        """The model's name."""
        return self.deployment.model.name

    @property
    def jobs(self) -> list[Job]:
        """All that is to be priced, the table's sizes before those at which it is probed."""
        probes = {key: probes_of(key[1], sizes) for key, sizes in self.sizes.items()}
        return [*jobs_of(self.sizes), *jobs_of(probes, probe=True)]

    def fingerprint(self) -> str:
        """Return what is the same for two plans whose prices are, files of measured times read to their end."""
        engine = self.deployment.engine
        told = [LAYOUT, self.limits, self.deployment.hardware, engine.model.bits, engine.model.kv_bits]
        told += [engine.names["perf_model"], engine.perf_model, *_contents(engine.perf_model), engine.model.local_bw]
        told += [self.jobs]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def plan_tables(found: Deployments, limits: Limits) -> tuple[list[TablePlan], Mapping[str, str]]:
    """Return a plan for each model of the engines `found`, and why others have no table, by their names.

    No plan at all is a `UserError`.
    """
    by_model: dict[str, list[tuple[Wanted, Deployment]]] = {}
    left_out = dict(found.left_out)
    for wanted in found.engines:
        deployed = Deploying(wanted.spec).deploy(wanted.spec.engines[0])
        try:
            kernels_of(deployed.generator, _capped(limits, deployed))
        except UserError as error:
            left_out[wanted.name] = str(error)
        else:
            by_model.setdefault(deployed.model.name, []).append((wanted, deployed))
    if not by_model:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UserError(f"no kernels can be listed: {reasons}", fix="change one")
    return [_plan(engines, limits, found) for engines in by_model.values()], left_out


def _plan(engines: Sequence[tuple[Wanted, Deployment]], limits: Limits, found: Deployments) -> TablePlan:
    first = engines[0][1]
    limits = _capped(limits, first)
    most: dict[int, list[tuple[Kernel, int]]] = {}
    specs, users = dict[int, RunSpec](), dict[tuple[int, Kernel], list[str]]()
    for wanted, deployed in engines:
        _check_alike(first, deployed)
        tensor = deployed.generator.mesh.tensor
        specs.setdefault(tensor, wanted.spec)
        for kernel, rows in kernels_of(deployed.generator, limits).items():
            most.setdefault(tensor, []).append((kernel, rows))
            users.setdefault((tensor, kernel), []).append(wanted.name)
    sizes = {
        (tensor, kernel): sizes_of(kernel, rows, limits, found.extra)
        for tensor, found_rows in sorted(most.items())
        for kernel, rows in merged(found_rows).items()
    }
    return TablePlan(first, limits, specs, sizes, users)


def _capped(limits: Limits, deployed: Deployment) -> Limits:
    """Return limits no larger than the model's own."""
    longest = deployed.model.max_position
    return Limits(limits.tokens, min(limits.context, longest or limits.context), limits.requests)


def _check_alike(one: Deployment, other: Deployment) -> None:
    """Refuse engines of one model whose kernels are not of one table."""
    if one.hardware.name != other.hardware.name or one.generator.precision != other.generator.precision:
        what = f"{one.model.name} is there on several devices, or in several numbers"
        raise UserError(what, fix="give each a file of its own: a table is of one device")
    if one.generator.perf_model.latency_source == "backend":
        raise UserError("the backend has no times of operators", field="--perf_model", fix="name another")


def _contents(settings: object) -> Iterator[str]:
    """Yield a digest of every file that `settings` name, in folders, too."""
    if not is_dataclass(settings):
        return
    for one in fields(settings):
        path = getattr(settings, one.name)
        if isinstance(path, Path):
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file())
