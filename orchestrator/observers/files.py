"""The files a run leaves: rows as they come (requests CSV, throughput TSV), and at the end what is made of the whole.

`NAME.csv` brings `NAME-throughput.tsv`, `NAME-simulation-time.tsv`, `NAME-summary.json`, `NAME-settings.json` with it,
`NAME-report.html` and `NAME-trace.json` unless they are not wanted, and `NAME-rejected.tsv` where requests were turned
away. Rows are written to `NAME.csv.part` while the run goes on, so that what has finished is on disk whatever happens;
the end of the run gives them their name.

A file that cannot be written any more (a full disk) is named once, at once; what it holds is kept, and the run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.files import atomic_write
from foundation.part_files import PartFile
from foundation.printable import printable
from orchestrator.clients import ClientTerms
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch, Transferred
from orchestrator.observers.history import History
from orchestrator.observers.interface import FinishedRows, Observer, Run
from orchestrator.observers.intervals import Interval
from orchestrator.result import RunResult, TurnedAway
from orchestrator.settings.record import repeating

REQUEST_COLUMNS = (
    "request id", "model", "input", "output", "arrival", "queued", "scheduled", "first_token", "end_time",
    "latency", "queuing_delay", "TTFT", "TPOT", "ITL",
)  # fmt: skip
CLIENT_REQUEST_COLUMNS = (*REQUEST_COLUMNS[:-1], "client_TTFT", "client_latency", REQUEST_COLUMNS[-1])
"""Those of a run that says what a client sees besides the engine."""
THROUGHPUT_COLUMNS = ("time_s", "prompt_tok_per_s", "generation_tok_per_s", "running", "waiting", "kv_used_percent")
MOST_ITL_TOKENS = 1_000_000
"""Output tokens of a workload up to which ITL lists are written unless asked otherwise: some 10 MB."""
_MOST_LINES = 1000
REJECTED_COLUMNS = ("request id", "arrival", "input", "output", "time", "reason")
COMPANIONS = {
    "throughput": "tsv",
    "simulation-time": "tsv",
    "summary": "json",
    "settings": "json",
    "report": "html",
    "trace": "json",
    "rejected": "tsv",
}


def companions(output: Path) -> dict[str, Path]:
    """Return the files beside `output` by what they hold: `throughput`, `summary`, `report` and so on."""
    stem = output.with_suffix("") if output.suffix == ".csv" else output
    return {name: stem.with_name(f"{stem.name}-{name}.{suffix}") for name, suffix in COMPANIONS.items()}


class ResultFiles(Observer):
    """Writes the files of a run; see the module's docstring.

    `itl`: ``list`` writes every request's list of times between tokens, ``none`` does not, None does where the workload
    has no more than `MOST_ITL_TOKENS` output tokens. `complain` is told once of each file that fails; `written` are
    those that are whole, `notes` say what a user should know of them.
    """

    def __init__(
        self, output: Path, *, itl: str | None, report: bool, complain: Callable[[UserError], None] = lambda error: None
    ) -> None:
        self.output = output
        self.written: list[Path] = []
        self.failed: list[UserError] = []
        self.notes: list[str] = []
        self._itl = itl
        self._complain = complain
        self._history = History() if report else None
        self._beside = companions(output)
        self._open: dict[Path, PartFile] = {}
        self._lines: list[str] = []
        """Rows of intervals that are over, and that were told one after another."""
        self._run: Run | None = None
        self._models: list[str] = []
        self._client: ClientTerms | None = None

    def begin(self, run: Run) -> None:
        """Make the files whose rows come one by one; a place that cannot be written is a `UserError`."""
        self._run = run
        tokens = int(run.source.table.output_tokens.sum())
        self.wants_itl = self._itl == "list" or (self._itl is None and tokens <= MOST_ITL_TOKENS)
        if self._itl is None and not self.wants_itl:
            self.notes.append(f"the CSV is without ITL lists of {tokens} output tokens (--itl list writes them)")
        if self._history is not None:
            self._history.begin(run)
        self._models = [csv_cell(deployment.model.name) for deployment in run.deployments]
        several = len(run.deployments) > 1
        self._client = None if run.spec.client is None else run.spec.client.terms()
        columns = REQUEST_COLUMNS if self._client is None else CLIENT_REQUEST_COLUMNS
        header = (*(("instance id",) if several else ()), *columns)
        try:
            self._start(self.output, ",".join(header))
            self._start(self._beside["throughput"], "\t".join(THROUGHPUT_COLUMNS))
        except UserError:
            self._abandon()
            raise

    def batch(self, done: CompletedBatch) -> None:
        """Keep what the timeline shows, and write the rows of the intervals before."""
        if self._lines:
            self._write_lines()
        if self._history is not None:
            self._history.batch(done)

    def iterations(self, told: Iterations) -> None:
        """Keep what the timeline shows, and write the rows of the intervals before."""
        if self._lines:
            self._write_lines()
        if self._history is not None:
            self._history.iterations(told)

    def transferred(self, record: Transferred) -> None:
        """Keep what the timeline shows."""
        if self._history is not None:
            self._history.transferred(record)

    def finished(self, rows: FinishedRows) -> None:
        """Write a row a request, times in ns, TPOT with three decimals; see docs/outputs.md."""
        self._write(self.output, request_lines(rows, self._models, itl=self.wants_itl, client=self._client))

    def interval(self, interval: Interval) -> None:
        """Write a row an interval: its end in s, tokens/s in it, the state at its end."""
        line = (
            f"{interval.end_ns / 1e9:.3f}\t{interval.prompt_per_s:.3f}\t{interval.generation_per_s:.3f}\t"
            f"{interval.running}\t{interval.waiting}\t{100 * interval.kv_used:.3f}\n"
        )
        self._lines.append(line)
        if len(self._lines) == _MOST_LINES:
            self._write_lines()

    def end(self, result: RunResult) -> None:
        """Give the rows their names and write the rest, each file whole or not at all."""
        self._write_lines()
        for path in list(self._open):
            with self._watched():
                self.written.append(self._open.pop(path).commit())
        if result.turned_away:
            self._text("rejected", _rejected_lines(result.turned_away))
        self._text("simulation-time", _time_lines(result.wall_ms))
        self._text("summary", _json_lines(result.summary.as_json()))
        self._text("settings", _json_lines(repeating(result.spec)))
        if self._history is not None and self._run is not None:
            from orchestrator.report.files import write_page, write_timeline

            with self._watched():
                self.written.append(write_page(self._beside["report"], self._run, result, self._history))
            with self._watched():
                self.written.append(write_timeline(self._beside["trace"], self._run, result, self._history))

    def close(self) -> None:
        """Close what is still open: after a defect the rows until then are kept as part files."""
        self._write_lines()
        for part in self._open.values():
            part.close()
        self._open.clear()

    def _write_lines(self) -> None:
        """Write the rows of intervals that are over."""
        lines, self._lines = self._lines, []
        if lines:
            self._write(self._beside["throughput"], lines)

    def _start(self, path: Path, header: str) -> None:
        self._open[path] = PartFile(path)
        self._open[path].write(header + "\n")

    def _abandon(self) -> None:
        """Leave nothing of files that hold no more than their header."""
        begun = [part.part for part in self._open.values()]
        self.close()
        for path in begun:
            path.unlink(missing_ok=True)

    def _write(self, path: Path, lines: Iterable[str]) -> None:
        part = self._open.get(path)
        if part is None:
            return
        with self._watched():
            part.write("".join(lines))
            part.flush()
            return
        part.close()
        del self._open[path]

    def _text(self, name: str, lines: Iterable[str]) -> None:
        with self._watched(), atomic_write(self._beside[name]) as stream:
            stream.writelines(lines)
        if not self.failed or self.failed[-1].path != self._beside[name]:
            self.written.append(self._beside[name])

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note and tell a file that cannot be written, and go on."""
        try:
            yield
        except UserError as error:
            self.failed.append(error)
            self._complain(error)


