"""Errors say what is wrong, where and what would be right, in one line."""

import subprocess
import sys

import pytest

from foundation.commands import run_command
from foundation.errors import SimulationError, UserError, near_names, raise_all


def test_place_comes_first_then_the_fault_then_the_remedy() -> None:
    error = UserError("'x' is not a number", fix="give tokens", path="w.tsv", line=3, field="input_toks")
    assert str(error) == "w.tsv, line 3, input_toks: 'x' is not a number; give tokens"


@pytest.mark.parametrize(("line", "expected"), [(None, "bad"), (7, "line 7: bad")])
def test_parts_that_are_unknown_are_left_out(line: int | None, expected: str) -> None:
    assert str(UserError("bad", line=line)) == expected


def test_near_names_ignore_case() -> None:
    assert near_names("rtx309", ["RTX3090", "A40"]) == "did you mean RTX3090?"


def test_without_a_near_name_the_known_ones_are_listed() -> None:
    assert near_names("zzz", ["b", "a"]) == "known: a, b"


def test_names_of_others_are_cut() -> None:
    assert str(UserError("bad", field="x" * 80)) == f"{'x' * 80}: bad"
    error = UserError("bad", field="x" * 81, path="f")
    assert str(error) == f"f, {'x' * 77}...: bad" and error.field == "x" * 81
    assert near_names("b" * 10**6, ["bbb", "a"]) == "known: a, bbb"


def test_all_problems_are_told_once_and_no_more_than_twenty() -> None:
    raise_all([])
    only = UserError("bad", path="f")
    with pytest.raises(UserError) as raised:
        raise_all([only])
    assert raised.value is only
    for count, end in ((20, "19: bad"), (21, "19: bad; and 1 more"), (35, "19: bad; and 15 more")):
        problems = [UserError("bad", path="f", field=str(number), line=number) for number in range(count)]
        with pytest.raises(UserError) as raised:
            raise_all([*problems, problems[0]])
        said = str(raised.value)
        assert said.startswith("f: line 0, 0: bad; line 1, 1: bad; ") and said.endswith(f"line 19, {end}")
    with pytest.raises(UserError, match=r"^f: bad; g: worse$"):
        raise_all([only, UserError("worse", path="g")])


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("wrong"), 2), (SimulationError("stuck"), 1), (KeyboardInterrupt(), 130)]
)
def test_commands_end_with_one_line_and_the_code_of_the_error(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    assert run_command(main) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_defects_of_ours_are_not_hidden() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main)


def test_names_that_are_no_text_are_printed_escaped() -> None:
    script = "from foundation.commands import run_command\n"
    script += r"run_command(lambda: print('a\udcff', '\u2603'))"
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment)
    assert ran.stdout == rb"a\udcff \u2603" + b"\n"
