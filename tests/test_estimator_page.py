"""docs/estimator.md does what it says: its commands run in order, print what it shows, and its flags exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from foundation.settings.catalogue import catalogue
from orchestrator.cli import dispatch
from orchestrator.commands.estimate import EstimateSettings
from orchestrator.commands.profile_gpu import ProfileGpuSettings
from orchestrator.commands.profile_model import ProfileModelSettings
from orchestrator.commands.profile_prompt import ProfilePromptSettings
from orchestrator.estimating import simulate

PAGE = (Path(__file__).parents[1] / "docs/estimator.md").read_text()
SETTINGS = (EstimateSettings, ProfileGpuSettings, ProfileModelSettings, ProfilePromptSettings)
BLOCKS = re.findall(r"```(bash|text)\n(.*?)```", PAGE, re.DOTALL)


def test_the_pages_commands_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines are compared but for their blanks; the one that is cut is compared as far as it goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.estimating.gpu.present_gpu", lambda: None)
    printed: list[str] = []
    shown = 0
    for kind, block in BLOCKS:
        lines = [" ".join(line.split()) for line in block.splitlines()]
        if kind == "bash":
            for words in map(shlex.split, lines):
                assert words[0] == "orrery" and dispatch(words[1:]) == 0
            printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
            continue
        for line in lines:
            assert any(one == line or (line[-1] == "," and one.startswith(line)) for one in printed), line
            shown += 1
    assert len(BLOCKS) >= 11 and shown >= 25


def test_the_pages_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, object] = {}
    exec(program, found)
    assert found["latencys"] == simulate("opt-6.7b", 1024, 512, gpu="a100 80g", batch_size=8)


def test_flags_that_the_page_names_exist() -> None:
    known = {name for settings in SETTINGS for name in catalogue(settings).spellings}
    named = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]+)", PAGE)}
    assert len(named) > 12 and not named - known
