"""Fills a kernel table: jobs priced in processes, kept one by one, and written when all are known.

A price depends on its kernel and size alone, so the table's bytes depend neither on the number of processes nor on how
often the work was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from foundation.errors import UserError
from orchestrator.deploying import Deploying
from orchestrator.kernels.journal import Journal
from orchestrator.kernels.planning import TablePlan
from orchestrator.settings.specification import RunSpec
from trace_gen.kernels.grid import Job, Sizes
from trace_gen.kernels.layout import META, Error, Meta, read_meta, read_rank, write_meta, write_rank
from trace_gen.kernels.pricing import price
from trace_gen.kernels.probing import class_of, errors_of, probe
from trace_gen.kernels.shapes import Kernel, Limits
from trace_gen.perf_model import PerfModel
from trace_gen.perf_models.profile.kernel_tables import KernelTableModel, KernelTimes

Tell = Callable[[int, int], None]
"""Told of how many jobs are done, of how many."""


def fill(plan: TablePlan, folder: Path, processes: int, tell: Tell) -> Meta:
    """Fill the table of `plan` in `folder`, or find it filled; return what it says of itself.

    A folder that cannot be written, or a size that the performance model refuses, is a `UserError`.
    """
    fingerprint, jobs = plan.fingerprint(), plan.jobs
    known = _filled(folder, fingerprint)
    if known is not None:
        return known
    journal = Journal(folder, fingerprint, jobs)
    done = False
    try:
        left = [number for number in range(len(jobs)) if number not in journal.times]
        tell(len(jobs) - len(left), len(jobs))
        for number, times in _priced(plan, jobs, left, processes):
            journal.keep(number, times)
            tell(len(journal.times), len(jobs))
        meta = _write(plan, folder, jobs, journal.times, fingerprint)
        done = True
    finally:
        journal.close(done=done)
    return meta


def _filled(folder: Path, fingerprint: str) -> Meta | None:
    """Return what the table in `folder` says of itself where it is the one that is wanted."""
    if not (folder / META).exists():
        return None
    try:
        meta = read_meta(folder)
    except UserError:
        return None
    return meta if meta.fingerprint == fingerprint else None


def _priced(
    plan: TablePlan, jobs: Sequence[Job], left: Sequence[int], processes: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield the prices of the jobs that are `left`, as they come."""
    if processes == 1 or len(left) < 2:
        pricer = Pricer(plan.specs, plan.limits)
        yield from ((number, pricer.times(jobs[number])) for number in left)
        return
    from orchestrator.kernels.processes import priced

    yield from priced(Pricer(plan.specs, plan.limits), {number: jobs[number] for number in left}, processes)


class Pricer:
    """Prices jobs: each by the performance model of its tensor-parallel degree, made when it is first asked for."""

    def __init__(self, specs: Mapping[int, RunSpec], limits: Limits) -> None:
        self._specs, self._limits = specs, limits
        self._models: dict[int, PerfModel] = {}

    def times(self, job: Job) -> list[int]:
        """Return the time (ns) of the job's kernel at each of its sizes."""
        if job.tensor not in self._models:
            spec = self._specs[job.tensor]
            self._models[job.tensor] = Deploying(spec).deploy(spec.engines[0]).generator.perf_model
        model = self._models[job.tensor]
        if job.probe:
            return probe(model, job.tensor, job.kernel, job.sizes, self._limits)
        return price(model, job.tensor, job.kernel, job.sizes)


def _write(
    plan: TablePlan, folder: Path, jobs: Sequence[Job], times: Mapping[int, Sequence[int]], fingerprint: str
) -> Meta:
    """Write the table, `kernels.yaml` last: until then the folder is none, whatever stood there before."""
    (folder / META).unlink(missing_ok=True)
    by_rank: dict[int, dict[Kernel, dict[Sizes, int]]] = {}
    for number, job in enumerate(jobs):
        if not job.probe:
            own = by_rank.setdefault(job.tensor, {}).setdefault(job.kernel, {})
            own.update(zip(job.sizes, times[number], strict=True))
    for tensor, found in by_rank.items():
        write_rank(folder, tensor, found)
    engine, generator = plan.deployment.engine, plan.deployment.generator
    precision = generator.precision
    meta = Meta(
        hardware=plan.deployment.hardware.name,
        device=str(engine.model.hardware),
        model=plan.model,
        bits=(precision.weight_bits, precision.activation_bits, precision.kv_bits),
        filled_from=engine.names["perf_model"],
        vocabulary=generator.perf_model.vocabulary.name,
        tensor=tuple(sorted(by_rank)),
        limits=plan.limits,
        errors=_errors(plan, folder, jobs, times),
        fingerprint=fingerprint,
    )
    write_meta(folder, meta)
    return meta


def _errors(
    plan: TablePlan, folder: Path, jobs: Sequence[Job], times: Mapping[int, Sequence[int]]
) -> Mapping[str, Error]:
    """Return how far the table that was written is off at the probes, by class of operators."""
    models: dict[int, KernelTableModel] = {}
    vocabulary = plan.deployment.generator.perf_model.vocabulary

    def compared() -> Iterator[tuple[str, int, int]]:
        for number, job in enumerate(jobs):
            if not job.probe:
                continue
            if job.tensor not in models:
                tables = KernelTimes.of(read_rank(folder, job.tensor))
                models[job.tensor] = KernelTableModel(tables, str(folder), vocabulary)
            own = probe(models[job.tensor], job.tensor, job.kernel, job.sizes, plan.limits)
            names = [class_of(job.kernel, sizes) for sizes in job.sizes]
            yield from zip(names, own, times[number], strict=True)

    return errors_of(compared())
