"""Arrivals that come a little sooner or later than the workload says, as a real client's do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from foundation.draws import normal
from orchestrator.request_source import RequestSource
from orchestrator.settings.noise import NoiseSettings


def moved(source: RequestSource, noise: NoiseSettings) -> RequestSource:
    """Return `source` with arrivals moved by normal draws, one a request, never before 0; a session moves as one."""
    if not noise.jitter_arrivals_ms:
        return source
    table, sigma_ns = source.table, noise.jitter_arrivals_ms * 1e6
    opens = np.ones(len(table), dtype=np.bool_) if table.sessions is None else table.sessions.opens()
    drawn = [normal(noise.seed, "arrival", identity) for identity in table.id[opens].tolist()]
    by = np.rint(sigma_ns * np.array(drawn)).astype(np.int64)[np.cumsum(opens) - 1]
    arrivals = np.maximum(table.arrival_ns + by, 0)
    return replace(source, table=replace(table, arrival_ns=arrivals).in_arrival_order())
