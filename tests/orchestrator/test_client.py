"""What a client sees besides the engine: columns and figures of their own, and nothing else is another."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.clients import ClientTerms
from orchestrator.commands.run import simulate
from orchestrator.commands.validate import validate

RUN = ["--model_name", "openai-community/gpt2", "--req_num", "6", "--quiet"]
TERMS = ["--client_request_ms", "2", "--client_token_us", "0.5", "--client_return_ms", "3"]


def run(output: Path, *more: str) -> list[dict[str, str]]:
    assert simulate([*RUN, "--output", str(output), *more]) == 0
    with output.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_terms_by_hand() -> None:
    assert ClientTerms(1000, 10, 500).outside_ns(np.array([0, 7])).tolist() == [1500, 1570]


@pytest.mark.parametrize("more", [(), ("--instances", "2")])
def test_the_engines_own_times_are_what_they_are_without(tmp_path: Path, more: tuple[str, ...]) -> None:
    plain, seen = run(tmp_path / "a.csv", *more), run(tmp_path / "b.csv", "--client", "http", *TERMS, *more)
    for one, other in zip(plain, seen, strict=True):
        outside = 5_000_000 + 500 * int(one["input"])
        assert int(other.pop("client_TTFT")) == int(one["TTFT"]) + outside
        assert int(other.pop("client_latency")) == int(one["latency"]) + outside
        assert one == other


def test_the_summary_has_them_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = run(tmp_path / "b.csv", "--client", "http", *TERMS)
    figures: dict[str, Any] = json.loads((tmp_path / "b-summary.json").read_text())
    assert figures["client_ttft_ms"]["mean"] == pytest.approx(np.mean([int(row["client_TTFT"]) for row in rows]) / 1e6)
    assert figures["client_latency_ms"]["p99"] > figures["latency_ms"]["p99"]
    run(tmp_path / "a.csv")
    assert "client_ttft_ms" not in json.loads((tmp_path / "a-summary.json").read_text())


def test_such_a_run_can_be_compared(tmp_path: Path) -> None:
    run(tmp_path / "b.csv", "--client", "http")
    assert validate(["--recorded", str(tmp_path / "b.csv"), "--simulated", str(tmp_path / "b.csv")]) == 0
