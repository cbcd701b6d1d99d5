"""``python -m analytical --serve``: what the command would have said, run after run, whatever a request is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from analytical_cases import COMPUTE, files, healthy

from analytical import __main__ as command
from analytical.collectives.models import Models
from analytical.command_line import command_help
from analytical.serving import LONGEST_REQUEST, serve
from foundation.commands import run_command

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Serving changes the current folder; the test's own is put back."""
    monkeypatch.chdir(tmp_path)
    yield


def served(*requests: object) -> list[dict[str, Any]]:
    """The answers to requests: objects, or lines as they are."""
    lines = [one if isinstance(one, str) else json.dumps(one) + "\n" for one in requests]
    answers = StringIO()
    serve(StringIO("".join(lines)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def request(folder: Path, *more: str, case: Any = None) -> dict[str, Any]:
    """A request for a case whose files are in `folder`, named relative to it."""
    folder.mkdir(exist_ok=True)
    arguments = [argument.replace(f"{folder}/", "") for argument in files(case or healthy(), folder)]
    return {"folder": str(folder), "arguments": [*arguments, *more]}


def printed(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the command returns and prints."""
    capsys.readouterr()
    code = run_command(lambda: command.main([argument.replace("=", f"={folder}/", 1) for argument in arguments]))
    said = capsys.readouterr()
    return {"exit_code": code, "stdout": said.out, "stderr": said.err.replace(f"{folder}/", "")}


def test_answers_are_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run, a deadlock, a file that is missing and another run, each in its own folder."""
    stuck = healthy()
    stuck["ranks"][3] = [dict(COMPUTE)]
    requests = [
        request(tmp_path / "a"),
        request(tmp_path / "b", case=stuck),
        request(tmp_path / "c"),
        request(tmp_path / "d"),
    ]
    (tmp_path / "c" / "system.json").unlink()
    answers = served(*requests)
    assert [answer["exit_code"] for answer in answers] == [0, 1, 2, 0]
    for one, answer in zip(requests, answers, strict=True):
        assert answer == printed(Path(one["folder"]), one["arguments"], capsys)
    assert answers[0]["stdout"].count(" finished, ") == 4 and answers[0]["stderr"] == ""
    assert answers[1]["stderr"].startswith("error: deadlock: ")


def test_solved_phases_are_shared_by_runs_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = Models.__init__
    monkeypatch.setattr(Models, "__init__", lambda self, machine: (made.append(machine), make(self, machine))[1])
    other = healthy()
    other["network"]["latency"] = [600]
    first, second = request(tmp_path / "a"), request(tmp_path / "b", case=other)
    answers = served(first, second, first, second)
    assert len(made) == 2
    assert answers[:2] == answers[2:] and answers[0] != answers[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{]\n", "error: line 1: not valid JSON"),
        ("[]\n", "error: line 1: the request is []"),
        ("{}\n", "error: folder is missing"),
        ('{"folder": "none", "arguments": []}\n', "error: none: cannot be entered: No such file or directory"),
        ('{"folder": ".", "arguments": [1]}\n', "error: line 1, arguments[0]: 1 is not a string"),
        ('{"folder": ".", "arguments": [], "more": 1}\n', "error: line 1, more: unknown field"),
        (
            '{"folder": ".", "arguments": ["--serve"]}\n',
            "error: --serve: a request cannot ask for a server; leave it out",
        ),
        ('{"folder": ".", "arguments": ["--sreve"]}\n', "error: "),
        ('{"folder": "."' + " " * LONGEST_REQUEST + ', "arguments": []}\n', "error: a request is a line of at most"),
        ('{"folder": ".", "arguments": []}', "error: a request is a line of at most"),
    ],
)
def test_a_wrong_request_is_answered_and_the_next_one_served(line: str, said: str, tmp_path: Path) -> None:
    last = json.dumps(request(tmp_path / "a")) + "\n"
    answers = served(line, last) if line.endswith("\n") else served(last, line)[::-1]
    assert answers[0]["exit_code"] == 2 and answers[0]["stdout"] == ""
    assert answers[0]["stderr"].startswith(said) and answers[0]["stderr"].count("\n") == 1
    assert answers[1]["exit_code"] == 0


def test_a_defect_ends_one_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback is the answer."""
    calls = []
    make = Models.__init__

    def fail_once(self: Models, machine: Any) -> None:
        calls.append(machine)
        if len(calls) == 1:
            raise ZeroDivisionError("a defect")
        make(self, machine)

    monkeypatch.setattr(Models, "__init__", fail_once)
    one = request(tmp_path / "a")
    answers = served(one, one)
    assert answers[0]["exit_code"] == 70
    assert answers[0]["stderr"].startswith("Traceback") and answers[0]["stderr"].endswith(
        "ZeroDivisionError: a defect\n"
    )
    assert answers[1]["exit_code"] == 0


def test_help_is_an_answer(tmp_path: Path) -> None:
    assert served({"folder": str(tmp_path), "arguments": ["--help"]}) == [
        {"exit_code": 0, "stdout": command_help() + "\n", "stderr": ""}
    ]


def test_the_process_answers_at_once_and_ends_with_its_input(tmp_path: Path) -> None:
    """Each answer comes before the next request is written; the end of input is exit code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "analytical", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stdout is not None
    line = json.dumps(request(tmp_path / "a")) + "\n"
    answers = []
    for _ in range(3):
        process.stdin.write(line)
        process.stdin.flush()
        answers.append(json.loads(process.stdout.readline()))
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")
    assert answers[0]["exit_code"] == 0 and answers[0] == answers[1] == answers[2]


class Pipe(StringIO):
    """Answers on their way to another program: only what was flushed arrives."""

    arrived = 0

    def flush(self) -> None:
        self.arrived = len(self.getvalue().splitlines())


class Asking(StringIO):
    """Requests of a program that reads each answer before it asks again."""

    def __init__(self, lines: list[str], answers: Pipe) -> None:
        super().__init__("".join(lines))
        self._answers = answers
        self._asked = 0

    def readline(self, size: int | None = -1, /) -> str:
        assert self._answers.arrived == self._asked, "the answer before has not arrived"
        self._asked += 1
        return super().readline(-1 if size is None else size)


def test_each_answer_arrives_before_the_next_request_is_read(tmp_path: Path) -> None:
    answers = Pipe()
    serve(Asking(["[]\n", "{}\n", "nothing\n"], answers), answers)
    assert len(answers.getvalue().splitlines()) == 3
