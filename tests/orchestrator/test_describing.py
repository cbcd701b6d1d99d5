"""What a workload is like: figures worked out by hand, of tables and of what generators make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from generated import made

from orchestrator.commands.workload import run
from orchestrator.describing.figures import describe
from orchestrator.describing.sharing import BLOCK_SIZES, prefix_sharing
from orchestrator.request_table import RequestTable, TokenIds
from orchestrator.requests.request import Request


def table(*rows: tuple[int, int, int]) -> RequestTable:
    return RequestTable.of(Request(at, arrival, *lengths) for at, (arrival, *lengths) in enumerate(rows))


def test_figures_of_a_few_requests() -> None:
    found = describe(table((0, 10, 4), (10**9, 30, 4), (4 * 10**9, 20, 1)))
    assert (found.requests, found.arrivals, found.span_s, found.rate_per_s) == (3, 3, 4.0, 0.5)
    assert found.gaps_s is not None
    assert (found.gaps_s.distribution.mean, found.gaps_s.std, found.gaps_s.cv) == (2.0, 1.0, 0.5)
    assert found.burstiness == 4.0
    assert (found.prompts.distribution.mean, found.prompts.least, found.prompts.most) == (20.0, 10.0, 30.0)
    assert found.histograms == {"prompt": {8: 1, 16: 2}, "output": {1: 1, 4: 2}}
    assert found.rate is not None and found.rate[0].tolist() == [0, 2, 4] and found.rate[1].tolist() == [1.0, 0.5]
    assert found.sessions is None and found.sharing is None and found.priorities == {} and found.adapters == 0


def test_a_single_request_and_many_at_once_have_no_rate() -> None:
    for rows in ([(5, 3, 2)], [(5, 3, 2)] * 4):
        found = describe(table(*rows))
        assert found.rate_per_s is None and found.rate is None and found.burstiness is None and not found.dispersion


def test_dispersion_by_hand() -> None:
    """Two arrivals at the beginning of every other window of a second."""
    rows = [(2 * one * 10**9, 1, 1) for one in range(20) for _ in (0, 1)] + [(40 * 10**9, 1, 1)]
    by_window = {one.window_s: one for one in describe(table(*rows)).dispersion}
    assert (by_window[1.0].windows, by_window[1.0].index) == (40, 1.0), "counts 2 and 0: mean 1, variance 1"
    assert by_window[0.1].index == pytest.approx(2 - 40 / 400)
    assert 10.0 not in by_window, "four windows are too few"


@pytest.mark.parametrize(("burstiness", "about"), [(0.25, 4.0), (1.0, 1.0), (5.0, 0.2)])
def test_dispersion_and_burstiness_of_what_is_generated(burstiness: float, about: float) -> None:
    """Over long windows a renewal process's index of dispersion goes to the squared coefficient of variation."""
    found = describe(made(f"--burstiness {burstiness} --request_rate 50", 60_000))
    assert found.burstiness == pytest.approx(burstiness, rel=0.1)
    assert next(one.index for one in found.dispersion if one.window_s == 10.0) == pytest.approx(about, rel=0.4)


def test_sharing_by_hand() -> None:
    """Whole blocks that begin as something before: a prompt again, and a prompt with its answer."""
    first = list(range(256))
    ids = [first, first[:100] + [9] * 28, first + [7] * 64, [5] * 15, [6, *first[1:]]]
    prompts = TokenIds.of(ids)
    requests = RequestTable.of(Request(at, at, len(one), 64) for at, one in enumerate(ids))
    answers = TokenIds.of([[7] * 64, [], [], [], []])
    columns = [requests.id, requests.prompt_tokens, requests.output_tokens, requests.arrival_ns, requests.line]
    found = prefix_sharing(RequestTable(*columns, prompt_ids=prompts, output_ids=answers))
    assert found is not None and found.prompt_tokens == sum(map(len, ids))
    assert found.found_tokens == {16: 96 + 320, 64: 64 + 320, 256: 256}
    assert found.share(16) == 416 / (256 + 128 + 320 + 15 + 256)


def test_prefixes_that_all_share_are_found_but_for_the_first() -> None:
    found = prefix_sharing(made("--prefix_len 256 --input_tokens 44", 50))
    assert found is not None
    assert [found.found_tokens[size] for size in BLOCK_SIZES] == [49 * 256] * 3
    assert prefix_sharing(made("", 5)) is None


def test_sessions_are_described() -> None:
    flags = "--sessions multi-turn --session_counts fixed --session_times fixed --session_turns 3 --pause_time 2"
    found = describe(made(flags, 30))
    assert found.sessions is not None and found.arrivals == found.sessions.sessions == 10
    assert found.sessions.turns.most == 3.0 and found.sessions.pauses_s is not None
    assert found.sessions.pauses_s.distribution.mean == 2.0


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_the_command_describes_what_it_has_written(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--req_num", "300", "--burstiness", "0.5", "--seed", "4"]
    flags += ["--prefix_len", "64"] if suffix == "jsonl" else []
    path, page, figures = tmp_path / f"w.{suffix}", tmp_path / "w.html", tmp_path / "w.json"
    assert run([str(path), *flags]) == 0
    assert run(["--describe", str(path), "--report", str(page), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    for words in ("300 requests written", "CV of gaps", "variance / mean", "prompt tokens found, %"):
        assert words in printed
    shown = page.read_text()
    assert shown.startswith("<!DOCTYPE html>") and "Gaps between arrivals" in shown and shown.count("<svg") == 3
    held = json.loads(figures.read_text())
    direct = tmp_path / "direct.json"
    assert run(["--json", str(direct), *flags]) == 0
    assert {**json.loads(direct.read_text()), "workload": ""} == {**held, "workload": ""}
    assert held["requests"] == 300 and 0.3 < held["burstiness"] < 0.7
    assert (held["prefix_sharing"] is not None) == (suffix == "jsonl")


def test_one_request_has_a_page_too(tmp_path: Path) -> None:
    assert run(["--report", str(tmp_path / "w.html"), "--req_num", "1"]) == 0
    assert (tmp_path / "w.html").read_text().count("<svg") == 1


def test_rates_over_time_add_up() -> None:
    found = describe(made("--on_time 1 --off_time 5", 2000))
    assert found.rate is not None
    edges, rates = found.rate
    assert (np.diff(edges) * rates).sum() == pytest.approx(2000) and len(rates) == 60
