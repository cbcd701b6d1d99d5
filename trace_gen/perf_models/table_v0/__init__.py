"""`--perf_model table_v0`: a table measured on a device, in the form of LLMServingSim v0.2.1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from trace_gen.perf_models import perf_models

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModelOptions
    from trace_gen.perf_models.table_v0.table import TableV0Model


@perf_models.register("table_v0")
@dataclass(frozen=True)
class TableV0Settings:
    """A table in the form of LLMServingSim v0.2.1. See `trace_gen.perf_models.table_v0.table`."""

    perf_table: Path | None = setting(
        None, "CSV of measured latencies: hardware,model,layer_name,input,kv_cache,latency(ns)", implies=True
    )

    def problems(self) -> Iterator[Problem]:
        """A table must be given."""
        if self.perf_table is None:
            yield Problem("perf_model", "table_v0 needs a latency table", "give its CSV file: --perf_table FILE")

    def model(self, options: PerfModelOptions) -> TableV0Model:
        """Return the model of the table; no table is a `UserError`."""
        from trace_gen.perf_models.table_v0.table import load_table_v0

        return load_table_v0(options, self.perf_table)
