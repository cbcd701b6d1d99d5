"""What a run says, to a pipe and to a terminal: what is simulated, how far it is, what came out and where it lies."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator import RunSpec, Simulation
from orchestrator.observers import progress
from orchestrator.observers.console import Console, IntervalLines
from orchestrator.observers.progress import ProgressShown, State, duration
from orchestrator.run_job import run

ROOT = Path(__file__).parents[2]
ROWS = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return path


def said(dataset: Path, stream: io.StringIO | None = None, **values: object) -> str:
    out = io.StringIO() if stream is None else stream
    assert run(RunSpec.of(model_name="gpt2", dataset=str(dataset), **values), out) == 0
    return out.getvalue()


def test_a_run_says_what_it_is_its_results_and_where_they_lie(dataset: Path, tmp_path: Path) -> None:
    lines = said(dataset, npu_num=2, npu_group=2, output=str(tmp_path / "new" / "out.csv")).splitlines()
    assert lines[0] == ("openai-community/gpt2 on 2 x RTX3090 (TP 1 x PP 2), 16-bit; scheduling orca, backend embedded")
    memory = r"memory of an NPU: 25\.77 GB, weights 0\.\d\d GB; KV cache: \d+ blocks of 8 tokens, .* GB over all NPUs"
    assert re.fullmatch(memory, lines[1])
    assert lines[2] == "links: 31.5 GB/s (1e9) a direction, 1000 ns, RTX3090's own"
    assert lines[3] == f"workload: 5 requests of {dataset}"
    assert lines[-1] == f"report: {tmp_path / 'new' / 'out-report.html'}", "what a person opens comes last"
    assert lines[-2] == (
        f"files in {tmp_path / 'new'}: out.csv, out-throughput.tsv, out-simulation-time.tsv, out-summary.json, "
        "out-settings.json, out-trace.json"
    )
    assert len(lines) <= 60 and not any(line.startswith(("[", "iteration")) for line in lines)


def test_without_files_the_summary_is_the_end(dataset: Path) -> None:
    lines = said(dataset).rstrip().splitlines()
    assert lines[-1].startswith("  total") and "report:" not in "\n".join(lines)


def test_quiet_says_nothing(dataset: Path, tmp_path: Path) -> None:
    assert said(dataset, quiet=True, verbose=True, log_interval=0.01, output=str(tmp_path / "out.csv")) == ""
    assert (tmp_path / "out-report.html").exists()


def test_interval_lines_are_for_those_who_ask(dataset: Path) -> None:
    wanted = r"\[\d\.\d{3} s\] prompt [\d.]+ tokens/s, generation [\d.]+ tokens/s, running \d, waiting \d, KV in use .*"
    asked = [line for line in said(dataset, log_interval=0.01).splitlines() if line.startswith("[")]
    assert len(asked) >= 3 and all(re.fullmatch(wanted, line) for line in asked)
    assert "\n[" not in said(dataset)
    assert "\n[" in said(dataset, verbose=True)


def test_verbose_says_every_iteration(dataset: Path) -> None:
    told = said(dataset, verbose=True)
    summary = Simulation(RunSpec.of(model_name="gpt2", dataset=str(dataset))).run().summary
    numbers = [
        int(number) for number in re.findall(r"^iteration (\d+): \d+\.\d{6} ms \+ \d+\.\d{6} ms, ", told, re.MULTILINE)
    ]
    assert numbers == list(range(summary.iterations))
    assert sorted(re.findall(r"^  finished: (.*)$", told, re.MULTILINE)) == ["0", "1", "2", "3", "4"]
    assert re.search(r"iteration 0: 0\.000000 ms \+ [\d.]+ ms, 1 requests, 100 tokens \(100 of prompts\)\n", told)
    both = said(dataset, verbose=True, instances=2)
    assert "\nengine 0 iteration 0: " in both and "\nengine 1 iteration 0: " in both


def test_memory_that_moves_is_said_with_the_iteration(tmp_path: Path) -> None:
    tight = tmp_path / "tight.tsv"
    tight.write_text("20\t60\t0\n" * 4)
    told = said(tight, verbose=True, npu_mem=0.256)
    assert re.search(r"requests, \d tokens; evicted request 3 \(\d+ blocks, [\d.]+ MB\)", told)
    assert re.search(r"; reloaded request 3 \(\d+ blocks, [\d.]+ MB\)", told)


def test_notes_are_said_once(tmp_path: Path) -> None:
    beyond = tmp_path / "w.tsv"
    beyond.write_text("1000\t25\t0\n")
    assert said(beyond).count("go beyond the model's 1024 positions") == 1


def test_overload_is_said_at_the_end(tmp_path: Path) -> None:
    fast = tmp_path / "fast.tsv"
    fast.write_text("".join(f"500\t100\t{place * 1_000_000}\n" for place in range(200)))
    lines = said(fast, max_batch=1).splitlines()
    assert sum(line.startswith("note: overload: requests arrived at 1000 a second") for line in lines) == 1
    assert "overload:" not in said(fast, max_batch=0, req_num=3)


def test_why_a_run_was_stopped_is_said(dataset: Path) -> None:
    from orchestrator.engine.records import CompletedBatch
    from orchestrator.observers.interface import Observer, Stop

    class Enough(Observer):
        def batch(self, done: CompletedBatch) -> None:
            raise Stop("enough")

    out = io.StringIO()
    Simulation(RunSpec.of(model_name="gpt2", dataset=str(dataset)), [Console(out), IntervalLines(out), Enough()]).run()
    assert out.getvalue().endswith("stopped early: enough\n")


@pytest.mark.parametrize(
    ("state", "elapsed", "line"),
    [
        (
            State(50_000, 4321, 432_100_000_000, 41, 3, 621, 1000),
            12.0,
            "12.0 s: 4321 of 50000 requests done (8.6 %), simulated 432.1 s, running 41, waiting 3, KV in use 62.1 %, "
            "2 min left",
        ),
        (
            State(10),
            2.0,
            "2.0 s: 0 of 10 requests done (0.0 %), simulated 0.0 s, running 0, waiting 0, KV in use 0.0 %",
        ),
        (
            State(10, 10, 10**9, 0, 0, 0, 8),
            5.0,
            "5.0 s: 10 of 10 requests done (100.0 %), simulated 1.0 s, running 0, waiting 0, KV in use 0.0 %, 0 s left",
        ),
    ],
)
def test_a_line_of_progress_has_both_clocks_and_what_is_left(state: State, elapsed: float, line: str) -> None:
    assert state.line(elapsed) == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5999, "100 min"), (6000, "1.7 h")]
)
def test_times_are_told_as_people_tell_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on by 0.7 s each time it is asked."""
    now = [1000.0]

    def monotonic() -> float:
        now[0] += 0.7
        return now[0]

    monkeypatch.setattr(progress, "monotonic", monotonic)
    return now


