"""The full simulation of what the formulas are asked: so many equal requests at once, and when they have tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.observers.interface import FinishedRows, Observer
from orchestrator.schedulers.policies.static import StaticSettings
from orchestrator.settings.engine import ModelSettings
from orchestrator.settings.specification import EngineSpec, RunCommand, RunSpec, given_by
from orchestrator.simulation import Simulation
from trace_gen.perf_models import PerfModelSettings

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedBatch:
    """What a batch took.

    - `latencies_ns` ``[n_t + 1]``: until all requests have their first token, then for each further token until all
      have it; they sum up to the time of the whole batch;
    - `by_class`: where the engine's time went, ns, by the name of the part;
    - `late`: requests that the engine took up later than the first: the formulas know of no such thing;
    - `notes`: what a user should know of the run.
    """

    latencies_ns: IntArray
    by_class: Mapping[str, int]
    late: int
    notes: tuple[str, ...]


def one_gpu(model: ModelSettings, perf_model: PerfModelSettings) -> RunSpec:
    """Return a run of one static batch on one GPU, its requests still open."""
    engine = EngineSpec(model=model, perf_model=perf_model, scheduling=StaticSettings())
    return RunSpec(engines=(engine,))


def of_run_file(path: Path) -> RunSpec:
    """Return the run that a run file describes; one of several GPUs is a `UserError`, as is whatever is wrong in it."""
    from foundation.settings.reading import read

    spec = read(RunCommand, given_by(["--settings", str(path)])).run
    gpus = sum(one.engines * one.parallelism.npus for one in spec.engines)
    if gpus > 1:
        raise UserError(f"the run has {gpus} NPUs, and the formulas know one GPU", path=path, fix="describe one engine")
    return spec


def simulate_batch(spec: RunSpec, batch_size: int, prompt_length: int, response_length: int) -> SimulatedBatch:
    """Simulate `batch_size` requests that come at once, with the engine of `spec`; `UserError` as a run raises them.

    A request has one token more than the token phase: the prompt phase ends with the first.
    """
    asked = RunSpec.of(
        req_num=batch_size, input_len=prompt_length, output_len=response_length + 1, request_rate=math.inf
    )
    ends = _Ends()
    try:
        result = Simulation(replace(spec, workload=asked.workload), [ends]).run()
    except UserError as error:
        if error.path is not None:
            raise
        raise UserError(f"the full simulation: {error}") from error  # its flags are those of a run
    if result.turned_away:
        reason = result.turned_away[0].reason
        raise UserError(
            f"the full simulation turns {len(result.turned_away)} of {batch_size} requests away: {reason}",
            fix="give a smaller --batch_size, --prompt_length or --response_length",
        )
    parts = {**result.time.by_class, "waiting": result.time.waiting_ns, "idle": result.time.idle_ns}
    late = int(np.count_nonzero(result.columns["scheduled"] > result.columns["scheduled"].min()))
    return SimulatedBatch(np.diff(ends.last_ns, prepend=0), parts, late, tuple(result.notes))


class _Ends(Observer):
    """Keeps when the last request has its i-th token, ns."""

    wants_itl = True

    def __init__(self) -> None:
        self.last_ns: IntArray = np.zeros(0, dtype=np.int64)

    def finished(self, rows: FinishedRows) -> None:
        """Hear when requests had their tokens."""
        for first, gaps in zip(rows.columns["first_token"].tolist(), rows.itl or [], strict=True):
            ends = first + np.concatenate(([0], np.cumsum(gaps, dtype=np.int64)))
            self.last_ns = np.maximum(self.last_ns, ends) if len(self.last_ns) else ends
