"""What the fuzzer takes for a finding, how it mutates, and what it keeps."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from benchmarks.fuzz import corpus, session
from benchmarks.fuzz.__main__ import keep
from benchmarks.fuzz.mutating import VALUES, token_mutation, words_of
from benchmarks.fuzz.readers.graphs import messages_of, mutate_messages
from benchmarks.fuzz.target import LONGEST_ERROR, FindingError, Target, check, targets
from benchmarks.fuzz.worker import Findings
from converters.chakra import write_graph
from converters.chakra.framing import encode_varint
from converters.lowering import lower
from foundation.documents import read_json
from foundation.errors import SimulationError, UserError
from foundation.fields import Fields
from tests.converters.traces import transformer


def raises(error: Exception) -> Target:
    def read(path: Path) -> None:
        raise error

    return Target("a reader that fails", read)


def test_a_value_and_an_error_are_no_findings(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        assert path == tmp_path / "input" and path.read_bytes() == b"x" and list(tmp_path.iterdir()) == [path]

    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "over").touch()
    (tmp_path / "link").symlink_to("left")
    assert check(Target("", read), b"x", tmp_path) is None
    assert check(raises(UserError("wrong", path=tmp_path / "f")), b"x", tmp_path) == "/f: wrong"


def test_other_exceptions_are_findings(tmp_path: Path) -> None:
    for error in (ValueError("x"), SimulationError("x"), RecursionError(), MemoryError()):
        with pytest.raises(type(error)):
            check(raises(error), b"", tmp_path)
    allowed = Target("", raises(SimulationError("stuck")).read, ends=(SimulationError,))
    assert check(allowed, b"", tmp_path) == "stuck"


def test_errors_are_one_short_line(tmp_path: Path) -> None:
    assert check(raises(UserError("x" * LONGEST_ERROR)), b"", tmp_path) == "x" * LONGEST_ERROR
    with pytest.raises(FindingError, match=f"an error of {LONGEST_ERROR + 1} characters"):
        check(raises(UserError("x" * (LONGEST_ERROR + 1))), b"", tmp_path)
    two = UserError("x")
    two.args = ("one\ntwo",)
    with pytest.raises(FindingError, match="an error of more than one line"):
        check(raises(two), b"", tmp_path)


def test_the_shortest_input_of_a_place_is_kept(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "findings")

    def fail(content: bytes) -> None:
        try:
            raise ValueError(content)
        except ValueError as error:
            findings.keep(content, error)

    for content in (b"long", b"ok", b"other"):
        fail(content)
    (kept, told) = sorted((tmp_path / "findings").iterdir())
    assert kept.read_bytes() == b"ok" and kept.name.startswith("ValueError-test_fuzzing-")
    assert "ValueError: b'ok'" in told.read_text()


def test_mutations_are_drawn_from_the_seed_and_reach_behind_the_parser(tmp_path: Path) -> None:
    """Of token mutations of a document many are still JSON, and extreme values come in."""
    content = b'{"name": "x", "sizes": [1, 2, 3], "ratio": 0.5}'
    mutate = token_mutation(words_of([content]))
    counts: Counter[str] = Counter()
    for seed in range(600):
        changed = mutate(content, Random(seed))
        assert changed == mutate(content, Random(seed))
        error = check(targets.get("json"), changed, tmp_path)
        counts["same" if changed == content else "read" if error is None else "refused"] += 1
        counts["extreme"] += any(word in changed for word in VALUES if len(word) > 3 and word not in content)
    assert counts["read"] > 100 and counts["refused"] > 100 and counts["same"] < 60 and counts["extreme"] > 60


def test_words() -> None:
    assert words_of([b'{"a-b": 1.5e3, x_1}', b"x_1 " + b"y" * 200]) == (b'"a-b"', b"1.5e3", b"x_1")


def test_mutated_graphs_keep_their_frames(tmp_path: Path) -> None:
    """Lengths hold after a mutation, so that what is in the messages is looked at."""
    write_graph(lower(transformer(2, 1)), tmp_path / "g")
    content = (tmp_path / "g.0.et").read_bytes()
    messages = messages_of(content)
    assert sum(map(len, messages)) < len(content) and len(messages) > 3
    different = 0
    for seed in range(50):
        changed = mutate_messages(content, Random(seed))
        assert b"".join(encode_varint(len(message)) + message for message in messages_of(changed)) == changed
        different += messages_of(changed) != messages
    assert different > 40
    assert mutate_messages(b"", Random(1)) != b""


def test_a_corpus_is_chosen_for_what_it_reaches() -> None:
    """Inputs that reach nothing new are left out, the shorter of two alike stays, a finding never comes in; what only
    one reading does (the first imports, the collector runs) is reached by none."""
    once: list[Path] = []

    def read(path: Path) -> None:
        fields = Fields.of(read_json(path, "file"))
        if fields.has("defect"):
            raise ValueError
        if fields.integer("a", default=1) == 111 and not once:
            once.append(path)
        fields.finish()

    candidates = [b"{}", b'{"a": 2}', b'{"a": 111}', b'{"a": "x"}', b"[]", b'{"defect": 1}', b"{}" + b" " * 5000]
    chosen = corpus.choose(Target("", read), candidates)
    assert set(chosen) <= {b"{}", b'{"a": 2}', b'{"a": "x"}', b"[]"} and {b'{"a": "x"}', b"[]"} <= set(chosen)


def test_keeping_replaces_a_corpus_but_for_what_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path / "corpus")
    (tmp_path / "corpus" / "numbers").mkdir(parents=True)
    for name in ("mended-1", "old"):
        (tmp_path / "corpus" / "numbers" / name).write_bytes(b"1" * 9)
    (tmp_path / "work" / "numbers" / "inputs").mkdir(parents=True)
    (tmp_path / "work" / "numbers" / "inputs" / "found").write_bytes(b"1e3")
    keep("numbers", tmp_path / "work")
    kept = {path.name: path.read_bytes() for path in corpus.files("numbers")}
    assert kept.pop("mended-1") == b"1" * 9 and "old" not in kept
    assert b"1e3" in kept.values()
    assert capsys.readouterr().out.startswith("numbers: ")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.fuzz", *arguments]
    return subprocess.run(command, cwd=corpus.ROOT, capture_output=True, text=True, check=False)


def test_command_line() -> None:
    listed = fuzz("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(targets)
    for arguments, said in (((), "no reader is named"), (("jsn",), "unknown reader 'jsn'; did you mean json")):
        failed = fuzz(*arguments)
        assert failed.returncode == 2 and said in failed.stderr and len(failed.stderr.splitlines()) == 1


def test_without_atheris(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"atheris is not installed; pip install -e '\.\[fuzz\]'"):
        session.run("json", 1, tmp_path)


def test_sessions_sum_their_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker that a hang ended is followed by another, until the time is over."""
    clock = iter([0.0, 0.0, 6.0, 10.0])
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: object())
    asked = []

    def worker(reader: str, folder: Path, seconds: int) -> str:
        asked.append(seconds)
        (folder / "findings").mkdir(exist_ok=True)
        (folder / "findings" / f"timeout-{len(asked)}").touch()
        (folder / "findings" / f"timeout-{len(asked)}.txt").touch()
        peak = f"stat::peak_rss_mb: {90 - len(asked)}"
        return f"#5 NEW cov: {7 * len(asked)} ft: 9\nstat::number_of_executed_units: 100\n{peak}\n"

    monkeypatch.setattr(session, "_worker", worker)
    outcome = session.run("json", 10, tmp_path)
    assert asked == [10, 4]
    assert str(outcome) == "json: 200 inputs, 14 edges, at most 89 MiB, 2 findings"
    assert [path.name for path in outcome.findings] == ["timeout-1", "timeout-2"]


@pytest.mark.external
def test_a_session_with_atheris(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the fuzz extra is not installed")
    outcome = session.run("numbers", 3, tmp_path)
    assert outcome.inputs > 100 and outcome.edges > 3 and outcome.memory_mib < 1024 and not outcome.findings
