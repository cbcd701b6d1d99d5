"""docs/kernels.md does what it says: its commands run on its file, print what it shows, and its flags exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from foundation.settings.catalogue import catalogue
from orchestrator.cli import dispatch
from orchestrator.commands.kernels import KernelsSettings
from orchestrator.commands.pipeline import PipelineSettings
from orchestrator.pipeline.lengths import NAME, TASKS
from orchestrator.settings.specification import RunCommand

PAGE = (Path(__file__).parents[1] / "docs/kernels.md").read_text()
BLOCKS = re.findall(r"```(bash|text)\n(.*?)```", PAGE, re.DOTALL)


def test_the_pages_commands_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines are compared but for their blanks."""
    monkeypatch.chdir(tmp_path)
    (system,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    Path("system.yaml").write_text(system)
    printed: list[str] = []
    shown = 0
    for kind, block in BLOCKS:
        lines = [" ".join(line.split()) for line in block.splitlines()]
        if kind == "bash":
            for words in map(shlex.split, lines):
                more = ["--processes", "1"] if words[1] in ("kernels", "pipeline") else []
                assert words[0] == "orrery" and dispatch([*words[1:], *more]) == 0
            printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
            continue
        for line in lines:
            assert line in printed, line
            shown += 1
    assert len(BLOCKS) == 8 and shown >= 13


def test_flags_that_the_page_names_exist() -> None:
    known = {name for one in (KernelsSettings, PipelineSettings, RunCommand) for name in catalogue(one).spellings}
    named = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]+)", PAGE)}
    assert len(named) > 15 and not named - known


def test_the_distribution_is_the_one_that_is_shown() -> None:
    assert NAME in PAGE
    for task, parts in TASKS.items():
        shown = ", ".join(f"{one.median:,}, {one.variation}, {one.most:,} tokens" for one in parts[:1])
        assert f"| `{task}` | {shown} | " in PAGE
        assert f"{parts[1].median:,}, {parts[1].variation}, {parts[1].most:,} tokens |" in PAGE
