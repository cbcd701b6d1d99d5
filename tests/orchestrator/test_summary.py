"""The summary as text: every row, to a terminal and to a pipe."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from orchestrator.summary import RunFacts, print_summary, summarise
from tests.orchestrator.serving import Run, scheduler

LATENCY = ("TTFT", "TPOT", "ITL", "end-to-end", "queuing delay")
ROWS = [(13, 9, 0), (13, 9, 0), (3, 1, 900), (8, 2, 40_000)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def summary(**facts: Any) -> dict[str, Any]:
    run = Run(scheduler("orca", 8), ROWS)
    return summarise(run.metrics, RunFacts("some/model", "H9000", 8, 4, 2, **facts))


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
    shown, out = summary(expert=4, skipped=3, error="the backend died"), stream()
    print_summary(shown, {"set-up": 1.25, "total": 2.5}, out)
    told = lines(out.getvalue())
    assert told[0] == "Latency" and told[1] == "ms  mean  P50  P90  P95  P99  P99.9"
    for row, (label, name) in enumerate(
        zip(LATENCY, ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms", "queuing_delay_ms"), strict=True), start=2
    ):
        figures = "  ".join(f"{shown[name][key]:.3f}" for key in ("mean", "p50", "p90", "p95", "p99", "p99_9"))
        assert told[row] == f"{label}  {figures}"
    assert shown["evictions"] > 0 and shown["peak_kv_blocks"] == 8
    for words in (
        "model  some/model", "NPUs  8 x H9000 (TP 4 x PP 2 x EP 4)", "finished requests  4",
        f"makespan  {shown['makespan_s']:.3f} s", f"iterations  {shown['iterations']}",
        f"request throughput  {shown['requests_per_s']:.2f} requests/s",
        f"prompt throughput  {shown['prompt_tokens_per_s']:.2f} tokens/s",
        f"generation throughput  {shown['generated_tokens_per_s']:.2f} tokens/s",
        "peak KV use  8 of 8 blocks (100.0 %)", f"preemptions  {shown['preemptions']}",
        f"evictions  {shown['evictions']} ({shown['evicted_bytes'] / 1e9:.3f} GB to host memory)",
        "skipped (never fit)  3", "ended early  yes, by an error", "set-up  1.2", "total  2.5",
    ):  # fmt: skip
        assert words in told
    assert ("┃" in out.getvalue()) == out.isatty(), "a frame on a terminal only"


def test_what_there_is_not_is_not_printed() -> None:
    out = io.StringIO()
    print_summary(summary(), {}, out)
    told = "\n".join(lines(out.getvalue()))
    for words in ("skipped", "ended early", "EP"):
        assert words not in told
    nothing = summarise(Run(scheduler("orca", 8), []).metrics, RunFacts("m", "h", 1, 1, 1))
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