def test_a_pipe_gets_a_line_now_and_then(dataset: Path, clock: list[float]) -> None:
    out = io.StringIO()
    Simulation(RunSpec.of(model_name="gpt2", dataset=str(dataset), macro_steps=1), [ProgressShown(out)]).run()
    lines = out.getvalue().splitlines()
    seconds = [float(line.partition(" s: ")[0]) for line in lines]
    assert 2.0 <= seconds[0] < 4.5
    assert all(10 <= later - earlier < 14 for earlier, later in pairwise(seconds))
    done = [int(re.findall(r": (\d) of 5 requests done", line)[0]) for line in lines]
    assert len(lines) >= 2 and done == sorted(done) and "running 1" in lines[-1]
    assert re.search(r"simulated 0\.0 s, running \d, waiting 0, KV in use 0\.0 %", lines[0])


def test_a_terminal_gets_a_bar_that_goes_away(
    dataset: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    Simulation(RunSpec.of(model_name="gpt2", dataset=str(dataset), macro_steps=1), [ProgressShown(out)]).run()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert re.search(r"[1-4]/5 .*simulated 0\.0 s, running [123], waiting 0, KV in use 0\.0 %, \d+ s left", shown)
    assert "\x1b[2K" in out.getvalue(), "its line is cleared"


def test_iterations_of_batches_that_take_turns_have_their_own_numbers_and_times(dataset: Path) -> None:
    """However many were worked out at once; then those of one batch are told together."""
    dataset.write_text("20\t30\t0\n" * 4)

    def told(most: int) -> list[str]:
        text = said(dataset, npu_num=2, npu_group=2, max_batch=2, verbose=True, macro_steps=most)
        return [line for line in text.splitlines() if line.startswith("iteration ")]

    singly, together = told(1), told(512)
    numbers = [int(line.split()[1].rstrip(":")) for line in singly]
    assert numbers == list(range(60)) and together != singly
    assert sorted(together) == sorted(singly)


def test_the_bar_has_gone_before_the_results_and_cuts_nothing_on_a_narrow_terminal(
    dataset: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    shown = said(dataset, Terminal(), macro_steps=1)
    during, _, results = shown.partition("Latency")
    assert "\x1b[2K" in during and "\x1b[2K" not in results
    assert during.count("\x1b[?25l") == during.count("\x1b[?25h") == 1, "the cursor is back"
    assert re.search(r"[1-4]/5", during) and "…" not in during and "s left" in during


def test_run_sh_ends_with_where_the_report_is(tmp_path: Path) -> None:
    """The command that the script runs, with the script's own flags."""
    script = (ROOT / "run.sh").read_text()
    flags = re.sub(r"\\\n", " ", script[script.index("main.py") :]).split()[1:-1]
    flags[flags.index("--output") + 1] = str(tmp_path / "example_run.csv")
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) <= 60 and lines[-1] == f"report: {tmp_path / 'example_run-report.html'}"
    assert done.stderr == ""
