"""What the pages name is there: files and folders of ours, and the flags of the main job."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundation.settings.catalogue import catalogue
from orchestrator.commands.calibrate import CalibrateSettings
from orchestrator.commands.validate import ValidateSettings
from orchestrator.settings.specification import RunCommand

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
TO_BE_ADDED = {
    "trace_gen/families/bloom.py",
    "trace_gen/families/NAME.py",
    "configs/models/bigscience/bloom-560m.json",
    "benchmarks/mutation/equivalent.json",
}
"""Files that a page tells the reader to add, or that a program adds when there is something for them."""
OTHERS = {"help", "schema", "check"}
"""Flags that are no settings of a run."""
WRITTEN = ("output/", "shared/")


def named(page: Path) -> list[str]:
    """Return the paths in code spans of a page that begin with a folder of ours."""
    spans = re.findall(r"`([A-Za-z_.][\w./-]*/[\w./-]*)`", page.read_text())
    return [span for span in spans if span.split("/")[0] in FOLDERS and not span.startswith(WRITTEN)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    missing = [name for name in named(page) if name not in TO_BE_ADDED and not (ROOT / name).exists()]
    assert not missing


def test_pages_name_files() -> None:
    assert sum(len(named(page)) for page in PAGES) > 60


def test_the_reading_order_is_modules() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Reading the code") : readme.index("## Licence")]
    modules = re.findall(r"`([\w/]+\.py)`", section)
    assert len(modules) >= 12 and all((ROOT / module).is_file() for module in modules)


def test_flags_of_the_main_job_that_pages_name_exist() -> None:
    known = catalogue(RunCommand).spellings
    pages = (
        "usage.md",
        "clusters.md",
        "outputs.md",
        "scheduling.md",
        "vllm_scheduler.md",
        "performance_models.md",
        "api.md",
        "traffic.md",
    )
    wrong, seen = [], 0
    for page in pages:
        text = (ROOT / "docs" / page).read_text()
        commands = "\n".join(line for line in text.splitlines() if "python -m " not in line)
        for flag in re.findall(r"(?<![\w-])--((?:\[no-\])?[a-z][\w-]+)", commands):
            seen += 1
            if flag.replace("[no-]", "").replace("-", "_") not in {*known, *OTHERS}:
                wrong.append(f"{page}: --{flag}")
    assert seen > 100 and not wrong


def test_flags_of_commands_that_a_page_names_exist() -> None:
    known = {name for one in (RunCommand, ValidateSettings, CalibrateSettings) for name in catalogue(one).spellings}
    text = (ROOT / "docs" / "validation.md").read_text().replace("--save-result --save-detailed", "")
    flags = set(re.findall(r"(?<![\w-])--([a-z][\w-]+)", text)) - {"save-detailed"}
    assert len(flags) > 15 and flags <= known
