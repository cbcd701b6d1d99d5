"""The command `python -m trace_test`: what it prints, line by line, and how it ends."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from converters.chakra import write_graph
from converters.execution_graph import ExecutionGraph
from converters.text import write_text_trace
from converters.text.table import COLUMNS
from foundation.errors import UserError
from tests.converters.traces import Row, make_trace
from tests.external.small_graphs import compute, rank_graph
from trace_test.__main__ import main
from trace_test.rule import rules
from trace_test.subjects import Reading, in_folder, read_subject

OF_GRAPHS = sorted(name for name in rules if rules.get(name).needs == "graph")
OF_TRACES = sorted(name for name in rules if rules.get(name).needs in ("trace", "model"))
OF_MODELS = sorted(name for name in rules if rules.get(name).needs == "model")


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, list[str]]:
    """Run the command in this process; return its exit code and the lines it printed."""
    monkeypatch.setattr(sys, "argv", ["trace_test", *map(str, arguments)])
    code = main()
    return code, capsys.readouterr().out.splitlines()


def write_et(folder: Path, name: str = "llm") -> None:
    write_graph(ExecutionGraph([rank_graph((0,), [compute(5)])]), folder / name)


def test_files_that_hold_and_what_could_not_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_et(tmp_path)
    write_text_trace(make_trace([Row("x", layer=0)]), tmp_path / "a.txt")
    graphs = [tmp_path / name for name in ("llm.0.et", "llm", "llm.0.et")]
    code, lines = run(capsys, monkeypatch, tmp_path / "a.txt", *graphs)
    assert (code, lines) == (0, [
        f"{tmp_path}/a.txt: cannot be checked for {', '.join(OF_MODELS)}",
        f"{tmp_path}/llm.0.et and 2 more: cannot be checked for {', '.join(OF_TRACES)}",
        "4 checked, no rule that could be checked is violated",
    ])  # fmt: skip


def test_violations_come_with_their_cause_once_a_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b\x1b[31m.txt"
    write_text_trace(make_trace([Row("o_proj", (0, 1)), Row("fc2", (0, 1))]), path)
    code, lines = run(capsys, monkeypatch, path)
    said = "collectives-placed: its output is a partial sum on every rank, but no collective follows"
    shown = f"{tmp_path}/b\\x1b[31m.txt"
    assert (code, lines) == (1, [
        f"{shown}: row 0 (o_proj): {said}",
        f"{shown}: row 1 (fc2): {said}",
        f"    likely cause: {rules.get('collectives-placed').cause}",
        f"{shown}: cannot be checked for {', '.join(OF_MODELS)}",
        "1 checked, 1 with violations",
    ])  # fmt: skip


def test_random_batches_are_counted_and_what_they_lack_is_not_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, monkeypatch, "--random", 2) == (0, ["2 checked, all rules hold"])


def test_every_rule_is_explained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = run(capsys, monkeypatch, "--list-rules")
    assert code == 0 and len(lines) == 3 * len(list(rules))
    for at, name in enumerate(rules):
        rule = rules.get(name)
        assert rule.name == name
        assert lines[3 * at : 3 * at + 3] == [
            f"{name} (needs a {rule.needs})", f"    {rule.about}", f"    likely cause: {rule.cause}"
        ]  # fmt: skip
        assert rule.about.endswith((".", ")")) and len(rule.about) > 40 and len(rule.cause) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to check; name traces, or give --random N"),
        (("--random", "0"), '--random: "0" is not a whole number of at least 1; see --help'),
        (("nowhere.0.et",), "nowhere.0.et: there is neither such a file nor a PREFIX.0.et; check the path"),
        (("nowhere",), "nowhere: there is neither such a file nor a PREFIX.0.et; check the path"),
        (("empty",), "empty: the folder holds no traces; name one with .txt or .et files"),
        (("a.txt", "--npu_num", "3", "--npu_group", "2"), "--npu_num: 3 NPUs cannot be split into 2 pipeline stages"),
        (("a.txt", "--network", "absent.yml"), "absent.yml: the network configuration does not exist; check the path"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    rows = "op_0 5 LOCAL 1 LOCAL 1 LOCAL 1 NONE 0 NONE\nop_1 5 LOCAL 1 LOCAL 1 LOCAL 1 NONE 0 NONE\n"
    (tmp_path / "a.txt").write_text(f"COLOCATED\t\tmodel_parallel_NPU_group: 2\n2\n{' '.join(COLUMNS)}\n{rows}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trace_test", *arguments])
    with pytest.raises(UserError) as error:
        main()
    assert str(error.value).startswith(message)


def test_what_a_folder_holds(tmp_path: Path) -> None:
    for name in ("b.txt", "a.0.et", "a.1.et", "c.json", "d.et", "network.yml"):
        (tmp_path / name).touch()
    assert in_folder(str(tmp_path)) == [f"{tmp_path}/a", f"{tmp_path}/b.txt"]
    assert in_folder("anything else") == ["anything else"]


def test_one_ranks_file_or_the_prefix_stands_for_all(tmp_path: Path) -> None:
    write_graph(ExecutionGraph([rank_graph((0, 1), [compute(5)])]), tmp_path / "llm[1]")
    for name in ("llm[1]", "llm[1].0.et", "llm[1].1.et"):
        subject = read_subject(str(tmp_path / name), Reading())
        assert subject.graph is not None and subject.graph.num_ranks == 2
        assert (subject.source, subject.prefix) == (str(tmp_path / name), str(tmp_path / "llm[1]"))


def test_a_text_that_cannot_be_read_is_a_subject_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("ORRERY\t9\n")
    subject = read_subject(str(tmp_path / "bad.txt"), Reading())
    assert subject.unreadable.startswith(f"{tmp_path}/bad.txt, line 1: the header is 'ORRERY\\t9'")
    assert subject.trace is subject.graph is None


def test_rows_that_cannot_be_lowered_are_checked_as_rows(tmp_path: Path) -> None:
    write_text_trace(make_trace([Row("x", (0, 1), comm=(1, 8), group=(0, 1, 2))]), tmp_path / "t.txt")  # type: ignore[arg-type]
    subject = read_subject(str(tmp_path / "t.txt"), Reading())
    assert subject.trace is not None and subject.graph is None


@pytest.mark.parametrize(
    "facts",
    [
        {"data_parallel": "1000000000"},
        {"tensor_parallel": "2²"},
        {"pipeline_parallel": "0"},
        {"pipeline_parallel": "33"},
        {"expert_parallel": "3"},
        {"model": "no such model"},
    ],
)
def test_a_mesh_that_cannot_be_is_no_models(tmp_path: Path, facts: dict[str, str]) -> None:
    """A file may claim any number of ranks: rules that look at each of them would not end."""
    named = {"model": "meta-llama/Llama-3.1-8B", "tensor_parallel": "1"}
    trace = make_trace([Row("embedding"), Row("lm_head")])
    for attributes, known in ((named, True), (named | facts, False)):
        write_text_trace(replace(trace, attributes=attributes), tmp_path / "trace.txt")
        assert (read_subject(str(tmp_path / "trace.txt"), Reading()).model is not None) is known
