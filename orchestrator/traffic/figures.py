"""What the summary says of traffic: retrievals, turns that never came, instances that were started and dropped."""

from __future__ import annotations

import numpy as np

from foundation.records import dataclass
from orchestrator.cluster.cluster import Cluster
from orchestrator.observers.interface import Run
from orchestrator.statistics import distribution
from orchestrator.summary import Figures, ScalingFigures, TrafficFigures
from orchestrator.traffic.building import Traffic


@dataclass(frozen=True, slots=True)
class MeasuredTraffic:
    """What the summary holds, and how long instances were asleep, summed over them (ns); None: nothing of the kind."""

    summary: TrafficFigures | None
    asleep_ns: int | None


def traffic_figures(run: Run, traffic: Traffic, cluster: Cluster, end_ns: int) -> MeasuredTraffic:
    """Return the figures of a run that ended at `end_ns`."""
    scaling, asleep_ns = _scaling(run, cluster, end_ns)
    retrieval = _retrieval(traffic)
    if scaling is None and retrieval is None and traffic.turns is None:
        return MeasuredTraffic(None, None)
    return MeasuredTraffic(TrafficFigures(traffic.unreleased, retrieval, scaling), asleep_ns)


def _retrieval(traffic: Traffic) -> Figures | None:
    if traffic.rules.retrieval is None:
        return None
    found = distribution(np.array(traffic.rules.retrieval.spent_ns, dtype=np.int64))
    return None if found is None else found.scaled(1e-6)


def _scaling(run: Run, cluster: Cluster, end_ns: int) -> tuple[ScalingFigures | None, int | None]:
    if cluster.scaling is None:
        return None, None
    paid = cluster.scaling.paid_ns(end_ns)
    npus = [one.engine.parallelism.npus for one in run.deployments]
    figures = ScalingFigures(
        npu_seconds=sum(spent * count for spent, count in zip(paid, npus, strict=True)) / 1e9,
        started_s=[spent / 1e9 for spent in paid],
        events=[{"time_s": one.now / 1e9, "engine": one.engine, "state": one.state} for one in cluster.scaling.events],
    )
    return figures, end_ns * len(paid) - sum(paid)
