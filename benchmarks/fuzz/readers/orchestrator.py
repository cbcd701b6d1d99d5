"""What a run reads: the workload, the run file, the flags."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz.readers.commands import _words
from benchmarks.fuzz.target import Target, targets
from orchestrator.settings.specification import from_flags
from orchestrator.workload import read_workload


def _workload(path: Path) -> None:
    read = read_workload(path)
    assert read.rows >= 1
    cut = read_workload(path, 2)
    assert cut.rows >= 1


targets.register("workload_tsv")(Target("workloads in TSV", _workload, "workload.tsv"))
targets.register("run_yaml")(
    Target("run files in YAML", lambda path: from_flags(["--settings", str(path)]), "run.yaml")
)
targets.register("run_json")(
    Target("run files in JSON", lambda path: from_flags(["--settings", str(path)]), "run.json")
)
targets.register("flags")(Target("flags of the main job", lambda path: from_flags(_words(path))))
