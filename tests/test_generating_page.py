"""docs/generating.md does what it says: its commands run, and its flags exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from foundation.settings.catalogue import catalogue
from orchestrator.cli import dispatch
from orchestrator.commands.workload import WorkloadCommand
from orchestrator.requests.formats import read_requests
from orchestrator.settings.specification import RunCommand

PAGE = (Path(__file__).parents[1] / "docs/generating.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
WRITTEN = re.compile(r"orrery workload (\S+\.(?:tsv|jsonl))")


def azure(path: Path, rows: int) -> None:
    times = [f"2023-11-16 18:{second // 60:02}:{second % 60:02}.0000000" for second in range(0, 3 * rows, 3)]
    lines = [f"{time},{300 + 97 * at % 4000},{5 + 13 * at % 400}" for at, time in enumerate(times)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")


def commands(block: str) -> list[str]:
    """Return the commands of a block; the loop over tasks and rates is written out."""
    if not block.startswith("for "):
        return block.strip().splitlines()
    inner = block.partition("; do orrery")[2].partition("; done")[0]
    pairs = [(task, rate) for task in ("code", "conv") for rate in ("1", "3", "5", "7")]
    return [f"orrery{inner}".replace("${task}", t).replace("$task", t).replace("$rate", r) for t, r in pairs]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:60])
def test_the_pages_commands_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (mixture,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    Path("mixture.yaml").write_text(mixture)
    for task in ("code", "conv"):
        azure(Path(f"AzureLLMInferenceTrace_{task}.csv"), 50)
    for command in commands(block):
        words = shlex.split(command)
        assert words[0] == "orrery" and dispatch(words[1:]) == 0
        for name in WRITTEN.findall(command):
            assert read_requests(name).rows >= 20


def test_there_are_commands_for_every_part() -> None:
    assert len(BLOCKS) >= 5 and sum(len(commands(block)) for block in BLOCKS) >= 20


def test_flags_that_the_page_names_exist() -> None:
    known = {*catalogue(RunCommand).spellings, *catalogue(WorkloadCommand).spellings, "schema", "write", "task", "rate"}
    named = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]+)", PAGE)}
    assert len(named) > 60 and not named - known


def test_vidurs_replay_keeps_the_rows_of_a_trace(tmp_path: Path) -> None:
    """Rescaled times, lengths in the file's order, prompts cut where a request would be too long."""
    trace, out = tmp_path / "trace.csv", tmp_path / "w.tsv"
    azure(trace, 40)
    flags = f"--arrivals_file {trace} --rate_scale 0.5 --lengths_file {trace} --lengths_order file --input_scale 2"
    assert dispatch(["workload", str(out), *flags.split(), "--max_request_tokens", "4096", "--req_num", "40"]) == 0
    was, now = read_requests(trace).requests, read_requests(out).requests
    assert now.arrival_ns.tolist() == (2 * was.arrival_ns).tolist()
    assert now.output_tokens.tolist() == was.output_tokens.tolist()
    cut = [min(2 * prompt, 4096 - output) for prompt, output in zip(was.prompt_tokens, was.output_tokens, strict=True)]
    assert now.prompt_tokens.tolist() == cut and any(2 * prompt > 4096 for prompt in was.prompt_tokens)
