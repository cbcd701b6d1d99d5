"""docs/adding.md does what it says: each example is one file, named by a flag or put into the folder of its like."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/adding.md").read_text()
PACKAGES = ("analytical", "astra_files", "configs", "converters", "external", "foundation", "orchestrator", "trace_gen")


@dataclass(frozen=True)
class Example:
    """A section of the page: the file it writes and what beside it, what it runs, and what that prints."""

    adds: str
    folder: str
    file: str
    source: str
    beside: dict[str, str]
    flags: list[str]
    printed: list[str]


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def examples() -> list[Example]:
    folders = dict(re.findall(r"^\| (an? [a-z ]+) \| `([a-z_/]+)/` \|", PAGE, re.MULTILINE))
    found = []
    for section in PAGE.split("\n## ")[1:]:
        (source,), (command,), (printed,) = (blocks(kind, section) for kind in ("python", "bash", "text"))
        title = section.partition("\n")[0].lower()
        file = re.findall(r"Write\s+`(\w+\.py)`", section)[0]
        beside = dict(zip(re.findall(r"as\s+`(\S+\.json)`", section), blocks("json", section), strict=True))
        main, plugin, named, *flags = shlex.split(command)[1:]
        assert (main, plugin, named) == ("main.py", "--plugin", file)
        found.append(Example(title, folders.pop(title), file, source, beside, flags, printed.splitlines()))
    assert not folders, "every line of the table has its section"
    return found


EXAMPLES = examples()


def python(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def write(example: Example, folder: Path) -> None:
    (folder / example.file).write_text(example.source)
    for name, text in example.beside.items():
        (folder / name).write_text(text)


def check(done: subprocess.CompletedProcess[str], example: Example) -> None:
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    for line in example.printed:
        assert line in printed


def test_the_page_has_an_example_of_everything_that_is_added_by_a_file() -> None:
    assert [example.adds for example in EXAMPLES] == [
        "a policy",
        "a router",
        "a performance model",
        "a routing",
        "a backend",
        "a workload format",
        "a model family",
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.adds)
def test_a_file_that_a_flag_names(example: Example, tmp_path: Path) -> None:
    write(example, tmp_path)
    main = ROOT / "main.py"
    check(python(main, "--plugin", example.file, *example.flags, "--output", "out/a.csv", cwd=tmp_path), example)
    settings = tmp_path / "out/a-settings.json"
    assert json.loads(settings.read_text())["plugin"] == example.file
    again = python(main, "--settings", settings, "--output", "out/b.csv", cwd=tmp_path)
    check(again, example)
    assert (tmp_path / "out/a.csv").read_bytes() == (tmp_path / "out/b.csv").read_bytes()
    without = python(main, *example.flags, cwd=tmp_path)
    assert without.returncode == 2 and without.stderr.count("\n") == 1, "only that file knows it"


def test_files_in_the_folders_of_their_like(tmp_path: Path) -> None:
    house = tmp_path / "house"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", house)
    for example in EXAMPLES:
        (house / example.folder / example.file).write_text(example.source)
        write(example, tmp_path)
        check(python(house / "main.py", *example.flags, cwd=tmp_path), example)
    shown = python("-X", "importtime", house / "main.py", "--help", cwd=tmp_path)
    assert "--launch_ns" in shown.stdout and not re.search(r"\| +(numpy|yaml|google)\b", shown.stderr), "still light"


def test_a_folder_of_plugins_and_their_flags_in_the_help(tmp_path: Path) -> None:
    for example in EXAMPLES:
        (tmp_path / example.file).write_text(example.source)
    shown = python(ROOT / "main.py", "--plugin", ".", "--help", cwd=tmp_path)
    plain = python(ROOT / "main.py", "--help", cwd=tmp_path)
    schema = json.loads(python(ROOT / "main.py", "--schema", "--plugin", ".", cwd=tmp_path).stdout)
    declared = {
        name for example in EXAMPLES for name in re.findall(r"^    (\w+): .* = setting\(", example.source, re.M)
    }
    assert declared == {"token_wait", "long_prompt", "operator_ns", "first_expert", "launch_ns"}
    for name in declared:
        assert f"--{name}" in shown.stdout and f"--{name}" not in plain.stdout
        assert name in schema["$defs"]["settings"]["properties"]
    assert "Backend: --backend launched:" in shown.stdout