def request_lines(
    rows: FinishedRows, models: list[str], *, itl: bool, client: ClientTerms | None = None
) -> Iterator[str]:
    """Yield the lines of the requests CSV; `models` are the engines' models, as cells; several get an engine column."""
    columns = {name: values.tolist() for name, values in rows.columns.items()}
    outside = None if client is None else client.outside_ns(rows.columns["input"]).tolist()
    several = len(models) > 1
    for place, (identity, prompt, output, arrival, queued, scheduled, first, end, engine) in enumerate(
        zip(*(columns[name] for name in rows.columns), strict=True)
    ):
        tpot = f"{(end - first) / (output - 1):.3f}" if output > 1 else ""
        gaps = ""
        if itl and rows.itl is not None and output > 1:
            gaps = f'"{rows.itl[place].tolist()}"' if output > 2 else f"{rows.itl[place].tolist()}"
        seen = "" if outside is None else f"{first - arrival + outside[place]},{end - arrival + outside[place]},"
        yield (
            f"{f'{engine},' if several else ''}{identity},{models[engine]},{prompt},{output},{arrival},{queued},"
            f"{scheduled},{first},{end},{end - arrival},{scheduled - arrival},{first - arrival},{tpot},{seen}{gaps}\n"
        )


def csv_cell(text: str) -> str:
    """Return text as a cell of a CSV file: quoted where it must be, never taken for a formula, on one line."""
    text = printable(text)
    if text.startswith(("=", "+", "-", "@")):
        text = f"'{text}"
    if any(character in text for character in ',"'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _rejected_lines(turned_away: Iterable[TurnedAway]) -> Iterator[str]:
    yield "\t".join(REJECTED_COLUMNS) + "\n"
    for one in turned_away:
        row = (one.id, one.arrival_ns, one.prompt_tokens, one.output_tokens, one.now_ns, printable(one.reason))
        yield "\t".join(map(str, row)) + "\n"


def _time_lines(milliseconds: Mapping[str, float]) -> Iterator[str]:
    yield "component\tms\n"
    for component, spent in milliseconds.items():
        yield f"{component}\t{spent:.3f}\n"


def _json_lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield json.dumps(record, indent=2)
    yield "\n"
