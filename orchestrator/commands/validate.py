"""`orrery validate`: how close a simulated run comes to a recording of the real one.

orrery validate --recorded requests.jsonl --simulated output/run.csv --jitter 8 --max_error 5
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from orchestrator.settings.noise import ARRIVALS_MS, MOST_JITTER_PERCENT, MOST_RUNS, STEPS_PERCENT

if TYPE_CHECKING:
    from orchestrator.validation.comparison import Comparison


@dataclass(frozen=True)
class ValidateSettings:
    """What the command is asked for."""

    recorded: Path | None = setting(
        None,
        "the recording: requests.jsonl, JSON of vllm bench serve --save-result --save-detailed, or CSV of another run",
        shown_default="must be given",
    )
    simulated: Path | None = setting(
        None, "the CSV that the simulated run left with --output", shown_default="must be given"
    )
    count_from: str | None = setting(
        None,
        "where TTFT and end-to-end begin: when the client sent, or when the engine took the request in",
        choices=("arrival", "queued"),
        shown_default="as the recording counts",
    )
    max_error: float | None = setting(
        None,
        "greatest error of the mean, P50, P90, P95 and P99 of TTFT, TPOT and end-to-end, and of throughput, either "
        "way; beyond it the exit code is 1",
        unit="%",
        least=0,
        shown_default="none",
    )
    jitter: int = setting(
        0,
        "times that the run is simulated again, disturbed at random, to see which errors mean anything; 0: none",
        least=0,
        most=MOST_RUNS,
    )
    jitter_arrivals_ms: float = setting(ARRIVALS_MS, "how much arrivals are moved (sd)", unit="ms", least=0, most=1e9)
    jitter_steps: float = setting(
        STEPS_PERCENT, "how much steps are stretched (sd)", unit="% of a step", least=0, most=MOST_JITTER_PERCENT
    )
    jitter_seed: int = setting(0, "seed of the first disturbed run; each next one has the next")
    json: Path | None = setting(None, "JSON file to write the errors to", shown_default="none")
    report: Path | None = setting(None, "HTML file to write tables and plots to", shown_default="none")

    def problems(self) -> Iterator[Problem]:
        """Both sides are named, and noise is of several runs."""
        for name in ("recorded", "simulated"):
            if getattr(self, name) is None:
                yield Problem(name, "no file is named", "give one")
        if self.jitter == 1:
            yield Problem("jitter", "one run has no spread", "give 2 or more, or 0")
        read_files = [path.absolute() for path in (self.recorded, self.simulated) if path is not None]
        for name in ("json", "report"):
            path = getattr(self, name)
            if path is not None and path.absolute() in read_files:
                yield Problem(name, "the command reads this file", "name another file")


def validate(arguments: Sequence[str]) -> int:
    """Compare as the command line asks; return 1 where an error is beyond the greatest, else 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(ValidateSettings),
                "main.py validate --recorded FILE --simulated CSV [FLAGS]",
                "Tell how close a simulated run comes to a recording: errors of latencies and throughput, the state "
                "over time, and the noise that no simulation can be better than.",
                "An error is simulated / measured - 1. Exit code: 0, 1 beyond --max_error, 2 for wrong input.",
            )
        )
        return 0
    wanted = read(ValidateSettings, Layers(flags=parse(arguments, catalogue(ValidateSettings))))
    from orchestrator.validation.comparison import print_comparison

    comparison = _compare(wanted)
    _write(wanted, comparison)
    print_comparison(comparison, sys.stdout)
    return 1 if comparison.beyond else 0


def _compare(wanted: ValidateSettings) -> Comparison:
    from foundation.errors import UserError
    from orchestrator.validation.comparison import compare
    from orchestrator.validation.formats import orrery_run, read_recording
    from orchestrator.validation.noise import Jitter, disturbed, noise_floor
    from orchestrator.validation.reruns import Rerun, settings_of

    assert wanted.simulated is not None and wanted.recorded is not None, "checked by `problems`"
    simulated = read_recording(wanted.simulated)
    if simulated.kind != orrery_run.KIND:
        raise UserError(
            f"is a recording in {simulated.kind}", path=wanted.simulated, fix="give the CSV of a simulation"
        )
    comparison = replace(
        compare(simulated, read_recording(wanted.recorded), wanted.count_from), max_error=wanted.max_error
    )
    if not wanted.jitter:
        return comparison
    jitter = Jitter(wanted.jitter, wanted.jitter_arrivals_ms, wanted.jitter_steps, wanted.jitter_seed)
    rerun, recorded = Rerun(settings_of(wanted.simulated)), comparison.recorded

    def tell(done: int) -> None:
        print(f"disturbed run {done} of {jitter.runs} done", file=sys.stderr, flush=True)

    runs = disturbed(rerun, jitter, tell, gaps=recorded.gaps is not None)
    return replace(comparison, jitter=jitter, noise=noise_floor(runs, recorded, comparison.origin))


def _write(wanted: ValidateSettings, comparison: Comparison) -> None:
    import json

    from foundation.files import atomic_write
    from orchestrator.validation.page import render

    if wanted.json is not None:
        with atomic_write(wanted.json) as stream:
            stream.write(json.dumps(comparison.as_json(), indent=2) + "\n")
    if wanted.report is not None:
        with atomic_write(wanted.report) as stream:
            stream.write(render(comparison))


commands.register("validate")(Command("tell how close a run comes to a recording", validate))
