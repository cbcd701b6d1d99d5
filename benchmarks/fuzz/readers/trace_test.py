"""What ``python -m trace_test`` is given: texts and .et files, read and checked by every rule."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz.readers.graphs import mutate_messages
from benchmarks.fuzz.target import Target, targets
from trace_test.rule import run_rules
from trace_test.subjects import Reading, read_subject


def _check(path: Path) -> None:
    outcome = run_rules(read_subject(str(path), Reading(npu_num=4)))
    for violations in outcome.violations.values():
        for violation in violations:
            str(violation)


targets.register("tested_text")(Target("text traces, checked by trace_test", _check, "trace.txt"))
targets.register("tested_et")(Target(".et files, checked by trace_test", _check, "g.0.et", mutate=mutate_messages))
