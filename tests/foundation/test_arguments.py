"""The parser of commands with files and actions, and every command's answer to a wrong command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import pytest

import analytical.__main__
import converters.__main__
import external.astra_sim.__main__
import orchestrator.cli
import orchestrator.replay.__main__
import trace_test.__main__
from foundation.arguments import Parser, whole
from foundation.commands import run_command
from foundation.errors import UserError

COMMANDS: dict[str, Callable[[], int | None]] = {
    "analytical": analytical.__main__.main,
    "converters": converters.__main__.main,
    "external.astra_sim": external.astra_sim.__main__.main,
    "main.py": orchestrator.cli.main,
    "orchestrator.replay": orchestrator.replay.__main__.main,
    "trace_test": trace_test.__main__.main,
}


@pytest.mark.parametrize("words", [["--bogus"], ["--bogus", "1"], ["--bogus=1"], ["-x"]])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_in_one_line(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    assert run_command(COMMANDS[name]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "usage:" not in said.err and len(said.err) < 400


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("orchestrator.replay", [], "the following arguments are required: CASE.json; see --help"),
        (
            "orchestrator.replay",
            ["c.json", "--vllm_verson", "0.19"],
            "--vllm_verson: unknown flag; did you mean --vllm_v",
        ),
        ("orchestrator.replay", ["c.json", "--vllm_version", "0.2"], "--vllm_version: invalid choice: '0.2'"),
        ("orchestrator.replay", ["c.json", "d.json"], '"d.json" belongs to no flag; see --help'),
        ("trace_test", ["--random", "0"], '--random: "0" is not a whole number of at least 1'),
        ("trace_test", ["--random", "1_000"], '--random: "1_000" is not a whole number of at least 1'),
        ("trace_test", ["--npu_num", "１６"], '--npu_num: "１６" is not a whole number of at least 1'),
        ("converters", ["--step", "-1", "a", "b"], '--step: "-1" is not a whole number of at least 0'),
        ("converters", ["--npu-num", "9999999999", "a", "b"], "of at least 1 and at most 2147483647"),
        (
            "external.astra_sim",
            ["check", "--astrasim", "x"],
            "--astrasim: unknown flag; did you mean --astra_sim, --astra_sim_image?",
        ),
        ("external.astra_sim", ["serve"], "the following arguments are required: --spool_dir/--spool-dir"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(
    name: str,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    assert run_command(COMMANDS[name]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_subcommands_refuse_like_commands_and_nothing_is_abbreviated() -> None:
    parser = Parser(prog="p")
    parser.add_argument("--first")
    under = parser.add_subparsers().add_parser("one")
    under.add_argument("--second")
    assert parser.parse_args(["--first", "a", "one", "--second", "b"]).second == "b"
    for words, fix in (
        (["one", "--secnd", "b"], "did you mean --second?"),
        (["--firs=a", "one"], "did you mean --first?"),
    ):
        with pytest.raises(UserError) as error:
            parser.parse_args(words)
        assert (error.value.what, error.value.fix) == ("unknown flag", fix)
    with pytest.raises(UserError, match="see --help"):
        parser.parse_args(["one", "--zzzzzz"])


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("+7", 7), ("9", 9)])
def test_whole_numbers_to_the_limits(text: str, value: int) -> None:
    assert whole(0, 9)(text) == value


@pytest.mark.parametrize("text", ["-1", "10", "1_0", "１", "1.0", "", " 1", "x", "1" * 50])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number of at least 0"):
        whole(0, 9)(text)
