"""The summary as text: every row, to a terminal and to a pipe."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.observers.tables import print_summary
from orchestrator.statistics import STATISTICS
from orchestrator.summary import LATENCIES, Summary
from tests.orchestrator.serving import Run, scheduler

ROWS = [(13, 9, 0), (13, 9, 0), (3, 1, 900), (8, 2, 40_000)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def summary(**facts: Any) -> Summary:
    return Run(scheduler("orca", 8), ROWS).summary(**facts)


def lines(printed: str) -> list[str]:
    """Return the printed lines without frames and colours, cells parted by two blanks."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    cells = (re.split(r"\s{2,}", re.sub(r"[\u2500-\u257f]", "  ", line).strip()) for line in plain.splitlines())
    return ["  ".join(row) for row in cells if row != [""]]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_every_figure_is_printed_to_a_pipe_and_to_a_terminal(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    deployed = ["8 x H9000 (TP 4 x PP 2)", "1 x L4 (TP 1 x PP 1)"]
    shown, out = summary(deployed=deployed, skipped=3, error="the backend died"), stream()
    print_summary(shown, {"set-up": 1.25, "total": 2.5}, out)
    told = lines(out.getvalue())
    assert told[0] == "Latency" and told[1] == "ms  mean  P50  P90  P95  P99  P99.9"
    for row, (name, label) in enumerate(LATENCIES.items(), start=2):
        figures = shown.latency(name)
        assert figures is not None
        assert told[row] == "  ".join([label, *(f"{figures[key]:.3f}" for key in STATISTICS)])
    assert shown.evictions > 0 and shown.peak_kv_blocks == 8
    place = told.index("Where simulated time went")
    parts = sorted(((spent, name) for name, spent in shown.simulated_time_s.items() if spent), reverse=True)
    whole = sum(spent for spent, _ in parts)
    assert len(parts) == 3 and parts[-1][1] == "attention"
    assert told[place + 1 : place + 5] == [
        "s  %", *(f"{name}  {spent:.3f}  {100 * spent / whole:.1f}" for spent, name in parts)
    ]  # fmt: skip
    for words in (
        "model  some/model", "NPUs  8 x H9000 (TP 4 x PP 2)", "NPUs  1 x L4 (TP 1 x PP 1)", "finished requests  4",
        f"makespan  {shown.makespan_s:.3f} s", f"iterations  {shown.iterations}",
        f"request throughput  {shown.requests_per_s:.2f} requests/s",
        f"prompt throughput  {shown.prompt_tokens_per_s:.2f} tokens/s",
        f"generation throughput  {shown.generated_tokens_per_s:.2f} tokens/s",
        "peak KV use  8 of 8 blocks (100.0 %)", f"preemptions  {shown.preemptions}",
        f"evictions  {shown.evictions} ({shown.evicted_bytes / 1e9:.3f} GB to host memory)",
        "skipped (never fit)  3", "ended early  the backend died", "set-up  1.2", "total  2.5",
    ):  # fmt: skip
        assert words in told
    assert told[-3:] == ["component  ms", "set-up  1.2", "total  2.5"]
    assert told[-4].endswith("simulator itself")
    assert ("┃" in out.getvalue()) == out.isatty(), "a frame on a terminal only"


def test_no_figure_is_cut_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 80 columns; a table too wide for its frame has none, the others keep theirs."""
    monkeypatch.setenv("COLUMNS", "80")
    long = dict.fromkeys(STATISTICS, 12345.678)
    shown, out = replace(summary(), **dict.fromkeys(LATENCIES, long)), Terminal()
    print_summary(shown, {"total": 2.5}, out)
    told = [" ".join(line.split()) for line in lines(out.getvalue())]
    for label in LATENCIES.values():
        assert " ".join([label, *["12345.678"] * len(STATISTICS)]) in told
    assert "…" not in out.getvalue() and out.getvalue().count("┏") == 2


def test_what_there_is_not_is_not_printed() -> None:
    out = io.StringIO()
    print_summary(summary(), {}, out)
    told = "\n".join(lines(out.getvalue()))
    for words in ("skipped", "ended early", "EP"):
        assert words not in told
    nothing = Run(scheduler("orca", 8), []).summary()
    out = io.StringIO()
    print_summary(nothing, {}, out)
    told = "\n".join(lines(out.getvalue()))
    for words in ("TTFT  -  -  -  -", "request throughput  -", "peak KV use  0 of 0 blocks\n"):
        assert words in told


def test_columns_of_a_pipe_stand_under_each_other() -> None:
    out = io.StringIO()
    print_summary(summary(), {}, out)
    rows = out.getvalue().strip("\n").split("\n\n")[0].splitlines()[1:]
    assert len({len(row) for row in rows}) == 1 and rows[0].startswith("  ms ")
