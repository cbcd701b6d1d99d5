"""When the layers of a batch are computed, by the trace's own times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from orchestrator.engine.batch import Batch
from trace_gen.trace import Trace


class StageLayers(NamedTuple):
    """One pipeline stage: when each of its layers is done, of `total` ns that the stage takes by the trace."""

    done: list[int]
    total: int


LayerTimes = Callable[[Batch], Sequence[StageLayers]]
"""Returns the layers of each stage of a batch, in order."""


def stage_layers(trace: Trace) -> list[StageLayers]:
    """Return when the layers of a trace of one step are done: the operators of a stage follow each other."""
    found = []
    for stage in range(trace.stages):
        rows = np.flatnonzero(trace.stage == stage)
        spent, layers = trace.latency_ns[0, rows].cumsum(), trace.layer[rows]
        last = [int(np.flatnonzero(layers == layer)[-1]) for layer in np.unique(layers[layers >= 0])]
        found.append(StageLayers([int(spent[row]) for row in last], max(1, int(spent[-1]))))
    return found
