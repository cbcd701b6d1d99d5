"""`orrery calibrate`: fits settings of a run to a recording of the real one, and says what the recording cannot tell.

orrery calibrate --recorded requests.jsonl --run output/run-settings.json --terms num_gpu_blocks_override
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.commands import Command, commands
from orchestrator.settings.noise import ARRIVALS_MS, MOST_JITTER_PERCENT, MOST_RUNS, STEPS_PERCENT

RUNS = 5
ITERATIONS = 12


@dataclass(frozen=True)
class CalibrateSettings:
    """What the command is asked for."""

    recorded: Path | None = setting(
        None, "the recording, in a format of orrery validate", shown_default="must be given"
    )
    run: Path | None = setting(
        None, "the run that was recorded: a run file, or the NAME-settings.json of one", shown_default="must be given"
    )
    terms: str | None = setting(
        None,
        "settings to fit, separated by commas: NAME, or NAME=LOW:HIGH or NAME=LOW:HIGH:STEP",
        shown_default="all with a plausible range that the run has",
    )
    count_from: str | None = setting(
        None,
        "where TTFT and end-to-end begin: when the client sent, or when the engine took the request in",
        choices=("arrival", "queued"),
        shown_default="as the recording counts",
    )
    iterations: int = setting(ITERATIONS, "steps of a fit at most", least=1, most=100)
    jitter: int = setting(RUNS, "disturbed runs, from which the noise is known", least=2, most=MOST_RUNS)
    jitter_arrivals_ms: float = setting(ARRIVALS_MS, "how much arrivals are moved (sd)", unit="ms", least=0, most=1e9)
    jitter_steps: float = setting(
        STEPS_PERCENT, "how much steps are stretched (sd)", unit="% of a step", least=0, most=MOST_JITTER_PERCENT
    )
    jitter_seed: int = setting(0, "seed of the first disturbed run; each next one has the next")
    json: Path | None = setting(None, "JSON file to write the result to", shown_default="none")
    output: Path | None = setting(None, "file to write the fitted lines of a run file to (YAML)", shown_default="none")

    def problems(self) -> Iterator[Problem]:
        """Both sides are named, and nothing that is read is written."""
        for name in ("recorded", "run"):
            if getattr(self, name) is None:
                yield Problem(name, "no file is named", "give one")
        read_files = [path.absolute() for path in (self.recorded, self.run) if path is not None]
        for name in ("json", "output"):
            path = getattr(self, name)
            if path is not None and path.absolute() in read_files:
                yield Problem(name, "the command reads this file", "name another file")


def calibrate(arguments: Sequence[str]) -> int:
    """Fit as the command line asks; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(CalibrateSettings),
                "main.py calibrate --recorded FILE --run FILE [FLAGS]",
                "Fit settings of a run to a recording by simulating it again and again; tell standard errors, and "
                "which settings the recording cannot tell.",
                "Terms are fitted to the TTFT, TPOT and end-to-end latency of every request. What is fitted to one "
                "recording holds for that device, model and load; see docs/validation.md.",
            )
        )
        return 0
    _calibrate(read(CalibrateSettings, Layers(flags=parse(arguments, catalogue(CalibrateSettings)))))
    return 0


def _calibrate(wanted: CalibrateSettings) -> None:
    import json

    from foundation.files import atomic_write
    from orchestrator.calibration.calibrating import as_json, starting_values
    from orchestrator.calibration.calibrating import calibrate as fitted
    from orchestrator.calibration.terms import terms
    from orchestrator.calibration.told import print_calibration, run_file_lines
    from orchestrator.validation.formats import read_recording
    from orchestrator.validation.noise import Jitter
    from orchestrator.validation.reruns import Rerun

    assert wanted.recorded is not None and wanted.run is not None, "checked by `problems`"
    recorded, rerun = read_recording(wanted.recorded), Rerun(wanted.run)
    asked = [] if wanted.terms is None else wanted.terms.split(",")
    chosen = terms(asked, starting_values(rerun.prepared()))

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = fitted(
        rerun,
        recorded,
        chosen,
        count_from=wanted.count_from,
        jitter=Jitter(wanted.jitter, wanted.jitter_arrivals_ms, wanted.jitter_steps, wanted.jitter_seed),
        most=wanted.iterations,
        tell=tell,
    )
    if wanted.json is not None:
        with atomic_write(wanted.json) as stream:
            stream.write(json.dumps(as_json(found), indent=2) + "\n")
    if wanted.output is not None:
        with atomic_write(wanted.output) as stream:
            stream.writelines(run_file_lines(found))
    print_calibration(found, sys.stdout)


commands.register("calibrate")(Command("fit settings of a run to a recording", calibrate))
