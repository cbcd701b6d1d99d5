"""Workload files and the generator of the shipped ones."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean

import pytest

from foundation.errors import UserError
from orchestrator.workload import read_workload, write_workload
from orchestrator.workload_generator import PROFILES, generate, main

WORKLOADS = Path(__file__).parents[2] / "workloads"


def rows(path: Path, limit: int = 0) -> list[tuple[int, int, int, int | None]]:
    return [(r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line) for r in read_workload(path, limit)]


def test_the_header_is_optional_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("input_toks\toutput_toks\tarrival_time_ns\n10\t5\t0\n\n7\t3\t100\n")
    assert rows(path) == [(10, 5, 0, 2), (7, 3, 100, 4)]
    path.write_text("10\t5\t0\n7\t3\t100")
    assert rows(path) == [(10, 5, 0, 1), (7, 3, 100, 2)]
    assert rows(path, limit=1) == [(10, 5, 0, 1)]
    assert [request.id for request in read_workload(path)] == [0, 1]


def test_rows_beyond_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("10\t5\t0\nnonsense\n")
    assert len(rows(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\t5\t0\n7\t3\n", "line 2: malformed row '7 3'; expected three whole numbers"),
        ("10\t5\t0\n7\t3\t1\t9\n", "line 2: malformed row '7 3 1 9'"),
        ("7\t3.5\t0\n", "line 1: malformed row '7 3.5 0'"),
        ("input\toutput\tarrival\n", "line 1: malformed row 'input output arrival'"),
        ("1\t1\t0\ninput_toks\toutput_toks\tarrival_time_ns\n", "line 2: malformed row"),
        ("0\t3\t0\n", "line 1, input_toks: 0 is too small; at least 1"),
        ("3\t0\t0\n", "line 1, output_toks: 0 is too small; at least 1"),
        ("3\t1\t-1\n", "line 1, arrival_time_ns: -1 is too small; at least 0"),
        ("", "holds no requests"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "w.tsv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_workload(path))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the workload file does not exist"):
        list(read_workload(tmp_path / "none.tsv"))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = list(islice(generate("alpaca-like", 5.0, 3), 50))
    assert write_workload(tmp_path / "w.tsv", made) == 50
    assert [row[:3] for row in rows(tmp_path / "w.tsv")] == [
        (r.prompt_tokens, r.output_tokens, r.arrival_ns) for r in made
    ]


@pytest.mark.parametrize(("profile", "count"), [("sharegpt-like", 100), ("sharegpt-like", 300), ("alpaca-like", 100)])
def test_the_shipped_samples_are_what_the_generator_makes(tmp_path: Path, profile: str, count: int) -> None:
    write_workload(tmp_path / "w.tsv", islice(generate(profile, 10.0, 0), count))
    assert (tmp_path / "w.tsv").read_bytes() == (WORKLOADS / f"{profile}-{count}-rate10.tsv").read_bytes()


def test_seeds_differ_and_a_longer_workload_begins_with_the_shorter() -> None:
    def first(count: int, seed: int) -> list[tuple[int, int, int]]:
        made = islice(generate("sharegpt-like", 10.0, seed), count)
        return [(r.prompt_tokens, r.output_tokens, r.arrival_ns) for r in made]

    assert first(20, 1)[:10] == first(10, 1)
    assert first(10, 1) != first(10, 2)


@pytest.mark.parametrize("profile", PROFILES)
def test_means_are_the_published_ones_and_arrivals_are_poisson(profile: str) -> None:
    made = list(islice(generate(profile, 10.0, 7), 20_000))
    prompts, outputs = PROFILES[profile]
    assert fmean(r.prompt_tokens for r in made) == pytest.approx(prompts.mean, rel=0.05)
    assert fmean(r.output_tokens for r in made) == pytest.approx(outputs.mean, rel=0.05)
    gaps = [(b.arrival_ns - a.arrival_ns) / 1e9 for a, b in pairwise(made)]
    assert fmean(gaps) == pytest.approx(0.1, rel=0.03)
    assert fmean((gap - 0.1) ** 2 for gap in gaps) == pytest.approx(0.01, rel=0.08), "exponential: variance = mean^2"


def test_rate_zero_means_all_at_once() -> None:
    assert {r.arrival_ns for r in islice(generate("alpaca-like", 0, 0), 5)} == {0}


def test_the_command_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made.tsv"
    monkeypatch.setattr("sys.argv", ["x", str(path), "--req-num", "5", "--profile", "alpaca-like"])
    assert main() == 0
    assert len(rows(path)) == 5
    monkeypatch.setattr("sys.argv", ["x", str(path), "--profile", "alpaca"])
    with pytest.raises(UserError, match="did you mean alpaca-like"):
        main()


@pytest.mark.parametrize("first", ["input_toks\toutput_toks\tarrival_time_ns\n", ""])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, first: str) -> None:
    path = tmp_path / "marked.tsv"
    path.write_text(f"\ufeff{first}10\t5\t0\n", encoding="utf-8")
    assert [(r.prompt_tokens, r.output_tokens) for r in read_workload(path)] == [(10, 5)]
