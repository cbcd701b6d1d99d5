"""No latencies of its own: the trace's FLOPs and bytes go to the backend, whose roofline decides."""

from __future__ import annotations

import numpy as np

from trace_gen.perf_model import AttentionGranularity, IntArray, LatencySource, OperatorTable
from trace_gen.vocabulary import FUSED, Vocabulary


class BackendModel:
    """Answers 1 ns for every operator; the writer of execution graphs uses `Trace.flops` and `Trace.mem_bytes`."""

    vocabulary: Vocabulary = FUSED
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "backend"

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return ones: a trace's computing rows have at least 1 ns."""
        return np.ones_like(operators.flops)
